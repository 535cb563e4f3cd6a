"""Module: a symbol with parameters and an optimizer."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.mxnet import kvstore as kv
from diptych.mxnet import optimizer as opt
from diptych.mxnet.context import Context, cpu
from diptych.mxnet.initializer import InitDesc, Uniform
from diptych.mxnet.io.base import DataDesc
from diptych.mxnet.model import load_checkpoint
from diptych.mxnet.module.executor_group import DataParallelExecutorGroup, described
from diptych.mxnet.module.module_parts import ModuleParts
from diptych.mxnet.ndarray.sparse import zeros

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diptych.mxnet.ndarray.ndarray import NDArray

__all__ = ["Module"]

_BIG = 1 << 24  # arrays of more elements are updated outside of the store


def chosen_store(given: Any, devices: int, arg_params: dict[str, NDArray]) -> tuple[Any, bool]:
    """The store of a module and whether it carries out the updates, as MXNet chooses them."""
    if given is None:
        return None, False
    if isinstance(given, kv.KVStoreBase):
        store: Any = given
    elif isinstance(given, str):
        if devices == 1 and "dist" not in given:
            return None, False
        store = kv.create(given)
    else:
        raise TypeError("kvstore is a KVStore, a name or None")
    big = given == "local" and max((int(np.prod(p.shape)) for p in arg_params.values()), default=0) > _BIG
    return store, not big and store.is_capable("optimizer")


class Module(ModuleParts):
    """A symbol that is bound to batches of certain shapes, trained and used.

    Args:
        symbol: what is computed. data_names, label_names: which of its arguments batches give.
        context: a Context, or several that share the batch. fixed_param_names: parameters that do not change.
        state_names: arguments that are neither data nor parameters.
    """

    def __init__(self, symbol: Any, data_names: Any = ("data",), label_names: Any = ("softmax_label",), logger: Any = logging,
                 context: Any = None, work_load_list: Any = None, fixed_param_names: Any = None, state_names: Any = None,
                 group2ctxs: Any = None, compression_params: Any = None) -> None:  # fmt: skip
        super().__init__(logger)
        context = cpu() if context is None else context
        self._context = [context] if isinstance(context, Context) else list(context)
        self._work_load_list = work_load_list or [1] * len(self._context)
        if len(self._work_load_list) != len(self._context):
            raise AssertionError(f"{len(self._work_load_list)} loads for {len(self._context)} contexts")
        self._group2ctxs = group2ctxs
        self._symbol = symbol
        data, labels, states, fixed = (list[str](x or []) for x in (data_names, label_names, state_names, fixed_param_names))
        for names, kind, strict in ((data, "data", True), (labels, "label", False), (states, "state", True), (fixed, "fixed_param", True)):
            self._check_names(symbol, names, kind, strict)
        arguments = symbol.list_arguments()
        self._param_names = [n for n in arguments if n not in {*data, *labels, *states}]
        self._fixed_param_names = fixed
        self._aux_names = symbol.list_auxiliary_states()
        self._data_names, self._label_names, self._state_names = data, labels, states
        self._output_names = symbol.list_outputs()
        self._arg_params: Any = None
        self._aux_params: Any = None
        self._params_dirty = False
        self._compression_params = compression_params
        self._optimizer: Any = None
        self._kvstore: Any = None
        self._update_on_kvstore = False
        self._updater: Any = None
        self._preload_opt_states: str | None = None
        self._grad_req: Any = None
        self._exec_group: Any = None
        self._data_shapes: Any = None
        self._label_shapes: Any = None

    @staticmethod
    def _check_names(symbol: Any, names: Sequence[str], kind: str, strict: bool) -> None:
        arguments = symbol.list_arguments()
        for name in names:
            if name in arguments:
                continue
            likely = [a for a in arguments if not a.endswith(("_weight", "_bias", "_gamma", "_beta"))]
            message = (f"You created Module with Module(..., {kind}_names={names}) but input with name '{name}' is not found in "
                       "symbol.list_arguments(). Did you mean one of:\n\t" + "\n\t".join(likely))  # fmt: skip
            if strict:
                raise ValueError(message)
            warnings.warn(message, stacklevel=3)

    # -- files ------------------------------------------------------------------------------------------------
    @staticmethod
    def load(prefix: str, epoch: int, load_optimizer_states: bool = False, **kwargs: Any) -> Module:
        """The module of a checkpoint."""
        symbol, args, aux = load_checkpoint(prefix, epoch)
        made = Module(symbol=symbol, **kwargs)
        made._arg_params, made._aux_params = args, aux
        made.params_initialized = True
        if load_optimizer_states:
            made._preload_opt_states = f"{prefix}-{epoch:04d}.states"
        return made

    # -- parameters -------------------------------------------------------------------------------------------
    def get_params(self) -> tuple[dict[str, NDArray], dict[str, NDArray]]:
        """(arguments, auxiliary states)."""
        if not self.params_initialized:
            raise AssertionError("the module has no parameters; call init_params or set_params first")
        if self._params_dirty:
            self._sync_params_from_devices()
        return self._arg_params, self._aux_params

    def _sync_params_from_devices(self) -> None:
        self._exec_group.get_params(self._arg_params, self._aux_params)
        self._params_dirty = False

    def init_params(self, initializer: Any = Uniform(0.01), arg_params: Any = None, aux_params: Any = None,  # noqa: B008
                    allow_missing: bool = False, force_init: bool = False, allow_extra: bool = False) -> None:  # fmt: skip
        """Give parameters their first values: those given, the rest (if allow_missing) from the initializer."""
        if self.params_initialized and not force_init:
            warnings.warn("init_params did nothing: there are parameters already, force_init=True replaces them", stacklevel=2)
            return
        if not self.binded:
            raise AssertionError("init_params: bind() comes before, it gives the shapes")
        attrs = self._symbol.attr_dict()
        for held, given in ((self._arg_params, arg_params), (self._aux_params, aux_params)):
            for name, array in sorted(held.items()):
                if given is not None and name in given:
                    if given[name] is not array:
                        given[name].copyto(array)
                    continue
                if given is not None and not allow_missing:
                    raise RuntimeError(f"{name} is not presented")
                if initializer is not None:
                    initializer(InitDesc(name, attrs.get(name)), array)
        if not allow_extra:
            for given, held in ((arg_params, self._arg_params), (aux_params, self._aux_params)):
                extra = sorted(set(given or ()) - set(held))
                if extra:
                    raise ValueError(f"Find name \"{extra[0]}\" that is not in the arguments; pass allow_extra=True to leave it out")
        self.params_initialized = True
        self._params_dirty = False
        self._exec_group.set_params(self._arg_params, self._aux_params, allow_extra=allow_extra)

    def set_params(self, arg_params: Any, aux_params: Any, allow_missing: bool = False, force_init: bool = True,
                   allow_extra: bool = False) -> None:  # fmt: skip
        """Take over parameters; those that are missing keep their values when allow_missing."""
        if not allow_missing:
            self.init_params(None, arg_params, aux_params, False, force_init, allow_extra)
            return
        if self.params_initialized and not force_init:
            warnings.warn("set_params did nothing: there are parameters already, force_init=True replaces them", stacklevel=2)
            return
        self._exec_group.set_params(arg_params, aux_params, allow_extra=allow_extra)
        self._params_dirty = True
        self.params_initialized = True

    # -- binding ----------------------------------------------------------------------------------------------
    def _descriptions(self, data_shapes: Any, label_shapes: Any) -> tuple[list[DataDesc], list[DataDesc] | None]:
        data = described(data_shapes)
        labels = described(label_shapes) if label_shapes is not None else None
        for names, found, kind in ((self._data_names, data, "data"), (self._label_names, labels or [], "label")):
            if sorted(names) != sorted(d.name for d in found):
                message = (f"Data provided by {kind}_shapes don't match names specified by {kind}_names ({found} vs. {names})")
                if kind == "data":
                    raise ValueError(message)
                warnings.warn(message, stacklevel=3)
        return data, labels

    def bind(self, data_shapes: Any, label_shapes: Any = None, for_training: bool = True, inputs_need_grad: bool = False,
             force_rebind: bool = False, shared_module: Any = None, grad_req: Any = "write") -> None:  # fmt: skip
        """Make executors for batches of these shapes; shared_module: another module whose parameters are used."""
        if force_rebind:
            self.binded = False
            self._exec_group = self._data_shapes = self._label_shapes = None
        if self.binded:
            self.logger.warning("bound already, this bind() does nothing (force_rebind=True binds again)")
            return
        if inputs_need_grad and not for_training:
            raise AssertionError("inputs_need_grad needs for_training")
        self.for_training, self.inputs_need_grad, self._grad_req = for_training, inputs_need_grad, grad_req
        self._data_shapes, self._label_shapes = self._descriptions(data_shapes, label_shapes)
        shared = None
        if shared_module is not None:
            shared_module._ready()
            shared = shared_module._exec_group
        self._exec_group = DataParallelExecutorGroup(
            self._symbol, self._context, self._work_load_list, self._data_shapes, self._label_shapes or None, self._param_names,
            for_training, inputs_need_grad, shared, self.logger, self._fixed_param_names, grad_req, self._state_names,
            self._group2ctxs)  # fmt: skip
        self._total_exec_bytes = self._exec_group._total_exec_bytes
        self.binded = True
        if shared_module is not None:
            self.params_initialized = True
            self._arg_params, self._aux_params = shared_module._arg_params, shared_module._aux_params
            if shared_module.optimizer_initialized:
                self.borrow_optimizer(shared_module)
        elif self.params_initialized:
            self._exec_group.set_params(self._arg_params, self._aux_params)
        else:
            group = self._exec_group
            self._arg_params = {n: zeros(x[0].stype, x[0].shape, dtype=x[0].dtype) for n, x in zip(self._param_names, group.param_arrays)}
            self._aux_params = {n: zeros("default", x[0].shape, dtype=x[0].dtype) for n, x in zip(self._aux_names, group.aux_arrays)}

    def reshape(self, data_shapes: Any, label_shapes: Any = None) -> None:
        """Take batches of other shapes, with the same parameters."""
        self._bound()
        self._data_shapes, self._label_shapes = self._descriptions(data_shapes, label_shapes)
        self._exec_group.reshape(self._data_shapes, self._label_shapes or None)

    # -- optimizer --------------------------------------------------------------------------------------------
    def init_optimizer(self, kvstore: Any = "local", optimizer: Any = "sgd", optimizer_params: Any = (("learning_rate", 0.01),),
                       force_init: bool = False) -> None:  # fmt: skip
        """Choose the optimizer; by name it gets rescale_grad = 1 / batch size."""
        self._ready()
        if self.optimizer_initialized and not force_init:
            self.logger.warning("the optimizer is there already (force_init=True makes another)")
            return
        if self._params_dirty:
            self._sync_params_from_devices()
        store, on_store = chosen_store(kvstore, len(self._context), self._arg_params)
        group, devices = self._exec_group, len(self._context)
        rescale = 1.0 / group.batch_size
        if on_store:
            names = dict(enumerate(group.param_names))
        else:
            names = {i * devices + k: n for i, n in enumerate(group.param_names) for k in range(devices)}
        if isinstance(optimizer, str):
            options = {"rescale_grad": rescale, **dict(optimizer_params)}
            optimizer = opt.create(optimizer, sym=self.symbol, param_idx2name=names, **options)
        else:
            if not isinstance(optimizer, opt.Optimizer):
                raise AssertionError(f"optimizer must be a name or an Optimizer, not {type(optimizer).__name__}")
            if optimizer.rescale_grad != rescale:
                warnings.warn("the optimizer given has rescale_grad "
                              f"{optimizer.rescale_grad}, not 1 / batch size = {rescale}: gradients are sums over the batch", stacklevel=2)  # fmt: skip
            if not optimizer.idx2name:
                optimizer.idx2name = dict(names)
        self._optimizer, self._kvstore, self._update_on_kvstore = optimizer, store, on_store
        self._updater = None if on_store else opt.get_updater(optimizer)
        if store:
            if self._compression_params:
                store.set_gradient_compression(self._compression_params)
            if on_store:
                store.set_optimizer(optimizer)
            for name, arrays in zip(group.param_names, group.param_arrays):
                store.broadcast(name, self._arg_params[name], out=arrays)
        self.optimizer_initialized = True
        if self._preload_opt_states is not None:
            self.load_optimizer_states(self._preload_opt_states)
            self._preload_opt_states = None

    def borrow_optimizer(self, shared_module: Any) -> None:
        """Use the optimizer of another module."""
        shared_module._ready(optimizer=True)
        self._optimizer, self._kvstore = shared_module._optimizer, shared_module._kvstore
        self._update_on_kvstore, self._updater = shared_module._update_on_kvstore, shared_module._updater
        self.optimizer_initialized = True

    # -- running ----------------------------------------------------------------------------------------------
    def forward(self, data_batch: Any, is_train: bool | None = None) -> None:
        """Compute the outputs for a batch; one of another shape binds the module again on the same arrays."""
        self._ready()
        several = isinstance(data_batch, list)
        first = data_batch[0] if several else data_batch
        times = len(data_batch) if several else 1
        if several and any(b.data[i].shape != x.shape for b in data_batch for i, x in enumerate(first.data)):
            raise AssertionError("the batches of a list differ in shape")
        shapes = tuple((x.shape[0] * times, *x.shape[1:]) for x in first.data)
        if shapes != tuple(tuple(d.shape) for d in self._data_shapes):
            data = getattr(first, "provide_data", None) or [
                DataDesc(d.name, s, d.dtype, d.layout) for d, s in zip(self._data_shapes, shapes)
            ]
            label: Any = getattr(first, "provide_label", None)
            if not label and getattr(first, "label", None):
                label = [DataDesc(d.name, x.shape, d.dtype, d.layout) for d, x in zip(self._label_shapes or (), first.label)]
            self.reshape(data, label or None)
        self._exec_group.forward(data_batch, is_train)

    def backward(self, out_grads: Any = None) -> None:
        """Compute the gradients, from those of the outputs if given."""
        self._ready()
        self._exec_group.backward(out_grads)

    def update(self) -> None:
        """Update the parameters by their gradients."""
        self._ready(optimizer=True)
        self._params_dirty = True
        group, devices = self._exec_group, len(self._context)
        moving = [(i, name, params, grads) for i, (name, params, grads)
                  in enumerate(zip(group.param_names, group.param_arrays, group.grad_arrays)) if grads[0] is not None]  # fmt: skip
        if self._update_on_kvstore:
            for i, name, params, grads in moving:
                self._kvstore.push(name, grads, priority=-i)
                self._kvstore.pull(name, params, priority=-i, ignore_sparse=False)
            return
        if self._kvstore:
            for i, name, _, grads in moving:
                self._kvstore.pushpull(name, grads, priority=-i)
        for k in range(devices):
            if moving:
                self._updater([i * devices + k for i, *_ in moving], [g[k] for *_, g in moving], [p[k] for _, _, p, _ in moving])

    def get_outputs(self, merge_multi_context: bool = True) -> Any:
        """The outputs of the last forward."""
        self._ready()
        return self._exec_group.get_outputs(merge_multi_context)

    def get_input_grads(self, merge_multi_context: bool = True) -> Any:
        """The gradients of the data."""
        self._ready()
        return self._exec_group.get_input_grads(merge_multi_context)

    def get_states(self, merge_multi_context: bool = True) -> Any:
        """The states, by device."""
        self._ready()
        return self._exec_group.get_states(merge_multi_context)

    def set_states(self, states: Any = None, value: Any = None) -> None:
        """Set the states."""
        self._ready()
        self._exec_group.set_states(states, value)

    def update_metric(self, eval_metric: Any, labels: Any, pre_sliced: bool = False) -> None:
        """Count the outputs of the last batch."""
        self._exec_group.update_metric(eval_metric, labels, pre_sliced)

    def install_monitor(self, mon: Any) -> None:
        """Let a Monitor look at the values."""
        self._bound().install_monitor(mon)

    def prepare(self, data_batch: Any, sparse_row_id_fn: Any = None) -> None:
        """Get ready for a batch: pull the rows of row-sparse parameters that it needs."""
        self._bound()
        if sparse_row_id_fn is None:
            return
        if not self._kvstore or not self._update_on_kvstore:
            warnings.warn(UserWarning("sparse_row_id_fn is not called: the parameters are not updated on the kvstore"), stacklevel=2)
            return
        for name, rows in sparse_row_id_fn(data_batch).items():
            arrays = self._exec_group.param_arrays[self._exec_group.param_names.index(name)]
            if arrays[0].stype == "row_sparse":
                self._kvstore.row_sparse_pull(name, arrays, row_ids=rows)
