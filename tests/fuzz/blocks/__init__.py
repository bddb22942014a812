"""The blocks, one file per family; importing this package enters them all in the table."""

from tests.fuzz.blocks import (  # noqa: F401 - imported for their registration
    attention,
    branches,
    contraction,
    control,
    elementwise,
    indexing,
    layers,
    movement,
    normalization,
    quantized,
)
from tests.fuzz.blocks.registry import BLOCKS

__all__ = ["BLOCKS"]
