"""Whole networks against real MXNet 1.9.1: gluon.model_zoo.vision and published graphs, with weights drawn by name."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from diptych.frontends.mxnet import MxnetSource, load_source, random_params
from diptych.frontends.mxnet.random_weights import draw
from diptych.frontends.mxnet.symbol_json import read_symbol
from diptych.ir import Array, TensorType, verify
from diptych.targets.numpy import interpret

DATA = Path(__file__).resolve().parents[1] / "data" / "mxnet_zoo"
QUICK = ("resnet18_v1", "resnet50_v2", "alexnet", "squeezenet1.1", "mobilenet0.25", "mobilenetv2_0.5")
NAMES = sorted(f.name.removesuffix("-symbol.json.gz") for f in DATA.glob("*-symbol.json.gz"))
GRAPHS = {"arcface_r100": ((1, 3, 112, 112), None), "squeezenet_v1.2": ((1, 3, 224, 224), None),
          "retinaface_r50": ((1, 3, 96, 128), None), "sagemaker_ssd_resnet50": ((1, 3, 160, 160), ["det_out"])}  # fmt: skip


def size_of(name: str) -> int:
    if name.startswith("inception"):
        return 299
    return 224 if name.startswith(("densenet", "squeezenet")) else 64


def data(shape: tuple[int, ...]) -> Array:
    return draw("data_input", shape) / np.float32(np.sqrt(2.0 / np.prod(shape[1:])))


def close(source: MxnetSource, x: Array, wanted: dict[str, Array], tolerance: float = 2e-5) -> None:
    graph = verify(source.graph({"data": TensorType(x.shape)}))
    ours = interpret(graph, {"data": x})
    assert list(ours) == list(wanted)
    for name, y in ours.items():
        w = wanted[name]
        assert y.shape == w.shape
        scale = float(np.sqrt(np.mean(np.square(w, dtype=np.float64))))
        assert float(np.abs(y - w).max()) <= tolerance * scale, name


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in NAMES])
def test_model_zoo(name: str) -> None:
    symbol = read_symbol(gzip.decompress((DATA / f"{name}-symbol.json.gz").read_bytes()))
    shape = (1, 3, size_of(name), size_of(name))
    source = load_source(symbol, params=random_params(symbol, {"data": TensorType(shape)}))
    with np.load(DATA / "zoo.npz") as golden:
        close(source, data(shape), {source.output_names[0]: golden[name]})


@pytest.mark.parametrize("name", ["resnet18_v1", "squeezenet1.1"])
def test_graph_fused_by_mxnets_own_backend(name: str) -> None:
    """Saved after get_backend_symbol("MKLDNN"): convolutions with their neighbours in subgraphs, the same function."""
    symbol = read_symbol(gzip.decompress((DATA / f"{name}-symbol.json.gz").read_bytes()))
    fused = read_symbol(gzip.decompress((DATA / "fused" / f"{name}.json.gz").read_bytes()))
    assert any(n.op == "_sg_mkldnn_conv" for n in fused.nodes)
    shape = (1, 3, size_of(name), size_of(name))
    source = load_source(fused, params=random_params(symbol, {"data": TensorType(shape)}))
    with np.load(DATA / "zoo.npz") as golden:
        close(source, data(shape), {source.output_names[0]: golden[name]})


def test_the_zoo_is_complete() -> None:
    assert len(NAMES) == 34


@pytest.mark.slow
@pytest.mark.parametrize("name", GRAPHS)
def test_published_graph(mxnet_models: Path, name: str) -> None:
    shape, outputs = GRAPHS[name]
    symbol = read_symbol(mxnet_models / "graphs" / f"{name}-symbol.json")
    known = {"data": TensorType(shape), "label": TensorType((1, 3, 6))}
    params = random_params(symbol, {n: t for n, t in known.items() if n in symbol.list_arguments()})
    source = load_source(symbol, params=params, outputs=outputs)
    with np.load(DATA / "graphs.npz") as golden:
        wanted = {k.split("/", 1)[1]: golden[k] for k in golden.files if k.startswith(name + "/")}
    close(source, data(shape), wanted, tolerance=2e-4)  # softmax of logits around 50 magnifies roundings
