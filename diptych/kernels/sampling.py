"""Reading images at computed positions: grid sampling, the columns of deformable convolutions, region pooling.

A position's four neighbours and their weights are found once; then all channels are read with them. Positions may be
anything, NaN too: indices are clipped before memory is touched.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from diptych.codegen.builder import I64, Val
from diptych.codegen.math import Math
from diptych.ir.kernel import Kernel, Operand
from diptych.ir.types import itemsize
from diptych.kernels.base import emits
from diptych.kernels.nest import register_dtype

if TYPE_CHECKING:
    from llvmlite import ir

    from diptych.codegen.builder import Fn, Index
    from diptych.targets.base import Target

__all__ = [
    "DeformableParams", "GridParams", "RoiParams", "make_deformable_columns", "make_grid_sample", "make_roi_align",
    "make_roi_pool",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class GridParams:
    """Operands: x[N, C, H, W], grid[N, 2, Ho, Wo], out[N, C, Ho, Wo]. A work item is one row of one image."""

    align_corners: bool


@dataclass(frozen=True, slots=True)
class DeformableParams:
    """Operands: x[N, C, H, W], offset[N, 2GK, Ho, Wo], mask[N, GK, Ho, Wo] where `masked`, out[N, C * K, Ho * Wo]."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int]
    dilations: tuple[int, int]
    groups: int
    border: str
    masked: bool


@dataclass(frozen=True, slots=True)
class RoiParams:
    """Operands: x[N, C, H, W], rois[R, 5], out[R, C', h, w]. A work item is one region."""

    scale: float
    samples: int  # per cell and dim; <= 0: as many as the cell is wide
    aligned: bool
    by_position: bool


def make_grid_sample(x: Operand, grid: Operand, out: Operand, align_corners: bool, target: Target) -> Kernel:
    """x read bilinearly at the positions of `grid`; zero outside."""
    cost = 20 + prod(out.shape) * 4.0
    return Kernel("grid_sample", GridParams(align_corners), (x, grid, out), 1, out.shape[0] * out.shape[2], cost)


def make_deformable_columns(x: Operand, offset: Operand, mask: Operand | None, out: Operand, kernel: tuple[int, int],
                            strides: tuple[int, int], pads: tuple[int, int], dilations: tuple[int, int], groups: int,
                            border: str, target: Target) -> Kernel:  # fmt: skip
    """The columns of a deformable convolution; the geometry is the operator's."""
    params = DeformableParams(kernel, strides, pads, dilations, groups, border, mask is not None)
    every = (x, offset, *((mask,) if mask else ()), out)
    work = x.shape[0] * offset.shape[2] if 0 not in out.shape else 0
    return Kernel("deformable_columns", params, every, 1, work, 20 + prod(out.shape) * 5.0)


def make_roi_align(x: Operand, rois: Operand, out: Operand, scale: float, samples: int, aligned: bool,
                   by_position: bool, target: Target) -> Kernel:  # fmt: skip
    """Bilinear samples of each region, averaged per cell."""
    params = RoiParams(scale, samples, aligned, by_position)
    cost = 20 + prod(out.shape) * 4.0 * max(1, samples) ** 2
    scratch = out.shape[1] * itemsize(register_dtype(x.dtype))
    return Kernel("roi_align", params, (x, rois, out), 1, out.shape[0], cost, scratch)


def make_roi_pool(x: Operand, rois: Operand, out: Operand, scale: float, target: Target) -> Kernel:
    """The maximum of each cell of each region."""
    params = RoiParams(scale, 0, False, False)
    return Kernel("roi_pool", params, (x, rois, out), 1, out.shape[0], 20 + prod(out.shape) * 10.0)


