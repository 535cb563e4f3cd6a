"""Attention as frameworks write it out becomes one operator, with the same result; what only looks alike stays."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from torchvision_build import torchvision

import diptych
from diptych.ir import Graph, Node, TensorType, Value, verify
from diptych.ops import Attention, Builder, Softmax
from diptych.ops.base import attributes
from diptych.passes.attention import find_attention
from diptych.passes.fold import fold_constants
from diptych.targets.numpy import interpret

B, H, S, T, D = 2, 3, 7, 9, 4


def attentions(graph: Graph) -> list[Node]:
    """The attention nodes; nothing of a softmax may be left beside them."""
    assert not any(n.op.name == "softmax" for n in graph.nodes)
    return [n for n in graph.nodes if n.op.name == "attention"]


def same(graph: Graph, count: int = 1, seed: int = 3) -> list[Node]:
    """Run the pass; as many attentions as that, and the function stays what it was, compiled too."""
    graph = fold_constants(graph)
    after = find_attention(graph)
    verify(after)
    rng = np.random.default_rng(seed)
    inputs = {}
    for name, v in zip(graph.input_names, graph.inputs, strict=True):
        t = graph.types[v]
        drawn: Any = rng.random(t.shape) < 0.7 if t.dtype == "bool" else rng.standard_normal(t.shape).astype(np.float32)
        inputs[name] = rng.integers(0, 50, t.shape) if t.dtype == "i64" else drawn
    compiled = diptych.compile(graph, threads=2)(*inputs.values())
    results = compiled if isinstance(compiled, tuple) else (compiled,)
    for got, old, new in zip(results, *(interpret(g, inputs, precision="f64").values() for g in (graph, after)), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(got, old, rtol=2e-5, atol=2e-5)
    found = attentions(after)
    assert len(found) == count
    return found


class Written:
    """A graph with an attention written out by `scores`, which gets the builder and q k^T."""

    def __init__(self, scores: Callable[[Builder, Value], Value] = lambda g, x: x, lead: tuple[int, ...] = (B, H)) -> None:
        g = Builder("written")
        self.q, self.k, self.v = (g.input(n, TensorType((*lead, length, D))) for n, length in (("q", S), ("k", T), ("v", T)))
        x = scores(g, g.matmul(self.q, self.k, transpose_b=True))
        self.graph = g.finish([g.matmul(g.emit(Softmax(-1), x), self.v)])


def test_the_bare_form() -> None:
    (node,) = same(Written().graph)
    assert attributes(node.op) == {"scale": 1.0, "causal": False, "offset": 0, "unseen": "zeros"}


@pytest.mark.parametrize("lead", [(6,), (2, 3), (2, 1, 3), (1, 1, 1, 5)])
def test_any_number_of_leading_axes(lead: tuple[int, ...]) -> None:
    same(Written(lead=lead).graph)


def test_scale_as_factor_and_divisor() -> None:
    (node,) = same(Written(lambda g, x: g.mul(g.div(g.mul(0.5, x), 4.0), 3.0)).graph)
    assert node.op.scale == pytest.approx(0.375)  # type: ignore[attr-defined]


def test_scale_on_query_and_key() -> None:
    g = Builder("scaled")
    q, k, v = (g.input(n, TensorType((B, H, length, D))) for n, length in (("q", S), ("k", T), ("v", T)))
    scores = g.matmul(g.mul(q, 0.5), g.transpose(g.div(k, 2.0), (0, 1, 3, 2)))
    (node,) = same(g.finish([g.matmul(g.emit(Softmax(3), scores), v)]))
    assert node.op.scale == 0.25  # type: ignore[attr-defined]


MASKS = [(S, T), (T,), (1, 1, 1, T), (B, 1, 1, T), (B, H, S, T), (1, H, S, 1)]


@pytest.mark.parametrize("shape", MASKS, ids=str)
def test_added_masks(shape: tuple[int, ...]) -> None:
    (node,) = same(Written(lambda g, x: g.add(g.input("mask", TensorType(shape)), g.mul(x, 0.5))).graph)
    assert len(node.inputs) == 4
    assert node.op.unseen == "nan"  # type: ignore[attr-defined]  # -inf in all of a row may come at run time


def test_masks_filled_in() -> None:
    seen = TensorType((B, 1, S, T), "bool")
    same(Written(lambda g, x: g.where(g.input("seen", seen), x, float(np.finfo(np.float32).min))).graph)
    same(Written(lambda g, x: g.where(g.input("hidden", seen), float("-inf"), g.div(x, 2.0))).graph)


def test_a_filled_in_value_that_scores_could_outweigh_stays() -> None:
    w = Written(lambda g, x: g.where(g.input("seen", TensorType((S, T), "bool")), x, -10.0))
    assert not any(n.op.name == "attention" for n in find_attention(w.graph).nodes)


def test_masks_of_windows_in_another_grouping() -> None:
    """Swin: a bias of all heads, then a mask of all windows on scores regrouped by image."""

    def scores(g: Builder, x: Value) -> Value:
        x = g.add(x, g.input("bias", TensorType((1, H, S, T))))
        x = g.add(g.reshape(x, (1, B, H, S, T)), g.input("shift", TensorType((1, B, 1, S, T))))
        return g.reshape(x, (B, H, S, T))

    same(Written(scores).graph)


def test_weights_that_leave_the_graph_stay() -> None:
    g = Builder("weights")
    q, k, v = (g.input(n, TensorType((B, H, S, D))) for n in "qkv")
    weights = g.emit(Softmax(-1), g.matmul(q, k, transpose_b=True))
    graph = g.finish([g.matmul(weights, v), weights])
    assert not any(n.op.name == "attention" for n in find_attention(graph).nodes)


def test_a_softmax_over_the_other_axis_stays() -> None:
    g = Builder("other")
    q, k, v = (g.input(n, TensorType((B, H, S, D))) for n in "qkv")
    graph = g.finish([g.matmul(g.emit(Softmax(2), g.matmul(q, k, transpose_b=True)), v)])
    assert not any(n.op.name == "attention" for n in find_attention(graph).nodes)


@pytest.mark.parametrize("hide", [-np.inf, float(np.finfo(np.float32).min)])
@pytest.mark.parametrize("offset", [0, 2, 4])
def test_a_constant_causal_mask_becomes_an_attribute(offset: int, hide: float) -> None:
    mask = np.where(np.tri(5, 9, offset, dtype=bool), 0, hide).astype(np.float32)
    g = Builder("causal")
    q, k, v = (g.input(n, TensorType((1, 2, length, 4))) for n, length in (("q", 5), ("k", 9), ("v", 9)))
    (node,) = same(g.finish([g.emit(Attention(scale=0.5), q, k, v, g.constant(mask[None, None]))]))
    assert (node.op.causal, node.op.offset, len(node.inputs)) == (True, offset, 3)  # type: ignore[attr-defined]


@pytest.mark.parametrize("change", [(0, 0), (4, 8), (2, 3)])
def test_a_mask_that_is_nearly_causal_stays(change: tuple[int, int]) -> None:
    mask = np.where(np.tri(5, 9, 2, dtype=bool), 0, -np.inf).astype(np.float32)
    mask[change] = -1.0
    g = Builder("causal")
    q, k, v = (g.input(n, TensorType((1, 2, length, 4))) for n, length in (("q", 5), ("k", 9), ("v", 9)))
    (node,) = same(g.finish([g.emit(Attention(scale=0.5), q, k, v, g.constant(mask))]))
    assert len(node.inputs) == 4


def test_a_mask_of_zeros_goes() -> None:
    g = Builder("zeros")
    q, k, v = (g.input(n, TensorType((1, 2, 5, 4))) for n in "qkv")
    (node,) = same(g.finish([g.emit(Attention(scale=0.5), q, k, v, g.constant(np.zeros((1, 1, 5, 5), np.float32)))]))
    assert len(node.inputs) == 3


def test_repeated_key_heads_are_not_repeated() -> None:
    g = Builder("grouped")
    q, k, v = (g.input("q", TensorType((2, 6, 5, 4))), *(g.input(n, TensorType((2, 2, 5, 4))) for n in "kv"))
    wide = [g.reshape(g.broadcast_to(g.reshape(x, (2, 2, 1, 5, 4)), (2, 2, 3, 5, 4)), (2, 6, 5, 4)) for x in (k, v)]
    scores = g.mul(g.matmul(q, g.transpose(wide[0], (0, 1, 3, 2))), 0.5)
    graph = g.finish([g.matmul(g.emit(Softmax(-1), scores), wide[1])])
    (node,) = same(graph)
    after = find_attention(graph)
    assert after.types[next(n for n in after.nodes if n.op.name == "attention").inputs[1]].shape == (2, 2, 5, 4)
    assert node.op.scale == 0.5  # type: ignore[attr-defined]


# -- what frameworks export ---------------------------------------------------------------------------------------------
@pytest.fixture(autouse=True)
def _torchvision() -> None:
    """timm and transformers import it where it is installed."""
    if find_spec("torch") is not None:
        torchvision()


def exported(module: Any, *inputs: Any) -> Graph:
    from diptych.frontends.torch import source

    return source(module.eval(), inputs).graph()


def first(model: Any, **keywords: Any) -> Any:
    """A transformers model that takes ids (and a mask) and gives its first output."""
    torch = pytest.importorskip("torch")

    class First(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: Any, mask: Any = None) -> Any:
            return self.model(input_ids=ids, attention_mask=mask, return_dict=False, **keywords)[0]

    return First()


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "vocab_size": 50}
MODELS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "Bert": ("BertModel", {**SMALL}, True),
    "DistilBert": ("DistilBertModel", {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "vocab_size": 50}, True),
    "GPT2": ("GPT2Model", {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 50, "n_positions": 32}, False),
    "Llama": ("LlamaModel", {**SMALL, "num_key_value_heads": 2}, False),
    "T5": ("T5EncoderModel", {"d_model": 32, "d_kv": 8, "num_heads": 4, "d_ff": 48, "vocab_size": 50, "num_layers": 2}, False),
}


@pytest.mark.parametrize("how", ["eager", "sdpa"])
@pytest.mark.parametrize("name", MODELS)
def test_transformers(name: str, how: str) -> None:
    torch, t = pytest.importorskip("torch"), pytest.importorskip("transformers")
    kind, config, masked = MODELS[name]
    torch.manual_seed(0)
    settings: Any = getattr(t, f"{name}Config")(**config, attn_implementation=how)
    model = getattr(t, kind)(settings)
    keywords = {"use_cache": False} if name in ("GPT2", "Llama") else {}
    inputs = [torch.randint(0, 50, (2, 11)), torch.ones(2, 11, dtype=torch.int64)]
    found = same(exported(first(model, **keywords), *inputs[: 1 + masked]), count=2)
    if name in ("GPT2", "Llama"):
        assert all(n.op.causal and len(n.inputs) == 3 for n in found)  # type: ignore[attr-defined]


def test_timm_windows() -> None:
    torch, timm = pytest.importorskip("torch"), pytest.importorskip("timm")
    from timm.models.swin_transformer import SwinTransformerBlock

    torch.manual_seed(0)
    assert timm is not None
    block = SwinTransformerBlock(dim=32, input_resolution=(14, 14), num_heads=2, window_size=7, shift_size=3)
    (node,) = same(exported(block, torch.randn(1, 14, 14, 32)))
    assert node.op.scale == pytest.approx(1 / math.sqrt(16))  # type: ignore[attr-defined]


@pytest.mark.parametrize("weights", [False, True])
def test_torch_layers(weights: bool) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)

    class Layer(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.attention = torch.nn.MultiheadAttention(32, 4, batch_first=True)

        def forward(self, x: Any, y: Any) -> Any:
            return self.attention(x, y, y, need_weights=weights)[0]

    same(exported(Layer(), torch.randn(2, 9, 32), torch.randn(2, 13, 32)))


def interleaved(parts: int, heads: int = 4, length: int = 9, batch: int = 2, size: int = 8) -> Graph:
    """Attention of GluonNLP through the MXNet frontend: self attention of packed q, k, v or of q beside packed k, v."""
    import json

    from diptych.frontends.mxnet.source import load_source

    names = ["qkv"] if parts == 3 else ["q", "kv"]
    kind = "selfatt" if parts == 3 else "encdec"
    nodes = [{"op": "null", "name": n, "inputs": []} for n in names]
    own = [[i, 0, 0] for i in range(len(names))]
    at = len(nodes)
    attrs = {"heads": str(heads)}
    nodes.append({"op": f"_contrib_interleaved_matmul_{kind}_qk", "name": "scores", "attrs": attrs, "inputs": own})
    nodes.append({"op": "softmax", "name": "weights", "attrs": {"axis": "-1"}, "inputs": [[at, 0, 0]]})
    nodes.append({"op": f"_contrib_interleaved_matmul_{kind}_valatt", "name": "out", "attrs": attrs, "inputs": [own[-1], [at + 1, 0, 0]]})
    text = json.dumps({"nodes": nodes, "arg_nodes": list(range(at)), "heads": [[at + 2, 0, 0]], "attrs": {"mxnet_version": ["int", 10901]}})
    shapes = {"qkv": (length, batch, 3 * heads * size), "q": (length, batch, heads * size), "kv": (length + 2, batch, 2 * heads * size)}
    return load_source(text).graph({n: TensorType(shapes[n]) for n in names})


@pytest.mark.parametrize("parts", [2, 3])
def test_mxnet_interleaved(parts: int) -> None:
    (node,) = same(interleaved(parts))
    graph = interleaved(parts)
    kinds = [k.kind for k in diptych.compile(graph, threads=2).plan.kernels]
    assert kinds == ["attention", "pointwise"]  # no operand is copied, only the result to where the caller wants it
    assert node.op.scale == pytest.approx(1 / math.sqrt(8))  # type: ignore[attr-defined]
