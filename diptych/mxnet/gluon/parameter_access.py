"""Reading the arrays and gradients of a Parameter, in one context or in all."""

from __future__ import annotations

from typing import Any

from diptych.mxnet.base import MXNetError
from diptych.mxnet.context import Context, current_context
from diptych.mxnet.ndarray.ndarray import NDArray

__all__ = ["Access", "DeferredInitializationError", "device_of"]


class DeferredInitializationError(MXNetError):
    """The value of a parameter was asked for before its shape was known."""


def device_of(ctx: Context) -> tuple[int, int]:
    """A name of the device of a context."""
    # All kinds of CPU memory are one device, as in MXNet, whose kinds of CPU memory have odd numbers.
    return ctx.device_typeid & 1, ctx.device_id


class Access:
    """The half of Parameter that reads; the other half fills these."""

    name: str
    _data: Any
    _grad: Any
    _deferred_init: Any
    _trainer: Any
    _stype: str
    _ctx_list: list[Context] | None
    _places: dict[tuple[int, int], int]

    def _check_and_get(self, arrays: Any, ctx: Any) -> Any:
        if arrays is not None:
            if ctx is list:
                return arrays
            if ctx is None:
                if len(arrays) == 1:
                    return arrays[0]
                ctx = current_context()
            place = self._places.get(device_of(ctx))
            if place is not None:
                return arrays[place]
            raise RuntimeError(f"Parameter '{self.name}' has no array in context {ctx}, only in {self._ctx_list}: initialize it there too")
        if self._deferred_init:
            raise DeferredInitializationError(
                f"Parameter '{self.name}' has no array yet: its shape is not known before the first forward pass. Run the network "
                "once, or give the layer its input size (in_units, in_channels, ...)")
        raise RuntimeError(
            f"Parameter '{self.name}' was never initialized. Call initialize() on the block, and hand Trainer what "
            "collect_params() returns: that has the parameters of the blocks inside too")

    def data(self, ctx: Context | None = None) -> NDArray:
        """The array in a context."""
        if self._stype != "default":
            raise RuntimeError(f"Parameter '{self.name}' is stored as {self._stype}: read it with row_sparse_data()")
        return self._check_and_get(self._data, ctx)  # type: ignore[no-any-return]

    def list_data(self) -> list[NDArray]:
        """The arrays of all contexts."""
        if self._stype != "default":
            raise RuntimeError(f"Parameter '{self.name}' is stored as {self._stype}: read it with list_row_sparse_data()")
        return self._check_and_get(self._data, list)  # type: ignore[no-any-return]

    def _get_row_sparse(self, arrays: Any, ctx: Any, row_id: NDArray) -> Any:
        if not isinstance(row_id, NDArray):
            raise TypeError(f"row_id must be an NDArray, got {type(row_id).__name__}")
        if not self._trainer:
            raise RuntimeError(f"rows of Parameter '{self.name}' come from its Trainer, and it has none: create one first")
        results = self._check_and_get(arrays, ctx)
        for r in results if isinstance(results, list) else [results]:
            self._trainer._row_sparse_pull(self, r, row_id)
        return results

    def row_sparse_data(self, row_id: NDArray) -> NDArray:
        """The array in the context of `row_id`, with these rows."""
        if self._stype != "row_sparse":
            raise RuntimeError(f"Parameter '{self.name}' is stored as {self._stype}: read it with data()")
        return self._get_row_sparse(self._data, row_id.context, row_id)  # type: ignore[no-any-return]

    def list_row_sparse_data(self, row_id: NDArray) -> list[NDArray]:
        """The arrays of all contexts, with these rows."""
        if self._stype != "row_sparse":
            raise RuntimeError(f"Parameter '{self.name}' is stored as {self._stype}: read it with list_data()")
        return self._get_row_sparse(self._data, list, row_id)  # type: ignore[no-any-return]

    def _no_grad(self) -> None:
        if self._data is not None and self._grad is None:
            raise RuntimeError(f"Parameter '{self.name}' has no gradient: its grad_req is 'null'")

    def grad(self, ctx: Context | None = None) -> NDArray:
        """The gradient array in a context."""
        self._no_grad()
        return self._check_and_get(self._grad, ctx)  # type: ignore[no-any-return]

    def list_grad(self) -> list[NDArray]:
        """The gradient arrays of all contexts."""
        self._no_grad()
        return self._check_and_get(self._grad, list)  # type: ignore[no-any-return]

    def list_ctx(self) -> list[Context]:
        """The contexts that the parameter has arrays in."""
        if self._data is None:
            if self._deferred_init:
                return self._deferred_init[1]  # type: ignore[no-any-return]
            raise RuntimeError(f"'{self.name}' has no values yet: initialize() gives them")
        return self._ctx_list or []

    def zero_grad(self) -> None:
        """Set the gradients to zero."""
        for g in self._grad or ():
            g[:] = 0
