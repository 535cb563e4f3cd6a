"""The memory planner: what lives at the same time never shares a byte, and the arena stays small."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from diptych.schedule.memory import ALIGNMENT, Interval, lives, most_alive, place


@st.composite
def blocks(draw: st.DrawFn) -> list[tuple[Interval, ...]]:
    made = []
    for _ in range(draw(st.integers(0, 25))):
        parts = []
        for _ in range(draw(st.sampled_from([1, 1, 2, 3]))):
            first = draw(st.integers(0, 30))
            nbytes = draw(st.one_of(st.integers(0, 5000), st.sampled_from([0, 1, 63, 64, 65, 4096])))
            parts.append(Interval(nbytes, first, first + draw(st.integers(0, 10))))
        made.append(tuple(parts))
    return made


def spread(some: list[tuple[Interval, ...]], offsets: list[int]) -> list[tuple[int, Interval]]:
    """Every part with where it lies."""
    found = []
    for at, block in zip(offsets, some, strict=True):
        for part in block:
            found.append((at, part))
            at += part.nbytes
    return found


@settings(max_examples=400, deadline=None)
@given(blocks())
def test_live_parts_do_not_overlap(some: list[tuple[Interval, ...]]) -> None:
    offsets, total = place(some)
    assert len(offsets) == len(some)
    assert all(at >= 0 and at % ALIGNMENT == 0 for at in offsets)
    parts = spread(some, offsets)
    for i, (at, a) in enumerate(parts):
        assert at + a.nbytes <= total
        for where, b in parts[:i]:
            if a.first <= b.last and b.first <= a.last and a.nbytes and b.nbytes:
                assert at + a.nbytes <= where or where + b.nbytes <= at


@settings(max_examples=200, deadline=None)
@given(blocks())
def test_the_arena_is_between_the_peak_and_the_sum(some: list[tuple[Interval, ...]]) -> None:
    peak = max((sum(p.nbytes for b in some for p in b if p.first <= t <= p.last) for t in range(50)), default=0)
    _, total = place(some)
    assert most_alive(some) == peak <= total
    assert total <= sum(-(-max(sum(p.nbytes for p in b), 1) // ALIGNMENT) * ALIGNMENT for b in some)


def test_a_chain_needs_two_buffers() -> None:
    assert place([[Interval(1024, i, i + 1)] for i in range(10)])[1] == 2048


def test_a_part_that_is_made_late_leaves_room_before() -> None:
    joined = (Interval(1024, 0, 9), Interval(1024, 8, 9))
    assert place([joined, [Interval(1024, 1, 2)], [Interval(1024, 3, 4)]])[1] == 2048


def test_another_order_is_found() -> None:
    """Largest first leaves a hole here that no later buffer fits into."""
    some = [[Interval(64 * n, first, last)] for n, first, last in ((11, 11, 14), (2, 4, 7), (7, 6, 8), (6, 9, 14), (10, 4, 5), (6, 6, 10))]
    assert place(some)[1] == most_alive(some)


def test_lives() -> None:
    assert lives([(64, 128, 3), (0, 256, 5)], 320) == (
        Interval(64, 5, 5), Interval(64, 3, 5), Interval(128, 5, 5), Interval(64, 3, 5),
    )  # fmt: skip
    assert lives([(0, 0, 2)], 0) == ()


def test_a_buffer_in_very_many_parts_is_one() -> None:
    """A concatenation inside of every row of a long batch: book-keeping of each piece would be quadratic in their number."""
    rows, columns = 512, 8
    touches = [(16 * (r * columns + c), 16 * (r * columns + c + 1), c) for c in range(columns) for r in range(rows)]
    assert lives(touches, 16 * rows * columns) == (Interval(16 * rows * columns, 0, columns - 1),)
    few = [touch for touch in touches if touch[1] <= 16 * columns]
    assert [p.first for p in lives(few, 16 * columns)] == list(range(columns))


def test_a_plan_of_very_many_parts_leaves_the_most_divided_buffers_whole() -> None:
    many = [tuple(Interval(64, k + i % 7, k + i % 7) for i in range(200)) for k in range(20)]
    few = [(Interval(64, 3, 4), Interval(64, 5, 6))]
    some = [*many, *few]
    offsets, total = place(some)
    assert total <= 64 * sum(map(len, some))
    parts = spread(some, offsets)
    for i, (at, a) in enumerate(parts):
        for where, b in parts[:i]:
            if a.first <= b.last and b.first <= a.last:
                assert at + a.nbytes <= where or where + b.nbytes <= at
