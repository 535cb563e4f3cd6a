"""Where every temporary lies: lifetimes to arena offsets. Pure functions over intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

__all__ = ["Block", "Interval", "lives", "most_alive", "place"]

ALIGNMENT = 64
_TRIES = 32  # orders to try beyond the obvious ones, each a few milliseconds ...
_PAIRS = 4_000_000  # ... in a plan of usual length: no more of them than so many pairs of parts to compare, all together
_CUTS = 256  # a buffer in more parts than this (a concatenation inside of every row) is worth no such book-keeping ...
_PARTS = 3_000  # ... and a plan of more parts than this leaves its most divided buffers whole


@dataclass(frozen=True, slots=True)
class Interval:
    """`nbytes` that must keep their content from step `first` to step `last`, both included."""

    nbytes: int
    first: int
    last: int


#: A buffer: parts that lie one after another, each with a life of its own (those of a concatenation's operands differ).
Block: TypeAlias = Sequence[Interval]


def lives(touches: Sequence[tuple[int, int, int]], nbytes: int) -> tuple[Interval, ...]:
    """A buffer of `nbytes` cut into parts of one life each, from the touches (low byte, high byte, step) of its users.

    A part lives from the first to the last touch; what nobody touches lives as long as the whole. Too many parts are one.

    >>> lives([(0, 64, 1), (64, 128, 2), (0, 128, 3)], 128)
    (Interval(nbytes=64, first=1, last=3), Interval(nbytes=64, first=2, last=3))
    """
    cuts = sorted({0, nbytes, *(c for low, high, _ in touches for c in (low, high) if 0 < c < nbytes)})
    whole = [step for _, _, step in touches]
    if len(cuts) > _CUTS:
        return (Interval(nbytes, min(whole), max(whole)),)
    parts: list[Interval] = []
    for low, high in pairwise(cuts):
        steps = [step for a, b, step in touches if a < high and low < b] or whole
        first, last = min(steps), max(steps)
        if parts and (parts[-1].first, parts[-1].last) == (first, last):
            parts[-1] = Interval(parts[-1].nbytes + high - low, first, last)
        else:
            parts.append(Interval(high - low, first, last))
    return tuple(parts)


def most_alive(blocks: Sequence[Block]) -> int:
    """The largest sum of bytes that live at the same time: no placement can be smaller.

    >>> most_alive([[Interval(64, 0, 1)], [Interval(128, 1, 2)], [Interval(64, 2, 3)]])
    192
    """
    changes: dict[int, int] = {}
    for part in (p for block in blocks for p in block):
        changes[part.first] = changes.get(part.first, 0) + part.nbytes
        changes[part.last + 1] = changes.get(part.last + 1, 0) - part.nbytes
    most = now = 0
    for step in sorted(changes):
        now += changes[step]
        most = max(most, now)
    return most


def place(blocks: Sequence[Block]) -> tuple[list[int], int]:
    """Offsets of the buffers and the arena's size.

    Each buffer goes to the lowest place that is free during the lives of all its parts, largest buffers first
    (Pisarchyk and Lee, arXiv 2001.03288). Where that is not the smallest arena possible, other orders are tried: by
    bytes times steps, by first step, and a few times the best one so far with the buffer at the top placed sooner.

    >>> place([[Interval(64, 0, 1)], [Interval(128, 1, 2)], [Interval(64, 2, 3)]])
    ([128, 0, 128], 192)
    """
    size = [_aligned(sum(p.nbytes for p in block)) for block in blocks]
    bound = most_alive(blocks)
    blocks = _fewer_parts(blocks)
    bound += bound // 256  # less than this is not worth another try
    everyone = range(len(blocks))
    starts = [min((p.first for p in block), default=0) for block in blocks]
    area = [sum(p.nbytes * (p.last - p.first + 1) for p in block) for block in blocks]
    best: tuple[list[int], int] | None = None
    order: list[int] = []
    for key in (lambda i: (-size[i], starts[i]), lambda i: (-area[i], starts[i]), lambda i: (starts[i], -size[i])):
        tried = sorted(everyone, key=key)
        made = _in_order(blocks, tried)
        if best is None or made[1] < best[1]:
            best, order = made, tried
        if best[1] <= bound:
            return best
    assert best is not None
    tried, made = order, best
    parts = sum(map(len, blocks))
    for _ in range(min(_TRIES, _PAIRS // (parts * parts + 1))):
        top = next(i for i in tried if made[0][i] + size[i] == made[1])
        at = tried.index(top)
        if at == 0:
            break
        tried = [*tried[: at // 2], top, *tried[at // 2 : at], *tried[at + 1 :]]
        made = _in_order(blocks, tried)
        if made[1] < best[1]:
            best = made
        if best[1] <= bound:
            break
    return best


def _fewer_parts(blocks: Sequence[Block]) -> Sequence[Block]:
    """The blocks, the most divided ones as one part each where there are too many parts to compare with one another."""
    left = sum(map(len, blocks)) - max(_PARTS, 2 * len(blocks))
    found = list(blocks)
    for i in sorted(range(len(blocks)), key=lambda i: -len(blocks[i])):
        if left <= 0 or len(found[i]) < 2:
            break
        left -= len(found[i]) - 1
        found[i] = (Interval(sum(p.nbytes for p in found[i]), min(p.first for p in found[i]), max(p.last for p in found[i])),)
    return found


def _aligned(nbytes: int) -> int:
    return -(-max(nbytes, 1) // ALIGNMENT) * ALIGNMENT


def _in_order(blocks: Sequence[Block], order: Sequence[int]) -> tuple[list[int], int]:
    """Each block at its lowest possible place, one after another."""
    offsets = [0] * len(blocks)
    placed: list[tuple[int, int, int, int]] = []  # first and last step, from, to
    total = 0
    for i in order:
        refused: list[tuple[int, int]] = []  # offsets strictly between these would meet a part that lives
        ahead = 0
        parts = list(_aligned_parts(blocks[i]))
        for own in parts:
            begin, end, least = own.first, own.last, ahead + own.nbytes
            refused += [(low - least, high - ahead) for first, last, low, high in placed if first <= end and begin <= last]
            ahead = least
        at = 0
        for low, high in sorted(refused):
            if at <= low:
                break
            at = max(at, -(-high // ALIGNMENT) * ALIGNMENT)
        offsets[i] = at
        for own in parts:
            placed.append((own.first, own.last, at, at + own.nbytes))
            at += own.nbytes
        total = max(total, at)
    return offsets, total


def _aligned_parts(block: Block) -> Sequence[Interval]:
    """The parts, the last of them filled up to whole cache lines."""
    whole = sum(p.nbytes for p in block)
    last = block[-1]
    return [*block[:-1], Interval(last.nbytes + _aligned(whole) - whole, last.first, last.last)]
