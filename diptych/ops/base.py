"""What an operator class must state, and the registry. ONE class per operator holds everything known about it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, dataclass_transform

import numpy as np

from diptych.errors import TypeRuleError
from diptych.ir import Op, TensorType, Value
from diptych.ir.types import numpy_dtype

if TYPE_CHECKING:
    from collections.abc import Mapping

    from diptych.codegen.math import Math, Val
    from diptych.ops.build import Builder

__all__ = ["OPS", "Arg", "Composite", "Contraction", "Elementwise", "Loops", "Movement", "Reduction", "S", "Sample", "op"]

_registry: dict[str, type[Op]] = {}
OPS: Mapping[str, type[Op]] = MappingProxyType(_registry)  # read-only view: name -> class


@dataclass(frozen=True, slots=True)
class Arg:
    """An operand of a sample: drawn uniformly from [low, high) (integers for integer dtypes)."""

    shape: tuple[int, ...]
    dtype: str = "f32"
    low: float = -2.0
    high: float = 2.0

    def draw(self, rng: np.random.Generator) -> np.ndarray[Any, Any]:
        if self.dtype == "bool":
            return rng.random(self.shape) < 0.5
        if self.dtype[0] in "iu":
            return rng.integers(int(self.low), int(self.high), self.shape).astype(numpy_dtype(self.dtype))
        if self.dtype == "bf16":
            bits = rng.uniform(self.low, self.high, self.shape).astype(np.float32).view(np.uint32)
            return (bits >> 16).astype(np.uint16)
        return rng.uniform(self.low, self.high, self.shape).astype(numpy_dtype(self.dtype))


@dataclass(frozen=True, slots=True)
class Sample:
    """One application of an operator, for conformance tests, the operator table and micro-benchmarks."""

    args: tuple[Arg, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    grad: bool = True  # False: not differentiable at some drawn points (ties, kinks), skip the gradient check


def S(*args: tuple[int, ...] | Arg, dtype: str = "f32", low: float = -2.0, high: float = 2.0, grad: bool = True,
      **attrs: Any) -> Sample:  # fmt: skip
    """Shorthand: S((2, 3), (3,), axis=1) draws two f32 operands and builds the operator with axis=1."""
    return Sample(
        tuple(a if isinstance(a, Arg) else Arg(tuple(a), dtype, low, high) for a in args), dict(attrs), grad
    )


class Elementwise(Op):
    """Output element i depends on element i of each (broadcast) operand only. States `lower`."""

    __slots__ = ()
    samples: ClassVar[tuple[Sample, ...]]

    def infer(self, *types: Any, **_: Any) -> TensorType | tuple[TensorType, ...]:
        """Default rule: operands of one dtype, shapes broadcast as in NumPy, same dtype out."""
        if len({t.dtype for t in types}) != 1:
            raise TypeRuleError(f"operands must have one dtype, got {', '.join(t.dtype for t in types)}")
        first: TensorType = types[0]
        return first.with_shape(broadcast(*(t.shape for t in types)))

    def lower(self, k: Math, *xs: Any, **_: Any) -> Val:
        """The body of the loop, on scalars or vectors."""
        raise NotImplementedError


class Movement(Op):
    """Moves elements without arithmetic. The scheduler turns it into a view or a copy."""

    __slots__ = ()
    samples: ClassVar[tuple[Sample, ...]]


class Reduction(Op):
    """Folds `axes` with an associative operation. States `identity`, `combine` and (optionally) `finish`."""

    __slots__ = ()
    samples: ClassVar[tuple[Sample, ...]]


class Contraction(Op):
    """A product-and-sum operator with crafted kernels (matmul, convolution); `kernels` knows how to lower it."""

    __slots__ = ()
    samples: ClassVar[tuple[Sample, ...]]


class Loops(Op):
    """Any other primitive: it has a kernel of its own in `kernels`, under the operator's name."""

    __slots__ = ()
    samples: ClassVar[tuple[Sample, ...]]


class Composite(Op):
    """Defined by `decompose` into simpler operators; gradient and lowering follow from that."""

    __slots__ = ()
    samples: ClassVar[tuple[Sample, ...]]

    def decompose(self, g: Builder, *xs: Any, **_: Any) -> Value | tuple[Value, ...]:
        raise NotImplementedError


_KINDS: tuple[tuple[type[Op], tuple[str, ...]], ...] = (
    (Elementwise, ("infer", "reference", "lower")),
    (Movement, ("infer", "reference")),
    (Reduction, ("infer", "reference", "identity", "combine")),
    (Contraction, ("infer", "reference")),
    (Loops, ("infer", "reference")),
    (Composite, ("infer", "reference", "decompose")),
)
C = TypeVar("C", bound=type[Op])


def _snake(name: str) -> str:
    out = ""
    for i, ch in enumerate(name):
        if ch.isupper() and i and not name[i - 1].isupper():
            out += "_"
        out += ch.lower()
    return out


@dataclass_transform(frozen_default=True)
def op(cls: C) -> C:
    """Make `cls` a frozen dataclass, check that no rule is missing, and register it under its snake_case name."""
    # Op itself compares, hashes and prints by fields: generating those methods for each class costs every start.
    cls = dataclass(frozen=True, slots=True, eq=False, repr=False)(cls)  # type: ignore[assignment]
    kinds = [(kind, rules) for kind, rules in _KINDS if issubclass(cls, kind)]
    if len(kinds) != 1:
        raise TypeError(f"{cls.__name__}: an operator is exactly one of {', '.join(k.__name__ for k, _ in _KINDS)}")
    for rule in kinds[0][1]:
        if getattr(cls, rule, None) is None or getattr(cls, rule) is getattr(Op, rule, None):
            raise TypeError(f"operator {cls.__name__} lacks its rule {rule!r}")
    if not getattr(cls, "samples", ()):
        raise TypeError(f"operator {cls.__name__} has no samples")
    if not (cls.__doc__ or "").strip() or (cls.__doc__ or "").startswith(cls.__name__ + "("):
        raise TypeError(f"operator {cls.__name__} has no docstring")
    name = cls.__dict__.get("name") or _snake(cls.__name__)
    if name in _registry:
        raise TypeError(f"two operators are named {name!r}")
    cls.name = name
    _registry[name] = cls
    return cls


def attributes(node_op: Op) -> dict[str, Any]:
    """The attributes (dataclass fields) of an operator instance, in order."""
    return {f.name: getattr(node_op, f.name) for f in fields(node_op)}  # type: ignore[arg-type]


def broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """NumPy's broadcasting rule; raises TypeRuleError naming the shapes."""
    rank = max((len(s) for s in shapes), default=0)
    out = []
    for i in range(-rank, 0):
        dims = {s[i] for s in shapes if len(s) >= -i} - {1}
        if len(dims) > 1:
            raise TypeRuleError(f"shapes {' and '.join(map(str, shapes))} do not broadcast")
        out.append(dims.pop() if dims else 1)
    return tuple(out)


def normalize_axis(axis: int, rank: int) -> int:
    """A non-negative axis; raises TypeRuleError when out of range."""
    if not -rank <= axis < rank:
        raise TypeRuleError(f"axis {axis} is out of range for rank {rank}")
    return axis % rank


def normalize_axes(axes: tuple[int, ...] | None, rank: int) -> tuple[int, ...]:
    """Sorted non-negative axes; None means all."""
    if axes is None:
        return tuple(range(rank))
    out = sorted(normalize_axis(a, rank) for a in axes)
    if len(set(out)) != len(out):
        raise TypeRuleError(f"axes {axes} name an axis twice")
    return tuple(out)
