"""The normal form: the function is kept, spellings coincide, and what differs still differs."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NotImplemented_

from onnxcanon.model import Model, load
from onnxcanon.normalform import NormalForm, normal_form, structure
from onnxcanon.symmetry import symmetry
from tests.examples import build, contents
from tests.fuzz.check import worst_difference
from tests.fuzz.graphs import generate, outputs_of
from tests.running import verify
from tests.shared import MODELS, TWINS, document, each
from tests.spellings import CASES, Case
from tests.test_unrounded import chain

SAMPLE = (
    "bert-qa-tiny-fp16-casts", "cnn-mnist-cntk-opset7", "dtln-2-lstm", "gpt2-tiny-greedysearch-contrib",
    "gtcrn-stream-raw-gru", "light-alexnet", "local-functions-and-if", "loop-fp16-tiny",
    "loop-shadows-outer-scope", "magika-standard-v3", "mobilenet-v2-qdq-int8", "scan-gru-tiny",
    "silero-vad-v5-if", "sinet-portrait-segmentation", "squeezenet-coreml-classifier",
)  # fmt: skip
INCOMPLETE = ("squeezenet-coreml-classifier",)
"""Written with operators that onnxruntime has withdrawn since."""
REEXPORTS = (
    "twin_anon",
    "reexport",
    "reexport_raw",
    "reexport_op23",
    "reexport_extdata",
    "reexport_raw_both",
)


ROUNDING = 1e-3
"""Of the random graphs' outputs, some of which are in single precision and some quantized."""
DIFFERENT = (
    ("y = LayerNormalization(x, s)", "y = LayerNormalization<epsilon = 0.001>(x, s)"),
    ("y = LayerNormalization(x, s)", "m = Mul(x, x) y = Mul(m, s)"),
    ("y = Softmax<axis = 1>(x)", "y = Softmax<axis = 2>(x)"),
    ("y = Relu(x)", "y = LeakyRelu(x)"),
    ("y = LeakyRelu<alpha = 0.2>(x)", "y = LeakyRelu<alpha = 0.3>(x)"),
    ("y = Clip(x, two)", "y = Clip(x, three)"),
    ("y = Clip(x, two)", "y = Clip(x, , two)"),
    ("y = Mul(x, two)", "y = Add(x, two)"),
    ("y = Pow(x, two)", "y = Pow(x, three)"),
    ("y = Gelu(x)", 'y = Gelu<approximate = "tanh">(x)'),
    ("e = Exp(x) y = Sub(x, e)", "e = Exp(x) y = Sub(e, x)"),
    ("e = Exp(x) y = Div(x, e)", "e = Exp(x) y = Div(e, x)"),
)


@cache
def form(path: Path) -> NormalForm:
    return normal_form(load(path))


def digest(form: NormalForm) -> str:
    return structure(form.ir.graph)


def keeps_function(form: NormalForm, rtol: float | None = None) -> bool:
    return verify(form.original, form.model, device="cpu", samples=4, rtol=rtol).same


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_spellings_of_one_function_coincide(case: Case) -> None:
    models = case.models()
    forms = [normal_form(model) for model in models]
    for spelling, model, one in zip(case.spellings, models, forms, strict=True):
        assert one.incomplete is None
        assert verify(models[0], model, device="cpu", samples=4, rtol=case.rtol).same, spelling
        onnx.checker.check_model(one.model.to_proto())
        assert keeps_function(one, case.rtol), spelling
        assert digest(one) == digest(forms[0]), spelling


@pytest.mark.parametrize("one, other", DIFFERENT)
def test_different_functions_stay_different(one: str, other: str) -> None:
    head = "g (float[n, 4, 6] x) => (float[n, 4, 6] y)"
    weights = {"s": np.ones(6, np.float32), "two": np.float32(2), "three": np.float32(3)}
    digests = {digest(normal_form(build(f"{head} {{ {body} }}", weights))) for body in (one, other)}
    assert len(digests) == 2


@pytest.mark.parametrize("folder", each(TWINS))
def test_exports_of_one_model_coincide(folder: Path) -> None:
    base = form(folder / "base.onnx")
    truth = document(folder / "truth.json")["files"]
    paths = [path for path in (folder / f"{name}.onnx" for name in REEXPORTS) if path.exists()]
    assert len(paths) >= 3
    for path in (folder / "base.onnx", *paths):
        assert path == folder / "base.onnx" or truth[path.name]["expected"] == "equivalent"
        assert form(path).incomplete is None
        assert keeps_function(form(path)), path.name
        assert digest(form(path)) == digest(base), path.name


