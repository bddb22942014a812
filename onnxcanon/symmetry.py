"""The analyzer's result: `Symmetry`, the group of one model and how its elements act on the parameters.

Data flows from the trace of the graph (`tracing/`) over the solved constraints (`solving/`) to here, where
permutations of unit classes and exponents of generators become transforms of parameters.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcanon.action import Action, Factor, Index, by_context, move, tidy_index
from onnxcanon.arrays import Ids
from onnxcanon.errors import OnnxcanonError
from onnxcanon.model import Model
from onnxcanon.results import Brief
from onnxcanon.solving.blocks import Blocks
from onnxcanon.solving.compiled_constraints import BranchSlot
from onnxcanon.solving.group import Solution, WreathNode
from onnxcanon.solving.rescaling import RescalingGroup, solve_exponents, unite_exponents, used
from onnxcanon.solving.solve import solve
from onnxcanon.tracing.branches import Branches
from onnxcanon.tracing.constraints import Slot, System
from onnxcanon.tracing.trace import Trace, trace
from onnxcanon.transform import Transform


@dataclass(eq=False, repr=False)
class Symmetry(Brief):
    """The group of one model: permutations of units, and rescalings by positive factors and by signs.

    A parameter's name may be that of a stack of matched parameters, `stacks[name]`, along a new axis 0;
    `read` gives the entries of either.

    Attributes:
        model: its name.
        trace: the constraints, and what they speak of.
        solution: the tree of permutation groups over unit classes.
        scale: the generators of rescalings by positive factors.
        sign: the generators of sign flips.
        classes: by parameter and axis, the unit classes along it, int64, broadcasting against the parameter.
        exponents: by parameter and axis, the exponent variables, int64, broadcasting likewise.
    """

    model: str
    trace: Trace
    solution: Solution
    scale: RescalingGroup
    sign: RescalingGroup
    classes: dict[str, dict[int, Ids]] = field(default_factory=dict)
    exponents: dict[str, dict[int, Ids]] = field(default_factory=dict)

    @property
    def stacks(self) -> dict[str, tuple[str, ...]]:
        """The parameters that were stacked, by the name of the stack."""
        return self.trace.stacks

    def read(self, model: Model, name: str) -> NDArray[Any]:
        """The entries of a parameter, or of a stack."""
        if name not in self.stacks:
            return model.tensor(name)
        return np.stack([model.tensor(member) for member in self.stacks[name]])

    def blocks(self, model: Model, name: str) -> Iterator[tuple[slice, NDArray[Any]]]:
        """The entries of a parameter, or of a stack, some rows (along axis 0) at a time, with their place."""
        if name in self.stacks:
            for k, member in enumerate(self.stacks[name]):
                yield slice(k, k + 1), model.tensor(member)[None]
            return
        end = 0
        for block in model.blocks(name):
            start, end = end, end + len(block)
            yield slice(start, end), block

    def __post_init__(self) -> None:
        for name, parameter in self.trace.parameters.items():
            rows = {a: self.solution.classes[i] for a, i in enumerate(parameter.ids) if i is not None}
            self.classes[name] = {a: _shrunk(c, a) for a, c in rows.items()}

        self.solution.tree = _touching(self.solution, self.classes)

    @cached_property
    def acting(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which generators of scales and which of signs act on some parameter, bool [count] each."""
        variables = [d for axes in self.exponents.values() for d in axes.values()]
        return used(self.scale, variables), used(self.sign, variables)

    def action(
        self, permutation: Ids | None = None, scale: Factor | None = None, sign: Index | None = None
    ) -> Transform:
        """The transform of a group element: permute, then scale and flip.

        Args:
            permutation: image of every unit class, int64 [classes]; None moves nothing.
            scale: log2 of each generator's factor, float64 [scale.count].
            sign: 0 or 1 for each generator, int64 [sign.count].
        """
        factors = []
        if scale is not None:
            factors.append((np.exp2(self.scale.forms @ scale), self.scale))
        if sign is not None:
            factors.append((1.0 - 2.0 * ((self.sign.forms @ sign) % 2), self.sign))
        actions = {}
        for name, parameter in self.trace.parameters.items():
            index = {} if permutation is None else self.indices(name, permutation)
            factor: dict[int, Factor] = {}
            for axis, variables in self.exponents[name].items():
                columns = [f for f, group in factors if group.act(variables)]
                if columns:  # by the graph, not by the values: where signs may flip, -0 always becomes 0
                    factor[axis] = np.prod([f[variables] for f in columns], axis=0)
            action = Action(parameter.shape, tidy_index(index), factor)
            if action.index or action.factor:
                actions[name] = action
        return Transform(actions, self.model, {n: m for n, m in self.stacks.items() if n in actions})

    def indices(self, name: str, permutation: Ids) -> dict[int, Index]:
        """Source positions per axis: the position whose class the permutation carries here, int64,
        broadcasting."""
        classes = self.classes[name]
        out: dict[int, Index] = {}
        for axis in by_context(classes):
            rows = classes[axis]
            if (permutation[rows] == rows).all() and not any(rows.shape[a] > 1 for a in out if a != axis):
                continue
            moved = move(permutation[rows], {a: i for a, i in out.items() if rows.shape[a] > 1})
            rows, moved = np.broadcast_arrays(rows, moved)  # a moved context may bring its own
            here, there = np.argsort(rows, axis, kind="stable"), np.argsort(moved, axis, kind="stable")
            if not np.array_equal(
                np.take_along_axis(rows, here, axis), np.take_along_axis(moved, there, axis)
            ):
                raise OnnxcanonError(
                    f"a permutation is not defined on axis {axis} of '{name}'; please report this model"
                )
            index = np.empty_like(here)
            np.put_along_axis(index, here, there, axis)
            out[axis] = _shrunk(index, axis)
        return out

    def random(
        self,
        rng: np.random.Generator,
        *,
        permute: bool = True,
        scale: bool = True,
        sign: bool = True,
        pow2: bool = True,
    ) -> Transform:
        """A random element: uniform in permutations and signs, scale exponents within ±3 (log2)."""
        permutation = self.solution.random(rng) if permute else None
        count = self.scale.count
        exponents = rng.integers(-3, 4, count).astype(np.float64) if pow2 else rng.uniform(-2.3, 2.3, count)
        flips = rng.integers(0, 2, self.sign.count)
        return self.action(permutation, exponents if scale else None, flips if sign else None)

    def by_storage(self, group: RescalingGroup) -> bool:
        """Whether the choice of generators depends on the order in which units are stored: one of several
        that may be exchanged was chosen to keep its scale or sign, since those of all cancel against
        others."""
        for name, axes in self.exponents.items() if len(group.dropped) else ():
            for axis, variables in axes.items():
                units = self.classes[name].get(axis)
                if units is not None and (np.isin(variables, group.dropped) & self.moving[units]).any():
                    return True
        return False

    @cached_property
    def moving(self) -> NDArray[np.bool_]:
        """Which unit classes some element of the group moves."""
        return self.solution.moving

    @cached_property
    def branch_bound(self) -> NDArray[np.bool_]:
        """Which classes move only together with the branch they are in."""
        mask = np.zeros(self.solution.count, bool)
        units = [self.classes[name][0].ravel() for name in self.stacks]
        for node in self.solution.tree:
            if any(np.isin(u, node.members).any() for u in units):
                inner = [child.members.ravel() for child in node.children]
                loose = np.delete(node.members, np.concatenate([*inner, np.zeros(0, np.int64)]), 1)
                mask[loose] = True
        return mask

    @cached_property
    def log10_orbit(self) -> float:
        """log10 of the number of distinct permutations."""
        return sum((node.log10_order() for node in self.solution.tree), 0.0)

    @property
    def trivial(self) -> bool:
        """Whether nothing may change."""
        scales, signs = self.acting
        return not self.solution.tree and not scales.any() and not signs.any()


