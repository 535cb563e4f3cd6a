"""Checkpoints whose parameters are by gate, so that fused and single cells read each other's."""

from __future__ import annotations

from typing import Any

from diptych.mxnet.model import load_checkpoint, save_checkpoint
from diptych.mxnet.rnn.cells import BaseRNNCell

__all__ = ["do_rnn_checkpoint", "load_rnn_checkpoint", "save_rnn_checkpoint"]


def save_rnn_checkpoint(cells: Any, prefix: str, epoch: int, symbol: Any, arg_params: Any, aux_params: Any) -> None:
    """Write a checkpoint with the weights of the cells by gate."""
    for cell in [cells] if isinstance(cells, BaseRNNCell) else cells:
        arg_params = cell.unpack_weights(arg_params)
    save_checkpoint(prefix, epoch, symbol, arg_params, aux_params)


def load_rnn_checkpoint(cells: Any, prefix: str, epoch: int) -> Any:
    """(symbol, arguments, auxiliary states) with the weights as the cells have them."""
    symbol, args, aux = load_checkpoint(prefix, epoch)
    for cell in [cells] if isinstance(cells, BaseRNNCell) else cells:
        args = cell.pack_weights(args)
    return symbol, args, aux


def do_rnn_checkpoint(cells: Any, prefix: str, period: int = 1) -> Any:
    """A callback that writes a checkpoint every `period` epochs."""
    period = max(1, int(period))

    def save(iter_no: int, sym: Any = None, arg: Any = None, aux: Any = None) -> None:
        if (iter_no + 1) % period == 0:
            save_rnn_checkpoint(cells, prefix, iter_no + 1, sym, arg, aux)

    return save
