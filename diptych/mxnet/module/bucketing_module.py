"""BucketingModule: one module for every length of sequence, with the parameters in common."""

from __future__ import annotations

import logging
import warnings
from typing import Any

from diptych.mxnet.initializer import Uniform
from diptych.mxnet.model import load_params, save_checkpoint
from diptych.mxnet.module.base_module import BaseModule
from diptych.mxnet.module.module import Module
from diptych.mxnet.name import NameManager

__all__ = ["BucketingModule"]


class BucketingModule(BaseModule):
    """`sym_gen(bucket_key)` gives (symbol, data names, label names); batches say their `bucket_key`.

    default_bucket_key: the bucket with the largest arrays, bound first.
    """

    def __init__(self, sym_gen: Any, default_bucket_key: Any = None, logger: Any = logging, context: Any = None,
                 work_load_list: Any = None, fixed_param_names: Any = None, state_names: Any = None, group2ctxs: Any = None,
                 compression_params: Any = None) -> None:  # fmt: skip
        super().__init__(logger)
        if default_bucket_key is None:
            raise AssertionError("default_bucket_key is None; give the key of the largest bucket")
        self._default_bucket_key = default_bucket_key
        self._sym_gen = sym_gen
        self._options = {"logger": logger, "context": context, "work_load_list": work_load_list,
                         "fixed_param_names": fixed_param_names, "state_names": state_names, "group2ctxs": group2ctxs,
                         "compression_params": compression_params}  # fmt: skip
        symbol, data_names, label_names = self._called(default_bucket_key)
        Module(symbol, data_names, label_names, **self._options)  # errors in the names show here
        self._params_dirty = False
        self._buckets: dict[Any, Module] = {}
        self._curr_module: Any = None
        self._curr_bucket_key: Any = None
        self._grad_req: Any = None
        self._monitor: Any = None

    def _called(self, key: Any) -> tuple[Any, Any, Any]:
        if self._sym_gen is None:
            raise AssertionError("sym_gen is None; give the function that makes the symbol of a bucket")
        with NameManager():  # the same names for every bucket
            symbol, data_names, label_names = self._sym_gen(key)
        return symbol, data_names, label_names

    def _made(self, key: Any) -> Module:
        symbol, data_names, label_names = self._called(key)
        return Module(symbol, data_names, label_names, **self._options)

    def _bound(self) -> Any:
        if not self.binded:
            raise AssertionError("the module is not bound; call bind first")
        return self._curr_module

    # -- what it is -------------------------------------------------------------------------------------------
    @property
    def data_names(self) -> Any:
        """Names of the data."""
        return self._curr_module.data_names if self.binded else self._called(self._default_bucket_key)[1]

    @property
    def output_names(self) -> Any:
        """Names of the outputs."""
        return self._curr_module.output_names if self.binded else self._called(self._default_bucket_key)[0].list_outputs()

    @property
    def data_shapes(self) -> Any:
        """Descriptions of the data of the bucket in use."""
        return self._bound().data_shapes

    @property
    def label_shapes(self) -> Any:
        """Descriptions of the labels of the bucket in use."""
        return self._bound().label_shapes

    @property
    def output_shapes(self) -> Any:
        """Names and shapes of the outputs of the bucket in use."""
        return self._bound().output_shapes

    @property
    def symbol(self) -> Any:
        """The symbol of the bucket in use."""
        return self._bound().symbol

    # -- parameters -------------------------------------------------------------------------------------------
    def get_params(self) -> Any:
        """(arguments, auxiliary states)."""
        self._ready()
        self._curr_module._params_dirty = self._params_dirty
        found = self._curr_module.get_params()
        self._params_dirty = False
        return found

    def init_params(self, initializer: Any = Uniform(0.01), arg_params: Any = None, aux_params: Any = None,  # noqa: B008
                    allow_missing: bool = False, force_init: bool = False, allow_extra: bool = False) -> None:  # fmt: skip
        """Give parameters their first values."""
        if self.params_initialized and not force_init:
            return
        self._bound().init_params(initializer, arg_params, aux_params, allow_missing, force_init, allow_extra)
        self._params_dirty = False
        self.params_initialized = True

    def set_params(self, arg_params: Any, aux_params: Any, allow_missing: bool = False, force_init: bool = True,
                   allow_extra: bool = False) -> None:  # fmt: skip
        """Take over parameters."""
        if not allow_missing:
            self.init_params(None, arg_params, aux_params, False, force_init, allow_extra)
            return
        if self.params_initialized and not force_init:
            warnings.warn("set_params did nothing: there are parameters already, force_init=True replaces them", stacklevel=2)
            return
        self._curr_module.set_params(arg_params, aux_params, allow_missing, force_init, allow_extra)
        self._params_dirty = True  # the arrays of the executors are newer than those kept beside them
        self.params_initialized = True

    def get_states(self, merge_multi_context: bool = True) -> Any:
        """The states of the bucket in use."""
        self._ready()
        return self._curr_module.get_states(merge_multi_context)

    def set_states(self, states: Any = None, value: Any = None) -> None:
        """Set the states of the bucket in use."""
        self._ready()
        self._curr_module.set_states(states, value)

    # -- binding ----------------------------------------------------------------------------------------------
    def bind(self, data_shapes: Any, label_shapes: Any = None, for_training: bool = True, inputs_need_grad: bool = False,
             force_rebind: bool = False, shared_module: Any = None, grad_req: Any = "write") -> None:  # fmt: skip
        """Bind the default bucket; the others are bound when a batch needs them."""
        if shared_module is not None:
            raise AssertionError("a BucketingModule shares arrays among its own buckets only: no shared_module")
        params = self.get_params() if self.params_initialized and self.binded else None
        if force_rebind:
            self.binded = False
            self._buckets, self._curr_module = {}, None
        if self.binded:
            self.logger.warning("bound already, this bind() does nothing (force_rebind=True binds again)")
            return
        self.for_training, self.inputs_need_grad, self._grad_req = for_training, inputs_need_grad, grad_req
        module = self._made(self._default_bucket_key)
        module.bind(data_shapes, label_shapes, for_training, inputs_need_grad, False, None, grad_req)
        self.binded = True
        self._curr_module, self._curr_bucket_key = module, self._default_bucket_key
        self._buckets[self._default_bucket_key] = module
        if params is not None:
            self.set_params(*params)
        elif self.params_initialized:  # loaded from a file before binding
            module.init_params(None, self._loaded[0], self._loaded[1], force_init=True)

    _loaded: tuple[Any, Any] = ({}, {})

    def switch_bucket(self, bucket_key: Any, data_shapes: Any, label_shapes: Any = None) -> None:
        """Use another bucket, made and bound on first use with the arrays of the default one."""
        self._bound()
        if bucket_key not in self._buckets:
            module = self._made(bucket_key)
            module.bind(data_shapes, label_shapes, self._curr_module.for_training, self._curr_module.inputs_need_grad,
                        shared_module=self._buckets[self._default_bucket_key] if self.params_initialized else None,
                        grad_req=self._grad_req)  # fmt: skip
            if self._monitor is not None:
                module.install_monitor(self._monitor)
            self._buckets[bucket_key] = module
        self._curr_module, self._curr_bucket_key = self._buckets[bucket_key], bucket_key

    def init_optimizer(self, kvstore: Any = "local", optimizer: Any = "sgd", optimizer_params: Any = (("learning_rate", 0.01),),
                       force_init: bool = False) -> None:  # fmt: skip
        """Choose the optimizer, one for all buckets."""
        self._ready()
        if self.optimizer_initialized and not force_init:
            self.logger.warning("the optimizer is there already (force_init=True makes another)")
            return
        self._curr_module.init_optimizer(kvstore, optimizer, optimizer_params, force_init)
        for module in self._buckets.values():
            if module is not self._curr_module:
                module.borrow_optimizer(self._curr_module)
        self.optimizer_initialized = True

    # -- running ----------------------------------------------------------------------------------------------
    def prepare(self, data_batch: Any, sparse_row_id_fn: Any = None) -> None:
        """Get the bucket of a batch ready without leaving the one in use."""
        self._ready()
        current = self._curr_bucket_key
        self.switch_bucket(data_batch.bucket_key, data_batch.provide_data, data_batch.provide_label)
        self._curr_module.prepare(data_batch, sparse_row_id_fn)
        self.switch_bucket(current, None, None)

    def forward(self, data_batch: Any, is_train: bool | None = None) -> None:
        """Compute the outputs in the bucket of the batch."""
        self._ready()
        self.switch_bucket(data_batch.bucket_key, data_batch.provide_data, data_batch.provide_label)
        if self.optimizer_initialized and not self._curr_module.optimizer_initialized:
            self._curr_module.borrow_optimizer(self._buckets[self._default_bucket_key])
        self._curr_module.forward(data_batch, is_train)

    def backward(self, out_grads: Any = None) -> None:
        """Compute the gradients."""
        self._ready()
        self._curr_module.backward(out_grads)

    def update(self) -> None:
        """Update the parameters."""
        self._ready(optimizer=True)
        self._params_dirty = True
        self._curr_module.update()

    def get_outputs(self, merge_multi_context: bool = True) -> Any:
        """The outputs of the last forward."""
        self._ready()
        return self._curr_module.get_outputs(merge_multi_context)

    def get_input_grads(self, merge_multi_context: bool = True) -> Any:
        """The gradients of the data."""
        self._ready()
        return self._curr_module.get_input_grads(merge_multi_context)

    def update_metric(self, eval_metric: Any, labels: Any, pre_sliced: bool = False) -> None:
        """Count the outputs of the last batch."""
        self._ready()
        self._curr_module.update_metric(eval_metric, labels, pre_sliced)

    def install_monitor(self, mon: Any) -> None:
        """Let a Monitor look at the values of all buckets."""
        self._bound()
        self._monitor = mon
        for module in self._buckets.values():
            module.install_monitor(mon)

    # -- files ------------------------------------------------------------------------------------------------
    def save_checkpoint(self, prefix: str, epoch: int, remove_amp_cast: bool = False) -> None:
        """Write the parameters, and the symbol of every bucket as `PREFIX-KEY-symbol.json`."""
        self._ready()
        args, aux = self.get_params()
        save_checkpoint(prefix, epoch, None, args, aux, remove_amp_cast)
        for key in self._buckets:
            self._called(key)[0].save(f"{prefix}-{key}-symbol.json", remove_amp_cast=remove_amp_cast)

    @staticmethod
    def load(prefix: str, epoch: int, sym_gen: Any = None, default_bucket_key: Any = None, **kwargs: Any) -> BucketingModule:
        """The module of a checkpoint."""
        if sym_gen is None:
            raise AssertionError("load needs sym_gen, which no file holds")
        if default_bucket_key is None:
            raise AssertionError("load needs default_bucket_key, which no file holds")
        made = BucketingModule(sym_gen, default_bucket_key, **kwargs)
        made._loaded = load_params(prefix, epoch)
        made.params_initialized = True
        return made

    @staticmethod
    def load_dict(sym_dict: dict[Any, Any] | None = None, sym_gen: Any = None, default_bucket_key: Any = None,
                  arg_params: Any = None, aux_params: Any = None, **kwargs: Any) -> BucketingModule:  # fmt: skip
        """A module with these parameters; sym_dict: symbols by bucket in place of sym_gen."""
        if sym_gen is None:
            if sym_dict is None:
                raise AssertionError("give sym_gen, or sym_dict with the symbols of the buckets")
            raise AssertionError("sym_dict alone does not say which arguments are data; give sym_gen")
        made = BucketingModule(sym_gen, default_bucket_key, **kwargs)
        made._loaded = (arg_params or {}, aux_params or {})
        made.params_initialized = True
        return made
