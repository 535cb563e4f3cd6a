"""Feed damaged files to every reader: each input must give a value or one FormatError, soon and in little memory.

Run it for as long as you like: ``python tests/fuzz/fuzz_formats.py --seconds 30``. With atheris installed, ``--atheris``
lets coverage guide the mutations; without it, or by default, a random driver mutates the valid files of ``samples.py``.
"""

# ruff: noqa: E402 - as a script it must find the package and the samples before it can import them

from __future__ import annotations

import argparse
import random
import resource
import struct
import sys
import tempfile
import time
import traceback
import types
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1] / "formats")]

import numpy as np
import samples

from diptych.errors import FormatError
from diptych.frontends.mxnet.attributes import Attributes, parse_value
from diptych.frontends.mxnet.params import Csr, RowSparse, load_params, load_record, save_record
from diptych.frontends.mxnet.recordio import RecordReader, read_index, read_list, unpack
from diptych.frontends.mxnet.symbol_json import read_symbol, write_symbol

SLOWEST = 2.0  # seconds one input may take
MEMORY = 512 << 20  # bytes the process may grow by
_INTERESTING = (
    0,
    1,
    2,
    4,
    32,
    33,
    255,
    1 << 16,
    (1 << 29) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 60,
    1 << 63,
    (1 << 64) - 1,
)
_WORDS = (
    b"null",
    b"-1",
    b"0",
    b"1e999",
    b"NaN",
    b'"x"',
    b"[]",
    b"{}",
    b"[[",
    b"1" * 5000,
    b"true",
    b'"\\ud800"',
    b"(",
    b",",
)


def _symbol(data: bytes) -> None:
    graph = read_symbol(data)
    again = read_symbol(write_symbol(graph))
    if again.nodes != graph.nodes or again.heads != graph.heads:
        raise AssertionError("a symbol that was read is not the same after it was written and read")
    graph.list_arguments(), graph.list_auxiliary_states(), graph.list_outputs()


def _params(data: bytes) -> None:
    values = load_params(data)
    for value in values.values() if isinstance(values, dict) else values:
        if isinstance(value, RowSparse | Csr):
            value.dense(1 << 20)


def _text(data: bytes) -> None:
    text = data.decode("latin1")
    parse_value(text)
    attributes = Attributes("Op", "layer", {"a": text})
    for read in (attributes.integer, attributes.real, attributes.boolean, attributes.shape, attributes.reals):
        try:
            read("a")
        except FormatError:
            pass


class _Files:
    """Readers that take a path."""

    def __init__(self, folder: str) -> None:
        self.path = Path(folder) / "input"

    def records(self, data: bytes) -> None:
        self.path.write_bytes(data)
        with RecordReader(self.path) as reader:
            for record in reader:
                try:
                    unpack(record)
                except FormatError:
                    pass

    def index(self, data: bytes) -> None:
        self.path.write_bytes(data)
        read_index(self.path)

    def lists(self, data: bytes) -> None:
        self.path.write_bytes(data)
        read_list(self.path)


Target = tuple[Callable[[bytes], object], list[bytes]]


def targets(folder: str) -> dict[str, Target]:
    """Each reader with valid inputs to start from."""
    files = _Files(folder)
    values = samples.numbers()
    small = {"a": np.ones((2, 2)), "b": np.ones(3)}
    symbols = [samples.small_symbol(v).encode() for v in (None, 903, 10300, 10901)] + [samples.loop_symbol().encode()]
    lists = [samples.params_bytes(values), samples.params_bytes(small), samples.params_bytes(list(small.values())),
             samples.params_bytes(small, np_shape=True), samples.params_v0(small), samples.params_v1(small)]  # fmt: skip
    words = [b"(3, 3)", b"[1,2L]", b"((1,2),(3,4))", b"True", b"1e-05", b"None", b"'quoted'", b"(1, 'a', None, 0.5,)"]
    return {
        "symbol": (_symbol, symbols),
        "params": (_params, lists),
        "npz": (_params, [samples.npz_bytes(), samples.npz_bytes(compressed=True)]),
        "record": (load_record, [save_record(v) for v in values.values()]),
        "attributes": (_text, words),
        "recordio": (files.records, [samples.records_bytes()]),
        "index": (files.index, [b"0\t0\n1\t8\n7\t20\n"]),
        "list": (files.lists, [b"0\t1.0\ta.jpg\n1\t1.0\t2.0\tb.jpg\n"]),
    }


