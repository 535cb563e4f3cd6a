"""Profiler, Estimator, detection, record files, monitors: against MXNet itself where DIPTYCH_MXNET_PYTHON names it."""

from __future__ import annotations

import json
import os
import random
import subprocess
from contextlib import suppress
from pathlib import Path

import feature_programs
import numpy as np
import pytest

import diptych.mxnet as mx
from diptych.mxnet import autograd, gluon, nd, profiler, recordio
from diptych.mxnet.gluon import nn

PYTHON = os.environ.get("DIPTYCH_MXNET_PYTHON", "")
needs_mxnet = pytest.mark.skipif(not PYTHON, reason="DIPTYCH_MXNET_PYTHON names no interpreter with MXNet 1.9.1")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with seven images, a record file of them, and one of detection."""
    Image = pytest.importorskip("PIL.Image")
    rng = np.random.RandomState(0)
    for i in range(7):
        Image.fromarray(rng.randint(0, 256, (40 + i, 60 - i, 3)).astype("u1")).save(tmp_path / f"{i}.png")
    writer = recordio.MXIndexedRecordIO(tmp_path / "a.idx", tmp_path / "a.rec", "w")
    for i in range(7):
        pixels = rng.randint(0, 256, (20 + i, 30 - i, 3)).astype("u1")
        writer.write_idx(i, recordio.pack_img(recordio.IRHeader(0, float(i), i, 0), pixels, img_fmt=".png"))
    writer.close()
    writer = recordio.MXRecordIO(tmp_path / "d.rec", "w")
    for i in range(5):
        pixels = np.zeros((20 + i, 30, 3), "u1")
        pixels[:, :15] = [10 * i, 100, 200]
        label = [4, 5, 30, 20 + i, *(v for k in range(1 + i % 3) for v in (k, 0.1 + 0.1 * k, 0.2, 0.5 + 0.1 * k, 0.7))]
        writer.write(recordio.pack_img(recordio.IRHeader(0, np.array(label, "f"), i, 0), pixels, img_fmt=".png"))
    writer.close()
    return tmp_path


@needs_mxnet
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("program", list(feature_programs.PROGRAMS))
def test_programs_give_what_mxnet_gives(program: str, images: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    target = images / "real.npz"
    done = subprocess.run([PYTHON, feature_programs.__file__, program, str(images), str(target)], capture_output=True, text=True,
                          env=environment, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    ours = feature_programs.PROGRAMS[program](mx, str(images))
    with np.load(target) as theirs:
        assert set(ours) == set(theirs)
        for name in theirs:
            want, got = theirs[name], ours[name]
            assert got.shape == want.shape, name
            if want.dtype.kind == "U":
                assert str(got) == str(want), name
            elif name.endswith("image"):  # each resizing may round to the neighbouring level
                np.testing.assert_allclose(got, want, atol=2.01, err_msg=name)
                assert np.abs(got - want).mean() < 0.3, name
            else:
                np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-5, err_msg=name)


@pytest.fixture
def profiling(tmp_path: Path):
    """The profiler running; the path of its trace."""
    profiler.set_config(profile_all=True, aggregate_stats=True, filename=str(tmp_path / "trace.json"))
    profiler.dumps(reset=True)
    profiler.set_state("run")
    yield tmp_path / "trace.json"
    with suppress(mx.MXNetError):  # the test may have finished the trace itself
        profiler.dump()  # else what is left is written when the process ends, into the folder it runs in
    profiler.set_state("stop")
    profiler.dumps(reset=True)


def test_profiler_counts_operators_and_times_them(profiling: Path) -> None:
    x = nd.ones((50, 50))
    for _ in range(3):
        nd.dot(x, x).wait_to_read()
    with profiler.scope("mine"):
        nd.exp(x).wait_to_read()
    with profiler.Domain("work").new_task("all"):
        pass
    counter = profiler.Domain("work").new_counter("seen", 3)
    counter += 4
    profiler.pause()
    nd.sqrt(x).wait_to_read()
    profiler.resume()
    found = json.loads(profiler.dumps(format="json"))
    times = found["Time"]
    assert times["operator"]["dot"]["Count"] == 3 and times["operator"]["_ones"]["Count"] == 1
    assert times["operator"]["mine:exp"]["Count"] == 1 and "sqrt" not in times["operator"]
    assert times["work"]["all"]["Count"] == 1
    assert times["work"]["seen"] == {"Count": 2, "Total": 0.007, "Min": 0.003, "Max": 0.007, "Avg": 0.002}
    assert found["Memory"]["Device Storage"]["Memory: cpu/0"]["Min"] > 1000
    assert all(0 <= r["Min"] <= r["Avg"] <= r["Max"] <= r["Total"] for r in times["operator"].values())
    table = profiler.dumps(sort_by="count")
    row = next(line for line in table.splitlines() if line.startswith("dot"))
    assert row.split()[1] == "3" and len(row.split()) == 6


def test_the_trace_is_one_json_file_that_grows(profiling: Path) -> None:
    sizes = []
    for name in ("first", "second", "third"):
        event = profiler.Event(name)
        event.start()
        event.stop()
        profiler.dump(finished=False)
        sizes.append(profiling.stat().st_size)
    assert sizes == sorted(set(sizes))
    events = json.loads(profiling.read_text())["traceEvents"]
    spans = [(e["name"], e["ph"]) for e in events if e.get("cat") == "event"]
    assert spans == [(n, p) for n in ("first", "second", "third") for p in "BE"]
    profiler.dump()
    with pytest.raises(mx.MXNetError, match="hasn't been run"):
        profiler.dump()


def test_native_steps_of_a_network_have_the_names_of_its_operators(profiling: Path) -> None:
    net = nn.HybridSequential()
    net.add(nn.Dense(8, activation="relu"), nn.Dense(2))
    net.initialize()
    net.hybridize()
    x = nd.ones((4, 6))
    expected = None
    for _ in range(6):  # in NumPy first, as native code then
        with autograd.record():
            y = net(x).sum()
        y.backward()
        expected = y.asscalar() if expected is None else expected
        assert y.asscalar() == pytest.approx(expected, rel=1e-5)
    names = set(json.loads(profiler.dumps(format="json"))["Time"]["operator"])
    parts = {p for n in names for p in n.split("+")}
    assert {"FullyConnected", "Activation", "_backward_FullyConnected"} <= parts


def test_profiler_refuses_options_it_does_not_know() -> None:
    with pytest.raises(mx.MXNetError, match="no option profile_everything"):
        profiler.set_config(profile_everything=True)
    with pytest.raises(AssertionError, match="sort_by"):
        profiler.dumps(sort_by="name")


def test_record_files_are_read_ahead_only_so_far(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diptych.mxnet.io import image_record

    made: list[int] = []
    true = image_record.decode
    monkeypatch.setattr(image_record, "decode", lambda *a: made.append(1) or true(*a))
    writer = recordio.MXRecordIO(images / "many.rec", "w")
    for i in range(60):
        writer.write(recordio.pack_img(recordio.IRHeader(0, float(i), i, 0), np.full((8, 8, 3), i, "u1"), img_fmt=".png"))
    writer.close()
    batches = mx.io.ImageRecordIter(str(images / "many.rec"), (3, 8, 8), 2, prefetch_buffer=3, preprocess_threads=2)
    first = batches.next()
    assert first.label[0].asnumpy().tolist() == [0, 1]
    batches._pool.shutdown(wait=True)  # whatever was under way has ended
    assert len(made) <= 2 * (1 + 3)


@pytest.mark.parametrize("chunk", [0, 1])
def test_shuffled_records_come_once_each_and_the_same_for_a_seed(images: Path, chunk: int) -> None:
    def epoch(seed: int) -> list[list[float]]:
        batches = mx.io.ImageRecordIter(str(images / "a.rec"), (3, 12, 12), 7, shuffle=True, seed=seed, rand_crop=True, rand_mirror=True,
                                        shuffle_chunk_size=chunk)  # fmt: skip
        b = batches.next()
        assert sorted(b.label[0].asnumpy()) == list(range(7))
        return [b.label[0].asnumpy().tolist(), b.data[0].asnumpy().ravel().tolist()]

    assert epoch(1) == epoch(1) and epoch(1) != epoch(2)


def test_parts_of_a_record_file_share_no_record(images: Path) -> None:
    seen = []
    for part in range(3):
        batches = mx.io.ImageRecordIter(str(images / "a.rec"), (3, 12, 12), 2, num_parts=3, part_index=part)
        seen += [v for b in batches for v in b.label[0].asnumpy()]
    assert len(seen) == len(set(seen)) == 6
    with pytest.raises(mx.MXNetError, match="part_index=3"):
        mx.io.ImageRecordIter(str(images / "a.rec"), (3, 12, 12), 2, num_parts=3, part_index=3)


@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_workers_draw_numbers_of_their_own() -> None:
    class Drawn(gluon.data.Dataset):
        def __len__(self) -> int:
            return 8

        def __getitem__(self, i: int) -> object:
            return np.array([random.random(), np.random.rand(), float(nd.random.uniform(shape=(1,)).asscalar())], "f")

    found = np.concatenate([b.asnumpy() for b in gluon.data.DataLoader(Drawn(), 1, num_workers=2)])
    assert len(set(found.ravel().tolist())) == found.size


def test_damaged_detection_labels_are_errors_that_say_how_they_should_be(images: Path) -> None:
    writer = recordio.MXRecordIO(images / "bad.rec", "w")
    writer.write(recordio.pack_img(recordio.IRHeader(0, np.array([4, 3, 1], "f"), 0, 0), np.zeros((8, 8, 3), "u1"), img_fmt=".png"))
    writer.close()
    with pytest.raises(mx.MXNetError, match="width of an object"):
        mx.io.ImageDetRecordIter(path_imgrec=str(images / "bad.rec"), batch_size=1, data_shape=(3, 8, 8)).next()


def test_policy_gradients_through_drawn_classes() -> None:
    p = nd.array([[0.2, 0.3, 0.5]])
    p.attach_grad()
    with autograd.record():
        drawn, log_probability = nd.sample_multinomial(p * 1, shape=4, get_prob=True)
        total = (log_probability * nd.array([[1, 2, 3, 4]])).sum()
    total.backward()
    expected = np.zeros(3)
    np.add.at(expected, drawn.asnumpy()[0], np.array([1, 2, 3, 4]) / p.asnumpy()[0][drawn.asnumpy()[0]])
    np.testing.assert_allclose(p.grad.asnumpy()[0], expected, rtol=1e-5)


def test_mnist_comes_from_local_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(mx.MXNetError, match="not downloaded"):
        mx.test_utils.get_mnist()
    rng = np.random.RandomState(0)
    for name, n in (("train", 6), ("t10k", 3)):
        (tmp_path / f"{name}-images-idx3-ubyte").write_bytes(bytes(16) + rng.randint(0, 256, n * 784).astype("u1").tobytes())
        (tmp_path / f"{name}-labels-idx1-ubyte").write_bytes(bytes(8) + bytes(range(n)))
    found = mx.test_utils.get_mnist()
    assert found["train_data"].shape == (6, 1, 28, 28) and found["test_label"].tolist() == [0, 1, 2]


def test_loggers_write_mxnets_lines(capsys: pytest.CaptureFixture[str]) -> None:
    logger = mx.log.get_logger("test_loggers", level=mx.log.INFO)
    logger.info("hello")
    assert mx.log.get_logger("test_loggers") is logger and len(logger.handlers) == 1
    line = capsys.readouterr().err
    assert line.startswith("\x1b[32mI") and line.endswith("]\x1b[0m hello\n")