def _touching(solution: Solution, classes: dict[str, dict[int, Ids]]) -> list[WreathNode]:
    """The nodes that move some parameter; those of padding, say, move values alone."""
    touched = np.zeros(solution.count, bool)
    for axes in classes.values():
        for rows in axes.values():
            touched[rows] = True
    for dependent in reversed(solution.dependent):
        touched[dependent.parts] |= touched[dependent.products][:, None]

    def part(node: WreathNode, members: Ids) -> WreathNode | None:
        if not touched[members].any():
            return None
        inner = [(c, members[:, c.members].reshape(-1, c.members.shape[1])) for c in node.children]
        return WreathNode(node.members, [p for c, m in inner if (p := part(c, m)) is not None])

    return [p for node in solution.tree if (p := part(node, node.members)) is not None]


def _shrunk(rows: Ids, axis: int) -> Ids:
    """Drop contexts the classes turned out not to depend on."""
    for k in range(rows.ndim):
        if k != axis and rows.shape[k] > 1:
            first = rows.take([0], k)
            if (rows == first).all():
                rows = first
    return rows


def symmetry(
    model: Model,
    sizes: dict[str, int] | None = None,
    *,
    permute_constants: bool = False,
    allow_overridable: bool = False,
) -> Symmetry:
    """Analyze a model: trace its graph, solve for permutations, scales and signs.

    Args:
        model: the model; its weights are hardly read.
        sizes: sizes of dynamic dimensions by name, where the graph works only for some.
        permute_constants: whether constants that are data (`data_constants`) may move as weights do.
        allow_overridable: whether constants that are graph inputs too, so the caller's, may.
    """
    with _uncollected():
        traced = trace(model, sizes, permute_constants=permute_constants, allow_overridable=allow_overridable)
        while True:
            group = _solved(model.name, traced)
            unlike = [branches for branches in group.trace.branches if not _scale_alike(group, branches)]
            if not unlike:
                return group
            traced.branches = [branches for branches in traced.branches if branches not in unlike]


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without Python's search for unreachable circles: an analysis makes many objects and hardly a circle,
    and each search walks the graphs of all open models again."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def _solved(name: str, traced: Trace) -> Symmetry:
    """Solve a trace, with the parameters of branches that may be exchanged stacked."""
    units = [traced.constraints.new_units((group.count,)) for group in traced.branches]
    solution = solve(traced.constraints, _branch_slots(traced, units))
    moving = solution.moving
    stacked = replace(traced, parameters=dict(traced.parameters), stacks={})
    for group, unit in zip(traced.branches, units, strict=True):
        if moving[solution.classes[unit]].any():
            stacked.stack(group, unit)
    exponents = _exponents(stacked, blocks := unite_exponents(traced.constraints))
    columns = [list(axes.values()) for axes in exponents.values()]
    scale, sign = (
        solve_exponents(traced.constraints, blocks, system, columns) for system in (System.SCALE, System.SIGN)
    )
    return Symmetry(name, stacked, solution, scale, sign, exponents=exponents)