def mutate(seed: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """A damaged copy: a few random edits of the kinds that break parsers."""
    data = bytearray(seed)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(9)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif kind == 1 and data:
            data[at % len(data)] = rng.randrange(256)
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            del data[at : at + rng.randrange(1, 32)]
        elif kind == 4:
            data[at:at] = data[at : at + rng.randrange(1, 64)] * rng.randrange(1, 4)
        elif kind == 5:
            form = rng.choice(("<I", "<Q"))
            number = struct.pack(form, rng.choice(_INTERESTING) & (1 << 8 * struct.calcsize(form)) - 1)
            at = at // 4 * 4
            data[at : at + len(number)] = number
        elif kind == 6:
            other = rng.choice(others)
            start = rng.randrange(len(other) + 1)
            data[at:at] = other[start : start + rng.randrange(1, 200)]
        elif kind == 7:
            data[at:at] = rng.choice(_WORDS)
        else:  # change a number written as text
            digits = [i for i in range(len(data)) if 48 <= data[i] <= 57]
            if digits:
                data[rng.choice(digits)] = rng.randrange(48, 58)
    return bytes(data[: 1 << 20])


def _grown(start: int) -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - start


def fuzz(seconds: float, seed: int, only: str | None = None) -> dict[str, int]:
    """Run the random driver; an input that breaks the promise is saved and raised. Inputs per target come back."""
    rng = random.Random(seed)
    count: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        table = {k: v for k, v in targets(folder).items() if only in (None, k)}
        for _, (check, seeds) in table.items():
            for data in seeds:
                check(data)  # the valid files are valid
        begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            name = rng.choice(list(table))
            check, seeds = table[name]
            data = mutate(rng.choice(seeds), seeds, rng)
            started = time.monotonic()
            try:
                check(data)
            except FormatError:
                pass
            except BaseException:
                path = Path(tempfile.gettempdir()) / f"diptych-fuzz-{name}"
                path.write_bytes(data)
                print(f"{name}: this input of {len(data)} bytes is saved as {path}", file=sys.stderr)
                raise
            count[name] = count.get(name, 0) + 1
            if time.monotonic() - started > SLOWEST:
                raise AssertionError(f"{name}: an input of {len(data)} bytes took {time.monotonic() - started:.1f} s")
            if _grown(begin) > MEMORY:
                raise AssertionError(f"{name}: the process grew by {_grown(begin) >> 20} MB")
    return count


def _with_atheris(seconds: float, name: str) -> None:
    import atheris  # type: ignore[import-not-found, import-untyped, unused-ignore]

    with tempfile.TemporaryDirectory() as folder:
        check, seeds = targets(folder)[name]
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        for i, data in enumerate(seeds):
            (corpus / str(i)).write_bytes(data)

        def one(data: bytes) -> None:
            try:
                check(data)
            except FormatError:
                pass

        for module in [m for name, m in sys.modules.items() if name.startswith("diptych.frontends.mxnet.")]:
            for value in vars(module).values():
                for function in [value, *(vars(value).values() if isinstance(value, type) else ())]:
                    if isinstance(function, types.FunctionType) and function.__module__ == module.__name__:
                        atheris.instrument_func(function)
        atheris.Setup([sys.argv[0], f"-max_total_time={int(seconds)}", str(corpus)], one)
        atheris.Fuzz()


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--seed", type=int, default=None, help="repeat a run; default: the clock")
    parser.add_argument("--target", choices=sorted(targets(tempfile.gettempdir())), default=None)
    parser.add_argument("--atheris", action="store_true", help="let coverage guide the mutations (needs atheris)")
    options = parser.parse_args()
    if options.atheris:
        _with_atheris(options.seconds, options.target or "params")
        return 0
    seed = options.seed if options.seed is not None else time.time_ns() & 0xFFFFFFFF
    print(f"seed {seed}")
    try:
        count = fuzz(options.seconds, seed, options.target)
    except Exception:
        traceback.print_exc()
        return 1
    print(", ".join(f"{name} {n}" for name, n in sorted(count.items())), "inputs: all were read or refused")
    return 0


if __name__ == "__main__":
    sys.exit(main())
