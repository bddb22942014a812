"""The signs that bring one model nearest to another, its units being where they are.

The objective is a sum of inner products, so a sign freedom gains if the products of the entries that it flips
add up to less than zero. Where an entry is flipped by two freedoms its product says whether they agree: a
first guess follows the largest of these along a spanning tree. Then freedoms are flipped one at a time until
none gains. A parameter enters by a small table, its products summed over the axes that no sign acts on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix, csr_matrix

from onnxcanon.alignment.assignment import Singles
from onnxcanon.arrays import Floats, Ids
from onnxcanon.canonical.scaled_axes import scaled_axes
from onnxcanon.symmetry import Symmetry

PASSES = 20

STRONGEST = 4
"""Products of each position of an axis that the first guess looks at."""


@dataclass(slots=True)
class _SignedProducts:
    """A parameter: products over its signed positions; for every axis the freedoms that flip a position."""

    products: Floats
    axes: list[tuple[tuple[int, ...], csc_matrix]]

    def freedoms(self) -> Ids:
        """Those that flip some entry."""
        return np.unique(np.concatenate([np.flatnonzero(np.diff(forms.indptr)) for _, forms in self.axes]))

    def gains(self) -> Floats:
        """What flipping each freedom alone adds to the products; infinite where it flips along several axes,
        some entries twice."""
        count = self.axes[0][1].shape[1]
        total, met = np.zeros(count), np.zeros(count, np.int64)
        for shape, forms in self.axes:
            others = tuple(k for k, n in enumerate(shape) if n == 1)
            total -= 2 * (forms.T @ self.products.sum(others, keepdims=True).ravel())
            met += np.diff(forms.indptr) > 0
        return np.where(met > 1, np.inf, total)

    def turned(self, freedoms: NDArray[np.bool_]) -> Floats:
        """The products with those that some freedoms flip negated."""
        factor = np.ones(())
        for shape, forms in self.axes:
            factor = factor * (1.0 - 2.0 * ((forms @ freedoms.astype(np.int64)) % 2)).reshape(shape)
        return np.asarray(self.products * factor)

    def strongest_pairs(self, ground: int) -> NDArray[np.void]:
        """The largest products along each axis whose entries one freedom, or two, flip: the pair (one and
        `ground`, or both) and the product."""
        size = np.abs(self.products)
        # 1. Which entries: a spanning tree needs few edges, the strongest of every line, not all n² products.
        chosen = [np.zeros(0, np.int64)]
        index = np.arange(size.size).reshape(size.shape)
        for axis, n in enumerate(size.shape):
            lines = np.moveaxis(size, axis, -1).reshape(-1, n)
            kept = np.argpartition(-lines, min(STRONGEST, n) - 1, axis=1)[:, :STRONGEST]
            chosen.append(np.take_along_axis(np.moveaxis(index, axis, -1).reshape(-1, n), kept, 1).ravel())
        flat = np.unique(np.concatenate(chosen))
        places = np.unravel_index(flat, size.shape)
        # 2. Which freedoms flip each: an entry that one freedom flips along two axes keeps its sign (mod 2).
        flips = csr_matrix((len(flat), self.axes[0][1].shape[1]), dtype=np.int64)
        for shape, forms in self.axes:
            rows = np.ravel_multi_index([p * (n > 1) for p, n in zip(places, shape, strict=True)], shape)
            flips = flips + forms.tocsr()[rows]
        flips.data %= 2
        flips.eliminate_zeros()
        # 3. An entry that two freedoms flip ties them to each other, that of one ties it to the ground, which
        #    never flips. Entries of three or more say nothing about a pair.
        count = np.diff(flips.indptr)
        out = np.zeros(int(((count == 1) | (count == 2)).sum()), [("pair", np.int64, 2), ("product", float)])
        out["pair"] = ground
        pairs, start = count[(count == 1) | (count == 2)], flips.indptr[:-1][(count == 1) | (count == 2)]
        out["pair"][:, 0] = flips.indices[start]
        out["pair"][pairs == 2, 1] = flips.indices[start[pairs == 2] + 1]
        out["pair"].sort(axis=1)
        out["product"] = self.products.reshape(-1)[flat][(count == 1) | (count == 2)]
        return out

    def flipped(self, freedom: int) -> Floats:
        """The products with those that a freedom flips negated."""
        factor = np.ones(())
        for shape, forms in self.axes:
            line = np.ones(forms.shape[0])
            line[forms.indices[forms.indptr[freedom] : forms.indptr[freedom + 1]]] = -1
            factor = factor * line.reshape(shape)
        return np.asarray(self.products * factor)


def nearest_signs(
    symmetry: Symmetry,
    ours: Mapping[str, Singles],
    theirs: Mapping[str, Singles],
    *,
    guess: bool = False,
) -> Ids:
    """The sign freedoms to flip so that `theirs` comes nearest to `ours`, int64; with a first guess where
    they may be far from that.

    Of four hidden units between two weights, the signs of two were changed:

        >>> import onnx.parser
        >>> from onnxcanon.model import load
        >>> from onnxcanon.symmetry import symmetry
        >>> text = '''<ir_version: 8, opset_import: ["": 17]>
        ... mlp (float[N, 1] x) => (float[N, 1] y) <float[1, 4] w = {1,2,3,4}, float[4, 1] v = {1,1,1,1}>
        ... { h = MatMul(x, w) r = Tanh(h) y = MatMul(r, v) }'''
        >>> ours = {"w": np.array([[1, -2, 3, -4]], np.float32), "v": np.ones((4, 1), np.float32)}
        >>> signs = np.array([1, -1, 1, -1], np.float32)
        >>> theirs = {"w": ours["w"] * signs, "v": ours["v"] * signs[:, None]}
        >>> nearest_signs(symmetry(load(onnx.parser.parse_model(text))), ours, theirs).tolist()
        [1, 3]
    """
    tables = [t for name in theirs if (t := _table(symmetry, name, ours[name], theirs[name])) is not None]
    acting: dict[int, list[_SignedProducts]] = {}
    for table in tables:
        for freedom in table.freedoms().tolist():
            acting.setdefault(freedom, []).append(table)
    turned = np.zeros(symmetry.sign.count, bool)
    if guess and tables:
        turned = _first_signs(tables, len(turned))
        for table in tables:
            table.products = table.turned(turned)
    for _ in range(PASSES):
        hopeful = np.sum([table.gains() for table in tables], axis=0) > 0 if tables else turned
        gaining = [f for f in np.flatnonzero(hopeful).tolist() if _flip_if_better(f, acting[f])]
        turned[gaining] ^= True
        if not gaining:
            break
    return np.flatnonzero(turned)


def _first_signs(tables: list[_SignedProducts], count: int) -> NDArray[np.bool_]:
    """Which freedoms to flip, by the largest products first that do not contradict larger ones."""
    strongest_pairs = np.concatenate([table.strongest_pairs(count) for table in tables])
    pairs, index = np.unique(strongest_pairs["pair"], axis=0, return_inverse=True)
    weight = np.bincount(index.reshape(-1), strongest_pairs["product"], len(pairs))
    # Kruskal's spanning tree, strongest first. `parity` of a freedom is its flip relative to the root of
    # its group; to unite two groups flips the smaller as a whole where the pair would else disagree.
    parity, root = np.zeros(count + 1, bool), np.arange(count + 1)
    groups = {k: [k] for k in range(count + 1)}
    for k in np.argsort(-np.abs(weight)).tolist():
        one, other = pairs[k].tolist()
        if root[one] == root[other] or weight[k] == 0:
            continue
        if len(groups[root[one]]) < len(groups[root[other]]):
            one, other = other, one
        joined = groups.pop(int(root[other]))
        parity[joined] ^= bool(parity[one] ^ parity[other] ^ (weight[k] < 0))
        root[joined] = root[one]
        groups[int(root[one])] += joined
    same = root[:count] == root[count]
    return np.where(same, parity[:count] ^ parity[count], parity[:count])


def _flip_if_better(freedom: int, tables: list[_SignedProducts]) -> bool:
    """Flip a freedom if that gains."""
    after = [table.flipped(freedom) for table in tables]
    gain = sum(float(new.sum() - table.products.sum()) for new, table in zip(after, tables, strict=True))
    if gain <= 0:
        return False
    for table, new in zip(tables, after, strict=True):
        table.products = new
    return True


def _table(symmetry: Symmetry, name: str, ours: Singles, theirs: Singles) -> _SignedProducts | None:
    sites = scaled_axes(symmetry.sign, symmetry.exponents[name])
    if not sites:
        return None
    wide = np.broadcast_shapes(*(site.shape for site in sites))
    rest = tuple(k for k, n in enumerate(wide) if n == 1 and ours.shape[k] > 1)
    products = np.multiply(ours, theirs, dtype=np.float64).sum(rest, keepdims=True)
    return _SignedProducts(products, [(site.shape, site.forms.tocsc()) for site in sites])
