"""A random element of the whole group changes no output; half of the same element does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxcanon.explaining.explainer import Explainer
from onnxcanon.model import Model, load
from onnxcanon.symmetry import Symmetry, symmetry
from onnxcanon.transform import Transform
from onnxcanon.verifying import Verification
from tests.examples import Array, contents
from tests.fuzz.check import part
from tests.running import verify
from tests.shared import ABSENT, EXPORTS, MODELS, SHARED, SHIPPED, TRIVIAL, TWINS, document, each, label

CONSTANT = "its weights are constants computed in the graph: inputs of a layer are interchangeable"
VACUOUS = {
    "light-densenet121": CONSTANT,
    "light-inception-v2": CONSTANT,
    "light-resnet50": CONSTANT,
    "light-vgg19": CONSTANT,
}
"""Models whose outputs do not notice when only half of an element is applied, so that equality says nothing.
`test_light_models_filled_with_random_weights` stands in for them."""

SLOW = (
    "light-",
    "basic-pitch",
    "bert-qa-tiny",
    "cnn-residual-block",
    "gpt2-tiny-pytorch14",
    "gtcrn-stream-raw",
    "minilm",
)
"""Models run once; quantized ones are not among them: one run does not show how they jump."""
FILLED = ("light-densenet121", "light-inception-v2", "light-resnet50", "light-shufflenet")


def shrunk_style_transfer(proto: onnx.ModelProto, pixels: int = 80) -> None:
    """Style transfer on small pictures: two transposed convolutions state the size of their output."""
    for value in (*proto.graph.input[:1], *proto.graph.output):
        for axis in (2, 3):
            value.type.tensor_type.shape.dim[axis].dim_value = pixels
    sizes = [pixels // 2 + 2, pixels + 2]
    for node in proto.graph.node:
        for attribute in node.attribute:
            if attribute.name == "output_shape":
                attribute.ints[:] = [sizes[0]] * 2
                del sizes[0]


SHRUNK: dict[str, Callable[[onnx.ModelProto], None]] = {"style-transfer-candy": shrunk_style_transfer}
"""Models that take seconds to run on their own inputs and compute the same on smaller ones."""


def compare(name: str, model: Model, changed: Model) -> Verification:
    samples = 1 if name.startswith(SLOW) else 4
    return verify(model, changed, device="cpu", threads=1, samples=samples)


def half(element: Transform, rng: np.random.Generator) -> Transform:
    """The element on half of the parameters it moves."""
    names = sorted(element.actions)
    chosen = rng.permutation(names)[: max(1, len(names) // 2)] if len(names) > 1 else []
    return part(element, chosen)


def noticed(name: str, model: Model, element: Transform, rng: np.random.Generator) -> bool:
    """Whether half of an element, some of three halves, changes the outputs."""
    parts = (half(element, rng) for _ in range(3))
    return any(part.actions and not compare(name, model, part.apply(model)).same for part in parts)


def evidence(model: Model, group: Symmetry) -> set[str]:
    """Everything the analysis says about why something may not change."""
    explainer = Explainer(group)
    axes = [(n, a) for n, p in group.trace.parameters.items() for a, size in enumerate(p.shape) if size > 1]
    absent = set() if group.trace.parameters else {ABSENT}
    barriers = {obstacle.operator for obstacle in group.trace.unsupported}
    return {
        *group.trace.fixed_constants.values(),
        *barriers,
        *(explainer.explain(n, a).text for n, a in axes),
        *absent,
    }


def prepared(path: Path) -> tuple[Model, Symmetry]:
    """The model to run, and the group that was found in the file itself."""
    model = load(path)
    group = symmetry(model)
    if path.stem in SHRUNK:
        proto = model.to_proto()
        SHRUNK[path.stem](proto)
        model = load(proto)
    return model, group


@pytest.mark.parametrize("path", each(MODELS, SHIPPED, [folder / "base.onnx" for folder in TWINS], EXPORTS))
def test_random_elements_keep_the_function_and_halves_of_them_do_not(path: Path) -> None:
    name = label(path)
    model, group = prepared(path)
    assert group.trivial == (name in TRIVIAL)
    rng = np.random.default_rng(0)
    element = group.random(rng)
    if group.trivial:
        assert not element.actions
        assert TRIVIAL[name] in evidence(model, group)
        return
    moved = element.apply(model)
    result = compare(name, model, moved)
    assert result.same, result
    assert noticed(name, model, element, rng) == (name not in VACUOUS)


@pytest.mark.skipif(not MODELS, reason=f"no models at {SHARED}")
def test_all_models_of_the_manifest_are_tested() -> None:
    entries = document(SHARED / "models" / "MANIFEST.json")["models"]
    stems = {path.stem for path in MODELS}
    assert {Path(entry["file"]).stem for entry in entries} == stems
    assert stems >= TRIVIAL.keys() | VACUOUS.keys() | SHRUNK.keys()
    assert not TRIVIAL.keys() & VACUOUS.keys()


def filled(proto: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """Random initializers in place of the constants that the graph computes."""
    shapes = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    computed = {n.output[0]: shapes[n.input[0]] for n in proto.graph.node if n.op_type == "ConstantOfShape"}
    roles = {
        name: (node.op_type, slot)
        for node in proto.graph.node
        for slot, name in enumerate(node.input)
        if name in computed
    }
    made = [numpy_helper.from_array(drawn(rng, s, *roles[n]), n) for n, s in computed.items() if n in roles]
    rest = [node for node in proto.graph.node if node.op_type != "ConstantOfShape"]
    out = onnx.ModelProto()
    out.CopyFrom(proto)
    del out.graph.node[:]
    out.graph.node.extend(rest)
    out.graph.initializer.extend(made)
    return out


def drawn(rng: np.random.Generator, shape: Array, operator: str, slot: int) -> Array:
    """Weights that keep values of order one."""
    if operator == "BatchNormalization" and slot in (2, 3):  # bias and mean
        return rng.uniform(-0.3, 0.3, shape).astype(np.float32)
    if operator in ("BatchNormalization", "Mul", "Unsqueeze") or slot == 2:
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    return (rng.standard_normal(shape) * (2 / np.prod(shape[1:])) ** 0.5).astype(np.float32)


@pytest.mark.parametrize("path", each(p for p in MODELS if p.stem in FILLED))
def test_light_models_filled_with_random_weights(path: Path) -> None:
    rng = np.random.default_rng(0)
    model = load(filled(load(path).to_proto(), rng))
    group = symmetry(model)
    element = group.random(rng)
    moved = element.apply(model)
    assert contents(moved) != contents(model)
    result = compare(path.stem, model, moved)
    assert result.same, result
    assert noticed(path.stem, model, element, rng)
