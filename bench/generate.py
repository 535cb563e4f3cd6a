"""Generation against PyTorch, ONNX Runtime and OpenVINO: `python -m bench.generate --model gpt2 --threads 2`.

Tokens per second of reading a prompt and of decoding, greedy, and what part of the time of a pure read of the weights
that a token needs a decoded token takes. Every engine keeps its cache of keys and values in its own best way: PyTorch
by transformers' DynamicCache, ONNX Runtime by an exported step whose cache comes out and goes in again without a copy,
OpenVINO by the same step with the cache as its state. All compute and keep f32. Their tokens must be equal.

Each engine runs in a process of its own, which is stopped while another one has its turn. The pure read is such an
engine too: as many threads stream as many bytes, as fast as `bench.roof` can. The memory of a shared machine is not
equally fast at all times, so the read has a turn beside each engine's, and its best turn stands beside the engine's
best: a bound, and not the read of a worse moment. Other figures are medians over the turns.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bench.roof import reader
from bench.suites import SEED, _transformers
from diptych.cli.common import positive, say
from diptych.compare.table import table

Array = np.ndarray[Any, Any]
Steps = Iterator[int]  # tokens; the first one comes with the prompt

ROOT = Path(__file__).resolve().parents[1]
ENGINES = ("diptych", "torch", "onnxruntime", "openvino")
EXPORTED = {"onnxruntime": "step.onnx", "openvino": "step.xml"}
FACTS = "facts.json"
LEAST_READS = 0.3  # seconds that a turn of the pure read goes on


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


def cache_shape(model: Any) -> tuple[int, int, int]:
    """How many caches there are (keys and values of each layer), heads, elements of a head."""
    config = model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * config.num_hidden_layers, heads, width


def exportable(model: Any) -> tuple[Any, tuple[Any, ...], tuple[Any, ...]]:
    """One module for prompt and step (ids and past keys and values in; logits and the longer ones out), arguments, and
    their dynamic axes."""
    import torch
    from transformers import DynamicCache

    count, heads, width = cache_shape(model)

    class Step(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: Any, past: Any) -> Any:
            cache = DynamicCache(config=model.config)
            for i, layer in enumerate(cache.layers):
                layer.lazy_initialization(past[2 * i], past[2 * i + 1])
                layer.keys, layer.values = past[2 * i], past[2 * i + 1]
            out = self.model(input_ids=ids, cache=cache, use_cache=True, logits_to_keep=1)
            return (out.logits[:, -1], *(x for layer in cache.layers for x in (layer.keys, layer.values)))

    dim = torch.export.Dim.DYNAMIC
    past = [torch.zeros(1, heads, 4, width) for _ in range(count)]
    return Step().eval(), (torch.zeros(1, 3, dtype=torch.int64), past), ({1: dim}, [{2: dim}] * count)


def export_onnx(model: Any, path: Path) -> None:
    """For ONNX Runtime."""
    import torch

    step, args, dynamic = exportable(model)
    names = ["ids", *(f"past{i}" for i in range(len(args[1])))]
    program = torch.onnx.export(step, args, dynamo=True, verbose=False, dynamic_shapes=dynamic, input_names=names)
    program.save(str(path), external_data=True)


def export_openvino(model: Any, path: Path) -> None:
    """By OpenVINO's own frontend, which keeps attention whole (its steps take 16 ms where those of the ONNX file take 23);
    the cache becomes the model's state."""
    import openvino
    import torch
    from openvino._offline_transformations import apply_make_stateful_transformation

    step, args, dynamic = exportable(model)
    count, heads, width = cache_shape(model)
    made = openvino.convert_model(torch.export.export(step, args, dynamic_shapes=dynamic))
    for i in range(1, count + 1):
        made.inputs[i].get_tensor().set_names({f"past{i}"})
        made.outputs[i].get_tensor().set_names({f"now{i}"})
        made.inputs[i].get_node().set_partial_shape(openvino.PartialShape([1, heads, -1, width]))
    made.validate_nodes_and_infer_types()
    apply_make_stateful_transformation(made, {f"past{i}": f"now{i}" for i in range(1, count + 1)})
    openvino.save_model(made, str(path), compress_to_fp16=False)


