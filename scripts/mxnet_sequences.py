"""Export small recurrent, attention and control-flow networks under real MXNet 1.9.1: tests/data/mxnet_sequences.{json,npz}.

    MXNET_SUBGRAPH_BACKEND=NONE OMP_NUM_THREADS=1 path/to/python-with-mxnet scripts/mxnet_sequences.py tests/data/mxnet_sequences

Each network goes through HybridBlock.export, as users save them; symbol, weights, inputs and outputs are kept.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np

warnings.filterwarnings("ignore")
import mxnet as mx  # noqa: E402
from mxnet import gluon  # noqa: E402
from mxnet.gluon import nn, rnn  # noqa: E402

RNG = np.random.RandomState(3)


def normal(*shape):
    return (np.round(RNG.randn(*shape) * 256) / 256).astype("float32")


def tokens(*shape, high):
    return RNG.randint(0, high, shape).astype("float32")


class Unrolled(gluon.HybridBlock):
    """A cell over four steps, with its final states."""

    def __init__(self, cell):
        super().__init__()
        self.cell = cell

    def hybrid_forward(self, F, x):
        y, states = self.cell.unroll(4, x, layout="NTC", merge_outputs=True)
        return [y, *states]


class Stateful(gluon.HybridBlock):
    """A fused layer whose states are an input and an output."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def hybrid_forward(self, F, x, *states):
        y, out = self.layer(x, list(states))
        return [y, *out]


class Language(gluon.HybridBlock):
    """Embedding, LSTM, projection to the vocabulary."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 6)
        self.lstm = rnn.LSTM(8, 2)
        self.out = nn.Dense(20, flatten=False)

    def hybrid_forward(self, F, x):
        return self.out(self.lstm(self.embed(x)))


class Encoder(gluon.HybridBlock):
    """One transformer layer with MXNet's interleaved attention products, padded positions masked."""

    def __init__(self, units=16, heads=4):
        super().__init__()
        self.units, self.heads = units, heads
        self.embed, self.place = nn.Embedding(30, units), nn.Embedding(12, units)
        self.qkv, self.proj = nn.Dense(3 * units, flatten=False), nn.Dense(units, flatten=False)
        self.up, self.down = nn.Dense(32, flatten=False), nn.Dense(units, flatten=False)
        self.norm1, self.norm2, self.gelu = nn.LayerNorm(), nn.LayerNorm(), nn.GELU()
        self.drop = nn.Dropout(0.1)

    def hybrid_forward(self, F, ids, length):
        x = self.embed(ids)
        x = F.broadcast_add(x, F.expand_dims(self.place(F.contrib.arange_like(x, axis=1)), axis=0))
        x = self.drop(F.transpose(x, axes=(1, 0, 2)))
        qkv = self.qkv(x)
        scores = F.contrib.interleaved_matmul_selfatt_qk(qkv, heads=self.heads)
        rows = F.broadcast_axis(F.expand_dims(length, axis=1), axis=1, size=self.heads)
        rows = F.broadcast_like(F.expand_dims(F.reshape(rows, shape=(-1,)), axis=1), F.slice_axis(scores, axis=2, begin=0, end=1),
                                lhs_axes=(1,), rhs_axes=(1,))  # fmt: skip
        weights = F.softmax(scores, F.cast(rows, "int32"), use_length=True, axis=-1)
        y = F.contrib.interleaved_matmul_selfatt_valatt(qkv, weights, heads=self.heads)
        x = self.norm1(x + self.proj(y))
        x = self.norm2(x + self.down(self.gelu(self.up(x))))
        x = F.SequenceMask(x, sequence_length=length, use_sequence_length=True)
        return F.transpose(x, axes=(1, 0, 2))


class Loop(gluon.HybridBlock):
    """foreach with two states and a closure."""

    def hybrid_forward(self, F, x, a, b):
        def step(now, states):
            new = F.tanh(now + states[0] * b)
            return [new, new * 2], [new, states[1] + now]

        outs, states = F.contrib.foreach(step, x, [a, F.zeros_like(a)])
        return [*outs, *states]


class Choice(gluon.HybridBlock):
    """cond on a computed predicate."""

    def hybrid_forward(self, F, x, y):
        return F.contrib.cond(F.sum(x) < F.sum(y), lambda: x * 2 + y, lambda: F.tanh(x - y))


def stack():
    cell = rnn.HybridSequentialRNNCell()
    cell.add(rnn.LSTMCell(5))
    cell.add(rnn.ResidualCell(rnn.RNNCell(5)))
    return cell


def networks():
    yield "lstm_bidirectional", rnn.LSTM(5, 2, bidirectional=True), [normal(6, 3, 4)]
    yield "gru_ntc", rnn.GRU(5, layout="NTC"), [normal(3, 6, 4)]
    yield "rnn_relu", rnn.RNN(5, activation="relu"), [normal(6, 3, 4)]
    yield "lstm_states", Stateful(rnn.LSTM(5, 2)), [normal(6, 3, 4), normal(2, 3, 5), normal(2, 3, 5)]
    yield "gru_states", Stateful(rnn.GRU(5, bidirectional=True)), [normal(6, 3, 4), normal(2, 3, 5)]
    yield "lstm_cell", Unrolled(rnn.LSTMCell(5)), [normal(3, 4, 7)]
    yield "gru_cell", Unrolled(rnn.GRUCell(5)), [normal(3, 4, 7)]
    yield "stacked_cells", Unrolled(stack()), [normal(3, 4, 5)]
    yield "bidirectional_cell", Unrolled(rnn.BidirectionalCell(rnn.LSTMCell(5), rnn.GRUCell(4))), [normal(3, 4, 5)]
    yield "language_model", Language(), [tokens(5, 2, high=20)]
    yield "transformer", Encoder(), [tokens(2, 7, high=30), np.array([4, 7], "float32")]
    yield "foreach", Loop(), [normal(4, 3, 2), normal(3, 2), normal(3, 2)]
    yield "cond_then", Choice(), [normal(3, 2) - 5, normal(3, 2)]
    yield "cond_else", Choice(), [normal(3, 2) + 5, normal(3, 2)]
    yield "lstm_projected", Stateful(rnn.LSTM(5, 2, bidirectional=True, projection_size=3)), [
        normal(6, 3, 4), normal(4, 3, 3), normal(4, 3, 5)]  # fmt: skip


def flat(value):
    return [v for part in value for v in flat(part)] if isinstance(value, (list, tuple)) else [value]


def main(stem):
    mx.random.seed(5)
    arrays, symbols = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, net, inputs in networks():
            net.initialize(mx.init.Normal(0.3))
            net.hybridize()
            outputs = flat(net(*(mx.nd.array(x) for x in inputs)))
            path = Path(folder) / name
            net.export(str(path))
            symbols[name] = json.loads(Path(f"{path}-symbol.json").read_text())
            arrays.update({f"{name}/in{i}": x for i, x in enumerate(inputs)})
            arrays.update({f"{name}/out{i}": y.asnumpy() for i, y in enumerate(outputs)})
            weights = mx.nd.load(f"{path}-0000.params")
            arrays.update({f"{name}/{k}": w.asnumpy() for k, w in (weights or {}).items()})
            print(name, [y.shape for y in outputs])
    np.savez_compressed(stem + ".npz", **arrays)
    lines = [f'"{k}": {json.dumps(v, separators=(",", ":"))}' for k, v in symbols.items()]
    Path(stem + ".json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
