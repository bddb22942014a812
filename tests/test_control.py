"""Branches, loops, scans and local functions are seen through: what may move is found, and keeps outputs."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import helper, numpy_helper

from onnxcanon import analyze
from onnxcanon.explaining.analysis import Analysis
from onnxcanon.model import load
from onnxcanon.shapes import Shapes, infer_shapes
from tests.fuzz.builder import Array
from tests.fuzz.check import check
from tests.fuzz.graphs import Case
from tests.test_rules import case, weights


def found(example: Case) -> Analysis:
    """The analysis of a graph whose random elements keep its outputs, while halves of them do not."""
    reports = [check(example, seed) for seed in range(4)]
    assert [report.problem for report in reports] == [""] * 4
    assert any(report.control for report in reports) or not any(report.permuted for report in reports)
    return analyze(load(example.proto))


def may(analysis: Analysis, parameter: str, axis: int) -> str:
    """What the positions along an axis may do."""
    words = {"permute": "", "scale": "", "flip": ""}
    for d in analysis.dimensions:
        if any((site.initializer, site.axis) == (parameter, axis) for site in d.sites):
            able = {"permute": d.permute, "scale": d.scale == "positive", "flip": d.sign}
            words |= {word: word for word, yes in able.items() if yes}
    return " ".join(filter(None, words.values()))


def zeros(*shape: int) -> Array:
    return np.zeros(shape, np.float32)


TRUE = np.array(True)
STEPS = np.array(3)

# If


def branching(then: str, other: str, constants: dict[str, Array], batch: str = "n") -> Case:
    """x[n, 4] -> a[n, 6] -> one of two branches' [n, 6] -> y[n, 3]."""
    text = f"""g (float[{batch}, 4] x) => (float[m, 3] y) {{
        a = MatMul(x, w1)
        s = ReduceSum(x)
        z = Cast <to = 1> (zero)
        c = Greater(s, z)
        h = If (c) <
            then_branch = t () => (float[m, k] p) {{ {then} }},
            else_branch = e () => (float[m, k] q) {{ {other} }}
        >
        y = MatMul(h, w2)
    }}"""
    given = {"w1": weights(4, 6), "w2": weights(6, 3), "zero": np.array(0, np.int64), **constants}
    return case(text, given)


def test_values_pass_through_either_branch() -> None:
    analysis = found(branching("p = Relu(a)", "q = Neg(a)", {}))
    assert not analysis.unsupported
    assert may(analysis, "w1", 1) == may(analysis, "w2", 0) == "permute scale"


def test_what_one_branch_forbids_is_forbidden() -> None:
    assert may(found(branching("p = Relu(a)", "q = Sigmoid(a)", {})), "w1", 1) == "permute"
    assert may(found(branching("p = Relu(a)", "q = CumSum(a, one)", {"one": np.array(1)})), "w1", 1) == ""


def test_weights_of_both_branches_move_together() -> None:
    then = "d = MatMul(x, v) p = Relu(d)"
    analysis = found(branching(then, "q = Relu(a)", {"v": weights(4, 6)}))
    assert may(analysis, "v", 1) == may(analysis, "w1", 1) == "permute scale"


def test_zeros_in_a_branch_take_any_scale() -> None:
    other = "i = Identity(shared) q = Add(i, shared)"
    example = branching("p = Tanh(a)", other, {"shared": zeros(3, 6)}, batch="3")
    assert may(found(example), "w1", 1) == "permute flip"


def test_a_constant_condition_takes_its_branch() -> None:
    text = """g (float[n, 4] x) => (float[n, 3] y) {
        a = MatMul(x, w1)
        h = If (yes) <
            then_branch = t () => (float[m, k] p) { p = Relu(a) },
            else_branch = e () => (float[m] q) { q = ReduceSum <keepdims = 0> (a) }
        >
        y = MatMul(h, w2)
    }"""
    analysis = found(case(text, {"w1": weights(4, 6), "w2": weights(6, 3), "yes": TRUE}))
    assert may(analysis, "w1", 1) == "permute scale"
    assert not analysis.unsupported


def test_branches_of_different_shapes_are_a_barrier() -> None:
    example = branching("p = Relu(a)", "q = Concat <axis = 0> (a, a)", {})
    analysis = found(example)
    assert analysis.unsupported[0].operator == "If"
    assert may(analysis, "w1", 1) == ""


