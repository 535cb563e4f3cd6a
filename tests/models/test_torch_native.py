"""Networks of PyTorch as native code: no further from float64 than four times what PyTorch itself is."""

from __future__ import annotations

import copy
import importlib
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from torchvision_build import torchvision

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import diptych  # noqa: E402

nn = torch.nn
Made = tuple[Any, tuple[Any, ...]]


class Lstm(nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
    """The last state of two layers, through a linear layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.rnn, self.out = nn.LSTM(24, width, 2, batch_first=True), nn.Linear(width, 5)

    def forward(self, x: Any) -> Any:
        return self.out(self.rnn(x)[0][:, -1])


def timm_model(name: str, size: int) -> Callable[[], Made]:
    def make() -> Made:
        torchvision()
        timm = pytest.importorskip("timm", reason="timm is not installed")
        return timm.create_model(name, num_classes=10), (torch.randn(1, 3, size, size),)

    return make


def torchvision_model(name: str, size: int) -> Callable[[], Made]:
    def make() -> Made:
        if torchvision() is None:
            pytest.skip("torchvision is not installed")
        models = importlib.import_module("torchvision.models")
        return getattr(models, name)(num_classes=10), (torch.randn(1, 3, size, size),)

    return make


def text_model(kind: str) -> Callable[[], Made]:
    def make() -> Made:
        torchvision()
        t = pytest.importorskip("transformers", reason="transformers is not installed")
        config, cls = {
            "bert": (t.BertConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128,
                                  vocab_size=100), t.BertModel),
            "distilbert": (t.DistilBertConfig(dim=64, n_layers=2, n_heads=4, hidden_dim=128, vocab_size=100),
                           t.DistilBertModel),
            "gpt2": (t.GPT2Config(n_embd=64, n_layer=2, n_head=4, vocab_size=100, use_cache=False), t.GPT2Model),
        }[kind]  # fmt: skip
        return cls(config), (torch.randint(0, 100, (2, 20)),)

    return make


QUICK: dict[str, Callable[[], Made]] = {
    "SimpleNN": lambda: (nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 1)), (torch.randn(3, 2),)),
    "mlp": lambda: (nn.Sequential(nn.Linear(100, 300), nn.GELU(), nn.LayerNorm(300), nn.Linear(300, 10), nn.Softmax(1)),
                    (torch.randn(5, 100),)),
    "lstm": lambda: (Lstm(40), (torch.randn(2, 9, 24),)),
    "gru": lambda: (nn.GRU(12, 20, bidirectional=True), (torch.randn(7, 2, 12),)),
    "encoder": lambda: (nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), (torch.randn(2, 10, 32),)),
    "convnet": lambda: (nn.Sequential(nn.Conv2d(3, 20, 5, 2, 2), nn.BatchNorm2d(20), nn.SiLU(), nn.MaxPool2d(3, 2, 1),
                                      nn.Conv2d(20, 20, 3, 1, 1, groups=20), nn.Conv2d(20, 40, 1), nn.Hardswish(),
                                      nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(40, 7)),
                        (torch.randn(2, 3, 33, 35),)),
}  # fmt: skip
SLOW: dict[str, Callable[[], Made]] = {
    "resnet18": timm_model("resnet18", 64),
    "resnet50": timm_model("resnet50", 64),
    "densenet121": timm_model("densenet121", 64),
    "mobilenetv2_100": timm_model("mobilenetv2_100", 64),
    "mobilenetv3_large_100": timm_model("mobilenetv3_large_100", 64),
    "efficientnet_b0": timm_model("efficientnet_b0", 64),
    "convnext_tiny": timm_model("convnext_tiny", 64),
    "vit_small_patch16_224": timm_model("vit_small_patch16_224", 224),
    "swin_tiny": timm_model("swin_tiny_patch4_window7_224", 224),
    "squeezenet1_1": torchvision_model("squeezenet1_1", 64),
    "bert": text_model("bert"),
    "distilbert": text_model("distilbert"),
    "gpt2": text_model("gpt2"),
}


def prepared(model: Any) -> Any:
    """In evaluation mode, with statistics and scales that do not fold away."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if name.endswith("running_mean"):
            tensor.data.uniform_(-0.2, 0.2)
        elif name.endswith("running_var"):
            tensor.data.uniform_(0.5, 1.5)
    return model.eval()


def leaves(x: Any) -> list[Any]:
    """The tensors of an answer."""
    if isinstance(x, dict) or hasattr(x, "values"):
        x = tuple(x.values()) if not isinstance(x, torch.Tensor) else x
    if isinstance(x, (tuple, list)):
        return [t for y in x for t in leaves(y)]
    return [x] if isinstance(x, torch.Tensor) else []


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(n, marks=pytest.mark.slow) for n in SLOW)])
def test_network(name: str) -> None:
    torch.manual_seed(1)
    torch.set_num_threads(1)
    module, args = {**QUICK, **SLOW}[name]()
    module = prepared(module)
    wide = copy.deepcopy(module).double()
    model = diptych.compile(module, args, threads=2)
    with torch.no_grad():
        truth = leaves(wide(*(a.double() if a.is_floating_point() else a for a in args)))
        theirs = leaves(module(*args))
    ours = leaves(model(*args))
    assert len(ours) == len(truth) > 0
    for got, torchs, exact in zip(ours, theirs, truth, strict=True):
        assert (got.shape, got.dtype) == (torchs.shape, torchs.dtype)
        scale = float(exact.pow(2).mean().sqrt())
        error, reference = (float((y.double() - exact).abs().max()) / scale for y in (got, torchs))
        assert error <= max(4 * reference, 2e-6), f"error {error:.2e}, PyTorch has {reference:.2e}"


def test_tensors_and_arrays_are_answered_in_kind() -> None:
    module, (x,) = QUICK["SimpleNN"]()
    model = diptych.compile(module.eval(), (x,))
    assert isinstance(model(x), torch.Tensor)
    assert isinstance(model(x.numpy()), np.ndarray)
    np.testing.assert_array_equal(model(x).numpy(), model(x.numpy()))
    with torch.no_grad():
        torch.testing.assert_close(model(x), module(x))


def test_another_batch_recompiles() -> None:
    module, (x,) = QUICK["convnet"]()
    model = diptych.compile(prepared(module), (x,))
    with torch.no_grad():
        for other in (x[:1], torch.randn(3, 3, 21, 21)):
            torch.testing.assert_close(model(other), module(other), rtol=1e-4, atol=1e-5)


def test_nested_inputs_and_outputs() -> None:
    class Nested(nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
        def forward(self, pair: Any, *, scale: Any) -> Any:
            return {"sum": (pair[0] + pair[1]) * scale, "both": [pair[0], pair[1] * 2]}

    a, b, s = torch.randn(2, 3), torch.randn(2, 3), torch.randn(3)
    module = Nested().eval()
    exported = torch.export.export(module, ((a, b),), {"scale": s})
    model = diptych.compile(exported)
    got = model((a, b), scale=s)
    assert list(got) == ["sum", "both"]
    torch.testing.assert_close(got["sum"], (a + b) * s)
    torch.testing.assert_close(got["both"][1], b * 2)
