"""Executors of one symbol, each on a part of the batch."""

from __future__ import annotations

import logging
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.mxnet.base import MXNetError
from diptych.mxnet.imperative import wrap
from diptych.mxnet.io.base import DataDesc
from diptych.mxnet.ndarray.sparse import cast_storage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diptych.mxnet.executor import Executor
    from diptych.mxnet.ndarray.ndarray import NDArray
    from diptych.mxnet.symbol.symbol import Symbol

__all__ = ["DataParallelExecutorGroup"]


def described(shapes: Any) -> list[DataDesc]:
    """Descriptions of pairs (name, shape)."""
    made = [x if isinstance(x, DataDesc) else DataDesc(*x) for x in shapes]
    for d in made:
        if not isinstance(d.shape, (tuple, list)) or not all(isinstance(n, (int, np.integer)) for n in d.shape):
            raise TypeError(f"{d.name}: a shape is a tuple of integers, not {d.shape!r}")
    return made


def split(size: int, loads: Sequence[float]) -> list[slice]:
    """Parts of a batch in proportion to the loads."""
    bounds = [round(size * sum(loads[:i]) / sum(loads)) for i in range(len(loads) + 1)]
    if any(a >= b for a, b in pairwise(bounds)):
        raise ValueError(f"Too many slices: a batch of {size} cannot be split among {len(loads)} devices")
    return [slice(a, b) for a, b in pairwise(bounds)]


def _cut(x: NDArray, part: slice, axis: int) -> Any:
    return x._data if axis < 0 else x._data[(slice(None),) * axis + (part,)]


def merge(parts: Sequence[Sequence[NDArray]], axes: Sequence[int]) -> list[NDArray]:
    """Arrays of several devices joined along the axis of the batch."""
    return [p[0] if len(p) == 1 or axis < 0 else wrap(np.concatenate([x._data for x in p], axis)) for p, axis in zip(parts, axes)]


def _groups(given: Any, count: int) -> list[dict[str, Any]]:
    """The contexts of groups (`AttrScope(ctx_group=...)`) for each executor."""
    if given is None:
        return [{}] * count
    if isinstance(given, list):
        if len(given) != count:
            raise AssertionError(f"group2ctxs: {count} contexts need {count} entries")
        return given
    out: list[dict[str, Any]] = [{} for _ in range(count)]
    for name, contexts in given.items():
        each = list(contexts) if isinstance(contexts, (list, tuple)) else [contexts]
        if len(each) not in (1, count):
            raise AssertionError(f"group2ctxs[{name}]: one context, or {count}")
        for i in range(count):
            out[i][name] = each[i % len(each)]
    return out


