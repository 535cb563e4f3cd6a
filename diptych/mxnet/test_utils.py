"""`mx.test_utils`: comparing arrays, checking gradients numerically, random data. Scripts import everything from here."""

from __future__ import annotations

import contextlib
import json  # noqa: F401  (scripts take these modules from here)
import logging  # noqa: F401
import numbers
import os
import sys  # noqa: F401
import time  # noqa: F401
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.random as rnd
import numpy.testing as npt

import diptych.mxnet as mx
from diptych.mxnet.base import MXNetError
from diptych.mxnet.ndarray import array  # noqa: F401
from diptych.mxnet.test_utils_random import *  # noqa: F403
from diptych.mxnet.util import getenv, np_array, np_shape, reset_np, set_np, setenv, use_np, use_np_array, use_np_shape  # noqa: F401

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_RTOL: dict[Any, float] = {np.dtype(np.float16): 1e-2, np.dtype(np.float32): 1e-4, np.dtype(np.float64): 1e-5}
_ATOL: dict[Any, float] = {np.dtype(np.float16): 1e-1, np.dtype(np.float32): 1e-3, np.dtype(np.float64): 1e-20}
_WHOLE = [np.dtype(t) for t in ("bool", "int8", "uint8", "int32", "uint32", "int64", "uint64")]


def default_context() -> Any:
    """The context tests run in."""
    return mx.context.current_context()


def set_default_context(ctx: Any) -> None:
    """Choose the context tests run in."""
    mx.Context._default_ctx.value = ctx


def default_dtype() -> Any:
    """The element type of test data."""
    return np.float32


def default_rtols() -> dict[Any, float]:
    """Relative tolerances by element type."""
    return _RTOL | dict.fromkeys(_WHOLE, 0.0)


def default_atols() -> dict[Any, float]:
    """Absolute tolerances by element type."""
    return _ATOL | dict.fromkeys(_WHOLE, 0.0)


def default_numeric_eps() -> dict[Any, float]:
    """Steps of finite differences by element type, powers of two."""
    return {np.dtype(np.float16): 2.0**-6, np.dtype(np.float32): 2.0**-9, np.dtype(np.float64): 2.0**-14}


def effective_dtype(dat: Any) -> Any:
    """The element type that decides about tolerances."""
    return np.dtype(dat.dtype)


def get_tolerance(dat: Any, tol: Any, default_tol: dict[Any, float]) -> float:
    """One tolerance for an array: a number as it is, else by the array's element type."""
    if isinstance(tol, numbers.Number):
        return float(tol)  # type: ignore[arg-type]
    dtype = effective_dtype(dat)
    return float((tol or {}).get(dtype, default_tol[dtype]))


def get_tols(x: Any, y: Any, rtol: Any, atol: Any) -> tuple[float, float]:
    """The tolerances for comparing two arrays: the looser of their defaults."""
    x = np.array(x) if isinstance(x, (numbers.Number, list, tuple)) else x
    y = np.array(y) if isinstance(y, (numbers.Number, list, tuple)) else y
    return (max(get_tolerance(v, rtol, default_rtols()) for v in (x, y)),
            max(get_tolerance(v, atol, default_atols()) for v in (x, y)))  # fmt: skip


def get_atol(atol: float | None = None, dtype: Any = None) -> float:
    """The absolute tolerance, or its default."""
    return default_atols()[np.dtype(dtype or np.float64)] if atol is None else atol


def get_rtol(rtol: float | None = None, dtype: Any = None) -> float:
    """The relative tolerance, or its default."""
    return default_rtols()[np.dtype(dtype or np.float64)] if rtol is None else rtol


def get_etol(etol: float | None = None) -> float:
    """The share of elements that may differ, or 0."""
    return 0 if etol is None else etol


def _plain(x: Any) -> Any:
    return x.asnumpy() if isinstance(x, mx.nd.NDArray) else x


def same(a: Any, b: Any) -> bool:
    """Whether two arrays are equal in shape and value."""
    return np.array_equal(_plain(a), _plain(b))


