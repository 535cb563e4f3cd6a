"""Executor: a symbol bound to arrays, run forward and backward."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.mxnet.base import MXNetError, dtype_name
from diptych.mxnet.context import current_context
from diptych.mxnet.imperative import wrap
from diptych.mxnet.ndarray.ndarray import NDArray, context_for_new
from diptych.mxnet.symbol import run
from diptych.mxnet.symbol.watched import Watched
from diptych.mxnet.tape import backward as run_backward
from diptych.mxnet.tape import settle, state

if TYPE_CHECKING:
    from diptych.mxnet.symbol.symbol import Symbol

__all__ = ["Executor", "bind", "simple_bind"]


class Executor:
    """A symbol with its arrays: made by `Symbol.bind` and `Symbol.simple_bind`."""

    def __init__(self, symbol: Symbol, ctx: Any, args: list[NDArray], grads: list[NDArray | None], reqs: list[str],
                 aux: list[NDArray]) -> None:  # fmt: skip
        self._symbol = symbol
        self._ctx = ctx
        self.arg_arrays, self.grad_arrays, self.aux_arrays = args, grads, aux
        self._reqs = reqs
        self._names = symbol.list_arguments()
        self._aux_names = symbol.list_auxiliary_states()
        self._output_names = symbol.list_outputs()
        self._outputs: list[NDArray] | None = None
        self._train = False
        self.params: frozenset[str] = frozenset()  # what is seldom written to between calls, where whoever binds knows it
        self._shared = False  # whether the outputs lie in memory of another executor
        self._recorded: list[NDArray] = []
        self._monitor: Any = None
        self._monitor_all = False
        self._watched: Watched | None = None  # the last forward pass, when a monitor has seen it
        for names, what in ((self._names, "argument"), (self._aux_names, "auxiliary state")):
            if len(set(names)) != len(names):
                twice = sorted({n for n in names if names.count(n) > 1})
                raise ValueError(f"Duplicate names detected, two {what}s are named {', '.join(twice)}: {names}")

    # -- arrays by name ---------------------------------------------------------------------------------------
    @property
    def arg_dict(self) -> dict[str, NDArray]:
        """Argument arrays by name."""
        return dict(zip(self._names, self.arg_arrays))

    @property
    def grad_dict(self) -> dict[str, NDArray | None]:
        """Gradient arrays by argument name."""
        return dict(zip(self._names, self.grad_arrays))

    @property
    def aux_dict(self) -> dict[str, NDArray]:
        """Auxiliary states by name."""
        return dict(zip(self._aux_names, self.aux_arrays))

    @property
    def outputs(self) -> list[NDArray]:
        """The outputs of the last forward pass (of one in inference mode when there was none)."""
        if self._outputs is None:
            self._outputs = [wrap(np.zeros(s, np.dtype(t))) for s, t in self._output_types()]
        return self._outputs

    @property
    def output_dict(self) -> dict[str, NDArray]:
        """Outputs by name."""
        if len(set(self._output_names)) != len(self._output_names):
            raise ValueError(f"Duplicate names detected, {self._output_names}")
        return dict(zip(self._output_names, self.outputs))

    def _output_types(self) -> list[Any]:
        shapes = self._symbol.infer_shape(**{n: a.shape for n, a in self.arg_dict.items()})[1]
        types = self._symbol.infer_type(**{n: a.dtype for n, a in self.arg_dict.items()})[1]
        if shapes is None:
            raise MXNetError("the shapes of the outputs are not known before the first forward pass")
        return list(zip(shapes, types or [np.float32] * len(shapes)))

    # -- running ----------------------------------------------------------------------------------------------
    def forward(self, is_train: bool = False, **kwargs: Any) -> list[NDArray]:
        """Compute the outputs; keyword arguments are copied into the argument arrays of those names first."""
        held = self.arg_dict
        for name, value in kwargs.items():
            if name not in held:
                raise TypeError(f"the symbol has no argument {name}")
            if not isinstance(value, (NDArray, np.ndarray)):
                raise ValueError(f"{name}: an NDArray or a NumPy array, not {type(value)}")
            if tuple(value.shape) != held[name].shape:
                raise ValueError(f"{name} is {value.shape}, the executor is bound for {held[name].shape}; reshape() binds for another")
            settle()
            held[name]._data[...] = value._data if isinstance(value, NDArray) else value
        self._train = bool(is_train)
        self._recorded = self._run()
        made = [r.detach() for r in self._recorded]
        for m in made:
            m._ctx = context_for_new(self._ctx)
        if self._outputs is not None and self._shared:
            for o, m in zip(self._outputs, made):  # memory that another executor shows too
                o._data[...] = m._data
        else:
            self._outputs = made
        return self.outputs

    def _run(self) -> list[NDArray]:
        """The outputs, on the tape when gradients are bound."""
        before = state.recording, state.training
        self._watched = None
        state.recording, state.training = any(r != "null" for r in self._reqs), self._train
        try:
            if self._monitor is not None and state.recording:
                grads = {n: (g, r) for n, g, r in zip(self._names, self.grad_arrays, self._reqs) if g is not None and r != "null"}
                self._watched = Watched(self._symbol, {**self.arg_dict, **self.aux_dict}, grads, self._aux_names, self._monitor,
                                        self._monitor_all)  # fmt: skip
                return self._watched.outputs
            operands = {}
            for name, array, grad, req in zip(self._names, self.arg_arrays, self.grad_arrays, self._reqs):
                x = array.detach() if state.recording else array
                if grad is not None and req != "null":
                    x._mark(grad, req)
                operands[name] = x
            operands.update(self.aux_dict)
            return run.run(self._symbol, operands, self._monitor, self._monitor_all, () if state.recording else self.params)
        finally:
            state.recording, state.training = before

    def backward(self, out_grads: Any = None, is_train: bool = True) -> None:
        """Carry gradients back into the gradient arrays; loss layers need no `out_grads`."""
        if all(r == "null" for r in self._reqs):
            return
        if not self._recorded:  # as in MXNet, the forward pass need not be asked for
            self.forward(is_train=is_train)
        if any(r._entry is not None and r._entry.node.used for r in self._recorded):
            self._recorded = self._run()  # a second backward pass for one forward pass
        if out_grads is None:
            grads: list[Any] = [None] * len(self._recorded)
        elif isinstance(out_grads, NDArray):
            grads = [out_grads]
        elif isinstance(out_grads, dict):
            grads = [out_grads[n] for n in self._output_names]
        else:
            grads = list(out_grads)
        grads = grads[: len(self._recorded)]  # as in MXNet, more are passed over, and outputs without one get zeros
        grads += [wrap(np.zeros(r.shape, r.dtype)) for r in self._recorded[len(grads) :]]
        for g in grads:
            if g is not None and not isinstance(g, NDArray):
                raise TypeError("executor inputs are NDArrays: mx.nd.array(x) makes one")
        before = state.training
        state.training = bool(is_train)
        if self._watched is not None:
            watched, self._watched = self._watched, None
            self._recorded = []
            try:
                watched.backward(grads)
            finally:
                state.training = before
            return
        for grad, req in zip(self.grad_arrays, self._reqs):  # what no gradient arrives at has a gradient of zero
            if grad is not None and req == "write":
                grad._data[...] = 0
        try:
            heads = [(r, g) for r, g in zip(self._recorded, grads) if r._entry is not None]
            if heads:
                run_backward([r for r, _ in heads], [g for _, g in heads], retain=False)
        finally:
            state.training = before

    def set_monitor_callback(self, callback: Any, monitor_all: bool = False) -> None:
        """Call `callback(name, array)` for every operator's outputs (monitor_all: inputs too)."""
        self._monitor, self._monitor_all = lambda name, operator, array: callback(name, array), monitor_all

    # -- parameters and shapes --------------------------------------------------------------------------------
    def copy_params_from(self, arg_params: dict[str, Any], aux_params: dict[str, Any] | None = None,
                         allow_extra_params: bool = False) -> None:  # fmt: skip
        """Copy arrays by name into arguments and states."""
        for given, held, what in ((arg_params, self.arg_dict, "arguments"), (aux_params or {}, self.aux_dict, "aux params")):
            for name, array in given.items():
                if name in held:
                    array.astype(held[name].dtype).copyto(held[name])
                elif not allow_extra_params:
                    raise ValueError(f'"{name}" is none of the {what}')

    def reshape(self, partial_shaping: bool = False, allow_up_sizing: bool = False, **kwargs: Any) -> Executor:
        """An executor for other input shapes; arrays whose shape stays are shared with this one."""
        shapes, _, aux = self._symbol.infer_shape(**kwargs)
        if shapes is None:
            raise ValueError("Insufficient argument shapes provided.")

        def fitted(name: str, old: NDArray | None, shape: tuple[int, ...]) -> NDArray | None:
            if old is None or old.shape == shape:
                return old
            if name not in kwargs and not partial_shaping:
                raise AssertionError(f"Shape of unspecified array arg:{name} changed. This can cause the new executor to not "
                                     "share parameters with the old one. Please check for error in network. If this is "
                                     "intended, set partial_shaping=True to suppress this warning.")  # fmt: skip
            size = int(np.prod(shape))
            if size > old.size:
                if not allow_up_sizing:
                    raise AssertionError(f"New shape of arg:{name} larger than original. First making a big executor and then "
                                         "down sizing it is more efficient than the reverse. If you really want to up size, "
                                         "set allow_up_sizing=True to enable allocation of new arrays.")  # fmt: skip
                return wrap(np.zeros(shape, old.dtype))
            return wrap(old._data.reshape(-1)[:size].reshape(shape))

        args = [fitted(n, a, s) for n, a, s in zip(self._names, self.arg_arrays, shapes)]
        grads = [fitted(n, g, s) for n, g, s in zip(self._names, self.grad_arrays, shapes)]
        states = [fitted(n, a, s) for n, a, s in zip(self._aux_names, self.aux_arrays, aux)]
        made = Executor(self._symbol, self._ctx, args, grads, list(self._reqs), states)  # type: ignore[arg-type]
        wanted = made._output_types()  # outputs are views of the old ones where they fit
        if all(int(np.prod(s)) <= o.size and np.dtype(t) == o.dtype for (s, t), o in zip(wanted, self.outputs)):
            made._shared = self._shared = True
            made._outputs = [wrap(o._data.reshape(-1)[: int(np.prod(s))].reshape(s)) for (s, _), o in zip(wanted, self.outputs)]
        return made

    def debug_str(self) -> str:
        """The nodes of the symbol, readable, and the bytes of its arrays."""
        size = sum(a._data.nbytes for a in (*self.arg_arrays, *self.aux_arrays, *(g for g in self.grad_arrays if g is not None)))
        return self._symbol.debug_str() + f"Total {size >> 20} MB allocated\n"

    @property
    def _optimized_symbol(self) -> Symbol:
        return self._symbol


