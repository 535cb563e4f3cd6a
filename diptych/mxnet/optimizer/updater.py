"""Updater: an optimizer with the states of all weights it has seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diptych.mxnet.base import MXNetError
from diptych.mxnet.ndarray.ndarray import NDArray
from diptych.mxnet.optimizer import states as files

if TYPE_CHECKING:
    from diptych.mxnet.context import Context
    from diptych.mxnet.optimizer.base import Optimizer

__all__ = ["Updater", "get_updater"]


class Updater:
    """Call it with (index, gradient, weight), or with lists of these."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.states: dict[Any, Any] = {}
        self.states_synced: dict[Any, bool] = {}
        self.aggregate_updates = optimizer.aggregate_num > 0

    def __call__(self, index: Any, grad: Any, weight: Any) -> None:
        """Update the weight (or weights) in place."""
        several = isinstance(index, (list, tuple))
        indices = [i.decode() if isinstance(i, bytes) else i for i in (index if several else [index])]
        grads = [g.as_nd_ndarray() if type(g).__name__ == "ndarray" else g for g in (grad if several else [grad])]
        weights = [w.as_nd_ndarray() if type(w).__name__ == "ndarray" else w for w in (weight if several else [weight])]
        if weights:
            self.optimizer._set_current_context(weights[0].context.device_id)
        for i, w in zip(indices, weights):
            if i not in self.states:
                self.states[i] = self.optimizer.create_state_multi_precision(i, w)
            elif not self.states_synced.get(i, False):
                self.states[i] = self.sync_state_context(self.states[i], w.context)
            self.states_synced[i] = True
        if not self.aggregate_updates:
            for i, w, g in zip(indices, weights, grads):
                self.optimizer.update_multi_precision(i, w, g, self.states[i])
            return
        by_type: dict[Any, list[Any]] = {}
        for i, w, g in zip(indices, weights, grads):
            by_type.setdefault(w.dtype, []).append((i, w, g, self.states[i]))
        size = self.optimizer.aggregate_num
        for group in by_type.values():
            for at in range(0, len(group), size):
                chunk: Any = [list(part) for part in zip(*group[at : at + size])]
                self.optimizer.update_multi_precision(*chunk)

    def sync_state_context(self, state: Any, context: Context) -> Any:
        """The state on the device of its weight."""
        if isinstance(state, NDArray):
            return state.as_in_context(context)
        if isinstance(state, (tuple, list)):
            return type(state)(self.sync_state_context(s, context) for s in state)
        return state

    def set_states(self, states: bytes, trusted: bool = False) -> None:
        """Take over states that `get_states` gave, here or in MXNet; unknown classes are an error unless `trusted`."""
        found = files.loads(states, trusted)
        if isinstance(found, tuple) and len(found) == 2:
            self.states, self.optimizer = found
            self.aggregate_updates = self.optimizer.aggregate_num > 0
        else:
            self.states = found
        if not isinstance(self.states, dict):
            raise MXNetError(f"optimizer states are a dict by index, this holds a {type(self.states).__name__}")
        self.states_synced = dict.fromkeys(self.states, False)

    def get_states(self, dump_optimizer: bool = False) -> bytes:
        """The states as a pickle that MXNet reads too, with the optimizer if asked for."""
        return files.dumps((self.states, self.optimizer) if dump_optimizer else self.states)


def get_updater(optimizer: Optimizer) -> Updater:
    """An Updater of this optimizer."""
    return Updater(optimizer)
