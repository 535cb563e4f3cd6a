"""Operators of the NumPy-like interface (mx.np) that the classic families do not cover already."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.errors import FormatError
from diptych.frontends.mxnet.attributes import parse_value
from diptych.frontends.mxnet.convert import Call, converts
from diptych.frontends.mxnet.convert_elementwise import is_float, promoted
from diptych.frontends.mxnet.convert_slice import cut

if TYPE_CHECKING:
    from diptych.frontends.mxnet.convert import Result
    from diptych.ir import Value


def _axes(c: Call) -> tuple[int, ...]:
    given = c.attrs.shape("axis", None)
    return tuple(range(c.x.rank)) if given is None else tuple(sorted(c.axis(a) for a in given))


def _floating(c: Call) -> tuple[Value, str]:
    """The operand as floats, and the element type of the result: the attribute's, else float32 for integers."""
    wanted = c.dtype("dtype", c.x.dtype if is_float(c.x) else "f32")
    return c.cast(c.x, _summed_in(c.x.dtype, wanted)), wanted


def _summed_in(given: str, wanted: str) -> str:
    """The float type to add up in: the wider one, but float32 for float16."""
    return "f64" if "f64" in (given, wanted) else "f32"


def _no_initial(c: Call) -> None:
    if c.attrs.optional_real("initial") is not None:
        raise c.fail("initial is not supported", "add it outside of the operator")


@converts("_npi_mean")
def _mean(c: Call) -> Result:
    _no_initial(c)
    x, wanted = _floating(c)
    if wanted[0] in "iu":  # as in NumPy, the sum wraps around in that type
        over: dict[str, Any] = {"axes": _axes(c), "keepdims": c.attrs.boolean("keepdims", False)}
        total = c.emit("sum", c.cast(c.x, wanted), **over)
        count = c.x.type.size // max(1, total.type.size)
        exact = c.emit("div", c.cast(total, "f64"), float(max(1, count)))
        # Its gradient is that of the mean of real numbers: 1 / count would be 0 among integers.
        smooth = c.emit("mean", c.cast(c.x, "f64"), **over)
        return c.cast(c.emit("surrogate", smooth, exact, c.full(smooth.shape, 1.0, "f64"), chain=True), wanted)
    return c.cast(c.emit("mean", x, axes=_axes(c), keepdims=c.attrs.boolean("keepdims", False)), wanted)


def _variance(c: Call) -> tuple[Value, str]:
    x, wanted = _floating(c)
    return c.emit("var", x, axes=_axes(c), keepdims=c.attrs.boolean("keepdims", False), ddof=c.attrs.integer("ddof", 0)), wanted


@converts("_npi_var")
def _var(c: Call) -> Result:
    return c.cast(*_variance(c))


@converts("_npi_std")
def _std(c: Call) -> Result:
    variance, wanted = _variance(c)
    return c.cast(c.emit("sqrt", variance), wanted)


def _folded(op: str, name: str) -> None:
    def convert(c: Call) -> Result:
        _no_initial(c)
        wanted = c.dtype("dtype", "i64" if c.x.dtype == "bool" and op in ("sum", "prod") else c.x.dtype)
        if op in ("sum", "prod") and is_float(c.x) and wanted[0] in "fb":
            x = c.cast(c.x, _summed_in(c.x.dtype, wanted))
        else:
            x = c.cast(c.x, "i64" if wanted == "bool" else wanted)
        axes = _axes(c)
        return c.cast(c.emit(op, x, axes=axes, keepdims=c.attrs.boolean("keepdims", False)), wanted) if axes else c.cast(x, wanted)

    converts(name)(convert)


for _name, _op in {"_np_sum": "sum", "_np_prod": "prod", "_np_max": "max", "_np_min": "min"}.items():
    _folded(_op, _name)


def _truth(op: str, name: str) -> None:
    def convert(c: Call) -> Result:
        return c.emit(op, c.truth(c.x), axes=_axes(c), keepdims=c.attrs.boolean("keepdims", False))

    converts(name)(convert)


