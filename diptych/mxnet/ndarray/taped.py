"""What an array does with the tape: asking for its gradient, leaving the tape, going back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.mxnet.base import MXNetError
from diptych.mxnet.imperative import wrap
from diptych.mxnet.tape import Entry, Variable
from diptych.mxnet.tape import backward as run_backward

if TYPE_CHECKING:
    from diptych.mxnet.ndarray.ndarray import NDArray

__all__ = ["Taped"]


class Taped:
    """The methods of arrays that concern gradients."""

    __slots__ = ()

    if TYPE_CHECKING:
        _entry: Entry | None
        _grad: NDArray | None

    def attach_grad(self: Any, grad_req: str = "write", stype: str | None = None) -> None:
        """Ask for the gradient of this array: `backward` puts it into `grad` ("write"), adds it there ("add"), or leaves that alone ("null")."""
        if grad_req not in ("write", "add", "null"):
            raise MXNetError(f"grad_req={grad_req!r}; use write, add or null")
        grad = wrap(np.zeros(self.shape, self.dtype))
        if stype is None:
            stype = self.stype
        if stype != "default":
            grad = grad.tostype(stype)
        grad._ctx = self._ctx
        self._mark(grad, grad_req)

    def _mark(self: Any, grad: NDArray | None, req: str) -> None:
        self._grad = grad
        self._entry = Entry(Variable(self, grad, req), 0)

    @property
    def grad(self: Any) -> NDArray | None:
        """The gradient array, if one is attached."""
        found: NDArray | None = self._grad
        return found

    @property
    def _fresh_grad(self: Any) -> bool:
        return bool(getattr(self, "_fresh", False))

    @_fresh_grad.setter
    def _fresh_grad(self: Any, value: bool) -> None:
        self._fresh = value

    def detach(self: Any) -> NDArray:
        """The same memory, cut off from the tape."""
        cls: Any = type(self)
        made: NDArray = cls.__new__(cls)
        made._array, made._pending = self._array, self._pending
        made._entry, made._grad, made._ctx = None, None, self._ctx
        if made._pending is not None:
            made._pending[0].watch(made._pending[1], made)
        return made

    def _as(self: Any, cls: Any) -> NDArray:
        """The same memory as an array of another class."""
        if type(self) is cls:
            return self  # type: ignore[no-any-return]
        made: NDArray = cls.__new__(cls)
        made._array, made._pending, made._entry = self._array, self._pending, self._entry
        made._grad, made._ctx = self._grad, self._ctx
        if made._pending is not None:
            made._pending[0].watch(made._pending[1], made)
        return made

    def backward(self: Any, out_grad: NDArray | None = None, retain_graph: bool = False, train_mode: bool = True) -> None:
        """Carry the gradient (ones, or `out_grad`) back from this array to all that have one attached."""
        run_backward([self], [out_grad], retain_graph)
