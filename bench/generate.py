"""Generation against PyTorch, ONNX Runtime and OpenVINO: `python -m bench.generate --model gpt2 --threads 2`.

Tokens per second of reading a prompt and of decoding, greedy, by engines that take turns; and what part of the time of
a pure read of the weights a decoded token takes. Every engine keeps its cache of keys and values in its own best way:
PyTorch by transformers' DynamicCache, ONNX Runtime and OpenVINO by an exported step whose cache comes out and goes in
again. Their tokens must be equal.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bench.suites import SEED, _transformers
from diptych.cli.common import positive, say
from diptych.compare.table import table

Array = np.ndarray[Any, Any]
Steps = Iterator[int]  # tokens; the first one comes with the prompt


def models() -> dict[str, Callable[[], Any]]:
    """Random weights from a fixed seed."""
    t = _transformers()

    def llama() -> Any:
        config = t.LlamaConfig(vocab_size=32000, hidden_size=768, intermediate_size=2048, num_hidden_layers=12,
                               num_attention_heads=12, num_key_value_heads=4, max_position_embeddings=1024)  # fmt: skip
        return t.LlamaForCausalLM(config)

    return {
        "gpt2": lambda: t.GPT2LMHeadModel(t.GPT2Config()),
        "llama": llama,
        "small": lambda: t.GPT2LMHeadModel(t.GPT2Config(n_embd=128, n_layer=2, n_head=4, vocab_size=1000)),
    }


def make(name: str) -> Any:
    """The model, with weights spread enough that its tokens differ."""
    import torch

    torch.manual_seed(SEED)
    model = models()[name]().eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 2:
                p.mul_(3.0)
    return model


class Ours:
    """diptych."""

    def __init__(self, model: Any, threads: int, length: int) -> None:
        from diptych.generate import Generator

        self.generator = Generator(model, threads=threads, max_length=length)

    def steps(self, ids: Array, count: int) -> Steps:
        return iter(self.generator.stream(ids, count))


class Torch:
    """PyTorch, eager, with the cache of transformers."""

    def __init__(self, model: Any, threads: int, length: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.model, self.torch = model, torch

    def steps(self, ids: Array, count: int) -> Steps:
        torch = self.torch
        from transformers import DynamicCache

        with torch.inference_mode():
            cache = DynamicCache(config=self.model.config)
            now = torch.from_numpy(ids)[None]
            for _ in range(count):
                out = self.model(input_ids=now, cache=cache, use_cache=True, logits_to_keep=1)
                now = out.logits[:, -1].argmax(-1, keepdim=True)
                yield int(now[0, 0])


def export_onnx(model: Any, path: Path) -> list[tuple[int, int]]:
    """One ONNX program for prompt and step: ids and past keys and values in, logits and the longer ones out."""
    import torch
    from transformers import DynamicCache

    config = model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    layers = config.num_hidden_layers

    class Step(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: Any, past: Any) -> Any:
            cache = DynamicCache()
            for i in range(layers):
                cache.update(past[2 * i], past[2 * i + 1], i)
            out = self.model(input_ids=ids, cache=cache, use_cache=True, logits_to_keep=1)
            return (out.logits[:, -1], *(x for layer in cache.layers for x in (layer.keys, layer.values)))

    past = [torch.zeros(1, heads, 4, width) for _ in range(2 * layers)]
    dim = torch.export.Dim.DYNAMIC
    program = torch.onnx.export(
        Step().eval(), (torch.zeros(1, 3, dtype=torch.int64), past), dynamo=True, verbose=False,
        dynamic_shapes=({1: dim}, [{2: dim}] * (2 * layers)), input_names=["ids", *(f"past{i}" for i in range(2 * layers))],
    )  # fmt: skip
    program.save(str(path), external_data=True)
    return [(heads, width)] * (2 * layers)


class Onnx:
    """ONNX Runtime."""

    def __init__(self, path: Path, shapes: list[tuple[int, int]], threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        self.session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
        self.names, self.shapes = [i.name for i in self.session.get_inputs()], shapes

    def steps(self, ids: Array, count: int) -> Steps:
        past = [np.zeros((1, h, 0, w), np.float32) for h, w in self.shapes]
        now = ids[None]
        for _ in range(count):
            logits, *past = self.session.run(None, dict(zip(self.names, [now, *past], strict=True)))
            now = np.array([[int(logits.argmax())]])
            yield int(now[0, 0])


class Vino:
    """OpenVINO, in f32; outputs go back in as the tensors they are."""

    def __init__(self, path: Path, shapes: list[tuple[int, int]], threads: int) -> None:
        import openvino

        core = openvino.Core()
        hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        self.request = core.compile_model(core.read_model(str(path)), "CPU", hints).create_infer_request()
        self.shapes, self.openvino = shapes, openvino

    def steps(self, ids: Array, count: int) -> Steps:
        tensor = self.openvino.Tensor
        past: list[Any] = [tensor(np.zeros((1, h, 0, w), np.float32)) for h, w in self.shapes]
        now = ids[None]
        for _ in range(count):
            result = self.request.infer({0: now, **{i + 1: p for i, p in enumerate(past)}}, share_inputs=True)
            past = [result[i + 1] for i in range(len(past))]
            now = np.array([[int(result[0].argmax())]])
            yield int(now[0, 0])


def pure_read(nbytes: int, threads: int) -> float:
    """Seconds that reading this many bytes takes: the sum of an array, by threads."""
    from concurrent.futures import ThreadPoolExecutor

    data = np.ones(nbytes // 8, np.int64)
    parts = np.array_split(data, threads)
    best = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(5):
            start = time.perf_counter()
            list(pool.map(np.max, parts))
            best = min(best, time.perf_counter() - start)
    return best


def run(engine: Any, ids: Array, count: int) -> tuple[list[int], float, float]:
    """Tokens, seconds to the first, seconds for each that follows."""
    start = time.perf_counter()
    steps = engine.steps(ids, count)
    found = [next(steps)]
    first = time.perf_counter()
    found += list(steps)
    return found, first - start, (time.perf_counter() - first) / max(1, count - 1)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.generate", description=__doc__)
    parser.add_argument("--model", choices=("gpt2", "llama", "small"), default="gpt2")
    parser.add_argument("--threads", type=positive, default=2)
    parser.add_argument("--prompt", type=positive, default=128, metavar="TOKENS")
    parser.add_argument("--new", type=positive, default=32, metavar="TOKENS")
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--engines", default="diptych,torch,onnxruntime,openvino")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    model = make(args.model)
    wanted = args.engines.split(",")
    length = args.prompt + args.new
    engines: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="diptych-generate-") as folder:
        path = Path(folder) / "step.onnx"
        shapes = export_onnx(model, path) if {"onnxruntime", "openvino"} & set(wanted) else []
        makers: dict[str, Callable[[], Any]] = {
            "diptych": lambda: Ours(model, args.threads, length),
            "torch": lambda: Torch(model, args.threads, length),
            "onnxruntime": lambda: Onnx(path, shapes, args.threads),
            "openvino": lambda: Vino(path, shapes, args.threads),
        }
        for name in wanted:
            say(f"{name} ...")
            engines[name] = makers[name]()
    vocabulary = model.config.vocab_size
    ids = np.random.default_rng(SEED).integers(0, vocabulary, args.prompt)
    weights = sum(p.nbytes for p in model.parameters())
    tokens = {name: run(e, ids, args.new)[0] for name, e in engines.items()}  # also compiles and warms up
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in engines}
    for _ in range(args.rounds):
        for name, engine in engines.items():
            _, first, each = run(engine, ids, args.new)
            times[name].append((first, each))
    read = pure_read(weights, args.threads)
    rows, report = [], {}
    for name in engines:
        first, each = (median(t[i] for t in times[name]) for i in (0, 1))
        same = tokens[name] == tokens[wanted[0]]
        report[name] = {"prefill_tokens_per_s": args.prompt / first, "decode_tokens_per_s": 1 / each, "decode_ms": each * 1e3,
                        "read_over_decode": read / each, "tokens_equal": same}  # fmt: skip
        rows.append([name, f"{args.prompt / first:.0f}", f"{1 / each:.1f}", f"{each * 1e3:.2f}", f"{read / each:.0%}", "yes" if same else "NO"])
    print(f"{args.model}: {weights / 1e6:.0f} MB of weights, prompt of {args.prompt}, {args.new} new tokens, {args.threads} threads")
    print(f"a pure read of the weights: {read * 1e3:.2f} ms ({weights / read / 1e9:.1f} GB/s)")
    print(table(["engine", "prefill tokens/s", "decode tokens/s", "ms a token", "pure read / step", "same tokens"], rows))
    if args.json:
        Path(args.json).write_text(json.dumps({"weights": weights, "pure_read_s": read, "engines": report}, indent=1))
    return 0 if all(r["tokens_equal"] for r in report.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
