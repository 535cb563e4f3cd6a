"""Walks the fx graph of an exported program and makes the nodes of a Graph from it through the table of converters."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from diptych.errors import GraphError
from diptych.frontends.base import Missing, unsupported
from diptych.frontends.torch.dtypes import compute_dtype, to_array, torch_dtype
from diptych.frontends.torch.provenance import layer_of, source_of
from diptych.ir import Array, TensorType, Value
from diptych.ir.types import numpy_dtype
from diptych.ops.base import OPS
from diptych.ops.build import Builder

__all__ = [
    "CONVERTERS",
    "ArrayCache",
    "Context",
    "NotComputed",
    "NotConvertible",
    "converts",
    "lower_nodes",
    "refuse",
]

Convert = TypeVar("Convert", bound=Callable[..., Any])

CONVERTERS: dict[str, Callable[..., Any]] = {}  # "aten.relu.default" -> converter
ArrayCache = dict[tuple[Any, ...], tuple[Any, Array]]  # key of a tensor's storage -> (the tensor, its array)


class NotConvertible(Exception):
    """Raised by a converter for a form of its operator that it does not take; the text is advice for the user."""


def converts(*targets: str) -> Callable[[Convert], Convert]:
    """Enter a converter in the table, under the overloads it takes.

    >>> @converts("aten.example.default")
    ... def example(c: Context, x: Value) -> Value:
    ...     return c.g.relu(x)
    >>> del CONVERTERS["aten.example.default"]
    """

    def enter(function: Convert) -> Convert:
        for target in targets:
            if target in CONVERTERS:
                raise GraphError(f"two converters for {target}")
            CONVERTERS[target] = function
        return function

    return enter


class Context:
    """What a converter sees: the builder, the type its result must have, and helpers for torch's dtype rules."""

    def __init__(self, g: Builder, symbols: Mapping[Any, int], arrays: ArrayCache) -> None:
        self.g = g
        self.symbols = dict(symbols)  # the number each symbolic extent stands for
        self.arrays = arrays
        self.fakes: tuple[Any, ...] = ()  # meta["val"] of the operands of the node at work
        self.out: Any = None  # meta["val"] of the node at work: a fake tensor, or a tuple of them
        self._folded: ArrayCache = {}  # of constants computed on the way
        self._lifted: dict[tuple[Any, ...], Value] = {}

    # -- extents and types ------------------------------------------------------------------------------------
    def number(self, x: Any) -> Any:
        """A SymInt, SymFloat or SymBool as the number it is here; anything else unchanged."""
        node: Any = getattr(x, "node", None)
        expr = getattr(node, "expr", None)
        if expr is None:
            return x
        value = expr.xreplace(self.symbols) if hasattr(expr, "xreplace") else expr
        if getattr(value, "free_symbols", None):
            raise NotConvertible(
                f"the extent {expr} depends on the values of a tensor; only static shapes are compiled"
            )
        if node.pytype is bool:
            return bool(value)
        return int(value) if node.pytype is int else float(value)

    def learn(self, fake: Any, got: Any) -> None:
        """Take over the extents that torch could not know while tracing, but that constants have settled."""
        pairs: list[tuple[Any, Any]] = []
        if isinstance(fake, (tuple, list)) and isinstance(got, (tuple, list)):
            for f, g in zip(fake, got):
                self.learn(f, g)
        elif hasattr(fake, "shape") and hasattr(got, "shape"):
            pairs = list(zip(fake.shape, got.shape))
        else:
            pairs = [(fake, got)]
        for extent, number in pairs:
            node: Any = getattr(extent, "node", None)
            if getattr(getattr(node, "expr", None), "is_Symbol", False):
                self.symbols.setdefault(node.expr, int(number))

    def type_of(self, fake: Any) -> TensorType:
        """The IR type of a fake tensor."""
        return TensorType(tuple(int(self.number(d)) for d in fake.shape), compute_dtype(fake.dtype))

    @property
    def type(self) -> TensorType:
        """The type the (first) result must have."""
        return self.type_of(self.out[0] if isinstance(self.out, (tuple, list)) else self.out)

    @property
    def dtype(self) -> str:
        return self.type.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.type.shape

    def promote(self, *xs: Any) -> str:
        """torch's result dtype of operands that are Values or numbers."""
        import torch

        def stand_in(x: Any) -> Any:
            return torch.empty((1,) * x.rank, dtype=torch_dtype(x.dtype), device="meta") if isinstance(x, Value) else x

        result = stand_in(xs[0])
        for x in xs[1:]:
            dtype = torch.result_type(result, stand_in(x))
            rank = max(y.rank if isinstance(y, Value) else 0 for y in xs)
            result = torch.empty((1,) * rank, dtype=dtype, device="meta")
        return compute_dtype(result.dtype)

    # -- values -----------------------------------------------------------------------------------------------
    def value(self, x: Any, dtype: str | None = None) -> Value:
        """A Value of this dtype (default: the result's) from a Value or a number."""
        dtype = dtype or self.dtype
        if isinstance(x, Value):
            return self.cast(x, dtype)
        return self.g.scalar(numpy_dtype(dtype).type(x).item(), dtype)

    def cast(self, x: Value, dtype: str) -> Value:
        """Cast, done at once when x is a small constant."""
        if x.dtype == dtype:
            return x
        array = self.g.constant_array(x)
        if array is not None and array.size <= 1 << 16:
            return self.g.constant(OPS["cast"](to=dtype).reference(array), dtype)  # type: ignore[arg-type]
        return self.g.cast(x, dtype)

    def array(self, x: Any, what: str) -> Array:
        """The constant array of a Value; NotConvertible when it is computed at run time."""
        array = self.g.constant_array(x)
        if array is None:
            raise NotConvertible(f"{what} must be a constant, here it is computed at run time")
        return array

    def full(self, number: Any, type: TensorType | None = None) -> Value:
        """The result's type filled with a number."""
        type = type or self.type
        return self.g.broadcast_to(self.value(number, type.dtype), type.shape)

    def ew(self, op: str, *xs: Any, dtype: str | None = None, **attrs: object) -> Value:
        """The elementwise operator over operands cast to `dtype` (default: the result's dtype)."""
        dtype = dtype or self.dtype
        return self.g.emit(OPS[op](**attrs), *(self.value(x, dtype) for x in xs))

    def emit(self, op: str, *xs: Value, **attrs: object) -> Value:
        """The operator of that name, with one result."""
        return self.g.emit(OPS[op](**attrs), *xs)

    def emit_all(self, op: str, *xs: Value, **attrs: object) -> tuple[Value, ...]:
        """The operator of that name, with all its results."""
        return self.g.emit_all(OPS[op](**attrs), *xs)

    # -- constants --------------------------------------------------------------------------------------------
    def lift(self, tensor: Any, name: str = "") -> Value:
        """A torch tensor as a constant; the same memory is the same constant, and broadcast extents stay views."""
        import torch

        size, stride = tuple(tensor.shape), tuple(tensor.stride())
        spread = [i for i, (d, s) in enumerate(zip(size, stride)) if s == 0 and d > 1]
        if spread:
            small = tensor
            for i in spread:
                small = small.narrow(i, 0, 1)
            return self.g.broadcast_to(self.lift(small, name), size)
        key = (tensor.data_ptr(), size, stride, tensor.dtype, tensor._version if not tensor.is_inference() else 0)
        if key not in self._lifted:
            kept = self.arrays if name else self._folded  # graphs share the arrays of weights
            if key not in kept:
                with torch.no_grad():
                    kept[key] = (tensor, to_array(tensor))  # holding the tensor keeps its address taken
            self._lifted[key] = self.g.constant(kept[key][1], compute_dtype(tensor.dtype), name)
        return self._lifted[key]