@pytest.mark.parametrize("folder", each(TWINS))
def test_another_operator_is_another_structure(folder: Path) -> None:
    assert digest(form(folder / "near_miss_attr.onnx")) != digest(form(folder / "base.onnx"))


@pytest.mark.parametrize("folder", each(TWINS))
def test_the_normal_form_has_the_symmetries_of_the_model(folder: Path) -> None:
    truth = document(folder / "truth.json")["log10_group_order"]
    for name in ("base", "reexport_raw"):
        found = symmetry(form(folder / f"{name}.onnx").model).log10_orbit
        assert found == pytest.approx(truth, rel=1e-3), name


@pytest.mark.parametrize("folder", each(f for f in TWINS if (f / "reexport_static.onnx").exists()))
def test_an_export_for_one_batch_coincides_under_that_size(folder: Path) -> None:
    static, base = load(folder / "reexport_static.onnx"), load(folder / "base.onnx")
    assert digest(normal_form(base, {"batch": 1})) == digest(normal_form(static))
    assert digest(normal_form(base)) == digest(form(folder / "base.onnx"))


@pytest.mark.parametrize("path", each(p for p in MODELS if p.stem in SAMPLE))
def test_real_models_keep_their_function(path: Path) -> None:
    one = form(path)
    assert (one.incomplete is None) == (path.stem not in INCOMPLETE)
    assert keeps_function(one)


@pytest.mark.parametrize("path", each(p for p in MODELS if p.stem in SAMPLE))
def test_a_normal_form_is_its_own(path: Path) -> None:
    assert digest(normal_form(form(path).model)) == digest(form(path))


def test_exports_of_a_simplifier_coincide_with_raw_ones() -> None:
    paths = [p for p in MODELS if p.stem in ("gtcrn-stream-raw-gru", "gtcrn-stream-simplified-gru")]
    if len(paths) < 2:
        pytest.skip("no such models")
    assert digest(form(paths[0])) == digest(form(paths[1]))


def test_random_graphs_keep_their_function() -> None:
    compared = 0
    for seed in range(60):
        case = generate(seed)
        one = normal_form(load(case.proto))
        try:
            outputs = outputs_of(case, one.model.to_proto())
        except NotImplemented_:
            continue  # onnxruntime has some activations in double precision for older operator sets only
        assert worst_difference(outputs_of(case, case.proto), outputs) < ROUNDING, seed
        assert digest(normal_form(one.model)) == digest(one), seed
        compared += 1
    assert compared > 40


def test_a_node_that_lacks_an_input_is_left_alone() -> None:
    one = normal_form(build("g (float[n, 6] x) => (float[n, 6] y) { h = Identity(x) y = MatMul(h) }", {}))
    assert [node.op_type for node in one.ir.graph] == ["Identity", "MatMul"]
    assert one.incomplete is not None
    assert "MatMul" in one.incomplete


# -- what stands beside the graph -------------------------------------------------------------------

NORMALIZED = """g (float[n, 4, 6, 6] x) => (float[n, 4, 6, 6] y) {
    c = Conv(x, w, b)
    y = BatchNormalization(c, s, o, m, v)
}"""


def normalized() -> Model:
    tensors = {name: np.arange(1, 5, dtype=np.float32) for name in "bsomv"}
    return build(NORMALIZED, {"w": np.ones((4, 4, 1, 1), np.float32), **tensors})


def test_sources_name_the_tensors_a_constant_was_computed_from() -> None:
    one = normal_form(normalized())
    assert {frozenset(names) for names in one.sources.values()} == {
        frozenset("wsomv"),
        frozenset("bwsomv") - {"w"},
    }
    assert set(one.sources) == set(one.model.tensor_names())


def test_the_model_is_not_changed() -> None:
    model = normalized()
    before, nodes = contents(model), [(node.op_type, len(node.inputs)) for node in model.ir.graph]
    normal_form(model)
    assert contents(model) == before
    assert [(node.op_type, len(node.inputs)) for node in model.ir.graph] == nodes


def test_replaced_tensors_are_seen_as_they_are() -> None:
    model = normalized()
    twin = model.with_tensors({"w": model.tensor("w") * 2})
    assert keeps_function(normal_form(twin))
    assert not verify(model, normal_form(twin).model, device="cpu").same


def test_weights_that_stay_are_not_copied() -> None:
    model = build(
        "g (float[n, 64] x) => (float[n, 64] y) { y = Gemm<transB = 1>(x, w) }",
        {"w": np.ones((64, 64), np.float32)},
    )
    (weight,) = normal_form(model).ir.graph.initializers.values()
    assert weight.const_value is not None
    assert not weight.const_value.numpy().flags.owndata


