"""Compile one kernel, run it on NumPy views, and time it."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import binding, ir

from diptych.codegen.object import object_code
from diptych.ir.kernel import Expr, Kernel, Operand
from diptych.ir.types import dtype_of
from diptych.kernels.base import emit_kernel
from diptych.kernels.worker import is_plain
from diptych.targets.base import Target

Array = np.ndarray[Any, Any]

V3 = Target("x86-64-v3", "x86_64-unknown-linux-gnu", "x86-64-v3", "", 32, 16)
V4 = Target("x86-64-v4", "x86_64-unknown-linux-gnu", "znver4", "", 64, 32, is_host=False)
ARM = Target("aarch64", "aarch64-unknown-linux-gnu", "neoverse-v1", "", 16, 32, is_host=False)


def compile_only(kernel: Kernel, target: Target) -> bytes:
    """The object code of a kernel alone in its module."""
    module = ir.Module("test")
    emit_kernel(module, kernel, "kernel", target).linkage = "external"
    return object_code(module, target, is_plain(kernel, target))


@dataclass
class Compiled:
    """A kernel ready to be called; `seconds` is what compiling took."""

    kernel: Kernel
    engine: Any
    address: int
    seconds: float

    def __call__(self, *arrays: Array, ranges: list[tuple[int, int]] | None = None) -> None:
        """Run on views (inputs, then outputs), by default in two ranges of work items that meet in the middle."""
        work = self.kernel.work
        for lo, hi in ranges if ranges is not None else [(0, work // 3), (work // 3, work)]:
            self.bind(lo, hi, *arrays)()

    def bind(self, lo: int, hi: int, *arrays: Array) -> Callable[[], None]:
        """A call of the native function with everything prepared."""
        count = len(self.kernel.operands)
        assert len(arrays) == count
        function = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 2, *[ctypes.c_void_p] * (count + 1))(self.address)
        scratch = np.full(self.kernel.scratch + 128, 0xCD, np.uint8)
        aligned = scratch[(-scratch.ctypes.data) % 64 :]
        args = [ctypes.c_int64(lo), ctypes.c_int64(hi), *(ctypes.c_void_p(a.ctypes.data) for a in (aligned, *arrays))]

        def call(keep_alive: Array = aligned) -> None:
            function(*args)

        return call

    def time(self, *arrays: Array, repeat: int = 7, seconds: float = 0.05) -> float:
        """Best seconds of one call over all the work, on one thread."""
        call = self.bind(0, self.kernel.work, *arrays)
        call()
        start = time.process_time()
        call()
        inner = max(1, int(seconds / repeat / max(1e-7, time.process_time() - start)))
        best = float("inf")
        for _ in range(repeat):
            start = time.process_time()
            for _ in range(inner):
                call()
            best = min(best, (time.process_time() - start) / inner)
        return best


def build(kernel: Kernel, target: Target = V3) -> Compiled:
    """Compile a kernel for this machine."""
    start = time.process_time()
    code = compile_only(kernel, target)
    seconds = time.process_time() - start
    machine = binding.Target.from_triple(target.triple).create_target_machine(cpu=target.cpu, opt=0)
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), machine)
    engine.add_object_file(binding.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return Compiled(kernel, engine, engine.get_function_address("kernel"), seconds)


def view(array: Array, dtype: str | None = None) -> Operand:
    """The Operand that describes a NumPy view."""
    item = array.itemsize
    return Operand(array.shape, tuple(s // item for s in array.strides), dtype or dtype_of(array))


def everywhere(kernel: Kernel) -> None:
    """The kernel also compiles for wider and narrower vectors on other machines (its lanes are those it was made for)."""
    for target in (V4, ARM):
        assert compile_only(kernel, target)


def misaligned(shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
    """An array whose first element lies at an address aligned to its element only."""
    flat = np.zeros(int(np.prod(shape)) + 1, dtype)
    return flat[1:].reshape(shape)


def expr(inputs: int, *steps: tuple[Any, tuple[int, ...]], consts: tuple[tuple[Any, str], ...] = (),
         results: tuple[int, ...] | None = None) -> Expr:  # fmt: skip
    """An Expr; its result is the last step unless stated."""
    last = inputs + len(consts) + len(steps) - 1
    return Expr(inputs, consts, steps, (last,) if results is None else results)