def lower_nodes(c: Context, model: str, graph_module: Any, placeholders: Sequence[Any]) -> list[Any]:
    """Convert every node of an fx graph whose placeholders stand for `placeholders`; returns what it outputs.

    Values, torch tensors (constants) and numbers flow along the edges. Nodes that see constants only are computed
    by torch itself, here and now. Operators without a converter are collected and reported together.
    """
    missing: list[Missing] = []
    result = _walk(c, graph_module, placeholders, missing)
    if missing:
        raise unsupported(model, missing)
    return result


class NotComputed:
    """Stands for a second result that is hardly ever read; reading it is refused."""


class _Absent:
    """Stands for the result of a node that could not be converted, so that the walk can go on and find the rest."""


_ABSENT = _Absent()


def _walk(c: Context, graph_module: Any, placeholders: Sequence[Any], missing: list[Missing]) -> list[Any]:
    import torch.fx

    env: dict[Any, Any] = {}
    feed = iter(placeholders)
    outputs: list[Any] = []

    def resolve(arg: Any) -> Any:
        return torch.fx.node.map_aggregate(arg, lambda a: env[a] if isinstance(a, torch.fx.Node) else c.number(a))

    for node in graph_module.graph.nodes:
        if node.op == "placeholder":
            env[node] = next(feed)
        elif node.op == "get_attr":
            env[node] = operator.attrgetter(node.target)(graph_module)
        elif node.op == "output":
            outputs = list(resolve(node.args[0]))
        elif node.op != "call_function":
            raise GraphError(f"fx nodes of kind {node.op} are not expected in an exported program ({node})")
        else:
            c.g.layer, c.g.source = layer_of(node), source_of(node)
            try:
                env[node] = _convert(c, node, resolve(node.args), resolve(node.kwargs), missing)
            except NotConvertible as e:
                missing.append(Missing(str(node.target), c.g.layer, c.g.source, str(e)))
                env[node] = _ABSENT
    return outputs


