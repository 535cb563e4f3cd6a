"""Dilated convolutions: by Winograd's algorithm on every d-th pixel, or by sums that leave out the taps in the padding.

With dilations (d, e) the outputs whose position is p modulo d and q modulo e read only such inputs: d * e images of their
own, each a convolution without dilation. They are views, and share their weights.

Where the reach of the window is a good part of the image, many of its taps fall on padding. The outputs for which the
same taps fall on the image make a rectangle; each rectangle is a contraction over those taps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import TYPE_CHECKING

from diptych.kernels.tiling import pixel_tiles
from diptych.ops.base import attributes
from diptych.schedule.winograd import (
    GAIN,
    PANEL,
    WinogradSchedule,
    candidates,
    direct_cycles,
    lower_winograd,
    winograd_pads,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from diptych.ir import Array, Graph, Node
    from diptych.ir.kernel import Expr
    from diptych.kernels.contract import Side
    from diptych.schedule.context import Context
    from diptych.schedule.views import View
    from diptych.targets.base import Target

__all__ = ["Rectangle", "choose_dilated", "input_pads", "lower_dilated", "rectangles"]

Pads = tuple[tuple[int, int], ...]
_FEWEST_PIXELS = 32  # of a rectangle that is worth a step of its own
_SAVING = 0.1  # of the sums, that must fall on padding


# -- Winograd on every d-th pixel -----------------------------------------------------------------------------------
def choose_dilated(graph: Graph, node: Node, target: Target, threads: int) -> WinogradSchedule | None:
    """How the images of a dilated blocked_conv go the Winograd way (the largest of them); None if direct sums are faster."""
    a = attributes(node.op)
    w, out = graph.types[node.inputs[1]], graph.types[node.outputs[0]]
    if w.shape[2:] != (3, 3) or a["strides"] != (1, 1) or a["dilations"] == (1, 1) or a["groups"] != 1 or out.rank != 5:
        return None
    if a["plain_input"] or w.shape[1] < PANEL or node.inputs[1] not in graph.constants:
        return None
    batch, panels, rows, cols, _ = out.shape
    (d, e), c = a["dilations"], w.shape[1]
    part = (-(-rows // d), -(-cols // e))
    # Forms that read the weights as they are would transform them again for every one of the images.
    forms = [s for s in candidates(batch, *part, c, panels, target, threads) if not s.few and not s.depth]
    if not forms:
        return None
    best = min(forms, key=lambda s: s.cycles)
    images = min(d, rows) * min(e, cols)
    _, kept = _taps_kept(graph, node)
    direct = direct_cycles(batch, rows, cols, c, panels, target, threads) * kept
    return best if images * best.cycles < GAIN * direct else None


def input_pads(graph: Graph, node: Node, schedule: WinogradSchedule) -> Pads:
    """Padding with which whole tiles can be read, of a convolution with or without dilation."""
    a, out, size = attributes(node.op), graph.types[node.outputs[0]].shape[2:4], graph.types[node.inputs[0]].shape[2:4]
    m, pads = schedule.geometry.m, a["pads"]
    if a["dilations"] == (1, 1):
        return winograd_pads(pads, out[0], out[1], m, schedule.geometry.stride)
    found = []
    for n, extent, (lo, hi), d in zip(out, size, pads, a["dilations"], strict=True):
        ends = [p + d * (-(-len(range(p, n, d)) // m) * m + 1) + 1 for p in range(min(d, n))]
        found.append((lo, max(hi, max(ends) - extent - lo)))
    return tuple(found)


def lower_dilated(ctx: Context, dilations: tuple[int, int], x: View, w: Array, s: WinogradSchedule, out: View, expr: Expr,
                  views: list[View], bias: int, side: Callable[[View], Side], sides: list[Side]) -> None:  # fmt: skip
    """Emit the kernels; x is padded by `input_pads` already. The first `bias` of `views` have no pixels, and their `sides`."""
    d, e = dilations
    rows, cols = out.shape[2:4]
    weights: dict[int, View] = {}
    for p, q in product(range(min(d, rows)), range(min(e, cols))):
        own = (len(range(p, rows, d)), len(range(q, cols, e)))
        g = replace(s.geometry, rows=own[0], cols=own[1])
        if g.tiles < g.per_block:
            g = replace(g, per_block=g.tiles)
        across = max(width for width, _ in s.tiles)
        tiles = s.tiles if g.per_block == s.geometry.per_block else pixel_tiles(g.per_block, across, s.group)

        def part(view: View, extent: tuple[int, int], at: tuple[int, int] = (p, q)) -> View:
            return view.slice((0, 0, *at, 0), (1, 1, d, e, 1), (*view.shape[:2], *extent, view.shape[-1]))

        read = tuple(-(-k // g.m) * g.m + 2 for k in own)
        some = [*views[:bias], *(part(v, own) for v in views[bias:])]
        y = part(out, own)
        weights[0] = lower_winograd(ctx, part(x, (read[0], read[1])), w, replace(s, geometry=g, tiles=tiles), y, expr, some,
                                    [*sides[:bias], *(side(v) for v in some[bias:])], side(y), weights.get(0))  # fmt: skip


# -- sums without the taps in the padding ----------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Rectangle:
    """Outputs from `at` on, `shape` of them, for which the taps at these positions of the window lie in the image."""

    at: tuple[int, int]
    shape: tuple[int, int]
    taps: tuple[tuple[int, int], ...]


def rectangles(graph: Graph, node: Node) -> tuple[Rectangle, ...]:
    """The parts of a blocked_conv of images whose window reaches so far that taps are worth leaving out; else empty."""
    found, kept = _taps_kept(graph, node)
    return found if found and kept <= 1 - _SAVING else ()


def _taps_kept(graph: Graph, node: Node) -> tuple[tuple[Rectangle, ...], float]:
    """The rectangles, and the part of the sums that they keep."""
    a = attributes(node.op)
    kernel, out = graph.types[node.inputs[1]].shape[2:], graph.types[node.outputs[0]].shape[2:-1]
    if len(kernel) != 2 or a["plain_input"] or a["dilations"] == (1, 1) or node.inputs[1] not in graph.constants:
        return (), 1.0
    size = graph.types[node.inputs[0]].shape[2:4]
    axes = [_stretches(*facts) for facts in zip(kernel, out, size, a["strides"], a["pads"], a["dilations"], strict=True)]
    found = tuple(
        Rectangle((r[0], c[0]), (r[1], c[1]), tuple(product(r[2], c[2]))) for r, c in product(*axes)
    )
    if any(prod(r.shape) < _FEWEST_PIXELS or not r.taps for r in found):
        return (), 1.0
    return found, sum(prod(r.shape) * len(r.taps) for r in found) / (prod(out) * prod(kernel))


def _stretches(k: int, n: int, size: int, stride: int, pads: Sequence[int], d: int) -> list[tuple[int, int, tuple[int, ...]]]:
    """(first output, how many, positions of the taps that lie in the image) along one axis."""
    inside = [tuple(t for t in range(k) if 0 <= o * stride - pads[0] + t * d < size) for o in range(n)]
    found: list[tuple[int, int, tuple[int, ...]]] = []
    for o, taps in enumerate(inside):
        if found and found[-1][2] == taps:
            found[-1] = (found[-1][0], found[-1][1] + 1, taps)
        else:
            found.append((o, 1, taps))
    return found
