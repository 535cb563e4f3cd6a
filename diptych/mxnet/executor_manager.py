"""`mx.executor_manager`: the helper of it that scripts with their own executors use. Module does the rest of its work."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__: list[str] = []


def _split_input_slice(batch_size: int, work_load_list: Sequence[float]) -> list[slice]:
    """The share of a batch that each device gets, by its work load."""
    total = sum(work_load_list)
    counts = [round(load * batch_size / total) for load in work_load_list]
    counts[-1] += max(0, batch_size - sum(counts))
    ends = [min(sum(counts[: i + 1]), batch_size) for i in range(len(counts))]
    slices = [slice(begin, end) for begin, end in zip([0, *ends[:-1]], ends)]
    if any(s.start >= s.stop for s in slices):
        raise ValueError("Too many slices. Some splits are empty.")
    return slices
