"""`mx.rnn`: recurrent cells of symbols, for Module (gluon has its own in `mx.gluon.rnn`).

>>> import diptych.mxnet as mx
>>> cell = mx.rnn.LSTMCell(8, prefix="lstm_")
>>> outputs, states = cell.unroll(3, mx.sym.Variable("data"), merge_outputs=True)
>>> outputs.infer_shape(data=(2, 3, 5))[1]
[(2, 3, 8)]
"""

from __future__ import annotations

from diptych.mxnet.rnn.cells import BaseRNNCell, GRUCell, LSTMCell, RNNCell, RNNParams
from diptych.mxnet.rnn.checkpoint import do_rnn_checkpoint, load_rnn_checkpoint, save_rnn_checkpoint
from diptych.mxnet.rnn.composed import (
    BidirectionalCell,
    DropoutCell,
    FusedRNNCell,
    ModifierCell,
    ResidualCell,
    SequentialRNNCell,
    ZoneoutCell,
)
from diptych.mxnet.rnn.conv_cells import BaseConvRNNCell, ConvGRUCell, ConvLSTMCell, ConvRNNCell
from diptych.mxnet.rnn.io import BucketSentenceIter, encode_sentences

__all__ = [
    "BaseConvRNNCell", "BaseRNNCell", "BidirectionalCell", "BucketSentenceIter", "ConvGRUCell", "ConvLSTMCell", "ConvRNNCell",
    "DropoutCell", "FusedRNNCell", "GRUCell", "LSTMCell", "ModifierCell", "RNNCell", "RNNParams", "ResidualCell", "SequentialRNNCell",
    "ZoneoutCell", "do_rnn_checkpoint", "encode_sentences", "load_rnn_checkpoint", "save_rnn_checkpoint",
]  # fmt: skip