class Onnx:
    """ONNX Runtime; the cache stays in its own memory."""

    def __init__(self, folder: Path, cache: tuple[int, int, int], threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        self.session = onnxruntime.InferenceSession(str(folder / "step.onnx"), options, ["CPUExecutionProvider"])
        self.names, self.value = [i.name for i in self.session.get_inputs()], onnxruntime.OrtValue
        count, heads, width = cache
        self.empty = [np.zeros((1, heads, 0, width), np.float32)] * count

    def steps(self, ids: Array, count: int) -> Steps:
        wrap = self.value.ortvalue_from_numpy
        past = [wrap(empty) for empty in self.empty]
        now = ids[None]
        for _ in range(count):
            logits, *past = self.session.run_with_ort_values(None, dict(zip(self.names, [wrap(now), *past], strict=True)))
            now = np.array([[int(logits.numpy().argmax())]])
            yield int(now[0, 0])


class Vino:
    """OpenVINO, in f32, the cache too; it is the state of the request."""

    def __init__(self, folder: Path, cache: tuple[int, int, int], threads: int) -> None:
        import openvino

        core = openvino.Core()
        hints = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
                 "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}  # fmt: skip
        self.request = core.compile_model(core.read_model(str(folder / "step.xml")), "CPU", hints).create_infer_request()
        self.empty = openvino.Tensor(np.zeros((1, cache[1], 0, cache[2]), np.float32))

    def steps(self, ids: Array, count: int) -> Steps:
        for state in self.request.query_state():
            state.state = self.empty
        now = ids[None]
        for _ in range(count):
            result = self.request.infer({0: now}, share_inputs=True)
            now = np.array([[int(result[0].argmax())]])
            yield int(now[0, 0])


def needed(model: Any) -> int:
    """Bytes of the weights that one token needs: of an embedding that is only looked up in, one row."""
    import torch

    head = model.get_output_embeddings().weight
    total = sum(p.nbytes for p in model.parameters())  # a weight that is used twice comes once
    for m in model.modules():
        if isinstance(m, torch.nn.Embedding) and m.weight is not head:
            total -= m.weight.nbytes - m.weight[0].nbytes
    return total


def run(engine: Any, ids: Array, count: int) -> tuple[list[int], list[float]]:
    """Tokens, and the seconds that each took; the first with the whole prompt."""
    found, times = [], []
    steps = engine.steps(ids, count)
    start = time.perf_counter()
    for token in steps:
        end = time.perf_counter()
        found.append(token)
        times.append(end - start)
        start = time.perf_counter()
    return found, times


class Read:
    """What reads the weights and does nothing else."""

    def __init__(self, nbytes: int, threads: int) -> None:
        self.call, self.arguments = reader(nbytes, threads, from_memory=True)
        self.times()

    def times(self) -> list[float]:
        """Seconds of each read of a turn."""
        found: list[float] = []
        while sum(found) < LEAST_READS:
            start = time.perf_counter()
            self.call(*self.arguments)
            found.append(time.perf_counter() - start)
        return found


def worker(engine: str, model: str, threads: int, prompt: int, new: int, folder: Path) -> int:
    """Make the engine and print its tokens; then the seconds of each token for each line that comes in."""
    facts = json.loads((folder / FACTS).read_text())
    found: list[int] = []
    if engine == "read":
        times = Read(facts["needed"], threads).times
    else:
        ids = np.random.default_rng(SEED).integers(0, facts["vocabulary"], prompt)
        made: Any
        if engine in EXPORTED:
            made = {"onnxruntime": Onnx, "openvino": Vino}[engine](folder, facts["cache"], threads)
        else:
            made = {"diptych": Ours, "torch": Torch}[engine](make(model), threads, prompt + new)
        found = run(made, ids, new)[0]  # also compiles

        def times() -> list[float]:
            run(made, ids, 2)  # wakes its threads up
            return run(made, ids, new)[1]

    print(json.dumps(found), flush=True)
    for _line in sys.stdin:
        print(json.dumps(times()), flush=True)
    return 0


class Process:
    """An engine's process, stopped while it is not asked."""

    def __init__(self, engine: str, args: argparse.Namespace, folder: Path) -> None:
        command = [sys.executable, "-m", "bench.generate", "--worker", engine, args.model, str(args.threads), str(args.prompt),
                   str(args.new), str(folder)]  # fmt: skip
        self.name, self.log = engine, (folder / f"{engine}.log").open("w+")
        env = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True,
                                      cwd=ROOT, env=env, start_new_session=True)  # fmt: skip
        self.tokens: list[int] = self.reply()

    def reply(self) -> Any:
        assert self.child.stdout is not None
        while line := self.child.stdout.readline():
            if line.startswith("["):
                self.signal(signal.SIGSTOP)
                return json.loads(line)
        self.log.seek(0)
        said = self.log.read().strip().splitlines()
        raise SystemExit(f"{self.name} ended: {said[-1] if said else 'it said nothing'}")

    def turn(self) -> list[float]:
        assert self.child.stdin is not None
        self.signal(signal.SIGCONT)
        self.child.stdin.write("\n")
        self.child.stdin.flush()
        times: list[float] = self.reply()
        return times

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, number)

    def close(self) -> None:
        self.signal(signal.SIGKILL)
        self.child.communicate()
        self.log.close()