def test_branches_that_accept_different_sizes_are_both_seen_through() -> None:
    text = """g (float[2, s] x) => (float[2, 3] y) {
        t = ReduceSum <keepdims = 0> (x)
        c = Greater(t, zero)
        h = If (c) <
            then_branch = t () => (float[2, k] p) { a = MatMul(x, v) p = Relu(a) },
            else_branch = e () => (float[2, k] q) {
                r = Reshape(x, cut) m = ReduceMean <axes = [1], keepdims = 0> (r) b = MatMul(m, u) q = Tanh(b)
            }
        >
        y = MatMul(h, w2)
    }"""
    constants = {"v": weights(1, 6), "u": weights(64, 6), "w2": weights(6, 3), "cut": np.array([2, -1, 64])}
    example = case(text, {**constants, "zero": np.array(0, np.float32)})
    example.feeds[:] = [{"x": np.abs(weights(2, 1))}, {"x": -np.abs(weights(2, 64))}]
    analysis = found(example)
    assert not analysis.unsupported
    assert may(analysis, "v", 1) == may(analysis, "u", 1) == may(analysis, "w2", 0) == "permute"


def test_a_branch_chosen_by_a_size_that_the_model_does_not_accept_is_left_out() -> None:
    text = """g (float[2, s, 4] x) => (float[2, 3] y) {
        n = Shape <start = 1, end = 2> (x)
        c = Less(n, many)
        a = MatMul(x, w1)
        h = If (c) <
            then_branch = t () => (p) { p = ReduceMax <axes = [1], keepdims = 0> (a) },
            else_branch = e () => (q) { q = Relu(a) }
        >
        r = Concat <axis = 0> (h, two)
        z = MatMul(r, w2)
        y = Slice(z, start, end, start)
    }"""
    constants = {"w1": weights(4, 6), "w2": weights(6, 3), "two": weights(2, 6), "many": np.array([100])}
    example = case(text, {**constants, "start": np.array([0]), "end": np.array([2])})
    assert may(found(example), "w1", 1) == "permute scale"
    either = case(
        text.replace("Concat <axis = 0> (h, two)", "Identity(h)"),
        {**constants, "start": np.array([0]), "end": np.array([2])},
    )
    assert may(found(either), "w1", 1) == ""


def test_constants_of_branches_are_parameters() -> None:
    example = branching("d = MatMul(a, v) p = Relu(d)", "q = Relu(a)", {})
    inner = example.proto.graph.node[4].attribute
    assert inner[0].name == "then_branch"
    inner[0].g.initializer.append(numpy_helper.from_array(weights(6, 6), "v"))
    constant = helper.make_node("Constant", [], ["b"], value=numpy_helper.from_array(weights(6), "b"))
    add = helper.make_node("Add", ["a", "b"], ["a2"])
    inner[1].g.node[0].input[0] = "a2"
    nodes = [constant, add, *inner[1].g.node]
    del inner[1].g.node[:]
    inner[1].g.node.extend(nodes)
    analysis = found(example)
    assert may(analysis, "v", 1) == may(analysis, "w2", 0) == "permute scale"
    assert may(analysis, "v", 0) == may(analysis, "b", 0) == may(analysis, "w1", 1) == "permute scale"


# Loop


def looping(body: str, states: str, constants: dict[str, Array], outputs: str = "f") -> Case:
    """States that a loop of three steps carries; `body` reads x[n, 4]; y[n, 3] is made of the first."""
    text = f"""g (float[2, 4] x) => (float[2, 3] y) {{
        {outputs} = Loop (steps, yes, {states}) <body = b {body}>
        y = MatMul(f, w2)
    }}"""
    return case(text, {"w2": weights(6, 3), "steps": STEPS, "yes": TRUE, **constants})


RNN = """(int64 i, bool c, float[m, k] h) => (bool d, float[m, k] r) {
    d = Identity(c)
    u = MatMul(x, w)
    v = MatMul(h, u1)
    s = Add(u, v)
    t = Add(s, b)
    r = Tanh(t)
}"""
RNN_WEIGHTS = {"w": weights(4, 6), "u1": weights(6, 6), "b": weights(6)}


