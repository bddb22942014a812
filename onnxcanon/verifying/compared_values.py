"""Which values of two models are compared: outputs, and values ahead of them that say more (see `probes`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from onnxcanon.errors import RuntimeUnavailableError
from onnxcanon.model import Model
from onnxcanon.verifying.probes import ARGMAX, Probe, randomness, same_graph, saturating_probes


@dataclass(frozen=True, slots=True)
class ComparedValue:
    """One value of each model to compare.

    Attributes:
        label: how reports name it: the output's name, with a remark for a value before it.
        a: the value's name in the first model.
        b: its name in the second.
        forget: for a value before a saturating operator, what that operator forgets.
        scores: for labels, the values before the ArgMax operators that decide them, of both models.
        bounded: whether its natural size is 1 (a probability).
    """

    label: str
    a: str
    b: str
    forget: Probe | None = None
    scores: tuple[tuple[Probe, Probe], ...] = ()
    bounded: bool = False

    def names(self, side: int) -> list[str]:
        """The values it needs of the first (0) or second (1) model."""
        return [self.b if side else self.a, *(pair[side].value for pair in self.scores)]


def compared_values(a: Model, b: Model) -> tuple[list[ComparedValue], dict[str, str]]:
    """What to compare, and the outputs that cannot be, with the reason.

    Raises:
        RuntimeUnavailableError: there is nothing to compare.
    """
    chance = randomness(a.ir)
    values: list[ComparedValue] = []
    skipped = {}
    for output in a.ir.graph.outputs:
        name = output.name or ""
        if name in chance.outputs:
            skipped[name] = f"it depends on chance ({chance.outputs[name]})"
        else:
            values += _with_probes(a, b, ComparedValue(name, name, name))
    if chance.frontier and same_graph(a.ir, b.ir):
        for name, op_type in chance.frontier.items():
            values += _with_probes(a, b, ComparedValue(f"{name} (into {op_type})", name, name))
    if not values:
        raise RuntimeUnavailableError(f"{a.name}: nothing can be compared: {listed(skipped)}")
    # A value before two outputs, or before an output and a random operator, is compared once.
    values = list({value.label: value for value in values}.values())
    once = {(value.a, value.b, value.forget): value for value in reversed(values)}
    return list(reversed(once.values())), skipped


def names_to_run(values: Sequence[ComparedValue], side: int) -> list[str]:
    """The values to compute in the first (0) or second (1) model, each once."""
    return list(dict.fromkeys(name for value in values for name in value.names(side)))


def listed(skipped: Mapping[str, str]) -> str:
    """What is not compared, in a sentence."""
    return "; ".join(f"{name!r}: {why}" for name, why in skipped.items()) or "it has no outputs"


def _with_probes(a: Model, b: Model, value: ComparedValue) -> list[ComparedValue]:
    """A value, and the values before the saturating operators it comes from."""
    probes_a, probes_b = saturating_probes(a.ir, value.a), saturating_probes(b.ir, value.b)
    if len(probes_a) != len(probes_b) or not all(map(Probe.matches, probes_a, probes_b)):
        return [value]
    pairs = list(zip(probes_a, probes_b, strict=True))
    scores = tuple(pair for pair in pairs if pair[0].form == ARGMAX)
    bounded = bool(pairs) and not scores  # by 1: what shows a Softmax, Sigmoid or Tanh
    values = [replace(value, scores=scores, bounded=bounded)]
    for probe, counterpart in pairs:
        mark = probe.op_type if len(pairs) == 1 else f"{probe.op_type} of {probe.value}"
        label = f"{value.label} (before {mark})"
        values.append(ComparedValue(label, probe.value, counterpart.value, forget=probe))
    return values
