"""Elementwise programs over arrays of any length, in place: what optimizers do to weights, in one pass over memory.

Native code made for one length would be made again for every weight; here the length is an argument.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.errors import InputError
from diptych.fingerprint import of_compiler
from diptych.runtime.cache import default_cache
from diptych.runtime.loader import load_object
from diptych.targets import host

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diptych.ir import Array, Graph
    from diptych.ir.kernel import Expr, Kernel
    from diptych.targets.base import Target

__all__ = ["Stream"]

_BLOCK = 16  # elements of a work item
_LONG = 1 << 40  # the extent the kernel is told of; calls name the part they want


class Stream:
    """An elementwise f32 Graph as native code for one-dimensional arrays of any length.

    Inputs of shape (16,) stand for arrays, those of shape () for numbers; every output is an array. An output may be
    written where an input is read, and nowhere else in the inputs' memory.

    >>> from diptych.ir import TensorType
    >>> from diptych.ops.build import Builder
    >>> g = Builder("axpy")
    >>> x, y, a = g.input("x", TensorType((16,))), g.input("y", TensorType((16,))), g.input("a", TensorType(()))
    >>> axpy = Stream(g.finish({"y": g.add(g.mul(x, a), y)}))
    >>> x, y = np.ones(20, np.float32), np.ones(20, np.float32)
    >>> axpy([x, y], [2.0], [y])
    >>> y[-1]
    np.float32(3.0)
    """

    def __init__(self, graph: Graph) -> None:
        machine = host.find(None)
        types = list(graph.input_types().values())
        shapes = [t.shape for t in (*types, *graph.output_types().values())]
        if any(t.dtype != "f32" for t in types) or set(shapes) - {(), (_BLOCK,)} or () in shapes[len(types) :]:
            raise InputError(f"a stream takes f32 of shape ({_BLOCK},) or () and gives arrays; {graph.name} has {shapes}")
        self._scalars = [t.shape == () for t in types]
        kernel = _kernel(graph, machine)
        key = f"stream {kernel!r} {machine!r} {of_compiler()}"
        self._object = load_object(default_cache().get_or_make(key, lambda: _code(kernel, machine)))
        count = len(kernel.operands)
        prototype = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 2, *[ctypes.c_void_p] * (count + 1))
        self._run = prototype(self._object.address("diptych_stream"))

    def __call__(self, arrays: Sequence[Array], scalars: Sequence[float], outputs: Sequence[Array]) -> None:
        """Run over arrays (f32, contiguous, of one size)."""
        size = outputs[0].size
        for a in (*arrays, *outputs):
            if a.dtype != np.float32 or a.size != size or not a.flags.c_contiguous:
                raise InputError(f"a stream takes contiguous float32 arrays of one size; {a.dtype}{list(a.shape)} was given")
        numbers = np.array([*scalars, 0.0], np.float32)
        whole, rest = divmod(size, _BLOCK)
        if whole:
            self._call(whole, numbers, [a.ctypes.data for a in arrays], [a.ctypes.data for a in outputs])
        if rest:
            ends = [np.zeros(_BLOCK, np.float32) for _ in (*arrays, *outputs)]
            for end, a in zip(ends, arrays):
                end[:rest] = a.reshape(-1)[-rest:]
            addresses = [e.ctypes.data for e in ends]
            self._call(1, numbers, addresses[: len(arrays)], addresses[len(arrays) :])
            for end, a in zip(ends[len(arrays) :], outputs):
                a.reshape(-1)[-rest:] = end[:rest]

    def _call(self, items: int, numbers: Array, inputs: list[int], outputs: list[int]) -> None:
        given, number = iter(inputs), numbers.ctypes.data
        pointers = []
        for scalar in self._scalars:
            pointers.append(number if scalar else next(given))
            number += 4 * scalar
        self._run(0, items, None, *pointers, *outputs)


def _kernel(graph: Graph, target: Target) -> Kernel:
    from diptych.ir.kernel import Kernel, Operand
    from diptych.kernels.pointwise import PointwiseParams

    lanes = min(_BLOCK, target.lanes(4))
    params = PointwiseParams(_expression(graph), 0, _BLOCK, lanes, lanes)
    types = graph.input_types().values()
    operands = [Operand((_LONG,), (0 if t.shape == () else 1,), "f32") for t in types]
    operands += [Operand((_LONG,), (1,), "f32") for _ in graph.outputs]
    return Kernel("pointwise", params, tuple(operands), len(graph.outputs), _LONG // _BLOCK, 0.0)


def _expression(graph: Graph) -> Expr:
    from diptych.ir.kernel import Expr

    register = {v: i for i, v in enumerate(graph.inputs)}
    consts: list[tuple[Any, str]] = []
    for v, array in graph.constants.items():
        register[v] = len(graph.inputs) + len(consts)
        consts.append((array.reshape(()).item(), graph.types[v].dtype))
    steps = []
    for node in graph.nodes:
        steps.append((node.op, tuple(register[v] for v in node.inputs)))
        register[node.outputs[0]] = len(graph.inputs) + len(consts) + len(steps) - 1
    return Expr(len(graph.inputs), tuple(consts), tuple(steps), tuple(register[v] for v in graph.outputs))


def _code(kernel: Kernel, target: Target) -> bytes:
    from llvmlite import ir

    import diptych.kernels.pointwise  # noqa: F401  (fills the table of emitters)
    from diptych.codegen.object import object_code
    from diptych.kernels.base import emit_kernel

    module = ir.Module("stream")
    emit_kernel(module, kernel, "diptych_stream", target).linkage = ""
    return object_code(module, target)
