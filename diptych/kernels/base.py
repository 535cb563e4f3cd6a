"""The table of emitters: kernel kind -> the function that writes its native code."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from llvmlite import ir

from diptych.codegen.builder import I64, PTR, Fn, Val

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diptych.codegen.math import Math
    from diptych.ir.kernel import Expr, Kernel
    from diptych.targets.base import Target

__all__ = ["EMITTERS", "Emitter", "emit_kernel", "emits", "evaluate", "signature"]

Emitter = Callable[["Fn", "Kernel"], None]
EMITTERS: dict[str, Emitter] = {}
E = TypeVar("E", bound=Emitter)


def emits(kind: str) -> Callable[[E], E]:
    """Register the emitter of a kernel kind. It fills the body of the function it is handed."""

    def register(emitter: E) -> E:
        if kind in EMITTERS:
            raise TypeError(f"two emitters for kernels of kind {kind!r}")
        EMITTERS[kind] = emitter
        return emitter

    return register


def signature(kernel: Kernel) -> list[tuple[str, ir.Type]]:
    """The arguments of a kernel's function."""
    return [("begin", I64), ("end", I64), ("scratch", PTR)] + [(f"p{i}", PTR) for i in range(len(kernel.operands))]


def emit_kernel(module: ir.Module, kernel: Kernel, name: str, target: Target) -> ir.Function:
    """Write `kernel` as function `name` into `module`.

    The emitter finds `fn.args["begin"]`, `["end"]` (work items), `["scratch"]` and `["p0"]`, `["p1"]` ... (operands).
    """
    fn = Fn(module, name, signature(kernel), target, internal=True)
    EMITTERS[kernel.kind](fn, kernel)
    return fn.finish()


def evaluate(math: Math, expr: Expr, inputs: Sequence[Val]) -> list[Val]:
    """Write the code of an Expr on scalars or vectors; returns its results."""
    lanes = max((v.lanes for v in inputs), default=1)
    regs: list[Val] = [math.fn.splat(v, lanes) for v in inputs]
    regs += [math.const(value, dtype, lanes) for value, dtype in expr.consts]
    silu = _swishes(expr)
    for i, (op, args) in enumerate(expr.steps):
        if i in silu:
            regs.append(math.silu(regs[silu[i]]))
        else:
            regs.append(op.lower(math, *(regs[a] for a in args)))  # type: ignore[attr-defined]
    return [regs[r] for r in expr.results]


def _swishes(expr: Expr) -> dict[int, int]:
    """Steps that multiply x by sigmoid(x) -> the register of x: one division does both. LLVM drops an unused sigmoid."""
    first = expr.inputs + len(expr.consts)
    found = {}
    for i, (op, args) in enumerate(expr.steps):
        for x, y in ((args[0], args[1]), (args[1], args[0])) if op.name == "mul" else ():
            if y >= first and expr.steps[y - first][0].name == "sigmoid" and expr.steps[y - first][1] == (x,):
                found[i] = x
    return found
