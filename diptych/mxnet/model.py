"""Checkpoints, and FeedForward: the estimator of MXNet's first years, on top of Module.

A checkpoint is `PREFIX-symbol.json` and `PREFIX-0001.params`; MXNet reads what is written here, and the reverse.
"""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from diptych.mxnet import ndarray as nd
from diptych.mxnet.base import MXNetError
from diptych.mxnet.callback import LogValidationMetricsCallback
from diptych.mxnet.initializer import Uniform
from diptych.mxnet.io import DataIter, NDArrayIter
from diptych.mxnet.ndarray.ndarray import NDArray

if TYPE_CHECKING:
    from diptych.mxnet.symbol.symbol import Symbol

__all__ = ["BatchEndParam", "FeedForward", "load_checkpoint", "load_params", "save_checkpoint", "split_params"]


class BatchEndParam(NamedTuple):
    """What callbacks after a batch get."""

    epoch: int
    nbatch: int
    eval_metric: Any
    locals: Any


def joined_params(arg_params: dict[str, NDArray], aux_params: dict[str, NDArray]) -> dict[str, NDArray]:
    """Parameters under the names they have in files."""
    return {**{f"arg:{k}": v for k, v in arg_params.items()}, **{f"aux:{k}": v for k, v in aux_params.items()}}


def split_params(found: Any, where: str) -> tuple[dict[str, NDArray], dict[str, NDArray]]:
    """(arguments, auxiliary states) of the named arrays of a file."""
    if not found:
        logging.warning("no parameters in %s", where)
        return {}, {}
    if not isinstance(found, dict):
        raise MXNetError(f"{where} holds a list of arrays without names; a checkpoint has names that begin with arg: or aux:")
    out: dict[str, dict[str, NDArray]] = {"arg": {}, "aux": {}}
    for key, value in found.items():
        kind, _, name = key.partition(":")
        if kind not in out or not name:
            raise ValueError(f"Invalid param file {where}: {key!r} does not begin with arg: or aux:. Files of gluon's "
                             "save_parameters are read by load_parameters of a Block.")  # fmt: skip
        out[kind][name] = value
    return out["arg"], out["aux"]


def save_checkpoint(prefix: str, epoch: int, symbol: Symbol | None, arg_params: dict[str, NDArray], aux_params: dict[str, NDArray],
                    remove_amp_cast: bool = True) -> None:  # fmt: skip
    """Write `PREFIX-symbol.json` (unless symbol is None) and `PREFIX-EPOCH.params`."""
    if symbol is not None:
        symbol.save(f"{prefix}-symbol.json", remove_amp_cast=remove_amp_cast)
    name = f"{prefix}-{epoch:04d}.params"
    nd.save(name, joined_params(arg_params, aux_params))
    logging.info('Saved checkpoint to "%s"', name)


def load_params(prefix: str, epoch: int) -> tuple[dict[str, NDArray], dict[str, NDArray]]:
    """(arguments, auxiliary states) of a checkpoint."""
    name = f"{prefix}-{epoch:04d}.params"
    return split_params(nd.load(name), name)


def load_checkpoint(prefix: str, epoch: int) -> tuple[Symbol, dict[str, NDArray], dict[str, NDArray]]:
    """(symbol, arguments, auxiliary states) of a checkpoint."""
    from diptych.mxnet import symbol

    return (symbol.load(f"{prefix}-symbol.json"), *load_params(prefix, epoch))