def _requests(grad_req: Any, names: list[str]) -> list[str]:
    if isinstance(grad_req, str):
        found = [grad_req] * len(names)
    elif isinstance(grad_req, (list, tuple)):
        found = list(grad_req)
    else:
        found = [grad_req.get(n, "null") for n in names]
    if wrong := set(found) - {"write", "add", "null"}:
        raise ValueError(f"grad_req must be write, add or null, not {', '.join(map(str, wrong))}")
    if len(found) != len(names):
        raise ValueError(f"{len(found)} grad_reqs for {len(names)} arguments")
    return found


def _by_name(given: Any, names: list[str], what: str, missing: bool) -> list[Any]:
    if isinstance(given, dict):
        absent = [n for n in names if n not in given]
        if absent and not missing:
            raise ValueError(f"key `{absent[0]}` is missing in `{what}`")
        return [given.get(n) for n in names]
    if not isinstance(given, (list, tuple)):
        raise TypeError(f"{what}: give arrays as a list, or as a dict by name")
    if len(given) != len(names):
        raise ValueError(f"{what}: {len(given)} arrays for {len(names)} names ({', '.join(names[:8])})")
    return list(given)


def bind(symbol: Symbol, ctx: Any, args: Any, args_grad: Any, grad_req: Any, aux_states: Any) -> Executor:
    """An Executor on given arrays."""
    names, aux_names = symbol.list_arguments(), symbol.list_auxiliary_states()
    arrays = _by_name(args, names, "args", False)
    grads = [None] * len(names) if args_grad is None else _by_name(args_grad, names, "args_grad", True)
    states = _by_name(aux_states if aux_states is not None else [], aux_names, "aux_states", False) if aux_names else []
    for x in (*arrays, *states, *(g for g in grads if g is not None)):
        if not isinstance(x, NDArray):
            raise TypeError("give arrays as a list, or as a dict by name")
    for g, a, n in zip(grads, arrays, names):
        if g is not None and g.shape != a.shape:
            raise MXNetError(f"the gradient array of {n} has shape {g.shape}, the argument {a.shape}")
    return Executor(symbol, ctx or current_context(), arrays, grads, _requests(grad_req, names), states)


