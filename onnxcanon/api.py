"""The verbs of the command line as functions. Each takes a path, an `onnx.ModelProto` or a `Model`.

Results are small frozen objects: `print` shows them, `to_json()` gives plain values, and the models they hold
are evaluated lazily, tensor by tensor, when they are read or saved.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from onnxcanon.errors import OnnxcanonError, check_choice
from onnxcanon.explaining import report
from onnxcanon.model import Model, load
from onnxcanon.transform import Transform, load_transform
from onnxcanon.verifying.result import Verification

if TYPE_CHECKING:
    from onnxcanon.canonical.sketch import Sketch
    from onnxcanon.comparison import Comparison
    from onnxcanon.runtime.evaluation import Evaluation
    from onnxcanon.symmetry import Symmetry

__all__ = [
    "Canonicalized",
    "Fingerprint",
    "Scrambled",
    "analyze",
    "apply",
    "canonicalize",
    "compare",
    "evaluate",
    "fingerprint",
    "load",
    "load_transform",
    "scramble",
    "sketch",
    "verify",
]

ModelSource = str | os.PathLike[str] | onnx.ModelProto | Model
Data = Mapping[str, np.ndarray] | str | os.PathLike[str]
Labels = str | os.PathLike[str] | np.ndarray
Progress = Callable[[str], None]

KINDS = ("permute", "scale", "sign")
"""What a scramble may do."""


class _Transformed:
    """What every result with a transform says of it."""

    __slots__ = ()
    transform: Transform

    @property
    def changed(self) -> bool:
        """Whether any parameter changed."""
        return _acts(self.transform)

    @property
    def permuted(self) -> int:
        """How many parameters have entries that moved."""
        return self.transform.permuted

    @property
    def rescaled(self) -> int:
        """How many parameters have entries that were multiplied."""
        return self.transform.rescaled


@dataclass(frozen=True, slots=True)
class Canonicalized(_Transformed):
    """A canonical form.

    Attributes:
        model: the model in canonical form.
        transform: the group element that leads there.
        order: how the order was chosen.
        scale: how scales and signs were chosen.
        symmetry: the symmetry of the model.
        notes: what to know, such as a choice that could not be made.
        verification: the comparison of both models in onnxruntime; None if nothing changed or not asked for.
    """

    model: Model
    transform: Transform
    order: str
    scale: str
    symmetry: Symmetry
    notes: tuple[str, ...]
    verification: Verification | None = None

    @property
    def trivial(self) -> bool:
        """Whether the model has no freedom, so that it is its own canonical form."""
        return self.symmetry.trivial

    def to_json(self) -> dict[str, Any]:
        """What was done, as JSON values."""
        return {
            "model": self.model.name,
            "order": self.order,
            "scale": self.scale,
            "trivial": self.trivial,
            "permuted": self.permuted,
            "rescaled": self.rescaled,
            "notes": list(self.notes),
            "verification": None if self.verification is None else self.verification.to_json(),
        }

    def __str__(self) -> str:
        lines = [f"canonical form of {self.model.name} (order {self.order}, scale {self.scale})"]
        lines.append(f"  {_changes(self.transform)}")
        if self.verification is not None:
            lines.append(f"  {self.verification.reason}")
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


@dataclass(frozen=True, slots=True)
class Scrambled(_Transformed):
    """A random twin: another model of the same function, and the group element that leads there."""

    model: Model
    transform: Transform
    seed: int
    only: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """What was done, as JSON values."""
        return {
            "model": self.model.name,
            "seed": self.seed,
            "only": list(self.only),
            "permuted": self.permuted,
            "rescaled": self.rescaled,
        }

    def __str__(self) -> str:
        done = " ".join(self.only)
        return f"random twin of {self.model.name} (seed {self.seed}, {done})\n  {_changes(self.transform)}"


@dataclass(frozen=True, slots=True)
class Fingerprint:
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


def analyze(
    model: ModelSource,
    *,
    sizes: Mapping[str, int] | None = None,
    permute_constants: bool = False,
    allow_overridable: bool = False,
) -> report.Analysis:
    """Find what may change in a model without changing its function.

    Args:
        model: the model; its weights are not changed, and hardly read.
        sizes: sizes of dynamic dimensions by name, where the graph works only for some.
        permute_constants: whether constants that are data (masks, tables, frequencies) may move like weights.
        allow_overridable: whether constants that are graph inputs too, so the caller's, may.

    Raises:
        ModelError: the model cannot be read.
    """
    original = load(model)
    return report.analyze(
        original,
        sizes=_known(original, sizes),
        permute_constants=permute_constants,
        allow_overridable=allow_overridable,
    )


def canonicalize(
    model: ModelSource,
    *,
    order: str = "norm",
    scale: str = "pow2",
    base: float = 2.0,
    sizes: Mapping[str, int] | None = None,
    permute_constants: bool = False,
    allow_overridable: bool = False,
    verify: bool = True,
    device: str = "auto",
    seed: int = 0,
    data: Data | None = None,
    progress: Progress | None = None,
) -> Canonicalized:
    """Bring a model into canonical form, and verify it against the original in onnxruntime.

    Args:
        model: the model.
        order: how units that may change places are ordered: norm, lexicographic, nodesort, or none.
        scale: which scales and signs are chosen: pow2, balanced, unit, or none.
        base: the base of nodesort's digits, above 1.
        sizes: sizes of dynamic dimensions by name, where the graph works only for some.
        permute_constants: whether constants that are data (masks, tables, frequencies) may move like weights.
        allow_overridable: whether constants that are graph inputs too, so the caller's, may.
        verify: whether to run both models and compare; see the result's `verification.same`.
        device: where to run them: auto, cpu, cuda or cuda:N.
        seed: what the inputs are drawn from.
        data: inputs by name, or an .npz file of them, instead of drawn ones.
        progress: called with a short line before each step that lasts.

    Raises:
        ModelError: the model cannot be read.
        RuntimeUnavailableError: onnxruntime cannot run it, so that nothing can be verified.
        OnnxcanonError: there is no such order, scale or base.
    """
    from onnxcanon.canonical import canonicalize as choose

    original = load(model)
    arrays = _given(original, data)
    known = _known(original, sizes)
    found = choose(
        original,
        order=order,
        scale=scale,
        base=base,
        sizes=known,
        permute_constants=permute_constants,
        allow_overridable=allow_overridable,
        progress=progress,
    )
    verification = None
    if verify and _acts(found.transform):
        verification = _verify(
            original, found.model, known, device=device, seed=seed, data=arrays, progress=progress
        )
    return Canonicalized(
        found.model,
        found.transform,
        found.order,
        found.scale,
        found.symmetry,
        tuple(found.notes),
        verification,
    )


def fingerprint(
    model: ModelSource,
    *,
    level: str = "canonical",
    sizes: Mapping[str, int] | None = None,
    progress: Progress | None = None,
) -> Fingerprint:
    """The name that all files of one model share, whatever they call and store things.

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

    original = load(model)
    say = progress or (lambda _: None)
    say(f"reading {original.name}")
    found, notes = digest(original, level, _known(original, sizes))
    structure = found if level == "structure" else digest(original, "structure")[0]
    return Fingerprint(original.name, found, structure, report.weights(original), level, tuple(notes))


