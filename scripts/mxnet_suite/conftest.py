"""Run the unit tests of Apache MXNet 1.9.1 against `diptych.mxnet` (or, with MXNET_REAL=1, against MXNet itself).

The tests are not part of this repository. Check them out and point pytest at them, from outside of the checkout:

    python -m pytest -c /dev/null -p conftest --rootdir PATH/tests/python/unittest PATH/tests/python/unittest/test_ndarray.py

with this folder on PYTHONPATH. It stands in for `nose`, which no longer imports, re-adds names that NumPy has removed, and
lets `import mxnet` find `diptych.mxnet`. The tests themselves stay as they are.
"""

from __future__ import annotations

import functools
import importlib
import importlib.abc
import importlib.machinery
import os
import signal
import sys
import types
import unittest
from typing import Any

import numpy as np
import pytest

REAL = bool(os.environ.get("MXNET_REAL"))


def numpy_names() -> None:
    """The aliases that the tests use and NumPy has dropped."""
    for name, value in {"bool": np.bool_, "int": int, "float": float, "object": object, "NaN": np.nan, "Inf": np.inf,
                        "product": np.prod, "float_": np.float64, "asscalar": lambda a: a.item()}.items():  # fmt: skip
        if name not in np.__dict__:
            setattr(np, name, value)
    if "round_" not in np.__dict__:
        np.round_ = np.round
    for name in ("quantile", "percentile"):  # their `interpolation` is `method` now
        setattr(np, name, with_interpolation(getattr(np, name)))


def with_interpolation(function: Any) -> Any:
    """A quantile function that takes `interpolation` too, as NumPy's did."""

    @functools.wraps(function)
    def call(*args: Any, interpolation: Any = None, **kwargs: Any) -> Any:
        return function(*args, **kwargs) if interpolation is None else function(*args, method=interpolation, **kwargs)

    return call


def nose() -> None:
    """The few names of nose that the tests use."""
    top, tools, skip = types.ModuleType("nose"), types.ModuleType("nose.tools"), types.ModuleType("nose.plugins.skip")
    case = unittest.TestCase()

    def make_decorator(func: Any) -> Any:
        return lambda new: functools.wraps(func)(new)

    def raises(*expected: type[BaseException]) -> Any:
        def decorate(func: Any) -> Any:
            @functools.wraps(func)
            def run(*args: Any, **kwargs: Any) -> None:
                with case.assertRaises(expected):
                    func(*args, **kwargs)

            return run

        return decorate

    def ok_(condition: Any, message: str | None = None) -> None:
        if not condition:
            raise AssertionError(message)

    def eq_(a: Any, b: Any, message: str | None = None) -> None:
        if a != b:
            raise AssertionError(message or f"{a!r} != {b!r}")

    def timed(limit: float) -> Any:
        return lambda func: func

    tools.__dict__.update(make_decorator=make_decorator, raises=raises, ok_=ok_, eq_=eq_, timed=timed, nottest=lambda f: f,
                          istest=lambda f: f, with_setup=lambda *a, **k: lambda f: f, assert_raises=case.assertRaises,
                          assert_raises_regexp=case.assertRaisesRegex, assert_equal=case.assertEqual,
                          assert_almost_equal=case.assertAlmostEqual, assert_true=case.assertTrue,
                          assert_false=case.assertFalse, assert_in=case.assertIn)  # fmt: skip
    skip.SkipTest = unittest.SkipTest  # type: ignore[attr-defined]
    top.__dict__.update(SkipTest=unittest.SkipTest, tools=tools, runmodule=lambda *a, **k: None)
    sys.modules.update({"nose": top, "nose.tools": tools, "nose.plugins": types.ModuleType("nose.plugins"),
                        "nose.plugins.skip": skip})  # fmt: skip


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds `mxnet.x` as the very module `diptych.mxnet.x`."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name == "mxnet" or name.startswith("mxnet."):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> Any:
        return importlib.import_module("diptych." + spec.name)

    def exec_module(self, module: Any) -> None:
        sys.modules["mxnet" + module.__name__.removeprefix("diptych.mxnet")] = module


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: Any) -> Any:
    """Stop a test after MXNET_TEST_SECONDS of processor time (0, the default: never)."""
    seconds = float(os.environ.get("MXNET_TEST_SECONDS", "0"))

    def late(number: int, frame: Any) -> None:
        raise TimeoutError(f"the test took longer than {seconds:g} s")

    signal.signal(signal.SIGVTALRM, late)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


numpy_names()
nose()
if not REAL:
    import warnings

    warnings.filterwarnings("ignore", category=DeprecationWarning)
    sys.meta_path.insert(0, Finder())
    sys.modules["mxnet"] = importlib.import_module("diptych.mxnet")
