"""The default schedule of a contraction: threads get like amounts of work."""

from __future__ import annotations

from itertools import pairwise

import pytest

from diptych.kernels import tiling
from diptych.targets import host

V4 = host.find("x86-64-v4")


def _shares(batch: int, groups: int, t: tiling.Tiling, panel_outer: bool, threads: int) -> list[int]:
    """Pixels times groups of each thread, counted item by item."""
    widths = [w for w, count in t.tiles for _ in range(count)]
    blocks = [sum(widths[i : i + t.tiles_per_block]) for i in range(0, len(widths), t.tiles_per_block)]
    items = batch * (groups * blocks if panel_outer else [b for b in blocks for _ in range(groups)])
    ends = [i * len(items) // threads for i in range(threads + 1)]
    return [sum(items[a:b]) for a, b in pairwise(ends)]


@pytest.mark.parametrize(("batch", "pixels", "panels", "k"), [(1, 1024, 48, 768), (3, 197, 24, 1536), (2, 50, 7, 100), (1, 9, 1, 9), (5, 3136, 4, 64)])
@pytest.mark.parametrize("panel_outer", [True, False])
def test_unevenness_is_that_of_the_slowest_thread(batch: int, pixels: int, panels: int, k: int, panel_outer: bool) -> None:
    t = tiling.choose(V4, batch=batch, pixels=pixels, panels=panels, k=k, taps=1)
    groups = -(-panels // t.panels_per_tile)
    found = tiling._unevenness(batch, groups, t.tiles, t.tiles_per_block, panel_outer)
    expected = 0.0
    for threads in (2, 4):
        shares = _shares(batch, groups, t, panel_outer, threads)
        expected = max(expected, max(shares) * threads / sum(shares) - 1)
    assert found == pytest.approx(expected)


# Products of BERT and ViT: in the order that the size of their operands suggests some would leave a thread waiting.
@pytest.mark.parametrize(("rows", "k", "n"), [(1024, 768, 768), (197, 1536, 384), (197, 768, 2304), (128, 768, 3072), (1024, 3072, 768)])
@pytest.mark.parametrize("threads", [2, 4])
def test_products_of_transformers_are_shared_evenly(rows: int, k: int, n: int, threads: int) -> None:
    t = tiling.choose(V4, batch=1, pixels=rows, panels=n // 16, k=k, taps=1)
    shares = _shares(1, n // 16 // t.panels_per_tile, t, t.panel_outer, threads)
    assert max(shares) * threads <= 1.03 * sum(shares)
