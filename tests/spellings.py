"""Spellings of one function, by the rule that brings them together: graphs in the text of onnx.parser."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from onnxcanon.model import Model
from tests.examples import build

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Spelling:
    """One graph: what stands between the braces, its operator set, and integers and numbers it reads."""

    body: str
    opset: int = 21
    constants: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """Graphs of one function of `head`, with random weights of the given shapes."""

    head: str
    weights: dict[str, Shape]
    spellings: tuple[Spelling, ...]
    rtol: float | None = None

    def models(self) -> list[Model]:
        return [build(f"g {self.head} {{ {s.body} }}", self._tensors(s), s.opset) for s in self.spellings]

    def _tensors(self, spelling: Spelling) -> dict[str, npt.NDArray[np.generic]]:
        rng = np.random.default_rng(0)
        tensors: dict[str, npt.NDArray[np.generic]] = {
            name: rng.uniform(0.5, 1.5, shape).astype(np.float32) for name, shape in self.weights.items()
        }
        for name, value in spelling.constants.items():
            array = np.asarray(value)
            tensors[name] = array.astype(np.float32) if array.dtype == np.float64 else array
        # Tensors of one name are one tensor; those that a spelling does not read are not in its file.
        return {name: array for name, array in tensors.items() if _reads(spelling.body, name)}


def _reads(body: str, name: str) -> bool:
    words = body.replace("(", " ").replace(")", " ").replace(",", " ").split()
    return name in words


def case(head: str, weights: dict[str, Shape], *spellings: Spelling | str, rtol: float | None = None) -> Case:
    return Case(head, weights, tuple(s if isinstance(s, Spelling) else Spelling(s) for s in spellings), rtol)


VECTOR = "(float[n, 6] x) => (float[n, 4] y)"
SAME = "(float[n, 6] x) => (float[n, 6] y)"
IMAGE = "(float[n, 4, 6, 6] x) => (float[n, 4, 6, 6] y)"
TOKENS = "(float[n, 5, 12] x) => (float[n, 5, 12] y)"

CASES: dict[str, Case] = {
    # -- linear layers --
    "gemm": case(
        VECTOR, {"w": (6, 4), "b": (4,)},
        "m = MatMul(x, w) y = Add(m, b)",
        "m = MatMul(x, w) y = Add(b, m)",
        "y = Gemm(x, w, b)",
        "t = Transpose(w) y = Gemm<transB = 1>(x, t, b)",
        "t = Transpose(x) y = Gemm<transA = 1>(t, w, b)",
        Spelling("h = Mul(half, b) y = Gemm<beta = 2.0>(x, w, h)", constants={"half": 0.5}),
        Spelling("r = Unsqueeze(b, zero) y = Gemm(x, w, r)", constants={"zero": [0]}),
    ),
    "gemm_alpha": case(
        VECTOR, {"w": (6, 4)},
        Spelling("m = MatMul(x, w) y = Mul(m, two)", constants={"two": 2.0}),
        Spelling("y = Gemm<alpha = 2.0>(x, w)"),
    ),
    "zero_bias": case(
        VECTOR, {"w": (6, 4)},
        "y = MatMul(x, w)",
        Spelling("y = Gemm(x, w, z)", constants={"z": [0.0] * 4}),
        Spelling(
            "o = Constant<value_float = 0.0>() e = Expand(o, s) c = CastLike(e, x) m = MatMul(x, w)"
            " y = Add(m, c)",
            constants={"s": [4]},
        ),
    ),
    "rows_in_another_order": case(
        TOKENS, {"w": (12, 12), "b": (12,)},
        "m = MatMul(x, w) y = Add(m, b)",
        Spelling("r = Reshape(x, s) m = Gemm(r, w, b) y = Reshape(m, t)",
                 constants={"s": [-1, 12], "t": [-1, 5, 12]}),
        "r = Transpose<perm = [1, 0, 2]>(x) m = MatMul(r, w) a = Add(m, b)"
        " y = Transpose<perm = [1, 0, 2]>(a)",
    ),
    "factor_into_matrix": case(
        VECTOR, {"w": (6, 4), "b": (4,), "c": (4,)},
        "v = Mul(w, c) d = Mul(b, c) m = MatMul(x, v) y = Add(m, d)",
        "m = MatMul(x, w) a = Add(m, b) y = Mul(a, c)",
    ),
    "convolution_spelled_out": case(
        IMAGE, {"w": (4, 4, 3, 3), "b": (4,)},
        "y = Conv<pads = [1, 1, 1, 1], kernel_shape = [3, 3], strides = [1, 1], group = 1>(x, w, b)",
        'y = Conv<auto_pad = "SAME_UPPER">(x, w, b)',
        Spelling("p = Pad(x, a) y = Conv(p, w, b)", constants={"a": [0, 0, 1, 1, 0, 0, 1, 1]}),
        Spelling("p = Pad<pads = [0, 0, 1, 1, 0, 0, 1, 1]>(x) y = Conv(p, w, b)", opset=9),
        Spelling(
            "c = Conv<pads = [1, 1, 1, 1]>(x, w) r = Unsqueeze(b, axes)"
            " y = Add(c, r)", constants={"axes": [1, 2]}
        ),
    ),
    "batch_normalization_of_convolution": case(
        IMAGE, {"w": (4, 4, 1, 1), "b": (4,), "s": (4,), "o": (4,), "m": (4,), "v": (4,)},
        "c = Conv(x, w, b) y = BatchNormalization(c, s, o, m, v)",
        Spelling("c = Conv(x, w, b) y = BatchNormalization<epsilon = 0.00001>(c, s, o, m, v)", opset=9),
        Spelling(
            "e = Add(v, eps) r = Sqrt(e) f = Div(s, r) g = Unsqueeze(f, axes) h = Unsqueeze(f, four)"
            " k = Mul(w, h) d = Sub(b, m) l = Mul(d, f) q = Add(l, o) y = Conv(x, k, q)",
            constants={"eps": 1e-5, "axes": [1, 2], "four": [1, 2, 3]},
        ),
    ),
    "batch_normalization_of_transposed_convolution": case(
        "(float[n, 4, 6, 6] x) => (float[n, 2, 6, 6] y)",
        {"w": (4, 1, 1, 1), "s": (2,), "o": (2,), "m": (2,), "v": (2,)},
        "c = ConvTranspose<group = 2>(x, w) y = BatchNormalization(c, s, o, m, v)",
        "c = ConvTranspose<group = 2, strides = [1, 1]>(x, w)"
        " y = BatchNormalization<training_mode = 0>(c, s, o, m, v)",
    ),
    "batch_normalization_of_matrix": case(
        VECTOR, {"w": (6, 4), "b": (4,), "s": (4,), "o": (4,), "m": (4,), "v": (4,)},
        "c = Gemm(x, w, b) y = BatchNormalization(c, s, o, m, v)",
        Spelling(
            "e = Add(v, eps) r = Sqrt(e) f = Div(s, r) k = Mul(w, f) d = Sub(b, m) l = Mul(d, f)"
            " q = Add(l, o)"
            " y = Gemm(x, k, q)",
            constants={"eps": 1e-5},
        ),
    ),
    # -- nodes that do nothing --
    "nothing_done": case(
        VECTOR, {"w": (6, 4)},
        "h = Relu(x) y = MatMul(h, w)",
        "i = Identity(x) h = Relu(i) d = Dropout(h) m = MatMul(d, w) y = Identity(m)",
        Spelling("d = Dropout<ratio = 0.5>(x) h = Relu(d) y = MatMul(h, w)", opset=10),
        Spelling("d, mask = Dropout<ratio = 0.5>(x) h = Relu(d) y = MatMul(h, w)", opset=7),
        "c = Cast<to = 1>(x) l = CastLike(c, x) h = Relu(l) y = MatMul(h, w)",
        "t = Transpose<perm = [0, 1]>(x) h = Relu(t) y = MatMul(h, w)",
        Spelling("r = Reshape(x, s) h = Relu(r) y = MatMul(h, w)", constants={"s": [-1, 6]}),
        Spelling("r = Slice(x, a, e, k) h = Relu(r) y = MatMul(h, w)",
                 constants={"a": [0], "e": [2**63 - 1], "k": [1]}),
        "c = Concat<axis = 1>(x) h = Relu(c) y = MatMul(h, w)",
        Spelling("p = Pad(x, z) h = Relu(p) y = MatMul(h, w)", constants={"z": [0, 0, 0, 0]}),
        Spelling("p = Mul(x, one) q = Add(p, zero) h = Relu(q)"
                 " y = MatMul(h, w)", constants={"one": 1.0, "zero": 0.0}),
        "h = Relu(x) unused = Exp(h) y = MatMul(h, w)",
        Spelling("h = Clip<min = 0.0>(x) y = MatMul(h, w)", opset=7),
        Spelling("h = Clip(x, low) y = MatMul(h, w)", constants={"low": 0.0}),
        Spelling("h = Max(zero, x) y = MatMul(h, w)", constants={"zero": [0.0]}),
        Spelling("s = Shape(x) o = ConstantOfShape(s) a = Add(x, o) h = Relu(a) y = MatMul(h, w)"),
    ),
    "constant_condition": case(
        VECTOR, {"w": (6, 4)},
        "h = Relu(x) y = MatMul(h, w)",
        Spelling(
            "h = If(c)<then_branch = t () => (float[n, 6] a) { a = Relu(x) },"
            " else_branch = e () => (float[n, 6] a) { a = Exp(x) }> y = MatMul(h, w)",
            constants={"c": True},
        ),
    ),
    "inside_branches": case(
        "(float[n, 6] x, bool c) => (float[n, 6] y)", {"w": (6, 6)},
        "y = If(c)<then_branch = t () => (float[n, 6] a) { a = MatMul(x, w) },"
        " else_branch = e () => (float[n, 6] b) { r = Exp(x) b = Add(r, x) }>",
        "y = If(c)<then_branch = t () => (float[n, 6] a) { v = Transpose(w) a = Gemm<transB = 1>(x, v) },"
        " else_branch = e () => (float[n, 6] b) { i = Identity(x) r = Exp(i) b = Add(i, r) }>",
    ),
    "equal_nodes": case(
        SAME, {},
        "r = Relu(x) e = Exp(r) y = Add(r, e)",
        "r = Relu(x) s = Relu(x) e = Exp(s) y = Add(e, r)",
    ),
    # -- arithmetic --
    "products_and_powers": case(
        SAME, {},
        "y = Mul(x, x)",
        Spelling("y = Pow(x, two)", constants={"two": 2.0}),
        Spelling("y = Pow(x, two)", constants={"two": [2.0]}),
        Spelling("y = Pow(x, two)", constants={"two": np.int64(2)}),
    ),
    "cubes": case(
        SAME, {},
        "s = Mul(x, x) y = Mul(s, x)",
        Spelling("y = Pow(x, three)", constants={"three": 3.0}),
    ),
    "roots": case(
        SAME, {},
        "a = Exp(x) r = Sqrt(a) y = Div(x, r)",
        Spelling("a = Exp(x) r = Pow(a, half) y = Div(x, r)", constants={"half": 0.5}),
        Spelling("a = Exp(x) r = Pow(a, half) y = Mul(r, x)", constants={"half": -0.5}),
        "a = Exp(x) r = Sqrt(a) i = Reciprocal(r) y = Mul(x, i)",
        Spelling("a = Exp(x) r = Sqrt(a) i = Div(one, r) y = Mul(x, i)", constants={"one": 1.0}),
    ),
    "constant_factors_and_terms": case(
        SAME, {"c": (6,)},
        Spelling("e = Exp(x) m = Mul(e, two) y = Add(m, c)", constants={"two": 2.0}),
        Spelling("e = Exp(x) m = Div(e, half) y = Add(c, m)", constants={"half": [0.5]}),
        Spelling("e = Exp(x) n = Neg(e) m = Mul(n, two) y = Add(m, c)", constants={"two": -2.0}),
        Spelling("e = Exp(x) m = Mul(e, two) d = Neg(c) y = Sub(m, d)", constants={"two": 2.0}),
        Spelling("e = Exp(x) m = Mul(e, two) y = Sum(m, c)", constants={"two": 2.0}),
        Spelling("e = Exp(x) d = Add(c, o) m = Mul(e, two) a = Add(m, d) y = Sub(a, o)",
                 constants={"two": 2.0, "o": 1.0}),
    ),
    "numbers_last": case(
        SAME, {},
        Spelling("e = Exp(x) m = Mul(x, e) y = Mul(m, half)", constants={"half": 0.5}),
        Spelling("e = Exp(x) m = Mul(x, half) y = Mul(m, e)", constants={"half": 0.5}),
        Spelling("e = Exp(x) m = Mul(e, half) y = Mul(x, m)", constants={"half": 0.5}),
    ),
    "bounds": case(
        SAME, {},
        Spelling("y = Clip(x, low, high)", constants={"low": 0.0, "high": 6.0}),
        Spelling("y = Clip<min = 0.0, max = 6.0>(x)", opset=9),
        Spelling("m = Max(x, low) y = Min(high, m)", constants={"low": 0.0, "high": 6.0}),
        Spelling("m = Relu(x) y = Min(m, high)", constants={"high": 6.0}),
    ),
    # -- shapes --
    "flattened": case(
        "(float[n, 4, 2, 3] x) => (float[n, 24] y)", {},
        "y = Flatten(x)",
        Spelling("y = Reshape(x, s)", constants={"s": [-1, 24]}),
        Spelling("y = Reshape(x, s)", constants={"s": [0, -1]}),
        Spelling("s = Shape<start = 0, end = 1>(x) t = Concat<axis = 0>(s, r) y = Reshape(x, t)",
                 constants={"r": [24]}),
        Spelling("s = Shape(x) i = Gather(s, z) u = Unsqueeze(i, a) t = Concat<axis = 0>(u, r)"
                 " y = Reshape(x, t)",
                 constants={"z": 0, "a": [0], "r": [-1]}),
        Spelling("a = Reshape(x, s) b = Unsqueeze(a, two) c = Squeeze(b, two) y = Flatten(c)",
                 constants={"s": [0, 8, 3], "two": [2]}),
        Spelling("a = Unsqueeze<axes = [2]>(x) b = Squeeze<axes = [2]>(a) y = Flatten(b)", opset=11),
    ),
    "rearranged": case(
        TOKENS, {},
        Spelling("a = Reshape(x, s) b = Transpose<perm = [0, 2, 1, 3]>(a) c = Exp(b)"
                 " d = Transpose<perm = [0, 2, 1, 3]>(c) y = Reshape(d, t)",
                 constants={"s": [-1, 5, 3, 4], "t": [0, 0, 12]}),
        Spelling("p = Transpose<perm = [1, 0, 2]>(x) a = Reshape(p, s) b = Transpose<perm = [1, 0, 2]>(a)"
                 " e = Reshape(b, u) c = Exp(e) d = Transpose<perm = [0, 2, 1, 3]>(c) y = Reshape(d, t)",
                 constants={"s": [5, -1, 4], "u": [-1, 3, 5, 4], "t": [-1, 5, 12]}),
    ),
    "depth_to_space": case(
        "(float[n, 8, 3, 3] x) => (float[n, 2, 6, 6] y)", {},
        'y = DepthToSpace<blocksize = 2, mode = "CRD">(x)',
        Spelling("a = Reshape(x, s) b = Transpose<perm = [0, 1, 4, 2, 5, 3]>(a) y = Reshape(b, t)",
                 constants={"s": [-1, 2, 2, 2, 3, 3], "t": [-1, 2, 6, 6]}),
    ),
    "parts": case(
        "(float[n, 6] x) => (float[n, 3] y)", {},
        Spelling("a, b = Split<axis = 1>(x, s) c = Exp(b) y = Mul(a, c)", constants={"s": [3, 3]}),
        "a, b = Split<axis = -1, num_outputs = 2>(x) c = Exp(b) y = Mul(a, c)",
        Spelling("a, b = Split<axis = 1, split = [3, 3]>(x) c = Exp(b) y = Mul(a, c)", opset=11),
        Spelling("a, b = Split<axis = 1>(x) c = Exp(b) y = Mul(a, c)", opset=13),
        Spelling("a = Slice(x, z, t, o) b = Slice(x, t, e, o) c = Exp(b) y = Mul(a, c)",
                 constants={"z": [0], "t": [3], "e": [2**63 - 1], "o": [1]}),
        Spelling("a = Slice<axes = [1], starts = [0], ends = [3]>(x)"
                 " b = Slice<axes = [1], starts = [-3], ends = [100]>(x) c = Exp(b) y = Mul(a, c)", opset=9),
        Spelling("q = SplitToSequence<axis = 1>(x, t) a = SequenceAt(q, i) b = SequenceAt(q, j)"
                 " c = Exp(b) y = Mul(a, c)", constants={"t": 3, "i": 0, "j": -1}),
        Spelling("a = Gather<axis = 1>(x, f) b = Gather<axis = 1>(x, l) c = Exp(b) y = Mul(a, c)",
                 constants={"f": [0, 1, 2], "l": [3, 4, 5]}),
        Spelling("r = Reshape(x, s) a = Gather<axis = 1>(r, z) b = Gather<axis = 1>(r, o)"
                 " c = Exp(b) y = Mul(a, c)",
                 constants={"s": [-1, 2, 3], "z": 0, "o": -1}),
    ),
    "expanded": case(
        "(float[n, 5, 12] x) => (float[n, 6, 12] y)", {"c": (1, 1, 12)},
        Spelling("s = Shape<start = 0, end = 1>(x) t = Concat<axis = 0>(s, o, o) e = Expand(c, t)"
                 " y = Concat<axis = 1>(e, x)", constants={"o": [1]}),
        Spelling("s = Shape(x) i = Gather(s, z) u = Unsqueeze(i, a) t = Concat<axis = 0>(u, m, m)"
                 " k = Shape(t) f = ConstantOfShape<value = int64[1] {1}>(k) g = Mul(f, minus)"
                 " h = Equal(t, g)"
                 " w = Where(h, f, t) e = Expand(c, w) y = Concat<axis = 1>(e, x)",
                 constants={"z": 0, "a": [0], "m": [-1], "minus": -1}),
    ),
    "packed": case(
        "(float[n, 6] x) => (float[n, 4] y)", {"v": (6, 4), "w": (6, 4), "b": (4,), "c": (4,)},
        "a = Gemm(x, v, b) g = Gemm(x, w, c) s = Sigmoid(g) y = Mul(a, s)",
        Spelling("p = Concat<axis = 1>(v, w) q = Concat<axis = 0>(b, c) m = Gemm(x, p, q)"
                 " a, g = Split<axis = 1, num_outputs = 2>(m) s = Sigmoid(g) y = Mul(a, s)"),
        Spelling("p = Concat<axis = 1>(w, v) q = Concat<axis = 0>(c, b) m = Gemm(x, p, q) r = Reshape(m, k)"
                 " a = Gather<axis = 1>(r, one) g = Gather<axis = 1>(r, zero) s = Sigmoid(g) y = Mul(a, s)",
                 constants={"k": [-1, 2, 4], "one": 1, "zero": 0}),
    ),
    # -- reductions and pooling --
    "means": case(
        "(float[n, 4, 6, 6] x) => (float[n, 4] y)", {},
        "p = GlobalAveragePool(x) y = Flatten(p)",
        Spelling("y = ReduceMean<keepdims = 0>(x, a)", constants={"a": [2, 3]}),
        Spelling("y = ReduceMean<keepdims = 0, axes = [-1, -2]>(x)", opset=13),
        Spelling("m = ReduceMean<axes = [2, 3]>(x) y = Squeeze<axes = [2, 3]>(m)", opset=11),
    ),
    "sums": case(
        "(float[n, 4] x) => (float[n] y)", {},
        Spelling("y = ReduceSum<keepdims = 0>(x, a)", constants={"a": [1]}),
        Spelling("y = ReduceSum<keepdims = 0, axes = [1]>(x)", opset=11),
    ),
    "softmax": case(
        "(float[n, 4, 1, 1] x) => (float[n, 4, 1, 1] y)", {},
        "y = Softmax<axis = 1>(x)",
        "y = Softmax<axis = -3>(x)",
        Spelling("y = Softmax(x)", opset=11),
    ),
    "softmax_of_several_axes": case(
        "(float[n, 4, 3] x) => (float[n, 4, 3] y)", {},
        Spelling("y = Softmax<axis = 1>(x)", opset=11),
        Spelling("f = Flatten(x) s = Softmax(f) t = Shape(x) y = Reshape(s, t)"),
    ),
    "upsampled": case(
        "(float[n, 4, 3, 3] x) => (float[n, 4, 6, 6] y)", {},
        Spelling('y = Resize<mode = "nearest", coordinate_transformation_mode = "asymmetric",'
                 ' nearest_mode = "floor">(x, , s)', constants={"s": [1.0, 1.0, 2.0, 2.0]}),
        Spelling("y = Upsample<scales = [1.0, 1.0, 2.0, 2.0]>(x)", opset=7),
        Spelling("y = Upsample(x, s)", opset=9, constants={"s": [1.0, 1.0, 2.0, 2.0]}),
        Spelling("y = Resize(x, s)", opset=10, constants={"s": [1.0, 1.0, 2.0, 2.0]}),
    ),
    "resized": case(
        "(float[n, 4, 3, 3] x) => (float[n, 4, 6, 6] y)", {},
        Spelling('y = Resize<mode = "linear">(x, , s)', constants={"s": [1.0, 1.0, 2.0, 2.0]}),
        Spelling('s = Shape<end = 2>(x) t = Concat<axis = 0>(s, k) y = Resize<mode = "linear">(x, , , t)',
                 constants={"k": [6, 6]}),
        Spelling('y = Resize<mode = "linear">(x, r, s)', opset=11,
                 constants={"r": np.zeros(0, np.float32), "s": [1.0, 1.0, 2.0, 2.0]}),
    ),
    "pooled_over_everything": case(
        "(float[n, 4, 6, 6] x) => (float[n, 4, 1, 1] y)", {},
        "a = GlobalAveragePool(x) b = GlobalMaxPool(x) y = Add(a, b)",
        "a = AveragePool<kernel_shape = [6, 6]>(x) b = MaxPool<kernel_shape = [6, 6], strides = [2, 2]>(x)"
        " y = Add(a, b)",
    ),
    "sum_of_squares": case(
        "(float[n, 6] x) => (float[n, 1] y)", {},
        Spelling("y = ReduceL2(x, a)", constants={"a": [1]}),
        Spelling("y = ReduceL2<axes = [-1]>(x)", opset=13),
        Spelling("s = ReduceSumSquare(x, a) y = Sqrt(s)", constants={"a": [1]}),
        Spelling("p = Pow(x, two) s = ReduceSum(p, a) y = Sqrt(s)", constants={"a": [1], "two": 2.0}),
    ),
    "mish": case(
        SAME, {},
        "y = Mish(x)",
        "s = Softplus(x) t = Tanh(s) y = Mul(t, x)",
    ),
    "largest": case(
        "(float[n, 6] x) => (float[n, 2] y, int64[n, 2] z)", {},
        Spelling("y, z = TopK(x, k)", constants={"k": [2]}),
        Spelling("y, z = TopK<k = 2>(x)", opset=9),
    ),
    "index_of_largest": case(
        "(float[n, 6] x) => (int64[n] y)", {},
        "y = ArgMax<axis = 1, keepdims = 0>(x)",
        Spelling("a = ArgMax<axis = -1>(x) y = Squeeze(a, o)", constants={"o": [1]}),
    ),
    # -- normalizations --
    "layer_normalization": case(
        TOKENS, {"s": (12,), "b": (12,)},
        "y = LayerNormalization(x, s, b)",
        "y = LayerNormalization<axis = 2, epsilon = 0.00001>(x, s, b)",
        Spelling("m = ReduceMean<axes = [-1]>(x) d = Sub(x, m) q = Pow(d, two) v = ReduceMean<axes = [-1]>(q)"
                 " e = Add(v, eps) r = Sqrt(e) n = Div(d, r) k = Mul(n, s) y = Add(k, b)",
                 opset=13, constants={"two": 2.0, "eps": 1e-5}),
        Spelling("m = ReduceMean(x, a) d = Sub(x, m) q = Mul(d, d) v = ReduceMean(q, a)"
                 " e = Add(eps, v) r = Sqrt(e) i = Reciprocal(r) n = Mul(d, i) k = Mul(s, n) y = Add(b, k)",
                 constants={"a": [2], "eps": [1e-5]}),
    ),
    "root_mean_square": case(
        TOKENS, {"s": (12,)},
        Spelling("y = RMSNormalization<axis = -1, epsilon = 0.00001>(x, s)", opset=23),
        Spelling("q = Pow(x, two) v = ReduceMean(q, a) e = Add(v, eps) r = Sqrt(e) n = Div(x, r)"
                 " y = Mul(n, s)",
                 constants={"two": 2.0, "a": [-1], "eps": 1e-5}),
        Spelling("q = Pow(x, two) v = ReduceMean(q, a) e = Add(v, eps) r = Pow(e, h) n = Mul(x, r)"
                 " y = Mul(s, n)",
                 constants={"two": 2.0, "a": [-1], "eps": 1e-5, "h": -0.5}),
    ),
    "group_normalization": case(
        IMAGE, {"s": (4,), "b": (4,)},
        "y = GroupNormalization<num_groups = 2>(x, s, b)",
        Spelling("g = Reshape(x, t) n = InstanceNormalization(g, one, zero) r = Shape(x) i = Reshape(n, r)"
                 " u = Unsqueeze(s, a) v = Unsqueeze(b, a) m = Mul(i, u) y = Add(m, v)",
                 constants={"t": [0, 2, -1], "one": [1.0, 1.0], "zero": [0.0, 0.0], "a": [1, 2]}),
    ),
    "group_normalization_by_group": case(
        IMAGE, {},
        Spelling("y = GroupNormalization<num_groups = 2>(x, s, b)",
                 constants={"s": [1.5, 1.5, 0.5, 0.5], "b": [0.5, 0.5, 2.0, 2.0]}),
        Spelling("y = GroupNormalization<num_groups = 2>(x, s, b)", opset=18,
                 constants={"s": [1.5, 0.5], "b": [0.5, 2.0]}),
    ),
    "fourier_transform": case(
        "(float[n, 6, 1] x) => (float[n, 6, 2] y)", {},
        Spelling("y = DFT(x, , a)", constants={"a": np.int64(1)}),
        Spelling("y = DFT<axis = 1>(x)", opset=17),
    ),
    # -- activations --
    "gelu": case(
        SAME, {},
        "y = Gelu(x)",
        Spelling("d = Div(x, r) e = Erf(d) a = Add(e, one) m = Mul(x, a) y = Mul(m, half)",
                 constants={"r": 2**0.5, "one": 1.0, "half": 0.5}),
        Spelling("d = Mul(x, r) e = Erf(d) a = Add(one, e) h = Mul(x, half) y = Mul(h, a)",
                 constants={"r": 0.5**0.5, "one": 1.0, "half": [0.5]}),
        Spelling("d = Div(x, r) e = Erf(d) a = Add(e, one) h = Mul(half, a) y = Mul(x, h)",
                 constants={"r": 2**0.5, "one": 1.0, "half": 0.5}),
    ),
    "gelu_by_tanh": case(
        SAME, {},
        'y = Gelu<approximate = "tanh">(x)',
        Spelling("p = Pow(x, three) c = Mul(k, p) s = Add(x, c) u = Mul(s, r) t = Tanh(u) a = Add(t, one)"
                 " h = Mul(half, x) y = Mul(h, a)",
                 constants={"three": 3.0, "k": 0.044715, "r": (2 / np.pi) ** 0.5, "one": 1.0, "half": 0.5}),
        rtol=1e-3,  # onnxruntime's own operator rounds otherwise where 1 + tanh cancels
    ),
    "hard_swish": case(
        SAME, {},
        "y = HardSwish(x)",
        "h = HardSigmoid<alpha = 0.16666667, beta = 0.5>(x) y = Mul(h, x)",
        Spelling("a = Add(x, three) c = Clip(a, zero, six) m = Mul(x, c) y = Div(m, six)",
                 constants={"three": 3.0, "zero": 0.0, "six": 6.0}),
        Spelling("a = Add(x, three) c = Clip(a, zero, six) d = Div(c, six) y = Mul(x, d)",
                 constants={"three": 3.0, "zero": 0.0, "six": 6.0}),
    ),
    "attention": case(
        "(float[n, 5, 12] x) => (float[n, 3, 5, 4] y)", {},
        Spelling("r = Reshape(x, s) q = Transpose<perm = [0, 2, 1, 3]>(r) k = Exp(q) v = Relu(q)"
                 " y = Attention(q, k, v)", opset=23, constants={"s": [-1, 5, 3, 4]}),
        Spelling("r = Reshape(x, s) q = Transpose<perm = [0, 2, 1, 3]>(r) k = Exp(q) v = Relu(q)"
                 " t = Transpose<perm = [0, 1, 3, 2]>(k) m = MatMul(q, t) d = Div(m, two) p = Softmax(d)"
                 " y = MatMul(p, v)", constants={"s": [-1, 5, 3, 4], "two": 2.0}),
        Spelling("r = Reshape(x, s) q = Transpose<perm = [0, 2, 1, 3]>(r) k = Exp(q) v = Relu(q)"
                 " a = Mul(q, h) b = Mul(k, h) t = Transpose<perm = [0, 1, 3, 2]>(b) m = MatMul(a, t)"
                 " p = Softmax(m) y = MatMul(p, v)", constants={"s": [-1, 5, 3, 4], "h": [0.5**0.5]}),
    ),
    # -- recurrent layers --
    "recurrent_defaults": case(
        "(float[t, n, 6] x) => (float[t, 1, n, 5] y)", {"w": (1, 20, 6), "r": (1, 20, 5)},
        "y = LSTM<hidden_size = 5>(x, w, r)",
        'y, h, c = LSTM<hidden_size = 5, direction = "forward", activations = ["Sigmoid", "Tanh", "Tanh"]>'
        "(x, w, r)",
        Spelling("s = Shape<start = 1, end = 2>(x) t = Concat<axis = 0>(o, s, f) z = ConstantOfShape(t)"
                 " y = LSTM<hidden_size = 5>(x, w, r, b, , z, z)",
                 constants={"o": [1], "f": [5], "b": np.zeros((1, 40))}),
        Spelling("s = Shape<start = 1, end = 2>(x) t = Concat<axis = 0>(two, s, f) z = Expand(zero, t)"
                 " h = Slice(z, a, o) c = Slice(z, o, two) y = LSTM<hidden_size = 5>(x, w, r, , , h, c)",
                 constants={"o": [1], "f": [5], "two": [2], "a": [0], "zero": 0.0}),
    ),
    "recurrent_gates_reordered": case(
        "(float[t, n, 6] x) => (float[t, 1, n, 5] y)", {"w": (1, 20, 6), "r": (1, 20, 5)},
        "y = LSTM<hidden_size = 5>(x, w, r)",
        Spelling("a, b = Split<axis = 1, num_outputs = 2>(w) v = Concat<axis = 1>(b, a)"
                 " c, d = Split<axis = 1, num_outputs = 2>(v) u = Concat<axis = 1>(d, c)"
                 " y = LSTM<hidden_size = 5>(x, u, r)"),
    ),
}  # fmt: skip
"""Tensors of one name in the spellings of a case are the same; numbers are each spelling's own."""
