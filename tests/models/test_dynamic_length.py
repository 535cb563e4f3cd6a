"""Models with a dynamic length: the numbers of PyTorch for every length, few programs, clear refusals."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

import diptych
from diptych.errors import InputError
from diptych.ir import TensorType
from diptych.lengths import bucket_of, declared
from diptych.ops import OPS, Builder

torch = pytest.importorskip("torch")
Array = np.ndarray[Any, Any]


class Encoder(torch.nn.Module):  # type: ignore[misc]
    """A small transformer encoder over token ids with a mask: states, and their mean over the true tokens."""

    def __init__(self, causal: bool = False) -> None:
        super().__init__()
        self.causal = causal
        self.tokens, self.places = torch.nn.Embedding(50, 16), torch.nn.Embedding(64, 16)
        self.norms = torch.nn.ModuleList(torch.nn.LayerNorm(16) for _ in range(2))
        self.qkv = torch.nn.ModuleList(torch.nn.Linear(16, 48) for _ in range(2))

    def forward(self, ids: Any, mask: Any) -> Any:
        x = self.tokens(ids) + self.places(torch.arange(ids.shape[1]))
        bias = torch.where(mask[:, None, None, :] > 0, 0.0, -float("inf"))
        for norm, project in zip(self.norms, self.qkv):
            q, k, v = (t.unflatten(2, (2, 8)).transpose(1, 2) for t in project(norm(x)).chunk(3, 2))
            if self.causal:
                y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            else:
                y = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
            x = x + y.transpose(1, 2).flatten(2)
        weights = mask[:, :, None].float()
        return x, (x * weights).sum(1) / weights.sum(1)


def ids(length: int, batch: int = 1, seed: int = 0) -> tuple[Any, Any]:
    g = torch.Generator().manual_seed(seed + length)
    mask = torch.ones(batch, length, dtype=torch.int64)
    mask[0, length - length // 3 :] = 0
    return torch.randint(0, 50, (batch, length), generator=g), mask


def same(model: Any, net: Any, *args: Any) -> None:
    with torch.no_grad():
        want = net(*args)
    got = model(*args)
    for g, w in zip(got, want, strict=True):
        assert g.shape == w.shape
        torch.testing.assert_close(g, w, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_every_length_by_few_programs(causal: bool) -> None:
    torch.manual_seed(0)
    net = Encoder(causal).eval()
    model = diptych.compile(net, ids(20), dynamic="length")
    for n in (20, 1, 2, 7, 8, 9, 23, 24, 25, 33):
        same(model, net, *ids(n))
    assert model._lengths is not None
    assert model._lengths.compiled == [8, 16, 24, 32, 40]
    before = dict(model._lengths._programs)
    for n in range(1, 41):  # nothing is compiled any more
        same(model, net, *ids(n, seed=3))
    assert dict(model._lengths._programs) == before
    assert model.input_types["ids"] == TensorType((1, 20), "i64")
    assert model.output_types["output0"] == TensorType((1, 20, 16))
    model.prepare([50])
    assert 56 in model._lengths.compiled


def test_batch_and_length_together() -> None:
    torch.manual_seed(1)
    net = Encoder().eval()
    spec = {"ids": {0: "batch", 1: "length"}, "mask": {0: "batch", 1: "length"}}
    model = diptych.compile(net, ids(12, 3), dynamic=spec)
    for batch, n in ((3, 12), (1, 5), (7, 9), (2, 16)):
        same(model, net, *ids(n, batch))


def test_a_declared_maximum() -> None:
    torch.manual_seed(2)
    net = Encoder().eval()
    dim = torch.export.Dim("length", max=30)
    model = diptych.compile(net, ids(12), dynamic={"ids": {1: dim}, "mask": {1: dim}})
    same(model, net, *ids(30))
    assert model._lengths is not None and max(model._lengths.compiled) == 30
    with pytest.raises(InputError, match="length is 31, the model serves up to 30"):
        model(*ids(31))


def test_beyond_what_the_model_itself_takes() -> None:
    class Places(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", torch.randn(1, 20, 4))

        def forward(self, x: Any) -> Any:
            return x + self.table[:, : x.shape[1]]

    net = Places().eval()
    model = diptych.compile(net, (torch.randn(1, 6, 4),), dynamic="length")
    for n in (3, 18, 20):  # the program of 24 cannot be made: 18 and 20 have their own
        x = torch.randn(1, n, 4)
        torch.testing.assert_close(model(x), net(x))
    with pytest.raises(InputError, match="cannot be made for length 21"):
        model(torch.randn(1, 21, 4))


def test_wrong_calls() -> None:
    net = Encoder().eval()
    model = diptych.compile(net, ids(12), dynamic="length")
    with pytest.raises(InputError, match="must have one length"):
        model(ids(5)[0], ids(6)[1])
    with pytest.raises(InputError, match="length of the inputs is 0"):
        model(torch.zeros(1, 0, dtype=torch.int64), torch.zeros(1, 0, dtype=torch.int64))
    with pytest.raises(InputError, match="dtype i64 expected"):
        model(ids(5)[0].float(), ids(5)[1])
    with pytest.raises(InputError, match="no dynamic length"):
        diptych.compile(net, ids(12)).prepare([3])


class Unsafe(torch.nn.Module):  # type: ignore[misc]
    """Looks at the last position: what is filled in would show."""

    def forward(self, x: Any) -> Any:
        return x[:, -1] * 2


class Scaled(torch.nn.Module):  # type: ignore[misc]
    """Its constants for one length are no beginning of those for another."""

    def forward(self, x: Any) -> Any:
        return x * torch.linspace(0, 1, x.shape[1])[None, :, None]


@pytest.mark.parametrize(("net", "why"), [(Unsafe(), "takes positions"), (Scaled(), "not the beginning")])
def test_where_filling_up_is_not_exact_each_length_has_its_program(net: Any, why: str, caplog: Any) -> None:
    with caplog.at_level(logging.WARNING, "diptych"):
        model = diptych.compile(net.eval(), (torch.randn(1, 6, 4),), dynamic="length")
    assert "every length is compiled for itself" in caplog.text and why in caplog.text
    for n in (6, 3, 9, *range(2, 20), 3):
        x = torch.randn(1, n, 4)
        torch.testing.assert_close(model(x), net(x))
    assert model._lengths is not None and len(model._lengths._exact) == 16, "the set is bounded"


def graph(length: int = 16) -> diptych.Graph:
    g = Builder("attends")
    x = g.input("x", TensorType((2, length, 4)))
    h = g.reshape(x, (2, 1, length, 4))
    return g.finish({"y": g.reshape(g.emit(OPS["attention"](scale=0.5), h, h, h), x.shape)})


def test_a_graph_serves_up_to_its_own_length(rng: np.random.Generator) -> None:
    model = diptych.compile(graph(), dynamic={"x": {1: "length"}})
    for n in (1, 7, 8, 12, 16):
        x = rng.standard_normal((2, n, 4)).astype(np.float32)
        np.testing.assert_allclose(model(x), diptych.compile(graph(n), target="numpy")(x), rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="up to 16"):
        model(np.zeros((2, 17, 4), np.float32))
    dim = torch.export.Dim("length", max=40)
    with pytest.raises(InputError, match="made for length 16, it cannot serve up to 40"):
        diptych.compile(graph(), dynamic={"x": {1: dim}})


def test_saved_models_keep_their_dynamic_length(tmp_path: Any, rng: np.random.Generator) -> None:
    torch.manual_seed(4)
    net = Encoder().eval()
    dim = torch.export.Dim("length", max=24)
    diptych.compile(net, ids(9), dynamic={"ids": {1: dim}, "mask": {1: dim}}).save(tmp_path / "net.diptych")
    model = diptych.open(tmp_path / "net.diptych")
    for n in (1, 9, 24):
        args = ids(n)
        with torch.no_grad():
            want = net(*args)
        for got, expected in zip(model(*(a.numpy() for a in args)), want, strict=True):
            np.testing.assert_allclose(got, expected.numpy(), rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="up to 24"):
        model(*ids(25))


def test_declarations() -> None:
    types = {"a": TensorType((2, 5), "i64"), "b": TensorType((3,)), "c": TensorType((2, 5, 5))}
    names = list(types)
    assert declared("length", names, types).axes == {"a": (1,), "c": (1,)}
    assert declared(None, names, types).axes == {} and declared("batch", names, types).batch
    said = declared({"a": {1: "n"}, "c": {1: "n", -1: "n"}}, names, types)
    assert said.axes == {"a": (1,), "c": (1, 2)} and said.name == "n" and not said.batch
    assert declared({"a": (1,)}, names, types).axes == {"a": (1,)}
    for bad, why in (
        ("lengths", "expected"), ({"z": {1: "n"}}, "input 'z'"), ({"a": {2: "n"}}, "no axis 2"), ({"a": {1: 7}}, "needs a name"),
        ({"a": {1: "m"}, "c": {1: "n"}}, "one length at a time"), ({"a": {1: "batch"}}, "must be axis 0"),
        ({"a": {0: "batch"}}, "axis 0 of every input"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=why):
            declared(bad, names, types)
    with pytest.raises(InputError, match="none has one"):
        declared("length", ["b"], {"b": TensorType((3,))})


def test_buckets() -> None:
    for n in range(1, 3000):
        b = bucket_of(n)
        assert n <= b and (b - n < 8 or b - n < n / 4) and bucket_of(b) == b
    assert len({bucket_of(n) for n in range(1, 513)}) == 20
