"""Concrete shapes, and where they are known the values, of everything a graph computes.

No runtime and no shape inference of ONNX: one small function per operator family says what shapes come out,
`fold` computes the values of shape arithmetic, `sizes` chooses what dynamic dimensions are set to,
`propagation` goes over the graph once and `samples` twice. An operator without a rule has the shape that the
file declares, or none.
"""

from onnxcanon.shapes.samples import Shapes, infer_shapes
from onnxcanon.shapes.values import SampleValue

__all__ = ["SampleValue", "Shapes", "infer_shapes"]