class FeedForward:
    """Deprecated in MXNet 1.x in favour of Module: a symbol with `fit`, `predict`, `score`, `save` and `load`."""

    def __init__(self, symbol: Any, ctx: Any = None, num_epoch: int | None = None, epoch_size: int | None = None,
                 optimizer: Any = "sgd", initializer: Any = None, numpy_batch_size: int = 128,
                 arg_params: dict[str, NDArray] | None = None, aux_params: dict[str, NDArray] | None = None,
                 allow_extra_params: bool = False, begin_epoch: int = 0, **kwargs: Any) -> None:  # fmt: skip
        warnings.warn("FeedForward is old: mx.mod.Module has taken its place", DeprecationWarning,
                      stacklevel=2)  # fmt: skip
        self.sym_gen = None if not callable(symbol) or hasattr(symbol, "list_arguments") else symbol
        self.symbol = None if self.sym_gen is not None else symbol
        self.ctx = ctx
        self.num_epoch, self.epoch_size, self.begin_epoch = num_epoch, epoch_size, begin_epoch
        self.optimizer = optimizer
        self.initializer = initializer if initializer is not None else Uniform(0.01)
        self.numpy_batch_size = numpy_batch_size
        self.arg_params, self.aux_params = arg_params, aux_params
        self.allow_extra_params = allow_extra_params
        self.kwargs = dict(kwargs)

    def _iterator(self, x: Any, y: Any, train: bool) -> DataIter:
        if not isinstance(x, (np.ndarray, NDArray)):
            if not hasattr(x, "provide_data"):
                raise TypeError("X is a DataIter or an array")
            found: DataIter = x
            return found
        if y is None:
            if train:
                raise ValueError("an array X needs y, its labels")
            y = np.zeros(x.shape[0])
        if not isinstance(y, (np.ndarray, NDArray)):
            raise TypeError("y is an array where X is one")
        if x.shape[0] != y.shape[0]:
            raise ValueError("X and y differ in length")
        if y.ndim == 2 and y.shape[1] == 1:
            y = y.reshape(-1)
        if y.ndim != 1:
            raise ValueError("y has one axis, or a second one of extent 1")
        size = min(int(x.shape[0]), self.numpy_batch_size)
        return NDArrayIter(x, y, size, shuffle=train, last_batch_handle="roll_over" if train else "pad")

    def _module(self, data: DataIter) -> Any:
        from diptych.mxnet.module import Module

        if self.symbol is None:
            assert self.sym_gen is not None
            self.symbol = self.sym_gen(data.default_bucket_key)  # type: ignore[attr-defined]
        known = self.symbol.list_arguments()
        labels = [d[0] for d in data.provide_label or [] if d[0] in known]
        return Module(self.symbol, [d[0] for d in data.provide_data], labels or None, **({} if self.ctx is None else {"context": self.ctx}))

    def _bound(self, data: DataIter, labels: bool) -> Any:
        if self.arg_params is None:
            raise MXNetError("the model has no parameters yet: call fit, or give arg_params")
        module = self._module(data)
        known = module.symbol.list_arguments()
        wanted = [d for d in data.provide_label or [] if d[0] in known] if labels else None
        module.bind(data.provide_data, wanted or None, for_training=False)
        module.set_params(self.arg_params, self.aux_params or {}, allow_extra=self.allow_extra_params)
        return module

    def predict(self, X: Any, num_batch: int | None = None, return_data: bool = False, reset: bool = True) -> Any:
        """The outputs for all samples as NumPy arrays; with data and labels when `return_data`."""
        data = self._iterator(X, None, False)
        module = self._bound(data, False)
        outputs: list[list[Any]] = []
        given: list[list[Any]] = []
        labels: list[list[Any]] = []
        for found, _, batch in module.iter_predict(data, num_batch, reset):
            outputs.append([o.asnumpy() for o in found])
            stop = None if not batch.pad else -batch.pad
            given.append([x.asnumpy()[:stop] for x in batch.data])
            labels.append([x.asnumpy()[:stop] for x in batch.label or ()])

        def together(parts: list[list[Any]]) -> Any:
            whole = [np.concatenate(p) for p in zip(*parts)]
            return whole[0] if len(whole) == 1 else whole

        return (together(outputs), together(given), together(labels)) if return_data else together(outputs)

    def score(self, X: Any, eval_metric: Any = "acc", num_batch: int | None = None, batch_end_callback: Any = None,
              reset: bool = True) -> Any:  # fmt: skip
        """The value of a metric over an iterator."""
        data = self._iterator(X, None, False)
        found = self._bound(data, True).score(data, eval_metric, num_batch, batch_end_callback, reset=reset)
        return found[0][1] if len(found) == 1 else [v for _, v in found]

    def fit(self, X: Any, y: Any = None, eval_data: Any = None, eval_metric: Any = "acc", epoch_end_callback: Any = None,
            batch_end_callback: Any = None, kvstore: Any = "local", logger: Any = None, work_load_list: Any = None,
            monitor: Any = None, eval_end_callback: Any = None, eval_batch_end_callback: Any = None) -> None:  # fmt: skip
        """Train for `num_epoch` epochs."""
        data = self._iterator(X, y, True)
        if isinstance(eval_data, (tuple, list)) and len(eval_data) == 2:
            a, b = (np.array(v) if isinstance(v, list) else v for v in eval_data)
            eval_data = a if b is None and hasattr(a, "provide_data") else self._iterator(a, b, True)
        if self.epoch_size is not None:
            from diptych.mxnet.io import ResizeIter

            data = ResizeIter(data, self.epoch_size, reset_internal=False)
        module = self._module(data)
        if logger is not None:
            module.logger = logger
        module.fit(data, eval_data, eval_metric, epoch_end_callback, batch_end_callback, kvstore, self.optimizer,
                   self.kwargs or (("learning_rate", 0.01),), eval_end_callback, eval_batch_end_callback, self.initializer,
                   self.arg_params, self.aux_params, allow_missing=True, begin_epoch=self.begin_epoch, num_epoch=self.num_epoch,
                   monitor=monitor)  # fmt: skip
        self.arg_params, self.aux_params = module.get_params()

    def save(self, prefix: str, epoch: int | None = None, remove_amp_cast: bool = True) -> None:
        """Write a checkpoint."""
        epoch = self.num_epoch if epoch is None else epoch
        if epoch is None or self.arg_params is None:
            raise AssertionError("give the epoch, and train or load parameters first")
        save_checkpoint(prefix, epoch, self.symbol, self.arg_params, self.aux_params or {}, remove_amp_cast)

    @staticmethod
    def load(prefix: str, epoch: int, ctx: Any = None, **kwargs: Any) -> FeedForward:
        """The model of a checkpoint."""
        symbol, args, aux = load_checkpoint(prefix, epoch)
        return FeedForward(symbol, ctx=ctx, arg_params=args, aux_params=aux, begin_epoch=epoch, **kwargs)

    @staticmethod
    def create(symbol: Any, X: Any, y: Any = None, ctx: Any = None, num_epoch: int | None = None, epoch_size: int | None = None,
               optimizer: Any = "sgd", initializer: Any = None, eval_data: Any = None, eval_metric: Any = "acc",
               epoch_end_callback: Any = None, batch_end_callback: Any = None, kvstore: Any = "local", logger: Any = None,
               work_load_list: Any = None, eval_end_callback: Any = None, eval_batch_end_callback: Any = None,
               **kwargs: Any) -> FeedForward:  # fmt: skip
        """Make a model and train it."""
        made = FeedForward(symbol, ctx, num_epoch, epoch_size, optimizer, initializer, **kwargs)
        made.fit(X, y, eval_data, eval_metric, epoch_end_callback, batch_end_callback, kvstore, logger, work_load_list,
                 eval_end_callback=eval_end_callback or LogValidationMetricsCallback(),
                 eval_batch_end_callback=eval_batch_end_callback)  # fmt: skip
        return made
