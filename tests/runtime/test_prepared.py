"""Linking several objects, and prepared models in the cache: what comes back is what was put there, or nothing."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from objects import compile_ir

import diptych
from diptych.errors import FormatError, InputError
from diptych.fingerprint import of_file, of_graph
from diptych.ir import TensorType
from diptych.ops.build import Builder
from diptych.runtime.cache import ObjectCache, parse_size
from diptych.runtime.elf import parse_object
from diptych.runtime.executable import aligned_bytes
from diptych.runtime.link import Linked, merge, prelink
from diptych.runtime.loader import load_linked
from diptych.runtime.prepared import Prepared, keep, recall

CALLER = """
declare i64 @square(i64)
declare i64 @outside(i64)
declare ptr @memset(ptr, i32, i64)
@pointer = constant ptr @twice
@counter = global i64 5
define i64 @twice(i64 %x) {
  %r = add i64 %x, %x
  ret i64 %r
}
define i64 @entry(i64 %x) {
  %a = call i64 @square(i64 %x)
  %b = call i64 @outside(i64 %a)
  %f = load volatile ptr, ptr @pointer
  %c = call i64 %f(i64 %b)
  %n = load i64, ptr @counter
  %d = add i64 %c, %n
  store i64 %d, ptr @counter
  ret i64 %d
}
"""
CALLED = """
@table = internal constant [4 x i64] [i64 1, i64 2, i64 3, i64 4]
define i64 @square(i64 %x) {
  %i = and i64 %x, 3
  %p = getelementptr [4 x i64], ptr @table, i64 0, i64 %i
  %t = load i64, ptr %p
  %s = mul i64 %x, %x
  %r = add i64 %s, %t
  ret i64 %r
}
"""
Call = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)


def linked(arch: str = "") -> Linked:
    return prelink([parse_object(compile_ir(text, arch)) for text in (CALLER, CALLED)])


def test_objects_call_each_other_and_the_outside_wherever_they_lie() -> None:
    code = linked()
    outside = Call(lambda x: x + 1000)
    address = ctypes.cast(outside, ctypes.c_void_p).value
    assert address
    loaded = [load_linked(code, {"outside": address}) for _ in range(3)]
    assert len({o.address("entry") for o in loaded}) == 3
    for o in loaded:  # each has variables of its own
        entry = Call(o.address("entry"))
        assert entry(6) == 2 * (36 + 3 + 1000) + 5
        assert entry(0) == 2 * (1 + 1000) + 2083


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_addresses_are_all_in_the_list_of_fixups(arch: str) -> None:
    """Linked at two addresses, the images differ in the words listed and nowhere else."""
    from diptych.runtime.link import Layout, link

    obj = merge([parse_object(compile_ir(text, arch)) for text in (CALLER, CALLED)])
    layout = Layout(obj)
    names = {"outside": 0x11110, "memset": 0x22220}
    one = link(obj, layout, 0x4000_0000, lambda name: names[name])
    two = link(obj, layout, 0x5555_0000_0000, lambda name: names[name])
    a, b = (np.frombuffer(bytes(image.data), np.uint8) for image in (one, two))
    places = {at + i for at, _, _ in one.fixups for i in range(8)}
    assert set(np.flatnonzero(a != b).tolist()) <= places
    assert {name for _, name, _ in one.fixups} == {"outside", ""}


def test_what_cannot_be_linked_says_so() -> None:
    twice = parse_object(compile_ir(CALLED))
    with pytest.raises(FormatError, match="'square' is defined by two"):
        prelink([twice, twice])
    other = "aarch64" if platform.machine().lower() in ("x86_64", "amd64") else "x86_64"
    with pytest.raises(FormatError, match="different machines"):
        prelink([twice, parse_object(compile_ir(CALLED, other))])
    with pytest.raises(FormatError, match="'outside'"):
        load_linked(linked())


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="32-bit addresses exist on x86-64 only")
def test_code_bound_to_addresses_is_refused() -> None:
    with pytest.raises(FormatError, match="reloc='pic'"):
        prelink([parse_object(compile_ir(CALLED, reloc="static"))])


def sample(weights: int = 3 << 20) -> Prepared:
    blob = aligned_bytes(weights)
    blob[:] = np.arange(weights, dtype=np.uint8)
    types = (("x", TensorType((2, 3))), ("é", TensorType((), "i64")))
    return Prepared("net", types, types[:1], 128, 2, linked(), blob)


@pytest.mark.parametrize("weights", [0, 100, (1 << 20) + 1, 9 << 20])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_prepared_model_comes_back_whole(tmp_path: Path, weights: int, workers: int) -> None:
    cache, made = ObjectCache(tmp_path / "c"), sample(weights)
    assert recall(cache, "k") is None
    assert keep(cache, "k", made, workers)
    again = recall(cache, "k", workers)
    assert again is not None
    assert again[:6] == made[:6]
    np.testing.assert_array_equal(again.weights, made.weights)
    assert recall(cache, "other", workers) is None


@pytest.mark.parametrize("at", [0, 10, 41, 60, 600, 5000, -5000, -1])
@pytest.mark.parametrize("damage", ["flip", "truncate", "other key"])
def test_a_damaged_one_is_a_miss_and_removed(tmp_path: Path, at: int, damage: str) -> None:
    cache = ObjectCache(tmp_path / "c")
    assert keep(cache, "k", sample())
    (file,) = (tmp_path / "c").iterdir()
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[at] ^= 1
    elif damage == "truncate":
        del content[at:]
    else:
        keep(cache, "z", sample(10))
        (other,) = (f for f in (tmp_path / "c").iterdir() if f != file)
        content = bytearray(other.read_bytes())
    file.write_bytes(content)
    made = recall(cache, "k")
    padding = damage == "flip" and made is not None
    if padding:  # the bytes between code and weights mean nothing
        assert made is not None
        np.testing.assert_array_equal(made.weights, sample().weights)
    else:
        assert made is None
        assert not file.exists()


def network(scale: float = 1.0, name: str = "net") -> diptych.Graph:
    rng = np.random.default_rng(0)
    g = Builder(name)
    x = g.input("x", TensorType((4, 64)))
    for _ in range(3):
        w = (rng.standard_normal((64, 64)) * scale).astype(np.float32)
        x = g.relu(g.matmul(x, g.constant(w)))
    return g.finish({"y": x})


def test_content_is_what_counts() -> None:
    assert of_graph(network()) == of_graph(network())
    assert len({of_graph(network()), of_graph(network(2.0)), of_graph(network(name="other"))}) == 3


FRESH = """
import sys
import numpy as np
import diptych
model = diptych.open(sys.argv[1])
y = model(np.ones((4, 64), np.float32))
np.save(sys.argv[2], y)
print(sorted(m for m in sys.modules if m.startswith(("llvmlite", "diptych.ops", "diptych.kernels", "diptych.passes"))))
print(repr(model), model.threads, len(model.graph.nodes), model.plan is not None)
"""


def test_a_second_start_imports_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path / "cache"))
    model = diptych.compile(network())
    model.save(tmp_path / "m.diptych")
    expected = model(np.ones((4, 64), np.float32))
    for first in (True, False):
        done = subprocess.run(
            [sys.executable, "-c", FRESH, str(tmp_path / "m.diptych"), str(tmp_path / "y.npy")], capture_output=True,
            text=True, check=True, cwd=Path(diptych.__file__).parents[1],
        )  # fmt: skip
        imported, shown = done.stdout.splitlines()
        assert (imported == "[]") is not first
        assert shown.startswith("Model(net: (x: f32[4,64]) -> (y: f32[4,64]))")
        assert shown.endswith("True")
        np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), expected)


def test_a_changed_file_is_another_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path / "cache"))
    x = np.ones((4, 64), np.float32)
    path = tmp_path / "m.diptych"
    results = []
    for scale in (1.0, 2.0):
        diptych.compile(network(scale)).save(path)
        os.utime(path, (1, 1))  # not even the time of change that users can set gives it away
        results += [diptych.open(path)(x) for _ in range(2)]
        np.testing.assert_array_equal(results[-1], results[-2])
    assert not np.allclose(results[0], results[2])


def test_a_file_is_read_once_when_it_has_settled(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path / "c")
    path = tmp_path / "f"
    path.write_bytes(b"x" * 100)
    with path.open("rb", buffering=0) as f:
        fresh = of_file(f, cache)
        assert cache.entries() == []  # changed just now
        assert of_file(f, cache) == fresh
    path.write_bytes(b"y" * 100)
    with path.open("rb", buffering=0) as f:
        assert of_file(f, cache) != fresh


def test_sizes() -> None:
    assert [parse_size(t) for t in ("7", "2k", "1.5M", "3GB", " 1T ")] == [7, 2048, 3 << 19, 3 << 30, 1 << 40]
    for bad in ("", "M", "-1", "many", "nan", "inf"):
        with pytest.raises(InputError, match="size"):
            parse_size(bad)
