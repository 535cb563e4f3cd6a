"""Automatic differentiation: record what is computed, then carry gradients back (`mx.autograd`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diptych.mxnet.base import MXNetError
from diptych.mxnet.ndarray.ndarray import NDArray
from diptych.mxnet.tape import Entry, Node, state
from diptych.mxnet.tape import backward as run_backward

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "Function", "NDArray", "backward", "get_symbol", "grad", "is_recording", "is_training", "mark_variables", "pause",
    "predict_mode", "record", "set_recording", "set_training", "train_mode",
]  # fmt: skip


def set_recording(is_recording: bool) -> bool:
    """Switch recording on or off; the former setting."""
    before, state.recording = state.recording, bool(is_recording)
    return before


def set_training(train_mode: bool) -> bool:
    """Switch training mode on or off; the former setting."""
    before, state.training = state.training, bool(train_mode)
    return before


def is_recording() -> bool:
    """Whether calls are recorded."""
    return state.recording


def is_training() -> bool:
    """Whether operators take their training form (Dropout drops, BatchNorm uses the batch)."""
    return state.training


class _RecordingStateScope:
    def __init__(self, is_record: bool | None, train_mode: bool | None) -> None:
        self._enter = (is_record, train_mode)
        self._before: list[tuple[bool, bool]] = []

    def __enter__(self) -> None:
        self._before.append((state.recording, state.training))
        record, train = self._enter
        if record is not None:
            state.recording = record
        if train is not None:
            state.training = train

    def __exit__(self, *exc: object) -> None:
        state.recording, state.training = self._before.pop()


def record(train_mode: bool = True) -> _RecordingStateScope:
    """A context in which calls are recorded, in training mode unless told otherwise.

    >>> from diptych.mxnet import nd
    >>> x = nd.array([1.0, 2.0])
    >>> x.attach_grad()
    >>> with record():
    ...     y = (x * x).sum()
    >>> y.backward()
    >>> x.grad.asnumpy()
    array([2., 4.], dtype=float32)
    """
    return _RecordingStateScope(True, train_mode)


def pause(train_mode: bool = False) -> _RecordingStateScope:
    """A context in which calls are not recorded."""
    return _RecordingStateScope(False, train_mode)


def train_mode() -> _RecordingStateScope:
    """A context of training mode; recording stays as it is."""
    return _RecordingStateScope(None, True)


def predict_mode() -> _RecordingStateScope:
    """A context of inference mode; recording stays as it is."""
    return _RecordingStateScope(None, False)


def _list(x: Any) -> list[Any]:
    return list(x) if isinstance(x, (list, tuple)) else [x]


def mark_variables(variables: Any, gradients: Any, grad_reqs: Any = "write") -> None:
    """Ask for gradients of arrays, to be put into these arrays."""
    variables, gradients = _list(variables), _list(gradients)
    reqs = [grad_reqs] * len(variables) if isinstance(grad_reqs, str) else list(grad_reqs)
    for variable, gradient, req in zip(variables, gradients, reqs, strict=True):
        variable._mark(gradient, req)


def _heads(heads: Any, head_grads: Any) -> tuple[list[NDArray], list[NDArray | None]]:
    heads = _list(heads)
    grads: list[Any] = [None] * len(heads) if head_grads is None else _list(head_grads)
    if len(grads) != len(heads):
        raise ValueError(f"{len(head_grads)} head_grads for {len(heads)} heads: one for each is needed")
    return heads, grads


def backward(heads: Any, head_grads: Any = None, retain_graph: bool = False, train_mode: bool = True) -> None:
    """Carry gradients from `heads` back to all variables they depend on."""
    heads, grads = _heads(heads, head_grads)
    run_backward(heads, grads, retain_graph)


def grad(heads: Any, variables: Any, head_grads: Any = None, retain_graph: bool | None = None, create_graph: bool = False,
         train_mode: bool = True) -> Any:  # fmt: skip
    """The gradients of `heads` with respect to `variables`, as new arrays; with create_graph they are recorded too.

    They come as a list, also for a single variable, as in MXNet.
    """
    heads, grads = _heads(heads, head_grads)
    wanted: Sequence[NDArray] = _list(variables)
    if not wanted:
        raise ValueError("autograd.grad: no variables given, there is nothing to differentiate by")
    for i, x in enumerate(wanted):
        if x._entry is None:
            raise MXNetError(f"variable {i + 1} wants no gradient: attach_grad() before autograd.record()")
    keep = create_graph if retain_graph is None else retain_graph
    found = run_backward(heads, grads, bool(keep), wanted, create_graph)
    for i, d in enumerate(found):
        if d is None:
            raise MXNetError(f"the heads do not depend on variable {i + 1}")
    return found


def get_symbol(x: NDArray) -> Any:
    """The symbol of what has been recorded for an array."""
    from diptych.mxnet.symbol.from_tape import symbol_of

    return symbol_of(x)


class Function:
    """A function with a gradient of your own: subclass it with `forward(*inputs)` and `backward(*output_grads)`."""

    def __init__(self) -> None:
        self._used = False
        self.saved_tensors: tuple[Any, ...] = ()

    def save_for_backward(self, *args: Any) -> None:
        """Keep arrays for `backward`, in `saved_tensors`."""
        self.saved_tensors = args

    def __call__(self, *inputs: Any) -> Any:
        if self._used:
            raise AssertionError("this Function was called before, and keeps what that call saved: make a new one for every call")
        self._used = True
        recording = state.recording
        with pause():
            outputs = self.forward(*inputs)
        if not recording:
            return outputs
        single = not isinstance(outputs, (list, tuple))
        results = [outputs] if single else list(outputs)
        node = _FunctionNode(self, inputs, len(results))
        results = [r.detach() for r in results]
        for i, r in enumerate(results):
            r._entry = Entry(node, i)
        return results[0] if single else type(outputs)(results)

    def forward(self, *inputs: Any) -> Any:
        """What is computed."""
        raise NotImplementedError

    def backward(self, *output_grads: Any) -> Any:
        """The gradients of the inputs from those of the outputs."""
        raise NotImplementedError


class _FunctionNode(Node):
    """A call of a Function on the tape."""

    __slots__ = ("function", "given", "results")

    def __init__(self, function: Function, inputs: Sequence[Any], outputs: int) -> None:
        self.given = [x for x in inputs if isinstance(x, NDArray)]
        super().__init__([x._entry for x in self.given], outputs)
        self.function = function
        self.results = outputs

    def backward(self, arrived: list[NDArray | None], keep: bool) -> list[NDArray | None]:
        if any(d is None for d in arrived):
            raise MXNetError(f"{type(self.function).__name__}: no gradient arrived at one of its outputs")
        with pause(train_mode=state.training):
            found = _list(self.function.backward(*arrived))
        if len(found) != len(self.inputs):
            raise AssertionError(
                f"{type(self.function).__name__}.backward gave {len(found)} arrays for {len(self.inputs)} inputs: "
                "one gradient for each argument of forward is needed")  # fmt: skip
        return found
