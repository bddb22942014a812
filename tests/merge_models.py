"""Small trained-like networks to merge and repair, with their statistics computed by hand."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from onnxcanon.model import Model
from tests.examples import Array, build
from tests.running import run


def images(count: int = 50, seed: int = 9) -> dict[str, Array]:
    """Inputs of `residual` that are not centered, in a number that no batch size divides."""
    rng = np.random.default_rng(seed)
    return {"x": (rng.normal(0.7, 2.0, (count, 3, 6, 6)) * rng.uniform(0.2, 2, (3, 1, 1))).astype(np.float32)}


def residual(seed: int = 0, *, normalized: bool = False) -> Model:
    """x[n, 3, 6, 6] -> a stream of 5 channels, one block beside it, -> y[n, 4].

    The layers are spelled in all the ways that carry a bias: an input of Conv, an added constant, a bias of
    Gemm that is multiplied, MatMul of a transposed weight; or, `normalized`, a BatchNormalization."""
    rng = np.random.default_rng(seed)
    shapes = {"k1": (5, 3, 3, 3), "k2": (8, 5, 3, 3), "k3": (8, 5, 1, 1), "wg": (7, 5), "wm": (4, 7)}
    tensors: dict[str, Array] = {n: _normal(rng, s, (2 / np.prod(s[1:])) ** 0.5) for n, s in shapes.items()}
    tensors |= {"b3": _normal(rng, (1, 5, 1, 1)), "bg": _normal(rng, (7,)), "bm": _normal(rng, (4,))}
    for k, channels in (("1", 5), ("2", 8)):
        tensors[f"b{k}"] = _normal(rng, (channels,))
        if normalized:
            tensors[f"g{k}"] = rng.uniform(0.5, 2, channels).astype(np.float32)
            tensors[f"m{k}"] = _normal(rng, (channels,))
            tensors[f"v{k}"] = rng.uniform(0.5, 2, channels).astype(np.float32)
    first, second = (
        (
            f"c{k} = Conv <pads = [1, 1, 1, 1]> ({x}, k{k})\n"
            f"z{k} = BatchNormalization (c{k}, g{k}, b{k}, m{k}, v{k})"
            if normalized
            else f"z{k} = Conv <pads = [1, 1, 1, 1]> ({x}, k{k}, b{k})"
        )
        for k, x in (("1", "x"), ("2", "h1"))
    )
    text = f"""residual (float[n, 3, 6, 6] x) => (float[n, 4] y) {{
        {first}
        h1 = Relu(z1)
        {second}
        h2 = Relu(z2)
        c3 = ConvTranspose (h2, k3)
        z3 = Add(c3, b3)
        s = Add(z3, h1)
        h3 = Relu(s)
        p = GlobalAveragePool(h3)
        f = Flatten(p)
        zg = Gemm <alpha = 0.5, beta = 2.0, transB = 1> (f, wg, bg)
        hg = Relu(zg)
        t = Transpose <perm = [1, 0]> (wm)
        c4 = MatMul(hg, t)
        y = Add(bm, c4)
    }}"""
    return build(text, tensors, opset=17)


SITES = {"z1": 1, "z2": 1, "z3": 1, "zg": 1, "y": 1}
"""The values of `residual` that a repair reaches, with the axis of their channels."""


def statistics(model: Model, value: str, data: Mapping[str, Array]) -> tuple[Array, Array]:
    """Mean and population variance [channels] of a value, the data taken at once."""
    array = run(model, data, device="cpu", extra_outputs=[value])[value].astype(np.float64)
    axes = tuple(k for k in range(array.ndim) if k != 1)
    return array.mean(axes), array.var(axes)


def _normal(rng: np.random.Generator, shape: tuple[int, ...], size: float = 0.3) -> Array:
    return rng.normal(0, size, shape).astype(np.float32)
