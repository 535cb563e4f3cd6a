"""The memory planner: what lives at the same time never shares a byte, and the arena stays small."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from diptych.schedule.memory import ALIGNMENT, Interval, place


@st.composite
def intervals(draw: st.DrawFn) -> list[Interval]:
    made = []
    for _ in range(draw(st.integers(0, 25))):
        first = draw(st.integers(0, 30))
        nbytes = draw(st.one_of(st.integers(0, 5000), st.sampled_from([0, 1, 63, 64, 65, 4096])))
        made.append(Interval(nbytes, first, first + draw(st.integers(0, 10))))
    return made


@settings(max_examples=400, deadline=None)
@given(intervals())
def test_live_buffers_do_not_overlap(some: list[Interval]) -> None:
    offsets, total = place(some)
    assert len(offsets) == len(some)
    for i, a in enumerate(some):
        assert offsets[i] >= 0
        assert offsets[i] % ALIGNMENT == 0
        assert offsets[i] + a.nbytes <= total
        for j in range(i):
            b = some[j]
            if a.first <= b.last and b.first <= a.last and a.nbytes and b.nbytes:
                assert offsets[i] + a.nbytes <= offsets[j] or offsets[j] + b.nbytes <= offsets[i]


@settings(max_examples=200, deadline=None)
@given(intervals())
def test_the_arena_is_between_the_peak_and_the_sum(some: list[Interval]) -> None:
    sizes = [-(-max(x.nbytes, 1) // ALIGNMENT) * ALIGNMENT for x in some]
    peak = max((sum(s for s, x in zip(sizes, some, strict=True) if x.first <= t <= x.last) for t in range(50)), default=0)
    _, total = place(some)
    assert peak <= total <= sum(sizes)


def test_a_chain_needs_two_buffers() -> None:
    assert place([Interval(1024, i, i + 1) for i in range(10)])[1] == 2048