class _Image:
    """Reads one operand x[N, C, H, W]; arithmetic on scalars of the dtype it is computed in."""

    def __init__(self, fn: Fn, x: Operand, pointer: ir.Value) -> None:
        self.fn, self.x, self.pointer, self.m = fn, x, pointer, Math(fn)
        self.held = register_dtype(x.dtype)

    def const(self, v: float) -> Val:
        return self.m.const(v, self.held)

    def real(self, i: Index) -> Val:
        """An index as a number."""
        return self.m.cast(Val(self.fn.index(i), "i64"), self.held)

    def whole(self, v: Val) -> ir.Value:
        """The integer part of a number, saturated (NaN gives 0): any number is safe."""
        return self.fn.intrinsic(f"llvm.fptosi.sat.i64.{v.dtype}", I64, [v.ir])

    def load(self, operand: Operand, j: int, index: list[Index]) -> Val:
        """One element of operand j."""
        at = self.fn.at(self.fn.args[f"p{j}"], self.fn.dot(index, operand.strides), operand.dtype)
        return self.m.cast(self.fn.load(at, operand.dtype), self.held)

    def element(self, offset: Index) -> Val:
        return self.m.cast(self.fn.load(self.fn.at(self.pointer, offset, self.x.dtype), self.x.dtype), self.held)

    def corners(self, y: Val, x: Val) -> list[tuple[ir.Value, Val]]:
        """Offsets and weights of the four neighbours of a position; those outside weigh nothing."""
        fn, m = self.fn, self.m
        high, wide = self.x.shape[2:]

        def along(v: Val, extent: int, stride: int) -> list[tuple[ir.Value, Val]]:
            low = m.floor(v)
            found = []
            for step in (0, 1):
                at = m.add(low, self.const(step))
                weight = m.sub(self.const(1), m.abs(m.sub(v, at)))
                inside = m.bit_and(m.cmp("ge", at, self.const(0)), m.cmp("lt", at, self.const(extent)))
                index = fn.imax(fn.imin(self.whole(at), extent - 1), 0)
                found.append((fn.imul(index, stride), m.select(inside, weight, self.const(0))))
            return found

        rows, columns = along(y, high, self.x.strides[2]), along(x, wide, self.x.strides[3])
        return [(fn.iadd(r, c), m.mul(v, w)) for r, v in rows for c, w in columns]

    def blend(self, base: Index, corners: list[tuple[ir.Value, Val]]) -> Val:
        """The interpolated value of the plane at `base`."""
        total: Val | None = None
        for offset, weight in corners:
            part = self.m.mul(self.element(self.fn.iadd(base, offset)), weight)
            # What weighs nothing counts as zero, an infinity too.
            part = self.m.select(self.m.cmp("eq", weight, self.const(0)), self.const(0), part)
            total = part if total is None else self.m.add(total, part)
        assert total is not None
        return total

    def between(self, v: Val, low: float, high: float) -> Val:
        """Whether low <= v <= high."""
        m = self.m
        return m.bit_and(m.cmp("ge", v, self.const(low)), m.cmp("le", v, self.const(high)))

    def clip(self, v: Val, low: float, high: float) -> Val:
        return self.m.min(self.m.max(v, self.const(low)), self.const(high))


def _put(fn: Fn, kernel: Kernel, image: _Image, v: Val, index: list[Index]) -> None:
    out = kernel.operands[-1]
    pointer = fn.args[f"p{len(kernel.operands) - 1}"]
    fn.store(image.m.cast(v, out.dtype), fn.at(pointer, fn.dot(index, out.strides), out.dtype))


@emits("grid_sample")
def emit_grid_sample(fn: Fn, kernel: Kernel) -> None:
    """Row by row of the output; channels innermost."""
    x, grid, out = kernel.operands
    p: GridParams = kernel.params
    image = _Image(fn, x, fn.args["p0"])
    m = image.m
    with fn.loop(fn.args["begin"], fn.args["end"], name="item") as item, fn.loop(0, out.shape[3], name="col") as j:
        n, i = fn.unravel(item, (out.shape[0], out.shape[2]))

        def position(which: int, extent: int) -> Val:
            g = m.add(image.load(grid, 1, [n, which, i, j]), image.const(1))
            if p.align_corners:
                return m.div(m.mul(g, image.const(extent - 1)), image.const(2))
            return m.div(m.sub(m.mul(g, image.const(extent)), image.const(1)), image.const(2))

        corners = image.corners(position(1, x.shape[2]), position(0, x.shape[3]))
        with fn.loop(0, x.shape[1], name="channel") as c:
            _put(fn, kernel, image, image.blend(fn.dot([n, c], x.strides[:2]), corners), [n, c, i, j])


