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
    from onnxcanon.errors import ModelError, OnnxcanonError, RuntimeUnavailableError, TransformError
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
    "Barrier",
    "Canonicalized",
    "Comparison",
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
    "alignment": ("Alignment",),
    "canonical.sketch": ("Sketch",),
    "comparison": ("Comparison",),
    "errors": (
        "ModelError",
        "OnnxcanonError",
        "RuntimeUnavailableError",
        "TransformError",
    ),
    "explaining.analysis": ("Analysis",),
    "landscape.barrier": ("Barrier",),
    "landscape.distance": ("Distances",),
    "landscape.flatness": ("Flatness",),
    "merging": ("Merged",),
    "model": (
        "Model",
        "load",
    ),
    "runtime.evaluation": ("Evaluation",),
    "transform": (
        "Transform",
        "load_transform",
    ),
    "verbs.align": ("align",),
    "verbs.analyze": ("analyze",),
    "verbs.apply": ("apply",),
    "verbs.barrier": ("barrier",),
    "verbs.canonicalize": (
        "Canonicalized",
        "canonicalize",
    ),
    "verbs.compare": ("compare",),
    "verbs.distance": ("distance",),
    "verbs.evaluate": ("evaluate",),
    "verbs.fingerprint": (
        "Fingerprint",
        "fingerprint",
    ),
    "verbs.flatness": ("flatness",),
    "verbs.merge": ("merge",),
    "verbs.scramble": (
        "Scrambled",
        "scramble",
    ),
    "verbs.sketch": ("sketch",),
    "verbs.verify": ("verify",),
    "verifying.verification": ("Verification",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