def test_shared_weights_stay_shared() -> None:
    text = """g (float[n, 4, 6, 6] x) => (float[n, 4, 6, 6] y) {
        c = Conv(x, w)
        d = BatchNormalization(c, s, o, m, v)
        e = Conv(d, w)
        y = BatchNormalization(e, o, s, m, v)
    }"""
    tensors = {name: np.arange(1, 5, dtype=np.float32) for name in "somv"}
    one = normal_form(build(text, {"w": np.ones((4, 4, 1, 1), np.float32), **tensors}))
    assert keeps_function(one)
    assert [names for names in one.sources.values() if "w" in names] == [("w",)]


def test_what_the_caller_may_replace_is_no_constant() -> None:
    proto = normalized().to_proto()
    proto.graph.input.append(onnx.helper.make_tensor_value_info("s", onnx.TensorProto.FLOAT, [4]))
    one = normal_form(load(proto))
    assert [value.name for value in one.ir.graph.inputs] == ["x", "s"]
    assert one.model.overridable() == ["s"]
    assert keeps_function(one)


def test_operators_of_other_domains_stay() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17, "some.where" : 1]>
    g (float[n, 6] x) => (float[n, 6] y) {
        i = Identity(x)
        h = some.where.Mystery<size = 3>(i)
        y = Identity(h)
    }"""
    one = normal_form(load(onnx.parser.parse_model(text)))
    (node,) = one.ir.graph
    assert (node.domain, node.op_type, node.attributes["size"].value) == ("some.where", "Mystery", 3)
    assert one.model.opset("some.where") == 1


def test_a_small_file_cannot_make_a_large_constant() -> None:
    text = "g (float[1] x) => (float[n, m] y) { f = ConstantOfShape(s) t = Transpose(f) y = Add(t, x) }"
    one = normal_form(build(text, {"s": np.array([2**20, 2**20])}))
    assert one.ir.graph.num_nodes() > 0
    assert (
        sum(value.const_value.nbytes for value in one.ir.graph.initializers.values() if value.const_value)
        < 100
    )


def test_outputs_keep_their_names_where_nothing_computes_them() -> None:
    head = "g (float[n, 6] x) => (float[n, 6] a, float[n, 6] b, float[2] c)"
    text = f"{head} {{ a = Identity(x) b = Relu(x) c = Exp(w) }}"
    one = normal_form(build(text, {"w": np.ones(2, np.float32)}))
    assert [value.name for value in one.ir.graph.outputs] == ["a", "b", "c"]
    assert keeps_function(one)


def refused(body: str, **tensors: np.ndarray) -> list[str]:
    """The reasons that rules give for a graph, each with its pattern."""
    text = f"g (float[n, 4] x) => (float[a, b] y, float[c, d] z) {{ {body} }}"
    form = normal_form(build(text, tensors, 17))
    assert form.incomplete is None
    return [f"{refusal.pattern} {refusal.reason}" for refusal in form.refusals]


def test_rules_say_why_a_pattern_is_left_as_it_is() -> None:
    weights = {"w": np.ones((4, 5), np.float32), "c": np.arange(5, dtype=np.float32)}
    assert refused("p = MatMul(x, w) y = Mul(p, c) z = Relu(p)", **weights) == [
        "contraction.factor_into_matrix reads a value that others read too"
    ]
    assert refused("p = MatMul(x, w) q = MatMul(x, w) y = Mul(p, c) z = Identity(x)", **weights) == []


def test_integers_between_operators_of_onnxruntime_stay_integers() -> None:
    form = normal_form(chain("operators"))
    types = {node.op_type: node.outputs[0].dtype for node in form.ir.graph}
    assert types["QLinearLeakyRelu"] == types["QLinearMatMul"] == ir.DataType.UINT8
    assert keeps_function(form)


@pytest.mark.parametrize("opset", [21, 23])
def test_dequantized_weights_are_floats_in_every_operator_set(opset: int) -> None:
    text = "g (float[n, 4] x) => (float[a, b] y) { w = DequantizeLinear(q, s) y = MatMul(x, w) }"
    model = build(text, {"q": np.ones((4, 5), np.int8), "s": np.array(0.5, np.float32)}, opset)
    (weight,) = (node.outputs[0] for node in normal_form(model).ir.graph if node.op_type != "MatMul")
    assert weight.dtype == ir.DataType.FLOAT
