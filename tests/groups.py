"""Groups written down by hand, to hold what the analysis finds against: attention and what goes with it.

H heads of d inner dimensions have H! · (d!)^H · (v!)^H permutations: whole heads, in each head one map for
queries and keys and one for values and what reads them. A scale and a sign lie on each of these dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import factorial as f
from math import log10
from typing import Any

import numpy as np
import pytest
from onnx import helper

from onnxcanon.model import load
from onnxcanon.symmetry import symmetry
from tests.fuzz.builder import CONTRIB, Array, Builder
from tests.fuzz.check import check
from tests.fuzz.graphs import Case

B, S, C, H, D, V = 2, 3, 5, 2, 4, 3
"""Samples, positions, channels, heads, inner dimensions of queries and keys, and of values."""


@dataclass(frozen=True)
class Group:
    """The number of permutations, of scale freedoms and of sign freedoms."""

    permutations: int
    scales: int
    signs: int | None = None  # as many as scales

    def is_that_of(self, b: Builder, *outputs: str) -> None:
        """The analysis finds exactly this, without a barrier."""
        found = symmetry(load(b.model(outputs, dynamic=False)))
        assert [(x.operator, x.reason) for x in found.trace.unsupported] == []
        assert not found.solution.failures
        assert found.log10_orbit == pytest.approx(log10(self.permutations), abs=1e-9)
        signs = self.scales if self.signs is None else self.signs
        assert tuple(int(acting.sum()) for acting in found.acting) == (self.scales, signs)

    def keeps(self, b: Builder, *outputs: str) -> None:
        """The same, and random elements keep what onnxruntime computes."""
        self.is_that_of(b, *outputs)
        feeds = [b.inputs, {n: other(b.rng, a) for n, a in b.inputs.items()}]
        for dynamic in (False, True):
            case = Case(b.model(outputs, dynamic=dynamic), feeds)
            assert [check(case, seed).problem for seed in range(3)] == [""] * 3


def other(rng: np.random.Generator, a: Array) -> Array:
    """Another input of the same kind (integers, which are lengths and masks, stay)."""
    return rng.normal(0, 1, a.shape).astype(a.dtype) if a.dtype.kind == "f" else a


def building(opset: int = 23, dtype: Any = np.float32) -> Builder:
    b = Builder(np.random.default_rng(7), dtype, opset)
    given(b, "x", normal(b, B, S, C))
    return b


def normal(b: Builder, *shape: int) -> Array:
    return b.rng.normal(0, 0.5, shape).astype(b.dtype)


def given(b: Builder, name: str, array: Array) -> str:
    """A graph input."""
    b.inputs[name] = b.value[name] = array
    return name


def constant(b: Builder, array: Array) -> str:
    name = b.name("w")
    b.initializers[name] = b.value[name] = array
    return name


def weight(b: Builder, *shape: int) -> str:
    return constant(b, normal(b, *shape))


def dense(b: Builder, x: str, n: int) -> str:
    return b.op("Add", b.op("MatMul", x, weight(b, b.shape(x)[-1], n)), weight(b, n))


def final(b: Builder, y: str) -> str:
    """What reads the result of an attention."""
    return b.op("MatMul", y, weight(b, b.shape(y)[-1], 2))


def ints(*values: int) -> Array:
    return np.array(values, np.int32)


def unrun(
    b: Builder, kind: str, *inputs: str, shape: tuple[int, ...], domain: str = CONTRIB, **attributes: Any
) -> str:
    """A node that onnxruntime has no kernel for on the CPU."""
    name = b.name("v")
    b.nodes.append(helper.make_node(kind, list(inputs), [name], domain=domain, **attributes))
    b.value[name] = np.zeros(shape, b.dtype)
    return name


def heads_of(d: int, v: int, count: int = H) -> Group:
    """The group of an attention with independent heads."""
    permutations = f(count) * f(d) ** count * f(v) ** count
    return Group(permutations, count * (d + v))
