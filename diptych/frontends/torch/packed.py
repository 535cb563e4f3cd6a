"""Packed sequences (torch.nn.utils.rnn) in exported programs: padded data of a fixed shape, beside their lengths.

How many rows packed data has depends on the lengths, so a program of fixed shapes cannot hold it. While a module is
exported here, packing keeps all steps of all rows and the lengths; recurrent layers stop each row at its length, and
what lies past it is filled with the padding value when the sequence is unpacked. Whatever else looks at packed data
would see the padding, so it is refused.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import TYPE_CHECKING, Any

from diptych.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["check_packed", "packed_as_padded"]

_LOG = logging.getLogger("diptych")
_trace = threading.local()  # .active: whether a module is being exported on this thread
_patching = threading.Lock()
_users = 0
_LAYERS = ("lstm", "gru", "rnn_tanh", "rnn_relu")


def _register() -> None:
    """The operators of the exported programs; once per process."""
    import torch

    if hasattr(_register, "library"):
        return
    library = torch.library.Library("diptych", "FRAGMENT")
    library.define("pack(Tensor x, Tensor lengths) -> Tensor")
    library.define("unpack(Tensor data, Tensor lengths, bool batch_first, float padding) -> Tensor")
    library.define("recurrent(Tensor data, Tensor lengths, Tensor[] hx, Tensor[] params, str mode, bool has_biases,"
                   " int layers, bool bidirectional) -> Tensor[]")  # fmt: skip

    def unpack(data: Any, lengths: Any, batch_first: bool, padding: float) -> Any:
        rows = lengths.shape[0]
        steps = data.shape[0] // rows
        return data.new_empty((rows, steps, *data.shape[1:]) if batch_first else (steps, rows, *data.shape[1:]))

    def recurrent(data: Any, lengths: Any, hx: Any, params: Any, mode: str, has_biases: bool, layers: int, bidirectional: bool) -> Any:
        width = hx[0].shape[2] * (2 if bidirectional else 1)
        return [data.new_empty(data.shape[0], width), *(torch.empty_like(h) for h in hx)]

    library.impl("pack", lambda x, lengths: x.new_empty((x.shape[0] * x.shape[1], *x.shape[2:])), "Meta")
    library.impl("unpack", unpack, "Meta")
    library.impl("recurrent", recurrent, "Meta")
    _register.library = library  # type: ignore[attr-defined]  # the definitions live as long as this does


class _Sizes:
    """Stands for the batch sizes of a packed sequence, one for each step: every step has all rows. Knows their lengths."""

    def __init__(self, steps: int, rows: int, lengths: Any) -> None:
        self.steps, self.rows, self.lengths, self.device = steps, rows, lengths, lengths.device

    def size(self, axis: int = 0) -> int:
        return self.steps

    def __getitem__(self, step: int) -> int:
        return self.rows


def _pack(original: Callable[..., Any]) -> Callable[..., Any]:
    def pack(x: Any, lengths: Any, batch_first: bool) -> Any:
        import torch

        if not getattr(_trace, "active", False):
            return original(x, lengths, batch_first)
        x = x.transpose(0, 1) if batch_first else x
        return torch.ops.diptych.pack(x, lengths), _Sizes(x.shape[0], x.shape[1], lengths)

    return pack


def _unpack(original: Callable[..., Any]) -> Callable[..., Any]:
    def unpack(data: Any, sizes: Any, batch_first: bool, padding: float, total: int) -> Any:
        import torch

        if not isinstance(sizes, _Sizes):
            return original(data, sizes, batch_first, padding, total)
        out = torch.ops.diptych.unpack(data, sizes.lengths, batch_first, float(padding))
        more = total - sizes.steps
        if more > 0:
            where = [0, 0] * (out.dim() - 2) + ([0, more] if batch_first else [0, 0, 0, more])
            out = torch.nn.functional.pad(out, where, value=float(padding))
        else:
            _LOG.info("unpacked sequences have all %d steps of what was packed, however long the longest row is", total)
        return out, sizes.lengths

    return unpack


def _layer(mode: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def layer(data: Any, sizes: Any, *more: Any) -> Any:
        import torch

        if not isinstance(sizes, _Sizes):
            return original(data, sizes, *more)
        hx, params, has_biases, layers, dropout, train, bidirectional = more
        if train and dropout:
            raise UnsupportedError("dropout between recurrent layers is active; call model.eval() before exporting")
        states = list(hx) if mode == "lstm" else [hx]
        return tuple(torch.ops.diptych.recurrent(data, sizes.lengths, states, list(params), mode, has_biases, layers, bidirectional))

    return layer


@contextlib.contextmanager
def packed_as_padded() -> Iterator[None]:
    """Inside, on this thread, packing and the layers that take packed sequences keep to padded data and lengths."""
    global _users
    from torch import _VF

    _register()
    vf: Any = _VF
    with _patching:
        if _users == 0:
            vf._pack_padded_sequence = _pack(vf._pack_padded_sequence)
            vf._pad_packed_sequence = _unpack(vf._pad_packed_sequence)
            for mode in _LAYERS:
                setattr(vf, mode, _layer(mode, getattr(vf, mode)))
        _users += 1
    before = getattr(_trace, "active", False)
    _trace.active = True
    try:
        yield
    finally:
        _trace.active = before
        with _patching:
            _users -= 1
            if _users == 0:
                for name in ("_pack_padded_sequence", "_pad_packed_sequence", *_LAYERS):
                    delattr(vf, name)  # the module finds torch's own again


def check_packed(program: Any) -> None:
    """UnsupportedError where anything but recurrent layers and unpacking looks at packed data."""
    nodes = program.graph.nodes
    ours = {"diptych.pack.default", "diptych.recurrent.default", "diptych.unpack.default"}
    for node in nodes:
        if str(node.target) not in ("diptych.pack.default", "diptych.recurrent.default"):
            continue
        packed = [node] if str(node.target) == "diptych.pack.default" else [u for u in node.users if u.args[1] == 0]
        for value in packed:
            for user in value.users:
                if str(user.target) not in ours:
                    what = "the model gives out" if user.op == "output" else f"{user.target} looks at"
                    raise UnsupportedError(
                        f"{what} the data of a packed sequence, whose shape depends on the lengths;"
                        " unpack it first with torch.nn.utils.rnn.pad_packed_sequence"
                    )
