"""What operators refuse, and that the message says what is wrong."""

from __future__ import annotations

import pytest

from diptych.errors import TypeRuleError
from diptych.ir import Op, TensorType
from diptych.ops import (
    Add,
    All,
    ArgMax,
    BroadcastTo,
    Cast,
    Celu,
    Clip,
    Concat,
    CumSum,
    DepthToSpace,
    Equal,
    Exp,
    Flip,
    Gather,
    GatherNd,
    Gelu,
    LeftShift,
    LogicalAnd,
    Max,
    Mean,
    NormL2,
    OneHot,
    Pad,
    Prelu,
    Repeat,
    Reshape,
    ScatterAdd,
    ScatterNd,
    SequenceMask,
    Slice,
    SliceUpdate,
    Softplus,
    SpaceToDepth,
    Sum,
    Take,
    Tile,
    Transpose,
    Where,
)  # fmt: skip


def t(*shape: int, dtype: str = "f32") -> TensorType:
    return TensorType(shape, dtype)


def i(*shape: int) -> TensorType:
    return TensorType(shape, "i64")


REFUSED: list[tuple[Op, tuple[TensorType, ...], str]] = [
    (Add(), (t(2), t(2, dtype="f64")), "one dtype, got f32, f64"),
    (Add(), (t(2), t(3)), r"\(2,\) and \(3,\) do not broadcast"),
    (Add(), (t(2, dtype="bool"), t(2, dtype="bool")), "dtype bool"),
    (Add(), (t(2, dtype="bf16"), t(2, dtype="bf16")), "cast it first"),
    (Exp(), (i(2),), "dtype i64"),
    (Equal(), (t(2), i(2)), "one dtype"),
    (LogicalAnd(), (t(2), t(2)), "expected one of bool"),
    (LeftShift(), (t(2), t(2)), "dtype f32"),
    (Where(), (t(2), t(2), t(2)), "expected one of bool"),
    (Where(), (t(2, dtype="bool"), t(2), i(2)), "two choices"),
    (Cast("f8"), (t(2),), "'f8' is not a dtype"),
    (Cast("f32"), (t(2, dtype="bf16"),), "use Builder.cast"),
    (Cast("f32", "bf16"), (t(2, dtype="u16"),), "use Builder.cast"),
    (Clip(float("nan"), None), (t(2),), "NaN"),
    (Gelu("fast"), (t(2),), "'none' or 'tanh'"),
    (Softplus(beta=0.0), (t(2),), "beta=0"),
    (Celu(alpha=0.0), (t(2),), "alpha=0"),
    (Prelu(), (t(2), t(2, 2)), "slope of shape"),
    (Sum((2,)), (t(2, 3),), "axis 2 is out of range for rank 2"),
    (Sum((1, -1)), (t(2, 3),), "twice"),
    (Max((1,)), (t(2, 0),), "of nothing"),
    (NormL2((0,)), (t(0),), "of nothing"),
    (Mean((0,)), (i(2),), "dtype i64"),
    (All((0,)), (t(2),), "expected one of bool"),
    (ArgMax(0), (t(0, 2),), "empty"),
    (CumSum(1), (t(2),), "out of range"),
    (Reshape((4,)), (t(2, 3),), "6 elements"),
    (Transpose((0, 0)), (t(2, 3),), "not an order of the 2 axes"),
    (BroadcastTo((2,)), (t(3, 2),), "does not broadcast"),
    (BroadcastTo((1, 2)), (t(3, 2),), "does not broadcast"),
    (Slice((0,), (4,), (1,)), (t(3),), "elements 0 to 3"),
    (Slice((0,), (3,), (0,)), (t(3),), "goes nowhere"),
    (Slice((0,), (3,), (1,)), (t(3, 3),), "one entry for each"),
    (Concat(0), (t(2, 3), t(2, 4)), "more than axis 0"),
    (Concat(0), (t(2), i(2)), "one dtype"),
    (Pad(((0, 0),)), (t(2, 3),), "a pair"),
    (Pad(((0, -1),)), (t(2),), "a pair"),
    (Pad(((2, 0),), "reflect"), (t(2),), "reflection by"),
    (Pad(((1, 0),), "edge"), (t(0),), "no edge"),
    (Pad(((1, 0),), "wrap"), (t(2),), "mode='wrap'"),
    (Tile((-1,)), (t(2),), "negative"),
    (Repeat(-1, 0), (t(2),), "negative"),
    (Flip((1,)), (t(2),), "out of range"),
    (DepthToSpace(2), (t(1, 3, 2, 2),), "not a multiple"),
    (DepthToSpace(2, "XYZ"), (t(1, 4, 2, 2),), "mode='XYZ'"),
    (SpaceToDepth(2), (t(1, 1, 3, 2),), "multiples of block"),
    (Take(0), (t(2), t(2)), "dtype f32"),
    (Take(0), (t(0), i(2)), "nothing to point at"),
    (Take(0, "skip"), (t(2), i(2)), "mode='skip'"),
    (Gather(1), (t(2, 3), i(1, 3)), "axis 1 only"),
    (GatherNd(), (t(2), i(1, 2)), "up to 1 coordinates"),
    (ScatterNd((3,)), (t(3), i(2, 1)), "updates"),
    (ScatterAdd(0), (t(2, 3), i(4, 4), t(4, 4)), "exceed"),
    (SliceUpdate((1,), (1,)), (t(3), t(3)), "elements 1 to 3"),
    (OneHot(-1), (i(2),), "depth=-1"),
    (SequenceMask(), (t(5, 3), i(5)), "one length for each"),
]


@pytest.mark.parametrize(("op", "types", "message"), REFUSED, ids=[f"{n}-{r[0].name}" for n, r in enumerate(REFUSED)])
def test_refused(op: Op, types: tuple[TensorType, ...], message: str) -> None:
    with pytest.raises(TypeRuleError, match=message):
        op.infer(*types)
