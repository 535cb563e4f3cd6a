"""The worker protocol and the engine's process, with a fake engine."""

from __future__ import annotations

import io
import os
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diptych.compare.process import CAN_STOP, EngineError, Process
from diptych.compare.workers import worker

HERE = str(Path(__file__).parent)
X = {"x": np.arange(6, dtype=np.float32).reshape(2, 3)}


def spawn(threads: int = 1) -> Process:
    return Process("fake", [sys.executable], threads=threads, env={"PYTHONPATH": HERE})


def start(process: Process, act: str = "", **more: Any) -> tuple[dict[str, Any], list[np.ndarray]]:
    return process.ask("start", X, adapter="fake_engine", spec={}, threads=1, options={"act": act}, **more)


@pytest.fixture
def fake() -> Iterator[Process]:
    with spawn() as process:
        yield process


def test_frames_carry_arrays_of_any_kind_unchanged(rng: np.random.Generator) -> None:
    arrays = {
        "plain": rng.standard_normal((2, 3)).astype(np.float32),
        "turned": rng.standard_normal((4, 5)).T,
        "scalar": np.array(7, np.int64),
        "empty": np.zeros((0, 3), np.uint8),
        "bool": np.array([True, False]),
    }
    pipe = io.BytesIO()
    worker.send(pipe, {"op": "x", "text": "ü"}, arrays)
    pipe.seek(0)
    header, raw = worker.receive(pipe)
    back = worker.decode(header, raw)
    assert (header["op"], header["text"]) == ("x", "ü")
    assert list(back) == list(arrays)
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype and np.array_equal(back[name], array)
    with pytest.raises(EOFError):
        worker.receive(pipe)


def test_a_cut_frame_and_a_hostile_length_end_the_stream() -> None:
    pipe = io.BytesIO()
    worker.send(pipe, {"op": "x"}, {"a": np.zeros(100)})
    with pytest.raises(EOFError):
        worker.receive(io.BytesIO(pipe.getvalue()[:-1]))
    with pytest.raises(EOFError, match="not a frame"):
        worker.receive(io.BytesIO(struct.pack("<Q", 1 << 60)))


def test_start_answers_with_outputs_phases_and_memory(fake: Process) -> None:
    reply, (y,) = start(fake)
    assert np.array_equal(y, 2 * X["x"])
    assert reply["version"] == np.__version__
    assert all(reply[k] >= 0 for k in ("import_s", "load_s", "first_s"))
    if sys.platform.startswith("linux"):
        # A fresh interpreter with NumPy: tens of megabytes, whatever this process weighs.
        assert 10e6 < reply["memory"]["peak"] < 200e6


def test_threads_are_set_before_the_engine_starts() -> None:
    with spawn(threads=3) as process:
        start(process)
        assert process.ask("facts")[0]["notes"]["omp"] == "3"


def test_size_counts_what_is_installed(fake: Process) -> None:
    start(fake)
    assert fake.ask("facts")[0]["installed"] > 5e6  # NumPy


def test_tune_keeps_the_fastest_variant(fake: Process) -> None:
    start(fake)
    reply, _ = fake.ask("tune", seconds=0.02)
    assert reply["variant"] == "fast" and set(reply["trials"]) == {"slow", "fast"}
    assert 0.001 <= np.median(fake.ask("turn", seconds=0.02)[0]["times"]) < 0.004


def test_evaluate_runs_in_batches_and_cuts_the_last(fake: Process) -> None:
    start(fake)
    samples = np.arange(7, dtype=np.float32)[:, None]
    _, (y,) = fake.ask("evaluate", {"x": samples}, batch=3)
    assert np.array_equal(y, 2 * samples)


def test_what_the_engine_refuses_is_an_error_in_one_line_and_the_process_lives(fake: Process) -> None:
    with pytest.raises(EngineError, match=r"^fake: ValueError: this model is not for me$"):
        start(fake, "refuse")
    assert start(fake)[1]


def test_a_crash_is_an_error_with_the_last_words(fake: Process) -> None:
    with pytest.raises(EngineError, match=r"ended during 'start' \(exit status 3\): last words"):
        start(fake, "crash")


def test_a_hang_is_an_error_and_the_process_is_ended(fake: Process) -> None:
    with pytest.raises(EngineError, match="no answer to 'start' within"):
        start(fake, "hang", timeout=1.0)
    assert fake.child.poll() is not None


@pytest.mark.skipif(not CAN_STOP, reason="this system cannot stop a process")
def test_a_paused_engine_does_nothing_and_goes_on_when_asked(fake: Process) -> None:
    start(fake)
    fake.pause()
    if sys.platform.startswith("linux"):
        deadline = time.monotonic() + 5
        while (state := Path(f"/proc/{fake.child.pid}/stat").read_text().rpartition(")")[2].split()[0]) != "T":
            assert time.monotonic() < deadline, f"state {state}, stopped expected"
    assert fake.ask("run")[1]
    assert not fake.paused


def test_close_ends_a_paused_engine() -> None:
    process = spawn()
    start(process)
    process.pause()
    process.close()
    assert process.child.poll() is not None
    with pytest.raises(ProcessLookupError):
        os.kill(process.child.pid, 0)


def test_short_calls_are_timed_in_groups() -> None:
    calls = 0

    def call() -> None:
        nonlocal calls
        calls += 1

    samples = worker.turn(call, 0.01)
    assert calls > 10 * len(samples)
    assert 0 < float(np.median(samples)) < 1e-4


def test_long_calls_are_timed_one_by_one() -> None:
    samples = worker.turn(lambda: time.sleep(0.002), 0.0)
    assert len(samples) == 3
    assert all(s >= 0.002 for s in samples)
