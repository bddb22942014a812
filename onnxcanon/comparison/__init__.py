"""Are two models the same? From the strongest verdict to the weakest.

Graphs are matched by structure, parameters by the map that takes one model to the other. Where graphs are
spelled differently they are compared in normal form; where no map is found the models are run.
"""

from onnxcanon.comparison.verdict import VERDICTS, Comparison, compare

__all__ = ["VERDICTS", "Comparison", "compare"]
