"""The transforms of Winograd convolution as vector code: matrices applied with few operations, one tile at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diptych.codegen.builder import Val, register_type
from diptych.kernels.tile import PANEL

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llvmlite import ir

    from diptych.codegen.builder import Fn
    from diptych.kernels.winograd_points import Array

__all__ = ["apply", "transform_input", "transform_output"]


def apply(fn: Fn, matrix: Array, xs: Sequence[Val]) -> list[Val]:
    """matrix @ xs on vectors. Rows or columns that differ only in the signs of every other entry share their sums."""
    rows, cols = matrix.shape
    out: list[Val | None] = [None] * rows
    for i in range(rows):
        if out[i] is not None:
            continue
        twin = next((j for j in range(i + 1, rows) if out[j] is None and _mirrored(matrix[i], matrix[j])), None)
        if twin is None:
            out[i] = _sum(fn, [(matrix[i, c], xs[c]) for c in range(cols)])
            continue
        even = _sum(fn, [(matrix[i, c], xs[c]) for c in range(cols) if matrix[i, c] == matrix[twin, c]])
        odd = _sum(fn, [(matrix[i, c], xs[c]) for c in range(cols) if matrix[i, c] != matrix[twin, c]])
        out[i] = Val(fn.b.fadd(even.ir, odd.ir), "f32", even.lanes)
        out[twin] = Val(fn.b.fsub(even.ir, odd.ir), "f32", even.lanes)
    return [v for v in out if v is not None]


def _mirrored(a: Array, b: Array) -> bool:
    """Whether b is a with some (not all, not no) entries negated."""
    same, flipped = (a == b) & (a != 0), (a == -b) & (a != 0)
    return bool(((a == b) | (a == -b)).all() and same.any() and flipped.any())


def apply_columns(fn: Fn, matrix: Array, xs: Sequence[Val]) -> list[Val]:
    """matrix @ xs where pairs of columns are mirrored: their sums and differences serve all rows."""
    rows, cols = matrix.shape
    terms: list[tuple[Array, Val]] = []
    done: set[int] = set()
    for c in range(cols):
        if c in done:
            continue
        twin = next((d for d in range(c + 1, cols) if d not in done and _mirrored(matrix[:, c], matrix[:, d])), None)
        if twin is None:
            terms.append((matrix[:, c], xs[c]))
            continue
        done.add(twin)
        same = matrix[:, c] == matrix[:, twin]
        plus = Val(fn.b.fadd(xs[c].ir, xs[twin].ir), "f32", xs[c].lanes)
        minus = Val(fn.b.fsub(xs[c].ir, xs[twin].ir), "f32", xs[c].lanes)
        terms.append((matrix[:, c] * same, plus))
        terms.append((matrix[:, c] * ~same, minus))
    return [_sum(fn, [(column[r], x) for column, x in terms]) for r in range(rows)]


def _sum(fn: Fn, terms: Sequence[tuple[float, Val]]) -> Val:
    """The sum of coefficient * value, with plain additions where a coefficient is 1 or -1."""
    live = sorted(((float(c), x) for c, x in terms if c != 0), key=lambda t: abs(t[0]) != 1.0)
    (c, total), *rest = live
    lanes = total.lanes
    if c != 1.0:
        total = Val(fn.b.fmul(total.ir, fn.const(c, "f32", lanes).ir), "f32", lanes)
    for c, x in rest:
        if c == 1.0:
            total = Val(fn.b.fadd(total.ir, x.ir), "f32", lanes)
        elif c == -1.0:
            total = Val(fn.b.fsub(total.ir, x.ir), "f32", lanes)
        else:
            total = fn.fma(x, fn.const(c, "f32", lanes), total)
    return total


def transform_input(fn: Fn, bt: Array, source: ir.Value, row: int, col: int, to: ir.Value, point: int) -> None:
    """B^T d B of one tile and one block of 16 channels.

    The pixels of d lie `row` and `col` elements apart from `source` on; the results go `point` elements apart to `to`.
    """
    n = len(bt)
    lanes = min(PANEL, fn.target.lanes(4))
    vec = register_type("f32", lanes)
    between = [[fn.var(vec) for _ in range(n)] for _ in range(n)]
    with fn.loop(0, PANEL // lanes, name="lane") as lane:
        off = fn.imul(lane, lanes)
        for j in range(n):
            column = [fn.load(fn.at(source, fn.iadd(off, i * row + j * col)), "f32", lanes) for i in range(n)]
            for i, value in enumerate(apply(fn, bt, column)):
                between[i][j].set(value.ir)
        for i in range(n):
            line = [Val(var.get(), "f32", lanes) for var in between[i]]
            for j, value in enumerate(apply(fn, bt, line)):
                fn.store(value, fn.at(to, fn.iadd(off, (i * n + j) * point)))


def transform_output(fn: Fn, at_matrix: Array, source: ir.Value, point: int, write: Callable[[int, int, ir.Value, Val], None]) -> None:
    """A^T M A of one tile and one panel of 16 outputs, whose products lie `point` elements apart from `source` on.

    `write(i, j, lane, value)` is called for each vector of the m x m results; `lane` is its first of 16 lanes.
    """
    m, n = at_matrix.shape
    lanes = min(PANEL, fn.target.lanes(4))
    vec = register_type("f32", lanes)
    between = [[fn.var(vec) for _ in range(n)] for _ in range(m)]
    with fn.loop(0, PANEL // lanes, name="lane") as lane:
        off = fn.imul(lane, lanes)
        for j in range(n):
            column = [fn.load(fn.at(source, fn.iadd(off, (i * n + j) * point)), "f32", lanes) for i in range(n)]
            for i, value in enumerate(apply_columns(fn, at_matrix, column)):
                between[i][j].set(value.ir)
        for i in range(m):
            line = [Val(var.get(), "f32", lanes) for var in between[i]]
            for j, value in enumerate(apply_columns(fn, at_matrix, line)):
                write(i, j, off, value)
