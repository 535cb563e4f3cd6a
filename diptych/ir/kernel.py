"""Kernel: one native function over strided operands, described by data. The schedule makes it, `kernels` emits it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diptych.ir.graph import Op

__all__ = ["Expr", "Kernel", "Operand", "Step"]


@dataclass(frozen=True, slots=True)
class Operand:
    """How a kernel sees one buffer: extents, strides in elements (0 = broadcast), dtype. Where it lies is the Plan's."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str = "f32"

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]:{','.join(map(str, self.strides))}"


@dataclass(frozen=True, slots=True)
class Expr:
    """A straight-line program of elementwise operators on one element (or one vector of elements).

    Registers are numbered: first the `inputs` operands, then the `consts` (value, dtype), then one per step.
    A step is (operator, registers it reads). `results` are the registers that leave the program.
    """

    inputs: int
    consts: tuple[tuple[float | int | bool, str], ...]
    steps: tuple[tuple[Op, tuple[int, ...]], ...]
    results: tuple[int, ...]

    @staticmethod
    def identity() -> Expr:
        return Expr(1, (), (), (0,))

    @property
    def is_identity(self) -> bool:
        return self.inputs == 1 and not self.steps and self.results == (0,)

    def with_operand(self, op: Op) -> Expr:
        """The program after `op` on operand 0 and one more, which becomes operand 1."""
        held = self.inputs + len(self.consts)

        def shifted(r: int) -> int:
            return held + 1 if r == 0 else r + 1 if r < held else r + 2

        steps = ((op, (0, 1)), *((o, tuple(map(shifted, args))) for o, args in self.steps))
        return Expr(self.inputs + 1, self.consts, steps, tuple(map(shifted, self.results)))

    def __str__(self) -> str:
        base = self.inputs + len(self.consts)
        names = [f"x{i}" for i in range(self.inputs)] + [repr(v) for v, _ in self.consts]
        names += [f"t{i}" for i in range(len(self.steps))]
        lines = [f"t{i}={op.name}({','.join(names[r] for r in args)})" for i, (op, args) in enumerate(self.steps)]
        assert base <= len(names)
        return "; ".join([*lines, "-> " + ",".join(names[r] for r in self.results)])


@dataclass(frozen=True, slots=True)
class Kernel:
    """kind names the emitter; params is its frozen dataclass; operands are inputs first, then `outputs` outputs.

    The native function is `void name(i64 begin, i64 end, ptr scratch, ptr operand0, ptr operand1, ...)` and does the
    work items begin <= i < end of `work` independent ones. `scratch` is `scratch` bytes private to the thread.

    A cooperative kernel is entered by all threads, shares its work out itself and lets them meet on the way: `begin` is
    the thread's number, `end` the number of threads, and `scratch` the context to call `diptych_barrier(ctx, end)` with.
    """

    kind: str
    params: Any
    operands: tuple[Operand, ...]
    outputs: int = 1
    work: int = 1
    cost: float = 0.0  # rough nanoseconds of the whole on one core: small kernels are not worth a second thread
    scratch: int = 0
    cooperative: bool = False

    def __str__(self) -> str:
        ins = ", ".join(map(str, self.operands[: -self.outputs]))
        outs = ", ".join(map(str, self.operands[-self.outputs :]))
        return f"{self.kind} {self.params} ({ins}) -> ({outs}) work={self.work}"


@dataclass(frozen=True, slots=True)
class Step:
    """One kernel call of a Plan: which kernel, and for each operand (buffer, byte offset)."""

    kernel: int
    args: tuple[tuple[int, int], ...]
    serial: bool  # done by thread 0 alone
    barrier: bool  # all threads meet before this step
    name: str = ""  # the layers it stands for
