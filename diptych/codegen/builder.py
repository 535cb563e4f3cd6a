"""Fn: a typed builder for one native function over llvmlite: loops, variables, loads and stores of scalars and vectors."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

from llvmlite import ir

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from diptych.targets.base import Target

__all__ = ["BOOL", "I8", "I32", "I64", "PTR", "VOID", "Fn", "Index", "Val", "Var", "memory_type", "register_type", "undefined"]

I1, I8, I16, I32, I64 = (ir.IntType(n) for n in (1, 8, 16, 32, 64))
BOOL = I1
PTR = ir.PointerType()
VOID = ir.VoidType()
_F16, _F32, _F64 = ir.HalfType(), ir.FloatType(), ir.DoubleType()

# bf16 lives in registers as its 16 bits: conversions are spelled out, so that no run-time library call is needed.
_REGISTER: dict[str, ir.Type] = {
    "f32": _F32, "f64": _F64, "f16": _F16, "bf16": I16, "bool": I1,
    "i8": I8, "u8": I8, "i16": I16, "u16": I16, "i32": I32, "u32": I32, "i64": I64, "u64": I64,
}  # fmt: skip

Index: TypeAlias = ir.Value | int


@dataclass(frozen=True, slots=True)
class Val:
    """An LLVM value with the dtype it stands for; lanes == 1 is a scalar, else a vector of that many."""

    ir: Any
    dtype: str
    lanes: int = 1


# Types and constants belong to no module and keep their text: made once, they need not be written out again and again,
# which was a third of the time it takes to write a kernel.
@cache
def register_type(dtype: str, lanes: int = 1) -> ir.Type:
    """How a value is held in a register (bool is i1 there)."""
    t = _REGISTER[dtype]
    return t if lanes == 1 else ir.VectorType(t, lanes)


@cache
def memory_type(dtype: str, lanes: int = 1) -> ir.Type:
    """How a value is held in memory (bool is one byte there)."""
    t = I8 if dtype == "bool" else _REGISTER[dtype]
    return t if lanes == 1 else ir.VectorType(t, lanes)


@lru_cache(1 << 16)
def _index(i: int) -> ir.Constant:
    return ir.Constant(I64, i)


@lru_cache(1 << 12)
def _constant(dtype: str, lanes: int, value: float | int, text: str) -> ir.Constant:
    """A value in all lanes; `text` tells 0.0 from -0.0."""
    return ir.Constant(register_type(dtype, lanes), value if lanes == 1 else [value] * lanes)


@cache
def undefined(dtype: str, lanes: int) -> ir.Constant:
    """Lanes that nobody reads."""
    return ir.Constant(register_type(dtype, lanes), ir.Undefined)


class Var:
    """A mutable local of the generated function; LLVM promotes it to a register."""

    __slots__ = ("_fn", "_slot", "type")

    def __init__(self, fn: Fn, type_: ir.Type, init: ir.Value | None = None) -> None:
        self._fn = fn
        self.type = type_
        with fn.b.goto_entry_block():
            self._slot = fn.b.alloca(type_)
        if init is not None:
            self.set(init)

    def get(self) -> ir.Value:
        return self._fn.b.load(self._slot, typ=self.type)

    def set(self, value: ir.Value) -> None:
        self._fn.b.store(value, self._slot)


class Fn:
    """One function being written. `b` is the llvmlite IRBuilder, for what has no helper here.

    Pointers are byte addresses of buffers; `at(p, i, dtype)` addresses element i. Index arithmetic folds constants.
    """

    def __init__(self, module: ir.Module, name: str, params: Sequence[tuple[str, ir.Type]], target: Target,
                 result: ir.Type = VOID, internal: bool = False) -> None:  # fmt: skip
        self.module = module
        self.target = target
        self.function = ir.Function(module, ir.FunctionType(result, [t for _, t in params]), name)
        if internal:
            self.function.linkage = "internal"
        self.function.attributes.add("nounwind")
        self.args: dict[str, ir.Value] = {}
        for arg, (arg_name, t) in zip(self.function.args, params, strict=True):
            arg.name = arg_name
            self.args[arg_name] = arg
            if isinstance(t, ir.PointerType):
                arg.add_attribute("noalias")
        entry = self.function.append_basic_block("entry")
        body = self.function.append_basic_block("body")
        self.b = ir.IRBuilder(entry)
        self.b.branch(body)
        self.b.position_at_end(body)

    # -- index arithmetic -------------------------------------------------------------------------------------
    def index(self, i: Index) -> ir.Value:
        return _index(i) if isinstance(i, int) else i

    @staticmethod
    def _const(i: Index) -> int | None:
        if isinstance(i, int):
            return i
        return i.constant if isinstance(i, ir.Constant) and isinstance(i.constant, int) else None

    def iadd(self, a: Index, b: Index) -> ir.Value:
        ca, cb = self._const(a), self._const(b)
        if ca is not None and cb is not None:
            return self.index(ca + cb)
        if ca == 0:
            return self.index(b)
        if cb == 0:
            return self.index(a)
        return self.b.add(self.index(a), self.index(b), flags=("nsw",))

    def isub(self, a: Index, b: Index) -> ir.Value:
        ca, cb = self._const(a), self._const(b)
        if ca is not None and cb is not None:
            return self.index(ca - cb)
        if cb == 0:
            return self.index(a)
        return self.b.sub(self.index(a), self.index(b), flags=("nsw",))

    def imul(self, a: Index, b: Index) -> ir.Value:
        ca, cb = self._const(a), self._const(b)
        if ca is not None and cb is not None:
            return self.index(ca * cb)
        if ca == 0 or cb == 0:
            return self.index(0)
        if ca == 1:
            return self.index(b)
        if cb == 1:
            return self.index(a)
        return self.b.mul(self.index(a), self.index(b), flags=("nsw",))

    def idiv(self, a: Index, b: int) -> ir.Value:
        """Quotient of non-negative a by a constant."""
        ca = self._const(a)
        if ca is not None:
            return self.index(ca // b)
        return self.index(a) if b == 1 else self.b.udiv(self.index(a), self.index(b))

    def imod(self, a: Index, b: int) -> ir.Value:
        """Remainder of non-negative a by a constant."""
        ca = self._const(a)
        if ca is not None:
            return self.index(ca % b)
        return self.index(0) if b == 1 else self.b.urem(self.index(a), self.index(b))

    def imin(self, a: Index, b: Index) -> ir.Value:
        a, b = self.index(a), self.index(b)
        return self.b.select(self.b.icmp_signed("<", a, b), a, b)

    def imax(self, a: Index, b: Index) -> ir.Value:
        a, b = self.index(a), self.index(b)
        return self.b.select(self.b.icmp_signed(">", a, b), a, b)

    def dot(self, indices: Sequence[Index], strides: Sequence[int]) -> ir.Value:
        """sum(index * stride)."""
        total: Index = 0
        for i, s in zip(indices, strides, strict=True):
            total = self.iadd(total, self.imul(i, s))
        return self.index(total)

    def unravel(self, flat: Index, extents: Sequence[int]) -> list[ir.Value]:
        """Row-major multi-index of a flat one."""
        out: list[ir.Value] = []
        for e in reversed(extents[1:]):
            out.append(self.imod(flat, e))
            flat = self.idiv(flat, e)
        if extents:
            out.append(self.index(flat))
        return out[::-1]

    # -- control flow -----------------------------------------------------------------------------------------
    @contextmanager
    def loop(self, start: Index, stop: Index, step: int = 1, name: str = "i") -> Iterator[ir.Value]:
        """`for i in range(start, stop, step)`; step > 0."""
        b = self.b
        start, stop = self.index(start), self.index(stop)
        before = b.block
        head = self.function.append_basic_block(name + ".head")
        body = self.function.append_basic_block(name + ".body")
        done = self.function.append_basic_block(name + ".done")
        b.branch(head)
        b.position_at_end(head)
        i = b.phi(I64, name=name)
        i.add_incoming(start, before)
        b.cbranch(b.icmp_signed("<", i, stop), body, done)
        b.position_at_end(body)
        yield i
        i.add_incoming(b.add(i, self.index(step), flags=("nsw",)), b.block)
        b.branch(head)
        b.position_at_end(done)

    @contextmanager
    def if_(self, condition: ir.Value) -> Iterator[None]:
        with self.b.if_then(condition):
            yield

    def var(self, dtype_or_type: str | ir.Type, init: ir.Value | None = None, lanes: int = 1) -> Var:
        t = register_type(dtype_or_type, lanes) if isinstance(dtype_or_type, str) else dtype_or_type
        return Var(self, t, init)

    def finish(self, value: ir.Value | None = None) -> ir.Function:
        if value is None:
            self.b.ret_void()
        else:
            self.b.ret(value)
        return self.function

    # -- memory -----------------------------------------------------------------------------------------------
    def at(self, pointer: ir.Value, i: Index, dtype: str = "f32") -> ir.Value:
        """Address of element i."""
        if self._const(i) == 0:
            return pointer
        return self.b.gep(pointer, [self.index(i)], inbounds=True, source_etype=memory_type(dtype))

    def load(self, pointer: ir.Value, dtype: str = "f32", lanes: int = 1) -> Val:
        """Load from an address (element alignment is assumed, no more)."""
        from diptych.ir.types import itemsize

        t = memory_type(dtype, lanes)
        v = self.b.load(pointer, typ=t, align=itemsize(dtype))
        if dtype == "bool":
            zero = ir.Constant(t, 0 if lanes == 1 else [0] * lanes)
            v = self.b.icmp_unsigned("!=", v, zero)
        return Val(v, dtype, lanes)

    def store(self, value: Val, pointer: ir.Value) -> None:
        from diptych.ir.types import itemsize

        v = value.ir
        if value.dtype == "bool":
            v = self.b.zext(v, memory_type("bool", value.lanes))
        self.b.store(v, pointer, align=itemsize(value.dtype))

    def prefetch(self, pointer: ir.Value, locality: int = 3, write: bool = False) -> None:
        """Ask for the cache line at an address (which need not be valid), to read or to `write` it: locality 3 into L1,
        2 into L2."""
        args = [pointer, *(ir.Constant(I32, i) for i in (int(write), locality, 1))]
        self.intrinsic("llvm.prefetch.p0", VOID, args)

    def forget(self, pointer: ir.Value) -> None:
        """Let LLVM take nothing for known of what lies behind an address: it is loaded again, not held in registers that
        spill. No instruction comes of it."""
        kind = ir.FunctionType(VOID, [PTR])
        self.b.asm(kind, "", "r,~{memory}", [pointer], side_effect=True)

    # -- values -----------------------------------------------------------------------------------------------
    def const(self, x: float | int | bool, dtype: str = "f32", lanes: int = 1) -> Val:
        """A constant of any dtype but bf16, splat over the lanes."""
        c = float(x) if dtype[0] == "f" else int(x)
        return Val(_constant(dtype, lanes, c, repr(c)), dtype, lanes)

    def splat(self, value: Val, lanes: int) -> Val:
        """A scalar in every lane."""
        if value.lanes == lanes:
            return value
        assert value.lanes == 1
        if isinstance(value.ir, ir.Constant):
            return Val(ir.Constant(register_type(value.dtype, lanes), [value.ir.constant] * lanes), value.dtype, lanes)
        undef = undefined(value.dtype, lanes)
        one = self.b.insert_element(undef, value.ir, _constant("i32", 1, 0, "0"))
        return Val(self.b.shuffle_vector(one, undef, _constant("i32", lanes, 0, "0")), value.dtype, lanes)

    def intrinsic(self, name: str, result: ir.Type, args: Sequence[ir.Value]) -> ir.Value:
        """Call an LLVM intrinsic by its full name, declaring it on first use."""
        fn = self.module.globals.get(name)
        if fn is None:
            fn = ir.Function(self.module, ir.FunctionType(result, [a.type for a in args]), name)
        return self.b.call(fn, list(args))

    def fma(self, a: Val, b: Val, c: Val) -> Val:
        """a * b + c, rounded once."""
        suffix = {"f32": "f32", "f64": "f64"}[a.dtype]
        name = f"llvm.fma.{suffix}" if a.lanes == 1 else f"llvm.fma.v{a.lanes}{suffix}"
        return Val(self.intrinsic(name, register_type(a.dtype, a.lanes), [a.ir, b.ir, c.ir]), a.dtype, a.lanes)
