"""The interface of stores, and the registry of those that users bring."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from diptych.mxnet.ndarray.ndarray import NDArray

__all__ = ["KVStoreBase", "TestStore"]


def same_or_list(value: Any) -> list[Any]:
    """One array or a list of them, as a list."""
    return list(value) if isinstance(value, (list, tuple)) else [value]


class KVStoreBase:
    """The base class of stores: `broadcast` and `pushpull`."""

    OPTIMIZER = "optimizer"
    kv_registry: dict[str, Any] = {}

    def broadcast(self, key: Any, value: Any, out: Any, priority: int = 0) -> None:
        """Put the value of the first worker into all `out`."""
        raise NotImplementedError

    def pushpull(self, key: Any, value: Any, out: Any = None, priority: int = 0) -> None:
        """Sum the values, and put the sum into all `out` (the values themselves if None)."""
        raise NotImplementedError

    def set_optimizer(self, optimizer: Any) -> None:
        """Update stored arrays by an optimizer."""
        raise NotImplementedError

    @staticmethod
    def is_capable(capability: str) -> bool:
        """Whether the store can do this (`KVStoreBase.OPTIMIZER`)."""
        raise NotImplementedError

    @property
    def type(self) -> str:
        """The name of the kind of store."""
        raise NotImplementedError

    @property
    def rank(self) -> int:
        """Which worker this is."""
        raise NotImplementedError

    @property
    def num_workers(self) -> int:
        """How many workers there are."""
        raise NotImplementedError

    def save_optimizer_states(self, fname: str, dump_optimizer: bool = False) -> None:
        """Write the states of the optimizer."""
        raise NotImplementedError

    def load_optimizer_states(self, fname: str) -> None:
        """Read the states of the optimizer."""
        raise NotImplementedError

    @staticmethod
    def register(klass: Any) -> Any:
        """Register a class of stores under its lower-case name."""
        name = klass.__name__.lower()
        if name in KVStoreBase.kv_registry:
            warnings.warn(f"New kvstore {klass.__module__}.{klass.__name__} is overriding existing kvstore {name}", stacklevel=2)
        KVStoreBase.kv_registry[name] = klass
        return klass


@KVStoreBase.register
class TestStore(KVStoreBase):
    """A store without state: sums what is pushed and hands it back."""

    __test__ = False  # not a test class of pytest

    def broadcast(self, key: Any, value: Any, out: Any, priority: int = 0) -> None:
        """Copy the value into all `out`."""
        first = same_or_list(value)[0]
        for o in same_or_list(out):
            o._data[...] = first._data

    def pushpull(self, key: Any, value: Any, out: Any = None, priority: int = 0) -> None:
        """Sum the values into all `out`."""
        values = same_or_list(value)
        total = np.sum([v._data for v in values], 0)
        for o in values if out is None else same_or_list(out):
            if not isinstance(o, NDArray):
                raise TypeError(f"pushpull takes arrays, not {type(o)}")
            o._data[...] = total

    @staticmethod
    def is_capable(capability: str) -> bool:
        """False: it has no optimizer."""
        if capability.lower() == KVStoreBase.OPTIMIZER:
            return False
        raise ValueError(f"Unknown capability: {capability}")

    @property
    def type(self) -> str:
        """teststore."""
        return "teststore"

    @property
    def rank(self) -> int:
        """0."""
        return 0

    @property
    def num_workers(self) -> int:
        """1."""
        return 1
