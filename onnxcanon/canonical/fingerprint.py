"""The fingerprint: one name for all files that hold the same model.

What it looks through grows from level to level: ``file`` nothing, ``content`` names, order and storage,
``canonical`` also permutations, powers of two and signs; ``structure`` leaves the weights out. All levels but
the first are digests of graphs (`digest`), `canonical` that of the canonical form in hash order, so equal
fingerprints mean equal functions at every level but `structure`. The version in a fingerprint changes when
any model's would.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blake3 import blake3

from onnxcanon.canonical.digest import Digest, contents, graph_digest, shapes_only
from onnxcanon.choices import LEVELS
from onnxcanon.errors import check_choice
from onnxcanon.model import Model
from onnxcanon.settings import DEFAULTS, Settings

if TYPE_CHECKING:
    from onnxcanon.symmetry import Symmetry
    from onnxcanon.transform import Transform

VERSION = 1


def named(level: str, digest: Digest) -> str:
    """A digest with the algorithm that made it, `onnxcanon-1-…`; levels beside canonical are named."""
    kind = "" if level == "canonical" else f"{level}-"
    return f"onnxcanon-{VERSION}-{kind}{digest.hex()}"


def fingerprint(
    model: Model, level: str = "canonical", settings: Settings = DEFAULTS
) -> tuple[str, list[str]]:
    """The fingerprint of a model at a level, and what to know about it.

    Args:
        model: any loaded model.
        level: canonical, content, structure or file.
        settings: the sizes of dynamic dimensions.

    Raises:
        OnnxcanonError: an unknown level.
    """
    check_choice("level", level, LEVELS)
    if level == "file":
        return named(level, _stored(model)), []
    if level == "structure":
        return named(level, graph_digest(model, shapes_only(model))), []
    if level == "content":
        return named(level, graph_digest(model, contents(model))), []
    from onnxcanon.symmetry import symmetry

    transform, notes = hash_form(model, symmetry(model, settings.sizes))
    form = transform.apply(model)
    return named(level, graph_digest(form, contents(form))), notes


def hash_form(model: Model, symmetry: Symmetry) -> tuple[Transform, list[str]]:
    """The transform to the canonical form in hash order, and what to know about it."""
    from onnxcanon.canonical.choose_scales import scaling
    from onnxcanon.canonical.hash_order import hash_order

    scaled, notes = scaling(model, symmetry, "pow2")
    if not symmetry.solution.tree:
        return scaled, notes
    permutation, more = hash_order(model, symmetry, scaled)
    return scaled.then(symmetry.action(permutation)), [*notes, *more]


def _stored(model: Model) -> Digest:
    """The bytes of the files a model is stored in, external ones in the order of their names."""
    out = blake3()
    for buffer in model.stored():
        out.update(len(buffer).to_bytes(8, "little"))
        out.update(buffer)
    return out.digest()
