"""Weights of convolutions in blocks: groups merged until their channels are whole blocks, transposed ones turned round.

Constant weights are rewritten here and now; for weights that arrive at run time the same is done by operators.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.ops.blocked import BLOCK

if TYPE_CHECKING:
    from diptych.ir import Array, Value
    from diptych.ops.build import Builder

__all__ = ["as_convolution", "flipped", "merge_groups", "merged_count", "split_groups"]


def _merging(o: int, c: int, groups: int) -> int:
    """How many neighbouring groups of o outputs and c inputs to merge until both channel counts are whole blocks."""
    return next((m for m in range(1, groups) if groups % m == 0 and o * m % BLOCK == 0 and c * m % BLOCK == 0), groups)


def merged_count(o: int, c: int, groups: int) -> int:
    """How many groups `merge_groups` leaves of groups with o outputs and c inputs."""
    return groups // _merging(o, c, groups) if groups > 1 else groups


def merge_groups(g: Builder, weight: Value, groups: int) -> tuple[Value, int]:
    """w[O, C/groups, *K] with neighbouring groups merged (zeros off the diagonal), and how many groups are left."""
    w = g.constant_array(weight)
    if groups == 1:
        return weight, groups
    if w is not None:
        dense, left = _merged(w, groups)
        return (weight if dense is w else g.constant(dense, weight.dtype)), left
    o, c, kernel = weight.shape[0] // groups, weight.shape[1], weight.shape[2:]
    merge = _merging(o, c, groups)
    if merge == 1:
        return weight, groups
    split = g.reshape(weight, (groups // merge, merge, o, 1, c, *kernel))
    wide = g.where(_diagonal(g, merge, len(kernel)), split, 0.0)
    return g.reshape(wide, (groups * o, merge * c, *kernel)), groups // merge


def split_groups(g: Builder, dense: Value, groups: int, shape: tuple[int, ...]) -> Value:
    """Of a gradient for merged weights, what belongs to w[O, C/groups, *K] of this `shape`."""
    o, c, kernel = shape[0] // groups, shape[1], shape[2:]
    merge = dense.shape[1] // c
    if merge == 1:
        return dense
    split = g.reshape(dense, (groups // merge, merge, o, merge, c, *kernel))
    return g.reshape(g.sum(g.where(_diagonal(g, merge, len(kernel)), split, 0.0), (3,)), shape)


def _diagonal(g: Builder, merge: int, n: int) -> Value:
    return g.constant(np.eye(merge, dtype=bool).reshape(1, merge, 1, merge, 1, *(1,) * n), "bool")


def as_convolution(g: Builder, weight: Value, groups: int) -> Value:
    """Weights [C, O/groups, *K] of a transposed convolution laid out as a convolution's: [O, C/groups, *K]."""
    w = g.constant_array(weight)
    c, o, *kernel = weight.shape
    if w is not None:
        w = np.swapaxes(w.reshape(groups, c // groups, o, *kernel), 1, 2)
        return g.constant(np.ascontiguousarray(w).reshape(groups * o, c // groups, *kernel), weight.dtype)
    if groups == 1:
        return g.transpose(weight, (1, 0, *range(2, weight.rank)))
    split = g.reshape(weight, (groups, c // groups, o, *kernel))
    return g.reshape(g.transpose(split, (0, 2, 1, *range(3, split.rank))), (groups * o, c // groups, *kernel))


def flipped(g: Builder, weight: Value) -> Value:
    """The kernel positions in reverse order (a view)."""
    n = weight.rank - 2
    return g.slice(weight, (0, 0, *(k - 1 for k in weight.shape[2:])), (*weight.shape[:2], *(-1,) * n), (1, 1, *(-1,) * n))


def _merged(w: Array, groups: int) -> tuple[Array, int]:
    o, c = w.shape[0] // groups, w.shape[1]
    merge = _merging(o, c, groups)
    if merge == 1:
        return w, groups
    dense: np.ndarray[Any, Any] = np.zeros((groups * o, c * merge, *w.shape[2:]), w.dtype)
    for group in range(groups):
        at = group % merge * c
        dense[group * o : (group + 1) * o, at : at + c] = w[group * o : (group + 1) * o]
    return dense, groups // merge
