"""Programs in gluon that run on `diptych.mxnet` and on MXNet itself: `python gluon_programs.py NAME FOLDER` prints numbers."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any


def simple_nn(mx: Any, folder: Path) -> Any:
    """The example's network from a given weight."""
    spec = importlib.util.spec_from_file_location("simple", Path(__file__).parents[2] / "examples" / "mxnet_simple_nn.py")
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module.run(mx, [[0.03, -0.02]])


def network(mx: Any) -> Any:
    """A convolutional network with normalisation and an LSTM's worth of layers of several kinds."""
    nn = mx.gluon.nn
    net = nn.HybridSequential(prefix="net_")
    with net.name_scope():
        net.add(nn.Conv2D(6, 3, activation="relu"), nn.BatchNorm(), nn.MaxPool2D(2), nn.Conv2D(8, 3, padding=1, use_bias=False),
                nn.LeakyReLU(0.1), nn.GlobalAvgPool2D(), nn.Flatten(), nn.Dense(5))  # fmt: skip
    return net


def images(mx: Any) -> Any:
    """Images that both sides make alike."""
    n = 4 * 3 * 10 * 10
    return (mx.nd.arange(n).reshape((4, 3, 10, 10)) * 0.37).sin()


def train(mx: Any, folder: Path) -> Any:
    """Ten steps of SGD with momentum from the parameters in the folder."""
    net = network(mx)
    net.load_parameters(str(folder / "start.params"))
    net.hybridize()
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1, "momentum": 0.9, "wd": 1e-3})
    loss_of = mx.gluon.loss.SoftmaxCrossEntropyLoss()
    x, y = images(mx), mx.nd.array([0, 3, 1, 4])
    losses = []
    for _ in range(10):
        with mx.autograd.record():
            loss = loss_of(net(x), y)
        loss.backward()
        trainer.step(4)
        losses.append(float(loss.mean().asscalar()))
    return {"losses": losses, "output": net(x).asnumpy().tolist()}


def read(mx: Any, folder: Path) -> Any:
    """Outputs from the files that the other side wrote: save_parameters, export."""
    x = images(mx)
    net = network(mx)
    net.load_parameters(str(folder / "other.params"))
    symbol = mx.gluon.SymbolBlock.imports(str(folder / "other-symbol.json"), ["data"], str(folder / "other-0003.params"))
    return [net(x).asnumpy().tolist(), symbol(x).asnumpy().tolist()]


def write(mx: Any, folder: Path) -> Any:
    """Write files for the other side, and what they should give."""
    net = network(mx)
    net.load_parameters(str(folder / "start.params"))
    net.hybridize()
    x = images(mx)
    y = net(x)
    net.save_parameters(str(folder / "other.params"))
    net.export(str(folder / "other"), 3)
    return [y.asnumpy().tolist()] * 2


def _pattern(mx: Any, shape: Any, phase: float) -> Any:
    """Numbers that both sides make alike."""
    n = 1
    for d in shape:
        n *= d
    return (mx.nd.arange(n) * 0.71 + phase).sin().reshape(shape) * 0.5


def _filled(mx: Any, block: Any) -> Any:
    for i, name in enumerate(sorted(block.collect_params())):
        p = block.collect_params()[name]
        p.set_data(_pattern(mx, p.shape, i))
    return block


