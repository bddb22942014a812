"""`python -m onnxcanon`."""

from onnxcanon.cli.main import main

if __name__ == "__main__":
    main()
