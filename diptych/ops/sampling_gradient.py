"""The gradient of bilinear sampling: what `grid_sample` reads, written back, and how its values move with the positions."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diptych.ir import Value
    from diptych.ops.build import Builder

__all__ = ["grid_sample_gradient"]


def grid_sample_gradient(g: Builder, x: Value, grid: Value, dy: Value, align_corners: bool) -> tuple[Value, Value]:
    """The gradients with respect to x[N, C, H, W] and grid[N, 2, Ho, Wo] for dy[N, C, Ho, Wo]."""
    n, channels, height, width = x.shape
    count = grid.shape[2] * grid.shape[3]

    def position(axis: int, extent: int) -> tuple[Value, float]:
        """Where along an axis the grid points, in pixels, as [N, 1, P]; and by how much a unit of the grid moves it."""
        part = g.reshape(g.slice_axis(grid, 1, axis, axis + 1), (n, 1, count))
        scale = (extent - 1) / 2 if align_corners else extent / 2
        return g.add(g.mul(part, scale), scale if align_corners else scale - 0.5), scale

    (px, scale_x), (py, scale_y) = position(0, width), position(1, height)
    left, top = g.ew("floor", px), g.ew("floor", py)
    fx, fy = g.sub(px, left), g.sub(py, top)
    flat, d = g.reshape(x, (n, channels, height * width)), g.reshape(dy, (n, channels, count))
    dx = g.broadcast_to(g.scalar(0, x.dtype), flat.shape)
    moved_x = moved_y = g.broadcast_to(g.scalar(0, x.dtype), (n, 1, count))
    for down in (0, 1):
        for right in (0, 1):
            column, row = g.add(left, float(right)), g.add(top, float(down))
            inside = g.ew("logical_and", _within(g, column, width), _within(g, row, height))
            place = g.add(g.mul(g.ew("clip", row, low=0.0, high=float(height - 1)), float(width)),
                          g.ew("clip", column, low=0.0, high=float(width - 1)))  # fmt: skip
            index = g.broadcast_to(g.cast(place, "i32"), d.shape)
            seen = g.cast(inside, x.dtype)
            wx, wy = (fx if right else g.sub(1, fx)), (fy if down else g.sub(1, fy))
            dx = g.ew("scatter_add", dx, index, g.mul(d, g.mul(g.mul(wx, wy), seen)), axis=2)
            along = g.mul(g.ew("sum", g.mul(d, g.ew("gather", flat, index, axis=2)), axes=(1,), keepdims=True), seen)
            moved_x = g.add(moved_x, g.mul(along, wy if right else g.neg(wy)))
            moved_y = g.add(moved_y, g.mul(along, wx if down else g.neg(wx)))
    dgrid = g.concat([g.mul(moved_x, scale_x), g.mul(moved_y, scale_y)], 1)
    return g.reshape(dx, x.shape), g.reshape(dgrid, grid.shape)


def _within(g: Builder, v: Value, extent: int) -> Value:
    return g.ew("logical_and", g.ew("greater_equal", v, 0.0), g.ew("less", v, float(extent)))
