"""HybridBlock: a block that is written once and runs on arrays as well as on symbols, hence as one compiled graph."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from diptych.mxnet import ndarray, symbol
from diptych.mxnet.base import MXNetError
from diptych.mxnet.cached_op import CachedOp
from diptych.mxnet.gluon.block import Block
from diptych.mxnet.gluon.parameter import DeferredInitializationError
from diptych.mxnet.gluon.parameter_dict import ParameterDict
from diptych.mxnet.gluon.scope import flatten, gather, regroup
from diptych.mxnet.ndarray.ndarray import NDArray
from diptych.mxnet.symbol.infer import infer_shape
from diptych.mxnet.symbol.np_symbol import NumpySymbol
from diptych.mxnet.symbol.symbol import Symbol
from diptych.mxnet.util import is_np_array

if TYPE_CHECKING:
    from collections.abc import Callable

    from diptych.mxnet.gluon.utils import HookHandle

__all__ = ["HybridBlock"]


class HybridBlock(Block):
    """A block whose forward pass is `hybrid_forward(F, x, ..., **parameters)`, F being `mx.nd` or `mx.sym`.

    >>> from diptych.mxnet import gluon, nd
    >>> class Scaled(gluon.HybridBlock):
    ...     def __init__(self, **kwargs):
    ...         super().__init__(**kwargs)
    ...         with self.name_scope():
    ...             self.scale = self.params.get("scale", shape=(1,), init="ones")
    ...
    ...     def hybrid_forward(self, F, x, scale):
    ...         return F.broadcast_mul(x, scale)
    >>> net = Scaled()
    >>> net.initialize()
    >>> net.hybridize()
    >>> net(nd.ones((2, 1))).shape
    (2, 1)
    """

    _tells_unused = True

    def __init__(self, prefix: str | None = None, params: ParameterDict | None = None) -> None:
        super().__init__(prefix=prefix, params=params)
        self._active = False
        self._flags: dict[str, Any] = {}
        self._cached_graph: Any = ()
        self._cached_op: CachedOp | None = None
        self._cached_op_args: list[tuple[bool, Any]] = []
        self._in_format: Any = None
        self._out_format: Any = None
        self._np_outputs: list[bool] = []  # which outputs are of the NumPy-like interface
        self._callback: Callable[..., Any] | None = None
        self._monitor_all = False
        self._graph_names: dict[str, str] = {}  # names of parameters -> those in a graph read by `load`

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if isinstance(value, HybridBlock):
            self._clear_cached_op()

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        state.update(_cached_graph=(), _cached_op=None, _cached_op_args=[])
        return state

    def _clear_cached_op(self) -> None:
        self._cached_graph = ()
        self._cached_op = None

    def register_child(self, block: Block, name: str | None = None) -> None:
        """Make a HybridBlock a child of this one."""
        if not isinstance(block, HybridBlock):
            raise ValueError(f"a HybridBlock can only hold HybridBlocks: {block} has type {type(block)}. In place of "
                             "Sequential, use HybridSequential")  # fmt: skip
        super().register_child(block, name)
        self._clear_cached_op()

    def hybridize(self, active: bool = True, backend: str | None = None, clear: bool = True, static_alloc: bool = False,
                  static_shape: bool = False, inline_limit: int = 2, forward_bulk_size: int | None = None,
                  backward_bulk_size: int | None = None, **kwargs: Any) -> None:  # fmt: skip
        """Run as a compiled graph from the next call on; the flags about memory have no effect, it is always static."""
        if backend is not None:
            raise MXNetError(f"backend {backend!r} is not registered; hybridized blocks are compiled by diptych itself")
        self._active = active
        self._flags = {"static_alloc": static_alloc, "static_shape": static_shape, "inline_limit": inline_limit, **kwargs}
        if clear:
            self._clear_cached_op()
        if active and (self._forward_hooks or self._forward_pre_hooks):
            warnings.warn(f'"{self}" has forward hooks: inside of a hybridized '
                          "block they are not called", stacklevel=2)  # fmt: skip
        super().hybridize(active, static_alloc=static_alloc, static_shape=static_shape, inline_limit=inline_limit, **kwargs)

    def cast(self, dtype: Any) -> None:
        """Change the element type of all parameters."""
        self._clear_cached_op()
        super().cast(dtype)

    def optimize_for(self, x: Any, *args: Any, backend: str | None = None, clear: bool = False, **kwargs: Any) -> None:
        """Hybridize and run once; there are no other backends."""
        self.hybridize(True, backend, clear)
        self(x, *args)

    def register_op_hook(self, callback: Callable[..., Any], monitor_all: bool = False) -> None:
        """Call `callback(name of the output, operator, array)` for every operator of the compiled graph."""
        self._callback, self._monitor_all = callback, monitor_all
        if self._cached_op is not None:
            self._hook()
        super().register_op_hook(callback, monitor_all)

    def _hook(self) -> None:
        callback, cached = self._callback, self._cached_op
        assert callback is not None
        assert cached is not None
        cached._register_op_hook(callback, self._monitor_all)

    # -- the graph --------------------------------------------------------------------------------------------
    def _get_graph(self, *args: Any) -> tuple[list[Symbol], Symbol]:
        if not self._cached_graph:
            flat, self._in_format = flatten(args, "input")
            count = sum(x is not None for x in flat)
            if not count:
                raise ValueError("a HybridBlock needs an array or a symbol, all arguments are None")
            inputs: list[Symbol] = []
            placed: list[Symbol | None] = []
            for x in flat:
                if x is None:
                    placed.append(None)
                    continue
                made = symbol.var("data" if count == 1 else f"data{len(inputs)}")
                inputs.append(made.as_np_ndarray() if is_np_array() else made)
                placed.append(inputs[-1])
            grouped, _ = regroup(placed, self._in_format)
            params = self._variables()
            with self.name_scope():
                out = self.hybrid_forward(symbol, *grouped, **params)
            flat_out, self._out_format = flatten(out, "output")
            self._np_outputs = [isinstance(x, NumpySymbol) for x in flat_out]
            self._cached_graph = inputs, symbol.Group(flat_out) if len(flat_out) > 1 else flat_out[0]
        return self._cached_graph  # type: ignore[no-any-return]

    def _variables(self) -> dict[str, Symbol]:
        """The parameters as variables, of the kind of symbols in use."""
        made = {k: v.var() for k, v in self._reg_params.items()}
        return {k: v.as_np_ndarray() for k, v in made.items()} if is_np_array() else made

    def _build_cache(self, *args: Any) -> None:
        inputs, out = self._get_graph(*args)
        names = out.list_inputs()
        places = {x.name: i for i, x in enumerate(inputs)}
        params = {self._graph_names.get(k, k): v for k, v in self.collect_params().items()}
        used = set(names)
        unused = [n for n in places if n not in used]
        if unused:
            raise_or = ", ".join(f"{places[n]}-th" for n in unused if n is not None)
            warnings.warn(f"The {raise_or} input of this HybridBlock is not read", stacklevel=5)
        for name, p in params.items():
            if name not in used and p.grad_req != "null" and self._tells_unused:
                warnings.warn(f"nothing is computed from the parameter {name}", stacklevel=5)
        for name in names:
            if name not in places and name not in params:
                raise RuntimeError(f"the graph needs {name}, which is neither an input nor a parameter of the block")
        self._cached_op_args = [(True, places[n]) if n in places else (False, params[n]) for n in names]
        self._cached_op = CachedOp(out, tuple(self._flags.items()), [n for n in names if n not in places])
        if self._callback is not None:
            self._hook()

    def _call_cached_op(self, *args: Any) -> Any:
        if self._cached_op is None:
            self._build_cache(*args)
        cached = self._cached_op
        assert cached is not None
        flat, form = flatten(args, "input")
        if form != self._in_format and not _same_but_defaults(form, self._in_format):
            raise ValueError("the arguments are nested in another way than when the block was traced: then "
                             f"{self._in_format}, now {form} (0 stands for an array)")  # fmt: skip
        flat = [x for x in flat if x is not None]
        ctx = flat[0].context
        try:
            operands = [flat[p] if is_data else p.data(ctx) for is_data, p in self._cached_op_args]
        except DeferredInitializationError:
            self._deferred_infer_shape(*args)
            operands = []
            for is_data, p in self._cached_op_args:
                if is_data:
                    operands.append(flat[p])
                else:
                    p._finish_deferred_init()
                    operands.append(p.data(ctx))
        out = cached(*operands)
        out = [out] if isinstance(out, NDArray) else out
        if any(self._np_outputs):
            out = [x.as_np_ndarray() if numpy_like else x.as_nd_ndarray() for x, numpy_like in zip(out, self._np_outputs)]
        return regroup(out, self._out_format)[0]

    def _deferred_infer_shape(self, *args: Any) -> None:
        try:
            self.infer_shape(*args)
        except Exception as error:
            raise ValueError(f"the shapes of the parameters do not follow from the inputs: {error}") from error

    def infer_shape(self, *args: Any) -> None:
        """Find the shapes of the parameters from those of the inputs."""
        inputs, out = self._get_graph(*args)
        flat = [x for x in flatten(args, "input")[0] if x is not None]
        used = set(out.list_inputs())
        given = {str(s.name): x for s, x in zip(inputs, flat) if s.name in used}
        found, _, states = infer_shape(out, False, (), {k: x.shape for k, x in given.items()}, {k: x.dtype for k, x in given.items()})
        if found is None:
            raise ValueError(f"the shapes of the inputs {[x.shape for x in flat]} do not tell those of all parameters of {self.name}")
        shapes = dict(zip(out.list_arguments(), found)) | dict(zip(out.list_auxiliary_states(), states))
        for name, p in self.collect_params().items():
            name = self._graph_names.get(name, name)
            if name in shapes:
                p.shape = shapes[name]

    def infer_type(self, *args: Any) -> None:
        """Find the element types of the parameters from those of the inputs."""
        inputs, out = self._get_graph(*args)
        flat = [x for x in flatten(args, "input")[0] if x is not None]
        found, _, states = out.infer_type(**{str(s.name): x.dtype for s, x in zip(inputs, flat)})
        types = dict(zip(out.list_arguments(), found)) | dict(zip(out.list_auxiliary_states(), states))
        for name, p in self.collect_params().items():
            if name in types:
                p.dtype = types[name]

    def export(self, path: str, epoch: int = 0, remove_amp_cast: bool = True) -> tuple[str, str]:
        """Write `path-symbol.json` and `path-0000.params` (the epoch's number) for Module, SymbolBlock and diptych.load."""
        if not self._cached_graph:
            raise RuntimeError("export writes the graph of a call: hybridize(), then call the block once, then "
                               "export.")  # fmt: skip
        out = self._cached_graph[1]
        symbol_file, params_file = f"{path}-symbol.json", f"{path}-{epoch:04d}.params"
        out.save(symbol_file)
        arguments, states = set(out.list_arguments()), set(out.list_auxiliary_states())
        arrays = {}
        for is_data, p in self._cached_op_args:
            if not is_data:
                if p.name in arguments:
                    arrays[f"arg:{p.name}"] = p._reduce()
                elif p.name in states:
                    arrays[f"aux:{p.name}"] = p._reduce()
        ndarray.save(params_file, arrays)
        return symbol_file, params_file

    # -- running ----------------------------------------------------------------------------------------------
    def forward(self, x: Any, *args: Any) -> Any:
        """Run `hybrid_forward` on arrays or symbols, or the compiled graph when the block is hybridized."""
        arrays, symbols_given, contexts = gather([x, *args])
        if arrays and symbols_given:
            raise ValueError("arrays and symbols are mixed in one call of a HybridBlock: give the ones or the others")
        if arrays:
            if self._active:
                if len(contexts) > 1:
                    raise ValueError(f"a hybridized block runs in one context, its inputs lie in several: {contexts}")
                return self._call_cached_op(x, *args)
            ctx = next(iter(contexts))
            try:
                params = {k: v.data(ctx) for k, v in self._reg_params.items()}
            except DeferredInitializationError:
                self._deferred_infer_shape(x, *args)
                for p in self.params.values():
                    p._finish_deferred_init()
                params = {k: v.data(ctx) for k, v in self._reg_params.items()}
            return self.hybrid_forward(ndarray, x, *args, **params)
        if not symbols_given:
            raise ValueError("a HybridBlock is called on arrays or symbols, and there are none")
        symbols = self._variables()
        with self.name_scope():
            return self.hybrid_forward(symbol, x, *args, **symbols)

    def hybrid_forward(self, F: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
        """The computation; subclasses define it."""
        raise NotImplementedError

    def register_forward_hook(self, hook: Callable[..., Any]) -> HookHandle:
        """Call `hook(block, inputs, outputs)` after every forward pass."""
        if self._active:
            warnings.warn(f'"{self}" is hybridized: hooks of blocks inside a hybridized block do not take effect.', stacklevel=2)
        return super().register_forward_hook(hook)


def _same_but_defaults(a: Any, b: Any) -> bool:
    """Whether two formats of arguments differ only by a None at the end that stands for a default."""
    if not isinstance(a, list) or not isinstance(b, list):
        return False
    n = min(len(a), len(b))
    return bool(a[:n] == b[:n] and all(f == -1 for f in (*a[n:], *b[n:])))