def test_a_recurrent_state_that_starts_from_zero_is_free() -> None:
    analysis = found(looping(RNN, "h0", {**RNN_WEIGHTS, "h0": zeros(2, 6)}))
    assert not analysis.unsupported
    for parameter, axis in (("w", 1), ("u1", 0), ("u1", 1), ("b", 0), ("w2", 0)):
        assert may(analysis, parameter, axis) == "permute flip"


def test_a_state_that_starts_from_ones_keeps_its_sign() -> None:
    text = """g (float[2, 4] x) => (float[2, 3] y) {
        h0 = ConstantOfShape <value = float[1] {1.0}> (shape)
        f = Loop (steps, yes, h0) <body = b BODY>
        y = MatMul(f, w2)
    }"""
    constants = {**RNN_WEIGHTS, "w2": weights(6, 3), "steps": STEPS, "yes": TRUE, "shape": np.array([2, 6])}
    assert may(found(case(text.replace("BODY", RNN), constants)), "u1", 0) == "permute"


def test_a_state_that_starts_from_a_weight_moves_with_it() -> None:
    analysis = found(looping(RNN, "h0", {**RNN_WEIGHTS, "h0": weights(2, 6)}))
    assert may(analysis, "h0", 1) == may(analysis, "u1", 0) == "permute flip"
    assert may(analysis, "h0", 0) == ""


def test_a_state_that_the_caller_carries_is_fixed() -> None:
    example = looping(RNN, "h0", RNN_WEIGHTS)
    example.proto.graph.input.append(helper.make_tensor_value_info("h0", 1, [2, 6]))
    example.feeds[0]["h0"] = weights(2, 6)
    assert may(found(example), "u1", 0) == ""
    back = looping(RNN, "h0", {**RNN_WEIGHTS, "h0": zeros(2, 6)})
    back.proto.graph.output.append(helper.make_tensor_value_info("f", 1, [2, 6]))
    assert may(found(back), "u1", 0) == ""


def test_a_state_that_passes_through_is_its_initial_value() -> None:
    body = RNN.replace("float[m, k] h)", "float[m, k] h, float[k, k] u1)", 1).replace("u1", "p")
    body = body.replace("float[m, k] r)", "float[m, k] r, float[k, k] q)", 1).replace(
        "d = Identity", "q = Identity(p)\n d = Identity"
    )
    analysis = found(looping(body, "h0, u1", {**RNN_WEIGHTS, "h0": zeros(2, 6)}, "f, g"))
    assert may(analysis, "u1", 0) == may(analysis, "w", 1) == "permute flip"


def test_states_that_change_places_move_together() -> None:
    body = """(int64 i, bool c, float[m, k] h, float[m, k] g) => (bool d, float[m, k] r, float[m, k] q) {
        d = Identity(c)
        u = MatMul(x, w)
        s = Add(u, h)
        r = Tanh(g)
        q = Tanh(s)
    }"""
    constants = {"w": weights(4, 6), "h0": zeros(2, 6), "g0": weights(2, 6)}
    analysis = found(looping(body, "h0, g0", constants, "f, e"))
    assert may(analysis, "g0", 1) == may(analysis, "w", 1) == may(analysis, "w2", 0) == "permute flip"


def test_what_depends_on_the_iteration_is_fixed() -> None:
    body = RNN.replace("t = Add(s, b)", "e = Gather <axis = 0> (b, i) t = Add(s, e)")
    analysis = found(looping(body, "h0", {**RNN_WEIGHTS, "b": weights(3, 6), "h0": zeros(2, 6)}))
    assert may(analysis, "b", 1) == "permute flip"
    assert may(analysis, "b", 0) == ""
    body = RNN.replace("t = Add(s, b)", "e = Gather <axis = 1> (s, i) n = Unsqueeze(e, one) t = Add(s, n)")
    analysis = found(looping(body, "h0", {**RNN_WEIGHTS, "one": np.array([1]), "h0": zeros(2, 6)}))
    assert may(analysis, "w", 1) == ""


def test_stacked_outputs_keep_their_labels_and_their_order() -> None:
    text = """g (float[2, 4] x) => (float[3, 2, 3] y) {
        f, all = Loop (steps, yes, h0) <body = b BODY>
        m = MatMul(fixed, two)
        o = MatMul(all, w2)
        y = Add(o, m)
    }"""
    body = RNN.replace("float[m, k] r)", "float[m, k] r, float[m, k] a)").replace(
        "r = Tanh(t)", "r = Tanh(t) a = Abs(r)"
    )
    constants = {
        **RNN_WEIGHTS, "w2": weights(6, 3), "steps": STEPS, "yes": TRUE, "h0": zeros(2, 6),
        "fixed": weights(3, 1, 5), "two": weights(5, 3),
    }  # fmt: skip
    analysis = found(case(text.replace("BODY", body), constants))
    assert may(analysis, "w2", 0) == may(analysis, "u1", 0) == "permute flip"
    assert may(analysis, "fixed", 0) == ""


