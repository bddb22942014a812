"""Canonical forms of ONNX models: find every freedom of the weights that keeps the function, and remove it.

    >>> import onnxcanon as oc
    >>> [d.size for d in oc.analyze("models/digits_mlp_seed0.onnx").dimensions]
    [64, 32]
    >>> oc.canonicalize("models/digits_mlp_seed0.onnx", verify=False).model.save("canonical.onnx")

Every verb takes a path, an `onnx.ModelProto` or a `Model` and never changes its argument. Names are imported
at their first use: `import onnxcanon` itself costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxcanon.alignment import Alignment
    from onnxcanon.canonical.sketch import Sketch
    from onnxcanon.comparison import Comparison
    from onnxcanon.errors import (
        ArgumentError,
        DeviceUnavailableError,
        ModelError,
        OnnxcanonError,
        RuntimeUnavailableError,
        TransformError,
    )
    from onnxcanon.explaining.analysis import Analysis
    from onnxcanon.landscape.barrier import Barrier
    from onnxcanon.landscape.distance import Distances
    from onnxcanon.landscape.flatness import Flatness
    from onnxcanon.merging import Merged
    from onnxcanon.model import Model, load
    from onnxcanon.runtime.evaluation import Evaluation
    from onnxcanon.transform import Transform, load_transform
    from onnxcanon.verbs.align import align
    from onnxcanon.verbs.analyze import analyze
    from onnxcanon.verbs.apply import apply
    from onnxcanon.verbs.barrier import barrier
    from onnxcanon.verbs.canonicalize import Canonicalized, canonicalize
    from onnxcanon.verbs.compare import compare
    from onnxcanon.verbs.distance import distance
    from onnxcanon.verbs.evaluate import evaluate
    from onnxcanon.verbs.fingerprint import Fingerprint, fingerprint
    from onnxcanon.verbs.flatness import flatness
    from onnxcanon.verbs.merge import merge
    from onnxcanon.verbs.scramble import Scrambled, scramble
    from onnxcanon.verbs.sketch import sketch
    from onnxcanon.verbs.verify import verify
    from onnxcanon.verifying.verification import Verification

__version__ = "0.1.0"

__all__ = [
    "Alignment",
    "Analysis",
    "ArgumentError",
    "Barrier",
    "Canonicalized",
    "Comparison",
    "DeviceUnavailableError",
    "Distances",
    "Evaluation",
    "Fingerprint",
    "Flatness",
    "Merged",
    "Model",
    "ModelError",
    "OnnxcanonError",
    "RuntimeUnavailableError",
    "Scrambled",
    "Sketch",
    "Transform",
    "TransformError",
    "Verification",
    "align",
    "analyze",
    "apply",
    "barrier",
    "canonicalize",
    "compare",
    "distance",
    "evaluate",
    "fingerprint",
    "flatness",
    "load",
    "load_transform",
    "merge",
    "scramble",
    "sketch",
    "verify",
]

_HOMES = {
    "Alignment": "alignment",
    "Analysis": "explaining.analysis",
    "ArgumentError": "errors",
    "Barrier": "landscape.barrier",
    "Canonicalized": "verbs.canonicalize",
    "Comparison": "comparison",
    "DeviceUnavailableError": "errors",
    "Distances": "landscape.distance",
    "Evaluation": "runtime.evaluation",
    "Fingerprint": "verbs.fingerprint",
    "Flatness": "landscape.flatness",
    "Merged": "merging",
    "Model": "model",
    "ModelError": "errors",
    "OnnxcanonError": "errors",
    "RuntimeUnavailableError": "errors",
    "Scrambled": "verbs.scramble",
    "Sketch": "canonical.sketch",
    "Transform": "transform",
    "TransformError": "errors",
    "Verification": "verifying.verification",
    "load": "model",
    "load_transform": "transform",
}
"""The module of each name; verbs have one of their own."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOMES.get(name, f"verbs.{name}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return value


def __dir__() -> list[str]:
    return list(__all__)
