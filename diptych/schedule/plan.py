"""Kernel calls -> Plan: memory places, which steps one thread does alone, where the threads must meet."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from diptych.ir.kernel import Kernel, Step
from diptych.ir.types import TensorType
from diptych.kernels.border import make_border
from diptych.schedule.context import Call
from diptych.schedule.memory import Interval, place
from diptych.schedule.views import View, contiguous

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from diptych.ir import Array
    from diptych.schedule.context import Buffer, Context

__all__ = ["ARENA", "SCRATCH", "WEIGHTS", "Constants", "Plan", "make_plan"]

Where = tuple[int, int]  # buffer number of a Step, byte offset
ARENA, WEIGHTS = 0, 1  # buffer numbers of a Step; inputs follow from 2 on, then outputs
SCRATCH = 64
_LARGE = 1 << 16  # bytes of a halo buffer whose border may be zeroed anew
SERIAL_NS = 2500.0  # a step this short is not worth waking a second thread for


class Constants:
    """The constants of a plan, packed for its kernels when they are first asked for; their sources are let go then."""

    def __init__(self, parts: list[tuple[int, Buffer]], nbytes: int, allocate: Callable[[int], Array], threads: int) -> None:
        self.nbytes = nbytes
        self._parts, self._allocate, self._threads = parts, allocate, threads

    @cached_property
    def array(self) -> Array:
        """All of them in one array of bytes."""
        made = _blob(self._parts, self._allocate(self.nbytes), self._threads)
        self._parts = []
        return made


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything the native code of a model is made from, and what the runtime needs to call it."""

    kernels: tuple[Kernel, ...]
    steps: tuple[Step, ...]
    arena_bytes: int
    scratch_offset: int  # per-thread scratch lies at the end of the arena
    scratch_bytes: int
    inputs: tuple[tuple[str, TensorType], ...]
    outputs: tuple[tuple[str, TensorType], ...]
    constants: Constants = field(compare=False, repr=False)
    fused: tuple[tuple[str, ...], ...] = ()  # per step, the operators in it
    notes: tuple[tuple[str, ...], ...] = ()  # per step, why it is done this way

    @property
    def weights(self) -> Array:
        """The packed constants, as bytes."""
        return self.constants.array

    @property
    def cost(self) -> float:
        """Rough nanoseconds on one core."""
        return sum(self.kernels[s.kernel].cost for s in self.steps)

    def __str__(self) -> str:
        lines = [f"plan: {len(self.steps)} steps, {len(self.kernels)} kernels, arena {self.arena_bytes} bytes"]
        for s in self.steps:
            mark = ("|" if s.barrier else " ") + ("1" if s.serial else "n")
            lines.append(f"{mark} {self.kernels[s.kernel]} @ {s.args}  # {s.name}")
        return "\n".join(lines)


