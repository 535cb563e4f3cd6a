"""TorchSource: a PyTorch model that gives the Graph for the input types asked for."""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from diptych.errors import FormatError, InputError, UnsupportedError
from diptych.frontends.torch import export as exporter
from diptych.frontends.torch.dtypes import ir_dtype
from diptych.frontends.torch.inputs import (
    bind,
    describe,
    is_tensor_like,
    leaf_names,
    register_trees,
    shapes_as_types,
    stand_in,
)
from diptych.frontends.torch.lower import ArrayCache
from diptych.frontends.torch.program import Program, bind_symbols, to_graph
from diptych.ir import Graph, TensorType

__all__ = ["TorchSource", "source"]


def source(model: Any, example_inputs: Any = None, *, dynamic: Any = None) -> TorchSource:
    """Read an nn.Module, an ExportedProgram or a .pt2 file.

    `example_inputs` is a tuple (positional) or a dict by name of tensors, arrays, nested structures of them,
    (shape, dtype) descriptions, or plain shapes where there is no tensor at all. `dynamic` names extents that will change: "batch" for axis 0 of every input, or
    {input name: (axes,)}; one export then serves every size of them.

    >>> import torch
    >>> src = source(torch.nn.Linear(3, 2), (((1, 3), "f32"),))
    >>> src.input_names
    ('input',)
    """
    try:
        import torch
        import torch.export
    except ImportError as e:
        raise UnsupportedError("PyTorch models need torch: pip install torch") from e
    register_trees(model)
    if isinstance(model, (str, os.PathLike)):
        from diptych.frontends.torch.archive import load_archive

        path = os.fspath(model)
        return TorchSource(load_archive(path), example_inputs, name=os.path.splitext(os.path.basename(path))[0])
    if isinstance(model, torch.jit.ScriptModule):
        raise UnsupportedError("a TorchScript module cannot be exported; pass the nn.Module it was scripted from")
    if isinstance(model, (torch.nn.Module, torch.export.ExportedProgram)):
        return TorchSource(model, example_inputs, dynamic=dynamic)
    raise UnsupportedError(
        f"{type(model).__name__} is not a PyTorch model; pass an nn.Module, an ExportedProgram or a .pt2 path"
    )


@dataclass
class _Leaf:
    """One leaf of the model's arguments: a tensor, or a constant that is fixed at compile time."""

    name: str
    type: TensorType | None
    constant: Any = None


@dataclass
class _Layout:
    """How the arguments of a call are laid out."""

    leaves: list[_Leaf]
    spec: Any
    examples: list[Any] = field(default_factory=list)

    @property
    def tensors(self) -> list[_Leaf]:
        return [leaf for leaf in self.leaves if leaf.type is not None]


