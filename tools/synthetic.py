"""Models that show how cost grows: made here, of any size.

Weights are holes in a sparse file beside the model: analysis does not read them, and 96 layers take
no space. With a seed they are random numbers. The graphs are spelled as exporters spell them::

    python tools/synthetic.py transformer --layers 96 folder/model.onnx
    python tools/synthetic.py resnet --seed 0 folder/model.onnx
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CHUNK = 1 << 24
"""Random numbers that are drawn at a time."""


@dataclass
class Sketch:
    """A graph that grows node by node."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: dict[str, tuple[int, ...]] = field(default_factory=dict)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def op(self, kind: str, *inputs: str, **attributes: object) -> str:
        """One more node; the name of its output."""
        name = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=f"node_{name}", **attributes))
        return name

    def weight(self, name: str, *shape: int) -> str:
        """A parameter."""
        self.weights[name] = shape
        return name

    def ints(self, *values: int) -> str:
        """A constant vector of integers."""
        return self._constant(np.array(values, np.int64))

    def number(self, value: float) -> str:
        """A constant number."""
        return self._constant(np.array(value, np.float32))

    def _constant(self, array: np.ndarray) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def save(self, path: Path, inputs: Sequence[onnx.ValueInfoProto], output: str) -> Path:
        """Write the model, and beside it a sparse file of zeros as long as its weights; `fill` makes numbers
        of them."""
        tensors, offset = [], 0
        for name, shape in self.weights.items():
            tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
            tensor.data_location = TensorProto.EXTERNAL
            length = 4 * prod(shape)
            place = {"location": f"{path.name}.data", "offset": str(offset), "length": str(length)}
            for key, value in place.items():
                tensor.external_data.add(key=key, value=value)
            tensors.append(tensor)
            offset += length
        graph = helper.make_graph(
            self.nodes, path.stem, list(inputs), [onnx.ValueInfoProto(name=output)], tensors + self.constants
        )
        with path.with_name(f"{path.name}.data").open("wb") as file:
            file.truncate(offset)
        path.write_bytes(
            helper.make_model(
                graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
            ).SerializeToString()
        )
        return path


def transformer(path: Path, layers: int, width: int = 768, heads: int = 12, vocabulary: int = 1000) -> Path:
    """A language model: pre-norm layers of attention and GELU, spelled out, dynamic in batch and length."""
    s = Sketch()
    x = s.op("Gather", s.weight("embedding", vocabulary, width), "ids", axis=0)
    for k in range(layers):
        x = s.op("Add", x, attention(s, f"{k}.attention", norm(s, f"{k}.norm1", x, width), width, heads))
        x = s.op("Add", x, mlp(s, f"{k}.mlp", norm(s, f"{k}.norm2", x, width), width))
    y = s.op("MatMul", norm(s, "norm", x, width), s.weight("head", width, vocabulary))
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "length"])
    return s.save(path, [ids], y)


def norm(s: Sketch, name: str, x: str, width: int) -> str:
    """LayerNormalization."""
    return s.op(
        "LayerNormalization", x, s.weight(f"{name}.gain", width), s.weight(f"{name}.bias", width), axis=-1
    )


def linear(s: Sketch, name: str, x: str, n: int, m: int) -> str:
    """MatMul and Add."""
    return s.op("Add", s.op("MatMul", x, s.weight(f"{name}.weight", n, m)), s.weight(f"{name}.bias", m))