def _exponents(traced: Trace, blocks: Blocks) -> dict[str, dict[int, Ids]]:
    """The exponent variables of every parameter by axis."""
    return {
        name: {a: blocks.variables(d) for a, d in enumerate(parameter.exponents) if d is not None}
        for name, parameter in traced.parameters.items()
    }


def _scale_alike(symmetry: Symmetry, branches: Branches) -> bool:
    """Whether rescalings treat the branches alike, each by the same combination of generators of its own or
    of common ones. Two factors of one product, say, that only scale against each other do not."""
    names = {symmetry.trace.names[members[0]] for members in branches.parameters}
    stacks = [name for name, members in symmetry.stacks.items() if members[0] in names]
    for group in (symmetry.scale, symmetry.sign):
        counterpart: dict[tuple[int, int], int] = {}  # by branch and generator of the first branch
        for exponents in (d for name in stacks for d in symmetry.exponents[name].values()):
            if exponents.shape[0] == 1:
                continue
            rows = [group.forms[line.ravel()] for line in exponents]
            for k, row in enumerate(rows[1:], 1):
                if not np.array_equal(row.indptr, rows[0].indptr):
                    return False
                first, other = rows[0].sorted_indices(), row.sorted_indices()
                if not np.array_equal(first.data, other.data):
                    return False
                for f, g in zip(first.indices.tolist(), other.indices.tolist(), strict=True):
                    if counterpart.setdefault((k, f), g) != g:
                        return False
    return True


def _branch_slots(traced: Trace, units: Sequence[Ids]) -> dict[Slot, BranchSlot]:
    """The slots inside branches, their numbers made different between groups."""
    branch_slots: dict[Slot, BranchSlot] = {}
    start = 0
    for group, unit in zip(traced.branches, units, strict=True):
        traced.constraints.column(unit)
        for slot, (number, branch) in group.slots.items():
            branch_slots[slot] = (start + number, int(unit[branch]))
        start += 1 + max(number for number, _ in group.slots.values())
    return branch_slots