_truth("any", "_np_any")
_truth("all", "_np_all")


def _test(op: str, name: str) -> None:
    def convert(c: Call) -> Result:
        return c.emit(op, c.x) if is_float(c.x) else c.full(c.x.shape, float(op == "is_finite"), "bool")

    converts(name)(convert)


for _name in ("is_nan", "is_inf", "is_finite"):
    _test(_name, f"_npi_{_name.replace('_', '')}")


def _bitwise(which: str) -> None:
    def convert(c: Call) -> Result:
        return c.emit(f"bitwise_{which}", *promoted(c, c.arg(0), c.arg(1)))

    def scalar(c: Call) -> Result:
        return c.emit(f"bitwise_{which}", c.x, c.g.scalar(int(c.attrs.real("scalar", 0.0)), c.x.dtype))

    converts(f"_npi_bitwise_{which}")(convert)
    converts(f"_npi_bitwise_{which}_scalar")(scalar)


for _name in ("and", "or", "xor"):
    _bitwise(_name)


@converts("_npi_bitwise_not")
def _bitwise_not(c: Call) -> Result:
    return c.emit("bitwise_not", c.x)


@converts("_npi_arctan2")
def _arctan2(c: Call) -> Result:
    return c.emit("atan2", c.arg(0), c.arg(1))


@converts("_npi_where_lscalar", "_npi_where_rscalar")
def _where_scalar(c: Call) -> Result:
    x = c.arg(1)
    scalar = c.g.scalar(c.attrs.real("scalar", 0.0) if is_float(x) else int(c.attrs.real("scalar", 0.0)), x.dtype)
    first, second = (scalar, x) if c.op == "_npi_where_lscalar" else (x, scalar)
    return c.emit("where", c.truth(c.x), first, second)


@converts("_npi_where_scalar2")
def _where_scalars(c: Call) -> Result:
    return c.g.where(c.truth(c.x), c.g.scalar(c.attrs.real("x", 0.0)), c.g.scalar(c.attrs.real("y", 0.0)))


@converts("_npi_full_like")
def _full_like(c: Call) -> Result:
    return c.full(c.x.shape, c.attrs.real("fill_value"), c.dtype("dtype", c.x.dtype))


@converts("_npi_identity")
def _identity_matrix(c: Call) -> Result:
    return c.const(np.eye(c.attrs.shape("shape")[0]), c.dtype())


@converts("_npi_tril")
def _tril(c: Call) -> Result:
    if c.x.rank < 2:
        raise FormatError(f"{c.op} (layer {c.layer}): {c.x.type} is no matrix")
    keep = np.tril(np.ones(c.x.shape[-2:], bool), c.attrs.integer("k", 0))
    return c.g.where(c.const(keep, "bool"), c.x, c.g.scalar(0, c.x.dtype))


# -- joining, moving ----------------------------------------------------------------------------------------------
def _at_least(c: Call, x: Value, rank: int) -> Value:
    """NumPy's atleast_2d and atleast_3d."""
    if x.rank >= rank:
        return x
    if rank == 3 and x.rank:
        return c.reshape(x, (1, *x.shape, 1) if x.rank == 1 else (*x.shape, 1))
    return c.reshape(x, (1,) * (rank - x.rank) + x.shape)


@converts("_np_atleast_1d", "_np_atleast_2d", "_np_atleast_3d")
def _atleast(c: Call) -> Result:
    return tuple(_at_least(c, x, int(c.op[-2])) for x in c.inputs)


def _stacking(name: str, rank: int, axis: int) -> None:
    def convert(c: Call) -> Result:
        return c.g.concat([_at_least(c, x, rank) for x in c.inputs], axis)

    converts(name)(convert)


_stacking("_npi_vstack", 2, 0)
_stacking("_npi_dstack", 3, 2)


