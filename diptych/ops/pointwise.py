"""What the elementwise operator files share: type rules by kind of operand, and samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diptych.errors import TypeRuleError
from diptych.ops.base import Arg, Elementwise, S, Sample, broadcast

if TYPE_CHECKING:
    from diptych.ir import TensorType, Value

__all__ = [
    "FLOATS", "INTS", "NUMBERS", "FloatBinary", "FloatUnary", "Grads", "NumberBinary", "NumberUnary", "Values",
    "binary_samples", "broadcast_type", "one_of", "unary_samples",
]  # fmt: skip

FLOATS = ("f32", "f64", "f16")
INTS = ("i8", "u8", "i16", "u16", "i32", "u32", "i64", "u64")
NUMBERS = FLOATS + INTS

Values = tuple["Value", ...]
Grads = tuple["Value | None", ...]


def one_of(t: TensorType, dtypes: tuple[str, ...]) -> None:
    """Refuse an operand whose dtype is not among `dtypes`."""
    if t.dtype not in dtypes:
        raise TypeRuleError(f"operand of dtype {t.dtype}: expected one of {', '.join(dtypes)}; cast it first")


def broadcast_type(dtypes: tuple[str, ...], *types: TensorType) -> TensorType:
    """Operands of one dtype among `dtypes`, shapes broadcast as in NumPy, same dtype out."""
    if len({t.dtype for t in types}) != 1:
        raise TypeRuleError(f"operands must have one dtype, got {', '.join(t.dtype for t in types)}; cast first")
    one_of(types[0], dtypes)
    return types[0].with_shape(broadcast(*(t.shape for t in types)))


class FloatUnary(Elementwise):
    """Float in, same float out."""

    __slots__ = ()

    def infer(self, x: TensorType) -> TensorType:
        one_of(x, FLOATS)
        return x


class NumberUnary(Elementwise):
    """Float or integer in, same dtype out."""

    __slots__ = ()

    def infer(self, x: TensorType) -> TensorType:
        one_of(x, NUMBERS)
        return x


class FloatBinary(Elementwise):
    """Two broadcast operands of one float dtype, same dtype out."""

    __slots__ = ()

    def infer(self, a: TensorType, b: TensorType) -> TensorType:
        return broadcast_type(FLOATS, a, b)


class NumberBinary(Elementwise):
    """Two broadcast operands of one float or integer dtype, same dtype out."""

    __slots__ = ()

    def infer(self, a: TensorType, b: TensorType) -> TensorType:
        return broadcast_type(NUMBERS, a, b)


def unary_samples(low: float = -2.0, high: float = 2.0, grad: bool = True,
                  ints: bool = False) -> tuple[Sample, ...]:  # fmt: skip
    """Shapes that catch what goes wrong in loops: odd, long, rank 0, empty."""
    floats = tuple(S(shape, low=low, high=high, grad=grad) for shape in ((3, 5), (67,), (2, 1, 19), (), (0, 4)))
    more = tuple(S((3, 11), dtype=d, low=-9, high=9, grad=False) for d in ("i32", "i64", "i8")) if ints else ()
    return (*floats, S((2, 9), dtype="f64", low=low, high=high, grad=grad), *more)


def binary_samples(low: float = -2.0, high: float = 2.0, grad: bool = True, ints: tuple[str, ...] = (),
                   b_low: float | None = None, b_high: float | None = None,
                   int_low: int = -9, int_high: int = 9) -> tuple[Sample, ...]:  # fmt: skip
    """Every way of broadcasting two operands; the second may have a range of its own."""
    b_low = low if b_low is None else b_low
    b_high = high if b_high is None else b_high
    shapes = (
        ((3, 5), (3, 5)), ((67,), (67,)), ((2, 3, 17), (17,)), ((2, 3, 17), (3, 1)), ((4, 1), (1, 9)),
        ((2, 5), ()), ((), (5,)), ((), ()), ((0, 3), (1, 3)), ((2, 6, 3, 5), (1, 6, 1, 1)),
    )  # fmt: skip
    floats = tuple(S(Arg(a, "f32", low, high), Arg(b, "f32", b_low, b_high), grad=grad) for a, b in shapes)
    more = tuple(S((3, 11), (11,), dtype=d, low=int_low, high=int_high, grad=False) for d in ints)
    return (*floats, S(Arg((2, 9), "f64", low, high), Arg((9,), "f64", b_low, b_high), grad=grad), *more)
