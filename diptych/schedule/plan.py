"""Kernel calls -> Plan: memory places, which steps one thread does alone, where the threads must meet."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING

from diptych.ir.kernel import Kernel, Step
from diptych.ir.types import TensorType, itemsize
from diptych.kernels.border import make_border
from diptych.schedule.context import Call
from diptych.schedule.memory import Interval, lives, most_alive, place
from diptych.schedule.views import View, contiguous

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from diptych.ir import Array
    from diptych.schedule.context import Buffer, Context

__all__ = ["ARENA", "SCRATCH", "WEIGHTS", "Constants", "Plan", "make_plan"]

Where = tuple[int, int]  # buffer number of a Step, byte offset
ARENA, WEIGHTS = 0, 1  # buffer numbers of a Step; inputs follow from 2 on, then outputs
SCRATCH = 64
# Zeroing borders anew costs a little time: of buffers from this many bytes on, the fewest that make the arena small enough.
_ZEROED = (1 << 16, 0)
_ENOUGH = 1.05, 1 << 18  # times the bytes alive, or bytes more than that
_SHARED = 1 << 15  # bytes of a constant that programs share
_LARGE = 1 << 16  # bytes of a constant that is packed by any thread
SERIAL_NS = 2500.0  # a step this short is not worth waking a second thread for
_BORDER_NS = 300.0  # but zeros no thread waits for are shared out sooner


class Constants:
    """The constants of a plan, packed for its kernels when they are first asked for; each source is let go when it is."""

    def __init__(self, parts: list[tuple[int, Buffer]], nbytes: int, allocate: Callable[[int], Array], threads: int) -> None:
        self.nbytes = nbytes
        self._parts, self._allocate, self._threads = parts, allocate, threads
        self._made: Array | None = None

    @property
    def array(self) -> Array:
        """All of them in one array of bytes."""
        return self.pack()

    def pack(self, after: Callable[[], None] = lambda: None) -> Array:
        """The same; `after` is called now and then while they are packed, when some sources are not needed any more."""
        if self._made is None:
            self._made = _blob(self._parts, self._allocate(self.nbytes), self._threads, after)
            self._parts = []
        return self._made


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything the native code of a model is made from, and what the runtime needs to call it."""

    kernels: tuple[Kernel, ...]
    steps: tuple[Step, ...]
    arena_bytes: int
    scratch_offset: int  # per-thread scratch lies at the end of the arena
    scratch_bytes: int
    alive_bytes: int  # the largest sum of live tensors: what no placement can be smaller than
    inputs: tuple[tuple[str, TensorType], ...]
    outputs: tuple[tuple[str, TensorType], ...]
    constants: Constants = field(compare=False, repr=False)
    fused: tuple[tuple[str, ...], ...] = ()  # per step, the operators in it
    notes: tuple[tuple[str, ...], ...] = ()  # per step, why it is done this way
    updated: tuple[str, ...] = ()  # inputs that are written to, the last ones
    shared: tuple[Buffer, ...] = field(default=(), compare=False, repr=False)  # constants that are not among `constants`
    choices: tuple[tuple[str, ...], ...] = ()  # per step, the keys of the options that were taken for it
    offered: Mapping[str, tuple[str, ...]] = field(default_factory=dict, compare=False, repr=False)  # by key, the default first

    @property
    def weights(self) -> Array:
        """The packed constants, as bytes."""
        return self.constants.array

    @property
    def over_bound(self) -> float:
        """By which part the tensors' share of the arena (all but scratch) is larger than what lives at the same time."""
        return self.scratch_offset / self.alive_bytes - 1 if self.alive_bytes else 0.0

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


