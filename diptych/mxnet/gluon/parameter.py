"""Parameter: a learnable array, one copy for each context, that may get its shape later."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.mxnet import autograd, initializer, ndarray, symbol
from diptych.mxnet.base import dtype_name
from diptych.mxnet.context import Context, cpu, current_context
from diptych.mxnet.gluon.parameter_access import Access, DeferredInitializationError, device_of
from diptych.mxnet.ndarray.ndarray import NDArray
from diptych.mxnet.tape import state

if TYPE_CHECKING:
    from diptych.mxnet.gluon.trainer import Trainer
    from diptych.mxnet.symbol.symbol import Symbol

__all__ = ["Constant", "DeferredInitializationError", "Parameter", "tensor_types"]

tensor_types = (symbol.Symbol, NDArray)
_STYPES = ("default", "row_sparse", "csr")


def _contexts(ctx: Any) -> list[Context]:
    if ctx is None:
        return [current_context()]
    return [ctx] if isinstance(ctx, Context) else list(ctx)


def known(shape: Any) -> bool:
    """Whether all extents are known: -1 and 0 stand for unknown ones, as no parameter is empty."""
    return shape is not None and all(d > 0 for d in shape)


def _type_of(x: Any) -> str:
    """The name of the element type of an array."""
    return dtype_name(x.dtype)


class Parameter(Access):
    """A learnable array of a Block.

    >>> from diptych.mxnet import gluon
    >>> w = gluon.Parameter("weight", shape=(2, 3), init="ones")
    >>> w.initialize()
    >>> w.data().shape, w.grad().asnumpy().sum().item()
    ((2, 3), 0.0)

    `grad_req` is "write", "add" or "null"; extents of `shape` that are 0 (or -1) are filled in by the first forward pass
    when allow_deferred_init is True.
    """

    def __init__(self, name: str, grad_req: str = "write", shape: Any = None, dtype: Any = np.float32, lr_mult: float = 1.0,
                 wd_mult: float = 1.0, init: Any = None, allow_deferred_init: bool = False, differentiable: bool = True,
                 stype: str = "default", grad_stype: str = "default") -> None:  # fmt: skip
        for what, given in (("stype", stype), ("grad_stype", grad_stype)):
            if given not in _STYPES:
                raise AssertionError(f"{what}='{given}' of '{name}': there are 'default', 'row_sparse' and 'csr'")
        self.name = name
        self._var: Symbol | None = None
        self._data = None
        self._grad = None
        self._ctx_list = None
        self._places = {}
        self._trainer = None
        self._deferred_init = ()
        self._differentiable = differentiable
        self._allow_deferred_init = allow_deferred_init
        self._grad_req: str | None = None
        self._shape = (shape,) if isinstance(shape, int) else None if shape is None else tuple(shape)
        self._dtype = dtype
        self.lr_mult, self.wd_mult = lr_mult, wd_mult
        self.grad_req = grad_req
        self.init = init
        self._stype, self._grad_stype = stype, grad_stype

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.name} (shape={self.shape}, dtype={self.dtype})"

    # -- properties -------------------------------------------------------------------------------------------
    @property
    def grad_req(self) -> str:
        """What backward does with the gradient: "write", "add" or "null"."""
        return self._grad_req or "write"

    @grad_req.setter
    def grad_req(self, req: str) -> None:
        if req not in ("write", "add", "null"):
            raise AssertionError(f"grad_req='{req}': there are 'write', 'add' and 'null'")
        if not self._differentiable:
            req = "null"
        if self._grad_req == req:
            return
        self._grad_req = req
        if req == "null" and self._grad is not None:
            self._grad = None
            self._data = [d.detach() for d in self._data]
        elif self._data is not None:
            self._init_grad()

    @property
    def dtype(self) -> Any:
        """The element type."""
        return self._dtype

    @dtype.setter
    def dtype(self, dtype: Any) -> None:
        self.cast(dtype)

    @property
    def shape(self) -> Any:
        """The extents; None, or with unknown extents, before the first forward pass."""
        if self._shape is None or not state.np_shape:
            return self._shape
        return tuple(-1 if d == 0 else d for d in self._shape)

    @shape.setter
    def shape(self, new: Any) -> None:
        if self._shape is None:
            self._shape = tuple(new)
            return
        if len(self._shape) != len(new) or not all(a in (-1, 0, b) for a, b in zip(self._shape, new)):
            raise AssertionError(f"Expected shape {tuple(new)} is incompatible with given shape {self._shape} for Parameter {self.name}.")
        self._shape = tuple(new)

    @property
    def stype(self) -> str:
        """The storage type."""
        return self._stype

    @property
    def grad_stype(self) -> str:
        """The storage type of the gradient."""
        return self._grad_stype

    def _set_trainer(self, trainer: Trainer | None) -> None:
        if self._stype != "default" and self._trainer and trainer and self._trainer is not trainer:
            raise RuntimeError(f"Parameter '{self.name}' is sparse and belongs to a Trainer already: it "
                               "cannot have a second one")  # fmt: skip
        self._trainer = trainer

    # -- initialisation ---------------------------------------------------------------------------------------
    def initialize(self, init: Any = None, ctx: Any = None, default_init: Any = None, force_reinit: bool = False) -> None:
        """Make the arrays (later, when the shape is not known yet), by `init`, the parameter's own, or `default_init`."""
        if self._data is not None and not force_reinit:
            warnings.warn(f"Parameter '{self.name}' keeps its values: it was initialized before (force_reinit=True makes new ones)",
                          stacklevel=2)  # fmt: skip
            return
        self._data = self._grad = None
        contexts = _contexts(ctx)
        fallback = default_init if default_init is not None else initializer.Uniform()
        if init is None:
            init = fallback if self.init is None else self.init
        if not known(self._shape):
            if self._allow_deferred_init:
                self._deferred_init = (init, contexts, fallback, None)
                return
            raise ValueError(f"'{self.name}' cannot be initialized: of its shape {self.shape} something is unknown")
        self._deferred_init = (init, contexts, fallback, None)
        self._finish_deferred_init()

    def _finish_deferred_init(self) -> None:
        if not self._deferred_init:
            return
        init, contexts, fallback, data = self._deferred_init
        self._deferred_init = ()
        if not known(self._shape):
            raise AssertionError(
                f"'{self.name}' cannot be initialized: of its shape {self.shape} something is unknown. Give the layer in_units, "
                "in_channels or the like, or let a first call tell")  # fmt: skip
        with autograd.pause():
            if data is None:
                data = ndarray.zeros(self._shape, ctx=cpu(), dtype=self.dtype)
                initializer.create(fallback)(initializer.InitDesc(self.name, {"__init__": init}), data)
                if self._stype != "default":
                    data = data.tostype(self._stype)
            self._init_impl(data, contexts)

    def _init_impl(self, data: NDArray, contexts: list[Context]) -> None:
        self._ctx_list = list(contexts)
        self._places = {device_of(c): i for i, c in enumerate(contexts)}
        self._data = [data.copyto(c) for c in contexts]
        self._init_grad()

    def _init_grad(self) -> None:
        if self.grad_req == "null":
            self._grad = None
            return
        self._grad = [ndarray.zeros(d.shape, dtype=d.dtype, ctx=c, stype=self._grad_stype) if self._grad_stype != "default"
                      else ndarray.zeros(d.shape, dtype=d.dtype, ctx=c) for c, d in zip(self._ctx_list or (), self._data)]  # fmt: skip
        autograd.mark_variables(self._data, self._grad, self.grad_req)

    def _load_init(self, data: NDArray, ctx: Any, cast_dtype: bool = False, dtype_source: str = "current") -> None:
        """Take over values read from a file, as the parameter's own when it has none yet."""
        if dtype_source not in ("current", "saved"):
            raise AssertionError("dtype_source must be in ['current', 'saved']")
        if self._shape is not None:
            unknown = (-1, 0)
            if len(self._shape) != len(data.shape) or not all(a in unknown or a == b for a, b in zip(self._shape, data.shape)):
                raise AssertionError(
                    f"Parameter '{self.name}' has another shape in the file: here {self.shape}, there "
                    f"{data.shape}")  # fmt: skip
            self._shape = tuple(b if a in unknown else a for a, b in zip(self._shape, data.shape))
        else:
            self._shape = tuple(data.shape)
        if self._dtype is not None and dtype_name(self.dtype) != _type_of(data):
            if not cast_dtype:
                raise AssertionError(
                    f"Parameter '{self.name}' has another type in the file: here "
                    f"{dtype_name(self.dtype)}, there {_type_of(data)}; cast_dtype=True converts it")
            if dtype_source == "current":
                data = data.astype(self.dtype)
            else:
                self.cast(data.dtype)
        else:
            self._dtype = data.dtype
        if self._stype != data.stype:
            data = data.tostype(self._stype)
        contexts = None if ctx is None else _contexts(ctx)
        if self._data is None:
            if self._deferred_init:
                if contexts is not None and set(contexts) != set(self._deferred_init[1]):
                    raise AssertionError(f"Parameter '{self.name}' cannot be loaded into {contexts}: it was initialized "
                                         f"in {self.list_ctx()}")  # fmt: skip
                contexts = self._deferred_init[1]
            elif contexts is None:
                contexts = [cpu()]
            self._init_impl(data, contexts)
        else:
            if contexts is not None and set(contexts) != set(self.list_ctx()):
                raise AssertionError(f"Parameter '{self.name}' cannot be loaded into {contexts}: it lies in "
                                     f"{self.list_ctx()}")  # fmt: skip
            self.set_data(data)
        self._deferred_init = ()

    def reset_ctx(self, ctx: Any) -> None:
        """Move the parameter to other contexts."""
        contexts = _contexts(ctx)
        if self._data is not None:
            data = self._reduce()
            with autograd.pause():
                self._init_impl(data, contexts)
        elif self._deferred_init:
            init, _, fallback, data = self._deferred_init
            self._deferred_init = (init, contexts, fallback, data)
        else:
            raise ValueError(f"reset_ctx: '{self.name}' has no values yet, initialize(ctx=...) gives them")

    def set_data(self, data: Any) -> None:
        """Write these values into the arrays of all contexts."""
        self.shape = data.shape
        if self._data is None:
            if not self._deferred_init:
                raise AssertionError(f"'{self.name}' has no values yet: initialize() gives them")
            self._deferred_init = (*self._deferred_init[:3], data if isinstance(data, NDArray) else ndarray.array(data, dtype=self.dtype))
            return
        # A store that updates parameters itself would go on from the old value.
        if self._trainer and self._trainer._kv_initialized and self._trainer._update_on_kvstore:
            self._trainer._reset_kvstore()
        with autograd.pause():
            for array in self._check_and_get(self._data, list):
                if array.stype == "default" and getattr(data, "stype", "default") == "default":
                    array[:] = data
                else:
                    (data if isinstance(data, NDArray) else ndarray.array(data)).copyto(array)

    # -- the rest ---------------------------------------------------------------------------------------------
    def var(self) -> Symbol:
        """The symbol of the parameter."""
        if self._var is None:
            self._var = symbol.var(self.name, shape=self.shape, dtype=self.dtype, lr_mult=self.lr_mult, wd_mult=self.wd_mult,
                                   init=self.init, stype=self._stype)  # fmt: skip
        return self._var

    def cast(self, dtype: Any) -> None:
        """Change the element type, of the arrays too when there are any."""
        self._dtype = dtype
        if self._data is None:
            return
        with autograd.pause():
            self._data = [d.astype(dtype) for d in self._data]
            for d, c in zip(self._data, self._ctx_list or ()):
                d._ctx = c
            if self._grad is None:
                return
            self._grad = [g.astype(dtype) for g in self._grad]
            autograd.mark_variables(self._data, self._grad, self.grad_req)

    def _reduce(self) -> NDArray:
        """The mean over contexts, as it is saved."""
        if self._stype != "default":
            rows = ndarray.arange(0, self._shape[0], dtype="int64", ctx=self.list_ctx()[0])  # type: ignore[index]
            if self._trainer:
                self._trainer._row_sparse_pull(self, self._data[0], rows, full_idx=True)
            return self._data[0].copyto(cpu())  # type: ignore[no-any-return]
        block = self.list_data()
        if len(block) == 1:
            return block[0].copyto(cpu())
        total = block[0]._data.astype(np.float32 if block[0]._data.dtype.kind != "f" else block[0]._data.dtype)
        for other in block[1:]:
            total = total + other._data
        return ndarray.array(total / len(block), dtype=self.dtype)