def contrib_cells(mx: Any, folder: Path) -> Any:
    """Outputs, states and gradients of the cells under gluon.contrib."""
    rnn = mx.gluon.contrib.rnn
    cells = {f"Conv{n}D{kind}Cell": (shape, getattr(rnn, f"Conv{n}D{kind}Cell")(shape, 3, 2, 3, i2h_pad=1, h2h_dilate=2, prefix="c_"))
             for kind in ("RNN", "LSTM", "GRU") for n, shape in ((1, (2, 7)), (2, (2, 5, 6)), (3, (2, 4, 3, 4)))}  # fmt: skip
    cells["LSTMPCell"] = ((4,), rnn.LSTMPCell(5, 3, input_size=4, prefix="c_"))
    out: dict[str, Any] = {}
    for name, (shape, cell) in cells.items():
        cell.initialize()
        _filled(mx, cell)
        x = _pattern(mx, (2, 3, *shape), 0.3)
        x.attach_grad()
        with mx.autograd.record():
            y, states = cell.unroll(3, x, merge_outputs=True)
            total = (y * y).sum() + sum((s * s * s).sum() for s in states)
        total.backward()
        out[name] = [v.asnumpy().tolist() for v in (y, *states, x.grad, cell.h2h_weight.grad())]
    return out


def dynamic_unroll(mx: Any, folder: Path) -> Any:
    """A sequence with lengths through the loop operator, in both layouts."""
    out = {}
    for layout, shape in (("TNC", (4, 2, 3)), ("NTC", (2, 4, 3))):
        for lengths in (None, mx.nd.array([2, 4])):
            cell = mx.gluon.rnn.LSTMCell(5, input_size=3, prefix="c_")
            cell.initialize()
            _filled(mx, cell)
            x, first = _pattern(mx, shape, 0.1), [_pattern(mx, (2, 5), 1), _pattern(mx, (2, 5), 2)]
            x.attach_grad()
            with mx.autograd.record():
                y, states = mx.gluon.contrib.rnn.rnn_cell.dynamic_unroll(cell, x, first, layout=layout, valid_length=lengths)
                total = (y * y).sum() + (states[1] * 2).sum()
            total.backward()
            out[f"{layout} {lengths is not None}"] = [v.asnumpy().tolist() for v in (y, *states, x.grad, cell.i2h_weight.grad())]
    return out


def symbol_cells(mx: Any, folder: Path) -> Any:
    """The convolutional cells of mx.rnn: names, shapes and outputs."""
    out: dict[str, Any] = {}
    for kind in ("RNN", "LSTM", "GRU"):
        cell = getattr(mx.rnn, f"Conv{kind}Cell")((2, 3, 6, 5), 4, i2h_pad=(0, 1), h2h_kernel=(3, 5), prefix="c_")
        outputs, states = cell.unroll(2, [mx.sym.Variable("a"), mx.sym.Variable("b")])
        group = mx.sym.Group([*outputs, *states])
        shapes, out_shapes, _ = group.infer_shape(a=(2, 3, 6, 5), b=(2, 3, 6, 5))
        names = group.list_arguments()
        values = {n: _pattern(mx, s, i) for i, (n, s) in enumerate(zip(names, shapes))}
        executor = group.bind(mx.cpu(), values)
        split = cell.unpack_weights({k: v for k, v in values.items() if k.startswith("c_")})
        assert sorted(cell.pack_weights(split)) == sorted(k for k in values if k.startswith("c_"))
        out[kind] = [v.asnumpy().tolist() for v in executor.forward()]
        assert [v.shape for v in executor.outputs] == out_shapes
        out[kind + " names"] = [" ".join(names + group.list_outputs())]
    return out


def unknown_attributes(mx: Any, folder: Path) -> Any:
    """Operators without attributes take any; others refuse unknown ones."""
    a, b = mx.nd.array([[1.0, 5.0]]), mx.nd.array([[2.0], [3.0]])
    try:
        mx.nd.sum(a, foo=3).asnumpy()
        refused = 0
    except mx.MXNetError:
        refused = 1
    named = mx.sym.broadcast_maximum(mx.sym.Variable("a"), mx.sym.Variable("b"), axis=1)
    return [mx.nd.broadcast_maximum(a, b, axis=1).asnumpy().tolist(), named.eval(a=a, b=b)[0].asnumpy().tolist(), refused]