def _leaves(args: Any, found: list[Any]) -> list[Any]:
    if isinstance(args, (tuple, list)):
        for a in args:
            _leaves(a, found)
    elif isinstance(args, Mapping):
        for a in args.values():
            _leaves(a, found)
    else:
        found.append(args)
    return found


def _convert(c: Context, node: Any, args: Any, kwargs: Any, missing: list[Missing]) -> Any:
    import torch

    name = str(node.target)
    c.out = node.meta.get("val")
    if isinstance(c.out, (torch.SymInt, torch.SymFloat, torch.SymBool)):
        return _scalar(c, node, args, kwargs, missing)
    if node.target is operator.getitem:
        return _ABSENT if args[0] is _ABSENT else args[0][args[1]]
    if name in _REGIONS:
        return _walk(c, args[_REGIONS[name]], args[_REGIONS[name] + 1 :], missing)
    if name == "cond":
        return _cond(c, missing, *args)
    leaves = _leaves((args, kwargs), [])
    c.fakes = tuple(a.meta.get("val") if isinstance(a, torch.fx.Node) else None for a in node.args)
    if not any(x is _ABSENT or isinstance(x, Value) for x in leaves):
        folded = _fold(node, args, kwargs)
        c.learn(c.out, folded)
        return folded
    converter = CONVERTERS.get(name)
    if any(isinstance(x, NotComputed) for x in leaves):
        raise NotConvertible("the places of the maxima of a pooling layer are not computed; use return_indices=False")
    if converter is None:
        random = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
        missing.append(Missing(name, c.g.layer, c.g.source, _RANDOM if random else _advice(name)))
        return _ABSENT
    if any(x is _ABSENT for x in leaves):
        return _ABSENT

    def lift(a: Any) -> Any:
        return c.lift(a) if isinstance(a, torch.Tensor) else a

    try:
        result = converter(c, *_map(args, lift), **{k: _map(v, lift) for k, v in kwargs.items()})
    except KeyError as e:
        if e.args and isinstance(e.args[0], str) and e.args[0] not in OPS:
            raise GraphError(f"{name}: the operator {e.args[0]!r} is not registered") from None
        raise
    _check(c, name, result)
    return result


