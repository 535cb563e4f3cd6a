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


if __name__ == "__main__":
    import mxnet

    sys.stdout.write(json.dumps(globals()[sys.argv[1]](mxnet, Path(sys.argv[2]))))
