"""What converters share: the table (MXNet operator name -> converter), the Call they are handed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np

from diptych.errors import DiptychError, FormatError, UnsupportedError
from diptych.frontends.mxnet.attributes import Attributes
from diptych.frontends.mxnet.symbol_aliases import canonical
from diptych.ir import TensorType
from diptych.ir.types import numpy_dtype
from diptych.ops import OPS, Movement

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from diptych.frontends.mxnet.symbol_graph import SymbolGraph, SymbolNode
    from diptych.ir import Array, Value
    from diptych.ops.build import Builder

    Result = Value | tuple[Value, ...]
    Converter = Callable[["Call"], Result]

__all__ = ["CONVERTERS", "DTYPE_NAMES", "Call", "Effects", "Noise", "convert_node", "converts", "dtype_of_name"]

# The dtype names of MXNet's attributes, and the flags of `__dtype__` and of .params files in order.
DTYPE_NAMES: dict[str, str] = {
    "float32": "f32", "float64": "f64", "float16": "f16", "uint8": "u8", "int32": "i32", "int8": "i8", "int64": "i64",
    "bool": "bool", "int16": "i16", "uint16": "u16", "uint32": "u32", "uint64": "u64", "bfloat16": "bf16",
}  # fmt: skip
_FLAGS = tuple(DTYPE_NAMES.values())

FOLD_LIMIT = 1 << 16  # a moved constant may be this many elements larger than what it is made of

CONVERTERS: dict[str, Converter] = {}

F = TypeVar("F", bound="Callable[[Call], Result]")


def converts(*names: str) -> Callable[[F], F]:
    """Register a converter under MXNet's operator names (aliases are resolved when a symbol file is read).

    >>> @converts("my_identity")
    ... def _identity(c: Call) -> Result:
    ...     return c.x
    >>> _ = CONVERTERS.pop("my_identity")
    """

    def register(f: F) -> F:
        for name in names:
            if name in CONVERTERS or canonical(name) != name:
                raise ValueError(f"the MXNet operator {name!r} has a converter already, or is an alias")
            CONVERTERS[name] = f
        return f

    return register


def dtype_of_name(text: str, where: str) -> str:
    """The IR dtype for MXNet's name or numeric flag of an element type."""
    if text in DTYPE_NAMES:
        return DTYPE_NAMES[text]
    if text.isdigit() and int(text) < len(_FLAGS):
        return _FLAGS[int(text)]
    raise FormatError(f"{where}: {text!r} is not a known element type; known: {', '.join(DTYPE_NAMES)}")


@dataclass(frozen=True, slots=True)
class Noise:
    """A random input of a graph: whoever runs the graph draws it, so that the graph itself stays a pure function."""

    name: str
    kind: str  # "uniform" in [0, 1), "normal", or a distribution with parameters
    type: TensorType
    parameters: tuple[float, ...] = ()


@dataclass(slots=True)
class Effects:
    """What nodes do beside giving results, noted while they are converted to be run by a program that has state.

    `train` chooses the training form of an operator; `noise` lists random inputs; `updates` holds what operands
    (by value number) become right after the call, `later` what they become with the backward pass.
    """

    train: bool = False
    noise: list[Noise] = field(default_factory=list)
    updates: dict[int, Value] = field(default_factory=dict)
    later: dict[int, Value] = field(default_factory=dict)


def convert_node(g: Builder, node: SymbolNode, operands: tuple[Value, ...], outputs: int,
                 shape: tuple[int, ...] | None = None, np_shape: bool = False, effects: Effects | None = None,
                 converter: Converter | None = None) -> tuple[Value, ...]:  # fmt: skip
    """Emit one operator node; errors name its layer. Raises KeyError when the operator has no converter.

    `converter` replaces that of the table: the form of the operator for a caller who can provide `effects`.
    """
    assert node.op is not None
    call = Call(g, node.op, node.name, Attributes(node.op, node.name, node.attrs), operands, outputs=outputs,
                shape=shape, np_shape=np_shape, subgraphs=node.subgraphs, effects=effects)  # fmt: skip
    g.layer = node.name
    try:
        with np.errstate(all="ignore"):  # a scalar too large for half precision is inf, as in MXNet
            result = (converter or CONVERTERS[node.op])(call)
    except DiptychError as error:
        if node.name in str(error):
            raise
        raise type(error)(f"{node.op} (layer {node.name}): {error}") from error
    except (IndexError, KeyError, ValueError, ZeroDivisionError, OverflowError, MemoryError) as error:
        # What a converter takes for granted (a tuple of two, an axis that is there) a damaged file may lack.
        raise FormatError(f"{node.op} (layer {node.name}): its attributes {node.attrs} do not fit operands "
                          f"{', '.join(str(x.type) for x in operands)}: {error}") from error  # fmt: skip
    return result if isinstance(result, tuple) else (result,)


