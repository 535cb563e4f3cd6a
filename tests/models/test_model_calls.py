"""How a Model answers calls: by position and name, other shapes, threads, batches, wrong arguments; saving and opening."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import diptych
from diptych.artifact import read, read_test_vector
from diptych.errors import DiptychError, FormatError, InputError, UnsupportedError
from diptych.frontends.base import Source
from diptych.ir import Graph, TensorType, verify
from diptych.ops import Builder, Conv, Softmax
from diptych.targets.numpy import interpret

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(3)
WEIGHT = RNG.standard_normal((20, 3, 3, 3)).astype(np.float32)
MATRIX = RNG.standard_normal((20, 7)).astype(np.float32)


def network(n: int = 1, size: int = 8) -> Graph:
    """A small convolutional classifier of two inputs: image and mask."""
    g = Builder("network")
    image, gain = g.input("image", TensorType((n, 3, size, size))), g.input("gain", TensorType((n, 1, 1, 1)))
    y = g.emit(Conv((1, 1), ((1, 1), (1, 1)), (1, 1)), g.mul(image, gain), g.constant(WEIGHT), name="stem")
    pooled = g.mean(g.relu(y), (2, 3))
    scores = g.matmul(pooled, g.constant(MATRIX))
    return verify(g.finish({"scores": scores, "share": g.emit(Softmax(1), scores)}))


class AnySize:
    """The network as a source that makes a Graph for any image size and batch."""

    name = "network"
    input_names = ("image", "gain")

    def default_types(self) -> dict[str, TensorType] | None:
        return None

    def graph(self, types: Any) -> Graph:
        n, _, size, _ = types["image"].shape
        return network(n, size)


def inputs(n: int = 1, size: int = 8, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 3, size, size)).astype(np.float32), rng.random((n, 1, 1, 1)).astype(np.float32)


def expected(n: int, size: int, arrays: tuple[Array, ...]) -> list[Array]:
    return list(interpret(network(n, size), dict(zip(("image", "gain"), arrays, strict=True))).values())


def close(got: Any, want: list[Array]) -> None:
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def model() -> diptych.Model:
    return diptych.compile(network(), threads=2)


def test_positions_and_names_are_the_same(model: diptych.Model) -> None:
    image, gain = inputs()
    answer = model(image, gain)
    assert isinstance(answer, tuple)
    close(answer, expected(1, 8, (image, gain)))
    for again in (model(image, gain=gain), model(gain=gain, image=image)):
        for a, b in zip(answer, again, strict=True):
            np.testing.assert_array_equal(a, b)


def test_results_belong_to_the_caller(model: diptych.Model) -> None:
    first = model(*inputs(seed=1))[0]
    kept = first.copy()
    model(*inputs(seed=2))
    np.testing.assert_array_equal(first, kept)
    first[:] = 0  # writable


def test_strided_and_reversed_inputs(model: diptych.Model) -> None:
    image, gain = inputs()
    wide = np.zeros((1, 3, 8, 16), np.float32)
    wide[..., ::2] = image
    flipped = np.ascontiguousarray(image[..., ::-1])[..., ::-1]
    for same in (wide[..., ::2], flipped, np.asfortranarray(image)):
        np.testing.assert_array_equal(model(same, gain)[0], model(image, gain)[0])


def test_nan_and_infinity_pass_through(model: diptych.Model) -> None:
    image, gain = inputs()
    image[0, 0, 0, 0] = np.nan
    assert np.isnan(model(image, gain)[0]).all()
    image[0, 0, 0, 0] = np.inf
    assert not np.isfinite(model(image, gain)[0]).all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m, x, g: m(), "missing"),
        (lambda m, x, g: m(x), "gain"),
        (lambda m, x, g: m(x, g, g), "3 inputs"),
        (lambda m, x, g: m(x, g, image=x), "twice"),
        (lambda m, x, g: m(x, mask=g), "mask"),
        (lambda m, x, g: m(x.astype(np.float64), g), "float64"),
        (lambda m, x, g: m(x[0], g), "image"),
        (lambda m, x, g: m(x[:, :2], g), "image"),
        (lambda m, x, g: m("a picture", g), "image"),
        (lambda m, x, g: m(None, g), "image"),
    ],
)
def test_wrong_calls_name_what_was_expected(model: diptych.Model, call: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        call(model, *inputs())


def test_another_shape_compiles_once_more() -> None:
    model = diptych.compile(AnySize(), {"image": (1, 3, 8, 8), "gain": (1, 1, 1, 1)}, threads=1)
    for n, size in ((1, 8), (2, 8), (1, 5), (2, 8)):
        arrays = inputs(n, size)
        close(model(*arrays), expected(n, size, arrays))
    assert len(model._compiled) == 3
    source: Source = AnySize()
    assert source.name in repr(model)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 11])
def test_dynamic_batch(n: int) -> None:
    model = diptych.compile(AnySize(), {"image": (4, 3, 8, 8), "gain": (4, 1, 1, 1)}, dynamic="batch")
    arrays = inputs(n)
    close(model(*arrays), expected(n, 8, arrays))
    assert len(model._compiled) <= 2


def test_an_empty_batch() -> None:
    model = diptych.compile(AnySize(), {"image": (4, 3, 8, 8), "gain": (4, 1, 1, 1)}, dynamic="batch")
    assert [y.shape for y in model(*inputs(0))] == [(0, 7), (0, 7)]


def test_rows_that_are_not_independent_cannot_be_a_dynamic_batch() -> None:
    g = Builder("mixes")
    x = g.input("x", TensorType((4, 3)))
    graph = g.finish({"y": g.sub(x, g.mean(x, (0,), keepdims=True))})
    with pytest.raises(InputError, match="independent"):
        diptych.compile(graph, dynamic="batch")


def test_many_threads_get_the_answers_of_one(model: diptych.Model) -> None:
    calls = [inputs(seed=s) for s in range(8)]
    alone = [model(*c) for c in calls]
    wrong: list[int] = []
    start = threading.Barrier(8)

    def work(i: int) -> None:
        start.wait()
        for _ in range(100):
            for a, b in zip(model(*calls[i]), alone[i], strict=True):
                if not np.array_equal(a, b):
                    wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(120)
    assert not any(t.is_alive() for t in threads)
    assert wrong == []


def test_one_thread_and_two_agree() -> None:
    arrays = inputs(2, 24)
    one, two = (diptych.compile(network(2, 24), threads=t)(*arrays) for t in (1, 2))
    close(one, list(two))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"precision": "f8"}, UnsupportedError),
        ({"accuracy": "sloppy"}, InputError),
        ({"threads": 0}, InputError),
        ({"target": "vax"}, UnsupportedError),
        ({"dynamic": "height"}, InputError),
        ({"example_inputs": {"picture": (1, 3, 8, 8)}}, InputError),
        ({"example_inputs": ((1, 3, 8, 8),) * 3}, InputError),
        ({"example_inputs": {"image": "large"}}, InputError),
    ],
)
def test_options_are_checked(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        diptych.compile(network(), **options)


def test_missing_types_are_asked_for() -> None:
    with pytest.raises(InputError, match="gain"):
        diptych.compile(AnySize(), {"image": (1, 3, 8, 8)})


def test_the_numpy_target_and_strict_accuracy_agree(model: diptych.Model) -> None:
    arrays = inputs(seed=5)
    for options in ({"target": "numpy"}, {"accuracy": "strict"}):
        close(diptych.compile(network(), **options)(*arrays), list(model(*arrays)))  # type: ignore[arg-type]


def test_describe_names_kernels_and_layers(model: diptych.Model) -> None:
    text = model.describe()
    assert "contract" in text
    assert "stem" in text
    assert "relu" in text


# -- files -----------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "net.diptych"
    diptych.compile(network(), threads=1).save(path)
    return path


def test_what_is_saved_opens_again(model: diptych.Model, saved: Path) -> None:
    again = diptych.open(saved, threads=2)
    assert (again.input_names, again.output_names) == (("image", "gain"), ("scores", "share"))
    for a, b in zip(again(*inputs()), model(*inputs()), strict=True):
        np.testing.assert_array_equal(a, b)
    given_, wanted = read_test_vector(saved)
    close(again(**given_), list(wanted.values()))


def test_saving_over_an_open_model_leaves_it_alone(tmp_path: Path) -> None:
    path = tmp_path / "net.diptych"
    first = diptych.compile(network(), threads=1)
    first.save(path)
    opened = diptych.open(path)
    before = opened(*inputs())
    diptych.compile(network(1, 9)).save(path)
    for a, b in zip(opened(*inputs()), before, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not list(tmp_path.glob("*.tmp"))


def test_a_missing_file_is_a_file_error(tmp_path: Path) -> None:
    with pytest.raises((OSError, DiptychError)):
        diptych.open(tmp_path / "nothing.diptych")


hostile = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@hostile
@given(cut=st.integers(0, 5000), flips=st.lists(st.tuples(st.integers(0, 4000), st.integers(1, 255)), max_size=4))
def test_damaged_files_are_format_errors(saved: Path, tmp_path: Path, cut: int, flips: list[tuple[int, int]]) -> None:
    content = bytearray(saved.read_bytes())
    for at, bits in flips:
        content[at % len(content)] ^= bits
    path = tmp_path / "damaged.diptych"
    path.write_bytes(content[: max(0, len(content) - cut)] if cut % 2 else content)
    try:
        graph = read(path)
    except FormatError as e:
        assert str(path) in str(e) or "line" in str(e)
    else:
        verify(graph)  # the damage hit a weight, a name or blanks


@hostile
@given(
    key=st.sampled_from(["dtype", "shape", "data_offsets"]),
    value=st.sampled_from([None, -1, 2**62, "F32", "F128", [], [2**40, 2**40], [-1, 4], [0, 2**63], [[0]], {}, [1.5, 2]]),
    which=st.integers(0, 10),
)
def test_headers_that_lie_are_format_errors(saved: Path, tmp_path: Path, key: str, value: Any, which: int) -> None:
    content = saved.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    names = [n for n in header if n.startswith("const:")]
    entry = header[names[which % len(names)]]
    if entry[key] == value:
        return
    entry[key] = value
    text = json.dumps(header).encode()
    path = tmp_path / "lies.diptych"
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    with pytest.raises(FormatError):
        read(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 7, b"\0" * 64, b"\xff" * 64, (2**63).to_bytes(8, "little") + b"{}", (2).to_bytes(8, "little") + b"{}",
     (2).to_bytes(8, "little") + b"[]", (4).to_bytes(8, "little") + b"null", (100_000).to_bytes(8, "little") + b"[" * 100_000,
     b"PK\3\4" + b"\0" * 100],
)
def test_other_files_are_format_errors(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.diptych"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"other\.diptych"):
        diptych.open(path)
