"""The store of one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from diptych.mxnet.base import MXNetError
from diptych.mxnet.kvstore.base import KVStoreBase, same_or_list
from diptych.mxnet.ndarray.ndarray import NDArray
from diptych.mxnet.ndarray.sparse import labelled

__all__ = ["KVStore", "create"]

_LOCAL = {"local": "local", "device": "device", "local_update_cpu": "local", "local_allreduce_cpu": "local",
          "local_allreduce_device": "device", "nccl": "device"}  # fmt: skip


def _pairs(key: Any, value: Any) -> list[tuple[Any, Any]]:
    """Keys with what belongs to each."""
    if not isinstance(key, (list, tuple)):
        if not isinstance(key, (int, str)):
            raise TypeError(f"unexpected type of key: {type(key)}; use int or str")
        return [(key, value)]
    if len(key) != len(value):
        raise AssertionError(f"{len(key)} keys for {len(value)} values")
    return [pair for k, v in zip(key, value) for pair in _pairs(k, v)]


class KVStore(KVStoreBase):
    """Arrays by key (int or str, not both): made by `mx.kv.create`."""

    def __init__(self, kind: str = "local") -> None:
        self._kind = kind
        self._held: dict[Any, NDArray] = {}
        self._updater: Any = None
        self._key_type: type | None = None

    def _typed(self, pairs: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
        for key, _ in pairs:
            kind = str if isinstance(key, str) else int
            if self._key_type not in (None, kind):
                raise MXNetError("the keys of a store are all int or all str")
            self._key_type = kind
        return pairs

    def _of(self, key: Any) -> NDArray:
        if key not in self._held:
            raise MXNetError(f"the store has no {key!r}: init({key!r}, value) comes first")
        return self._held[key]

    def init(self, key: Any, value: Any) -> None:
        """Give keys their first arrays."""
        for k, v in self._typed(_pairs(key, value)):
            if k in self._held:
                raise MXNetError(f"the store has {k!r} already: push changes it")
            first = same_or_list(v)[0]
            self._held[k] = labelled(np.array(first._data), type(first), first)

    def push(self, key: Any, value: Any, priority: int = 0) -> None:
        """Sum a list of arrays; the stored array becomes the sum, or is updated by it where there is an updater."""
        for k, v in self._typed(_pairs(key, value)):
            held, parts = self._of(k), same_or_list(v)
            total = parts[0]._data if len(parts) == 1 else np.sum([p._data for p in parts], 0, parts[0]._data.dtype)
            stype = parts[0].stype
            merged = labelled(np.array(total), type(parts[0]) if stype != "default" else NDArray, held)
            if self._updater is not None:
                self._updater(k, merged, held)
            elif stype != held.stype:
                self._held[k] = merged
            else:
                held._data[...] = merged._data

    def pull(self, key: Any, out: Any = None, priority: int = 0, ignore_sparse: bool = True) -> None:
        """Copy stored arrays into `out`; sparse `out` are passed over when `ignore_sparse`."""
        if out is None:
            raise AssertionError("pull needs out=")
        for k, o in self._typed(_pairs(key, out)):
            held = self._of(k)
            for target in same_or_list(o):
                if target.stype == "default" or not ignore_sparse:
                    target._data[...] = held._data

    def pushpull(self, key: Any, value: Any, out: Any = None, priority: int = 0) -> None:
        """Push, then pull into `out` (into the values themselves if None)."""
        for k, v in _pairs(key, value):
            if k in self._held:
                self.push(k, v, priority)
                self.pull(k, v if out is None else dict(_pairs(key, out))[k], priority, ignore_sparse=False)
                continue
            total = np.sum([p._data for p in same_or_list(v)], 0)
            for target in same_or_list(v if out is None else dict(_pairs(key, out))[k]):
                target._data[...] = total

    def broadcast(self, key: Any, value: Any, out: Any, priority: int = 0) -> None:
        """Init, then pull into `out`."""
        self.init(key, value)
        self.pull(key, out, priority)

    def row_sparse_pull(self, key: Any, out: Any = None, priority: int = 0, row_ids: Any = None) -> None:
        """Copy only some rows of stored row-sparse arrays."""
        if out is None or row_ids is None:
            raise AssertionError("row_sparse_pull needs out= and row_ids=")
        for (k, o), (_, rows) in zip(self._typed(_pairs(key, out)), _pairs(key, row_ids)):
            held, outs, ids = self._of(k), same_or_list(o), same_or_list(rows)
            if len(ids) == 1:
                ids = ids * len(outs)
            if len(ids) != len(outs):
                raise AssertionError(f"{len(outs)} outputs for {len(ids)} row_ids")
            for target, r in zip(outs, ids):
                if target.stype != "row_sparse":
                    raise MXNetError(f"row_sparse_pull writes row_sparse arrays, not {target.stype}")
                wanted = np.unique(r._data.astype(np.int64))
                target._data[...] = 0
                target._data[wanted] = held._data[wanted]

    # -- optimizer --------------------------------------------------------------------------------------------
    def set_optimizer(self, optimizer: Any) -> None:
        """Update stored arrays by an optimizer."""
        from diptych.mxnet.optimizer import get_updater

        self._set_updater(get_updater(optimizer))

    def _set_updater(self, updater: Any) -> None:
        self._updater = updater

    set_updater = _set_updater

    @staticmethod
    def is_capable(capability: str) -> bool:
        """Whether the store can do this."""
        if capability.lower() == KVStoreBase.OPTIMIZER:
            return True
        raise MXNetError(f"there is no capability {capability!r}")

    def _states(self) -> Any:
        if self._updater is None or not hasattr(self._updater, "get_states"):
            raise AssertionError("Cannot save states for distributed training, or without an optimizer: call set_optimizer")
        return self._updater

    def save_optimizer_states(self, fname: str, dump_optimizer: bool = False) -> None:
        """Write the states of the optimizer, and itself if asked for."""
        Path(fname).write_bytes(self._states().get_states(dump_optimizer))

    def load_optimizer_states(self, fname: str) -> None:
        """Read the states of the optimizer."""
        self._states().set_states(Path(fname).read_bytes())

    def set_gradient_compression(self, compression_params: dict[str, Any]) -> None:
        """An error: nothing is sent in one process, so there is nothing to compress."""
        kind = compression_params.get("type", "none")
        if kind != "none":
            raise MXNetError(f"gradient compression {kind!r} is for stores that span machines, which are not supported")

    # -- place ------------------------------------------------------------------------------------------------
    @property
    def type(self) -> str:
        """The name of the kind of store."""
        return self._kind

    @property
    def rank(self) -> int:
        """0: there is one process."""
        return 0

    @property
    def num_workers(self) -> int:
        """1: there is one process."""
        return 1

    def _barrier(self) -> None:
        """Wait for all workers: there is one."""


def create(name: str = "local") -> Any:
    """A store by its kind: "local", "device", or a registered class. Kinds that span machines ("dist_sync", ...) are errors."""
    if not isinstance(name, str):
        raise TypeError("a store is created by its name, a string such as 'local'")
    kind = name.lower()
    if kind in KVStoreBase.kv_registry:
        return KVStoreBase.kv_registry[kind]()
    if kind in _LOCAL:
        return KVStore(kind)
    if kind.startswith(("dist", "p3", "horovod", "byteps")):
        raise MXNetError(f"the store {name!r} spans several machines, which diptych.mxnet does not support; use 'local'")
    raise MXNetError(f"unknown KVStore type {name!r}; use local or device")
