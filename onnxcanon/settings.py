"""How a verb runs, whatever it does: made once by the verb and passed inward as one argument."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxcanon.arrays import Array

Progress = Callable[[str], None]
"""Called with a short line before each step that lasts."""


def silent(_: str) -> None:
    """Progress that nobody follows."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a verb was asked for beside its own options.

    Attributes:
        sizes: sizes of dynamic dimensions by name; whole shapes of inputs by the input's name.
        device: where models run: auto, cpu, cuda or cuda:N.
        seed: the random seed.
        data: inputs (and labels) by name; None draws inputs at random.
        progress: called with a short line before each step that lasts.
    """

    sizes: dict[str, int] = field(default_factory=dict)
    device: str = "auto"
    seed: int = 0
    data: Mapping[str, Array] | None = None
    progress: Progress = silent


DEFAULTS = Settings()
"""Nothing in particular was asked for."""
