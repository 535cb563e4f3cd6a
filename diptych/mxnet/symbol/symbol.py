"""Symbol: a graph under construction, one or more of its values chosen as outputs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diptych.errors import DiptychError
from diptych.frontends.mxnet.symbol_json import read_symbol, write_symbol
from diptych.mxnet.base import DTYPE_CODES, MXNetError, NotImplementedForSymbol, dtype_name
from diptych.mxnet.ndarray.fluent import METHODS
from diptych.mxnet.symbol import infer
from diptych.mxnet.symbol.arithmetic import Arithmetic
from diptych.mxnet.symbol.node import SymNode, freeze, thaw, topological

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from diptych.frontends.mxnet.symbol_graph import SymbolGraph
    from diptych.mxnet.symbol.node import Entry

__all__ = ["Group", "Symbol", "Variable", "fromjson", "load", "load_json", "var"]


class Symbol(Arithmetic):
    """A symbolic expression.

    >>> from diptych.mxnet import sym
    >>> net = sym.FullyConnected(sym.Variable("data"), num_hidden=3, name="fc")
    >>> net.list_arguments(), net.infer_shape(data=(2, 4))[1]
    (['data', 'fc_weight', 'fc_bias'], [(2, 3)])
    """

    __slots__ = ("__weakref__", "_heads", "_prepared")
    _heads: list[Entry]
    _prepared: dict[Any, Any]  # what `symbol.run` has made of it, by operand types

    def __init__(self, heads: Sequence[Entry]) -> None:
        self._heads = list(heads)
        self._prepared = {}

    def __repr__(self) -> str:
        name = self.name
        if name is None:
            return f"<{type(self).__name__} group [{', '.join(i.name or '' for i in self)}]>"
        return f"<{type(self).__name__} {name}>"

    def __iter__(self) -> Iterator[Symbol]:
        return (self[i] for i in range(len(self)))

    def __len__(self) -> int:
        return len(self._heads)

    def __getitem__(self, index: Any) -> Symbol:
        if isinstance(index, slice):
            return Group([self[i] for i in range(*index.indices(len(self)))])
        if isinstance(index, str):
            matches = [i for i, n in enumerate(self.list_outputs()) if n == index]
            if len(matches) > 1:
                raise ValueError(f'several outputs are named "{index}": take them by number')
            if not matches:
                raise ValueError(f"no output is named {index}; there are {', '.join(self.list_outputs()[:8])}")
            index = matches[0]
        if not isinstance(index, int):
            raise TypeError("outputs of a symbol are taken by number or name")
        if not -len(self) <= index < len(self):
            raise IndexError(f"output {index} of {len(self)}")
        return type(self)([self._heads[index]])

    # -- copies and pickles -----------------------------------------------------------------------------------
    def __copy__(self) -> Symbol:
        return self.__deepcopy__(None)

    def __deepcopy__(self, memo: Any) -> Symbol:
        return type(self)(_copied(self._heads))

    def __reduce__(self) -> Any:
        return load_json, (self.tojson(),)

    def __call__(self, *args: Any, **kwargs: Any) -> Symbol:
        """The expression with other symbols put in for its variables (by order or by name)."""
        made = self.__copy__()
        made._compose(*args, **kwargs)
        return made

    def _compose(self, *args: Any, **kwargs: Any) -> None:
        name = kwargs.pop("name", None)
        if args and kwargs:
            raise TypeError("compose: inputs in order or by name, not both at once")
        if not all(isinstance(x, Symbol) for x in (*args, *kwargs.values())):
            raise TypeError("compose: the inputs are symbols")
        variables = [n for n in topological(self._heads) if n.op is None]
        if len(args) > len(variables):
            raise MXNetError(f"{len(args)} symbols given for {len(variables)} variables")
        given = dict(zip((n.name for n in variables), args)) | kwargs
        self._prepared = {}
        if unknown := set(given) - {n.name for n in variables}:
            raise MXNetError(f"the symbol has no variable named {', '.join(sorted(unknown))}")
        if name and len(self._heads) == 1 and self._heads[0][0].op is not None:
            self._heads[0][0].name = name
        for node in topological(self._heads):
            node.inputs = [given[m.name]._heads[0] if m.op is None and m.name in given else (m, k) for m, k in node.inputs]
        self._heads = [given[m.name]._heads[0] if m.op is None and m.name in given else (m, k) for m, k in self._heads]

    # -- attributes -------------------------------------------------------------------------------------------
    @property
    def name(self) -> str | None:
        """The name of the node; None for a group."""
        nodes = {id(n) for n, _ in self._heads}
        return self._heads[0][0].name if len(nodes) == 1 else None

    def attr(self, key: str) -> str | None:
        """An attribute of the node; None when it has no such."""
        return self._heads[0][0].get(key) if len({id(n) for n, _ in self._heads}) == 1 else None

    def list_attr(self, recursive: bool = False) -> dict[str, str]:
        """The attributes of the node."""
        if recursive:
            raise DeprecationWarning("list_attr is of one symbol: attr_dict has those of all that it is made of")
        return self._heads[0][0].shown()

    def attr_dict(self) -> dict[str, dict[str, str]]:
        """The attributes of all nodes that have any, by node name."""
        return {n.name: n.shown() for n in topological(self._heads) if n.shown()}

    def _set_attr(self, **kwargs: str) -> None:
        for key, value in kwargs.items():
            if not isinstance(value, str):
                raise ValueError("the values of attributes are strings")
            self._heads[0][0].set_user(key, value)

    # -- structure --------------------------------------------------------------------------------------------
    def graph(self) -> SymbolGraph:
        """The expression as the frozen graph of a symbol file."""
        return freeze(self._heads)

    def get_internals(self) -> Symbol:
        """All values of the expression as one group."""
        return type(self)([(n, k) for n in topological(self._heads) for k in range(n.outputs())])

    def get_children(self) -> Symbol | None:
        """The operands of the node as a group; None for a variable."""
        entries: list[Entry] = []
        for node in dict.fromkeys(n for n, _ in self._heads):
            entries += node.inputs
        return type(self)(entries) if entries else None

    def _states(self) -> set[int]:
        return {id(n.inputs[p][0]) for n in topological(self._heads) for p in n.written() if n.inputs[p][0].op is None}

    def list_arguments(self) -> list[str]:
        """The names of the variables that are not auxiliary states, in the order of `bind`."""
        states = self._states()
        return [n.name for n in topological(self._heads) if n.op is None and id(n) not in states]

    def list_auxiliary_states(self) -> list[str]:
        """The names of the variables that operators write to."""
        states = self._states()
        return [n.name for n in topological(self._heads) if n.op is None and id(n) in states]

    def list_inputs(self) -> list[str]:
        """The names of all variables."""
        return [n.name for n in topological(self._heads) if n.op is None]

    def list_outputs(self) -> list[str]:
        """The names of the outputs."""
        return [n.output_name(k) for n, k in self._heads]

    @property
    def num_outputs(self) -> int:
        """The number of outputs."""
        return len(self._heads)

    # -- inference --------------------------------------------------------------------------------------------
    def infer_shape(self, *args: Any, **kwargs: Any) -> Any:
        """Shapes of arguments, outputs and auxiliary states from some of them; three times None when some stay unknown."""
        return infer.infer_shape(self, False, args, kwargs)

    def infer_shape_partial(self, *args: Any, **kwargs: Any) -> Any:
        """As infer_shape, with what stays unknown as () or 0."""
        return infer.infer_shape(self, True, args, kwargs)

    def infer_type(self, *args: Any, **kwargs: Any) -> Any:
        """Element types of arguments, outputs and auxiliary states from some of them."""
        return infer.infer_type(self, args, kwargs)

    def infer_type_partial(self, *args: Any, **kwargs: Any) -> Any:
        """As infer_type, with None for what stays unknown."""
        return infer.infer_type(self, args, kwargs, partial=True)

    def _gen_atomic_symbol(self) -> Symbol:
        node = self._heads[0][0]
        alone = SymNode(node.op, node.name, attrs=node.attrs, user=node.user, subgraphs=node.subgraphs)
        return Symbol([(alone, k) for k in range(len(self._heads))])

    # -- files ------------------------------------------------------------------------------------------------
    def tojson(self, remove_amp_cast: bool = True) -> str:
        """The text of a symbol file, as MXNet 1.9.1 writes it."""
        try:
            return write_symbol(self.graph())
        except DiptychError as error:
            raise MXNetError(str(error)) from error

    def save(self, fname: str | os.PathLike[str], remove_amp_cast: bool = True) -> None:
        """Write a symbol file."""
        if not isinstance(fname, (str, os.PathLike)):
            raise TypeError("the file is given by its name, a string")
        Path(fname).write_text(self.tojson(), encoding="utf-8")

    def debug_str(self) -> str:
        """The nodes, one after another, readable."""
        lines = [f"\toutput[{i}]={n.name}({k})" for i, (n, k) in enumerate(self._heads)]
        out = "Symbol Outputs:\n" + "\n".join(lines) + "\n"
        for n in topological(self._heads):
            if n.op is None:
                out += f"Variable:{n.name}\n"
                continue
            out += f"--------------------\nOp:{n.op}, Name={n.name}\nInputs:\n"
            out += "".join(f"\targ[{i}]={m.name}({k})\n" for i, (m, k) in enumerate(n.inputs))
            if n.attrs:
                out += "Attrs:\n" + "".join(f"\t{key}={value}\n" for key, value in sorted(n.attrs.items()))
        return out

    # -- execution --------------------------------------------------------------------------------------------
    def bind(self, ctx: Any, args: Any, args_grad: Any = None, grad_req: Any = "write", aux_states: Any = None,
             group2ctx: Any = None, shared_exec: Any = None) -> Any:  # fmt: skip
        """An Executor on these arrays."""
        from diptych.mxnet.executor import bind

        return bind(self, ctx, args, args_grad, grad_req, aux_states)

    def simple_bind(self, ctx: Any = None, grad_req: Any = "write", type_dict: Any = None, stype_dict: Any = None,
                    group2ctx: Any = None, shared_arg_names: Any = None, shared_exec: Any = None,
                    shared_buffer: Any = None, **kwargs: Any) -> Any:  # fmt: skip
        """An Executor on new arrays, whose shapes follow from those given."""
        from diptych.mxnet.executor import simple_bind

        return simple_bind(self, ctx, grad_req, type_dict, shared_exec, shared_buffer, kwargs)

    def eval(self, ctx: Any = None, **kwargs: Any) -> Any:
        """The values of the outputs for these arrays, as a list."""
        return self.bind(ctx, kwargs).forward()

    def gradient(self, wrt: Any) -> Any:
        """An error: take gradients through an executor or autograd."""
        raise MXNetError("Symbol.gradient is not supported; use bind(...).backward() or autograd")

    grad = gradient

    def optimize_for(self, backend: str, *args: Any, **kwargs: Any) -> Symbol:
        """An error: other backends are not supported."""
        raise MXNetError(f"backend {backend!r} is not registered; symbols are compiled by diptych itself")

    get_backend_symbol = optimize_for

    # -- methods ----------------------------------------------------------------------------------------------
    def reshape(self, *shape: Any, **kwargs: Any) -> Any:
        """The operator Reshape."""
        if shape:
            kwargs["shape"] = tuple(shape[0]) if isinstance(shape[0], (list, tuple)) else shape
        return _function("reshape")(self, **kwargs)

    def transpose(self, *axes: Any, **kwargs: Any) -> Any:
        """The operator transpose."""
        if axes:
            kwargs["axes"] = tuple(axes[0]) if isinstance(axes[0], (list, tuple)) else axes
        return _function("transpose")(self, **kwargs)

    def astype(self, dtype: Any, **kwargs: Any) -> Any:
        """The operator Cast."""
        return _function("cast")(self, dtype=dtype_name(dtype), **kwargs)

    def flatten(self, inplace: bool = False, **kwargs: Any) -> Any:
        """The operator Flatten."""
        return _function("flatten")(self, **kwargs)

    def expand_dims(self, axis: int, inplace: bool = False, **kwargs: Any) -> Any:
        """The operator expand_dims."""
        return _function("expand_dims")(self, axis=axis, **kwargs)

    def squeeze(self, axis: Any = None, inplace: bool = False, **kwargs: Any) -> Any:
        """The operator squeeze."""
        return _function("squeeze")(self, axis=axis, **kwargs)

    def split_v2(self, *args: Any, **kwargs: Any) -> Any:
        """The operator split_v2."""
        from diptych.mxnet import symbol

        return symbol.split_v2(self, *args, **kwargs)

    def as_np_ndarray(self) -> Symbol:
        """The symbol for the NumPy-like interface."""
        from diptych.mxnet.symbol.np_symbol import NumpySymbol

        return NumpySymbol(self._heads)

    def as_nd_ndarray(self) -> Symbol:
        """The symbol for the classic interface."""
        return self if type(self) is Symbol else Symbol(self._heads)

    def _refused(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedForSymbol(self._refused, None)

    wait_to_read = asnumpy = asscalar = copy = as_in_context = detach = backward = _refused


def _function(name: str) -> Any:
    from diptych.mxnet.symbol.register import function

    return function(name)


def _method(name: str) -> Any:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return _function(name)(self, *args, **kwargs)

    method.__name__ = name
    method.__doc__ = f"`mx.sym.{name}` of this symbol."
    return method


for _name in METHODS:
    setattr(Symbol, _name, _method(_name))


def _copied(heads: Sequence[Entry]) -> list[Entry]:
    made: dict[int, SymNode] = {}
    for n in topological(heads):
        made[id(n)] = SymNode(n.op, n.name, [(made[id(m)], k) for m, k in n.inputs], n.attrs, n.user, n.subgraphs)
    return [(made[id(n)], k) for n, k in heads]


def var(name: str, attr: Any = None, shape: Any = None, lr_mult: Any = None, wd_mult: Any = None, dtype: Any = None,
        init: Any = None, stype: str | None = None, profiler_scope: Any = None, **kwargs: Any) -> Symbol:  # fmt: skip
    """A variable: an input of the graph."""
    from diptych.mxnet import attribute

    if not isinstance(name, str):
        raise TypeError("the name of a variable is a string")
    found = attribute.current().get(attr)
    if shape is not None:
        found["__shape__"] = str(tuple(shape) if isinstance(shape, list) else shape)
    if lr_mult is not None:
        found["__lr_mult__"] = str(lr_mult)
    if wd_mult is not None:
        found["__wd_mult__"] = str(wd_mult)
    if dtype is not None:
        found["__dtype__"] = str(DTYPE_CODES[dtype_name(dtype)])
    if init is not None:
        found["__init__"] = init if isinstance(init, str) else init.dumps()
    if stype is not None:
        found["__storage_type__"] = str({"default": 0, "row_sparse": 1, "csr": 2}[stype])
    for key, value in kwargs.items():
        if not (key.startswith("__") and key.endswith("__")):
            raise ValueError(f"{key} is no attribute of a variable: names of your own are written with "
                             f"two strokes at both ends, __{key}__")  # fmt: skip
        found[key] = str(value)
    made = Symbol([(SymNode(None, name), 0)])
    made._set_attr(**found)
    return made


Variable = var


def Group(symbols: Any, create_fn: Any = Symbol) -> Symbol:
    """Several symbols as one with all their outputs."""
    symbols = list(symbols)
    if not symbols or any(not isinstance(s, Symbol) for s in symbols):
        raise TypeError("Group takes a list of symbols")
    return create_fn([h for s in symbols for h in s._heads])  # type: ignore[no-any-return]


def load(fname: str | os.PathLike[str]) -> Symbol:
    """The symbol of a file."""
    if not isinstance(fname, (str, os.PathLike)):
        raise TypeError("the file is given by its name, a string")
    try:
        return Symbol(thaw(read_symbol(Path(fname))))
    except DiptychError as error:
        raise MXNetError(str(error)) from error


def load_json(json_str: str) -> Symbol:
    """The symbol of the text of a file."""
    if not isinstance(json_str, str):
        raise TypeError("the file is given by its name, a string")
    try:
        return Symbol(thaw(read_symbol(json_str)))
    except DiptychError as error:
        raise MXNetError(str(error)) from error


fromjson = load_json
