"""Trainer: carries out optimizer steps on a set of parameters."""

from __future__ import annotations

import os
from typing import Any

from diptych.mxnet import optimizer as opt
from diptych.mxnet.gluon.parameter import Parameter
from diptych.mxnet.gluon.parameter_dict import ParameterDict
from diptych.mxnet.ndarray.ndarray import NDArray

__all__ = ["Trainer"]


def _update_on_kvstore_default() -> bool:
    return bool(int(os.environ.get("MXNET_UPDATE_ON_KVSTORE", "1")))


def _new_store(name: str) -> Any:
    from diptych.mxnet import kvstore  # only training on several devices needs one

    return kvstore.create(name)


class Trainer:
    """Apply an optimizer to parameters after every backward pass.

    >>> from diptych.mxnet import autograd, gluon, nd
    >>> w = gluon.Parameter("w", shape=(1,), init="ones")
    >>> w.initialize()
    >>> trainer = gluon.Trainer([w], "sgd", {"learning_rate": 0.5})
    >>> with autograd.record():
    ...     loss = (w.data() * 2).sum()
    >>> loss.backward()
    >>> trainer.step(1)
    >>> w.data().asnumpy()
    array([0.], dtype=float32)
    """

    def __init__(self, params: Any, optimizer: Any, optimizer_params: dict[str, Any] | None = None, kvstore: Any = "device",
                 compression_params: dict[str, Any] | None = None, update_on_kvstore: bool | None = None) -> None:  # fmt: skip
        names: list[str] = []
        if isinstance(params, (dict, ParameterDict)):
            names = sorted(params.keys())
            params = [params[k] for k in names]
        if not isinstance(params, (list, tuple)):
            raise ValueError(f"Trainer(params): a ParameterDict, dict or list of Parameters, not {type(params)}")
        self._params: list[Parameter] = []
        self._param2idx: dict[str, int] = {}
        self._contains_sparse_weight = self._contains_sparse_grad = False
        for i, param in enumerate(params):
            if not isinstance(param, Parameter):
                raise ValueError(f"Trainer takes a list or dict of Parameters, there is among them a {type(param)}.")
            if param.name in self._param2idx and self._params[self._param2idx[param.name]] is param:
                continue
            self._param2idx[param.name] = i
            self._params.append(param)
            param._set_trainer(self)
            self._contains_sparse_weight |= param._stype != "default"
            self._contains_sparse_grad |= param._grad_stype != "default"
        self._compression_params = compression_params
        self._contexts = self._check_contexts()
        optimizer_params = dict(optimizer_params or {})
        self._init_optimizer(optimizer, optimizer_params)
        self._scale = self._optimizer.rescale_grad
        self._kvstore_params = {"kvstore": kvstore, "update_on_kvstore": update_on_kvstore}
        self._kv_initialized = False
        self._kvstore: Any = None
        self._update_on_kvstore: bool | None = None
        self._distributed: bool | None = None
        self._params_to_init: list[Parameter] = []
        self._reset_kvstore()

    def _check_contexts(self) -> list[Any]:
        contexts: list[Any] | None = None
        for param in self._params:
            ctx = param.list_ctx()
            if contexts is not None and contexts != ctx:
                raise AssertionError(f"the parameters of a trainer are on one set of contexts, but {param.name} is "
                                     f"on {ctx} and those before it on {contexts}")  # fmt: skip
            contexts = ctx
        return contexts or []

    def _init_optimizer(self, optimizer: Any, optimizer_params: dict[str, Any]) -> None:
        by_index = dict(enumerate(self._params))
        if isinstance(optimizer, opt.Optimizer):
            if optimizer_params:
                raise AssertionError("an Optimizer object has its options: give optimizer_params with a name only")
            self._optimizer = optimizer
            self._optimizer.param_dict = by_index
        else:
            self._optimizer = opt.create(optimizer, param_dict=by_index, **optimizer_params)
        self._updaters = [opt.get_updater(self._optimizer) for _ in self._contexts]

    # -- the store --------------------------------------------------------------------------------------------
    def _reset_kvstore(self) -> None:
        if self._kvstore is not None and "dist" in self._kvstore.type:
            raise RuntimeError("a distributed store cannot be started anew")
        self._kv_initialized = False
        self._kvstore = None
        self._distributed = None
        self._update_on_kvstore = None
        self._params_to_init = list(self._params)

    def _store(self, given: Any) -> Any:
        """The store to use: None when there is one device and no need for one."""
        if given is None or not isinstance(given, str):
            return given
        if len(self._contexts) == 1 and "dist" not in given:
            return None
        return _new_store(given)

    def _init_kvstore(self) -> None:
        given, update = self._kvstore_params["kvstore"], self._kvstore_params["update_on_kvstore"]
        if self._contains_sparse_weight:
            if update is False:
                raise ValueError("sparse weights are updated on the kvstore: leave update_on_kvstore=True")
            store, on_store = _new_store(given) if isinstance(given, str) else given, True
            if store is None:
                raise ValueError("Parameters with sparse weights need a kvstore; leave kvstore at its default")
        else:
            store = self._store(given)
            if self._contains_sparse_grad:
                on_store = False
            else:
                on_store = store is not None and _update_on_kvstore_default() and (update is not None or store.is_capable("optimizer"))
            if update is not None:
                on_store = bool(update) and store is not None
        if store is not None:
            if on_store and not store.is_capable("optimizer"):
                if update:
                    raise ValueError(f"{type(store).__name__} does not update parameters: Trainer(..., update_on_kvstore=False)")
                on_store = False
            if self._compression_params:
                store.set_gradient_compression(self._compression_params)
            if on_store:
                store.set_optimizer(self._optimizer)
            self._distributed = "dist" in store.type
        self._kvstore = store
        self._update_on_kvstore = bool(on_store) if store is not None else None
        self._kv_initialized = True

    def _init_params(self) -> None:
        waiting = []
        for param in self._params_to_init:
            if param._deferred_init:
                waiting.append(param)
                continue
            if self._kvstore is None:
                continue
            arrays = param._check_and_get(param._data, list)
            index = self._param2idx[param.name]
            if param._stype != "default":
                self._kvstore.init(index, arrays[0])
            else:
                self._kvstore.broadcast(index, arrays[0], arrays)
        self._params_to_init = waiting

    def _ready(self) -> None:
        if not self._kv_initialized:
            self._init_kvstore()
        if self._params_to_init:
            self._init_params()

    def _row_sparse_pull(self, parameter: Parameter, out: NDArray, row_id: NDArray, full_idx: bool = False) -> None:
        self._ready()
        index = self._param2idx[parameter.name]
        if full_idx and "dist" not in self._kvstore.type:
            self._kvstore.pull(index, out=out, priority=-index, ignore_sparse=False)
        else:
            self._kvstore.row_sparse_pull(index, out=out, row_ids=row_id, priority=-index)

    # -- properties -------------------------------------------------------------------------------------------
    @property
    def learning_rate(self) -> float:
        """The learning rate now."""
        return self._optimizer.learning_rate  # type: ignore[no-any-return]

    @property
    def optimizer(self) -> Any:
        """The optimizer."""
        return self._optimizer

    def set_learning_rate(self, lr: float) -> None:
        """Set the learning rate; UserWarning (as an error) when a scheduler sets it."""
        self._optimizer.set_learning_rate(lr)

    # -- steps ------------------------------------------------------------------------------------------------
    def _check_rescale(self, scale: float) -> None:
        if self._update_on_kvstore and self._distributed and self._kv_initialized and self._optimizer.rescale_grad != scale:
            raise UserWarning("step(batch_size) differs from that of the step before, but the store updates the parameters by the "
                              "first one: with update_on_kvstore=True a batch of another size is not scaled anew; update_on_kvstore=False "
                              "does so")  # fmt: skip
        self._optimizer.rescale_grad = scale

    def step(self, batch_size: float, ignore_stale_grad: bool = False) -> None:
        """Add gradients up over contexts, divide by `batch_size`, update; gradients not renewed since are an error."""
        self._check_rescale(self._scale / batch_size)
        self._ready()
        self._allreduce()
        self._update(ignore_stale_grad)

    def allreduce_grads(self) -> None:
        """Add gradients up over contexts only; `update` does the rest."""
        self._ready()
        if self._kvstore is not None and self._update_on_kvstore:
            raise AssertionError("allreduce_grads() is for parameters that the trainer updates, here the store does: "
                                 "Trainer(..., update_on_kvstore=False)")  # fmt: skip
        self._allreduce()

    def _allreduce(self) -> None:
        if self._kvstore is None:
            return
        for i, param in enumerate(self._params):
            if param.grad_req == "null":
                continue
            grads = param.list_grad()
            if not self._update_on_kvstore:
                self._kvstore.pushpull(i, grads, out=grads, priority=-i)
            elif param._stype == "default":
                self._kvstore.pushpull(i, grads, out=param.list_data(), priority=-i)
            else:  # rows of sparse weights are pulled when they are asked for
                self._kvstore.push(i, grads, priority=-i)

    def update(self, batch_size: float, ignore_stale_grad: bool = False) -> None:
        """Update from gradients that `allreduce_grads` has added up."""
        self._ready()
        if self._kvstore is not None and self._update_on_kvstore:
            raise AssertionError("update() is for parameters that the trainer updates, here the store does: "
                                 "Trainer(..., update_on_kvstore=False)")  # fmt: skip
        self._check_rescale(self._scale / batch_size)
        self._update(ignore_stale_grad)

    def _update(self, ignore_stale_grad: bool = False) -> None:
        updates: list[list[Any]] = [[] for _ in self._updaters]
        for i, param in enumerate(self._params):
            if param.grad_req == "null":
                continue
            arrays = param._check_and_get(param._data, list)
            if not ignore_stale_grad:
                for data in arrays:
                    if not data._fresh_grad:
                        raise UserWarning(
                            f"{param.name} on {data.context} has had no new gradient since the "
                            "last step: the loss did not depend on it. "
                            "If that is meant, step(batch_size, ignore_stale_grad=True) "
                            "leaves such parameters as they are")  # fmt: skip
            if self._kvstore is not None and self._update_on_kvstore:
                continue
            for waiting, array, grad in zip(updates, arrays, param.list_grad()):
                if not ignore_stale_grad or array._fresh_grad:
                    waiting.append((i, grad, array))
                    array._fresh_grad = False
        if self._kvstore is not None and self._update_on_kvstore:
            return
        for updater, waiting in zip(self._updaters, updates):
            if waiting:
                indices, grads, arrays = map(list, zip(*waiting))
                updater(indices, grads, arrays)

    # -- files ------------------------------------------------------------------------------------------------
    def save_states(self, fname: str) -> None:
        """Write the optimizer's states (momenta and so on) to a file."""
        self._ready()
        if self._update_on_kvstore:
            if self._params_to_init:
                raise AssertionError("some parameters are not in the kvstore yet, and have no states: make a step before save_states")
            self._kvstore.save_optimizer_states(fname, dump_optimizer=True)
            return
        with open(fname, "wb") as f:
            f.write(self._updaters[0].get_states(dump_optimizer=True))

    def load_states(self, fname: str) -> None:
        """Read what `save_states` wrote."""
        self._ready()
        by_index = dict(enumerate(self._params))
        if self._update_on_kvstore:
            self._kvstore.load_optimizer_states(fname)
            self._optimizer = self._kvstore._updater.optimizer
        else:
            with open(fname, "rb") as f:
                states = f.read()
            for updater in self._updaters:
                updater.set_states(states)
                updater.optimizer = self._updaters[0].optimizer
            self._optimizer = self._updaters[0].optimizer
        self._optimizer.param_dict = by_index
