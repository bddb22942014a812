"""Rules and helpers made wrong on purpose, each on a graph where it matters: the certificate, the analyzer's
own errors or a run of the model must notice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from onnxcanon import symmetry as analysis
from onnxcanon.graph.operators import STANDARD, Key
from onnxcanon.solving import solve
from onnxcanon.solving.rescaling import solve_exponents, unite_exponents
from onnxcanon.tracing.abstract_value import constant
from onnxcanon.tracing.constraints import Constraints, System
from onnxcanon.tracing.context import Context
from onnxcanon.tracing.rules import SYMMETRIES
from onnxcanon.tracing.rules import convolution as conv_rules
from onnxcanon.tracing.rules import normalization as norm_rules
from tests.fuzz.check import check
from tests.fuzz.graphs import Case, generate
from tests.test_rules import case, hidden, weights

Patch = pytest.MonkeyPatch
Rule = Callable[..., Any]
SEEDS = range(6)


@dataclass(frozen=True)
class Mutant:
    """A name, what it does to the package, the graph on which that matters."""

    name: str
    apply: Callable[[Patch], None]
    graph: Callable[[], Case] = field(default=lambda: layer("Relu"))


def layer(operator: str, opset: int = 18, **constants: Any) -> Case:
    """x -> a[n, 6] -> the operator -> y."""
    return hidden(f"h = {operator}(a)" if "(" not in operator else operator, constants, opset)


def image(body: str, shape: str = "1, 3, 3, 3", **constants: Any) -> Case:
    """x[1, 2, 4, 4] -> a[1, 4, 4, 4] -> the body's h -> y."""
    text = f"""g (float[1, 2, 4, 4] x) => (float[1, 3, 4, 4] y) {{
        a = Conv(x, w1)
        {body}
        y = Conv(h, w2)
    }}"""
    return case(text, {"w1": weights(4, 2, 1, 1), "w2": weights(3, 4, 1, 1), **constants}, 18)


def entered(name: str) -> Rule:
    """The rule of an operator of the standard."""
    return SYMMETRIES.entries[Key(STANDARD, name)]


def rule(name: str, wrong: Rule) -> Callable[[Patch], None]:
    return lambda patch: patch.setitem(SYMMETRIES.entries, Key(STANDARD, name), wrong)


def passing(ctx: Context, op: Any) -> Any:
    """Everything passes: any function taken for the identity."""
    return ctx.copy(ctx.bind(op.x(0)))


def unclaimed_pins(name: str, claims: int) -> Callable[[Patch], None]:
    """The rule says that it handles an input which it does not read."""

    def apply(patch: Patch) -> None:
        right = entered(name)

        def wrong(ctx: Context, op: Any) -> Any:
            out = right(ctx, op)
            op.claimed.add(claims)
            return out

        patch.setitem(SYMMETRIES.entries, Key(STANDARD, name), wrong)

    return apply


def ignoring(name: str, unread: int) -> Callable[[Patch], None]:
    """The rule handles only its first inputs, and claims the rest."""

    def apply(patch: Patch) -> None:
        def wrong(ctx: Context, op: Any) -> Any:
            for k in range(unread, len(op.node.inputs)):
                ctx.bind(op.x(k))
            return ctx.copy(ctx.bind(op.x(0)))

        patch.setitem(SYMMETRIES.entries, Key(STANDARD, name), wrong)

    return apply


def method(owner: Any, name: str, wrong: Rule) -> Callable[[Patch], None]:
    return lambda patch: patch.setattr(owner, name, wrong)


def mirrored_transpose(ctx: Context, op: Any) -> Any:
    x = op.x(0)
    return ctx.transpose(x, np.argsort(op.attr("perm")).tolist())


RIGHT = {
    name: getattr(Context, name)
    for name in ("concat", "contract", "elementwise", "merge_axes", "split_axis", "take", "reduce")
}


