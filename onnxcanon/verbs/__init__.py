"""The verbs as functions, a file each. Every one takes a path, an `onnx.ModelProto` or a `Model`.

Results are small frozen objects: `print` shows them, `to_json()` gives plain values, and the models they hold
are evaluated lazily, tensor by tensor, when they are read or saved. A verb's signature and docstring are also
those of the command line, so these files import at the top only what costs nothing.
"""
