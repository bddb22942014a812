"""What a method of alignment needs beside the models, and what it returns.

A method is a function of a frame (both models with the same numbers for the same units) and the settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onnxcanon.arrays import Array
from onnxcanon.errors import OnnxcanonError
from onnxcanon.settings import Settings
from onnxcanon.transform import Transform


@dataclass(frozen=True, slots=True)
class MethodResult:
    """The group element that a method chose.

    Attributes:
        element: the element in the frame, by the names of the reference.
        notes: what to know about it.
    """

    element: Transform
    notes: tuple[str, ...] = ()


def data_for(method: str, settings: Settings) -> Mapping[str, Array]:
    """The data, which this method cannot do without.

    Raises:
        OnnxcanonError: there is none.
    """
    if not settings.data:
        raise OnnxcanonError(
            f"aligning by {method} runs the models, so it needs data: give inputs by name; or align by"
            " weights"
        )
    return settings.data
