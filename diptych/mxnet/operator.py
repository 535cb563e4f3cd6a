"""Operators written in Python by the user: `CustomOp`, `CustomOpProp`, `register`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from diptych.mxnet.base import MXNetError
from diptych.mxnet.context import cpu
from diptych.mxnet.profiling import recorder
from diptych.mxnet.tape import Entry, Node, state

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from diptych.mxnet.ndarray.ndarray import NDArray

__all__ = ["CustomOp", "CustomOpProp", "OperatorArguments", "get_all_registered_operators", "get_operator_arguments", "register"]

_PROPS: dict[str, type[CustomOpProp]] = {}


class CustomOp:
    """What is computed: subclass it with `forward` and `backward`."""

    def forward(self, is_train: bool, req: list[str], in_data: list[Any], out_data: list[Any], aux: list[Any]) -> None:
        """Compute `out_data` (write with `assign`)."""

    def backward(self, req: list[str], out_grad: list[Any], in_data: list[Any], out_data: list[Any], in_grad: list[Any],
                 aux: list[Any]) -> None:  # fmt: skip
        """Compute `in_grad` (write with `assign`)."""

    def assign(self, dst: Any, req: str, src: Any) -> None:
        """Write `src` to `dst` as `req` says: "write", "inplace", "add" or "null"."""
        if req in ("write", "inplace"):
            dst[:] = src
        elif req == "add":
            dst[:] += src


class CustomOpProp:
    """What an operator is: its arguments, outputs, states, and their shapes and types."""

    def __init__(self, need_top_grad: bool = True) -> None:
        self.need_top_grad_ = need_top_grad

    def infer_shape(self, in_shape: list[Any]) -> Any:
        """(argument shapes, output shapes, state shapes); by default all like the first argument."""
        return in_shape, (in_shape[0],) * len(self.list_outputs()), ()

    def infer_type(self, in_type: list[Any]) -> Any:
        """(argument types, output types, state types); by default all like the first argument."""
        return in_type, [in_type[0]] * len(self.list_outputs()), [in_type[0]] * len(self.list_auxiliary_states())

    def infer_storage_type(self, in_stype: list[str]) -> Any:
        """Storage types: all default."""
        return in_stype, ["default"] * len(self.list_outputs()), ["default"] * len(self.list_auxiliary_states())

    def infer_storage_type_backward(self, ograd_stype: list[str], in_stype: list[str], out_stype: list[str], igrad_stype: list[str],
                                    aux_stype: list[str]) -> Any:  # fmt: skip
        """Storage types of arriving gradients, arguments, outputs, gradients to compute and states: these gradients are default."""
        return ograd_stype, in_stype, out_stype, ["default"] * len(igrad_stype), aux_stype

    def list_outputs(self) -> list[str]:
        """The names of the outputs."""
        return ["output"]

    def list_arguments(self) -> list[str]:
        """The names of the arguments."""
        return ["data"]

    def list_auxiliary_states(self) -> list[str]:
        """The names of the states."""
        return []

    def declare_backward_dependency(self, out_grad: list[int], in_data: list[int], out_data: list[int]) -> list[int]:
        """What `backward` needs."""
        return [*(out_grad if self.need_top_grad_ else []), *in_data, *out_data]

    def create_operator(self, ctx: Any, in_shapes: list[Any], in_dtypes: list[Any]) -> CustomOp:
        """The operator for these shapes and types."""
        return CustomOp()


def register(reg_name: str) -> Callable[[type[CustomOpProp]], type[CustomOpProp]]:
    """Register a CustomOpProp class under the name that `op_type` refers to."""

    def decorate(cls: type[CustomOpProp]) -> type[CustomOpProp]:
        if not issubclass(cls, CustomOpProp):
            raise MXNetError(f"{cls} is no CustomOpProp")
        _PROPS[reg_name] = cls
        return cls

    return decorate


def get_all_registered_operators() -> list[str]:
    """The names of all operators, aliases included."""
    from diptych.mxnet.ops.registry import names

    return list(names())


def check_type(attrs: dict[str, str]) -> None:
    """Raise an MXNetError when the custom operator is not registered."""
    name = attrs.get("op_type")
    if name is None:
        raise MXNetError("Custom needs op_type, the name of a registered operator")
    if name not in _PROPS:
        raise MXNetError(f"Cannot find custom operator {name!r}; register its CustomOpProp with "
                         "@mx.operator.register, known: " + ", ".join(sorted(_PROPS)))  # fmt: skip


_made: dict[Any, CustomOpProp] = {}


def property_of(attrs: dict[str, str]) -> CustomOpProp:
    """The property object for these attributes."""
    check_type(attrs)
    given = {k: v for k, v in attrs.items() if k != "op_type" and not k.startswith("__")}
    key = (_PROPS[attrs["op_type"]], json.dumps(given, sort_keys=True))
    if key not in _made:
        make: Any = _PROPS[attrs["op_type"]]
        _made[key] = make(**given)
    return _made[key]


def custom_call(args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
    """`mx.nd.Custom(*data, op_type=..., **attributes)`."""
    from diptych.mxnet.imperative import deliver
    from diptych.mxnet.ndarray.ndarray import NDArray
    from diptych.mxnet.ops.registry import spell

    attrs = {k: spell(v) for k, v in kwargs.items() if not isinstance(v, NDArray)}
    named = {k: v for k, v in kwargs.items() if isinstance(v, NDArray)}
    check_type(attrs)
    prop = property_of(attrs)
    operands = list(args)
    for n in (*prop.list_arguments(), *prop.list_auxiliary_states()):
        if n in named:
            operands.append(named[n])
    results = invoke_custom(operands, attrs)
    if out is not None:
        results = deliver([r._data for r in results], out if isinstance(out, (list, tuple)) else [out])
    return results[0] if len(results) == 1 else results


def invoke_custom(operands: Sequence[NDArray], attrs: dict[str, str]) -> list[NDArray]:
    """Run a custom operator on arrays."""
    from diptych.mxnet.imperative import wrap

    prop = property_of(attrs)
    arguments, states = len(prop.list_arguments()), len(prop.list_auxiliary_states())
    if len(operands) != arguments + states:
        raise MXNetError(f"custom operator {attrs['op_type']} takes {arguments} arguments and {states} states, "
                         f"{len(operands)} arrays were given")  # fmt: skip
    shapes = [list(x.shape) for x in operands[:arguments]]
    out_shapes = prop.infer_shape(shapes)[1]
    found = prop.infer_type([x.dtype for x in operands[:arguments]])
    stored = prop.infer_storage_type([x.stype for x in operands[:arguments]])[1]
    op = prop.create_operator(cpu(0), [tuple(s) for s in shapes], [x.dtype for x in operands[:arguments]])
    outs = [_of_storage(wrap(np.zeros(tuple(int(d) for d in s), np.dtype(t))), k) for s, t, k in zip(out_shapes, found[1], stored)]
    ins, aux = [x.detach() for x in operands[:arguments]], list(operands[arguments:])
    recording, state.recording = state.recording, False
    try:
        with recorder.custom(attrs["op_type"]):
            op.forward(is_train=state.training, req=["write"] * len(outs), in_data=ins, out_data=outs, aux=aux)
            for o in outs:
                o._data  # noqa: B018 (what still waits is part of it)
    except MXNetError:
        raise
    except Exception as error:
        raise MXNetError(f"custom operator {attrs['op_type']}: {error!r} in forward") from error
    finally:
        state.recording = recording
    if recording and any(x._entry is not None for x in operands):
        node = _CustomNode(attrs["op_type"], op, prop, operands, ins, outs, aux)
        results = []
        for i, o in enumerate(outs):
            made = o.detach()
            made._entry = Entry(node, i)
            results.append(made)
        return results
    return outs


def _of_storage(x: NDArray, stype: str) -> NDArray:
    """An array of zeros with a storage type."""
    return x if stype in ("default", "undefined") else x.tostype(stype)


class _CustomNode(Node):
    """A call of a custom operator on the tape."""

    __slots__ = ("aux", "ins", "name", "op", "outs", "prop")

    def __init__(self, name: str, op: CustomOp, prop: CustomOpProp, operands: Sequence[NDArray], ins: list[NDArray],
                 outs: list[NDArray], aux: list[NDArray]) -> None:  # fmt: skip
        super().__init__([x._entry for x in operands], len(outs))
        self.name = name
        self.op, self.prop, self.ins, self.outs, self.aux = op, prop, ins, outs, aux

    def backward(self, arrived: list[NDArray | None], keep: bool) -> list[NDArray | None]:
        from diptych.mxnet.imperative import wrap

        heads = [d if d is not None else wrap(np.zeros(o.shape, o.dtype)) for d, o in zip(arrived, self.outs)]
        kinds = [[x.stype for x in xs] for xs in (heads, self.ins, self.outs, self.ins, self.aux)]
        stored = self.prop.infer_storage_type_backward(*kinds)[3]
        grads = [_of_storage(wrap(np.zeros(x.shape, x.dtype)), k) for x, k in zip(self.ins, stored)]
        req = ["null" if e is None else "write" for e in self.inputs[: len(self.ins)]]
        recording, state.recording = state.recording, False
        try:
            with recorder.custom(f"_backward_{self.name}"):
                self.op.backward(req=req, out_grad=heads, in_data=self.ins, out_data=self.outs, in_grad=grads, aux=self.aux)
        except MXNetError:
            raise
        except Exception as error:
            raise MXNetError(f"custom operator {type(self.op).__name__}: {error!r} in backward") from error
        finally:
            state.recording = recording
        return [*grads, *[None] * len(self.aux)]


class OperatorArguments(NamedTuple):
    """The arguments of an operator: how many, their names, and what they may be."""

    narg: int
    names: list[str]
    types: list[str]


def get_operator_arguments(op_name: str) -> OperatorArguments:
    """The arguments of a registered operator, inputs first.

    >>> get_operator_arguments("Activation").names
    ['data', 'act_type']
    """
    from diptych.mxnet.ops.registry import find

    op = find(op_name)
    names = [*op.inputs, *op.attributes]
    types = ["NDArray-or-Symbol[]" if op.variadic and n == op.inputs[-1] else "NDArray-or-Symbol" for n in op.inputs]
    for a in op.attributes.values():
        kind = "{" + ", ".join(repr(c) for c in a.kind[1:-1].split("|")) + "}" if a.kind.startswith("{") else a.kind
        types.append(f"{kind}, required" if a.default is None else f"{kind}, optional, default={a.default}")
    return OperatorArguments(len(names), names, types)


def __getattr__(name: str) -> Any:
    if name in ("NumpyOp", "NDArrayOp", "PythonOp"):  # the operators of MXNet 0.9, made from these
        from diptych.mxnet import python_op

        return getattr(python_op, name)
    raise AttributeError(f"module 'diptych.mxnet.operator' has no attribute {name!r}")
