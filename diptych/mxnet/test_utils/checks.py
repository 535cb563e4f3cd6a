"""Checking operators: forward values, gradients by finite differences, contexts and ways of running against each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.random as rnd

import diptych.mxnet as mx
from diptych.mxnet.test_utils.compare import (
    _plain,
    assert_almost_equal,
    default_context,
    default_numeric_eps,
    get_tolerance,
)

__all__ = [
    "check_consistency",
    "check_gluon_hybridize_consistency",
    "check_numeric_gradient",
    "check_symbolic_backward",
    "check_symbolic_forward",
    "numeric_grad",
    "same_symbol_structure",
    "simple_forward",
]


def simple_forward(sym: Any, ctx: Any = None, is_train: bool = False, **inputs: Any) -> Any:
    """The outputs of a symbol for NumPy arrays, as NumPy arrays."""
    arrays = {k: mx.nd.array(v) for k, v in inputs.items()}
    outs = [x.asnumpy() for x in sym.bind(ctx or default_context(), args=arrays).forward(is_train=is_train)]
    return outs[0] if len(outs) == 1 else outs


def _arrays(names: list[str], given: Any, ctx: Any, dtype: Any) -> dict[str, Any]:
    if isinstance(given, dict):
        if set(given) != set(names):
            raise ValueError(f"location: the symbol has the arguments {sorted(names)}, "
                             f"given are {sorted(given)}")  # fmt: skip
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
    arg_params = dict(arg_params or {})
    for n, a in sorted(executors[0].arg_dict.items()):  # what is not given is drawn, in the order of the names
        if n not in arg_params:
            draw = rnd.uniform(-0.92 * scale, 0.92 * scale, a.shape) if use_uniform else rnd.normal(size=a.shape, scale=scale)
            arg_params[n] = draw.astype(rand_type)
    outputs: list[dict[str, Any]] = []
    heads: list[Any] = []
    for e in executors:
        for n, a in e.arg_dict.items():
            a[:] = _plain(arg_params[n])
        for n, a in e.aux_dict.items():
            a[:] = 0 if not aux_params else _plain(aux_params[n])
        e.forward(is_train=grad_req != "null")
        if not heads:  # all get the same gradients, numbers that every one of the types can hold
            narrow = [min((np.dtype(x.outputs[i].dtype) for x in executors), key=lambda d: d.itemsize) for i in range(len(e.outputs))]
            heads = [o.asnumpy().astype(d) for o, d in zip(e.outputs, narrow)]
        if grad_req != "null":
            e.backward([mx.nd.array(h, dtype=o.dtype) for h, o in zip(heads, e.outputs)])
        outputs.append({**e.output_dict, **{f"grad_{n}": g for n, g in e.grad_dict.items() if g is not None}})
    widest = int(np.argmax([np.dtype(e.outputs[0].dtype).itemsize for e in executors]))
    truth = outputs[widest] if ground_truth is None else ground_truth
    for found in outputs:
        for n, v in found.items():
            if n in truth and raise_on_err:
                assert_almost_equal(v, np.asarray(_plain(truth[n])).astype(v.dtype), rtol, atol, equal_nan=equal_nan)
    return truth


def same_symbol_structure(sym1: Any, sym2: Any) -> bool:
    """Whether two symbols are the same graph, names aside."""
    a, b = sym1.graph(), sym2.graph()
    return [(n.op, n.inputs) for n in a.nodes] == [(n.op, n.inputs) for n in b.nodes]


# -- surroundings -------------------------------------------------------------------------------------------------------


def check_gluon_hybridize_consistency(net_builder: Any, data_l: list[Any], numpy_func: Any = None, test_grad: bool = True,
                                      rtol: float = 1e-4, atol: float = 1e-4) -> None:  # fmt: skip
    """Assert that a HybridBlock gives the same outputs and gradients step by step and hybridized, recorded and not.

    `net_builder(prefix=...)` makes the block, which must be free of noise; `numpy_func` of the same arrays gives what is expected.
    """
    weights: dict[str, Any] | None = None
    outputs, gradients = [], []
    for hybridize in (False, True):
        for record in (False, True) if test_grad else (False,):
            net = net_builder(prefix="net_")
            net.initialize()
            if hybridize:
                net.hybridize()
            data = [x.copy() for x in data_l]
            if weights is None:
                net(*data)  # the shapes of all parameters are known from here on
                weights = {k: v.data().copy() for k, v in net.collect_params().items()}
            for name, value in weights.items():
                parameter = net.collect_params()[name]
                if parameter.shape is None or any(d <= 0 for d in parameter.shape):
                    parameter.shape = value.shape
                parameter.set_data(value)
            for x in data if record else ():
                x.attach_grad()
            with mx.autograd.record() if record else mx.autograd.pause():
                out = net(*data)
            if record:
                out.backward(out)
                gradients.append([x.grad.asnumpy() for x in data])
            outputs.append(out.asnumpy())
    for other in outputs[1:]:
        assert_almost_equal(other, outputs[0], rtol=rtol, atol=atol, names=("another way", "the first"))
    for others in gradients[1:]:
        for i, (other, first) in enumerate(zip(others, gradients[0])):
            assert_almost_equal(other, first, rtol=rtol, atol=atol, names=(f"gradient {i} hybridized", f"gradient {i}"))
    if numpy_func is not None:
        assert_almost_equal(outputs[0], numpy_func(*[x.asnumpy() for x in data_l]), rtol=rtol, atol=atol)