@emits("deformable_columns")
def emit_deformable_columns(fn: Fn, kernel: Kernel) -> None:
    """Row by row of output positions; channels of a group innermost."""
    x, offset, *rest = kernel.operands
    p: DeformableParams = kernel.params
    image = _Image(fn, x, fn.args["p0"])
    m = image.m
    count, each, width = prod(p.kernel), x.shape[1] // p.groups, offset.shape[3]
    high, wide = x.shape[2:]
    with (
        fn.loop(fn.args["begin"], fn.args["end"], name="item") as item,
        fn.loop(0, width, name="col") as j,
        fn.loop(0, p.groups * count, name="tap") as tap,
    ):
        n, i = fn.unravel(item, (x.shape[0], offset.shape[2]))
        group, k = fn.unravel(tap, (p.groups, count))
        kernel_at = fn.unravel(k, p.kernel)
        at = []
        for d, o in enumerate((i, j)):
            base = fn.isub(fn.imul(o, p.strides[d]), p.pads[d])
            base = fn.iadd(base, fn.imul(kernel_at[d], p.dilations[d]))
            moved = image.load(offset, 1, [n, fn.iadd(fn.imul(tap, 2), d), i, j])
            at.append(m.add(image.real(base), moved))
        y, q = at
        scale: Val = image.const(1)
        if p.masked:
            scale = image.load(rest[0], 2, [n, tap, i, j])
        inside: Val | None = None
        if p.border == "clip":
            inside = m.bit_and(
                m.bit_and(m.cmp("ge", y, image.const(0)), m.cmp("lt", y, image.const(high))),
                m.bit_and(m.cmp("ge", q, image.const(0)), m.cmp("lt", q, image.const(wide))),
            )
            y, q = image.clip(y, 0, high - 1), image.clip(q, 0, wide - 1)
        corners = image.corners(y, q)
        with fn.loop(0, each, name="channel") as c:
            channel = fn.iadd(fn.imul(group, each), c)
            v = image.blend(fn.dot([n, channel], x.strides[:2]), corners)
            if inside is not None:
                v = m.select(inside, v, image.const(0))
            place: list[Index] = [n, fn.iadd(fn.imul(channel, count), k), fn.iadd(fn.imul(i, width), j)]
            _put(fn, kernel, image, m.mul(v, scale), place)


def _region(image: _Image, rois: Operand, r: Index) -> tuple[ir.Value, ir.Value, list[Val]]:
    """(image number, whether there is one, the four corners as given)."""
    fn = image.fn
    number = image.load(rois, 1, [r, 0])
    index = fn.imax(fn.imin(image.whole(number), image.x.shape[0] - 1), 0)
    return index, image.m.cmp("ge", number, image.const(0)).ir, [image.load(rois, 1, [r, 1 + k]) for k in range(4)]