def sketch(
    model: ModelSource, *, sizes: Mapping[str, int] | None = None, progress: Progress | None = None
) -> Sketch:
    """A few kilobytes by which copies of a model are found again that were rescaled or changed a little.

    Args:
        model: the model; its weights are read parameter by parameter.
        sizes: sizes of dynamic dimensions by name, where the graph works only for some.
        progress: called with a short line before each step that lasts.

    Raises:
        ModelError: the model cannot be read.
    """
    from onnxcanon.canonical.sketch import sketch as draw

    original = load(model)
    if progress is not None:
        progress(f"sketching {original.name}")
    return draw(original, _known(original, sizes))


def compare(
    a: ModelSource,
    b: ModelSource,
    *,
    rtol: float | None = None,
    sizes: Mapping[str, int] | None = None,
    device: str = "auto",
    seed: int = 0,
    data: Data | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Are these the same model?

    Graphs are matched by structure, in normal form if they are spelled differently; parameters by the map
    that takes one model to the other. Only where there is none are the models run.

    Args:
        a: the first model.
        b: the second model.
        rtol: how near outputs have to be to be `close`, relative to each output's size; by default as near as
            rounding alone brings them.
        sizes: sizes of dynamic dimensions by name, where a graph works only for some.
        device: where models are run: auto, cpu, cuda or cuda:N.
        seed: what inputs for that are drawn from.
        data: inputs for that by name, or an .npz file of them, instead of drawn ones.
        progress: called with a short line before each step that lasts.

    Raises:
        ModelError: a model cannot be read.
    """
    from onnxcanon.comparison import compare as judge

    first, second = load(a), load(b)
    return judge(
        first,
        second,
        rtol=rtol,
        sizes=_known(first, sizes),
        device=device,
        seed=seed,
        data=_given(first, data),
        progress=progress,
    )


def verify(
    a: ModelSource,
    b: ModelSource,
    *,
    device: str = "auto",
    seed: int = 0,
    data: Data | None = None,
    rtol: float | None = None,
    sizes: Mapping[str, int] | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Run two models on the same inputs in onnxruntime and compare every output.

    Args:
        a: the reference: what rounding alone does to it is the tolerance.
        b: the model to compare with it.
        device: where to run them: auto, cpu, cuda or cuda:N.
        seed: what the inputs are drawn from.
        data: inputs by name, or an .npz file of them, instead of drawn ones.
        rtol: a tolerance relative to each output's size, instead of the measured one.
        sizes: sizes of dynamic dimensions by name.
        progress: called with a short line before each step that lasts.

    Raises:
        ModelError: a model cannot be read.
        RuntimeUnavailableError: onnxruntime cannot run a model.
    """
    first, second = load(a), load(b)
    options = {
        "device": device,
        "seed": seed,
        "data": _given(first, data),
        "rtol": rtol,
        "progress": progress,
    }
    return _verify(first, second, _known(first, sizes), **options)


def evaluate(
    models: ModelSource | Sequence[ModelSource],
    data: Data,
    *,
    labels: Labels | None = None,
    ensemble: bool = False,
    output: str | None = None,
    batch: int = 256,
    device: str = "auto",
    progress: Progress | None = None,
) -> list[Evaluation]:
    """Loss and accuracy of models on labelled data; of their averaged predictions as well, if asked for.

    Args:
        models: a model, or several.
        data: inputs by name and the labels `y`, or an .npz file of these, or a memory-mapped .npy file of the
            only input's values.
        labels: the labels, or an .npy file of them, where `data` does not hold any.
        ensemble: whether the last result is that of the average of all predictions.
        output: the output to judge, by name; by default the first.
        batch: how many examples run at a time where a model takes any number.
        device: where to run: auto, cpu, cuda or cuda:N.
        progress: called with a short line before each step that lasts.

    Raises:
        ModelError: a model cannot be read.
        OnnxcanonError: the data cannot be read, has no labels or does not fit.
        RuntimeUnavailableError: onnxruntime cannot run a model.
    """
    from onnxcanon.runtime.evaluation import evaluate as run

    if isinstance(models, str | os.PathLike | onnx.ModelProto | Model):
        models = [models]
    opened = [load(model) for model in models]
    known = _labelled(opened[0], data, labels)
    return run(opened, known, ensemble=ensemble, output=output, batch=batch, device=device, progress=progress)


def scramble(
    model: ModelSource,
    *,
    seed: int = 0,
    only: Sequence[str] = KINDS,
    sizes: Mapping[str, int] | None = None,
    permute_constants: bool = False,
    allow_overridable: bool = False,
) -> Scrambled:
    """A random model of the same function: permuted, scaled by powers of two, flipped.

    Args:
        model: the model.
        seed: what the group element is drawn from.
        only: what may be done: any of permute, scale, sign.
        sizes: sizes of dynamic dimensions by name, where the graph works only for some.
        permute_constants: whether constants that are data (masks, tables, frequencies) may move like weights.
        allow_overridable: whether constants that are graph inputs too, so the caller's, may.

    Raises:
        ModelError: the model cannot be read.
        OnnxcanonError: `only` names something else.
    """
    from onnxcanon.canonical.random_element import random_twin
    from onnxcanon.symmetry import symmetry

    for word in only:
        check_choice("change", word, KINDS)
    original = load(model)
    options = {"permute_constants": permute_constants, "allow_overridable": allow_overridable}
    group = symmetry(original, _known(original, sizes), **options)
    transform = random_twin(original, group, seed, only)
    return Scrambled(transform.apply(original), transform, seed, tuple(w for w in KINDS if w in only))


def apply(
    model: ModelSource,
    transform: Transform | str | os.PathLike[str],
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
    original = load(model)
    element = transform if isinstance(transform, Transform) else load_transform(transform)
    element.check(original)
    callers = [name for name in original.overridable() if name in element.actions]
    if callers and not allow_overridable:
        raise OnnxcanonError(
            f"{original.name}: the transform changes '{callers[0]}', which the caller may override;"
            " --allow-overridable applies it nevertheless"
        )
    return (element.inverse() if inverse else element).apply(original)


def _verify(a: Model, b: Model, sizes: Mapping[str, int] | None, **options: Any) -> Verification:
    from onnxcanon.verifying import verify as run_both

    named = {name: size for name, size in (sizes or {}).items() if not name.endswith("]")}
    return run_both(a, b, shapes=named or None, **options)


def _known(model: Model, sizes: Mapping[str, int] | None) -> dict[str, int] | None:
    """The sizes, if every name is one of a dynamic dimension; anonymous ones are called input[axis]."""
    if not sizes:
        return None
    from onnxcanon.shapes.sizes import Symbols

    names = list(Symbols(model.ir.graph).kinds)
    for name in sizes:
        if name not in names:
            has = f"it has {', '.join(names)}" if names else "it has none"
            raise OnnxcanonError(f"{model.name}: no dynamic dimension is called '{name}'; {has}")
    return dict(sizes)


def _given(model: Model, data: Data | None, labels: Labels | None = None) -> Mapping[str, np.ndarray] | None:
    """The same where data may be left out."""
    if data is None and labels is not None:
        raise OnnxcanonError("labels say nothing without data; give inputs as well")
    return None if data is None else _labelled(model, data, labels)


def _labelled(model: Model, data: Data, labels: Labels | None = None) -> Mapping[str, np.ndarray]:
    """Inputs by name, from a file of them or of the only one, with the labels beside them."""
    from onnxcanon.runtime.inputs import Stored, input_specs

    source = None if isinstance(data, Mapping) else os.fspath(data)
    if not isinstance(data, Mapping) and os.fspath(data).endswith(".npy"):
        names = [spec.name for spec in input_specs(model.ir, any_type=True)]
        if len(names) != 1:
            raise OnnxcanonError(
                f"{os.fspath(data)}: an .npy file holds one input, {model.name} has {len(names)};"
                " write an .npz file"
            )
        data = {names[0]: _mapped(data)}
    known = dict(_arrays(data))
    if labels is not None:
        known["y"] = labels if isinstance(labels, np.ndarray) else _mapped(labels)
    return known if source is None else Stored(known, source)


def _mapped(path: str | os.PathLike[str]) -> np.ndarray:
    """An array in a file of its own, memory-mapped."""
    name = os.fspath(path)
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError("it holds several arrays")
        return array
    except OSError as error:
        raise OnnxcanonError(f"{name}: {error.strerror or error}; name an .npy file") from error
    except (ValueError, EOFError, TypeError) as error:
        raise OnnxcanonError(f"{name}: not an .npy file of numbers; write one by numpy.save") from error


def _arrays(data: Data) -> Mapping[str, np.ndarray]:
    """Inputs by name; an .npz file is read without pickles."""
    if isinstance(data, Mapping):
        return data
    name = os.fspath(data)
    try:
        archive = np.load(name, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it holds one array without a name")
        with archive:
            return dict(archive)
    except OSError as error:
        raise OnnxcanonError(f"{name}: {error.strerror or error}; name an .npz file of inputs") from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        cause = " ".join(str(error).split())
        raise OnnxcanonError(
            f"{name}: not an .npz file of numbers: {cause}; write one by numpy.savez"
        ) from error


def _acts(transform: Transform) -> bool:
    return bool(transform.permuted or transform.rescaled)


def _changes(transform: Transform) -> str:
    if not _acts(transform):
        return "nothing changed"
    return f"{transform.permuted} parameters permuted, {transform.rescaled} rescaled"