class DataParallelExecutorGroup:
    """What a Module runs on: one executor for each context."""

    def __init__(self, symbol: Symbol, contexts: Sequence[Any], workload: Sequence[float], data_shapes: Any, label_shapes: Any,
                 param_names: list[str], for_training: bool, inputs_need_grad: bool,
                 shared_group: DataParallelExecutorGroup | None = None, logger: Any = logging,
                 fixed_param_names: Sequence[str] | None = None, grad_req: Any = "write", state_names: Sequence[str] | None = None,
                 group2ctxs: Any = None) -> None:  # fmt: skip
        self.symbol, self.contexts, self.workload = symbol, list(contexts), list(workload)
        self.param_names = param_names
        self.arg_names, self.aux_names = symbol.list_arguments(), symbol.list_auxiliary_states()
        self.output_names = symbol.list_outputs()
        self.for_training, self.inputs_need_grad = for_training, inputs_need_grad
        self.fixed_param_names, self.state_names = list(fixed_param_names or []), list(state_names or [])
        self.logger = logger
        self._total_exec_bytes = 0
        self.batch_size: int = 0
        self.execs: list[Executor] = []
        self._first_execs: list[Executor] = []
        self.output_layouts = [DataDesc.get_batch_axis(symbol[i].attr("__layout__")) for i in range(len(self.output_names))]
        self.grad_req = self._requests(grad_req if for_training else "null", [d.name for d in described(data_shapes)])
        self.group2ctxs = _groups(group2ctxs, len(self.contexts))
        self.shared_data_arrays: list[dict[str, NDArray]] = (
            shared_group.shared_data_arrays if shared_group is not None else [{} for _ in self.contexts]
        )
        self.bind_exec(data_shapes, label_shapes, shared_group)

    def _requests(self, given: Any, data_names: list[str]) -> dict[str, str]:
        if isinstance(given, (list, tuple)):
            if len(given) != len(self.arg_names):
                raise AssertionError(f"{len(given)} grad_reqs for {len(self.arg_names)} arguments")
            return dict(zip(self.arg_names, given))
        if not isinstance(given, (str, dict)):
            raise ValueError("grad_req is a text, or a list or dict of them")
        usual = given if isinstance(given, str) else "write"
        out = {}
        for name in self.arg_names:
            wanted = (name in self.param_names and name not in self.fixed_param_names) or (name in data_names and self.inputs_need_grad)
            out[name] = usual if wanted else "null"
        return {**out, **given} if isinstance(given, dict) else out

    def _axes(self, shapes: list[DataDesc]) -> list[int]:
        axes = [DataDesc.get_batch_axis(x.layout) for x in shapes]
        for desc, axis in zip(shapes, axes):
            if axis < 0:
                continue
            size = int(desc.shape[axis])
            if self.batch_size and size != self.batch_size:
                raise AssertionError(f"the batch is {self.batch_size} by the first input, but {desc.name} has the "
                                     f"shape {desc.shape}")  # fmt: skip
            self.batch_size = size
        return axes

    def bind_exec(self, data_shapes: Any, label_shapes: Any, shared_group: DataParallelExecutorGroup | None = None,
                  reshape: bool = False) -> None:  # fmt: skip
        """Make the executors, or make them again for other shapes on the same arrays."""
        self.data_shapes = described(data_shapes)
        self.label_shapes = described(label_shapes) if label_shapes is not None else None
        self.batch_size = 0
        self.data_layouts = self._axes(self.data_shapes)
        self.label_layouts = self._axes(self.label_shapes) if self.label_shapes is not None else []
        self.slices = split(self.batch_size, self.workload) if self.batch_size else [slice(i, i + 1) for i in range(len(self.contexts))]
        every = [*zip(self.data_shapes, self.data_layouts), *zip(self.label_shapes or [], self.label_layouts)]
        made = []
        for i, part in enumerate(self.slices):
            sizes = {d.name: tuple(part.stop - part.start if k == axis else n for k, n in enumerate(d.shape))
                     for d, axis in every if d.name in self.arg_names}  # fmt: skip
            if reshape:
                made.append(self._first_execs[i].reshape(allow_up_sizing=True, partial_shaping=True, **sizes))
                continue
            types = {d.name: d.dtype for d, _ in every if d.name in self.arg_names}
            shared = shared_group.execs[i] if shared_group is not None else None
            made.append(self._bind(i, sizes, types, shared))
        self.execs = made
        if not reshape:
            self._first_execs = list(made)
        self._collect()

    def _bind(self, i: int, sizes: dict[str, Any], types: dict[str, Any], shared: Executor | None) -> Executor:
        try:
            made: Executor = self.symbol.simple_bind(self.contexts[i], [self.grad_req[n] for n in self.arg_names], types,
                                                     shared_exec=shared, **sizes)  # fmt: skip
        except (MXNetError, RuntimeError) as error:
            shapes = ", ".join(f"{k}: {v}" for k, v in sizes.items())
            raise RuntimeError(f"the module cannot be bound for {shapes}: {error}") from error
        made.params = frozenset((*self.param_names, *self.aux_names))
        attrs = self.symbol.attr_dict()
        buffers = self.shared_data_arrays[i]
        for k, name in enumerate(self.arg_names):
            if name in sizes:  # batches of all that share memory are kept in the largest array
                own, buffer = made.arg_arrays[k], buffers.get(name)
                if buffer is not None and buffer.size >= own.size and buffer.dtype == own.dtype:
                    made.arg_arrays[k] = wrap(buffer._data.reshape(-1)[: own.size].reshape(own.shape))
                    made.arg_arrays[k]._ctx = own._ctx
                else:
                    buffers[name] = own
            stype = attrs.get(name, {}).get("__storage_type__", "0")
            if name in self.param_names and stype in ("1", "row_sparse") and (shared is None or name not in shared.arg_dict):
                made.arg_arrays[k] = cast_storage(made.arg_arrays[k], "row_sparse")
            group = attrs.get(name, {}).get("__ctx_group__", attrs.get(name, {}).get("ctx_group"))
            if group in self.group2ctxs[i]:
                for held in (made.arg_arrays[k], made.grad_arrays[k]):
                    if held is not None:
                        held._ctx = self.group2ctxs[i][group]
        if shared is not None:  # arrays of the same shape are kept once for all that share
            for k, name in enumerate(self.arg_names):
                old = shared.grad_dict.get(name)
                new = made.grad_arrays[k]
                if name in self.param_names and old is not None and new is not None and old.shape == new.shape:
                    made.grad_arrays[k] = old
                if name in self.param_names and name in shared.arg_dict and shared.arg_dict[name].shape != made.arg_arrays[k].shape:
                    raise AssertionError(f"parameter {name} has shape {shared.arg_dict[name].shape} in the module whose memory is "
                                         f"shared, {made.arg_arrays[k].shape} here")  # fmt: skip
        self._total_exec_bytes = sum(a._data.nbytes for a in (*made.arg_arrays, *made.aux_arrays))
        return made

    def _collect(self) -> None:
        index = {n: i for i, n in enumerate(self.arg_names)}
        self.data_names = [d.name for d in self.data_shapes]
        self.label_names = [d.name for d in self.label_shapes or []]
        params = [n for n in self.arg_names if n in self.param_names]
        self.param_arrays = [[e.arg_arrays[index[n]] for e in self.execs] for n in params]
        self.grad_arrays = [[e.grad_arrays[index[n]] for e in self.execs] for n in params] if self.for_training else None
        self.state_arrays = [[e.arg_arrays[index[n]] for e in self.execs] for n in self.state_names]
        self.aux_arrays = [[e.aux_arrays[i] for e in self.execs] for i in range(len(self.aux_names))]
        self.input_grad_arrays = (
            [[e.grad_arrays[index[n]] for e in self.execs] for n in self.data_names if n in index] if self.inputs_need_grad else None
        )

    def reshape(self, data_shapes: Any, label_shapes: Any) -> None:
        """Take batches of other shapes."""
        new, old = described(data_shapes), self.data_shapes
        labels = described(label_shapes) if label_shapes is not None else None
        if new != old or labels != self.label_shapes:
            self.bind_exec(new, labels, reshape=True)

    # -- parameters -------------------------------------------------------------------------------------------
    def set_params(self, arg_params: Any, aux_params: Any, allow_extra: bool = False) -> None:
        """Copy parameters to all executors."""
        for e in self.execs:
            e.copy_params_from(arg_params, aux_params, allow_extra_params=allow_extra)

    def get_params(self, arg_params: dict[str, NDArray], aux_params: dict[str, NDArray]) -> None:
        """Write the mean over the executors into these arrays."""
        for names, blocks, target in ((self.param_names, self.param_arrays, arg_params), (self.aux_names, self.aux_arrays, aux_params)):
            for name, block in zip(names, blocks):
                mean = block[0]._data if len(block) == 1 else sum(x._data for x in block) / len(block)
                target[name]._data[...] = mean

    # -- running ----------------------------------------------------------------------------------------------
    def _load(self, arrays: Any, shapes: list[DataDesc], axes: list[int]) -> None:
        if len(arrays) != len(shapes):
            raise MXNetError(f"the batch has {len(arrays)} arrays for {[d.name for d in shapes]}")
        for x, desc, axis in zip(arrays, shapes, axes):
            for e, part in zip(self.execs, self.slices):
                target = e.arg_dict.get(desc.name)
                if target is not None:
                    source = _cut(x, part, axis)
                    if source.shape != target.shape:
                        raise MXNetError(f"{desc.name} has shape {x.shape} in the batch; the module is bound for {target.shape}")
                    target._data[...] = source

    def _load_each(self, batches: Any, what: str, shapes: list[DataDesc]) -> None:
        """A batch for every executor."""
        for e, batch in zip(self.execs, batches):
            for desc, x in zip(shapes, getattr(batch, what)):
                if desc.name in e.arg_dict:
                    e.arg_dict[desc.name]._data[...] = x._data

    def forward(self, data_batch: Any, is_train: bool | None = None) -> None:
        """Run all executors on their parts of a batch."""
        several = isinstance(data_batch, list)
        if several:
            self._load_each(data_batch, "data", self.data_shapes)
        else:
            self._load(data_batch.data, self.data_shapes, self.data_layouts)
        label = getattr(data_batch[0] if several else data_batch, "label", None)
        if self.label_shapes is not None and label:
            if several:
                self._load_each(data_batch, "label", self.label_shapes)
            else:
                self._load(label, self.label_shapes, self.label_layouts)
        for e in self.execs:
            e.forward(is_train=self.for_training if is_train is None else is_train)

    def backward(self, out_grads: Any = None) -> None:
        """Carry gradients back in all executors."""
        if not self.for_training:
            raise AssertionError("backward needs bind(for_training=True)")
        for e, part in zip(self.execs, self.slices):
            grads = None
            if out_grads:
                grads = [wrap(np.ascontiguousarray(_cut(g, part, axis))) for g, axis in zip(out_grads, self.output_layouts)]
            e.backward(grads)

    def get_output_shapes(self) -> list[tuple[str, tuple[int, ...]]]:
        """Names and shapes of the outputs for the whole batch."""
        out = []
        for name, x, axis in zip(self.output_names, self.execs[0].outputs, self.output_layouts):
            shape = list(x.shape)
            if axis >= 0:
                shape[axis] = self.batch_size
            out.append((name, tuple(shape)))
        return out

    def get_outputs(self, merge_multi_context: bool = True, begin: int = 0, end: int | None = None) -> Any:
        """The outputs; of each executor on its own when not merged."""
        found = [[e.outputs[i] for e in self.execs] for i in range(begin, len(self.output_names) if end is None else end)]
        return merge(found, self.output_layouts[begin:end]) if merge_multi_context else found

    def get_input_grads(self, merge_multi_context: bool = True) -> Any:
        """The gradients of the data."""
        if self.input_grad_arrays is None:
            raise AssertionError("bind with inputs_need_grad=True to get gradients of the data")
        return merge(self.input_grad_arrays, self.data_layouts) if merge_multi_context else self.input_grad_arrays  # type: ignore[arg-type]

    def get_states(self, merge_multi_context: bool = True) -> Any:
        """The states, by executor."""
        if merge_multi_context:
            raise AssertionError("get_states does not merge contexts: merge_multi_context=False")
        return self.state_arrays

    def set_states(self, states: Any = None, value: Any = None) -> None:
        """Set the states from arrays by executor, or all to a number."""
        if (states is None) == (value is None):
            raise AssertionError("give states or value, and only one of them")
        for k, targets in enumerate(self.state_arrays):
            for j, target in enumerate(targets):
                target._data[...] = value if states is None else states[k][j]._data

    def update_metric(self, eval_metric: Any, labels: Any, pre_sliced: bool = False) -> None:
        """Count the outputs of this batch."""
        for i, (e, part) in enumerate(zip(self.execs, self.slices)):
            if pre_sliced:
                own = labels[i]
            elif len(self.execs) == 1:
                own = labels
            else:
                own = [wrap(np.ascontiguousarray(_cut(x, part, axis))) for x, axis in zip(labels or (), self.label_layouts)]
            names = self.label_names
            eval_metric.update_dict(dict(zip(names, own or ())), dict(zip(self.output_names, e.outputs)))

    def install_monitor(self, mon: Any) -> None:
        """Let a Monitor see all executors."""
        for e in self.execs:
            mon.install(e)
