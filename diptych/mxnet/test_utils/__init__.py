"""`mx.test_utils`: comparing arrays, checking gradients numerically, random data. Scripts import everything from here."""

# ruff: noqa: F401 (scripts take these names from here)
from __future__ import annotations

import contextlib
import json
import logging
import numbers
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.random as rnd
import numpy.testing as npt

import diptych.mxnet as mx
from diptych.mxnet.base import MXNetError
from diptych.mxnet.ndarray import array
from diptych.mxnet.test_utils.checks import *  # noqa: F403
from diptych.mxnet.test_utils.compare import *  # noqa: F403
from diptych.mxnet.test_utils.compare import _find_max_violation, default_context
from diptych.mxnet.test_utils.data import *  # noqa: F403
from diptych.mxnet.test_utils.random_data import *  # noqa: F403
from diptych.mxnet.util import getenv, np_array, np_shape, reset_np, set_np, setenv, use_np, use_np_array, use_np_shape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def assert_exception(f: Callable[..., Any], exception_type: type[BaseException], *args: Any, **kwargs: Any) -> None:
    """Assert that a call raises."""
    try:
        f(*args, **kwargs)
    except exception_type:
        return
    raise AssertionError(f"{f} did not raise {exception_type.__name__}")


def retry(n: int) -> Any:
    """A decorator that tries a test of random numbers up to n times."""
    if n <= 0:
        raise ValueError("retry needs a positive number")

    def decorate(test: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            for i in range(n):
                try:
                    return test(*args, **kwargs)
                except AssertionError:
                    if i == n - 1:
                        raise
                    mx.nd.waitall()
            return None

        run.__name__ = getattr(test, "__name__", "run")
        return run

    return decorate


# -- symbols ------------------------------------------------------------------------------------------------------------
def check_speed(sym: Any, location: Any = None, ctx: Any = None, N: int = 20, grad_req: Any = None, typ: str = "whole",
                **kwargs: Any) -> float:  # fmt: skip
    """Seconds per run of a symbol, forward or forward and backward."""
    from time import perf_counter

    if typ not in ("whole", "forward"):
        raise ValueError(f"typ={typ!r}: there are 'whole' and 'forward'")
    shapes = {k: v.shape for k, v in location.items()} if location is not None else kwargs
    executor = sym.simple_bind(ctx=ctx or default_context(), grad_req=grad_req or "write", **shapes)
    for name, a in executor.arg_dict.items():
        a[:] = location[name] if location is not None else rnd.normal(size=a.shape)

    def once() -> None:
        executor.forward(is_train=typ == "whole")
        if typ == "whole":
            executor.backward(out_grads=executor.outputs)

    once()
    start = perf_counter()
    for _ in range(N):
        once()
    return (perf_counter() - start) / N


@contextlib.contextmanager
def environment(*args: Any) -> Iterator[None]:
    """A context with environment variables set (or unset with None): ("NAME", "value") or ({"NAME": "value"})."""
    if len(args) not in (1, 2):
        raise ValueError("environment takes a name and a value, or a dict of them")
    wanted = args[0] if len(args) == 1 else {args[0]: args[1]}
    before = {k: os.environ.get(k) for k in wanted}

    def put(values: dict[str, str | None]) -> None:
        for k, v in values.items():
            if v is None:
                os.environ.pop(k, None)
            else:
                os.environ[k] = str(v)

    put(wanted)
    try:
        yield
    finally:
        put(before)


class DummyIter:
    """An iterator that gives the first batch of another for ever: to measure everything but the data."""

    def __init__(self, real_iter: Any) -> None:
        self.real_iter = real_iter
        self.provide_data, self.provide_label = real_iter.provide_data, real_iter.provide_label
        self.batch_size = real_iter.batch_size
        self.the_batch = next(real_iter)

    def __iter__(self) -> DummyIter:
        return self

    def next(self) -> Any:
        """The batch."""
        return self.the_batch

    __next__ = next


@contextlib.contextmanager
def discard_stderr() -> Iterator[None]:
    """A context that throws away what is written to standard error."""
    with open(os.devnull, "w", encoding="utf-8") as sink, contextlib.redirect_stderr(sink):
        yield


def list_gpus() -> list[int]:
    """The GPUs that can be used: none."""
    return []


def is_cd_run() -> bool:
    """Whether this is MXNet's continuous delivery: it is not."""
    return False


def is_aarch64_run() -> bool:
    """Whether this is a 64-bit Arm machine under MXNet's own CI variable."""
    return os.environ.get("IS_AARCH64_RUN") == "1"


def has_tvm_ops() -> bool:
    """Whether operators of TVM are there: they are not."""
    return False


def is_op_runnable() -> bool:
    """Whether operators can run on the device in use."""
    return True


