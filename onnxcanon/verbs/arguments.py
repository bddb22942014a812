"""What verbs are given: models, and how to run, each checked once and passed inward as one `Settings`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from onnxcanon.errors import OnnxcanonError
from onnxcanon.settings import Progress, Settings, silent

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import onnx_ir

    from onnxcanon.model import Model
    from onnxcanon.transform import Transform

ModelSource: TypeAlias = "str | os.PathLike[str] | bytes | onnx.ModelProto | onnx_ir.Model | Model"
"""A model: a path, or one in memory."""

Data: TypeAlias = "Mapping[str, np.ndarray] | str | os.PathLike[str]"
"""Inputs by name, or a file of them."""

Sizes: TypeAlias = "Mapping[str, int | Sequence[int]]"
"""Sizes of dynamic dimensions by name, unnamed ones by place (`x[1]`); whole shapes of inputs by name."""

Shares: TypeAlias = "Sequence[float]"
"""What each model contributes to an average."""

Strengths: TypeAlias = "Sequence[float]"
"""Strengths of noise, relative to each weight."""

TransformSource: TypeAlias = "Transform | str | os.PathLike[str]"
"""A transform, or the file of a saved one."""

Labels: TypeAlias = "str | os.PathLike[str] | np.ndarray"
"""Labels, or a file of them."""


def opened(source: ModelSource) -> Model:
    """The model that a verb was given.

    Raises:
        ModelError: it cannot be read.
    """
    from onnxcanon.model import load

    return load(source)


def all_opened(sources: ModelSource | Sequence[ModelSource], *more: ModelSource) -> list[Model]:
    """One model or several, as a list."""
    if isinstance(sources, Iterable) and not isinstance(sources, str | bytes | os.PathLike):
        return [opened(source) for source in (*sources, *more)]
    return [opened(source) for source in (sources, *more)]


def settings_for(
    model: Model,
    *,
    sizes: Sizes | None = None,
    device: str = "auto",
    seed: int = 0,
    data: Data | None = None,
    labels: Labels | None = None,
    progress: Progress | None = None,
) -> Settings:
    """How a verb runs; data is loaded here, and `sizes` are checked against the model.

    Raises:
        OnnxcanonError: data cannot be read, or there is no such dimension.
    """
    from onnxcanon.shapes.sizes import DynamicDimensions
    from onnxcanon.verbs.data import load_data

    if data is None and labels is not None:
        raise OnnxcanonError("labels say nothing without data; give inputs as well")
    arrays = None if data is None else load_data(model, data, labels)
    fixed = DynamicDimensions.of(model.ir.graph).fixed(sizes, model.name) if sizes else {}
    return Settings(fixed, device, seed, arrays, progress or silent)
