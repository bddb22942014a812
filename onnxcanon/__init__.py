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
    from onnxcanon.api import (
        Canonicalized,
        Fingerprint,
        Scrambled,
        analyze,
        apply,
        canonicalize,
        compare,
        evaluate,
        fingerprint,
        scramble,
        sketch,
        verify,
    )
    from onnxcanon.api_landscape import barrier, distance, flatness
    from onnxcanon.api_merging import align, merge
    from onnxcanon.canonical.sketch import Sketch
    from onnxcanon.comparison import Comparison
    from onnxcanon.errors import (
        ModelError,
        OnnxcanonError,
        RuntimeUnavailableError,
        TransformError,
    )
    from onnxcanon.explaining.report import Analysis
    from onnxcanon.landscape.barrier import Barrier
    from onnxcanon.landscape.distance import Distances
    from onnxcanon.landscape.flatness import Flatness
    from onnxcanon.merging import Merged
    from onnxcanon.model import Model, load
    from onnxcanon.runtime.evaluation import Evaluation
    from onnxcanon.transform import Transform, load_transform
    from onnxcanon.verifying.result import Verification

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
    "api": (
        "Canonicalized",
        "Fingerprint",
        "Scrambled",
        "analyze",
        "apply",
        "canonicalize",
        "compare",
        "evaluate",
        "fingerprint",
        "scramble",
        "sketch",
        "verify",
    ),
    "api_landscape": ("barrier", "distance", "flatness"),
    "api_merging": ("align", "merge"),
    "canonical.sketch": ("Sketch",),
    "comparison": ("Comparison",),
    "errors": ("ModelError", "OnnxcanonError", "RuntimeUnavailableError", "TransformError"),
    "landscape.barrier": ("Barrier",),
    "landscape.distance": ("Distances",),
    "landscape.flatness": ("Flatness",),
    "merging": ("Merged",),
    "model": ("Model", "load"),
    "report": ("Analysis",),
    "runtime.evaluation": ("Evaluation",),
    "runtime.verification": ("Verification",),
    "transform": ("Transform", "load_transform"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
