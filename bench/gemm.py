"""Products of BERT's and ViT's layers against the peak of the FMA units at this moment: `python -m bench.gemm`.

Every product has its bias, as in the models. `strict` are plain sums: their share of the peak is at most 1. `fast`
may take Strassen's scheme: its operations are counted as those of the plain sums, so that it can be above 1. The peak is
that of a program that does nothing but multiply and add, called the same way and measured in turns with the products.
"""

from __future__ import annotations

import argparse

import numpy as np

import diptych
from bench.roof import Timed, multiplier, turns
from diptych.ir import TensorType
from diptych.ops.build import Builder

# rows x depth x columns: attention's projections, the two of the feed-forward part
SHAPES = {
    "BERT-base, 128 tokens": ("128x768x2304", "128x768x768", "128x768x3072", "128x3072x768"),
    "BERT-base, 8 of 128": ("1024x768x768", "1024x768x3072", "1024x3072x768"),
    "ViT-S/16": ("197x384x1152", "197x384x384", "197x384x1536", "197x1536x384"),
    "ViT-B/16": ("197x768x2304", "197x768x768", "197x768x3072", "197x3072x768"),
    "powers of two": ("256x1024x1024", "256x2048x1024", "256x4096x1024", "100x512x2048"),
}


def product(m: int, k: int, n: int, threads: int, accuracy: str) -> Timed:
    """A compiled x W + bias, and its input."""
    rng = np.random.default_rng(0)
    g = Builder("product")
    x = g.input("x", TensorType((m, k)))
    w = g.constant(rng.standard_normal((n, k), np.float32))
    y = g.add(g.matmul(x, w, transpose_b=True), g.constant(rng.standard_normal(n, np.float32)))
    model = diptych.compile(g.finish({"y": y}), threads=threads, accuracy=accuracy)  # type: ignore[arg-type]
    return model, [rng.standard_normal((m, k), np.float32)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--shape", nargs="+", help="such as 128x768x3072 (rows x depth x columns), instead of the list")
    parser.add_argument("--seconds", type=float, default=0.1, help="for each figure")
    parser.add_argument("--compile-only", action="store_true", help="fill the object cache, measure nothing")
    args = parser.parse_args()
    groups = {"chosen": tuple(args.shape)} if args.shape else SHAPES
    for threads in args.threads:
        peak, operations = multiplier(threads)
        print(f"\n{threads} threads{'':27} {'peak':>6}  {'strict':>8} {'of peak':>7}  {'fast':>8} {'of peak':>7}  (GFLOP/s)")
        for name, shapes in groups.items():
            for shape in shapes:
                m, k, n = map(int, shape.split("x"))
                calls = [product(m, k, n, threads, accuracy) for accuracy in ("strict", "fast")]
                if args.compile_only:
                    continue
                *took, multiplying = turns([*calls, peak], args.seconds)
                roof = operations / multiplying
                rates = [2.0 * m * k * n / t for t in took]
                shares = "  ".join(f"{r:8.1f} {r / roof:7.2f}" for r in rates)
                print(f"{name:>22} {shape:>13} {roof:6.1f}  {shares}", flush=True)


if __name__ == "__main__":
    main()