def taken_one_off(self: Context, v: Any, axis: int, index: Any) -> Any:
    return RIGHT["take"](self, v, axis, (np.asarray(index) + 1) % v.shape[axis])


def joined_backwards(self: Context, values: Any, axis: int) -> Any:
    return RIGHT["concat"](self, list(values)[::-1], axis)


def column_dropped(self: Context, values: Any, axis: int) -> Any:
    """The last part's labels replaced by the first's, where they fit."""
    return RIGHT["concat"](self, [values[0]] * len(values), axis)


def sum_as_product(self: Context, values: Any, *, product: bool = False) -> Any:
    return RIGHT["elementwise"](self, values, product=True)


def product_as_sum_of_none(self: Context, values: Any, *, product: bool = False) -> Any:
    return self.copy(self.bind(values[0]))


def dense_grouped(ctx: Context, x: Any, w: Any, out: Any, groups: int, *, transposed: bool) -> None:
    """Every output channel may change places with every other; inputs too."""
    conv_rules._put(out, w.ids[0], w.exponents[0])


def halves_alike(ctx: Context, op: Any) -> Any:
    """Split gives its first part each time."""
    x = op.x(0)
    n = op.out_shapes(0)[0][op.axis(0, x.rank)]
    return [ctx.take(x, op.axis(0, x.rank), np.arange(n)) for _ in op.node.outputs]


def attention() -> Case:
    text = """g (float[2, 3, 4] x) => (float[2, 3, 2] y) {
        q = MatMul(x, wq)
        k = MatMul(x, wk)
        v = MatMul(x, wv)
        t = Transpose<perm = [0, 2, 1]>(k)
        s = MatMul(q, t)
        p = Softmax(s)
        z = MatMul(p, v)
        y = MatMul(z, wo)
    }"""
    return case(text, {"wq": weights(4, 5), "wk": weights(4, 5), "wv": weights(4, 5), "wo": weights(5, 2)})


def turned() -> Case:
    text = """g (float[2, 3, 4] x) => (float[6, 3, 2] y) {
        a = MatMul(x, w1)
        b = Tanh(a)
        h = Transpose<perm = [2, 0, 1]>(b)
        r = Transpose<perm = [0, 2, 1]>(h)
        y = MatMul(r, w2)
    }"""
    return case(text, {"w1": weights(4, 6), "w2": weights(6, 2, 2)})


def reshaped() -> Case:
    body = """s = Reshape(a, two)
        t = MatMul(s, m)
        u = Tanh(t)
        h = Reshape(u, one)"""
    shapes = {"two": np.array([-1, 2, 3]), "one": np.array([-1, 6]), "m": weights(3, 3)}
    return hidden(body, shapes)


CUT = """s = Slice(a, from, to, axis)
        r = Relu(s)
        z = Slice(a, zero, from, axis)
        h = Concat<axis = 1>(r, z)"""
ENDS = {"from": np.array([2]), "to": np.array([6]), "axis": np.array([1]), "zero": np.array([0])}
JOIN = """r = Tanh(a)
        b = MatMul(x, w3)
        c = Relu(b)
        j = Concat<axis = 1>(r, c)
        h = MatMul(j, w4)"""
JOINED = {"w3": weights(4, 2), "w4": weights(8, 6)}
MASKED = "h = Mul(a, m)"
ADDED = "q = Add(a, m)\n        h = Relu(q)"


def grouped() -> Case:
    return image("h = Conv<group = 2>(a, k)", k=weights(4, 2, 1, 1))


def still_output(operator: str) -> Case:
    """Hidden labels that end in an index."""
    text = f"""g (float[n, 4] x) => (int64[n] y) {{
        a = MatMul(x, w1)
        y = {operator}<axis = 1, keepdims = 0>(a)
    }}"""
    return case(text, {"w1": weights(4, 6)})


def index_of(ctx: Context, op: Any) -> Any:
    ctx.stop(op.x(0))
    return [constant(op.out_shapes()[0])]


