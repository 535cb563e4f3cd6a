"""A compiled model ready to run: code, weights and arenas behind one native callable."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from diptych.errors import DiptychError, InputError
from diptych.ir.types import TensorType, numpy_dtype
from diptych.runtime import records as r
from diptych.runtime.convert import check_output, check_updated, overlapping, to_input
from diptych.runtime.link import Linked
from diptych.runtime.loader import advise_huge, load_linked, load_object
from diptych.runtime.native import array_type_address, support
from diptych.runtime.threads import pool_of

__all__ = ["Executable", "aligned_bytes"]

Array = np.ndarray[Any, Any]
Signature = Sequence[tuple[str, TensorType]]

_GIL_WORTH_KEEPING = 1 << 16  # bytes touched: below this a run takes about as long as giving the GIL up and back
_TRIES = 1000  # of other threads taking the arena just made for this one


_HUGE = 1 << 21  # bytes of a huge page


def aligned_bytes(size: int, alignment: int = 64) -> Array:
    """A zeroed uint8 array of `size` bytes whose address is a multiple of `alignment`, on huge pages when large.

    >>> aligned_bytes(100, 128).ctypes.data % 128
    0
    """
    room = size
    if size >= _HUGE:  # 512 times fewer page faults at first touch, and fewer address translations afterwards
        alignment = max(alignment, _HUGE)
        room = -(-size // _HUGE) * _HUGE  # the last page whole too, or it would be many small ones
    whole = np.zeros(room + alignment, np.uint8)
    skip = -whole.ctypes.data % alignment
    if alignment >= _HUGE:
        advise_huge(whole.ctypes.data + skip, room)
    return whole[skip : skip + size]


class _Descriptor(np.ndarray[Any, Any]):
    """The record the native call path reads; being `self` of its builtins, it keeps alive what they need."""

    core: _Core
    fallback: Callable[..., Any]


class _Core:
    """What the calls of one model share. Refers to its descriptor weakly: the builtins own that, and it owns this."""

    def __init__(self, code: bytes | Linked, weights: Array, arena_bytes: int, inputs: Signature, outputs: Signature,
                 updated: Sequence[str] = (), shared: Sequence[Array] = ()) -> None:  # fmt: skip
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self.updated = frozenset(updated)
        self.weights, self.arena_bytes, self.shared = weights, arena_bytes, tuple(shared)
        load = load_linked if isinstance(code, Linked) else load_object
        self.object = load(code, support().symbols)  # type: ignore[arg-type]
        self.pool = pool_of(1)
        self.frames: list[Array] = []
        self.descriptor: Callable[[], _Descriptor | None] = lambda: None

    def describe(self, entry: str, threads: int, release_gil: bool) -> _Descriptor:
        """The descriptor of this model."""
        self.pool = pool_of(threads)
        types = [t for _, t in (*self.inputs, *self.outputs)]
        self._dtypes = [numpy_dtype(t.dtype) for t in types]  # held, as the extents are: the descriptor has addresses
        self._extents = np.array([d for t in types for d in t.shape] or [0], np.int64)
        made = np.zeros((r.D_RECORDS + r.RECORD_BYTES * len(types)) // 8, np.uint64).view(_Descriptor)
        made.core, made.fallback = self, self.slow
        words = {
            0: len(self.inputs),
            r.D_OUTPUTS: len(self.outputs),
            r.D_THREADS: threads,
            r.D_RELEASE_GIL: int(release_gil or threads > 1),
            r.D_RUN: self.object.address(entry),
            r.D_POOL: self.pool.address,
            r.D_FALLBACK: id(made.fallback),
            r.D_NDARRAY: array_type_address(),
        }
        at, extents = r.D_RECORDS, self._extents.ctypes.data
        written = [name in self.updated for name, _ in self.inputs] + [True] * len(self.outputs)
        for t, dtype, write in zip(types, self._dtypes, written):
            words |= {at: dtype.num | (r.FLAGS_OUT if write else r.FLAGS_IN) << 32, at + 8: t.rank, at + 16: extents, at + 24: id(dtype), at + r.RECORD_NBYTES: t.nbytes}
            at, extents = at + r.RECORD_BYTES, extents + 8 * t.rank
        for offset, word in words.items():
            made[offset // 8] = word
        self.descriptor = weakref.ref(made)
        return made

    def add_frame(self, descriptor: _Descriptor) -> None:
        """One more arena, with its context and barrier, onto the free list."""
        n, m = len(self.inputs), len(self.outputs)
        constants = r.FRAME_IO // 8 + n + 2 * m  # shared constants come after the objects of the outputs
        head = -(-(8 * (constants + len(self.shared))) // r.LINE) * r.LINE
        frame = aligned_bytes(head + self.arena_bytes, r.LINE)
        address = frame.ctypes.data
        at = r.FRAME_CTX // 8
        frame[:head].view(np.uint64)[at : at + 4] = (
            address + head,
            self.weights.ctypes.data,
            address + r.FRAME_IO,
            address + r.FRAME_BARRIER,
        )
        frame[:head].view(np.uint64)[constants : constants + len(self.shared)] = [a.ctypes.data for a in self.shared]
        self.frames.append(frame)
        support().give(descriptor.ctypes.data, address)

    def _run(self, builtin: str, arrays: Sequence[Array]) -> Any:
        descriptor = self.descriptor()
        if descriptor is None:
            raise DiptychError("this Executable was taken apart while it was called")
        attempt = support().builtin(builtin, descriptor)
        for _ in range(_TRIES):
            if self.pool.threads > 1 and not self.pool.live:
                self.pool.ensure()
            result = attempt(*arrays)
            if result is not NotImplemented:
                return result
            self.add_frame(descriptor)
        given = ", ".join(f"{a.dtype}{list(a.shape)}" for a in arrays)
        raise DiptychError(f"the native call path refuses ({given}) after conversion: please report this")

    def slow(self, *values: Any) -> Any:
        """The call when something does not fit the fast path: convert, or say precisely what is wrong."""
        return self._run("diptych_try", self.convert(values))

    def convert(self, values: Sequence[Any]) -> list[Array]:
        """The inputs as arrays that the model takes as they are."""
        if len(values) != len(self.inputs):
            expected = ", ".join(f"{name}: {t}" for name, t in self.inputs)
            raise InputError(f"the model takes {len(self.inputs)} inputs ({expected}), {len(values)} were given")
        given: list[Array] = []
        for (name, t), v in zip(self.inputs, values):
            if name in self.updated:
                check_updated(name, t, v)
                if any(overlapping(v, other) for other in given):
                    raise InputError(f"input {name!r} is updated in place and shares memory with another input; give it its own")
                given.append(v)
            else:
                given.append(to_input(name, t, v))
        return given

    def slow_into(self, inputs: Sequence[Any], outputs: Sequence[Array]) -> None:
        """`run_into` with checks and conversion."""
        if len(outputs) != len(self.outputs):
            expected = ", ".join(f"{name}: {t}" for name, t in self.outputs)
            raise InputError(f"the model has {len(self.outputs)} outputs ({expected}), {len(outputs)} arrays were given")
        for (name, t), out in zip(self.outputs, outputs):
            check_output(name, t, out)
        names = [name for name, _ in self.outputs]
        for i, out in enumerate(outputs):
            for j in range(i):
                if overlapping(out, outputs[j]):
                    raise InputError(f"outputs {names[j]!r} and {names[i]!r} share memory; give each its own array")
        arrays = self.convert(inputs)
        for i, ((name, _), a) in enumerate(zip(self.inputs, arrays)):
            if any(overlapping(a, o) for o in outputs):
                if name in self.updated:
                    raise InputError(f"input {name!r} is updated in place and shares memory with an output; give each its own array")
                arrays[i] = a.copy()
        self._run("diptych_into", [*arrays, *outputs])


class Executable:
    """A model as native code. Call it with arrays; any number of threads may do so at once.

    `code` is an ELF object, or several linked by `prelink`, with `void entry(i64 ith, i64 nth, ptr ctx)`, where ctx points to {arena, weights, io,
    barrier_state} and io to the addresses of the inputs, then of the outputs (each aligned to its element only).
    The code may call `diptych_barrier(ctx, nth)` and C library functions. It must run for every nth up to `threads`:
    when the workers are busy with another call it runs alone, with nth = 1. Arenas start zeroed and are reused.
    Inputs named in `updated` (the last ones) are written to: their arrays must be exactly of their types, never converted.
    The addresses of `shared` stand in io after those of inputs and outputs and one more word for each output.

    `call` is the same as calling the object, without the cost of a Python frame.
    """

    def __init__(
        self,
        code: bytes | Linked,
        *,
        entry: str = "diptych_run",
        weights: Array,
        arena_bytes: int,
        inputs: Signature,
        outputs: Signature,
        threads: int = 1,
        parallel: bool = True,
        release_gil: bool | None = None,
        updated: Sequence[str] = (),
        shared: Sequence[Array] = (),
    ) -> None:
        misaligned = weights.size > 0 and weights.ctypes.data % 64 != 0
        if weights.dtype != np.uint8 or weights.ndim != 1 or not weights.flags.c_contiguous or misaligned:
            raise InputError("weights must be one contiguous uint8 array aligned to 64 bytes; see aligned_bytes()")
        if threads < 1 or arena_bytes < 0:
            raise InputError(f"threads={threads} must be at least 1 and arena_bytes={arena_bytes} not negative")
        self.threads = threads if parallel else 1
        if release_gil is None:
            touched = arena_bytes + weights.nbytes + sum(a.nbytes for a in shared)
            touched += sum(t.nbytes for _, t in (*inputs, *outputs))
            release_gil = touched > _GIL_WORTH_KEEPING
        names = [name for name, _ in inputs]
        if list(updated) != names[len(names) - len(updated) :]:
            raise InputError(f"the inputs that are updated, {list(updated)}, must be the last of {names}")
        self._core = _Core(code, weights, arena_bytes, inputs, outputs, updated, shared)
        descriptor = self._core.describe(entry, self.threads, release_gil)
        self.call: Callable[..., Any] = support().builtin("diptych_call", descriptor)
        self._into: Callable[..., Any] = support().builtin("diptych_into", descriptor)

    @property
    def inputs(self) -> tuple[tuple[str, TensorType], ...]:
        """Names and types of the inputs, in call order."""
        return self._core.inputs

    @property
    def outputs(self) -> tuple[tuple[str, TensorType], ...]:
        """Names and types of the outputs."""
        return self._core.outputs

    @property
    def arena_bytes(self) -> int:
        """Scratch memory of one call; there are as many arenas as calls ever ran at once."""
        return self._core.arena_bytes

    @property
    def code_bytes(self) -> int:
        """Memory that the code and its constants take."""
        return self._core.object.size

    @property
    def memory_bytes(self) -> int:
        """Bytes held now: code, weights and the arenas made so far."""
        return self._core.object.size + self._core.weights.nbytes + sum(f.nbytes for f in self._core.frames)

    def __call__(self, *arrays: Any) -> Any:
        """Run the model: one array, or a tuple when there are several outputs."""
        return self.call(*arrays)

    def run_into(self, inputs: Sequence[Any], outputs: Sequence[Array]) -> None:
        """Run the model and write the results into `outputs`, which must have the exact types."""
        if len(outputs) != len(self._core.outputs) or self._into(*inputs, *outputs) is NotImplemented:
            self._core.slow_into(inputs, outputs)

    def __repr__(self) -> str:
        def listed(signature: Signature) -> str:
            return ", ".join(f"{name}: {t}" for name, t in signature)

        return f"Executable({listed(self.inputs)} -> {listed(self.outputs)}; threads={self.threads})"
