"""An exported program as a Graph: its inputs, constants and outputs around the converted nodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diptych.errors import GraphError, UnsupportedError
from diptych.frontends.torch.dtypes import ir_dtype
from diptych.frontends.torch.lower import ArrayCache, Context, NotComputed, lower_nodes
from diptych.ir import Graph, TensorType, Value
from diptych.ops.build import Builder

__all__ = ["Program", "bind_symbols", "to_graph"]


@dataclass(frozen=True)
class Program:
    """A decomposed ExportedProgram and the names of the leaves of its arguments."""

    exported: Any
    leaf_names: tuple[str, ...]

    @property
    def out_spec(self) -> Any:
        return self.exported.call_spec.out_spec

    def user_inputs(self) -> list[tuple[str, Any]]:
        """(leaf name, placeholder's fake value or constant) of every leaf."""
        values = {n.name: n.meta.get("val") for n in self.exported.graph.nodes if n.op == "placeholder"}
        specs = [s for s in self.exported.graph_signature.input_specs if s.kind.name == "USER_INPUT"]
        return [(name, values.get(getattr(s.arg, "name", ""))) for name, s in zip(self.leaf_names, specs, strict=True)]


def bind_symbols(program: Program, types: Mapping[str, TensorType]) -> dict[Any, int] | str:
    """The numbers that the program's symbolic extents take for these input types, or why they do not fit."""
    import torch

    symbols: dict[Any, int] = {}
    derived: list[tuple[str, int, Any, int]] = []
    for name, fake in program.user_inputs():
        if not isinstance(fake, torch.Tensor):
            continue
        type = types[name]
        if ir_dtype(fake.dtype) != type.dtype or len(fake.shape) != type.rank:
            return f"input {name!r} is {ir_dtype(fake.dtype)} of rank {len(fake.shape)}, not {type}"
        for axis, (extent, wanted) in enumerate(zip(fake.shape, type.shape)):
            expr = extent if isinstance(extent, int) else extent.node.expr
            if isinstance(expr, int) or expr.is_number:
                if int(expr) != wanted:
                    return f"input {name!r} has extent {int(expr)} at axis {axis}, not {wanted}"
            elif expr.is_Symbol:
                if symbols.setdefault(expr, wanted) != wanted:
                    return f"input {name!r}, axis {axis}: {expr} is {symbols[expr]} elsewhere, not {wanted}"
            else:
                derived.append((name, axis, expr, wanted))
    for name, axis, expr, wanted in derived:
        value = expr.xreplace(symbols)
        if value.free_symbols or int(value) != wanted:
            return f"input {name!r} has extent {expr} at axis {axis}, not {wanted}"
    for symbol, bounds in program.exported.range_constraints.items():
        if symbol in symbols and not bounds.lower <= max(symbols[symbol], 2) <= bounds.upper:
            return f"the model takes {bounds.lower} to {bounds.upper} for {symbol}, not {symbols[symbol]}"
    return symbols


def to_graph(program: Program, symbols: Mapping[Any, int], arrays: ArrayCache, name: str) -> tuple[Graph, list[Any]]:
    """The Graph, and the template of the results: `...` where an output goes, constants elsewhere."""
    import torch

    from diptych.frontends.torch import converters  # noqa: F401  # fills the table

    exported = program.exported
    g = Builder(name)
    c = Context(g, symbols, arrays)
    fakes = {n.name: n.meta.get("val") for n in exported.graph.nodes if n.op == "placeholder"}
    leaf = iter(program.leaf_names)
    feed: list[Any] = []
    for spec in exported.graph_signature.input_specs:
        kind = spec.kind.name
        if kind == "USER_INPUT":
            label = next(leaf)
            fake = fakes.get(getattr(spec.arg, "name", ""))
            if isinstance(fake, torch.Tensor):
                feed.append(_input(c, label, fake))
            else:
                feed.append(getattr(spec.arg, "value", fake))
        elif kind in ("PARAMETER", "BUFFER", "CONSTANT_TENSOR"):
            feed.append(_constant(exported, spec))
            if isinstance(feed[-1], torch.Tensor) and not _broadcast(feed[-1]):
                c.lift(feed[-1], spec.target)  # first use gives a shared constant its name
        else:
            raise UnsupportedError(f"{name}: inputs of kind {kind.lower()} are not supported ({spec.target})")
    mutated = [s for s in exported.graph_signature.output_specs if s.kind.name in _MUTATIONS]
    if mutated:
        raise UnsupportedError(
            f"{name}: forward changes the model's own {', '.join(str(s.target) for s in mutated)}; a compiled model"
            " has no state: return the new value and pass it back in, or switch the state off in eval mode"
        )
    results = lower_nodes(c, name, exported.graph_module, feed)
    slots, outputs = [], []
    for spec, result in zip(exported.graph_signature.output_specs, results, strict=True):
        if spec.kind.name == "USER_INPUT_MUTATION":
            continue  # the caller's arrays are never written; the results do not depend on that
        if spec.kind.name != "USER_OUTPUT":
            raise UnsupportedError(f"{name}: outputs of kind {spec.kind.name.lower()} are not supported")
        if isinstance(result, NotComputed):
            raise UnsupportedError(
                f"{name}: the places of the maxima of a pooling layer are not computed, so they cannot be returned;"
                " use return_indices=False"
            )
        if isinstance(result, torch.Tensor):
            result = c.lift(result)
        if isinstance(result, Value):
            slots.append(...)
            outputs.append(result)
        else:
            slots.append(result)
    if not outputs:
        raise UnsupportedError(f"{name}: the model returns no tensor")
    return g.finish(_name_outputs(c, exported, slots, outputs)), slots


_MUTATIONS = ("BUFFER_MUTATION", "PARAMETER_MUTATION")


def _input(c: Context, name: str, fake: Any) -> Value:
    given = TensorType(tuple(int(c.number(d)) for d in fake.shape), ir_dtype(fake.dtype))
    value = c.g.input(name, given)
    return c.g.cast(value, "f32") if given.dtype in ("f16", "bf16") else value


def _constant(exported: Any, spec: Any) -> Any:
    target = spec.target
    if spec.kind.name != "CONSTANT_TENSOR" and target in exported.state_dict:
        return exported.state_dict[target]
    if target in exported.constants:
        return exported.constants[target]
    raise GraphError(f"the program has no weight {target!r}; it was stripped or saved incompletely")


def _broadcast(tensor: Any) -> bool:
    return any(s == 0 and d > 1 for d, s in zip(tensor.shape, tensor.stride()))


def _name_outputs(c: Context, exported: Any, slots: list[Any], outputs: list[Value]) -> dict[str, Value]:
    """Outputs by the path in the result's structure; half-precision models give half-precision results."""
    import torch

    paths = _paths(exported.call_spec.out_spec, len(slots))
    fakes = [n.meta.get("val") if isinstance(n, torch.fx.Node) else None for n in _output_args(exported)]
    fakes = fakes[len(fakes) - len(slots) :]
    feed = iter(outputs)
    named: dict[str, Value] = {}
    for i, slot in enumerate(slots):
        if slot is not ...:
            continue
        value = next(feed)
        fake = fakes[i]
        if isinstance(fake, torch.Tensor) and ir_dtype(fake.dtype) in ("f16", "bf16"):
            value = c.g.cast(value, ir_dtype(fake.dtype))
        named[paths[i]] = value
    return named


def _paths(spec: Any, count: int) -> list[str]:
    """A name for every leaf of the results: "output" for a single one, "output0" in a tuple, "logits", "states.0"."""
    names: list[str] = []

    def walk(node: Any, path: list[str]) -> None:
        if node.is_leaf():
            names.append(".".join(path) if path and not path[0].isdigit() else "output" + ".".join(path))
            return
        children = node.children() if callable(getattr(node, "children", None)) else node.children_specs
        for key, child in zip(_child_names(node.context, len(children)), children, strict=True):
            walk(child, [*path, key])

    walk(spec, [])
    return names if len(set(names)) == len(names) == count else [f"output{i}" for i in range(count)]


def _child_names(context: Any, count: int) -> list[str]:
    """The keys of a container, from the context of its spec: dicts and result classes keep them there."""
    for keys in (context, context[0] if isinstance(context, (list, tuple)) and context else None):
        if isinstance(keys, (list, tuple)) and len(keys) == count and all(isinstance(k, str) for k in keys):
            return [str(k) for k in keys]
    return [str(i) for i in range(count)]


def _output_args(exported: Any) -> list[Any]:
    return list(next(n for n in exported.graph.nodes if n.op == "output").args[0])
