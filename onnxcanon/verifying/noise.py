"""The model's own noise: models and inputs perturbed as rounding does it (`differences` measures the effect).

A permutation adds in another order, a scale rounds every weight once: both act like moving each weight by
about one unit in its last place, at random. So that is done to the model itself, and what it does to the
outputs is the floor below which no difference means anything. On 160 equal models (ten architectures,
permuted, rescaled, exported again) the difference was at most 2.5 of these floors; one weight changed by a
hundredth of its tensor's deviation makes 18 to 360.

Rounding to integers answers in jumps: most tiny moves do nothing, and a rare one passes a threshold and moves
all that follows. There weights and inputs are moved by 1e-4, enough to pass some thresholds on every input,
and the floor is then the level that such noise saturates at.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx_ir as ir

from onnxcanon.arrays import Array, Arrays
from onnxcanon.graph.traits import Trait, has
from onnxcanon.model import Model

# Bits of the significand that are stored: one unit in the last place of 1.0 is 2^-bits.
_STORED_BITS = {"float64": 52, "float32": 23, "float16": 10, "bfloat16": 7}
_QUANTIZED_MOVE = 1e-4


def unit(dtype: np.dtype) -> float:
    """The distance from 1 to the next number of a floating type; 0 for any other type."""
    bits = _STORED_BITS.get(dtype.name)
    return 0.0 if bits is None else 2.0**-bits


def coarsest_unit(model: Model) -> float:
    """The `unit` of the least precise floating type in `model`, weights and values; at least single's."""
    types = {model.tensor_info(name)[1] for name in model.tensor_names()}
    types |= {value.dtype for value in (*model.ir.graph.inputs, *model.ir.graph.outputs) if value.dtype}
    types |= {value.dtype for node in model.ir.graph for value in node.outputs if value.dtype}
    units = [unit(dtype.numpy()) for dtype in types if dtype.is_floating_point()]
    return max([2.0**-23, *units])


def rounds_to_integers(model: ir.Model) -> bool:
    """Whether activations are rounded to integers on their way (weights alone may be, without a jump)."""
    graphs: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    return any(has(node, Trait.ROUNDING) for graph in graphs for node in graph.all_nodes())


def perturbed(model: Model, seed: int, rounds: bool) -> Model:
    """The model with every floating weight moved: by one unit in the last place, or by 1e-4.

    Args:
        model: the model.
        seed: the random seed.
        rounds: whether the model rounds to integers, so that less would move nothing.

    Short vectors keep their values: they are as often sizes, scales of a Resize or limits, which are exact.
    """
    moved = {}
    for index, name in enumerate(model.tensor_names()):
        shape, dtype = model.tensor_info(name)
        is_weight = len(shape) > 1 or (len(shape) == 1 and shape[0] > 8)
        if is_weight and dtype.is_floating_point() and dtype.numpy().name in _STORED_BITS:
            moved[name] = partial(_perturbed_tensor, model, name, seed, index, rounds)
    return model.with_tensors(moved)


def perturbed_inputs(inputs: Arrays, seed: int, rounds: bool) -> Arrays:
    """Inputs with floating ones moved away from zero: a number that is cut to an id stays that id."""
    rng = np.random.default_rng(seed)
    return {
        name: _move(array, rng, rounds, outward=True) if array.dtype.name in _STORED_BITS else array
        for name, array in inputs.items()
    }


def _perturbed_tensor(model: Model, name: str, seed: int, index: int, rounds: bool) -> Array:
    return _move(model.tensor(name), np.random.default_rng([seed, index]), rounds, outward=False)


def _move(array: Array, rng: np.random.Generator, rounds: bool, outward: bool) -> Array:
    if rounds:
        factor = rng.normal(scale=_QUANTIZED_MOVE, size=array.shape).astype(np.float32)
        moved = (array * (1 + (np.abs(factor) if outward else factor))).astype(array.dtype)
    else:
        # Adding one to the bits of a float is a step away from zero, subtracting one a step towards it.
        steps = rng.integers(0, 2, array.shape, np.int8)
        bits = np.array(array, order="C").view(f"u{array.dtype.itemsize}")
        moved = (bits + (steps if outward else 2 * steps - 1).astype(bits.dtype)).view(array.dtype)
    return np.where((array != 0) & np.isfinite(moved), moved, array)
