"""Single values in the text form of a Graph: attributes, scalars, digests of arrays."""

from __future__ import annotations

import ast
import hashlib
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.errors import GraphError
from diptych.ir.types import TensorType, numpy_dtype

if TYPE_CHECKING:
    from diptych.ir.graph import Array, Op

__all__ = ["attribute_text", "digest", "literal", "scalar_text", "scalar_value"]


def attribute_text(op: Op, name: str, value: Any) -> str:
    """An attribute as a Python literal; GraphError where it is not made of plain values."""
    if type(value) is tuple:
        inner = ", ".join(attribute_text(op, name, v) for v in value)
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if value is None or type(value) in (bool, int, float, str):
        return repr(value)
    raise GraphError(
        f"{op.name}: attribute {name} holds a {type(value).__name__}; attributes are made of None, bool, int, float, "
        "str and tuples of them"
    )


def scalar_text(array: Array, dtype: str) -> str:
    """Exactly this value: decimal where that reads back to the same bits, else hexadecimal."""
    if dtype == "bool" or dtype[0] in "iu":
        return repr(array.item())
    if dtype == "bf16" or np.isnan(array):
        return f"bits:{int.from_bytes(array.astype(array.dtype.newbyteorder('>')).tobytes(), 'big'):#x}"
    short = str(array[()])
    return short if array.dtype.type(float(short)) == array[()] else float(array).hex()


def digest(array: Array, t: TensorType) -> str:
    """16 hexadecimal digits that stand for dtype, shape and bytes."""
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8)
    found = hashlib.sha256(f"{t} ".encode())
    found.update(little.data)
    return found.hexdigest()[:16]


def literal(node: ast.expr) -> Any:
    """As ast.literal_eval, narrowed to what attributes are made of, plus inf and nan."""
    if isinstance(node, ast.Tuple):
        return tuple(literal(e) for e in node.elts)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = None if isinstance(node.operand, (ast.Tuple, ast.UnaryOp)) else literal(node.operand)
        if type(value) not in (int, float):
            raise ValueError("only a number can be negative")
        return -value  # type: ignore[operator]
    if isinstance(node, ast.Name) and node.id in ("inf", "nan"):
        return float(node.id)
    if isinstance(node, ast.Constant) and (node.value is None or type(node.value) in (bool, int, float, str)):
        if type(node.value) is int and node.value >= 1 << 64:
            raise ValueError("an integer past 64 bits")
        return node.value
    raise ValueError(f"{type(node).__name__} is not a plain value")


def scalar_value(word: str, dtype: str) -> Array:
    """The rank-0 array that `scalar_text` wrote as `word`; ValueError, KeyError or OverflowError if none."""
    storage = numpy_dtype(dtype)
    if word.startswith("bits:0x"):
        raw = int(word[7:], 16).to_bytes(storage.itemsize, "big")
        return np.frombuffer(raw, storage.newbyteorder(">")).astype(storage).reshape(())
    if dtype == "bool":
        return np.asarray({"True": True, "False": False}[word])
    if dtype[0] in "iu":
        number = int(word)
        if not np.iinfo(storage).min <= number <= np.iinfo(storage).max:
            raise ValueError("out of range")
        return np.asarray(number, storage)
    if dtype == "bf16":
        raise ValueError("bits:0x... expected")
    value = float.fromhex(word) if "0x" in word else float(word)
    with np.errstate(over="ignore"):
        array = np.asarray(value, storage)
    if math.isfinite(value) and not np.isfinite(array):
        raise ValueError("out of range")
    return array