def make_plan(ctx: Context, threads: int, allocate: Callable[[int], Array]) -> Plan:
    """Place the buffers of a lowered graph and order its steps for `threads` threads.

    `allocate(size)` gives the aligned, zeroed bytes that the weights are packed into.
    """
    calls, where, arena = _arena(ctx, ctx.calls)
    large = {b for call in ctx.calls for b in (v.buffer for v in call.args)
             if ctx.buffers[b].kind == "halo" and ctx.buffers[b].nbytes >= _LARGE}  # fmt: skip
    if large:  # zeroing borders anew costs a little time: only where it saves memory worth the name
        other = _arena(ctx, _with_borders(ctx, large), large)
        if other[2] < 0.9 * arena:
            calls, where, arena = other
    first = {view.buffer for call in calls for view in call.args}
    blob: list[tuple[int, Buffer]] = []
    size = 0
    for b, buffer in enumerate(ctx.buffers):
        if buffer.kind == "weights" and b in first:
            where[b] = (WEIGHTS, size)
            blob.append((size, buffer))
            size += -(-max(buffer.nbytes, 1) // 64) * 64
        elif buffer.kind == "input":
            where[b] = (2 + buffer.index, 0)
        elif buffer.kind == "output":
            where[b] = (2 + len(ctx.graph.inputs) + buffer.index, 0)
    constants = Constants(blob, max(size, 64), allocate, threads)

    scratch = -(-max((c.kernel.scratch for c in calls), default=0) // SCRATCH) * SCRATCH
    kernels: dict[Kernel, int] = {}
    steps: list[Step] = []
    open_reads: list[tuple[int, int, int, bool]] = []  # since the last barrier: (buffer, low, high, serial)
    open_writes: list[tuple[int, int, int, bool]] = []
    for call in calls:
        k = call.kernel
        serial = threads == 1 or k.work == 1 or k.cost < SERIAL_NS
        args: list[tuple[int, int]] = []
        reads: list[tuple[int, int, int, bool]] = []
        writes: list[tuple[int, int, int, bool]] = []
        for j, view in enumerate(call.args):
            at, base = where[view.buffer]
            args.append((at, base + view.byte_offset))
            low, high = view.extent()
            written = j >= len(call.args) - k.outputs
            (writes if written else reads).append((at, base + low, base + high, serial))
        barrier = any(_clash(a, b) for a in writes for b in (*open_reads, *open_writes)) or any(
            _clash(a, b) for a in reads for b in open_writes
        )
        if barrier:
            open_reads, open_writes = [], []
        open_reads += [r for r in reads if r[0] != WEIGHTS]
        open_writes += writes
        steps.append(Step(kernels.setdefault(k, len(kernels)), tuple(args), serial, barrier, call.name))
    graph = ctx.graph
    return Plan(
        tuple(kernels), tuple(steps), arena + threads * scratch, arena, scratch,
        tuple((name, graph.types[v]) for name, v in zip(graph.input_names, graph.inputs, strict=True)),
        tuple((name, graph.types[v]) for name, v in zip(graph.output_names, graph.outputs, strict=True)),
        constants, tuple(c.fused for c in calls), tuple(c.notes for c in calls),
    )  # fmt: skip


def _arena(ctx: Context, calls: list[Call], zeroed: Collection[int] = ()) -> tuple[list[Call], dict[int, Where], int]:
    """Where the temporaries of `calls` lie, and how much memory that is.

    Halo buffers share memory only with others of the same geometry, so that nothing ever writes on a border, except
    those in `zeroed`: `calls` zero their borders.
    """
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for i, call in enumerate(calls):
        for view in call.args:
            first.setdefault(view.buffer, i)
            last[view.buffer] = i
    temps = [b for b in first if ctx.buffers[b].kind == "temp" or b in zeroed]
    offsets, arena = place([Interval(ctx.buffers[b].nbytes, first[b], last[b]) for b in temps])
    where = {b: (ARENA, at) for b, at in zip(temps, offsets, strict=True)}
    halos = [b for b in first if ctx.buffers[b].kind == "halo" and b not in zeroed]
    for geometry in dict.fromkeys(ctx.buffers[b].halo for b in halos):
        alike = [b for b in halos if ctx.buffers[b].halo == geometry]
        slots: list[int] = []  # last step of the latest user of each slot
        size = -(-ctx.buffers[alike[0]].nbytes // 64) * 64
        for b in sorted(alike, key=lambda b: first[b]):
            slot = next((i for i, end in enumerate(slots) if end < first[b]), len(slots))
            slots[slot:] = [last[b], *slots[slot + 1 :]]
            where[b] = (ARENA, arena + slot * size)
        arena += len(slots) * size
    return calls, where, arena


def _with_borders(ctx: Context, halos: Collection[int]) -> list[Call]:
    """The calls, and before each halo buffer's first use one that zeroes its border.

    It stands one step early: the threads meet between that step and the next anyhow.
    """
    before: dict[int, list[Call]] = {}
    seen: set[int] = set()
    for i, call in enumerate(ctx.calls):
        for b in dict.fromkeys(v.buffer for v in call.args):
            if b in halos and b not in seen:
                seen.add(b)
                outer, pads, dtype = ctx.buffers[b].halo
                view = View(b, 0, outer, contiguous(outer), dtype)  # type: ignore[arg-type]
                kernel = make_border(view.operand, pads)  # type: ignore[arg-type]
                before.setdefault(max(0, i - 1), []).append(Call(kernel, (view,), call.name, ("border",)))
    return [c for i, call in enumerate(ctx.calls) for c in (*before.get(i, ()), call)]


def _clash(a: tuple[int, int, int, bool], b: tuple[int, int, int, bool]) -> bool:
    """Whether two accesses touch common bytes from different threads."""
    return a[0] == b[0] and a[1] < b[2] and b[1] < a[2] and not (a[3] and b[3])


def _blob(buffers: list[tuple[int, Buffer]], out: Array, threads: int) -> Array:
    """The constants one after another in `out`, each on its own cache lines, packed by several threads."""

    def fill(place: tuple[int, Buffer]) -> None:
        at, buffer = place
        assert buffer.make is not None
        made = np.ascontiguousarray(buffer.make())
        assert made.nbytes == buffer.nbytes, "the packed constant has another size than announced"
        if made.nbytes:
            out[at : at + made.nbytes] = made.reshape(-1).view(np.uint8)

    large = [b for b in buffers if b[1].nbytes > 1 << 16]
    if threads > 1 and len(large) > 1:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(fill, sorted(large, key=lambda b: -b[1].nbytes)))
        buffers = [b for b in buffers if b[1].nbytes <= 1 << 16]
    for b in buffers:
        fill(b)
    return out