def test_a_state_that_grows_is_not_followed() -> None:
    body = """(int64 i, bool c, float[m, k] h) => (bool d, float[m, k] r) {
        d = Identity(c)
        u = MatMul(x, w)
        r = Concat <axis = 0> (h, u)
    }"""
    text = f"""g (float[2, 4] x) => (float[k, 3] y) {{
        f = Loop (steps, yes, h0) <body = b {body}>
        y = MatMul(f, w2)
    }}"""
    constants = {"w": weights(4, 6), "w2": weights(6, 3), "h0": weights(1, 6), "steps": STEPS, "yes": TRUE}
    assert may(found(case(text, constants)), "w", 1) == ""


# Scan

GRU = """(float[n, k] h, float[n, j] e) => (float[n, k] r, float[n, k] o) {
    ex = MatMul(e, w)
    eh = MatMul(h, u)
    xz, xr, xn = Split <axis = 1> (ex, parts)
    hz, hr, hn = Split <axis = 1> (eh, parts)
    z1 = Add(xz, hz) z = Sigmoid(z1)
    r1 = Add(xr, hr) r2 = Sigmoid(r1)
    n1 = Mul(r2, hn) n2 = Add(n1, xn) n3 = Tanh(n2)
    keep = Mul(z, h)
    left = Sub(one, z)
    fresh = Mul(left, n3)
    r = Add(keep, fresh)
    o = Identity(r)
}"""
LSTM = """(float[n, k] h, float[n, k] c, float[n, j] e) => (float[n, k] r, float[n, k] c2, float[n, k] o) {
    ex = MatMul(e, w)
    eh = MatMul(h, u)
    g = Add(ex, eh)
    gi, gf, gc, go = Split <axis = 1> (g, parts)
    i = Sigmoid(gi) f = Sigmoid(gf) cc = Tanh(gc) oo = Sigmoid(go)
    kept = Mul(f, c)
    new = Mul(i, cc)
    c2 = Add(kept, new)
    t = Tanh(c2)
    r = Mul(oo, t)
    o = Identity(r)
}"""


def scanning(body: str, states: int, gates: int, **attributes: str) -> Case:
    """x[5, 2, 4] -> a recurrent layer written as Scan, from zero -> y[5, 2, 3]."""
    names = ", ".join(["h0"] * states)
    results = ", ".join(f"f{k}" for k in range(states))
    more = "".join(f", {name} = {value}" for name, value in attributes.items())
    text = f"""g (float[5, 2, 4] x) => (float[5, 2, 3] y) {{
        {results}, all = Scan ({names}, x) <num_scan_inputs = 1, body = b {body}{more}>
        y = MatMul(all, w2)
    }}"""
    parts = np.array([6] * gates)
    constants = {"h0": zeros(2, 6), "w": weights(4, 6 * gates), "u": weights(6, 6 * gates), "parts": parts}
    return case(text, {**constants, "w2": weights(6, 3), "one": np.array(1, np.float32)})


@pytest.mark.parametrize(("body", "states", "gates"), [(GRU, 1, 3), (LSTM, 2, 4)], ids=["GRU", "LSTM"])
@pytest.mark.parametrize("direction", [0, 1])
def test_a_recurrent_layer_written_as_a_scan_is_free(
    body: str, states: int, gates: int, direction: int
) -> None:
    analysis = found(scanning(body, states, gates, scan_input_directions=f"[{direction}]"))
    assert not analysis.unsupported
    for parameter, axis in (("u", 0), ("u", 1), ("w", 1), ("w2", 0)):
        assert may(analysis, parameter, axis) == "permute flip"
    assert analysis.sign_freedoms == 6