def make_plan(ctx: Context, threads: int, allocate: Callable[[int], Array], share: bool = False) -> Plan:
    """Place the buffers of a lowered graph and order its steps for `threads` threads.

    `allocate(size)` gives the aligned, zeroed bytes that the weights are packed into. With `share`, each large constant
    has a buffer number of its own instead, after those of inputs, outputs and the outputs' objects.
    """
    alive = most_alive(_tensors(ctx))
    enough = max(_ENOUGH[0] * alive, alive + _ENOUGH[1])
    calls, where, arena = _arena(ctx, ctx.calls)
    for least in _ZEROED:
        if arena <= enough:
            break
        zeroed = {b for call in ctx.calls for b in (v.buffer for v in call.args)
                  if ctx.buffers[b].kind == "halo" and ctx.buffers[b].nbytes >= least}  # fmt: skip
        other = _arena(ctx, _with_borders(ctx, zeroed), zeroed)
        if other[2] < arena:
            calls, where, arena = other
    first = {view.buffer for call in calls for view in call.args}
    blob: list[tuple[int, Buffer]] = []
    shared: list[Buffer] = []
    size = 0
    after = 2 + len(ctx.graph.inputs) + 2 * len(ctx.returned)
    for b, buffer in enumerate(ctx.buffers):
        if buffer.kind == "weights" and b in first and share and buffer.nbytes >= _SHARED:
            where[b] = (after + len(shared), 0)
            shared.append(buffer)
        elif buffer.kind == "weights" and b in first:
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
    open_reads: list[_Access] = []  # since the last barrier
    open_writes: list[_Access] = []
    for call in calls:
        k = call.kernel
        rim = k.kind == "border"
        serial = threads == 1 or k.work == 1 or k.cost < (_BORDER_NS if rim else SERIAL_NS)
        args: list[tuple[int, int]] = []
        reads: list[_Access] = []
        writes: list[_Access] = []
        for j, view in enumerate(call.args):
            at, base = where[view.buffer]
            args.append((at, base + view.byte_offset))
            low, high = view.extent()
            written = j >= len(call.args) - k.outputs
            (writes if written else reads).append(_Access(at, base + low, base + high, serial, view.buffer, rim))
        barrier = any(_clash(a, b) for a in writes for b in open_reads) or any(
            _clash(a, b) for a in reads for b in open_writes
        ) or any(_clash(a, b) and not _rim_and_inside(a, b) for a in writes for b in open_writes)  # fmt: skip
        if barrier:
            open_reads, open_writes = [], []
        open_reads += [r for r in reads if r.place != WEIGHTS and r.place < after]
        open_writes += writes
        steps.append(Step(kernels.setdefault(k, len(kernels)), tuple(args), serial, barrier, call.name))
    graph = ctx.graph
    return Plan(
        tuple(kernels), tuple(steps), arena + threads * scratch, arena, scratch, alive,
        tuple((name, graph.types[v]) for name, v in zip(graph.input_names, graph.inputs, strict=True)),
        tuple((graph.output_names[j], graph.types[graph.outputs[j]]) for j in ctx.returned),
        constants, tuple(c.fused for c in calls), tuple(c.notes for c in calls), ctx.updated, tuple(shared),
        tuple(c.choices for c in calls), ctx.offered,
    )  # fmt: skip


def _touches(ctx: Context, calls: list[Call]) -> dict[int, list[tuple[int, int, int]]]:
    """By temporary: which of its bytes (from, to) are touched at which step."""
    found: dict[int, list[tuple[int, int, int]]] = {}
    for i, call in enumerate(calls):
        for view in call.args:
            if ctx.buffers[view.buffer].kind in ("temp", "halo"):
                found.setdefault(view.buffer, []).extend((low, high, i) for low, high in view.extents())
    return found


def _tensors(ctx: Context) -> list[tuple[Interval, ...]]:
    """The lives of all temporaries, borders not counted: these are of our own making."""
    found = []
    for b, touches in _touches(ctx, ctx.calls).items():
        parts, buffer = lives(touches, ctx.buffers[b].nbytes), ctx.buffers[b]
        if buffer.halo is not None:
            parts = tuple(Interval(int(p.nbytes * buffer.halo.inside), p.first, p.last) for p in parts)
        found.append(parts)
    return found


