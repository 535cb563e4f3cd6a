"""Small checks and graph fragments that several operator files share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.errors import TypeRuleError

if TYPE_CHECKING:
    from diptych.ir import TensorType, Value
    from diptych.ops.build import Builder

__all__ = ["along_axis", "floats", "narrowed", "per_axis", "same_dtype", "sum_to", "widened"]

_FLOATS = ("f32", "f64", "f16")


def floats(*types: TensorType | None) -> None:
    """Operands must share one floating dtype that can be computed with (bf16 is storage: cast it first)."""
    same_dtype(*types)
    for t in types:
        if t is not None and t.dtype not in _FLOATS:
            raise TypeRuleError(f"operands must be of dtype {', '.join(_FLOATS)}, got {t}; cast first")


def same_dtype(*types: TensorType | None) -> None:
    """Operands must share one dtype."""
    dtypes = [t.dtype for t in types if t is not None]
    if len(set(dtypes)) > 1:
        raise TypeRuleError(f"operands must have one dtype, got {', '.join(dtypes)}")


def per_axis(what: str, values: tuple[int, ...], rank: int, low: int) -> None:
    """`values` must hold one integer >= low for each of `rank` axes."""
    if len(values) != rank or any(v < low for v in values):
        raise TypeRuleError(f"{what}={values!r}: {rank} integers >= {low} expected")


def widened(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """f16 arrays as f32 (sums in half precision lose too much); anything else as it is."""
    return array.astype(np.float32) if array.dtype == np.float16 else array


def narrowed(array: np.ndarray[Any, Any], like: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """`array` in the dtype of `like`: what undoes `widened`."""
    return array.astype(like.dtype, copy=False)


def sum_to(g: Builder, x: Value, shape: tuple[int, ...]) -> Value:
    """Undo broadcasting: sum `x` down to `shape` (the gradient of a broadcast operand)."""
    lead = x.rank - len(shape)
    axes = [*range(lead), *(i + lead for i, d in enumerate(shape) if d == 1 and x.shape[i + lead] != 1)]
    return g.reshape(g.sum(x, axes) if axes else x, shape)


def along_axis(g: Builder, x: Value, matrix: np.ndarray[Any, Any], axis: int) -> Value:
    """Multiply one axis of `x` by a constant matrix[old, new]: how linear resampling passes gradients back."""
    perm = [i for i in range(x.rank) if i != axis] + [axis]
    back = [perm.index(i) for i in range(x.rank)]
    rows = g.reshape(g.transpose(x, perm), (-1, x.shape[axis]))
    rows = g.matmul(rows, g.constant(matrix, x.dtype))
    return g.transpose(g.reshape(rows, [x.shape[i] for i in perm[:-1]] + [matrix.shape[1]]), back)