def test_an_axis_that_a_scan_goes_along_is_fixed() -> None:
    text = """g (float[2, 4] x) => (float[2, 3] y) {
        a = MatMul(x, w1)
        last, all = Scan (h0, a) <num_scan_inputs = 1, scan_input_axes = [1], scan_output_axes = [1],
            body = b (float[n] h, float[n] e) => (float[n] r, float[n] o) {
                r = Add(h, e)
                o = Tanh(r)
            }>
        y = MatMul(all, w2)
    }"""
    constants = {"w1": weights(4, 6), "w2": weights(6, 3), "h0": zeros(2)}
    assert may(found(case(text, constants)), "w1", 1) == ""


def test_layers_stacked_in_one_weight_share_a_stream() -> None:
    text = """g (float[2, 4] x) => (float[2, 3] y) {
        a = MatMul(x, w1)
        f = Scan (a, up, down) <num_scan_inputs = 2,
            body = b (float[n, k] h, float[k, m] p, float[m, k] q) => (float[n, k] r) {
                u = MatMul(h, p)
                t = Relu(u)
                v = MatMul(t, q)
                r = Add(h, v)
            }>
        y = MatMul(f, w2)
    }"""
    constants = {"w1": weights(4, 6), "w2": weights(6, 3), "up": weights(3, 6, 5), "down": weights(3, 5, 6)}
    analysis = found(case(text, constants))
    assert may(analysis, "w1", 1) == may(analysis, "up", 1) == may(analysis, "down", 2) != ""
    assert may(analysis, "up", 2) == may(analysis, "down", 1) == "permute scale"
    assert may(analysis, "up", 0) == ""


# Operators that are not seen through


def test_an_unknown_operator_pins_what_its_graph_reads() -> None:
    example = branching("p = Relu(a)", "q = Relu(b)", {"b": weights(3, 6)})
    node = example.proto.graph.node[4]
    node.op_type, node.domain = "Perhaps", "some.where"
    analysis = analyze(load(example.proto))
    assert analysis.unsupported[0].operator == "some.where::Perhaps"
    assert may(analysis, "w1", 1) == may(analysis, "b", 1) == ""
    assert {f.value for f in analysis.fixed} >= {"w1", "b"}


# Local functions


def calling(functions: list[onnx.FunctionProto], text: str, constants: dict[str, Array]) -> Case:
    example = case(text, constants)
    example.proto.functions.extend(functions)
    example.proto.opset_import.append(helper.make_opsetid("local", 1))
    return example


def function(text: str, constants: dict[str, Array], opset: int = 17) -> onnx.FunctionProto:
    made = onnx.parser.parse_function(f'<opset_import: ["" : {opset}, "local" : 1], domain: "local"> {text}')
    nodes = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array, name))
        for name, array in constants.items()
    ]
    nodes += made.node
    del made.node[:]
    made.node.extend(nodes)
    return made


TWICE = """g (float[n, 4] x) => (float[n, 3] y) {
    a = MatMul(x, w1)
    h = local.F(a)
    k = local.F(h)
    y = MatMul(k, w2)
}"""
ENDS = {"w1": weights(4, 6), "w2": weights(6, 3)}


def test_a_function_called_twice_shares_its_constants() -> None:
    body = function(
        "F (a) => (r) { b = MatMul(a, v) c = Relu(b) r = MatMul(c, u) }",
        {"v": weights(6, 5), "u": weights(5, 6)},
    )
    analysis = found(calling([body], TWICE, ENDS))
    assert not analysis.unsupported
    assert may(analysis, "v", 1) == may(analysis, "u", 0) == "permute scale"
    assert may(analysis, "v", 0) == may(analysis, "u", 1) == may(analysis, "w1", 1) != ""
    assert sum(site.initializer == "v" for d in analysis.dimensions for site in d.sites) == 2


def test_functions_within_functions_with_attributes_and_of_other_opsets() -> None:
    inner = function("G <axis> (a) => (r) { r = Softmax <axis: int = @axis> (a) }", {}, 13)
    outer = function("F (a) => (r) { b = MatMul(a, v) r = local.G <axis = 1> (b) }", {"v": weights(6, 6)})
    analysis = found(calling([inner, outer], TWICE, ENDS))
    assert may(analysis, "v", 1) == may(analysis, "w2", 0) == "permute"
    along = function("F (a) => (r) { b = MatMul(a, v) r = local.G <axis = 0> (b) }", {"v": weights(6, 6)})
    assert may(found(calling([inner, along], TWICE, ENDS)), "v", 1) == "permute"


