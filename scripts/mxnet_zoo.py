"""Export gluon.model_zoo.vision under real MXNet 1.9.1, with the output of each network: tests/data/mxnet_zoo.

    MXNET_SUBGRAPH_BACKEND=NONE OMP_NUM_THREADS=1 path/to/python-with-mxnet scripts/mxnet_zoo.py tests/data/mxnet_zoo [GRAPHS]

No weights are kept: both sides draw them from NumPy by name, shape and seed (diptych/frontends/mxnet/random_weights.py).
With GRAPHS, a folder of symbol files without weights, the outputs of these are taken in the same way instead.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import sys
import warnings
from pathlib import Path

import numpy as np

warnings.filterwarnings("ignore")
import mxnet as mx  # noqa: E402
from mxnet.gluon.model_zoo import vision  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
_spec = importlib.util.spec_from_file_location(
    "random_weights", ROOT / "diptych" / "frontends" / "mxnet" / "random_weights.py"
)
random_weights = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(random_weights)

ZOO = [f"resnet{n}_v{v}" for v in (1, 2) for n in (18, 34, 50, 101, 152)]
ZOO += [f"vgg{n}{bn}" for bn in ("", "_bn") for n in (11, 13, 16, 19)]
ZOO += ["alexnet", "densenet121", "densenet161", "densenet169", "densenet201", "squeezenet1.0", "squeezenet1.1",
        "inceptionv3"]  # fmt: skip
ZOO += [f"mobilenet{m}" for m in ("1.0", "0.75", "0.5", "0.25")] + [f"mobilenetv2_{m}" for m in ("1.0", "0.75", "0.5", "0.25")]

FUSED = ("resnet18_v1", "squeezenet1.1")  # also kept as MXNet's own backend fuses them

# Graphs without weights: inputs, and the one head to look at ("": all). The last is a training graph with its labels.
GRAPHS = {
    "arcface_r100": ({"data": (1, 3, 112, 112)}, ""),
    "squeezenet_v1.2": ({"data": (1, 3, 224, 224)}, ""),
    "retinaface_r50": ({"data": (1, 3, 96, 128)}, ""),
    "sagemaker_ssd_resnet50": ({"data": (1, 3, 160, 160), "label": (1, 3, 6)}, "det_out_output"),
}


def size_of(name):
    """The smallest square input each family takes (some end in an average over a fixed window)."""
    if name.startswith("inception"):
        return 299
    return 224 if name.startswith(("densenet", "squeezenet")) else 64


def outputs_of(symbol, inputs):
    arguments, _, states = symbol.infer_shape(**{n: x.shape for n, x in inputs.items()})
    args, aux = {}, {}
    for name, shape in zip(symbol.list_arguments(), arguments):
        args[name] = mx.nd.array(inputs[name] if name in inputs else random_weights.draw(name, shape))
    for name, shape in zip(symbol.list_auxiliary_states(), states):
        aux[name] = mx.nd.array(random_weights.draw(name, shape, aux=True))
    executor = symbol.bind(mx.cpu(), args=args, aux_states=aux)
    return {n: y.asnumpy() for n, y in zip(symbol.list_outputs(), executor.forward(is_train=False))}


def draw_input(name, shape):
    return random_weights.draw(name + "_input", shape).astype("float32") / np.float32(np.sqrt(2.0 / np.prod(shape[1:])))


def zoo(out):
    golden = {}
    for name in ZOO:
        with mx.name.NameManager():
            net = vision.get_model(name, prefix="")
            symbol = net(mx.sym.Variable("data"))
        text = json.dumps({k: v for k, v in json.loads(symbol.tojson()).items() if k != "node_row_ptr"})
        (out / f"{name}-symbol.json.gz").write_bytes(gzip.compress(text.encode(), 9, mtime=0))
        if name in FUSED:
            text = symbol.get_backend_symbol("MKLDNN").tojson()
            (out / "fused").mkdir(exist_ok=True)
            (out / "fused" / f"{name}.json.gz").write_bytes(gzip.compress(text.encode(), 9, mtime=0))
        x = draw_input("data", (1, 3, size_of(name), size_of(name)))
        ((output, y),) = outputs_of(symbol, {"data": x}).items()
        golden[name] = y
        print(name, output, y.shape, float(np.sqrt(np.mean(y**2))))
    np.savez_compressed(out / "zoo.npz", **golden)


def published(out, graphs):
    golden = {}
    for name, (shapes, head) in GRAPHS.items():
        symbol = mx.sym.load(str(Path(graphs) / f"{name}-symbol.json"))
        found = outputs_of(symbol[head] if head else symbol, {n: draw_input(n, s) for n, s in shapes.items()})
        for output, y in found.items():
            golden[f"{name}/{output}"] = y
            print(name, output, y.shape, float(np.sqrt(np.mean(y**2))))
    np.savez_compressed(out / "graphs.npz", **golden)


def main(folder, graphs=None):
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    if graphs is None:
        zoo(out)
    else:
        published(out, graphs)


if __name__ == "__main__":
    main(*sys.argv[1:])