@converts("_npi_hstack")
def _hstack(c: Call) -> Result:
    parts = [_at_least(c, x, 1) for x in c.inputs]
    return c.g.concat(parts, 0 if parts[0].rank == 1 else 1)


@converts("_npi_column_stack")
def _column_stack(c: Call) -> Result:
    return c.g.concat([c.reshape(x, (x.type.size, 1)) if x.rank < 2 else x for x in c.inputs], 1)


@converts("_np_moveaxis")
def _moveaxis(c: Call) -> Result:
    source = [c.axis(a) for a in c.attrs.shape("source")]
    target = [c.axis(a) for a in c.attrs.shape("destination")]
    perm = [a for a in range(c.x.rank) if a not in source]
    for to, a in sorted(zip(target, source)):
        perm.insert(to, a)
    return c.transpose(c.x, perm)


@converts("_np_roll")
def _roll(c: Call) -> Result:
    shifts, axes = c.attrs.shape("shift"), c.attrs.shape("axis", None)
    x = c.x
    if axes is None:
        x, axes = c.reshape(x, (x.type.size,)), (0,)
    shifts = shifts * len(axes) if len(shifts) == 1 else shifts
    for shift, axis in zip(shifts, axes):
        axis = c.axis(axis, x.rank)
        extent = x.shape[axis]
        split = -shift % extent if extent else 0
        if split:
            x = c.g.concat([cut(c, x, axis, split, extent), cut(c, x, axis, 0, split)], axis)
    return c.reshape(x, c.x.shape)


@converts("_npi_pad")
def _pad(c: Call) -> Result:
    widths: Any = parse_value(c.attrs.text("pad_width"))
    if not isinstance(widths, tuple) or not all(isinstance(w, tuple) and len(w) == 2 for w in widths):
        raise FormatError(f"{c.op} (layer {c.layer}): pad_width={widths!r} is not a pair per axis")
    mode = c.attrs.text("mode", "constant")
    if mode not in ("constant", "edge", "reflect", "symmetric", "minimum", "maximum") or c.attrs.text("reflect_type", "even") != "even":
        raise c.fail(f"mode={mode!r} with this reflect_type is not supported", "use constant, edge, reflect, symmetric, minimum or maximum")
    if len(widths) != c.x.rank:
        raise FormatError(f"{c.op} (layer {c.layer}): pad_width={widths!r} for {c.x.type}: one pair per axis is expected")
    if mode in ("minimum", "maximum"):
        return _pad_with_extrema(c, widths, "min" if mode == "minimum" else "max")
    if mode == "symmetric" or (mode == "reflect" and any(max(w) >= d for w, d in zip(widths, c.x.shape))):
        return _pad_with_mirrors(c, widths, mode)
    return c.emit("pad", c.x, pads=widths, mode=mode, value=c.attrs.real("constant_value", 0.0))


def _pad_with_mirrors(c: Call, widths: Any, mode: Any) -> Value:
    """Reflections, again and again where they are wider than the array: NumPy's own say which element comes where."""
    x = c.x
    for axis, (w, extent) in enumerate(zip(widths, x.shape)):
        if max(w):
            places = np.pad(np.arange(extent), w, mode=mode)
            x = c.emit("take", x, c.const(places, "i64"), axis=axis, mode="clip")
    return x


def _pad_with_extrema(c: Call, widths: Any, which: str) -> Value:
    """The least or greatest element along an axis at both of its ends, axis after axis."""
    x = c.x
    for axis, (low, high) in enumerate(widths):
        edge = c.emit(which, x, axes=(axis,), keepdims=True)
        ends = [c.g.broadcast_to(edge, (*x.shape[:axis], n, *x.shape[axis + 1 :])) if n else None for n in (low, high)]
        x = c.g.concat([p for p in (ends[0], x, ends[1]) if p is not None], axis) if low or high else x
    return x