def simple_bind(symbol: Symbol, ctx: Any, grad_req: Any, type_dict: Any, shared_exec: Any, shared_buffer: Any,
                shapes: dict[str, Any]) -> Executor:  # fmt: skip
    """An Executor on new arrays of inferred shapes and types."""
    names, aux_names = symbol.list_arguments(), symbol.list_auxiliary_states()
    known = {k: tuple(v) for k, v in shapes.items() if k in names or k in aux_names}
    arg_shapes, _, aux_shapes = symbol.infer_shape(**known)
    if arg_shapes is None:
        raise RuntimeError("simple_bind error: the shapes of some arguments are unknown; give those of all data inputs. "
                           + ", ".join(f"{k}: {v}" for k, v in shapes.items()))  # fmt: skip
    from diptych.mxnet.symbol.infer import dtypes_of
    from diptych.mxnet.symbol.node import topological

    found = dtypes_of(symbol, {k: dtype_name(v) for k, v in (type_dict or {}).items()})
    types = {n.name: found.get((i, 0), "float32") for i, n in enumerate(topological(symbol._heads)) if n.op is None}
    reqs = _requests(grad_req, names)
    note = context_for_new(ctx)

    def new(name: str, shape: tuple[int, ...]) -> NDArray:
        if shared_buffer is not None and name in shared_buffer and shared_buffer[name].size >= int(np.prod(shape)):
            made = wrap(shared_buffer[name]._data.reshape(-1)[: int(np.prod(shape))].reshape(shape))
        else:
            made = wrap(np.zeros(shape, np.dtype(types[name])))
            if shared_buffer is not None:
                shared_buffer[name] = made
        made._ctx = note
        return made

    shared = shared_exec.arg_dict if shared_exec is not None else {}
    shared_aux = shared_exec.aux_dict if shared_exec is not None else {}
    args = [shared[n] if n in shared and shared[n].shape == s and n not in known else new(n, s) for n, s in zip(names, arg_shapes)]
    grads = [wrap(np.zeros(s, np.dtype(types[n]))) if r != "null" else None for n, s, r in zip(names, arg_shapes, reqs)]
    states = [shared_aux[n] if n in shared_aux and shared_aux[n].shape == s else new(n, s) for n, s in zip(aux_names, aux_shapes)]
    return Executor(symbol, ctx or current_context(), args, grads, reqs, states)