def checkShapes(a: Any, b: Any) -> None:
    """Assert that two arrays have one shape."""
    if a.shape != b.shape:
        raise AssertionError(f"a.shape = {a.shape} and b.shape = {b.shape} are not equal")


def almost_equal(a: Any, b: Any, rtol: float | None = None, atol: float | None = None, equal_nan: bool = False,
                 use_broadcast: bool = True) -> bool:  # fmt: skip
    """Whether two arrays are close."""
    if not use_broadcast:
        checkShapes(a, b)
    return np.allclose(_plain(a), _plain(b), rtol=get_rtol(rtol), atol=get_atol(atol), equal_nan=equal_nan)


def find_max_violation(a: Any, b: Any, rtol: float, atol: float) -> tuple[Any, float]:
    """Where two arrays differ most, in units of what is allowed, and how much."""
    a, b = np.asarray(a), np.asarray(b)
    with np.errstate(all="ignore"):
        error = np.where(np.equal(a, b), 0, np.abs(a - b)) / (atol + rtol * np.abs(b) + 1e-20)
    at = np.unravel_index(int(np.argmax(error)), error.shape)
    return at, float(np.max(error))


_find_max_violation = find_max_violation


def assert_almost_equal(a: Any, b: Any, rtol: Any = None, atol: Any = None, names: tuple[str, str] = ("a", "b"),
                        equal_nan: bool = False, use_broadcast: bool = True, mismatches: tuple[int, int] = (10, 10)) -> None:  # fmt: skip
    """Assert that two arrays are close; tolerances default by element type."""
    if not use_broadcast:
        checkShapes(a, b)
    rtol, atol = get_tols(a, b, rtol, atol)
    a, b = np.asarray(_plain(a)), np.asarray(_plain(b))
    if a.dtype == np.bool_ and b.dtype == np.bool_:
        npt.assert_equal(a, b)
        return
    if np.allclose(a, b, rtol=rtol, atol=atol, equal_nan=equal_nan):
        return
    wide_a, wide_b = np.broadcast_arrays(a, b)
    at, violation = find_max_violation(wide_a, wide_b, rtol, atol)
    raise AssertionError(
        f"Error {violation} exceeds tolerance rtol={rtol:e}, atol={atol:e}. Location of maximum error: {at}, "
        f"{names[0]}={wide_a[at]}, {names[1]}={wide_b[at]}\n{names[0]}: {a}\n{names[1]}: {b}"
    )


def assert_allclose(a: Any, b: Any, rtol: float = 1e-07, atol: float = 0, equal_nan: bool = True) -> None:
    """assert_almost_equal with NumPy's tolerances."""
    assert_almost_equal(a, b, rtol=rtol, atol=atol, equal_nan=equal_nan)


def assert_almost_equal_with_err(a: Any, b: Any, rtol: Any = None, atol: Any = None, etol: float | None = None,
                                 names: tuple[str, str] = ("a", "b"), equal_nan: bool = False,
                                 mismatches: tuple[int, int] = (10, 10)) -> None:  # fmt: skip
    """Assert that two arrays are close but for a share `etol` of their elements."""
    if get_etol(etol) <= 0:
        assert_almost_equal(a, b, rtol, atol, names, equal_nan)
        return
    rtol, atol = get_tols(a, b, rtol, atol)
    share = 1 - np.isclose(_plain(a), _plain(b), rtol=rtol, atol=atol).mean()
    if share > get_etol(etol):
        raise AssertionError(f"{share:.4%} of the elements differ, {etol:.4%} may (rtol={rtol}, atol={atol})")


def assert_almost_equal_ignore_nan(a: Any, b: Any, rtol: Any = None, atol: Any = None,
                                   names: tuple[str, str] = ("a", "b")) -> None:  # fmt: skip
    """Assert that two arrays are close where both are numbers."""
    a, b = np.copy(_plain(a)), np.copy(_plain(b))
    unknown = np.isnan(a) | np.isnan(b)
    a[unknown] = b[unknown] = 0
    assert_almost_equal(a, b, rtol, atol, names)


