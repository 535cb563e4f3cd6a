"""SymbolBlock: a block made from a graph that is there already."""

from __future__ import annotations

from typing import Any

from diptych.mxnet import symbol
from diptych.mxnet.base import MXNetError
from diptych.mxnet.gluon.block import Block
from diptych.mxnet.gluon.hybrid import HybridBlock
from diptych.mxnet.gluon.parameter_dict import ParameterDict
from diptych.mxnet.gluon.scope import flatten, regroup
from diptych.mxnet.ndarray.ndarray import NDArray
from diptych.mxnet.symbol.symbol import Symbol

__all__ = ["SymbolBlock"]


class SymbolBlock(HybridBlock):
    """A block made from a symbol, as `imports` reads it from files of `export` or a Module.

    >>> from diptych.mxnet import gluon, nd, sym
    >>> x = sym.var("data")
    >>> net = gluon.SymbolBlock(sym.FullyConnected(x, num_hidden=3, name="fc"), x)
    >>> net.initialize()
    >>> net(nd.ones((2, 4))).shape
    (2, 3)
    """

    _tells_unused = False  # a graph from a file may hold parameters that nothing needs

    @staticmethod
    def imports(symbol_file: str, input_names: Any, param_file: str | None = None, ctx: Any = None, allow_missing: bool = False,
                ignore_extra: bool = False) -> SymbolBlock:  # fmt: skip
        """The block of a symbol file, with the parameters of a file when one is given."""
        sym = symbol.load(symbol_file)
        names = [input_names] if isinstance(input_names, str) else list(input_names)
        block = SymbolBlock(sym, [symbol.var(n) for n in names])
        if param_file is not None:
            block.collect_params().load(param_file, ctx, allow_missing, ignore_extra, cast_dtype=True, dtype_source="saved")
        return block

    def __init__(self, outputs: Any, inputs: Any, params: ParameterDict | None = None) -> None:
        super().__init__(prefix=None, params=None)
        self._prefix, self._name = "", ""
        self._params = ParameterDict("", params)
        if isinstance(inputs, Symbol) and len(inputs.list_outputs()) == 1:
            inputs = [inputs]
        if isinstance(outputs, (list, tuple)) and len(outputs) == 1:
            outputs = outputs[0]
        flat, self._in_format = flatten(inputs, "input")
        given, self._out_format = flatten(outputs, "output")
        out = symbol.Group(given) if len(given) > 1 else given[0]
        names = set()
        for x in flat:
            if len(x.get_internals().list_outputs()) != 1:
                raise AssertionError(f"the inputs of a SymbolBlock are variables: {x} is made by operators")
            if x.name in names:
                continue
            names.add(x.name)
        for x in out.get_internals():
            if (x.attr("__storage_type__") or "0") != "0":
                raise AssertionError(f"SymbolBlock: '{x.name}' is sparse, its parameters are dense")
        written = set(out.list_auxiliary_states())
        described = out.attr_dict()
        types = _types(out)
        for name in out.list_inputs():
            if name in names:
                continue
            options: dict[str, Any] = {"grad_req": "null"} if name in written else {}
            about = described.get(name, {})
            if "__shape__" in about:
                options["shape"] = _shape(about["__shape__"])
            if name in types:
                options["dtype"] = types[name]
            if "__lr_mult__" in about:
                options["lr_mult"] = float(about["__lr_mult__"])
            if "__wd_mult__" in about:
                options["wd_mult"] = float(about["__wd_mult__"])
            if "__init__" in about and about["__init__"] not in ("None", ""):
                options["init"] = about["__init__"]
            shared = params is not None and name in params
            self._params.get(name, allow_deferred_init=True, **({} if shared else options))
        # Files name the parameters without what all their names begin with, as MXNet's do.
        first, last = min(self._params, default=""), max(self._params, default="")
        start = next((i for i, (a, b) in enumerate(zip(first, last)) if a != b), min(len(first), len(last)))
        self._reg_params = {name[start:]: param for name, param in self._params.items()}
        self._cached_graph = flat, out

    def _alias(self) -> str:
        return "symbolblock"

    def forward(self, x: Any, *args: Any) -> Any:
        """Run the graph on arrays, or put symbols in for its inputs."""
        if isinstance(x, NDArray):
            return self._call_cached_op(x, *args)
        flat, form = flatten([x, *args], "input")
        if form != self._in_format:
            raise ValueError(f"Invalid input format: expected {self._in_format}, got {form}")
        made = self._cached_graph[1].__copy__()
        made._compose(**{str(k.name): v for k, v in zip(self._cached_graph[0], flat)})
        return regroup(list(made) if len(made) > 1 else [made], self._out_format)[0] if isinstance(self._out_format, list) else made

    def _clear_cached_op(self) -> None:
        self._cached_op = None  # the graph is what the block is: it stays

    def cast(self, dtype: Any) -> None:
        """Change the element type of all parameters."""
        self._clear_cached_op()
        Block.cast(self, dtype)

    def hybrid_forward(self, F: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Not used: the graph is there already."""
        raise NotImplementedError


def _shape(text: str) -> tuple[int, ...]:
    from diptych.frontends.mxnet.attributes import parse_shape

    found = parse_shape(text)
    return tuple(int(d or 0) for d in found)


def _types(out: Symbol) -> dict[str, Any]:
    """The element types that the variables of a symbol have for inputs as their attributes say."""
    try:
        found, _, states = out.infer_type()
    except MXNetError:
        return {}
    types = dict(zip(out.list_arguments(), found or ())) | dict(zip(out.list_auxiliary_states(), states or ()))
    return {k: v for k, v in types.items() if v is not None}
