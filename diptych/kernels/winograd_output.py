"""The last step of Winograd convolution: y = A^T M A of a tile and a panel of outputs, bias, epilogue, store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diptych.codegen.math import Math
from diptych.kernels.base import evaluate
from diptych.kernels.nest import expr_cost
from diptych.kernels.tile import PANEL
from diptych.kernels.winograd_points import matrices
from diptych.kernels.winograd_transform import transform_output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llvmlite import ir

    from diptych.codegen.builder import Fn, Index, Val
    from diptych.ir.kernel import Kernel
    from diptych.kernels.winograd import ProductParams

__all__ = ["OutputWriter"]

_HEAVY = 12  # an epilogue of more vector operations than this is written once, not for every pixel of a tile


class OutputWriter:
    """The output transform of one tile and panel, then epilogue and stores."""

    def __init__(self, fn: Fn, kernel: Kernel) -> None:
        self.fn, self.math = fn, Math(fn)
        self.p: ProductParams = kernel.params
        self.sides = (*self.p.sides, self.p.out)
        self.pointers = [fn.args[f"p{i}"] for i in range(2, len(kernel.operands))]
        self.lanes = min(PANEL, fn.target.lanes(4))
        self.matrix, _, _ = matrices(self.p.geometry.m, stride=self.p.geometry.stride)

    def _corner(self, tile: Index, panel: Index) -> tuple[ir.Value, ir.Value, list[ir.Value]]:
        """First row and column of a tile, and where its first pixel lies in every operand."""
        fn, g = self.fn, self.p.geometry
        image, within = fn.idiv(tile, g.per_image), fn.imod(tile, g.per_image)
        y0, x0 = fn.imul(fn.idiv(within, g.across), g.m), fn.imul(fn.imod(within, g.across), g.m)
        return y0, x0, [
            fn.at(pointer, fn.dot([image, panel, y0, x0], (s.batch[0], s.panel, s.row, s.col)))
            for pointer, s in zip(self.pointers, self.sides, strict=True)
        ]

    def tile(self, source: ir.Value, tile: Index, panel: Index) -> None:
        fn, p = self.fn, self.p
        g, m = p.geometry, p.geometry.m
        y0, x0, places = self._corner(tile, panel)
        point = g.per_block * p.group * PANEL
        whole = g.rows % m == 0 and g.cols % m == 0
        if expr_cost(p.expr) > _HEAVY:
            self._by_way_of_memory(source, point, places, y0, x0)
        elif whole:
            self._whole(source, point, places)
        else:
            inside = fn.b.and_(
                fn.b.icmp_signed("<=", y0, fn.index(g.rows - m)), fn.b.icmp_signed("<=", x0, fn.index(g.cols - m))
            )
            with fn.b.if_else(inside) as (then, otherwise):
                with then:
                    self._whole(source, point, places)
                with otherwise:
                    self._by_way_of_memory(source, point, places, y0, x0)

    def _whole(self, source: ir.Value, point: int, places: Sequence[ir.Value]) -> None:
        """A tile that lies in the image wholly: from the registers to where it belongs."""

        def write(i: int, j: int, lane: ir.Value, value: Val) -> None:
            at = [self.fn.at(a, i * s.row + j * s.col) for a, s in zip(places, self.sides, strict=True)]
            self._store(value, at, lane)

        transform_output(self.fn, self.matrix, source, point, write)

    def _by_way_of_memory(self, source: ir.Value, point: int, places: Sequence[ir.Value], y0: Index, x0: Index) -> None:
        """Only the pixels inside the image, in a loop: also less code for a long epilogue."""
        fn, g = self.fn, self.p.geometry
        m = g.m
        result = fn.at(fn.args["scratch"], g.points * g.per_block * self.p.group * PANEL)
        transform_output(fn, self.matrix, source, point,
                         lambda i, j, lane, value: fn.store(value, fn.at(result, fn.iadd(lane, (i * m + j) * PANEL))))  # fmt: skip
        rows, cols = fn.imin(fn.isub(g.rows, y0), m), fn.imin(fn.isub(g.cols, x0), m)
        with fn.loop(0, rows, name="y") as y, fn.loop(0, cols, name="x") as x:
            pixel = fn.at(result, fn.imul(fn.iadd(fn.imul(y, m), x), PANEL))
            at = [fn.at(a, fn.dot([y, x], (s.row, s.col))) for a, s in zip(places, self.sides, strict=True)]
            for lane in range(0, PANEL, self.lanes):
                self._store(fn.load(fn.at(pixel, lane), "f32", self.lanes), at, fn.index(lane))

    def _store(self, value: Val, at: Sequence[ir.Value], lane: ir.Value) -> None:
        fn, values = self.fn, [value]
        for address, s in zip(at[:-1], self.p.sides, strict=True):
            values.append(fn.load(fn.at(address, fn.imul(lane, s.lane)), "f32", self.lanes if s.lane else 1))
        fn.store(evaluate(self.math, self.p.expr, values)[0], fn.at(at[-1], lane))
