"""How many threads to use, and the pool of workers that all models of one thread count share."""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from diptych.errors import InputError
from diptych.runtime import records as r
from diptych.runtime.native import support

__all__ = ["Pool", "cpu_count", "pool_of", "spread"]

T = TypeVar("T")
R = TypeVar("R")

_SPIN_SECONDS = 100e-6  # how long an idle worker spins before it sleeps: a wake-up costs about 50 us


def cpu_count() -> int:
    """Threads to use by default: $DIPTYCH_NUM_THREADS, else $OMP_NUM_THREADS, else the physical cores we may use.

    The cores are those of the process's affinity mask, no more than the control group's CPU quota.
    """
    for name in ("DIPTYCH_NUM_THREADS", "OMP_NUM_THREADS"):
        text = os.environ.get(name, "").strip()
        if text:
            first = text.split(",")[0].strip()  # OpenMP allows a list, one number per nesting level
            if first.isdecimal() and int(first) > 0:
                return int(first)
            raise InputError(f"{name}={text!r} is not a positive number; unset it or set it to the number of threads")
    return _available_cores()


@functools.cache
def _available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        cpus = os.sched_getaffinity(0)
    else:
        cpus = set(range(os.cpu_count() or 1))
    cores = {_core_of(cpu) for cpu in cpus}
    return max(1, min(len(cores), _quota("/proc/self/cgroup", "/sys/fs/cgroup")))


def _core_of(cpu: int) -> str:
    """A name shared by the hardware threads of one core: two of them on one vector unit gain nothing."""
    try:
        return _read(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    except OSError:
        return f"cpu {cpu}"


def _read(path: str) -> str:
    with open(path) as f:
        return f.read()


def _quota(membership: str, root: str) -> int:
    """Whole CPUs that cgroup v2 grants this process (the smallest on the way up); a large number when unlimited."""
    limit = 1 << 30
    try:
        lines = _read(membership).splitlines()
    except OSError:
        return limit
    for line in lines:
        if not line.startswith("0::/"):
            continue
        folder = os.path.join(root, line[4:]).rstrip("/")
        while True:
            try:
                quota, period = _read(os.path.join(folder, "cpu.max")).split()
                if quota != "max":
                    limit = min(limit, max(1, int(quota) // int(period)))
            except (OSError, ValueError, ZeroDivisionError):
                pass
            if len(folder) <= len(root):
                break
            folder = os.path.dirname(folder)
    return limit


def spread(work: Callable[[T], R], items: Sequence[T], threads: int) -> list[R]:
    """[work(i) for i in items] by several threads, for work that releases the GIL; the first exception is raised.

    (concurrent.futures imports logging, which takes longer than some starts.)

    >>> spread(len, ["a", "bc"], 2)
    [1, 2]
    """
    if threads <= 1 or len(items) < 8:
        return [work(i) for i in items]
    results: dict[int, R] = {}
    problems: list[BaseException] = []
    ahead = iter(range(len(items)))  # next() of one iterator is atomic under the GIL

    def share() -> None:
        try:
            for i in ahead:
                results[i] = work(items[i])
        except BaseException as e:
            problems.append(e)

    helpers = [threading.Thread(target=share) for _ in range(threads - 1)]
    for t in helpers:
        t.start()
    share()
    for t in helpers:
        t.join()
    if problems:
        raise problems[0]
    return [results[i] for i in range(len(items))]


class Pool:
    """`threads - 1` parked workers and one caller at a time; who finds the pool busy runs alone."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        memory = np.zeros(r.POOL_BYTES + r.LINE, np.uint8)
        # Workers look at this memory until the process is gone, whatever the interpreter has torn down before.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(memory))
        self.address = -(-memory.ctypes.data // r.LINE) * r.LINE
        self._workers: list[threading.Thread] = []
        self._stopped = False

    def _set(self, offset: int, value: int) -> None:
        ctypes.c_int32.from_address(self.address + offset).value = value

    @property
    def live(self) -> bool:
        """Whether the workers were started (or given up on: then every run is serial)."""
        return bool(ctypes.c_int32.from_address(self.address + r.POOL_LIVE).value)

    def ensure(self) -> None:
        """Start the workers if they do not run yet."""
        with _lock:
            if self.live:
                return
            native = support()
            self._set(r.POOL_SPIN, self._spins())
            self._allow_moves()
            try:
                for ith in range(1, self.threads):
                    worker = threading.Thread(
                        target=native.worker, args=(self.address, ith), name=f"diptych-{ith}", daemon=True
                    )
                    worker.start()
                    self._workers.append(worker)
            except BaseException as problem:
                # No more threads, the interpreter is ending, or Ctrl-C: how many started is not known. The pool stays
                # shut and runs are serial, which is slower but right.
                native.stop(self.address)
                self._stopped = True
                self._set(r.POOL_LIVE, 1)
                if not isinstance(problem, RuntimeError):
                    raise
            self._set(r.POOL_LIVE, 1)

    def _allow_moves(self) -> None:
        """Tell the workers which CPUs there are, if there is one for each thread (see `part` in support_ir)."""
        cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
        mask = sum(1 << cpu for cpu in cpus if cpu < 8 * r.CPUS_BYTES)
        (ctypes.c_char * r.CPUS_BYTES).from_address(self.address + r.POOL_CPUS).raw = mask.to_bytes(r.CPUS_BYTES, "little")
        self._set(r.POOL_MOVES, int(len(cpus) >= self.threads > 1))

    def _spins(self) -> int:
        if self.threads > _available_cores():
            return 64  # more threads than cores: sleep early, others need the core
        n = 2000
        begin = time.perf_counter()
        support().spin(n)
        return max(64, min(1 << 20, int(n * _SPIN_SECONDS / max(time.perf_counter() - begin, 1e-7))))

    def stop(self, seconds: float = 1.0) -> None:
        """Send the workers home (at exit); runs that follow are serial."""
        end = time.monotonic() + seconds
        while self.live and not self._stopped:
            if support().stop(self.address):
                self._stopped = True
                for worker in self._workers:
                    worker.join(max(0.0, end - time.monotonic()))
            elif time.monotonic() > end:  # a daemon thread is inside a long run: leave it to the end of the process
                return
            else:
                time.sleep(0.001)

    def after_fork(self) -> None:
        """In the child no worker exists: forget them; the next parallel run starts new ones."""
        if not self._stopped:
            ctypes.memset(self.address, 0, r.POOL_BYTES)
        self._workers = []


_lock = threading.Lock()
_pools: dict[int, Pool] = {}


def pool_of(threads: int) -> Pool:
    """The pool for runs of `threads` threads."""
    with _lock:
        if threads not in _pools:
            _pools[threads] = Pool(threads)
        return _pools[threads]


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()
    _available_cores.cache_clear()
    for pool in _pools.values():
        pool.after_fork()


def _at_exit() -> None:
    for pool in list(_pools.values()):
        pool.stop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