def attention(s: Sketch, name: str, x: str, width: int, heads: int) -> str:
    """Multi-head attention, its shapes computed from those of x."""
    batch, length = (s.op("Gather", s.op("Shape", x), s.ints(k), axis=0) for k in (0, 1))

    def split(y: str, perm: Sequence[int]) -> str:
        shape = s.op("Concat", batch, length, s.ints(heads), s.ints(width // heads), axis=0)
        return s.op("Transpose", s.op("Reshape", y, shape), perm=perm)

    q, k, v = (linear(s, f"{name}.{part}", x, width, width) for part in ("query", "key", "value"))
    scores = s.op("MatMul", split(q, (0, 2, 1, 3)), split(k, (0, 2, 3, 1)))
    weights = s.op("Softmax", s.op("Div", scores, s.number((width / heads) ** 0.5)), axis=-1)
    y = s.op("Transpose", s.op("MatMul", weights, split(v, (0, 2, 1, 3))), perm=(0, 2, 1, 3))
    y = s.op("Reshape", y, s.op("Concat", batch, length, s.ints(width), axis=0))
    return linear(s, f"{name}.out", y, width, width)


def mlp(s: Sketch, name: str, x: str, width: int) -> str:
    """Two linear layers with the GELU that torch spells with Erf."""
    x = linear(s, f"{name}.up", x, width, 4 * width)
    gate = s.op("Add", s.op("Erf", s.op("Div", x, s.number(2**0.5))), s.number(1))
    return linear(s, f"{name}.down", s.op("Mul", s.op("Mul", x, gate), s.number(0.5)), 4 * width, width)


def shuffle(path: Path, layers: int, width: int = 240, groups: int = 3) -> Path:
    """ShuffleNet: grouped convolutions around a channel shuffle and a depthwise one, on a residual stream."""
    s = Sketch()
    x = s.op("Conv", "image", s.weight("stem", width, 3, 3, 3), pads=[1] * 4)
    for k in range(layers):
        y = conv(s, f"{k}.in", x, width, width // groups, 1, groups)
        y = s.op("Reshape", s.op("Relu", y), s.ints(-1, groups, width // groups, 28, 28))
        y = s.op("Reshape", s.op("Transpose", y, perm=(0, 2, 1, 3, 4)), s.ints(-1, width, 28, 28))
        y = conv(s, f"{k}.deep", y, width, 1, 3, width)
        y = conv(s, f"{k}.out", y, width, width // groups, 1, groups)
        x = s.op("Relu", s.op("Add", x, y))
    y = conv(s, "head", s.op("GlobalAveragePool", x), 10, width, 1, 1)
    return s.save(path, [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 28, 28])], y)


def group_norm(path: Path, layers: int, width: int = 512, groups: int = 32) -> Path:
    """Convolutions with GroupNorm as torch exports it: Reshape, InstanceNormalization, Reshape, Mul, Add."""
    s = Sketch()
    x = s.op("Conv", "image", s.weight("stem", width, 3, 3, 3), pads=[1] * 4)
    one, zero = s.weight("ones", groups), s.weight("zeros", groups)
    for k in range(layers):
        y = s.op("InstanceNormalization", s.op("Reshape", x, s.ints(0, groups, -1)), one, zero)
        y = s.op("Reshape", y, s.op("Shape", x))
        y = s.op("Mul", y, s.weight(f"{k}.gain", width, 1, 1))
        y = s.op("Relu", s.op("Add", y, s.weight(f"{k}.bias", width, 1, 1)))
        x = s.op("Add", x, conv(s, f"{k}.conv", y, width, width, 3, 1))
    y = conv(s, "head", s.op("GlobalAveragePool", x), 10, width, 1, 1)
    return s.save(path, [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 28, 28])], y)


def conv(s: Sketch, name: str, x: str, out: int, each: int, kernel: int, groups: int) -> str:
    """A convolution with bias that keeps the size of the image."""
    pads = [kernel // 2] * 4
    weight = s.weight(f"{name}.weight", out, each, kernel, kernel)
    return s.op("Conv", x, weight, s.weight(f"{name}.bias", out), group=groups, pads=pads)


def resnet(path: Path, layers: int = 50, blocks: Sequence[int] = (3, 4, 6, 3)) -> Path:
    """ResNet-50 with its normalizations folded: 25.6 million weights; `layers` is not varied."""
    s = Sketch()
    x = s.op("Relu", conv(s, "stem", "image", 64, 3, 7, 1))
    x = s.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    inside = 64
    for stage, count in enumerate(blocks):
        width = 64 << stage
        for k in range(count):
            name = f"{stage}.{k}"
            y = s.op("Relu", conv(s, f"{name}.reduce", x, width, inside, 1, 1))
            y = s.op("Relu", conv(s, f"{name}.deep", y, width, width, 3, 1))
            y = conv(s, f"{name}.expand", y, 4 * width, width, 1, 1)
            x = conv(s, f"{name}.skip", x, 4 * width, inside, 1, 1) if k == 0 else x
            x = s.op("Relu", s.op("Add", x, y))
            inside = 4 * width
    y = s.op("Flatten", s.op("GlobalAveragePool", x))
    y = s.op("Gemm", y, s.weight("fc.weight", 1000, inside), s.weight("fc.bias", 1000), transB=1)
    return s.save(path, [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 56, 56])], y)


def fill(path: Path, seed: int) -> None:
    """Random weights: normal numbers of deviation 0.02, all different enough for no two units to be alike."""
    data = path.with_name(f"{path.name}.data")
    count, rng = data.stat().st_size // 4, np.random.default_rng(seed)
    with data.open("wb") as file:
        for start in range(0, count, CHUNK):
            numbers = rng.standard_normal(min(CHUNK, count - start), dtype=np.float32)
            file.write((numbers * np.float32(0.02)).tobytes())


def spread(path: Path, seed: int) -> None:
    """Make channels differ in size, as training does: every weight times a lognormal factor of its output and
    one of its input."""
    numbers = np.memmap(path.with_name(f"{path.name}.data"), np.float32, "r+")
    rng = np.random.default_rng(seed)
    for tensor in onnx.load(path, load_external_data=False).graph.initializer:
        place = {entry.key: entry.value for entry in tensor.external_data}
        if not place:
            continue
        start = int(place["offset"]) // 4
        array = numbers[start : start + prod(tensor.dims)].reshape(tuple(tensor.dims))
        for axis, size in enumerate(tensor.dims[:2]):
            shape = [size if a == axis else 1 for a in range(array.ndim)]
            array *= np.exp(0.7 * rng.standard_normal(shape, dtype=np.float32))
    numbers.flush()


KINDS: dict[str, Callable[..., Path]] = {
    "transformer": transformer,
    "shuffle": shuffle,
    "group-norm": group_norm,
    "resnet": resnet,
}


def main() -> None:
    """Write one model."""
    parser = argparse.ArgumentParser(description="Make a model to measure on.")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("path", type=Path)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--vocabulary", type=int, default=1000, help="of a transformer")
    parser.add_argument("--seed", type=int, help="fill in random weights")
    parser.add_argument("--uneven", action="store_true", help="with weights whose channels differ in size")
    given = parser.parse_args()
    more = {"vocabulary": given.vocabulary} if given.kind == "transformer" else {}
    KINDS[given.kind](given.path, given.layers, **more)
    if given.seed is not None:
        fill(given.path, given.seed)
        if given.uneven:
            spread(given.path, given.seed)


if __name__ == "__main__":
    main()