def prepare(name: str, folder: Path, wanted: list[str]) -> dict[str, Any]:
    """What the processes share: facts of the model, and its exported step for those engines that read one."""
    facts = folder / FACTS
    known: dict[str, Any] = json.loads(facts.read_text()) if facts.exists() else {}
    if known.get("model") != name:
        known = {"exported": []}
    missing = [e for e in wanted if e in EXPORTED and e not in known["exported"]]
    if missing or "model" not in known:
        model = make(name)
        for engine in missing:
            say(f"exporting for {engine} ...")
            (export_onnx if engine == "onnxruntime" else export_openvino)(model, folder / EXPORTED[engine])
        known = {"model": name, "vocabulary": model.config.vocab_size, "needed": needed(model), "cache": cache_shape(model),
                 "exported": [*known["exported"], *missing]}  # fmt: skip
        facts.write_text(json.dumps(known))
    return known


def measure(args: argparse.Namespace, wanted: list[str], folder: Path) -> tuple[dict[str, list[int]], dict[str, list[list[float]]]]:
    """Tokens of every engine, and the seconds of each token by turns; of "read", the seconds of each read."""
    processes: dict[str, Process] = {}
    try:
        for name in [*wanted, "read"]:
            say(f"{name} ...")
            processes[name] = Process(name, args, folder)
        times: dict[str, list[list[float]]] = {name: [] for name in processes}
        for turn in range(args.rounds):
            for name in wanted if turn % 2 == 0 else wanted[::-1]:
                times["read"].append(processes["read"].turn())
                times[name].append(processes[name].turn())
            times["read"].append(processes["read"].turn())
        return {name: processes[name].tokens for name in wanted}, times
    finally:
        for p in processes.values():
            p.close()


def main() -> int:
    """Measure; the status is 1 where tokens differ."""
    if sys.argv[1:2] == ["--worker"]:
        engine, model, threads, prompt, new, at = sys.argv[2:]
        return worker(engine, model, int(threads), int(prompt), int(new), Path(at))
    parser = argparse.ArgumentParser(prog="python -m bench.generate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("gpt2", "llama", "small"), default="gpt2")
    parser.add_argument("--threads", type=positive, default=2)
    parser.add_argument("--prompt", type=positive, default=128, metavar="TOKENS")
    parser.add_argument("--new", type=positive, default=32, metavar="TOKENS")
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--engines", default=",".join(ENGINES), metavar="A,B", help=f"of {', '.join(ENGINES)}")
    parser.add_argument("--folder", type=Path, help="where the exported step is kept for the next time (default: it is not)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    wanted = [e.strip() for e in args.engines.split(",") if e.strip()]
    if unknown := sorted(set(wanted) - set(ENGINES)):
        parser.error(f"--engines {', '.join(unknown)}: of {', '.join(ENGINES)}")
    if args.new < 2:
        parser.error("--new 1 decodes nothing: the first token comes with the prompt")
    with contextlib.ExitStack() as stack:
        folder = args.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="diptych-generate-")))
        folder.mkdir(parents=True, exist_ok=True)
        facts = prepare(args.model, folder, wanted)
        tokens, times = measure(args, wanted, folder)
    weights = facts["needed"]
    read = min(median(t) for t in times["read"])
    rows, report = [], {}
    for name in wanted:
        first = median(t[0] for t in times[name])
        steps = [median(t[1:]) for t in times[name]]  # of each turn
        same = tokens[name] == tokens[wanted[0]]
        report[name] = {"prefill_tokens_per_s": args.prompt / first, "decode_tokens_per_s": 1 / median(steps), "decode_s": steps,
                        "read_over_best_decode": read / min(steps), "tokens_equal": same}  # fmt: skip
        ratios = [a / median(b[1:]) for a, b in zip(steps, times[wanted[0]], strict=True)]
        ratio = "-" if name == wanted[0] else f"{median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        rows.append([name, f"{args.prompt / first:.0f}", f"{1 / median(steps):.1f}", f"{median(steps) * 1e3:.2f}",
                     f"{min(steps) * 1e3:.2f}", f"{read / min(steps):.0%}", ratio, "yes" if same else "NO"])  # fmt: skip
    every = sorted(median(t) for t in times["read"])
    print(f"{args.model}: {weights / 1e6:.0f} MB of weights for a token, prompt of {args.prompt}, {args.new} new tokens, {args.threads} threads")
    print(f"a pure read of them: {read * 1e3:.2f} ms at best ({weights / read / 1e9:.1f} GB/s), "
          f"{median(every) * 1e3:.2f} in the median turn, {every[-1] * 1e3:.2f} in the worst")  # fmt: skip
    print(table(["engine", "prefill tokens/s", "decode tokens/s", "ms a token", "at best", "pure read / best", f"decode over {wanted[0]}", "same tokens"],
                rows))  # fmt: skip
    if args.json:
        args.json.write_text(json.dumps({"weights": weights, "pure_read_s": every, "engines": report}, indent=1))
    return 0 if all(r["tokens_equal"] for r in report.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
