"""The verb fingerprint: one name for all files of a model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from onnxcanon.results import Result
from onnxcanon.verbs.signature import verb

if TYPE_CHECKING:
    from onnxcanon.choices import Level
    from onnxcanon.settings import Progress
    from onnxcanon.verbs.arguments import ModelSource, Sizes


@dataclass(frozen=True, slots=True)
class Fingerprint(Result):
    """One name for all files of a model; `str` is the name.

    Attributes:
        path: the model.
        fingerprint: its name at the level asked for.
        structure: the digest of the graph alone.
        parameters: the number of weights.
        level: what the fingerprint looks through.
        notes: what to know, such as ties that could not be resolved within the limit.
    """

    path: str
    fingerprint: str
    structure: str
    parameters: int
    level: str = "canonical"
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The fingerprint, as JSON values."""
        return {**asdict(self), "notes": list(self.notes)}

    def __str__(self) -> str:
        return self.fingerprint


@verb
def fingerprint(
    model: ModelSource,
    *,
    level: Level = "canonical",
    sizes: Sizes | None = None,
    progress: Progress | None = None,
) -> Fingerprint:
    """Give a model a name that all its files share.

    It is equal for files that differ by permutation, power-of-two scale, sign, names, metadata, node order,
    producer or storage. Of the other levels, content keeps to the weights as they are, structure leaves them
    out, file is a digest of the bytes.

    Args:
        model: the model; its weights are read once or a few times.
        level: what the name looks through: `canonical` permutations, powers of two, signs, names, order and
            storage; `content` all of these but the first three; `file` nothing. `structure` leaves the
            weights out.
        sizes: sizes of dynamic dimensions by name, where the graph works only for some.
        progress: called with a short line before each step that lasts.

    Raises:
        ModelError: the model cannot be read.
        OnnxcanonError: there is no such level.
    """
    from onnxcanon.canonical.fingerprint import fingerprint as digest
    from onnxcanon.verbs.arguments import opened, settings_for
    from onnxcanon.weights import weight_count

    original = opened(model)
    settings = settings_for(original, sizes=sizes, progress=progress)
    settings.progress(f"reading {original.name}")
    name, notes = digest(original, level, settings)
    structure = name if level == "structure" else digest(original, "structure")[0]
    return Fingerprint(original.name, name, structure, weight_count(original), level, tuple(notes))