class TorchSource:
    """A PyTorch model as a `diptych.frontends.base.Source`, plus the structure of its arguments and results."""

    def __init__(self, model: Any, example_inputs: Any = None, *, dynamic: Any = None, name: str = "") -> None:
        import torch.export

        self._lock = threading.RLock()
        self._arrays: ArrayCache = {}
        self._programs: list[tuple[dict[str, TensorType], Program]] = []
        self._dynamic = dynamic
        self._signature: inspect.Signature | None = None
        self._layout: _Layout | None = None
        self._last: tuple[Any, list[Any]] | None = None
        self._model = model
        if isinstance(model, torch.export.ExportedProgram):
            self._model = None
            self.name = name or "model"
            program = self._program_of(exporter.decompose(model), decomposed=True)
            if example_inputs is not None:
                self._check_examples(example_inputs)
            self._programs.append((self.default_types() or {}, program))
            return
        self.name = name or type(model).__name__
        self._signature = inspect.signature(model.forward)
        if example_inputs is not None:
            args, kwargs = self._split(example_inputs)
            self._layout = self._lay_out(*bind(self._signature, self.name, args, kwargs))

    def vary(self, axes: Mapping[str, tuple[int, ...]]) -> None:
        """Extents that will change from one Graph to the next: one export then serves all of them."""
        self._dynamic = {n: own for n, own in axes.items() if own}

    # -- inputs -----------------------------------------------------------------------------------------------
    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the tensor inputs, in order."""
        if self._layout is not None:
            return tuple(leaf.name for leaf in self._layout.tensors)
        assert self._signature is not None
        kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        return tuple(
            p.name for p in self._signature.parameters.values() if p.default is p.empty and p.kind not in kinds
        )

    def default_types(self) -> dict[str, TensorType] | None:
        """The types of the example inputs, or those the program was exported with."""
        if self._layout is None:
            return None
        return {leaf.name: leaf.type for leaf in self._layout.tensors if leaf.type is not None}

    def flatten_inputs(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        """The tensor leaves of a call's arguments, in the order of `input_names`; constants must be as compiled."""
        import torch.utils._pytree as pytree

        if self._layout is None:
            return list(bind(self._signature, self.name, args, kwargs)[0])
        bound = bind(self._signature, self.name, args, kwargs)
        leaves, spec = pytree.tree_flatten(bound)
        if spec != self._layout.spec:
            raise InputError(
                f"{self.name}: arguments are laid out as {spec}, the model was compiled for {self._layout.spec}"
            )
        found = []
        for leaf, got in zip(self._layout.leaves, leaves, strict=True):
            if leaf.type is not None:
                found.append(got)
            elif is_tensor_like(got) or got != leaf.constant:
                raise InputError(
                    f"{self.name}: input {leaf.name!r} was compiled as the constant {leaf.constant!r}, got {got!r};"
                    " compile again with this value"
                )
        return found

    def unflatten_outputs(self, outputs: Sequence[Any]) -> Any:
        """The model's own result structure (tuple, dict, ModelOutput, …) around the Graph's outputs, in order."""
        import torch.utils._pytree as pytree

        if self._last is None:
            raise InputError(f"{self.name}: the structure of the results is known after graph() only")
        spec, template = self._last
        feed = iter(outputs)
        leaves = [next(feed) if slot is ... else slot for slot in template]
        try:
            return pytree.tree_unflatten(leaves, spec)
        except (AttributeError, TypeError):  # a container, such as a cache, that takes nothing but torch tensors
            import torch

            return pytree.tree_unflatten([torch.as_tensor(x) if hasattr(x, "dtype") else x for x in leaves], spec)

    @property
    def is_flat(self) -> bool:
        """Whether calls are plain tensors by position and the result one tensor or a plain tuple (after graph())."""
        import torch.utils._pytree as pytree

        if self._layout is None or self._last is None or any(leaf.type is None for leaf in self._layout.leaves):
            return False
        out_spec, template = self._last
        args, kwargs = pytree.tree_unflatten(range(len(self._layout.leaves)), self._layout.spec)
        result = pytree.tree_unflatten(range(len(template)), out_spec)
        parts = result if type(result) is tuple else (result,)
        return (
            not kwargs and all(type(x) is int for x in (*args, *parts)) and all(slot is ... for slot in template)
        )

    # -- the graph --------------------------------------------------------------------------------------------
    def graph(self, types: Mapping[str, TensorType] | None = None) -> Graph:
        """The Graph for exactly these input types (default: those of the example inputs)."""
        with self._lock:
            wanted = dict(types) if types is not None else self.default_types()
            if wanted is None:
                raise InputError(f"{self.name}: give example inputs or the types of {', '.join(self.input_names)}")
            if set(wanted) != set(self.input_names):
                raise InputError(
                    f"{self.name}: types are given for {sorted(wanted)}, the inputs are {sorted(self.input_names)}"
                )
            program, symbols = self._find(wanted)
            graph, template = to_graph(program, symbols, self._arrays, self.name)
            self._last = (program.out_spec, template)
            return graph

    def _find(self, wanted: dict[str, TensorType]) -> tuple[Program, dict[Any, int]]:
        reasons = []
        for _, program in self._programs:
            symbols = bind_symbols(program, wanted)
            if isinstance(symbols, str):
                reasons.append(symbols)
            else:
                return program, symbols
        if self._model is None:
            raise InputError(
                f"{self.name}: the program was exported for other inputs: {reasons[0]}; export it again, or with"
                " dynamic_shapes"
            )
        program = self._export(wanted)
        self._programs.append((wanted, program))
        symbols = bind_symbols(program, wanted)
        if isinstance(symbols, str):  # a dynamic export whose sizes the model itself restricts
            program = self._export(wanted, fixed=True)
            self._programs.append((wanted, program))
            symbols = bind_symbols(program, wanted)
            if isinstance(symbols, str):
                raise InputError(f"{self.name}: {symbols}")
        return program, symbols

    def _export(self, wanted: dict[str, TensorType], fixed: bool = False) -> Program:
        import torch.utils._pytree as pytree

        if self._layout is None:
            args, kwargs = bind(self._signature, self.name, (), wanted)
            self._layout = self._lay_out(args, kwargs)
        layout = self._layout
        dims = {} if fixed else self._dynamic_axes(wanted)
        leaves: list[Any] = []
        shapes: list[Any] = []
        for leaf, example in zip(layout.leaves, layout.examples, strict=True):
            if leaf.type is None:
                leaves.append(example)
                shapes.append(None)
                continue
            axes = dims.get(leaf.name, ())
            type = wanted[leaf.name]
            # torch takes extents 0 and 1 for fixed, so a dynamic axis is traced with another number
            traced = type.with_shape(tuple(max(d, 2) if i in axes else d for i, d in enumerate(type.shape)))
            leaves.append(stand_in(example if describe(example) == traced else traced))
            shapes.append(self._dims(axes))
        args, kwargs = pytree.tree_unflatten(leaves, layout.spec)
        dynamic = None
        if any(shapes):
            by_position, by_name = pytree.tree_unflatten(shapes, layout.spec)
            dynamic = self._dynamic_spec(by_position, by_name)
        assert self._model is not None
        return self._program_of(exporter.export(self._model, args, kwargs, dynamic), decomposed=True)

    def _dynamic_axes(self, wanted: dict[str, TensorType]) -> dict[str, tuple[int, ...]]:
        if self._dynamic is None:
            return {}
        if self._dynamic == "batch":
            return {n: (0,) for n, t in wanted.items() if t.rank}
        unknown = set(self._dynamic) - set(wanted)
        if unknown:
            raise InputError(f"{self.name}: dynamic names {sorted(unknown)}, the inputs are {sorted(wanted)}")
        return {n: tuple(axes) for n, axes in self._dynamic.items()}

    @staticmethod
    def _dims(axes: tuple[int, ...]) -> Any:
        from torch.export import Dim

        return dict.fromkeys(axes, Dim.AUTO) if axes else None

    def _dynamic_spec(self, by_position: tuple[Any, ...], by_name: dict[str, Any]) -> Any:
        assert self._signature is not None
        spec: dict[str, Any] = dict(by_name)
        rest = list(by_position)
        for p in self._signature.parameters.values():
            if p.kind is p.VAR_POSITIONAL:
                if rest:
                    spec[p.name] = tuple(rest)
                rest = []
            elif rest and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD):
                spec[p.name] = rest.pop(0)
            elif p.kind is p.VAR_KEYWORD:
                extra = {k: spec.pop(k) for k in list(by_name) if k not in self._signature.parameters}
                if extra:
                    spec[p.name] = extra
        return spec

    # -- arguments --------------------------------------------------------------------------------------------
    def _split(self, example_inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        example_inputs = shapes_as_types(example_inputs)
        if isinstance(example_inputs, Mapping):
            return self._from_names(example_inputs)
        if is_tensor_like(example_inputs):
            return (example_inputs,), {}
        if isinstance(example_inputs, (tuple, list)):
            return tuple(example_inputs), {}
        raise InputError(f"example inputs are a tuple, or a dict by input name, not {type(example_inputs).__name__}")

    def _from_names(self, named: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if self._signature is None:
            return (), dict(named)
        only = [p.name for p in self._signature.parameters.values() if p.kind is p.POSITIONAL_ONLY and p.name in named]
        return tuple(named[n] for n in only), {k: v for k, v in named.items() if k not in only}

    def _lay_out(self, args: tuple[Any, ...], kwargs: dict[str, Any], names: Sequence[str] = ()) -> _Layout:
        found, leaves, spec = leaf_names(self._signature, args, kwargs, names)
        entries = []
        for name, leaf in zip(found, leaves, strict=True):
            if is_tensor_like(leaf):
                entries.append(_Leaf(name, describe(leaf)))
            elif leaf is None or isinstance(leaf, (bool, int, float, str)):
                entries.append(_Leaf(name, None, leaf))
            else:
                raise InputError(f"{self.name}: input {name!r} is a {type(leaf).__name__}, not a tensor or a constant")
        return _Layout(entries, spec, leaves)

    def _check_examples(self, example_inputs: Any) -> None:
        args, kwargs = self._split(example_inputs)
        if isinstance(example_inputs, Mapping):
            given = {k: describe(v) for k, v in kwargs.items() if is_tensor_like(v)}
        else:
            given = dict(zip(self.input_names, (describe(a) for a in args if is_tensor_like(a))))
        own = self.default_types() or {}
        for name, type in given.items():
            if name not in own:
                raise InputError(f"{self.name}: no input {name!r}; the inputs are {', '.join(self.input_names)}")
            if own[name].rank != type.rank:
                raise InputError(f"{self.name}: input {name!r} was exported as {own[name]}, the example is {type}")
        assert self._layout is not None
        for leaf in self._layout.leaves:
            if leaf.name in given:
                leaf.type = given[leaf.name]

    def _program_of(self, exported: Any, decomposed: bool) -> Program:
        """The Program around an ExportedProgram; lays out the arguments if nothing has yet."""
        import torch
        import torch.utils._pytree as pytree

        if exported.call_spec.in_spec is None or exported.call_spec.out_spec is None:
            raise FormatError(f"{self.name}: the program does not say how its inputs and results are laid out")
        if self._layout is None:
            values = {n.name: n.meta.get("val") for n in exported.graph.nodes if n.op == "placeholder"}
            leaves: list[Any] = []
            for spec in exported.graph_signature.input_specs:
                if spec.kind.name != "USER_INPUT":
                    continue
                val = values.get(getattr(spec.arg, "name", ""))
                if isinstance(val, torch.Tensor):
                    shape = tuple(d if isinstance(d, int) else int(d.node.hint or 2) for d in val.shape)
                    leaves.append(TensorType(shape, ir_dtype(val.dtype)))
                else:
                    leaves.append(getattr(spec.arg, "value", val))
            args, kwargs = pytree.tree_unflatten(leaves, exported.call_spec.in_spec)
            self._layout = self._lay_out(args, kwargs, _argument_names(exported, len(args)))
            self._layout.spec = exported.call_spec.in_spec
        return Program(exported, tuple(leaf.name for leaf in self._layout.leaves))


def _argument_names(exported: Any, count: int) -> list[str]:
    """The names of the positional arguments of forward, as the program recorded them."""
    signature = exported.module_call_graph[0].signature if exported.module_call_graph else None
    names = list(getattr(signature, "forward_arg_names", None) or ())
    if len(names) >= count:
        return names[:count]
    user = [s.arg.name for s in exported.graph_signature.input_specs if s.kind.name == "USER_INPUT"]
    return user[:count] if len(user) == count else []
