"""What every result with a transform says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxcanon.results import Result
from onnxcanon.text import plural

if TYPE_CHECKING:
    from onnxcanon.transform import Transform


class Transformed(Result):
    """A result with the group element that led to it."""

    __slots__ = ()
    transform: Transform

    @property
    def changed(self) -> bool:
        """Whether any parameter changed."""
        return bool(self.permuted or self.rescaled)

    @property
    def permuted(self) -> int:
        """How many parameters have entries that moved."""
        return self.transform.permuted

    @property
    def rescaled(self) -> int:
        """How many parameters have entries that were multiplied."""
        return self.transform.rescaled

    @property
    def summary(self) -> str:
        """What the transform did, in words."""
        return changes(self.transform) if self.changed else "nothing changed"


def changes(transform: Transform) -> str:
    """What a transform does, in words."""
    return f"{plural(transform.permuted, 'parameter')} permuted, {transform.rescaled} rescaled"
