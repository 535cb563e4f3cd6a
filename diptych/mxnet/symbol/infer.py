"""What follows from the shapes and element types of some variables for all others (`infer_shape`, `infer_type`)."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.errors import DiptychError, FormatError
from diptych.frontends.mxnet.attributes import Attributes
from diptych.frontends.mxnet.convert import DTYPE_NAMES, Effects, convert_node, dtype_of_name
from diptych.frontends.mxnet.shapes import Inference
from diptych.frontends.mxnet.symbol_schema import output_count
from diptych.ir import TensorType
from diptych.ir.types import dtype_of, numpy_dtype
from diptych.mxnet.autograd import pause
from diptych.mxnet.base import CODE_DTYPES, MXNetError, dtype_name
from diptych.mxnet.imperative import wrap
from diptych.mxnet.ops import live
from diptych.mxnet.ops.prepare import converter_of, run_host
from diptych.mxnet.ops.registry import find
from diptych.mxnet.symbol import backward, infer_control, np_call
from diptych.mxnet.symbol.node import SymNode, shapeless_draw, topological
from diptych.mxnet.tape import state
from diptych.ops.build import Builder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from diptych.mxnet.symbol.symbol import Symbol

__all__ = ["FullInference", "dtypes_of", "infer_shape", "infer_type"]


def _dtype_of_attrs(text: str) -> str:
    return "f32" if text in ("None", "-1") else dtype_of_name(text, "dtype")


class FullInference(Inference):
    """Shape inference over all operators: labels count, and so do operators that only running programs have."""

    rules = backward.RULES

    def _visit(self, i: int) -> None:
        if self.symbol.nodes[i].op in infer_control.CONTROL:
            infer_control.visit(self, i)
        else:
            super()._visit(i)

    def _forward(self, i: int, count: int) -> None:
        node = self.symbol.nodes[i]
        assert node.op is not None
        shapes = [self.shape(e) for e in node.inputs]
        if node.op == "Custom":
            self._custom(i)
            return
        if any(s is None for s in shapes):
            return
        if node.op == np_call.OP:
            with pause():
                given = [wrap(np.ones(s, numpy_dtype(self.dtype(e)))) for e, s in zip(node.inputs, shapes) if s is not None]
                for k, y in enumerate(np_call.run(node.attrs, given)):
                    self._refine((i, k), y.shape, node.name)
                    self._dtypes[i, k] = dtype_of(y._data)
            self._forward_done.add(i)
            return
        if node.op in live.HOSTS:
            if node.op in live.HOST_SHAPES:
                made = live.HOST_SHAPES[node.op](Attributes(node.op, node.name, node.attrs), *shapes)
                for k, result in enumerate(made):
                    self._refine((i, k), tuple(result), node.name)
                    self._dtypes[i, k] = self.dtype(node.inputs[0])
                self._forward_done.add(i)
                return
            arrays = [np.ones(s, numpy_dtype(self.dtype(e))) for e, s in zip(node.inputs, shapes) if s is not None]
            for k, array in enumerate(run_host(node.op, node.attrs, arrays)):
                self._refine((i, k), array.shape, node.name)
                self._dtypes[i, k] = dtype_of(array)
            self._forward_done.add(i)
            return
        if shapeless_draw(node.op, node.attrs) and self.shape((i, 0)) is None and not self.symbol.is_np_shape:
            self._dtypes[i, 0] = _dtype_of_attrs(node.attrs.get("dtype", "None"))
            return  # what uses it will tell the shape, in a later sweep
        converter = converter_of(node.op, False)
        if converter is None:
            raise FormatError(f"the operator {node.op} (layer {node.name}) is not supported")
        g = Builder()
        operands = tuple(g.input(f"x{k}", TensorType(s, self.dtype(e)))
                         for k, (e, s) in enumerate(zip(node.inputs, shapes)) if s is not None)  # fmt: skip
        try:
            results = convert_node(g, node, operands, count, self.shape((i, 0)), self.symbol.is_np_shape, Effects(), converter)
        except DiptychError:
            if shapes:
                raise
            return  # a creation operator whose shape a consumer will tell in a later sweep
        for k, value in enumerate(results[:count] if node.op not in live.OPEN_COUNT else results):
            self._refine((i, k), value.shape, node.name)
            self._dtypes[i, k] = value.dtype
        self._forward_done.add(i)

    def _custom(self, i: int) -> None:
        from diptych.mxnet.operator import property_of

        node = self.symbol.nodes[i]
        prop = property_of(node.attrs)
        arguments = len(prop.list_arguments())
        shapes = [self.shape(e) or () for e in node.inputs[:arguments]]
        if not any(shapes):
            return
        found = prop.infer_shape([list(s) for s in shapes])
        ins, outs, states = (found if len(found) == 3 else (*found, []))
        for e, s in zip(node.inputs, (*ins, *states)):
            self._refine(e, tuple(s) or None, node.name)
        for k, s in enumerate(outs):
            self._refine((i, k), tuple(s), node.name)


def _known(symbol: Symbol, args: Sequence[Any], kwargs: dict[str, Any], what: str) -> dict[str, Any]:
    if args and kwargs:
        raise ValueError(f"{what} of arguments: in order or by name, not both at once")
    names = symbol.list_arguments()
    if len(args) > len(names):
        raise MXNetError(f"{len(args)} {what}s given for {len(names)} arguments")
    return {k: v for k, v in (dict(zip(names, args)) | kwargs).items() if v is not None}


def infer_shape(symbol: Symbol, partial: bool, args: Sequence[Any], kwargs: dict[str, Any],
                types: dict[str, Any] | None = None) -> Any:  # fmt: skip
    """The three lists of `Symbol.infer_shape`; `types`: element types of variables, where they are known too."""
    known = _known(symbol, args, kwargs, "shape")
    for k, v in known.items():
        if not isinstance(v, (tuple, list)):
            raise TypeError(f"{k}: a shape is a tuple, not {type(v)}")
    graph = symbol.graph()
    try:
        found = FullInference(graph, {k: tuple(int(d) for d in v) for k, v in known.items()})
        found._dtypes.update({(i, 0): DTYPE_NAMES[t] for i, t in _variable_dtypes(symbol, {k: dtype_name(t) for k, t in (types or {}).items()}).items() if t})
        found.run()
    except DiptychError as error:
        raise MXNetError(f"Error in operator: {error}") from error
    gap = -1 if state.np_shape else 0

    def shown(entry: tuple[int, int]) -> Any:
        shape = found.partial(entry)
        if shape is None:
            return None if state.np_shape else ()
        return tuple(gap if d is None else d for d in shape)

    index = {graph.nodes[i].name: (i, 0) for i in graph.arg_nodes}
    arguments = [shown(index[n]) for n in symbol.list_arguments()]
    outputs = [shown(h) for h in graph.heads]
    states = [shown(index[n]) for n in symbol.list_auxiliary_states()]
    entries = [*(index[n] for n in symbol.list_inputs()), *graph.heads]
    complete = all(found.shape(e) is not None for e in entries)
    if partial or complete:
        return arguments, outputs, states
    missing = [n for n in symbol.list_arguments() if found.shape(index[n]) is None]
    warnings.warn("these shapes do not follow from those given (0 where an extent is unknown), "
                  "name them too:\n\t" + "\n\t".join(missing[:10]), stacklevel=3)  # fmt: skip
    return None, None, None


# -- element types ----------------------------------------------------------------------------------------------------
Types = list["str | None"]


def _like(ins: Types, outs: Types) -> None:
    """All operands and results of one type."""
    found = next((t for t in (*ins, *outs) if t), None)
    if found:
        ins[:] = [t or found for t in ins]
        outs[:] = [t or found for t in outs]


def _like_first(free: int) -> Callable[[SymNode, Types, Types], None]:
    """One type for results and operands, but for operand `free`."""

    def rule(n: SymNode, ins: Types, outs: Types) -> None:
        others = [t for i, t in enumerate(ins) if i != free]
        _like(others, outs)
        it = iter(others)
        ins[:] = [t if i == free else next(it) for i, t in enumerate(ins)]

    return rule


def _stated(default: str | None, key: str = "dtype") -> Callable[[SymNode, Types, Types], None]:
    """Results of the type that an attribute names; operands of any."""

    def rule(n: SymNode, ins: Types, outs: Types) -> None:
        text = n.attrs.get(key, "None")
        chosen = default if text in ("None", "-1") else CODE_DTYPES.get(int(text)) if text.isdigit() else text
        if chosen is None:
            _like(ins, outs)
        else:
            outs[:] = [chosen] * len(outs)

    return rule


def _batch_norm(n: SymNode, ins: Types, outs: Types) -> None:
    data = ins[0] or outs[0]
    if data:
        ins[0] = outs[0] = data
        rest = "float32" if data == "float16" else data
        ins[1:] = [t or rest for t in ins[1:]]
        outs[1:] = [t or rest for t in outs[1:]]


def _embedding(n: SymNode, ins: Types, outs: Types) -> None:
    chosen = n.attrs.get("dtype", "float32")
    ins[0] = ins[0] or chosen
    ins[1] = ins[1] or chosen
    outs[0] = chosen


def _topk(n: SymNode, ins: Types, outs: Types) -> None:
    chosen, kind = n.attrs.get("dtype", "float32"), n.attrs.get("ret_typ", "indices")
    if kind == "indices":
        outs[0] = chosen
    elif ins[0]:
        outs[0] = ins[0]
    if kind == "both":
        outs[1] = chosen


def _fixed(name: str) -> Callable[[SymNode, Types, Types], None]:
    def rule(n: SymNode, ins: Types, outs: Types) -> None:
        outs[:] = [name] * len(outs)

    return rule


def _custom(n: SymNode, ins: Types, outs: Types) -> None:
    from diptych.mxnet.operator import property_of

    prop = property_of(n.attrs)
    arguments = len(prop.list_arguments())
    if any(t is None for t in ins[:arguments]):
        _like(ins, [])
    if any(t is None for t in ins[:arguments]):
        return
    found = prop.infer_type([np.dtype(t).type for t in ins[:arguments]])
    names = [[dtype_name(t) for t in group] for group in found]
    ins[: len(names[0])] = names[0]
    ins[arguments:] = names[2] if len(names) > 2 else []
    outs[:] = names[1]


_RULES: dict[str, Callable[[SymNode, Types, Types], None]] = {
    "Cast": _stated("float32"), "amp_cast": _stated("float32"), "one_hot": _stated("float32"), "argsort": _stated("float32"),
    "topk": _topk, "Embedding": _embedding, "BatchNorm": _batch_norm, "_contrib_SyncBatchNorm": _batch_norm,
    "BatchNorm_v1": _batch_norm, "take": _like_first(1), "pick": _like_first(1), "gather_nd": _like_first(1),
    "scatter_nd": _like_first(1), "batch_take": _like_first(1), "where": _like_first(0), "SequenceMask": _like_first(1),
    "SequenceLast": _like_first(1), "SequenceReverse": _like_first(1), "shape_array": _fixed("int64"),
    "size_array": _fixed("int64"), "_contrib_index_array": _fixed("int64"), "_sample_multinomial": _stated("int32"),
    "Custom": _custom, "softmax": _stated(None), "log_softmax": _stated(None), "reshape_like": _like_first(1),
    "slice_like": _like_first(1), "broadcast_like": _like_first(1), "_contrib_boolean_mask": _like_first(1),
}  # fmt: skip


def _rule(n: SymNode, ins: Types, outs: Types) -> None:
    assert n.op is not None
    if n.op in _RULES:
        _RULES[n.op](n, ins, outs)
    elif not ins:
        _stated("float32")(n, ins, outs)
    elif n.op.startswith(("_npi_", "_np_", "_npx_")) and "dtype" in find(n.op).attributes:
        _stated(None)(n, ins, outs)
    elif not n.subgraphs:
        _like(ins, outs)


def dtypes_of(symbol: Symbol, known: dict[str, str]) -> dict[tuple[int, int], str]:
    """The element types that follow from those of some variables, by (place in the graph, result)."""
    order = topological(symbol._heads)
    place = {id(n): i for i, n in enumerate(order)}
    found: dict[tuple[int, int], str] = {}
    for i, n in enumerate(order):
        if n.op is None:
            flag = n.user.get("__dtype__")
            if n.name in known:
                found[i, 0] = known[n.name]
            elif flag is not None and flag != "-1":
                found[i, 0] = CODE_DTYPES[int(flag)]
    for _ in range(8):
        before = len(found)
        for i, n in [*enumerate(order), *reversed(list(enumerate(order)))]:
            if n.op is None:
                continue
            entries = [(place[id(m)], k) for m, k in n.inputs]
            ins: Types = [found.get(e) for e in entries]
            outs: Types = [found.get((i, k)) for k in range(output_count(n.op, n.attrs) if n.op != "Custom" else n.outputs())]
            _rule(n, ins, outs)
            found.update({e: t for e, t in zip(entries, ins) if t})
            found.update({(i, k): t for k, t in enumerate(outs) if t})
        if len(found) == before:
            break
    return found


def _variable_dtypes(symbol: Symbol, known: dict[str, str]) -> dict[int, str | None]:
    found = dtypes_of(symbol, known)
    return {i: found.get((i, 0)) for i, n in enumerate(topological(symbol._heads)) if n.op is None}


def infer_type(symbol: Symbol, args: Sequence[Any], kwargs: dict[str, Any], partial: bool = False) -> Any:
    """The three lists of `Symbol.infer_type`; when some stay unknown None for them (`partial`) or three times None."""
    known = {k: dtype_name(v) for k, v in _known(symbol, args, kwargs, "type").items()}
    found = dtypes_of(symbol, known)
    order = topological(symbol._heads)
    place = {id(n): i for i, n in enumerate(order)}
    index = {n.name: (i, 0) for i, n in enumerate(order) if n.op is None}

    def types(entries: list[tuple[int, int]]) -> list[Any] | None:
        names = [found.get(e) for e in entries]
        return [np.dtype(t).type if t else None for t in names] if partial or all(names) else None

    groups = (types([index[n] for n in symbol.list_arguments()]), types([(place[id(n)], k) for n, k in symbol._heads]),
              types([index[n] for n in symbol.list_auxiliary_states()]))  # fmt: skip
    return (None, None, None) if any(g is None for g in groups) else groups