def assert_exception(f: Callable[..., Any], exception_type: type[BaseException], *args: Any, **kwargs: Any) -> None:
    """Assert that a call raises."""
    try:
        f(*args, **kwargs)
    except exception_type:
        return
    raise AssertionError(f"{f} did not raise {exception_type.__name__}")


def same_array(array1: Any, array2: Any) -> bool:
    """Whether two arrays share their memory."""
    array1[:] += 1
    if not same(array1, array2):
        array1[:] -= 1
        return False
    array1[:] -= 1
    return same(array1, array2)


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
def simple_forward(sym: Any, ctx: Any = None, is_train: bool = False, **inputs: Any) -> Any:
    """The outputs of a symbol for NumPy arrays, as NumPy arrays."""
    arrays = {k: mx.nd.array(v) for k, v in inputs.items()}
    outs = [x.asnumpy() for x in sym.bind(ctx or default_context(), args=arrays).forward(is_train=is_train)]
    return outs[0] if len(outs) == 1 else outs


def _arrays(names: list[str], given: Any, ctx: Any, dtype: Any) -> dict[str, Any]:
    if isinstance(given, dict):
        if set(given) != set(names):
            raise ValueError(f"Symbol arguments and keys of the given location do not match. symbol args:{set(names)}, "
                             f"location.keys():{set(given)}")  # fmt: skip
    else:
        given = dict(zip(names, given))

    def made(v: Any) -> Any:
        if not isinstance(v, np.ndarray):
            return v
        return mx.nd.array(v, ctx=ctx, dtype=v.dtype if isinstance(dtype, str) else dtype)

    return {k: made(v) for k, v in sorted(given.items())}


def _states(sym: Any, given: Any, ctx: Any, dtype: Any) -> Any:
    if given is None:
        return None
    names = sym.list_auxiliary_states()
    given = {k: np.asarray(v) if not isinstance(v, mx.nd.NDArray) else v
             for k, v in (given.items() if isinstance(given, dict) else zip(names, given))}  # fmt: skip
    return _arrays(names, given, ctx, dtype)


def numeric_grad(executor: Any, location: dict[str, Any], aux_states: Any = None, eps: float = 1e-4,
                 use_forward_train: bool = True, dtype: Any = np.float32) -> dict[str, Any]:  # fmt: skip
    """Gradients of the sum of the first output by central differences."""

    def total(name: str, value: Any) -> Any:
        executor.arg_dict[name][:] = value
        for key, state in (aux_states or {}).items():
            executor.aux_dict[key][:] = state
        executor.forward(is_train=use_forward_train)
        return executor.outputs[0].asnumpy()

    found = {k: np.zeros(v.shape, dtype) for k, v in location.items()}
    for k, v in location.items():
        executor.arg_dict[k][:] = v
    for k, v in location.items():
        value = np.array(v, order="C")
        if value.dtype.kind != "f":
            continue
        flat, out = value.reshape(-1), found[k].reshape(-1)
        for i in range(flat.size):
            old = flat[i]
            flat[i] = old + eps / 2
            above = total(k, value)
            flat[i] = old - eps / 2
            below = total(k, value)
            out[i] = (above - below).sum() / eps
            flat[i] = old
        executor.arg_dict[k][:] = value
    return found