@converts("_npi_diag_indices_from")
def _diag_indices_from(c: Call) -> Result:
    if c.x.rank < 2 or len(set(c.x.shape)) != 1:
        raise FormatError(f"{c.op} (layer {c.layer}): {c.x.type} has no diagonal; two axes or more of equal extents are needed")
    return c.const(np.stack(np.diag_indices(c.x.shape[0], c.x.rank)), "i64")


# -- products -----------------------------------------------------------------------------------------------------
def _contracted(c: Call, a: Value, b: Value, left: list[int], right: list[int]) -> Value:
    keep_a = [i for i in range(a.rank) if i not in left]
    keep_b = [i for i in range(b.rank) if i not in right]
    inner = prod(a.shape[i] for i in left)
    rows = c.reshape(c.transpose(a, keep_a + left), (prod(a.shape[i] for i in keep_a), inner))
    columns = c.reshape(c.transpose(b, right + keep_b), (inner, prod(b.shape[i] for i in keep_b)))
    shape = [a.shape[i] for i in keep_a] + [b.shape[i] for i in keep_b]
    return c.reshape(c.emit("mat_mul", rows, columns), shape)


@converts("_npi_tensordot")
def _tensordot(c: Call) -> Result:
    a, b = c.arg(0), c.arg(1)
    left = [c.axis(i, a.rank) for i in c.attrs.shape("a_axes_summed", ())]
    right = [c.axis(i, b.rank) for i in c.attrs.shape("b_axes_summed", ())]
    return _contracted(c, a, b, left, right)


@converts("_npi_tensordot_int_axes")
def _tensordot_axes(c: Call) -> Result:
    a, b, n = c.arg(0), c.arg(1), c.attrs.integer("axes")
    return _contracted(c, a, b, list(range(a.rank - n, a.rank)), list(range(n)))


@converts("_npi_einsum")
def _einsum(c: Call) -> Result:
    """Two operands, every letter at most once in each: a batched matrix product."""
    inputs, _, result = c.attrs.text("subscripts").replace(" ", "").partition("->")
    terms = inputs.split(",")
    if not result or len(terms) != 2 or "." in inputs or any(len(set(t)) != len(t) for t in (*terms, result)):
        raise c.fail(f"subscripts {c.attrs.text('subscripts')!r} are not supported",
                     "write it with two operands, an explicit result and no repeated letter in one operand")  # fmt: skip
    (p, a), (q, b) = zip(terms, c.inputs)
    for text, x in ((p, a), (q, b)):
        if len(text) != x.rank:
            raise FormatError(f"{c.op} (layer {c.layer}): {text!r} does not fit {x.type}")
    for other, text in ((q, p), (p, q)):  # letters of one operand alone that the result lacks are summed first
        if [ch for ch in text if ch not in other and ch not in result]:
            raise c.fail("a letter of one operand alone is summed", "sum over it before")
    size = dict(zip(p, a.shape))
    size |= {ch: d for ch, d in zip(q, b.shape) if d != 1 or ch not in size}  # an extent of 1 is spread
    a, b = (c.g.broadcast_to(x, [size[ch] for ch in text]) for text, x in ((p, a), (q, b)))
    batch = [ch for ch in p if ch in q and ch in result]
    inner = [ch for ch in p if ch in q and ch not in result]
    rows, columns = [ch for ch in p if ch not in q], [ch for ch in q if ch not in p]

    def arranged(x: Value, text: str, *groups: list[str]) -> Value:
        x = c.transpose(x, [text.index(ch) for g in groups for ch in g])
        return c.reshape(x, [size[ch] for ch in groups[0]] + [prod(size[ch] for ch in g) for g in groups[1:]])

    y = c.emit("mat_mul", arranged(a, p, batch, rows, inner), arranged(b, q, batch, inner, columns))
    order = batch + rows + columns
    y = c.reshape(y, [size[ch] for ch in order])
    return c.transpose(y, [order.index(ch) for ch in result])