def image_operators(mx: Any, folder: Path) -> Any:
    """Operators on images, with the gradients of those that have one."""
    image, out = mx.nd.image, []
    numbers = (mx.nd.arange(2 * 4 * 6 * 3) * 1.7).sin().reshape((2, 4, 6, 3)) * 127 + 128
    for kind in ("uint8", "float32"):
        many = numbers.astype(kind)
        one = many[0]
        out += [image.flip_left_right(one), image.flip_top_bottom(one), image.adjust_lighting(one, (0.1, -0.2, 2.5))]
        for x in (one, many):
            if kind == "float32":  # OpenCV's weights for bytes have 11 bits: a level more or less
                out += [image.resize(x, (7, 3)), image.resize(x, 5, True)]
            out += [image.crop(x, 1, 2, 3, 2), image.to_tensor(x),
                    image.normalize(image.to_tensor(x), (0.1, 0.2, 0.3), (1, 2, 3)), image.normalize(image.to_tensor(x), 0.5, 0.25)]  # fmt: skip
    x = numbers.copy()
    x.attach_grad()
    with mx.autograd.record():
        y = image.normalize(image.crop(x, 1, 0, 4, 3).transpose((0, 3, 1, 2)), (1, 2, 3), (4, 5, 6))
    y.backward()
    cropped = mx.sym.image.crop(mx.sym.Variable("x"), 0, 1, 2, 2)
    return [v.asnumpy().astype("float32").tolist() for v in (*out, x.grad, cropped.eval(x=numbers)[0])]


def splits(mx: Any, folder: Path) -> Any:
    """Uneven parts of a batch."""
    x = mx.nd.arange(21).reshape((7, 3))
    cases = ((4, 0), (3, 0), (9, 0), (2, 1))
    return [[part.asnumpy().tolist() for part in mx.gluon.utils.split_data(x, n, axis, even_split=False)] for n, axis in cases]


def symbol_block_names(mx: Any, folder: Path) -> Any:
    """How files name the parameters of blocks made from symbols, alone and inside of others."""
    x = mx.sym.var("data")
    two = mx.sym.FullyConnected(mx.sym.BatchNorm(x, name="net3_bn"), num_hidden=3, name="net3_fc")
    net = mx.gluon.nn.HybridSequential()
    net.add(mx.gluon.SymbolBlock(two, x), mx.gluon.nn.Dense(2))
    net.initialize()
    net(mx.nd.ones((2, 4)))
    net.save_parameters(str(folder / "symbol.params"))
    names = sorted(mx.nd.load(str(folder / "symbol.params")))
    return [" ".join(names)]


def hooks(mx: Any, folder: Path) -> Any:
    """What hooks of operators are told."""
    nn = mx.gluon.nn
    told = []
    for everything in (False, True):
        net = nn.HybridSequential(prefix="net_")
        with net.name_scope():
            net.add(nn.Conv2D(2, 1), nn.Activation("relu"), nn.MaxPool2D(), nn.LeakyReLU(0.1), nn.Dense(3))
        net.initialize()
        net.hybridize()
        net.register_op_hook(lambda name, kind, _: told.append((name, kind)), everything)
        net(mx.nd.ones((1, 2, 4, 4)))
    texts = [t.decode() if isinstance(t, bytes) else t for pair in told for t in pair]
    return [" ".join(texts)]


def recorded_symbols(mx: Any, folder: Path) -> Any:
    """The operators of what was recorded, with a hybridized block inside as one or as its operators."""
    out = []
    for limit in (0, 2, 3):
        net = mx.gluon.nn.HybridSequential()
        for _ in range(3):
            net.add(mx.gluon.nn.Dense(4))
        net.initialize()
        net.hybridize(inline_limit=limit)
        with mx.autograd.record():
            y = net(mx.nd.ones((2, 5))) * 2
        nodes = json.loads(mx.autograd.get_symbol(y).tojson())["nodes"]
        out.append(" ".join(sorted(n["op"] for n in nodes)))
    return out


if __name__ == "__main__":
    import mxnet

    sys.stdout.write(json.dumps(globals()[sys.argv[1]](mxnet, Path(sys.argv[2]))))