def check_numeric_gradient(sym: Any, location: Any, aux_states: Any = None, numeric_eps: Any = None, rtol: Any = None,
                           atol: Any = None, grad_nodes: Any = None, use_forward_train: bool = True, ctx: Any = None,
                           grad_stype_dict: Any = None, dtype: Any = np.float32) -> None:  # fmt: skip
    """Assert that a symbol's gradients (of a random projection of its output) are those of finite differences."""
    ctx = ctx or default_context()
    arrays = _arrays(sym.list_arguments(), location, ctx, dtype)
    values = {k: v.asnumpy() for k, v in arrays.items()}
    states = _states(sym, aux_states, ctx, dtype)
    state_values = None if states is None else {k: v.asnumpy() for k, v in states.items()}
    if grad_nodes is None:
        grad_nodes = sym.list_arguments()
    req = dict(grad_nodes) if isinstance(grad_nodes, dict) else dict.fromkeys(grad_nodes, "write")
    shape = sym.infer_shape(**{k: v.shape for k, v in arrays.items()})[1][0]
    loss = mx.sym.make_loss(sym.as_nd_ndarray() * mx.sym.Variable("__random_proj"))
    arrays["__random_proj"] = mx.nd.array(rnd.rand(*shape) + 0.1, ctx=ctx, dtype=dtype)
    before = {k: rnd.normal(0, 0.01, size=arrays[k].shape) for k in (*req, "__random_proj")}
    grads = {k: mx.nd.array(v, ctx=ctx, dtype=dtype) for k, v in before.items()}
    executor = loss.bind(ctx, grad_req=req, args=arrays, args_grad=grads, aux_states=states)
    executor.forward(is_train=True)
    eps = get_tolerance(executor.outputs[0], numeric_eps, default_numeric_eps())
    executor.backward()
    found = {k: v.asnumpy() for k, v in executor.grad_dict.items() if v is not None}
    wanted = numeric_grad(executor, values, state_values, eps, use_forward_train, dtype)
    for name, how in req.items():
        labels = (f"NUMERICAL_{name}", f"BACKWARD_{name}")
        if how == "null":
            assert_almost_equal(before[name], found[name], rtol, atol, labels)
        else:
            got = found[name] - before[name] if how == "add" else found[name]
            assert_almost_equal(wanted[name], got.astype(dtype), rtol, atol, labels)


def check_symbolic_forward(sym: Any, location: Any, expected: Any, rtol: Any = None, atol: Any = None,
                           aux_states: Any = None, ctx: Any = None, equal_nan: bool = False,
                           dtype: Any = np.float32) -> Any:  # fmt: skip
    """Assert that a symbol's outputs are the expected ones; the outputs."""
    ctx = ctx or default_context()
    arrays = _arrays(sym.list_arguments(), location, ctx, dtype)
    if isinstance(expected, dict):
        expected = [expected[k] for k in sym.list_outputs()]
    executor = sym.bind(ctx=ctx, args=arrays, grad_req="null", aux_states=_states(sym, aux_states, ctx, dtype))
    executor.forward(is_train=False)
    for name, want, got in zip(sym.list_outputs(), expected, executor.outputs):
        assert_almost_equal(want, got, rtol, atol, (f"EXPECTED_{name}", f"FORWARD_{name}"), equal_nan=equal_nan)
    return executor.outputs


def check_symbolic_backward(sym: Any, location: Any, out_grads: Any, expected: Any, rtol: Any = None, atol: Any = None,
                            aux_states: Any = None, grad_req: Any = "write", ctx: Any = None, grad_stypes: Any = None,
                            equal_nan: bool = False, dtype: Any = np.float32) -> Any:  # fmt: skip
    """Assert that a symbol's gradients are the expected ones; the gradients."""
    ctx = ctx or default_context()
    names = sym.list_arguments()
    arrays = _arrays(names, location, ctx, dtype)
    expected = dict(zip(names, expected)) if isinstance(expected, (list, tuple)) else expected
    before = {k: rnd.normal(size=v.shape) for k, v in sorted(expected.items())}
    keep = isinstance(dtype, str)
    grads = {k: mx.nd.array(v, ctx=ctx, dtype=expected[k].dtype if keep else dtype) for k, v in before.items()}
    if isinstance(grad_req, str):
        grad_req = dict.fromkeys(names, grad_req)
    elif isinstance(grad_req, (list, tuple)):
        grad_req = dict(zip(names, grad_req))
    executor = sym.bind(ctx=ctx, args=arrays, args_grad=grads, aux_states=_states(sym, aux_states, ctx, dtype), grad_req=grad_req)
    executor.forward(is_train=True)

    def head(v: Any) -> Any:
        return mx.nd.array(v, ctx=ctx, dtype=v.dtype if keep else dtype) if isinstance(v, np.ndarray) else v

    if isinstance(out_grads, (list, tuple)):
        out_grads = [head(v) for v in out_grads]
    elif isinstance(out_grads, dict):
        out_grads = {k: head(v) for k, v in out_grads.items()}
    executor.backward(out_grads)
    for name, want in expected.items():
        labels = (f"EXPECTED_{name}", f"BACKWARD_{name}")
        got = grads[name].asnumpy()
        if grad_req[name] == "null":
            assert_almost_equal(before[name], got, rtol, atol, labels, equal_nan=equal_nan)
        else:
            got = got - before[name] if grad_req[name] == "add" else got
            assert_almost_equal(want, got, rtol, atol, labels, equal_nan=equal_nan)
    return grads


