"""Attention alone against the engines that have it: `python -m bench.attention --threads 2`.

Rounds are interleaved: every engine runs a few times in each, and a ratio is the median of those of the rounds. The scores
of a case count in full for GFLOP/s, those that causality hides too.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

import diptych
from diptych.compare.table import table
from diptych.ir import TensorType
from diptych.ops import Attention, Builder

Array = np.ndarray[Any, Any]
Run = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """One size: batch, heads, queries, keys, width of a head."""

    name: str
    batch: int
    heads: int
    queries: int
    keys: int
    width: int
    causal: bool = False
    bias: bool = False  # an additive mask [1, heads, queries, keys]

    @property
    def flops(self) -> float:
        return 4.0 * self.batch * self.heads * self.queries * self.keys * self.width


CASES = (
    Case("BERT 12x128x64", 1, 12, 128, 128, 64),
    Case("ViT-B 12x197x64", 1, 12, 197, 197, 64),
    Case("ViT-S 6x197x64", 1, 6, 197, 197, 64),
    Case("Swin 64*3x49x32", 64, 3, 49, 49, 32, bias=True),
    Case("causal 12x1024x64", 1, 12, 1024, 1024, 64, causal=True),
    Case("decode 12x1x128x64", 1, 12, 1, 128, 64),
    Case("decode 12x1x1024x64", 1, 12, 1, 1024, 64),
)


def operands(case: Case) -> list[Array]:
    """q, k, v as [batch, length, heads, width], and the bias."""
    rng = np.random.default_rng(0)
    shapes = [(case.batch, n, case.heads, case.width) for n in (case.queries, case.keys, case.keys)]
    if case.bias:
        shapes.append((1, case.heads, case.queries, case.keys))
    return [rng.standard_normal(s).astype(np.float32) for s in shapes]


def ours(case: Case, arrays: list[Array], threads: int) -> Run:
    """diptych, on the layout that projections leave and want."""
    g = Builder(case.name)
    values = [g.input(f"x{i}", TensorType(a.shape)) for i, a in enumerate(arrays)]
    heads = [g.transpose(x, (0, 2, 1, 3)) for x in values[:3]]
    y = g.emit(Attention(scale=case.width**-0.5, causal=case.causal), *heads, *values[3:])
    model = diptych.compile(g.finish([g.transpose(y, (0, 2, 1, 3))]), threads=threads)
    return lambda: model(*arrays)


def _module(case: Case) -> Any:
    import torch

    class Layer(torch.nn.Module):
        def forward(self, q: Any, k: Any, v: Any, bias: Any = None) -> Any:
            q, k, v = (x.transpose(1, 2) for x in (q, k, v))
            y = torch.nn.functional.scaled_dot_product_attention(q, k, v, bias, is_causal=case.causal)
            return y.transpose(1, 2)

    return Layer().eval()


def with_torch(case: Case, arrays: list[Array], threads: int) -> Run:
    """PyTorch's scaled_dot_product_attention."""
    import torch

    torch.set_num_threads(threads)
    module, inputs = _module(case), [torch.from_numpy(a) for a in arrays]

    def run() -> object:
        with torch.inference_mode():
            return module(*inputs)

    return run


def with_openvino(case: Case, arrays: list[Array], threads: int) -> Run:
    """OpenVINO, from the same module."""
    import openvino as ov
    import torch

    model = ov.convert_model(_module(case), example_input=tuple(torch.from_numpy(a) for a in arrays))
    hints = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}
    request = ov.Core().compile_model(model, "CPU", hints).create_infer_request()
    inputs = dict(enumerate(arrays))
    return lambda: request.infer(inputs, share_inputs=True, share_outputs=True)


def with_onnxruntime(case: Case, arrays: list[Array], threads: int) -> Run:
    """ONNX Runtime, from the module's export."""
    import io

    import onnxruntime as ort
    import torch

    file = io.BytesIO()
    inputs = tuple(torch.from_numpy(a) for a in arrays)
    torch.onnx.export(_module(case), inputs, file, dynamo=False, input_names=[f"x{i}" for i in range(len(inputs))], opset_version=17)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
    feed = {f"x{i}": a for i, a in enumerate(arrays)}
    return lambda: session.run(None, feed)


RIVALS: dict[str, tuple[str, Callable[[Case, list[Array], int], Run]]] = {
    "torch": ("torch", with_torch), "onnxruntime": ("onnxruntime", with_onnxruntime), "openvino": ("openvino", with_openvino),
}  # fmt: skip


def _result(made: object) -> Array:
    """The array of whatever an engine gives."""
    first: Any = made if isinstance(made, np.ndarray) else made[0] if isinstance(made, (list, tuple)) or hasattr(made, "names") else made
    return np.asarray(first.numpy() if hasattr(first, "numpy") else first)


def exact(case: Case, arrays: list[Array]) -> Array:
    q, k, v = (a.astype(np.float64).transpose(0, 2, 1, 3) for a in arrays[:3])
    y = Attention(scale=case.width**-0.5, causal=case.causal).reference(q, k, v, *(a.astype(np.float64) for a in arrays[3:]))
    return y.transpose(0, 2, 1, 3)


def measure(case: Case, engines: list[str], threads: int, rounds: int) -> tuple[dict[str, list[float]], list[str]]:
    """Seconds of every engine in every round; engines that failed or are wrong, with the reason."""
    arrays = operands(case)
    truth = exact(case, arrays)
    runs: dict[str, Run] = {}
    left_out = []
    for name in ("diptych", *engines):
        try:
            run = ours(case, arrays, threads) if name == "diptych" else RIVALS[name][1](case, arrays, threads)
            worst = float(np.abs(_result(run()) - truth).max())
        except Exception as error:  # an engine's converter may fail in its own ways
            left_out.append(f"{case.name}: {name}: {type(error).__name__}: {str(error).splitlines()[0][:100]}")
            continue
        if worst > 1e-4:
            left_out.append(f"{case.name}: {name} is wrong by {worst:.2g}")
            continue
        runs[name] = run
    times: dict[str, list[float]] = {name: [] for name in runs}
    start = time.perf_counter()
    for run in runs.values():
        run()
    each = max(1, int(0.02 / max(1e-6, time.perf_counter() - start)))
    for _ in range(rounds):
        for name, run in runs.items():
            run()
            laps = []
            for _ in range(each):
                begin = time.perf_counter()
                run()
                laps.append(time.perf_counter() - begin)
            times[name].append(statistics.median(laps))
    return times, left_out


def main() -> None:
    """Print a line a case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--engines", default=",".join(RIVALS), help="rivals, by commas")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    args = parser.parse_args()
    engines = [e for e in args.engines.split(",") if e and find_spec(RIVALS[e][0]) is not None]
    rows, notes = [], []
    for case in (c for c in CASES if args.only in c.name):
        times, left_out = measure(case, engines, args.threads, args.rounds)
        notes += left_out
        own = times["diptych"]
        line = [case.name, f"{statistics.median(own) * 1e6:.0f} us", f"{case.flops / statistics.median(own) / 1e9:.0f}"]
        for name in engines:
            rival = times.get(name)
            ratio = statistics.median(b / a for a, b in zip(own, rival, strict=True)) if rival else 0.0
            line.append(f"{ratio:.2f}" if rival else "-")
        rows.append(line)
    print(table(["attention", "diptych", "GFLOP/s", *(f"{e} / diptych" for e in engines)], rows))
    print("\n".join(notes))


if __name__ == "__main__":
    main()
