"""A short run of the fuzzer; `python -m tests.fuzz --graphs 2000` is the long one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from onnxcanon.action import Action
from onnxcanon.model import load
from onnxcanon.symmetry import symmetry
from tests.fuzz.builder import TOLERANCE, Builder
from tests.fuzz.check import check, worst_difference
from tests.fuzz.graphs import Case, generate, outputs_of
from tests.fuzz.tally import fuzz

CHUNK = 40


@pytest.mark.parametrize("first", range(0, 160, CHUNK))
def test_random_elements_keep_the_function(first: int) -> None:
    tally = fuzz(range(first, first + CHUNK))
    assert not tally.findings
    # A fuzzer whose graphs have no freedom, or whose outputs do not notice one, finds nothing.
    assert tally.permuted > 0.7 * CHUNK
    assert tally.scaled > 0.6 * CHUNK
    assert tally.flipped > 0.6 * CHUNK
    assert tally.controlled > 0.6 * CHUNK


def test_the_fuzzer_notices_a_wrong_element() -> None:
    """Swapping two rows of one parameter alone is no symmetry, and is seen."""
    noticed = tried = 0
    for seed in range(40):
        case = generate(seed)
        model = load(case.proto)
        whole = symmetry(model).random(np.random.default_rng(seed))
        own = {n: a for n, a in whole.actions.items() if n not in whole.stacks}
        if not own:
            continue
        name, action = max(own.items(), key=lambda item: np.prod(item[1].shape))
        first = np.roll(np.arange(action.shape[0]), 1).reshape([-1, *[1] * (len(action.shape) - 1)])
        wrong = replace(whole, actions={**whole.actions, name: action.then(Action(action.shape, {0: first}))})
        before = outputs_of(case, case.proto)
        after = outputs_of(case, wrong.apply(model).to_proto())
        tried += 1
        noticed += worst_difference(before, after) > TOLERANCE["float32"]
    assert tried >= 30
    assert noticed >= tried / 2


def test_the_same_seed_gives_the_same_graph() -> None:
    assert generate(3).proto.SerializeToString() == generate(3).proto.SerializeToString()


def building(*shape: int, dtype: type = np.float32) -> Builder:
    b = Builder(np.random.default_rng(5), dtype, 23)
    b.inputs["x"] = b.value["x"] = b.rng.normal(0, 1, shape).astype(dtype)
    return b


def weight(b: Builder, *shape: int) -> str:
    name = b.name("w")
    b.initializers[name] = b.value[name] = b.rng.normal(0, 0.5, shape).astype(b.dtype)
    return name


def passes(b: Builder, output: str, *batches: int) -> None:
    feeds = [{"x": b.rng.normal(0, 1, (n, *b.shape("x")[1:])).astype(b.dtype)} for n in batches]
    case = Case(b.model([output], dynamic=len(batches) > 1), feeds)
    for seed in range(5):
        assert check(case, seed).problem == ""


def test_positions_under_a_causal_mask() -> None:
    b = building(2, 4, 8)
    rows = b.op("MatMul", weight(b, 6, 4), "x")  # positions made by a weight could move but for the mask
    q, k, v = (b.op("MatMul", rows, weight(b, 8, 8)) for _ in range(3))
    y = b.op("Attention", q, k, v, q_num_heads=2, kv_num_heads=2, is_causal=1)
    passes(b, b.op("ReduceMean", y, b.ints(1), keepdims=0), 2)


def test_a_kernel_that_another_operator_reads_as_a_matrix() -> None:
    b = building(2, 4, 6)
    w = weight(b, 4, 4, 3)
    other = b.op("Identity", w)
    y = b.op("Conv", "x", w, pads=[1, 1], kernel_shape=[3])
    z = b.op("Softplus", b.op("Einsum", "x", other, equation="nct,ock->nkt"))
    z = b.op("Einsum", z, weight(b, 3, 5), equation="nkt,km->nm")
    passes(b, b.op("Concat", z, b.op("ReduceMean", y, b.ints(2), keepdims=0), axis=1), 2)


def test_a_zero_is_not_zero_after_the_exponential() -> None:
    b = building(3, 4, dtype=np.float64)
    zero = b.uniform((6,), 0.0)
    y = b.op("Add", b.op("MatMul", "x", weight(b, 4, 6)), zero)
    y = b.op("Max", y, b.op("Exp", zero))
    passes(b, b.op("MatMul", y, weight(b, 6, 2)), 3)


def test_padding_by_minus_one_and_one_shifts() -> None:
    b = building(3, 4, dtype=np.float64)
    y = b.op("Pad", b.op("MatMul", "x", weight(b, 4, 6)), b.ints(0, -1, 0, 1))
    passes(b, b.op("MatMul", y, weight(b, 6, 2)), 3)


def test_a_context_whose_labels_repeat() -> None:
    """Labels [a, b, a, b] of one axis are context of another, whose labels then do not move from a to a."""
    b = building(3, 2, dtype=np.float64)
    y = b.op("Reshape", b.op("MatMul", "x", weight(b, 2, 12)), b.ints(0, 4, 3))
    y = b.op("Gather", b.op("Transpose", y, perm=[2, 0, 1]), b.constant(np.array(0)), axis=0)
    y = b.op("Add", y, b.op("Concat", "x", b.op("Slice", y, b.ints(0), b.ints(2), b.ints(1)), axis=1))
    passes(b, b.op("MatMul", y, weight(b, 4, 2)), 3)


def test_heads_and_batch_cut_anew_by_a_fixed_size() -> None:
    """[batch · 2, 4, d] read as [2, 2, ?, d]: which head a position belongs to depends on the batch."""
    b = building(2, 4, 6, dtype=np.float64)
    y = b.op("Reshape", b.op("MatMul", "x", weight(b, 6, 8)), b.ints(0, 4, 2, 4))
    y = b.op("Reshape", b.op("Transpose", y, perm=[0, 2, 1, 3]), b.ints(-1, 4, 4))
    y = b.op("Transpose", b.op("Reshape", y, b.ints(2, 2, -1, 4)), perm=[0, 2, 1, 3])
    passes(b, b.op("MatMul", b.op("Reshape", y, b.ints(2, -1, 8)), weight(b, 8, 3)), 2, 5)


def test_rows_that_are_one_for_two_batches_only() -> None:
    """Every second row of a batch of 2 or 3 is one; that it is overwritten says nothing of the others."""
    b = building(3, 4, dtype=np.float64)
    y = b.op("MatMul", "x", weight(b, 4, 6))
    y = b.op("Slice", y, b.ints(1), b.ints(9999), b.ints(0), b.ints(2))
    y = b.op("MatMul", b.op("Relu", y), weight(b, 6, 2))
    y = b.op("ScatterND", y, b.constant(np.array([[0]])), weight(b, 1, 2))
    passes(b, y, 3, 5)


def test_contexts_in_a_circle() -> None:
    """Columns differ by row, for each row is a head's; rows differ by column, for some are cut and moved. The
    gain that meets both can follow one of these only."""
    b = building(2, 1, 4, 4, dtype=np.float64)
    y = b.op("MatMul", "x", weight(b, 6, 4, 3))
    moved = b.op("Concat", *(b.op("Slice", y, b.ints(k), b.ints(4), b.ints(1)) for k in (1, 3)), axis=1)
    moved = b.op("Concat", b.op("Slice", y, b.ints(0), b.ints(2), b.ints(1)), moved, axis=1)
    passes(b, b.op("LayerNormalization", b.op("Concat", y, moved, axis=3), weight(b, 6, 4, 6), axis=1), 2)


def test_positions_between_labels_stay_in_order_when_axes_are_merged() -> None:
    """Labels of columns differ by row; a cut leaves fixed positions between those of rows and columns."""
    b = building(2, 1, 4, 6)
    y = b.op("DepthToSpace", b.op("Conv", "x", weight(b, 12, 1, 1, 1)), blocksize=2, mode="DCR")
    y = b.op("Flatten", b.op("Reshape", y, b.ints(0, 3, 4, 2, 12)), axis=1)
    passes(b, b.op("Gemm", y, weight(b, 2, 288), transB=1), 2)


def test_a_reshape_that_changes_nothing_for_one_batch_only() -> None:
    """[batch, 6, 3] read as [2, -1, 3]: the same for two rows, a cut through the six for three."""
    b = building(2, 4, 3, dtype=np.float64)
    y = b.op("Relu", b.op("MatMul", weight(b, 6, 4), "x"))
    y = b.op("Reshape", y, b.ints(2, -1, 3))
    passes(b, b.op("ReduceMean", b.op("MatMul", y, weight(b, 3, 3)), b.ints(1), keepdims=0), 2, 3)


def test_two_positions_of_one_parameter_are_taken_at_once() -> None:
    """The axes that a past state is taken from, for keys and for values, are no context of each other."""
    b = building(2, 3, 4)
    past = b.op("Gather", weight(b, 2, 3, 2, 2, 2, 2), b.constant(np.array(1)), axis=1)
    y, _ = b.ops(
        "Attention",
        "x", weight(b, 4, 12), weight(b, 12), "", past,
        outputs=2, domain="com.microsoft", num_heads=2,
    )  # fmt: skip
    passes(b, b.op("MatMul", y, weight(b, 4, 2)), 2)
