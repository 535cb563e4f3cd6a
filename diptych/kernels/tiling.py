"""The default schedule of a contraction: register tiles, cache blocks, order of work items. Always exists; no search."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diptych.targets.base import Target

__all__ = ["PANEL", "Tiling", "alternatives", "choose", "pixel_tiles"]

PANEL = 16
_UNEVEN = 0.02  # the part of the time for which another order of work items is worth taking


@dataclass(frozen=True, slots=True)
class Tiling:
    """The schedule fields of ContractParams."""

    tiles: tuple[tuple[int, int], ...]
    panels_per_tile: int
    tiles_per_block: int
    k_chunk: int
    panel_outer: bool
    prefetch: bool

    def __str__(self) -> str:
        tiles = "+".join(f"{count}x{width}" for width, count in self.tiles)
        first = "panels" if self.panel_outer else "pixels"
        ahead = ", fetching ahead" if self.prefetch else ""
        return f"tiles {tiles} of {self.panels_per_tile} panels, {self.tiles_per_block} in a block, {self.k_chunk} deep, {first} first{ahead}"


@cache
def pixel_tiles(cols: int, most: int, vectors: int, avoid: tuple[int, ...] = ()) -> tuple[tuple[int, int], ...]:
    """Cut `cols` pixels into tiles of at most two widths <= `most` with the least time in the registers.

    A tile of w columns and `vectors` accumulators a column costs max(w * vectors, 8) FMA slots per reduction
    element (below 8 the latency of the FMA shows) plus a little per tile for its loads and its loop. Widths to
    `avoid` are left out where others can do.
    """
    best: tuple[float, tuple[tuple[int, int], ...]] | None = None
    for a in range(min(most, cols), 0, -1):
        for b in range(a, -1, -1):
            if b == a or a in avoid or b in avoid:
                continue
            # the fewest tiles of width b that complete the row
            counts = [(cols - a * i) // b if b and (cols - a * i) % b == 0 else (0 if cols == a * i else -1)
                      for i in range(cols // a, -1, -1)]  # fmt: skip
            for back, nb in enumerate(counts):
                na = cols // a - back
                if nb < 0 or (nb and not b) or (na == 0):
                    continue
                cost = na * (max(a * vectors, 8) + vectors) + nb * (max(b * vectors, 8) + vectors)
                if best is None or cost < best[0] - 1e-9:
                    best = (cost, ((a, na), (b, nb)) if nb else ((a, na),))
                break
    if best is None:
        assert avoid, "some width up to the most always fits"
        return pixel_tiles(cols, most, vectors)
    return best[1]


def choose(target: Target, *, batch: int, pixels: int, panels: int, k: int, taps: int, group: int = 0) -> Tiling:
    """Tile and block a contraction of `batch` products, each of `pixels` by panels*16 channels, k*taps deep.

    `group` panels share a register tile; 0 leaves that open.
    """
    lanes = min(PANEL, target.lanes(4))
    per_panel = PANEL // lanes
    if not group:
        # As many panels per tile as it takes to fill the FMA pipelines when there are few pixels.
        group = 2 if per_panel == 1 else 1
        while group < panels and group * per_panel * pixels < 8 and group * 2 * per_panel * (pixels + 1) < target.registers:
            group *= 2
        group = min(group, panels)
    most = max(1, (target.registers - per_panel * group - 1) // (per_panel * group))
    tiles = pixel_tiles(pixels, min(most, 28), per_panel * group)
    count = sum(c for _, c in tiles)

    # One chunk of packed weights of a panel group stays in L1 beside the pixels that stream past.
    k_blocks = k // PANEL
    block_bytes = group * PANEL * PANEL * 4 * taps
    k_chunk = max(1, int(0.8 * target.l1) // block_bytes)
    if k_chunk < k_blocks:
        k_chunk = -(-k_blocks // -(-k_blocks // k_chunk))  # even chunks
    else:
        k_chunk = max(1, k_blocks)

    x_bytes = pixels * k * 4
    w_bytes = panels * PANEL * k * taps * 4
    groups = -(-panels // group)
    # Pixels of a work item: their part of x within a third of L2, and enough items for every thread.
    budget = max(1, target.l2 // 3 // max(1, k * 4))
    per_block = max(1, min(count, budget // tiles[0][0]))

    def balanced(blocks: int) -> bool:
        n = batch * groups * blocks
        return n % 8 == 0 or n >= 48 or (n % 4 == 0 and n >= 12)

    while not balanced(-(-count // per_block)) and per_block > 4:
        per_block -= 1
    per_block = -(-count // -(-count // per_block))  # even items: a short last one leaves a thread waiting
    panel_outer = w_bytes > 2 * x_bytes or (x_bytes < target.l2 // 2 and w_bytes > target.l2 // 2)
    # What is read again and again comes in time, even from L3; a thread that has more to do than the others does not.
    lost = {order: _unevenness(batch, groups, tiles, per_block, order) for order in (True, False)}
    if lost[panel_outer] > lost[not panel_outer] + _UNEVEN:
        panel_outer = not panel_outer
    # Few tiles share a chunk of weights from memory: it must come while the chunk before is worked with.
    prefetch = w_bytes > target.l2 // 2 and per_block <= 64
    return Tiling(tiles, group, per_block, k_chunk, panel_outer, prefetch)


def _unevenness(batch: int, groups: int, tiles: tuple[tuple[int, int], ...], per_block: int, panel_outer: bool) -> float:
    """By which part the slowest of two or four threads takes longer than their mean, if they get like numbers of items."""
    widths = [w for w, count in tiles for _ in range(count)]
    blocks = [sum(widths[i : i + per_block]) for i in range(0, len(widths), per_block)]
    before = [0, *accumulate(blocks)]  # pixels of the blocks before each one
    items = batch * groups * len(blocks)

    def pixels(end: int) -> int:
        """Of the items before `end`."""
        whole, rest = divmod(end, groups * len(blocks))
        outer, inner = divmod(rest, len(blocks) if panel_outer else groups)
        if panel_outer:
            return whole * groups * before[-1] + outer * before[-1] + before[inner]
        return whole * groups * before[-1] + before[outer] * groups + (blocks[outer] * inner if inner else 0)

    def slowest(threads: int) -> float:
        ends = [pixels(i * items // threads) for i in range(threads + 1)]
        return max(b - a for a, b in pairwise(ends)) * threads / ends[-1]

    return max(slowest(2), slowest(4)) - 1


def alternatives(target: Target, *, batch: int, pixels: int, panels: int, k: int, taps: int) -> tuple[Tiling, ...]:
    """The default tiling, and others that are worth measuring."""
    shape = {"batch": batch, "pixels": pixels, "panels": panels, "k": k, "taps": taps}
    first = choose(target, **shape)
    count = sum(c for _, c in first.tiles)
    found = [first, replace(first, panel_outer=not first.panel_outer)]
    per_panel = PANEL // min(PANEL, target.lanes(4))
    most = max(1, (target.registers - 1) // (per_panel * 7))  # tiles of fewer than six pixels load too much
    found += [choose(target, **shape, group=g) for g in (1, 2, 3, 4) if g <= min(panels, most) and panels % g == 0]
    found += [replace(first, tiles_per_block=n) for n in (-(-first.tiles_per_block // 2), min(count, 2 * first.tiles_per_block))]
    found += [replace(first, k_chunk=n) for n in (-(-first.k_chunk // 2), max(1, k // PANEL))]
    found += [replace(first, prefetch=not first.prefetch)]
    return tuple(dict.fromkeys(found))
