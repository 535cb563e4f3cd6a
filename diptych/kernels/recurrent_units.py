"""How the units and rows of a recurrent layer are tiled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from diptych.ir.types import itemsize

if TYPE_CHECKING:
    from diptych.targets.base import Target

__all__ = ["GATES", "MOST_ROWS", "UNROLL", "Units", "choose_units"]

GATES = {"lstm": 4, "gru": 3, "rnn": 1}
UNROLL = 4  # elements of h per turn of the innermost loop
MOST_ROWS = 12  # of a tile: each has an address, and there are 16 registers for those


@dataclass(frozen=True, slots=True)
class Units:
    """How units and rows are tiled: `block` units side by side, `rows` rows of the batch at a time."""

    block: int
    lanes: int
    rows: int
    sets: int  # independent partial sums, where one would leave the FMA pipelines waiting for it
    passes: int = 1  # over h, each for some of the gates: a tile of more rows then reads the weights less often


def choose_units(kind: str, rows: int, dtype: str, target: Target, split: bool = False) -> Units:
    """The register tile: sums of `rows` x gates x block units, two values to multiply, and the weights in passing.

    split: the gates may be summed up in several passes, if that makes fewer tiles of the rows.
    """
    gates, lanes = GATES[kind], target.lanes(itemsize(dtype))
    passes = 1
    if rows <= 1:
        vectors, tile = max(1, 64 // (lanes * itemsize(dtype))), 1
    else:
        vectors = 1 if gates > 1 else 2
        tiles = _tiles(rows, gates * vectors, target.registers)
        if split and gates % 2 == 0 and _tiles(rows, gates * vectors // 2, target.registers) < tiles:
            passes, tiles = 2, _tiles(rows, gates * vectors // 2, target.registers)
        tile = -(-rows // tiles)
    sets, sums = 1, tile * gates * vectors // passes
    while sets < UNROLL and sums * sets < 8 and sums * sets * 2 <= target.registers - 4:
        sets *= 2
    return Units(vectors * lanes, lanes, tile, sets, passes)


def _tiles(rows: int, vectors: int, registers: int) -> int:
    """How many tiles the rows make, at this many vectors of sums for each."""
    most = 1
    while most < MOST_ROWS and _registers(most + 1, vectors) <= registers:
        most += 1
    return -(-rows // most)


def _registers(rows: int, vectors: int) -> int:
    return rows * vectors + min(rows, vectors) + 1