@dataclass(slots=True)
class Call:
    """One node to convert: its operands as Values, its attributes, and helpers that emit into the graph."""

    g: Builder
    op: str
    layer: str
    attrs: Attributes
    inputs: tuple[Value, ...]
    outputs: int = 1  # how many results the graph reads
    shape: tuple[int, ...] | None = None  # the result's shape where inference over the whole graph knows it
    np_shape: bool = False
    subgraphs: tuple[SymbolGraph, ...] = ()
    effects: Effects | None = None

    @property
    def train(self) -> bool:
        """Whether the training form is asked for."""
        return self.effects is not None and self.effects.train

    def noise(self, kind: str, shape: Sequence[int], dtype: str = "f32", *parameters: float) -> Value:
        """A random input of the graph, drawn anew for every run."""
        if self.effects is None:
            raise self.fail("random numbers are no part of a compiled graph",
                            "draw the numbers outside and pass them as an input")  # fmt: skip
        name = f"noise{len(self.effects.noise)}"
        made = TensorType(tuple(shape), dtype)
        self.effects.noise.append(Noise(name, kind, made, parameters))
        return self.g.input(name, made)

    def update(self, i: int, value: Value, later: bool = False) -> None:
        """Operand i becomes `value`, at once or (`later`) when the backward pass comes to this node."""
        if self.effects is not None:
            (self.effects.later if later else self.effects.updates)[self.inputs[i].id] = value

    @property
    def x(self) -> Value:
        """The first operand."""
        return self.arg(0)

    def arg(self, i: int) -> Value:
        """Operand i; an error that names the layer when there is none."""
        if i >= len(self.inputs):
            raise FormatError(f"{self.op} (layer {self.layer}): {len(self.inputs)} inputs, operand {i} is missing")
        return self.inputs[i]

    def fail(self, message: str, advice: str = "") -> UnsupportedError:
        """An error for this layer, to raise."""
        return UnsupportedError(f"{self.op} (layer {self.layer}): {message}" + (f"; {advice}" if advice else ""))

    # -- emitting ---------------------------------------------------------------------------------------------
    def emit(self, op: str, *xs: Value | float, **attrs: object) -> Value:
        """The single result of an IR operator, numbers lifted to constants; pure data movement of constants is done now."""
        made = OPS[op](**attrs)
        values = [x for x in xs if not isinstance(x, (int, float))]
        if isinstance(made, Movement) and op != "broadcast_to" and len(values) == len(xs):
            arrays = [a for a in map(self.g.constant_array, values) if a is not None]
            if arrays and len(arrays) == len(xs):
                made_of = made.infer(*(x.type for x in values))
                if isinstance(made_of, TensorType) and made_of.size <= FOLD_LIMIT + sum(a.size for a in arrays):
                    result = cast("Array", made.reference(*arrays))
                    return self.g.constant(np.ascontiguousarray(result), values[0].dtype, self.layer)
        return self.g.ew(op, *xs, **attrs)

    def emit_all(self, op: str, *xs: Value, **attrs: object) -> tuple[Value, ...]:
        """All results of an IR operator."""
        return self.g.emit_all(OPS[op](**attrs), *xs)

    def reshape(self, x: Value, shape: Sequence[int]) -> Value:
        """Row-major reshape, one extent may be -1."""
        dims = list(shape)
        if -1 in dims:
            rest = int(np.prod([d for d in dims if d != -1]))
            dims[dims.index(-1)] = x.type.size // rest if rest else 0
        return x if tuple(dims) == x.shape else self.emit("reshape", x, shape=tuple(dims))

    def transpose(self, x: Value, perm: Sequence[int]) -> Value:
        """Permute axes; nothing is emitted for the identity."""
        perm = tuple(p % x.rank for p in perm)
        return x if perm == tuple(range(x.rank)) else self.emit("transpose", x, perm=perm)

    def dtype(self, key: str = "dtype", default: str = "f32") -> str:
        """The IR dtype of an attribute that holds a name ("float32") or a type flag ("0"); None means the default."""
        text = self.attrs.text(key, "None")
        return default if text in ("None", "-1") else dtype_of_name(text, f"{self.op} (layer {self.layer})")

    def cast(self, x: Value, dtype: str) -> Value:
        """Convert the element type; nothing is emitted when it is right already."""
        return self.g.cast(x, dtype)

    def full(self, shape: Sequence[int], value: float, dtype: str = "f32") -> Value:
        """A constant of one value."""
        return self.g.broadcast_to(self.g.scalar(value, dtype), shape)

    def const(self, array: Array, dtype: str) -> Value:
        """A constant array of the given IR dtype."""
        if dtype == "bf16":
            return self.g.cast(self.g.constant(array.astype(np.float32)), "bf16")
        return self.g.constant(np.ascontiguousarray(array, numpy_dtype(dtype)), dtype)

    def axis(self, axis: int, rank: int | None = None) -> int:
        """A non-negative axis of the first operand (or of a given rank)."""
        rank = self.x.rank if rank is None else rank
        if not -rank <= axis < rank:
            raise FormatError(f"{self.op} (layer {self.layer}): axis {axis} is out of range for rank {rank}")
        return axis % rank

    def indices(self, x: Value) -> Value:
        """Indices as integers: MXNet keeps them in floats."""
        return x if x.dtype in ("i32", "i64") else self.cast(x, "i32")

    def truth(self, x: Value) -> Value:
        """x != 0 as bool."""
        return self.cast(x, "bool")