def _cond(c: Context, missing: list[Missing], choice: Any, yes: Any, no: Any, operands: Sequence[Any]) -> Any:
    """torch.cond: both branches, which are pure, and a selection of their results."""
    out = c.out
    if not isinstance(choice, Value):
        return _walk(c, yes if bool(choice) else no, operands, missing)
    results = []
    for fake, *pair in zip(out, _walk(c, yes, operands, missing), _walk(c, no, operands, missing), strict=True):
        if any(x is _ABSENT for x in pair):
            return [_ABSENT] * len(out)
        type = c.type_of(fake)
        a, b = (c.lift(x) if hasattr(x, "data_ptr") else c.value(x, type.dtype) for x in pair)
        results.append(c.emit("where", c.cast(choice, "bool"), a, b))
    return results


def _scalar(c: Context, node: Any, args: Any, kwargs: Any, missing: list[Missing]) -> Any:
    """Shape arithmetic: torch has done it and only the symbols are filled in; or a number read from a constant."""
    try:
        return c.number(c.out)
    except NotConvertible:
        if not any(x is _ABSENT or isinstance(x, Value) for x in _leaves((args, kwargs), [])):
            number = _fold(node, args, kwargs)
            c.learn(c.out, number)
            return number
        if missing:  # it follows from what is reported already
            return _ABSENT
        raise


_RANDOM = "random numbers are not drawn in a compiled model; pass them in as an input"

# Regions without meaning for inference: the submodule at this argument is converted in place.
_REGIONS = {"wrap_with_set_grad_enabled": 1, "wrap_with_autocast": 4}


def _map(arg: Any, f: Callable[[Any], Any]) -> Any:
    if isinstance(arg, (tuple, list)):
        return [_map(a, f) for a in arg]
    return f(arg)


def _fold(node: Any, args: Any, kwargs: Any) -> Any:
    """Compute a node whose operands are all constants, with torch."""
    import torch

    tags = getattr(node.target, "tags", ())
    if torch.Tag.nondeterministic_seeded in tags:
        raise NotConvertible(_RANDOM)
    if "device" in kwargs:
        kwargs = {**kwargs, "device": "cpu"}
    with torch.no_grad():
        try:
            return node.target(*args, **kwargs)
        except (RuntimeError, TypeError, ValueError, NotImplementedError) as e:
            raise NotConvertible(f"torch cannot compute it on constants: {e}") from e


def _check(c: Context, name: str, result: Any) -> None:
    """A converter's results must have the types torch inferred; a difference is a mistake of the converter."""
    import torch

    fakes = c.out if isinstance(c.out, (tuple, list)) else (c.out,)
    results = result if isinstance(result, (tuple, list)) else (result,)
    for fake, got in zip(fakes, results):
        c.learn(fake, got)
        if isinstance(fake, torch.Tensor) and isinstance(got, Value) and c.type_of(fake) != got.type:
            raise GraphError(
                f"{name} (layer {c.g.layer or '?'}): converted to {got.type}, torch says {c.type_of(fake)};"
                " please report this with the model"
            )


def _advice(name: str) -> str:
    import difflib

    base = name.split(".")[1] if name.count(".") >= 2 else name
    if not name.startswith("aten."):
        return "a custom operator: register a converter with diptych.frontends.torch.converts, or rewrite it in ATen"
    known = {k.split(".")[1] for k in CONVERTERS}
    close = difflib.get_close_matches(base, sorted(known), 2, 0.75)
    hint = f"; close to it are {', '.join(close)}" if close else ""
    return f"rewrite it with supported operators{hint}"


def refuse(text: str) -> NoReturn:
    """Refuse the node at work with advice for the user; all refusals of a model are reported together."""
    raise NotConvertible(text)
