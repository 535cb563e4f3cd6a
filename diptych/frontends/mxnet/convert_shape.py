"""Operators that move elements: reshapes, slices, concatenation, padding, repetition."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from diptych.errors import FormatError
from diptych.frontends.mxnet.convert import Call, converts
from diptych.frontends.mxnet.convert_slice import cut

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diptych.frontends.mxnet.convert import Result
    from diptych.ir import Value


def reshaped(codes: Sequence[int], shape: Sequence[int], reverse: bool = False) -> tuple[int, ...]:
    """The shape that MXNet's Reshape codes give: 0 copies an extent, -1 infers one, -2 copies the rest, -3 merges two
    extents, -4 splits one into the next two codes.

    >>> reshaped((0, -3, -1), (2, 3, 4, 5)), reshaped((-4, 2, -1, -2), (6, 7))
    ((2, 12, 5), (2, 3, 7))
    """
    codes, shape = list(codes), list(shape)
    if reverse:
        codes.reverse()
        shape.reverse()
    out: list[int] = []
    infer = -1
    source = position = 0
    try:
        while position < len(codes):
            code = codes[position]
            position += 1
            if code == 0:
                out.append(shape[source])
                source += 1
            elif code == -1:
                if infer >= 0:
                    raise FormatError(f"Reshape{tuple(codes)}: only one -1 is allowed")
                infer = len(out)
                out.append(1)
                source += 1
            elif code == -2:
                out.extend(shape[source:])
                source = len(shape)
            elif code == -3:
                out.append(shape[source] * shape[source + 1])
                source += 2
            elif code == -4:
                first, second = codes[position], codes[position + 1]
                position += 2
                extent = shape[source]
                source += 1
                first, second = (
                    (extent // second if first == -1 else first),
                    (extent // first if second == -1 else second),
                )
                if first * second != extent:
                    raise FormatError(f"Reshape{tuple(codes)}: {extent} does not split into {first} x {second}")
                out += [first, second]
            else:
                out.append(code)
                source += 1
    except (IndexError, ZeroDivisionError):
        raise FormatError(f"Reshape codes {tuple(codes)} do not fit the shape {tuple(shape)}") from None
    if infer >= 0:
        rest = prod(out)
        out[infer] = prod(shape) // rest if rest else 0
    if reverse:
        out.reverse()
    if prod(out) != prod(shape):
        raise FormatError(f"Reshape of {tuple(shape)} to {tuple(out)} (codes {tuple(codes)}) changes the element count")
    return tuple(out)


@converts("Reshape")
def _reshape(c: Call) -> Result:
    codes = c.attrs.shape("shape", ())
    target = list(c.attrs.shape("target_shape", ()))
    if codes:
        return c.reshape(c.x, reshaped(codes, c.x.shape, c.attrs.boolean("reverse", False)))
    if target:  # the spelling before 0.9
        if c.attrs.boolean("keep_highest", False):
            target[0] = c.x.shape[0]
        if target.count(0) == 1:
            hole = target.index(0)
            target[hole] = c.x.type.size // max(1, prod(t for t in target if t))
        return c.reshape(c.x, tuple(target))
    if c.shape is not None:
        return c.reshape(c.x, c.shape)
    raise c.fail("neither shape nor target_shape is given")


@converts("_npx_reshape")
def _npx_reshape(c: Call) -> Result:
    if c.attrs.text("order", "C") != "C":
        raise c.fail("only order='C' is supported")
    codes = list(c.attrs.shape("newshape"))
    if not c.attrs.boolean("reverse", False):
        return c.reshape(c.x, _npx_extents(c, list(c.x.shape), codes))
    # From the right: the codes backwards, but for the two factors that follow a -6, which stay behind it.
    turned: list[int] = []
    i = 0
    while i < len(codes):
        size = 3 if codes[i] == -6 else 1
        part = codes[i : i + size]
        turned = ([-6, *part[:0:-1]] if size == 3 else part) + turned
        i += size
    return c.reshape(c.x, _npx_extents(c, list(c.x.shape)[::-1], turned)[::-1])


def _npx_extents(c: Call, shape: list[int], codes: list[int]) -> list[int]:
    """The extents that the codes of npx.reshape give, a -1 left as it is."""
    out: list[int] = []
    source = i = 0
    while i < len(codes):
        code = codes[i]
        i += 1
        if code == -2:
            out.append(shape[source])
        elif code == -3:
            if shape[source] != 1:
                raise FormatError(f"{c.op} (layer {c.layer}): -3 skips an extent of 1, not {shape[source]}")
        elif code == -4:
            out += shape[source:]
            source = len(shape)
        elif code == -5:
            out.append(shape[source] * shape[source + 1])
            source += 1
        elif code == -6:
            first, second = codes[i], codes[i + 1]
            i += 2
            first = shape[source] // second if first == -1 else first
            out += [first, shape[source] // first]
        else:
            out.append(code)
        source += 1
    return out


@converts("_np_reshape")
def _np_reshape(c: Call) -> Result:
    if c.attrs.text("order", "C") != "C":
        raise c.fail("only order='C' is supported")
    return c.reshape(c.x, c.attrs.shape("newshape"))


@converts("Flatten")
def _flatten(c: Call) -> Result:
    return c.reshape(c.x, (c.x.shape[0], prod(c.x.shape[1:])))


@converts("expand_dims")
def _expand_dims(c: Call) -> Result:
    axis = c.axis(c.attrs.integer("axis"), c.x.rank + 1)
    return c.reshape(c.x, (*c.x.shape[:axis], 1, *c.x.shape[axis:]))


@converts("squeeze", "_np_squeeze", "_npi_squeeze")
def _squeeze(c: Call) -> Result:
    axes = c.attrs.shape("axis", None)
    if not c.x.rank and axes is not None and set(axes) <= {0, -1}:  # as in NumPy, a scalar has an axis to leave out
        return c.x
    drop = {c.axis(a) for a in axes} if axes is not None else {i for i, d in enumerate(c.x.shape) if d == 1}
    if any(c.x.shape[i] != 1 for i in drop):
        raise FormatError(f"{c.op} (layer {c.layer}): axes {sorted(drop)} of {c.x.type} are not all 1")
    shape = tuple(d for i, d in enumerate(c.x.shape) if i not in drop)
    return c.reshape(c.x, shape if shape or c.np_shape else (1,))


@converts("reshape_like")
def _reshape_like(c: Call) -> Result:
    x, like = c.x.shape, c.arg(1).shape

    def part(side: str, shape: tuple[int, ...]) -> tuple[int, int]:
        begin, end = c.attrs.optional_integer(f"{side}_begin", None), c.attrs.optional_integer(f"{side}_end", None)
        begin, end = begin or 0, len(shape) if end is None else end
        return (begin + len(shape) if begin < 0 else begin), (end + len(shape) if end < 0 else end)

    (a, b), (p, q) = part("lhs", x), part("rhs", like)
    return c.reshape(c.x, x[:a] + like[p:q] + x[b:])


@converts("transpose", "_np_transpose", "_npi_transpose")
def _transpose(c: Call) -> Result:
    axes = c.attrs.shape("axes", ()) or tuple(reversed(range(c.x.rank)))
    return c.transpose(c.x, [c.axis(a) for a in axes])


@converts("SwapAxis")
def _swap_axis(c: Call) -> Result:
    a, b = c.axis(c.attrs.integer("dim1", 0)), c.axis(c.attrs.integer("dim2", 0))
    perm = list(range(c.x.rank))
    perm[a], perm[b] = perm[b], perm[a]
    return c.transpose(c.x, perm)


# -- joining and splitting ----------------------------------------------------------------------------------------
@converts("Concat", "_rnn_param_concat")
def _concat(c: Call) -> Result:
    axis = c.axis(c.attrs.integer("dim", 1) if c.x.rank > 1 or "dim" in c.attrs else 0)
    return c.emit("concat", *c.inputs, axis=axis) if len(c.inputs) > 1 else c.x


@converts("_npi_concatenate")
def _concatenate(c: Call) -> Result:
    axis = c.attrs.optional_integer("axis", 0)
    parts = [c.reshape(x, (x.type.size,)) for x in c.inputs] if axis is None else list(c.inputs)
    return c.emit("concat", *parts, axis=c.axis(axis or 0, parts[0].rank)) if len(parts) > 1 else parts[0]


@converts("stack", "_npi_stack")
def _stack(c: Call) -> Result:
    axis = c.axis(c.attrs.integer("axis", 0), c.x.rank + 1)
    parts = [c.reshape(x, (*x.shape[:axis], 1, *x.shape[axis:])) for x in c.inputs]
    return c.emit("concat", *parts, axis=axis) if len(parts) > 1 else parts[0]


@converts("Pad")
def _pad(c: Call) -> Result:
    widths = c.attrs.shape("pad_width")
    if len(widths) != 2 * c.x.rank:
        raise FormatError(f"{c.op} (layer {c.layer}): pad_width={widths} needs two entries per axis of {c.x.type}")
    pads = tuple(zip(widths[::2], widths[1::2]))
    mode = c.attrs.text("mode", "constant", ("constant", "edge", "reflect"))
    return c.emit("pad", c.x, pads=pads, mode=mode, value=c.attrs.real("constant_value", 0.0))


@converts("tile")
def _tile(c: Call) -> Result:
    reps = c.attrs.shape("reps")
    if any(r < (0 if c.np_shape else 1) for r in reps):
        raise FormatError(f"{c.op} (layer {c.layer}): reps={reps} must be positive")
    x = c.x
    if len(reps) > x.rank:
        x = c.reshape(x, (1,) * (len(reps) - x.rank) + x.shape)
    reps = (1,) * (x.rank - len(reps)) + reps
    return x if all(r == 1 for r in reps) else c.emit("tile", x, reps=reps)


@converts("repeat", "_npi_repeats")
def _repeat(c: Call) -> Result:
    axis = c.attrs.optional_integer("axis", None)
    x = c.x
    if axis is None:
        x, axis = c.reshape(x, (x.type.size,)), 0
    repeats = c.attrs.shape("repeats")
    if len(repeats) != 1:
        raise c.fail(f"repeats={repeats}: only one number for all elements is supported")
    return c.emit("repeat", x, repeats=repeats[0], axis=c.axis(axis, x.rank))


@converts("reverse", "_npi_flip")
def _reverse(c: Call) -> Result:
    axes = c.attrs.shape("axis", ()) or tuple(range(c.x.rank))
    return c.emit("flip", c.x, axes=tuple(sorted(c.axis(a) for a in axes)))


@converts("broadcast_axis")
def _broadcast_axis(c: Call) -> Result:
    shape = list(c.x.shape)
    for axis, size in zip(c.attrs.shape("axis", ()), c.attrs.shape("size", ())):
        shape[c.axis(axis)] = size
    return c.g.broadcast_to(c.x, shape)


@converts("broadcast_to", "_npi_broadcast_to")
def _broadcast_to(c: Call) -> Result:
    shape = c.attrs.shape("shape")
    offset = len(shape) - c.x.rank
    if c.op == "broadcast_to":  # 0 copies the extent
        shape = tuple(c.x.shape[i - offset] if d == 0 and i >= offset else d for i, d in enumerate(shape))
    else:
        shape = tuple(c.x.shape[i - offset] if d == -2 and i >= offset else d for i, d in enumerate(shape))
    return c.g.broadcast_to(c.x, shape)


@converts("broadcast_like")
def _broadcast_like(c: Call) -> Result:
    like = c.arg(1).shape
    lhs, rhs = c.attrs.shape("lhs_axes", None), c.attrs.shape("rhs_axes", None)
    if lhs is None or rhs is None:
        return c.g.broadcast_to(c.x, like)
    if len(lhs) != len(rhs) or not lhs:
        raise FormatError(f"{c.op} (layer {c.layer}): lhs_axes={lhs} and rhs_axes={rhs} must be as many, one at least")
    shape = list(c.x.shape)
    for a, b in zip(lhs, rhs):
        shape[c.axis(a)] = like[c.axis(b, len(like))]
    return c.g.broadcast_to(c.x, shape)


def _check_block(c: Call) -> None:
    if c.attrs.integer("block_size") < 1 or 0 in c.x.shape:
        raise FormatError(f"{c.op} (layer {c.layer}): block_size={c.attrs.integer('block_size')} of {c.x.type} must be positive, "
                          "and no extent 0")  # fmt: skip


@converts("depth_to_space")
def _depth_to_space(c: Call) -> Result:
    _check_block(c)
    return c.emit("depth_to_space", c.x, block=c.attrs.integer("block_size"), mode="DCR")


@converts("space_to_depth")
def _space_to_depth(c: Call) -> Result:
    _check_block(c)
    return c.emit("space_to_depth", c.x, block=c.attrs.integer("block_size"))


@converts("diag", "_np_diag")
def _diag(c: Call) -> Result:
    k = c.attrs.integer("k", 0)
    if c.x.rank != 1:
        return diagonal_of(c, k, c.attrs.integer("axis1", 0), c.attrs.integer("axis2", 1))
    n = c.x.shape[0]
    size = n + abs(k)
    row = c.reshape(c.x, (n, 1))
    row = c.emit("pad", row, pads=((max(-k, 0), max(k, 0)), (0, 0)), mode="constant", value=0.0)
    return c.emit("mul", row, c.const(np.eye(size, k=k), c.x.dtype))


def diagonal_of(c: Call, k: int, axis1: int, axis2: int) -> Value:
    """The elements whose indices along two axes differ by k, along a last axis that takes their place."""
    a, b = c.axis(axis1), c.axis(axis2)
    if a == b:
        raise FormatError(f"{c.op} (layer {c.layer}): axis1 and axis2 are both {a}")
    rest = [i for i in range(c.x.rank) if i not in (a, b)]
    rows, columns = c.x.shape[a], c.x.shape[b]
    first, count = (0, min(rows, columns - k)) if k >= 0 else (-k, min(rows + k, columns))
    if count < 1:
        raise FormatError(f"{c.op} (layer {c.layer}): {c.x.type} has no diagonal {k} in axes {a} and {b}")
    flat = c.reshape(c.transpose(c.x, [*rest, a, b]), (*(c.x.shape[i] for i in rest), rows * columns))
    start = first * columns + first + k
    return cut(c, flat, flat.rank - 1, start, start + (count - 1) * (columns + 1) + 1, columns + 1)


@converts("_np_diagonal")
def _np_diagonal(c: Call) -> Result:
    return diagonal_of(c, c.attrs.integer("offset", 0), c.attrs.integer("axis1", 0), c.attrs.integer("axis2", 1))


@converts("_np_trace")
def _np_trace(c: Call) -> Result:
    k, a, b = c.attrs.integer("offset", 0), c.attrs.integer("axis1", 0), c.attrs.integer("axis2", 1)
    rows, columns = c.x.shape[c.axis(a)], c.x.shape[c.axis(b)]
    if c.axis(a) != c.axis(b) and (k >= columns or -k >= rows or not c.x.type.size):  # the sum of nothing
        return c.full([d for i, d in enumerate(c.x.shape) if i not in (c.axis(a), c.axis(b))], 0.0, c.x.dtype)
    y = diagonal_of(c, k, a, b)
    return c.emit("sum", y, axes=(y.rank - 1,), keepdims=False)