def check_consistency(sym: Any, ctx_list: Any, scale: float = 1.0, grad_req: Any = "write", arg_params: Any = None,
                      aux_params: Any = None, rtol: Any = None, atol: Any = None, raise_on_err: bool = True,
                      ground_truth: Any = None, equal_nan: bool = False, use_uniform: bool = False,
                      rand_type: Any = np.float64) -> Any:  # fmt: skip
    """Assert that one symbol (or several) gives the same outputs and gradients in all of the contexts and types listed."""
    syms = list(sym) if isinstance(sym, list) else [sym] * len(ctx_list)
    executors = [s.simple_bind(grad_req=grad_req, **c) for s, c in zip(syms, ctx_list)]
    if arg_params is None:
        arg_params = {}
        for n, a in executors[0].arg_dict.items():
            draw = rnd.uniform(-0.92 * scale, 0.92 * scale, a.shape) if use_uniform else rnd.normal(size=a.shape, scale=scale)
            arg_params[n] = draw.astype(rand_type)
    outputs = []
    for e in executors:
        for n, a in e.arg_dict.items():
            a[:] = _plain(arg_params[n])
        for n, a in e.aux_dict.items():
            a[:] = 0 if not aux_params else _plain(aux_params[n])
        e.forward(is_train=grad_req != "null")
        if grad_req != "null":
            e.backward([o.astype(o.dtype) for o in e.outputs])
        outputs.append({**e.output_dict, **{f"grad_{n}": g for n, g in e.grad_dict.items() if g is not None}})
    widest = int(np.argmax([np.dtype(e.outputs[0].dtype).itemsize for e in executors]))
    truth = outputs[widest] if ground_truth is None else ground_truth
    for found in outputs:
        for n, v in found.items():
            if n in truth and raise_on_err:
                assert_almost_equal(v, np.asarray(_plain(truth[n])).astype(v.dtype), rtol, atol, equal_nan=equal_nan)
    return truth


def check_speed(sym: Any, location: Any = None, ctx: Any = None, N: int = 20, grad_req: Any = None, typ: str = "whole",
                **kwargs: Any) -> float:  # fmt: skip
    """Seconds per run of a symbol, forward or forward and backward."""
    from time import perf_counter

    if typ not in ("whole", "forward"):
        raise ValueError('typ can only be "whole" or "forward".')
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


def same_symbol_structure(sym1: Any, sym2: Any) -> bool:
    """Whether two symbols are the same graph, names aside."""
    a, b = sym1.graph(), sym2.graph()
    return [(n.op, n.inputs) for n in a.nodes] == [(n.op, n.inputs) for n in b.nodes]


# -- surroundings -------------------------------------------------------------------------------------------------------
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


def download(url: str, fname: str | None = None, dirname: str | None = None, overwrite: bool = False, retries: int = 5) -> str:
    """An error: MXNet's servers are gone; put the file in place by hand."""
    raise MXNetError(f"{url}: downloads of MXNet's data are not supported, its servers are gone; get the file another way")


