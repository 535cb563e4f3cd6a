"""How many threads are used, and the pool when threads cannot be had."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from objects import add_ir, barriers_ir, compile_ir

from diptych.errors import InputError
from diptych.ir.types import TensorType
from diptych.runtime import Executable, Pool, aligned_bytes, cpu_count, pool_of
from diptych.runtime import threads as threads_module


def test_the_environment_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIPTYCH_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "5,2")
    assert cpu_count() == 5
    monkeypatch.setenv("DIPTYCH_NUM_THREADS", "3")
    assert cpu_count() == 3
    for bad in ("0", "-1", "many", "2.5"):
        monkeypatch.setenv("DIPTYCH_NUM_THREADS", bad)
        with pytest.raises(InputError, match="DIPTYCH_NUM_THREADS"):
            cpu_count()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs affinity masks")
def test_the_affinity_mask_is_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIPTYCH_NUM_THREADS", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = os.sched_getaffinity(0)
    threads_module._available_cores.cache_clear()
    try:
        assert 1 <= cpu_count() <= len(before)
        os.sched_setaffinity(0, {min(before)})
        threads_module._available_cores.cache_clear()
        assert cpu_count() == 1
    finally:
        os.sched_setaffinity(0, before)
        threads_module._available_cores.cache_clear()


def test_the_cgroup_quota_is_a_limit(tmp_path: Path) -> None:
    membership, root = tmp_path / "self", tmp_path / "fs"
    leaf = root / "a" / "b"
    leaf.mkdir(parents=True)
    membership.write_text("1:name=systemd:/x\n0::/a/b\n")

    def quota() -> int:
        return threads_module._quota(str(membership), str(root))

    assert quota() > 1000
    (leaf / "cpu.max").write_text("max 100000\n")
    assert quota() > 1000
    (root / "a" / "cpu.max").write_text("350000 100000\n")
    assert quota() == 3
    (leaf / "cpu.max").write_text("50000 100000\n")
    assert quota() == 1
    (leaf / "cpu.max").write_text("garbage\n")
    assert quota() == 3
    membership.write_text("0::/\n")
    assert quota() > 1000
    (root / "cpu.max").write_text("200000 100000\n")
    assert quota() == 2
    assert threads_module._quota(str(tmp_path / "absent"), str(root)) > 1000


def _team(threads: int) -> Executable:
    return Executable(
        compile_ir(barriers_ir(10)), weights=aligned_bytes(0), arena_bytes=64, inputs=[],
        outputs=[("count", TensorType((2,), "i64"))], threads=threads,
    )  # fmt: skip


def test_models_of_one_thread_count_share_their_workers() -> None:
    first, second = _team(2), _team(2)
    assert first().tolist() == second().tolist() == [10, 2]
    workers = [t for t in threading.enumerate() if t in pool_of(2)._workers]
    assert len(workers) == 1


def test_a_serial_model_starts_no_workers() -> None:
    before = threading.active_count()
    model = Executable(
        compile_ir(barriers_ir(10)), weights=aligned_bytes(0), arena_bytes=64, inputs=[],
        outputs=[("count", TensorType((2,), "i64"))], threads=7, parallel=False,
    )  # fmt: skip
    assert model().tolist() == [10, 1]
    assert threading.active_count() == before


def _refuse_second_start(monkeypatch: pytest.MonkeyPatch, problem: BaseException) -> None:
    start = threading.Thread.start
    started: list[Any] = []

    def limited(self: threading.Thread) -> None:
        if started:
            raise problem
        started.append(self)
        start(self)

    monkeypatch.setattr(threading.Thread, "start", limited)


@pytest.mark.parametrize("problem", [RuntimeError("can't start new thread"), KeyboardInterrupt()])
def test_without_threads_runs_are_serial(monkeypatch: pytest.MonkeyPatch, problem: BaseException) -> None:
    monkeypatch.setitem(threads_module._pools, 5, Pool(5))
    model = _team(5)
    with monkeypatch.context() as patch:
        _refuse_second_start(patch, problem)
        if isinstance(problem, RuntimeError):
            assert model().tolist() == [10, 1]
        else:
            with pytest.raises(KeyboardInterrupt):
                model()
    assert model().tolist() == [10, 1]
    for worker in pool_of(5)._workers:
        worker.join(10)
        assert not worker.is_alive()
    assert np.array_equal(model(), [10, 1])


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no thread affinity here")
def test_a_worker_leaves_the_cpu_of_its_caller() -> None:
    """Woken there by the system, it would share one core with the thread that waits for it."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        pytest.skip("one CPU only")
    run = Executable(
        compile_ir(add_ir(1000)), weights=aligned_bytes(0), arena_bytes=4000,
        inputs=[("a", TensorType((1000,))), ("b", TensorType((1000,)))], outputs=[("c", TensorType((1000,)))], threads=2,
    )  # fmt: skip
    a, b = np.arange(1000, dtype=np.float32), np.ones(1000, np.float32)
    run(a, b)
    (worker,) = pool_of(2)._workers
    try:
        os.sched_setaffinity(0, {cpus[0]})  # of this thread
        os.sched_setaffinity(worker.native_id, {cpus[0]})
        for _ in range(3):
            np.testing.assert_array_equal(run(a, b), a + b)
        assert os.sched_getaffinity(worker.native_id) == set(cpus[1:])
    finally:
        os.sched_setaffinity(0, set(cpus))
