"""Which element types have a property: the one place that answers such questions."""

from __future__ import annotations

from onnx_ir import DataType

FLOATS = frozenset({DataType.FLOAT16, DataType.BFLOAT16, DataType.FLOAT, DataType.DOUBLE})
"""Types that neural networks compute in."""

SCALABLE = frozenset({DataType.FLOAT, DataType.DOUBLE})
"""Types whose entries can be rescaled: half precision has no room for it (range and rounding)."""

AVERAGED = FLOATS | {DataType.COMPLEX64, DataType.COMPLEX128}
"""Types whose entries have a mean. All others have to be equal in all models."""

INDEX_TYPES = frozenset({DataType.INT64, DataType.BOOL, DataType.STRING, DataType.UINT64, DataType.INT16})
"""Types of constants that are indices, shapes or masks, never weights."""

NUMPY_TYPES = frozenset({DataType.FLOAT, DataType.DOUBLE, DataType.FLOAT16})
"""Types of weights that onnxruntime takes as NumPy arrays."""
