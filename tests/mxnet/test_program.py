"""When a graph of the MXNet half is compiled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from diptych.ir import TensorType
from diptych.mxnet.ops import program
from diptych.mxnet.ops.program import Program
from diptych.ops.build import Builder
from diptych.ops.conv import Conv

if TYPE_CHECKING:
    from pathlib import Path

    from diptych.ir import Graph


def chain(length: int, name: str = "chain") -> Graph:
    """x + 1 - tanh(x) ..., as small operators as there are."""
    g = Builder(name)
    x = y = g.input("x", TensorType((4, 3)))
    for _ in range(length):
        y = g.sub(g.tanh(y), x)
    return g.finish({"y": y})


def native_from(graph: Graph, network: bool, calls: int) -> int | None:
    """The number of the call that first ran as native code, counted from 0; all calls must agree."""
    made, x = Program(graph, network), np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
    (want,) = made([x])
    first = 0 if made._native is not None else None
    for i in range(1, calls):
        (got,) = made([x])
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
        if first is None and made._native is not None:
            first = i
    return first


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own, so that nothing is known yet."""
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path))
    monkeypatch.setenv("DIPTYCH_COMPILE_PROCESSES", "0")


@pytest.mark.usefixtures("cache")
def test_a_network_is_native_from_its_third_call_and_an_operator_is_not() -> None:
    assert native_from(chain(5), network=True, calls=4) == 2
    assert native_from(chain(5), network=False, calls=6) is None


@pytest.mark.usefixtures("cache")
def test_what_is_dear_to_compile_waits_until_numpy_has_taken_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "_PATIENCE", 0.0)
    monkeypatch.setattr(program, "_NODE", 1e9)
    assert native_from(chain(6), network=True, calls=6) is None
    made = Program(chain(6), network=True)
    made([np.ones((4, 3), np.float32)])
    made._spent = 2e10  # as if that one call had taken so long
    made([np.ones((4, 3), np.float32)])
    assert made._native is not None
    # Another process finds what this one has made, whatever it cost.
    assert native_from(chain(6), network=True, calls=4) == 2
    assert native_from(chain(7), network=True, calls=4) is None


def products(rows: int, width: int, turned: bool = False) -> Graph:
    """x w w, or x^T w w with x turned."""
    g = Builder("products")
    x, w = g.input("x", TensorType((width, rows) if turned else (rows, width))), g.input("w", TensorType((width, width)))
    return g.finish({"y": g.matmul(g.matmul(x, w, turned, False), w)})


def test_work_that_numpy_is_slow_at_is_compiled_before_the_first_call() -> None:
    g = Builder("convolutions")
    x, w = g.input("x", TensorType((8, 64, 56, 56))), g.input("w", TensorType((64, 64, 3, 3)))
    convolutions = g.finish({"y": g.emit(Conv((1, 1), ((1, 1), (1, 1)), (1, 1)), x, w)})
    for graph in (convolutions, products(16384, 2048)):
        assert Program(graph, network=True)._hot()
        assert not Program(graph, network=False)._hot()
    # BLAS does these in some milliseconds, long before the compiler would be done.
    assert not Program(products(1024, 512), network=True)._hot()


def test_a_product_counts_the_same_however_its_operand_lies() -> None:
    assert program._multiplications(products(1024, 64)) == program._multiplications(products(1024, 64, turned=True)) > 0
