"""What a method of alignment is given beside the models, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from onnxcanon.errors import OnnxcanonError
from onnxcanon.transform import Transform


@dataclass(frozen=True, slots=True)
class MethodContext:
    """What a method may use.

    Attributes:
        data: inputs by name, and perhaps labels `y`.
        seed: what chance is drawn from.
        device: where models are run.
        say: called with a line before each step that lasts.
    """

    data: Mapping[str, np.ndarray] | None = None
    seed: int = 0
    device: str = "auto"
    say: Callable[[str], None] = lambda _: None

    def inputs(self, method: str) -> Mapping[str, np.ndarray]:
        """The data, which this method cannot do without.

        Raises:
            OnnxcanonError: there is none.
        """
        if not self.data:
            raise OnnxcanonError(
                f"aligning by {method} runs the models, so it needs data: give inputs by name; or align by"
                " weights"
            )
        return self.data


@dataclass(frozen=True, slots=True)
class MethodResult:
    """What a method found.

    Attributes:
        element: the element of the group in the frame, by the names of the reference.
        notes: what to know about it.
    """

    element: Transform
    notes: tuple[str, ...] = ()
