"""The verb apply: a saved transform, done or undone."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from onnxcanon.verbs.signature import verb

if TYPE_CHECKING:
    from onnxcanon.model import Model
    from onnxcanon.verbs.arguments import ModelSource, TransformSource


@verb
def apply(
    model: ModelSource,
    transform: TransformSource,
    *,
    inverse: bool = False,
    allow_overridable: bool = False,
) -> Model:
    """Apply a transform, or undo it.

    Args:
        model: the model.
        transform: a transform, or the file of a saved one.
        inverse: whether to undo it.
        allow_overridable: whether it may change constants that are graph inputs too, so the caller's.

    Raises:
        ModelError: the model cannot be read.
        OnnxcanonError: it would change constants that are the caller's.
        TransformError: the transform cannot be read, or was made for another model.
    """
    from onnxcanon.errors import ArgumentError, OnnxcanonError, describe
    from onnxcanon.transform import Transform, load_transform
    from onnxcanon.verbs.arguments import opened

    original = opened(model)
    if not isinstance(transform, Transform | str | os.PathLike):
        raise ArgumentError(f"apply: {describe(transform)} is no transform; give one, or the file of one")
    element = transform if isinstance(transform, Transform) else load_transform(transform)
    element.check(original)
    callers = [name for name in original.overridable() if name in element.actions]
    if callers and not allow_overridable:
        raise OnnxcanonError(
            f"{original.name}: the transform changes '{callers[0]}', which the caller may override;"
            " --allow-overridable applies it nevertheless"
        )
    return (element.inverse() if inverse else element).apply(original)
