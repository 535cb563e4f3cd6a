"""Products of a few rows against the time that a pure read of their weights takes: `python -m bench.skinny`.

A product of one row by W[K, N] can be no faster than reading W; one of several rows also not faster than its
multiply-adds. `read` is a program that does nothing but load the same number of bytes, called the same way with the same
threads; the two take turns. `of bound` is the longer of reading and arithmetic, over the time taken. The products have a
bias, a GELU and a residual where `--epilogue` says so. With `--zeros 0.5` their row comes from a ReLU that leaves that part
of it zero: the weights of a zero need not be read, so that `read/us` may be above 1.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

import diptych
from bench.roof import Timed, multiplier, reader, turns
from diptych.ir import TensorType
from diptych.ops import OPS
from diptych.ops.build import Builder
from diptych.targets.host import host

SHAPES = ("784x512", "512x512", "768x768", "768x3072", "3072x768", "768x2304", "768x50257")


def product(m: int, k: int, n: int, threads: int, epilogue: bool, zeros: float | None = None) -> Timed:
    """A compiled x W + bias, and its input; with `zeros`, of relu(x), that part of which is zero."""
    rng = np.random.default_rng(0)
    g = Builder("skinny")
    x = g.input("x", TensorType((m, k)))
    w = g.constant(rng.standard_normal((n, k), np.float32))
    rows = x if zeros is None else g.relu(x)
    y = g.add(g.matmul(rows, w, transpose_b=True), g.constant(rng.standard_normal(n, np.float32)))
    args: list[Any] = [rng.standard_normal((m, k), np.float32)]
    if zeros is not None:
        args[0] = np.where(rng.random((m, k)) < zeros, -1, np.abs(args[0]) + 0.1).astype(np.float32)
    if epilogue:
        y = g.add(g.emit(OPS["gelu"](), y), g.input("z", y.type))
        args.append(rng.standard_normal((m, n), np.float32))
    return diptych.compile(g.finish({"y": y}), threads=threads), args


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--shape", nargs="+", default=list(SHAPES), help="such as 784x512")
    parser.add_argument("--epilogue", action="store_true", help="with GELU and residual")
    parser.add_argument("--zeros", type=float, help="the row comes from a ReLU, and this part of it is zero")
    parser.add_argument("--seconds", type=float, default=0.1, help="for each figure")
    parser.add_argument("--compile-only", action="store_true", help="fill the object cache, measure nothing")
    args = parser.parse_args()
    print(f"{'K x N':>12} {'rows':>4} {'threads':>7} {'us':>9} {'read us':>9} {'GB/s':>6} {'read/us':>8} {'of bound':>8}")
    for threads in args.threads:
        peak, operations = multiplier(threads)
        for shape in args.shape:
            k, n = map(int, shape.split("x"))
            nbytes = -(-n // 16) * 64 * k
            read = reader(nbytes, threads, nbytes > host().l3)
            for m in args.rows:
                made = product(m, k, n, threads, args.epilogue, args.zeros)
                if args.compile_only:
                    continue
                took, reading, multiplying = turns([made, read, peak], args.seconds)
                bound = max(reading, 2.0 * m * k * n / operations * multiplying)
                print(f"{shape:>12} {m:4} {threads:7} {took / 1e3:9.2f} {reading / 1e3:9.2f} {nbytes / took:6.1f} "
                      f"{reading / took:8.2f} {bound / took:8.2f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