@emits("roi_align")
def emit_roi_align(fn: Fn, kernel: Kernel) -> None:
    """Region by region, cell by cell; the channels' sums are kept in scratch."""
    x, rois, out = kernel.operands
    p: RoiParams = kernel.params
    image = _Image(fn, x, fn.args["p0"])
    m = image.m
    high, wide = out.shape[2:]
    shift = 0.5 if p.aligned else 0.0
    with fn.loop(fn.args["begin"], fn.args["end"], name="region") as r:
        n, exists, given = _region(image, rois, r)
        x1, y1, x2, y2 = (m.sub(m.mul(v, image.const(p.scale)), image.const(shift)) for v in given)
        width, height = m.sub(x2, x1), m.sub(y2, y1)
        if not p.aligned:
            width, height = m.max(width, image.const(1)), m.max(height, image.const(1))

        def samples(extent: Val, cells: int) -> ir.Value:
            if p.samples > 0:
                return fn.index(p.samples)
            return fn.imax(image.whole(m.ceil(m.div(extent, image.const(cells)))), 0)

        ny, nx = samples(height, high), samples(width, wide)
        total = fn.b.select(exists, fn.imul(ny, nx), fn.index(0))
        ny = fn.b.select(exists, ny, fn.index(0))
        step_y = m.div(height, m.mul(image.const(high), image.real(ny)))
        step_x = m.div(width, m.mul(image.const(wide), image.real(nx)))
        sums = fn.args["scratch"]
        with fn.loop(0, high, name="i") as i, fn.loop(0, wide, name="j") as j:
            with fn.loop(0, out.shape[1], name="channel") as c:
                fn.store(image.const(0), fn.at(sums, c, image.held))
            with fn.loop(0, ny, name="sy") as sy, fn.loop(0, nx, name="sx") as sx:

                def position(start: Val, cell: ir.Value, count: ir.Value, s: Index, step: Val) -> Val:
                    at = m.add(image.real(fn.iadd(fn.b.mul(cell, count), s)), image.const(0.5))
                    return m.add(start, m.mul(at, step))

                y, q = position(y1, i, ny, sy, step_y), position(x1, j, nx, sx, step_x)
                inside = m.bit_and(image.between(y, -1, x.shape[2]), image.between(q, -1, x.shape[3]))
                corners = image.corners(image.clip(y, 0, x.shape[2] - 1), image.clip(q, 0, x.shape[3] - 1))
                with fn.if_(inside.ir), fn.loop(0, out.shape[1], name="channel") as c:
                    channel: Index = c
                    if p.by_position:
                        channel = fn.iadd(fn.imul(c, high * wide), fn.iadd(fn.imul(i, wide), j))
                    v = image.blend(fn.dot([n, channel], x.strides[:2]), corners)
                    place = fn.at(sums, c, image.held)
                    fn.store(m.add(fn.load(place, image.held), v), place)
            count = m.max(image.real(total), image.const(1))
            with fn.loop(0, out.shape[1], name="channel") as c:
                _put(fn, kernel, image, m.div(fn.load(fn.at(sums, c, image.held), image.held), count), [r, c, i, j])


@emits("roi_pool")
def emit_roi_pool(fn: Fn, kernel: Kernel) -> None:
    """Region by region, cell by cell."""
    x, rois, out = kernel.operands
    p: RoiParams = kernel.params
    image = _Image(fn, x, fn.args["p0"])
    m = image.m
    with fn.loop(fn.args["begin"], fn.args["end"], name="region") as r:
        n, exists, given = _region(image, rois, r)
        x1, y1, x2, y2 = (
            image.whole(m.floor(m.add(m.mul(v, image.const(p.scale)), image.const(0.5)))) for v in given
        )

        def bounds(low: ir.Value, high: ir.Value, cells: int, extent: int, cell: Index) -> tuple[ir.Value, ir.Value]:
            size = m.div(image.real(fn.imax(fn.iadd(fn.isub(high, low), 1), 1)), image.const(cells))
            edges = (
                fn.iadd(image.whole(m.floor(m.mul(image.real(cell), size))), low),
                fn.iadd(image.whole(m.ceil(m.mul(image.real(fn.iadd(cell, 1)), size))), low),
            )
            a, b = (fn.imin(fn.imax(e, 0), extent) for e in edges)
            return a, b

        with fn.loop(0, out.shape[2], name="i") as i, fn.loop(0, out.shape[3], name="j") as j:
            top, bottom = bounds(y1, y2, out.shape[2], x.shape[2], i)
            left, right = bounds(x1, x2, out.shape[3], x.shape[3], j)
            bottom = fn.b.select(exists, bottom, top)
            with fn.loop(0, out.shape[1], name="channel") as c:
                best = fn.var(image.held, image.const(float("-inf")).ir)
                with fn.loop(top, bottom, name="y") as y, fn.loop(left, right, name="x") as q:
                    best.set(m.max(Val(best.get(), image.held), image.element(fn.dot([n, c, y, q], x.strides))).ir)
                empty = fn.b.or_(fn.b.icmp_signed("<=", bottom, top), fn.b.icmp_signed("<=", right, left))
                v = m.select(Val(empty, "bool"), image.const(0), Val(best.get(), image.held))
                _put(fn, kernel, image, v, [r, c, i, j])