def test_overloads_are_different_functions() -> None:
    one = function("F (a) => (r) { r = Relu(a) }", {})
    other = function("F (a) => (r) { r = CumSum(a, i) }", {"i": np.array(1)})
    other.overload = "other"
    example = calling([one, other], TWICE, ENDS)
    assert may(found(example), "w1", 1) == "permute scale"
    example.proto.graph.node[2].overload = "other"
    assert may(analyze(load(example.proto)), "w1", 1) == ""


def test_a_function_that_calls_itself_is_a_barrier() -> None:
    shared = function("G (a) => (r) { r = MatMul(a, v) }", {"v": weights(6, 6)})
    endless = function("F (a) => (r) { b = local.G(a) r = local.F(b) }", {"u": weights(6, 6)})
    text = TWICE.replace("k = local.F(h)", "j = local.G(h) k = Relu(j)")
    analysis = analyze(load(calling([shared, endless], text, ENDS).proto))
    assert analysis.unsupported[0].operator == "local::F"
    assert may(analysis, "w1", 1) == may(analysis, "v", 1) == may(analysis, "u", 1) == ""
    assert may(analysis, "w2", 0) == ""


def test_a_function_of_unknown_operators_is_a_barrier_where_they_are() -> None:
    body = function("F (a) => (r) { b = Relu(a) r = local.Unknown(b) }", {})
    analysis = analyze(load(calling([body], TWICE, ENDS).proto))
    assert analysis.unsupported[0].operator == "local::Unknown"
    assert may(analysis, "w1", 1) == ""


# Shapes


def shapes(text: str) -> tuple[onnx_ir.Graph, Shapes]:
    proto = helper.make_model(onnx.parser.parse_graph(text), opset_imports=[helper.make_opsetid("", 17)])
    graph = onnx_ir.serde.deserialize_model(proto).graph
    return graph, infer_shapes(graph, lambda value: value.const_value.numpy())


def test_a_loop_of_known_length_has_stacked_outputs_of_known_shape() -> None:
    text = """g (float[n, 4] x) => (y, z)
        <int64 steps = {3}, bool yes = {1}> {
        s = Shape <start = 0, end = 1> (x)
        y, z = Loop (steps, yes, s) <body = b (int64 i, bool c, t) => (bool d, t2, e) {
            d = Identity(c)
            t2 = Identity(t)
            e = Relu(x)
        }>
    }"""
    graph, known = shapes(text)
    kept, stacked = graph.outputs
    assert known.shapes(stacked) == ((3, 2, 4), (3, 3, 4))
    assert [data.tolist() for data in known.data_pair(kept)] == [[2], [3]]
    other = "n = ReduceSum <keepdims = 0> (e) o = Greater(n, n) d = Not(o)"
    graph, known = shapes(text.replace("d = Identity(c)", other))
    assert known.shapes(graph.outputs[1]) == (None, None)


def test_branches_are_known_where_they_agree() -> None:
    text = """g (float[n, 4] x) => (y, z)
        <bool yes = {1}> {
        s = ReduceSum <keepdims = 0> (x)
        c = Greater(s, s)
        y, z = If (c) <
            then_branch = t () => (p, q) { p = Relu(x) q = Shape(x) },
            else_branch = e () => (p2, q2) { p2 = Neg(x) t2 = Transpose(x) q2 = Shape(t2) }
        >
    }"""
    graph, known = shapes(text)
    y, z = graph.outputs
    assert known.shapes(y) == ((2, 4), (3, 4))
    assert known.shapes(z) == ((2,), (2,))
    assert known.data_pair(z) == (None, None)
    graph, known = shapes(text.replace("If (c)", "If (yes)"))
    assert known.data_pair(graph.outputs[1])[0].tolist() == [2, 4]


def test_a_state_that_changes_in_shape_has_none() -> None:
    text = """g (float[n, 4] x) => (y, z)
        <int64 steps = {3}, bool yes = {1}> {
        y, z = Loop (steps, yes, x, x) <body = b (int64 i, bool c, s, t) => (bool d, s2, t2) {
            d = Identity(c)
            s2 = Concat <axis = 0> (s, x)
            t2 = Relu(t)
        }>
    }"""
    graph, known = shapes(text)
    y, z = graph.outputs
    assert known.shapes(y) == (None, None)
    assert known.shapes(z) == ((2, 4), (3, 4))