class Constant(Parameter):
    """An array that belongs to a Block but is not trained.

    >>> from diptych.mxnet import gluon
    >>> c = gluon.Constant("const", [[1, 2], [3, 4]])
    >>> c.initialize()
    >>> c.data().asnumpy().sum().item(), c.grad_req
    (10.0, 'null')
    """

    def __init__(self, name: str, value: Any) -> None:
        if not isinstance(value, NDArray):
            value = ndarray.array(value)
        self.value = value

        class Init(initializer.Initializer):
            """Writes the value of the constant."""

            def _init_weight(self, _: Any, arr: Any) -> None:
                value.copyto(arr)

        registered = f"Constant_{name}_{id(self)}"
        initializer.alias(registered)(Init)
        super().__init__(name, grad_req="null", shape=value.shape, dtype=value.dtype, init=registered)

    def __repr__(self) -> str:
        return f"Constant {self.name} (shape={self.shape}, dtype={self.dtype})"

    @property
    def grad_req(self) -> str:
        """Always "null"."""
        return "null"

    @grad_req.setter
    def grad_req(self, req: str) -> None:
        if req != "null":
            warnings.warn(f'"{self.name}" is a constant, which has no gradient: grad_req="{req}" is '
                          "passed over", stacklevel=2)  # fmt: skip
