"""Compile an elementwise function written with Math and call it on arrays."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from llvmlite import binding, ir

from diptych.codegen.builder import I64, PTR, Fn, Val
from diptych.codegen.math import Math
from diptych.ir.types import dtype_of, itemsize, numpy_dtype
from diptych.targets.base import Target

Array = np.ndarray[Any, Any]


@cache
def host() -> Target:
    """The machine the tests run on."""
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    features = binding.get_host_cpu_features().flatten()
    return Target("host", binding.get_default_triple(), binding.get_host_cpu_name(), features, 32, 16)


def native(module: ir.Module) -> Any:
    """An execution engine that holds the module's code."""
    target = host()
    machine = binding.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=2, jit=True
    )
    module.triple = target.triple
    parsed = binding.parse_assembly(str(module))
    parsed.verify()
    builder = binding.create_pass_builder(machine, binding.create_pipeline_tuning_options(speed_level=2))
    builder.getModulePassManager().run(parsed, builder)
    engine = binding.create_mcjit_compiler(parsed, machine)
    engine.finalize_object()
    return engine


def compiled(body: Callable[..., Val], inputs: list[str], output: str, lanes: int = 8) -> Callable[..., Array]:
    """A function of arrays whose elements go through `body(math, *vals)`, `lanes` at a time.

    Arrays are padded with zeros to whole vectors; a bf16 array holds bit patterns.
    """
    module = ir.Module("jit")
    names = [f"x{i}" for i in range(len(inputs))]
    fn = Fn(module, "apply", [*((n, PTR) for n in names), ("y", PTR), ("n", I64)], host())
    math = Math(fn)
    with fn.loop(0, fn.args["n"], lanes) as i:
        xs = [fn.load(fn.at(fn.args[n], i, d), d, lanes) for n, d in zip(names, inputs, strict=True)]
        result = body(math, *xs)
        assert (result.dtype, result.lanes) == (output, lanes)
        fn.store(result, fn.at(fn.args["y"], i, output))
    fn.finish()
    engine = native(module)
    address = engine.get_function_address("apply")
    call = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * (len(inputs) + 1), ctypes.c_int64)(address)

    def run(*arrays: Array) -> Array:
        assert engine is not None  # the code lives as long as this closure
        size, shape = arrays[0].size, arrays[0].shape
        padded = -(-size // lanes) * lanes
        buffers = []
        for array, dtype in zip(arrays, inputs, strict=True):
            assert array.shape == shape and array.dtype == numpy_dtype(dtype), (array.dtype, dtype)
            buffer = np.zeros(padded, numpy_dtype(dtype))
            buffer[:size] = array.reshape(-1)
            buffers.append(buffer)
        out = np.zeros(padded, numpy_dtype(output))
        call(*(b.ctypes.data for b in (*buffers, out)), padded)
        return out[:size].reshape(shape)

    return run


def ulps(got: Array, exact: Array) -> Array:
    """The distance of f32 or f64 results from wider exact values, in units in the last place of the exact value.

    Results that agree in being NaN, infinite, or on the sign of an overflow count as 0.
    """
    info = np.finfo(got.dtype)
    with np.errstate(all="ignore"):
        rounded = exact.astype(got.dtype)
        unit = np.maximum(np.abs(exact), info.tiny)
        unit = np.exp2(np.floor(np.log2(unit)) - info.nmant)
        distance = np.abs(got.astype(exact.dtype) - exact) / unit
    same = (np.isnan(got) & np.isnan(exact)) | (got == rounded)
    beyond = ~np.isfinite(got) | ~np.isfinite(rounded)
    return np.where(beyond, np.where(same, 0, np.inf), distance)


__all__ = ["Array", "compiled", "dtype_of", "host", "itemsize", "native", "ulps"]
