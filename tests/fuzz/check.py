"""The check: a random element of the whole group must change no output."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx

from onnxcanon.model import Model, load
from onnxcanon.symmetry import Symmetry, symmetry
from onnxcanon.tracing.constraints import Reason
from onnxcanon.transform import Transform
from onnxcanon.verifying.smooth.model import smooth_model
from tests.fuzz.builder import TOLERANCE, Array, nodes_in
from tests.fuzz.graphs import Case, outputs_of, tensors

JUMPING = ("QuantizeLinear", "DynamicQuantizeLinear", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul")


@dataclass
class Report:
    """What a check found: `problem` is empty for a graph that passes."""

    problem: str = ""
    permuted: bool = False
    scaled: bool = False
    flipped: bool = False
    control: bool | None = None  # whether half of the transform changed the outputs
    barriers: list[str] = field(default_factory=list)
    error: float = 0.0


def difference(one: Sequence[Array], other: Sequence[Array]) -> float:
    """Largest difference relative to the largest entry of each output."""
    worst = 0.0
    for p, q in zip(one, other, strict=True):
        if p.shape != q.shape:
            return math.inf
        if p.dtype.kind != "f":
            worst = max(worst, float(not np.array_equal(p, q)))
            continue
        if not np.isfinite(q).all():
            return math.inf
        top = max(float(np.abs(p).max(initial=0.0)), 1e-3)
        worst = max(worst, float(np.abs(p.astype(np.float64) - q).max(initial=0.0)) / top)
    return worst


def worst_difference(one: list[list[Array]], other: list[list[Array]]) -> float:
    return max(difference(p, q) for p, q in zip(one, other, strict=True))


def as_it_is(model: Model) -> onnx.ModelProto:
    """The model itself, whose integers have to be the same bit for bit."""
    return model.to_proto()


def smooth(model: Model) -> onnx.ModelProto:
    """A model that quantizes floats jumps where its twin rounds otherwise: without its rounding, then."""
    jumps = any(n.op_type in JUMPING for n in model.ir.graph)
    return (smooth_model(model) if jumps else model).to_proto()


def check(case: Case, seed: int = 0, ran: Callable[[Model], onnx.ModelProto] = smooth) -> Report:
    """Analyze, transform, compare what is `ran`. Every exception of ours is a finding, of onnxruntime too."""
    rng = np.random.default_rng([seed, 7])
    try:
        model = load(case.proto)
        found = symmetry(model)
        report = _report(found)
        if found.solution.failures:
            report.problem = f"defect: {found.solution.failures[0]}"
            return report
        if any(b.reason is Reason.OTHER_SHAPE for b in found.trace.unsupported):
            report.problem = "a rule and shape inference differ"
            return report
        whole = found.random(rng)
        report.problem = _algebra(case, found, whole, rng)
        if report.problem:
            return report
        before = outputs_of(case, ran(model))
        report.error = worst_difference(before, outputs_of(case, ran(whole.apply(model))))
        if report.error > TOLERANCE["float64" if _in_double(case) else "float32"]:
            report.problem = f"mismatch: {_magnitude(report.error)}"
        elif len(whole.actions) > 1:
            report.control = _control(case, whole, before, rng, ran)
    except Exception as error:  # whatever it is, it is a finding
        return Report(f"{type(error).__name__}: {str(error)[:200]}")
    return report


def _magnitude(error: float) -> str:
    return "not finite" if not math.isfinite(error) else f"about 1e{round(math.log10(error))}"


def _in_double(case: Case) -> bool:
    """Whether the graph computes in double precision throughout."""
    kinds = {a.dtype.name for a in (*case.feeds[0].values(), *tensors(case).values())}
    single = {
        "GroupNormalization",
        "LayerNormalization",
        "RMSNormalization",
    }  # stage one is in single precision
    nodes = [n for block in (case.proto.graph, *case.proto.functions) for n in nodes_in(block)]
    return "float64" in kinds and not any(n.op_type in single for n in nodes)


def _report(found: Symmetry) -> Report:
    scales, signs = found.acting
    return Report(
        permuted=bool(found.solution.tree), scaled=bool(scales.any()), flipped=bool(signs.any()),
        barriers=[f"{x.operator}: {x.reason}" for x in found.trace.unsupported],
    )  # fmt: skip


def _algebra(case: Case, found: Symmetry, whole: Transform, rng: np.random.Generator) -> str:
    """Inverse and composition, bit for bit (all factors are powers of two)."""
    model = load(case.proto)
    back = whole.apply(model)
    back = whole.inverse().apply(back)
    composed = whole.then(whole.inverse()).apply(model)
    still = found.random(rng, scale=False, sign=False)
    again = still.inverse().apply(still.apply(model))
    for name in whole.changes:
        want = model.tensor(name)
        for what, other in (("undoing it", back), ("composing it with its inverse", composed)):
            if not np.array_equal(want, other.tensor(name)):
                return f"algebra: {what} does not give the model back"
    for name in still.changes:
        if model.tensor(name).tobytes() != again.tensor(name).tobytes():
            return "algebra: undoing a permutation does not give the bytes back"
    other = found.random(rng)
    two = other.apply(whole.apply(model))
    one = whole.then(other).apply(model)
    for name in {*whole.changes, *other.changes}:
        if not np.array_equal(two.tensor(name), one.tensor(name)):
            return "algebra: composing is not applying one after the other"
    return ""


def part(whole: Transform, names: Sequence[str]) -> Transform:
    """The transform on some of the parameters, or stacks of them, that it changes."""
    stacks = {n: m for n, m in whole.stacks.items() if n in names}
    return Transform({n: whole.actions[n] for n in names}, whole.model, stacks)


def _control(
    case: Case,
    whole: Transform,
    before: list[list[Array]],
    rng: np.random.Generator,
    ran: Callable[[Model], onnx.ModelProto],
) -> bool:
    """Whether some proper part of the transform changes the outputs, as it should."""
    names = sorted(whole.actions)
    for _ in range(3):
        chosen = rng.permutation(names)[: max(1, len(names) // 2)].tolist()
        half = part(whole, chosen)
        try:
            if worst_difference(before, outputs_of(case, ran(half.apply(load(case.proto))))) > 1e-4:
                return True
        except Exception:
            return True
    return False