def _arena(ctx: Context, calls: list[Call], zeroed: Collection[int] = ()) -> tuple[list[Call], dict[int, Where], int]:
    """Where the temporaries of `calls` lie, and how much memory that is.

    Halo buffers share memory only with others of the same geometry, so that nothing ever writes on a border, except
    those in `zeroed`: `calls` zero their borders.
    """
    touches = _touches(ctx, calls)
    temps = [b for b in touches if ctx.buffers[b].kind == "temp" or b in zeroed]
    offsets, arena = place([lives(touches[b], ctx.buffers[b].nbytes) for b in temps])
    where = {b: (ARENA, at) for b, at in zip(temps, offsets, strict=True)}
    halos = [b for b in touches if ctx.buffers[b].kind == "halo" and b not in zeroed]
    first = {b: min(step for *_, step in touches[b]) for b in halos}
    last = {b: max(step for *_, step in touches[b]) for b in halos}
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
    """The calls, and before the first use of each plane (a block of channels of an image) of these halo buffers one that
    zeroes its border."""
    found: list[Call] = []
    bare: dict[int, set[int]] = {}
    for call in ctx.calls:
        for view in call.args:
            if view.buffer not in halos:
                continue
            halo = ctx.buffers[view.buffer].halo
            assert halo is not None
            plane = prod(halo.outer[2:])
            nbytes = plane * itemsize(halo.dtype)
            left = bare.setdefault(view.buffer, set(range(halo.outer[0] * halo.outer[1])))
            low, high = view.extent()
            planes = sorted(left & set(range(low // nbytes, -(-high // nbytes))))
            left.difference_update(planes)
            for first, count in _runs(planes):
                shape = (1, count, *halo.outer[2:])
                whole = View(view.buffer, first * plane, shape, contiguous(shape), halo.dtype)
                kernel = make_border(whole.operand, halo.pads)
                found.append(Call(kernel, (whole,), call.name, ("border",)))
        found.append(call)
    return found


def _runs(numbers: list[int]) -> list[tuple[int, int]]:
    """Ascending numbers as runs: (first, how many)."""
    found: list[tuple[int, int]] = []
    for n in numbers:
        if found and sum(found[-1]) == n:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((n, 1))
    return found


@dataclass(frozen=True, slots=True)
class _Access:
    """Bytes of a place (a buffer number of a Step) that a step touches on behalf of a buffer of the lowering."""

    place: int
    low: int
    high: int
    serial: bool
    buffer: int
    rim: bool  # only the border of the buffer


def _clash(a: _Access, b: _Access) -> bool:
    """Whether two accesses touch common bytes from different threads."""
    return a.place == b.place and a.low < b.high and b.low < a.high and not (a.serial and b.serial)


def _rim_and_inside(a: _Access, b: _Access) -> bool:
    """Whether two writes have no byte in common because one zeroes the border of the buffer and one makes its content."""
    return a.buffer == b.buffer and a.rim != b.rim


def _blob(buffers: list[tuple[int, Buffer]], out: Array, threads: int, after: Callable[[], None]) -> Array:
    """The constants one after another in `out`, each on its own cache lines, packed by several threads."""

    def fill(place: tuple[int, Buffer]) -> None:
        at, buffer = place
        assert buffer.fill is not None
        for _ in buffer.fill(out[at : at + buffer.nbytes]) or ():
            after()
        buffer.fill = None  # and with it its source
        if buffer.nbytes > _LARGE:
            after()

    large = [b for b in buffers if b[1].nbytes > _LARGE]
    if threads > 1 and len(large) > 1:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(fill, sorted(large, key=lambda b: -b[1].nbytes)))
        buffers = [b for b in buffers if b[1].nbytes <= _LARGE]
    for b in buffers:
        fill(b)
    after()
    return out
