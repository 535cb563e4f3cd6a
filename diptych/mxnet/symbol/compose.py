"""Make operator nodes: arguments bound by the signature, names found, missing inputs made variables."""

from __future__ import annotations

from typing import Any

from diptych.errors import FormatError
from diptych.frontends.mxnet.symbol_schema import initializer, input_names
from diptych.mxnet import attribute
from diptych.mxnet import name as naming
from diptych.mxnet.base import MXNetError
from diptych.mxnet.ops.registry import Operator, bind, find
from diptych.mxnet.symbol.node import HIDDEN, Entry, SymNode

__all__ = ["compose", "inputs_of"]

# Inputs that an operator takes only when an attribute says so.
_WHEN_GIVEN = {"_histogram": "bins", "_contrib_BilinearResize2D": "like"}  # inputs that are there only when given
_OPTIONAL: dict[str, tuple[str, str]] = {
    "softmax": ("length", "use_length"), "CTCLoss": ("label_lengths", "use_label_lengths"),
}  # fmt: skip


def inputs_of(op: Operator, attrs: dict[str, str]) -> tuple[str, ...] | None:
    """The names of the inputs that the operator takes with these attributes; None for any number."""
    try:
        found = input_names(op.name, attrs)
    except FormatError as error:
        raise MXNetError(str(error)) from error
    if found is not None:
        return found
    if op.name == "UpSampling":
        return None
    if op.name == "CTCLoss":
        flags = [attrs.get(k, "False") in ("True", "true", "1") for k in ("use_data_lengths", "use_label_lengths")]
        return ("data", "label", *(n for n, on in zip(("data_lengths", "label_lengths"), flags) if on))
    if op.name == "softmax":
        return ("data", "length") if attrs.get("use_length", "False") in ("True", "true", "1") else ("data",)
    if op.name == "Custom":
        from diptych.mxnet.operator import property_of

        prop = property_of(attrs)
        return (*prop.list_arguments(), *prop.list_auxiliary_states())
    if op.variadic or op.name.startswith(("_npi", "_np_", "_npx")):
        return None
    return op.inputs


def compose(op_name: str, args: tuple[Any, ...], kwargs: dict[str, Any], symbol: type) -> list[Entry]:
    """The entries of a new node of that operator (called by any of its names); the visible results."""
    op = find(op_name)
    kwargs.pop("out", None)
    attr, name = kwargs.pop("attr", None), kwargs.pop("name", None)
    ctx = kwargs.get("ctx")
    if ctx is not None:
        kwargs["ctx"] = str(ctx)
    user = attribute.current().get(attr)
    if any(not isinstance(v, str) for v in user.values()):
        raise ValueError(f"attributes need to be text, not {user}")
    given, attrs, named = bind(op, args, kwargs, symbol)
    given = [x for x in given if x is not None]
    for x in (*given, *named.values()):
        if not isinstance(x, symbol):
            raise TypeError(f"{op_name}: Compose expects Symbols as inputs, got {type(x)}")
    hidden: dict[str, str] = {}
    for key in [k for k in attrs if k in HIDDEN or (k.startswith("__") and k.endswith("__"))]:
        hidden[key if key.startswith("__") else f"__{key}__"] = attrs.pop(key)
    for key, value in user.items():
        ending = next((k for k in HIDDEN if key.endswith(f"_{k}") and key != k and not key.startswith("__")), None)
        if ending:
            raise MXNetError(f"{key}={value}: give the variable its attribute, "
                             f"w = Variable(name, {ending}={value}), and the operator {key[: -len(ending) - 1]}=w")  # fmt: skip
        if key in HIDDEN:
            hidden[f"__{key}__"] = value
        elif key.startswith("__") and key.endswith("__"):
            hidden[key] = value
        else:
            attrs[key] = value
    if op.name == "Custom":
        from diptych.mxnet.operator import check_type

        check_type(attrs)
    elif op.count_key and op.count_key not in attrs:
        attrs[op.count_key] = str(len(given) + len(named))
    op.checked(attrs)
    name = naming.current().get(name, op_name.removeprefix("_contrib_").removeprefix("_linalg_").lower())
    node = SymNode(op.name, name, attrs=attrs, user=hidden)
    node.inputs = _operands(op, node, given, named)
    return [(node, k) for k in range(node.outputs())]


def _single(x: Any, op: str) -> Entry:
    if len(x._heads) != 1:
        raise MXNetError(f"{op}: an input has {len(x._heads)} outputs; choose one of them, as in x[0]")
    found: Entry = x._heads[0]
    return found


def _operands(op: Operator, node: SymNode, given: list[Any], named: dict[str, Any]) -> list[Entry]:
    names = inputs_of(op, node.attrs)
    if names is None:
        if op.variadic:
            expanded = [e for x in given for e in x._heads]
            return expanded + [_single(x, op.name) for x in named.values()]
        places = dict(zip(op.inputs, given)) | named
        return [_single(places[n], op.name) for n in op.inputs if n in places]
    if len(given) > len(names):
        raise MXNetError(f"{op.name} takes {', '.join(names)}; {len(given)} were given")
    if unknown := set(named) - set(names):
        raise MXNetError(f"{op.name} has no input {', '.join(sorted(unknown))}; its inputs are {', '.join(names)}")
    if given and any(names.index(k) < len(given) for k in named):
        raise MXNetError(f"{op.name}: an input is given twice")
    places = dict(zip(names, given)) | named
    out: list[Entry] = []
    for i, n in enumerate(names):
        if n not in places and n == _WHEN_GIVEN.get(op.name):
            continue
        if n in places:
            out.append(_single(places[n], op.name))
            continue
        variable = SymNode(None, f"{node.name}_{n}", user={**node.attrs, **node.user})
        if (init := initializer(op.name, i)) and "__init__" not in variable.user:
            variable.user["__init__"] = init
        out.append((variable, 0))
    for i, (source, _) in enumerate(out):
        if source.op is None and (init := initializer(op.name, i)) and "__init__" not in source.user:
            source.user["__init__"] = init
    return out