def without_equations(patch: Patch) -> None:
    def empty(constraints: Constraints) -> Constraints:
        return Constraints(exponents=constraints.exponents, exponent_blocks=constraints.exponent_blocks)

    patch.setattr(analysis, "unite_exponents", lambda facts: unite_exponents(empty(facts)))
    patch.setattr(analysis, "solve_exponents", lambda facts, *rest: solve_exponents(empty(facts), *rest))


def free_signs(patch: Patch) -> None:
    stop = Context.stop
    patch.setattr(Context, "stop", lambda t, v, s=System.BOTH: stop(t, v, System.SCALE))


def free_scales(patch: Patch) -> None:
    stop = Context.stop
    patch.setattr(Context, "stop", lambda t, v, s=System.BOTH: stop(t, v, System.SIGN))


def not_refined(patch: Patch) -> None:
    patch.setattr(solve._Solver, "_refine", lambda self, colours: colours)


NOTHING: Rule = lambda *a, **k: None  # noqa: E731
GAIN = {"g": weights(6), "b": weights(6)}
NORMAL = "h = LayerNormalization(a, g, b)"
MUTANTS = [
    Mutant("Softmax lets exponents pass", rule("Softmax", passing), lambda: layer("Softmax")),
    Mutant("Relu lets signs pass", rule("Relu", passing)),
    Mutant("Tanh lets scales pass", rule("Tanh", passing), lambda: layer("Tanh")),
    Mutant("Sigmoid lets all pass", rule("Sigmoid", passing), lambda: layer("Sigmoid")),
    Mutant("Softplus is odd", rule("Softplus", entered("Tanh")), lambda: layer("Softplus")),
    Mutant("Exp is homogeneous", rule("Exp", entered("Relu")), lambda: layer("Exp")),
    Mutant("Cos is odd", rule("Cos", entered("Tanh")), lambda: layer("Cos")),
    Mutant("Abs is linear", rule("Abs", passing), lambda: layer("Abs")),
    Mutant(
        "Clip passes",
        rule("Clip", passing),
        lambda: hidden(
            "h = Clip(a, l, u)", {"l": np.array(-0.2, np.float32), "u": np.array(0.5, np.float32)}
        ),
    ),
    Mutant("Concat backwards", method(Context, "concat", joined_backwards), lambda: hidden(JOIN, JOINED)),
    Mutant(
        "Concat repeats its first part",
        method(Context, "concat", column_dropped),
        lambda: hidden(CUT.replace("2", "3"), {**ENDS, "from": np.array([3])}),
    ),
    Mutant("take is off by one", method(Context, "take", taken_one_off), lambda: hidden(CUT, ENDS)),
    Mutant(
        "Split repeats its first part",
        rule("Split", halves_alike),
        lambda: hidden(
            "p, q = Split<axis = 1>(a, n)\n        r = Tanh(q)\n        h = Concat<axis = 1>(p, r)",
            {"n": np.array([3, 3])},
        ),
    ),
    Mutant("grouped convolution taken for dense", method(conv_rules, "_grouped", dense_grouped), grouped),
    Mutant(
        "dense convolution does not meet its input",
        method(
            conv_rules,
            "_dense",
            lambda t, x, w, out, *, transposed: conv_rules._put(out, w.ids[0], w.exponents[0]),
        ),
        lambda: image("h = Relu(a)"),
    ),
    Mutant(
        "convolution forgets its bias",
        method(conv_rules, "add_bias", lambda t, y, b: (t.bind(b), y)[1]),
        lambda: image(
            "h = Relu(c)\n c = Conv(a, k, b)".replace("h = Relu(c)\n ", "") + "\n        h = Relu(c)",
            k=weights(4, 4, 1, 1),
            b=weights(4),
        ),
    ),
    Mutant(
        "LayerNormalization scales by unit",
        method(norm_rules, "centred", lambda t, x, axes: t.copy(t.bind(x))),
        lambda: hidden(NORMAL, GAIN),
    ),
    Mutant(
        "LayerNormalization has a sign per unit",
        method(norm_rules, "centred", norm_rules.divided_by_root_mean_square),
        lambda: hidden(NORMAL, GAIN),
    ),
    Mutant(
        "LayerNormalization forgets its gain", ignoring("LayerNormalization", 1), lambda: hidden(NORMAL, GAIN)
    ),
    Mutant(
        "LpNormalization scales by unit",
        rule("LpNormalization", passing),
        lambda: hidden("h = LpNormalization<axis = 1>(a)", {}),
    ),
    Mutant(
        "LRN lets channels pass",
        rule("LRN", entered("Sigmoid")),
        lambda: image("h = LRN<size = 3, alpha = 1.0>(a)"),
    ),
    Mutant("Transpose the other way", rule("Transpose", mirrored_transpose), turned),
    Mutant("ArgMax does not fix", rule("ArgMax", index_of), lambda: still_output("ArgMax")),
    Mutant(
        "CumSum does not fix", rule("CumSum", passing), lambda: hidden("h = CumSum(a, k)", {"k": np.array(1)})
    ),
    Mutant("Add forgets its second operand", ignoring("Add", 1), lambda: hidden(ADDED, {"m": weights(6)})),
    Mutant("Mul forgets its second operand", ignoring("Mul", 1), lambda: hidden(MASKED, {"m": weights(6)})),
    Mutant(
        "Add multiplies exponents",
        rule("Add", entered("Mul")),
        lambda: hidden(ADDED, {"m": weights(6)}),
    ),
    Mutant(
        "Max keeps signs",
        rule("Max", entered("Add")),
        lambda: hidden("h = Max(a, m)", {"m": weights(6)}),
    ),
    Mutant(
        "Where claims its condition only",
        ignoring("Where", 1),
        lambda: hidden(
            "b = MatMul(x, w3)\n        c = Less(b, m)\n        h = Where(c, a, m)",
            {"w3": weights(4, 6), "m": weights(6)},
        ),
    ),
    Mutant(
        "contraction equates no labels",
        lambda p: (
            p.setattr(Context, "meet", lambda t, states, *_, **__: states[0] if states else None),
            None,
        )[1],
    ),
    Mutant("contraction cancels no exponents", method(Context, "cancel", NOTHING)),
    Mutant("outputs are not pinned", method(Context, "fix_all", NOTHING)),
    Mutant("no label is ever pinned", method(Constraints, "pin", NOTHING), lambda: layer("Tanh")),
    Mutant("equal units are not united", method(Constraints, "equal", NOTHING)),
    Mutant("no relations", method(Constraints, "relate", NOTHING), reshaped),
    Mutant("no gauge equations", without_equations),
    Mutant("functions stop no signs", free_signs),
    Mutant("functions stop no scales", free_scales, lambda: layer("Tanh")),
    Mutant(
        "no colour refinement", not_refined, lambda: generate(31)
    ),  # small graphs are cut apart by columns
    Mutant(
        "a reduction keeps its exponents apart",
        method(Context, "exponent_forget", lambda t, d, axes, system=0: d),
        lambda: hidden(
            "r = ReduceMean<keepdims = 1>(a, one)\n        h = Sub(a, r)", {"one": np.array([1])}, 18
        ),
    ),
]


def problems(graph: Case) -> list[str]:
    return [check(graph, seed).problem for seed in SEEDS]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_a_wrong_rule_is_noticed(mutant: Mutant, monkeypatch: Patch) -> None:
    graph = mutant.graph()
    assert not any(problems(graph)), "the graph fails without the mutant"
    mutant.apply(monkeypatch)
    found = [problem for problem in problems(graph) if problem]
    assert found
    assert not any(bug in problem for problem in found for bug in ("TypeError", "AttributeError"))
