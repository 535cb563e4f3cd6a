"""Winograd's transform of weights that arrive at run time: G g G^T of each 3 x 3 window, 16 outputs side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from diptych.codegen.builder import Val, register_type
from diptych.ir.kernel import Kernel, Operand
from diptych.kernels.base import emits
from diptych.kernels.tile import PANEL
from diptych.kernels.winograd_points import matrices
from diptych.kernels.winograd_transform import apply

if TYPE_CHECKING:
    from llvmlite import ir

    from diptych.codegen.builder import Fn, Index
    from diptych.kernels.winograd_points import Array

__all__ = ["WeightTransformParams", "make_weight_transform", "transform_window"]

_PARTS = 4  # work items of a panel, at most


@dataclass(frozen=True, slots=True)
class WeightTransformParams:
    """Operands: packed weights [1, panels, C * 9 * 16] (as the contraction reads them), U [panels / group, points, chunks,
    group, C / chunks * 16]."""

    m: int
    channels: int
    parts: int  # work items of a panel: a share of its whole blocks of channels, the last one with the tail
    stride: int = 1

    def __str__(self) -> str:
        return f"F({self.m},3) C={self.channels}"


def make_weight_transform(w: Operand, u: Operand, m: int, channels: int, stride: int = 1) -> Kernel:
    """U of packed weights."""
    panels = w.shape[1]
    assert w.shape[2] == channels * 9 * PANEL and u.shape[0] * u.shape[3] == panels
    parts = max(1, min(_PARTS, channels // PANEL))
    params = WeightTransformParams(m, channels, parts, stride)
    return Kernel("winograd_weights", params, (w, u), 1, panels * parts, 20 + panels * channels * 30.0)


@emits("winograd_weights")
def emit_weighttransform_window(fn: Fn, kernel: Kernel) -> None:
    """Panel by panel, channel by channel."""
    p: WeightTransformParams = kernel.params
    w, u = kernel.operands
    blocks, tail = divmod(p.channels, PANEL)
    per_chunk = u.shape[4] // PANEL
    group = u.shape[3]
    _, matrix, _ = matrices(p.m, stride=p.stride)
    with fn.loop(fn.args["begin"], fn.args["end"], name="item") as item:
        panel, part = fn.unravel(item, (w.shape[1], p.parts))
        source = fn.at(fn.args["p0"], fn.imul(panel, w.strides[1]))
        to = fn.at(fn.args["p1"], fn.dot([fn.idiv(panel, group), fn.imod(panel, group)], (u.strides[0], u.strides[3])))

        def channel(c: Index, at: ir.Value, tap: int) -> None:
            place = fn.dot([fn.idiv(c, per_chunk), fn.imod(c, per_chunk)], (u.strides[2], PANEL))
            transform_window(fn, matrix, at, tap, fn.at(to, place), u.strides[1])

        share = -(-blocks // p.parts)
        low = fn.imul(part, share)
        with fn.loop(low, fn.imin(fn.iadd(low, share), blocks), name="block") as block, fn.loop(0, PANEL, name="k") as k:
            at = fn.at(source, fn.dot([block, k], (9 * PANEL * PANEL, PANEL)))
            channel(fn.iadd(fn.imul(block, PANEL), k), at, PANEL * PANEL)
        if tail:
            with fn.if_(fn.b.icmp_signed("==", part, fn.index(p.parts - 1))), fn.loop(0, tail, name="k") as k:
                at = fn.at(source, fn.iadd(fn.imul(k, PANEL), blocks * 9 * PANEL * PANEL))
                channel(fn.iadd(k, blocks * PANEL), at, tail * PANEL)


def transform_window(fn: Fn, g: Array, source: ir.Value, tap: int, to: ir.Value, point: int) -> None:
    """16 windows whose taps lie `tap` elements apart; points go `point` elements apart."""
    n, lanes = len(g), min(PANEL, fn.target.lanes(4))
    vec = register_type("f32", lanes)
    between = [[fn.var(vec) for _ in range(3)] for _ in range(n)]
    for off in range(0, PANEL, lanes):
        for j in range(3):
            column = [fn.load(fn.at(source, off + (3 * i + j) * tap), "f32", lanes) for i in range(3)]
            for i, value in enumerate(apply(fn, g, column)):
                between[i][j].set(value.ir)
        for i in range(n):
            line = [Val(var.get(), "f32", lanes) for var in between[i]]
            for j, value in enumerate(apply(fn, g, line)):
                fn.store(value, fn.at(to, off + (i * n + j) * point))
