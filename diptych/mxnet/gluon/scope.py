"""The scope that gives blocks and parameters their names, and the flattening of nested arguments."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any

from diptych.mxnet import name as naming
from diptych.mxnet.context import Context
from diptych.mxnet.gluon.parameter_dict import ParameterDict
from diptych.mxnet.ndarray.ndarray import NDArray
from diptych.mxnet.symbol.symbol import Symbol

if TYPE_CHECKING:
    from diptych.mxnet.gluon.block import Block

__all__ = ["BlockScope", "flatten", "gather", "regroup"]


class BlockScope:
    """What `with self.name_scope():` enters: names of blocks made inside count up within their parent."""

    _current = threading.local()

    def __init__(self, block: Block | None) -> None:
        # Weak, for the block holds its scope: a cycle would keep the parameters until Python's collector comes by.
        self._ref = None if block is None else weakref.ref(block)
        self._counter: dict[str, int] = {}
        self._old: list[tuple[BlockScope | None, Any]] = []

    @property
    def _block(self) -> Block | None:
        return None if self._ref is None else self._ref()

    def _next(self, hint: str) -> str:
        count = self._counter.get(hint, 0)
        self._counter[hint] = count + 1
        return f"{hint}{count}_"

    @staticmethod
    def create(prefix: str | None, params: ParameterDict | None, hint: str) -> tuple[str, ParameterDict]:
        """The full prefix and the parameters of a new block."""
        current: BlockScope | None = getattr(BlockScope._current, "value", None)
        block = None if current is None else current._block
        if current is None or block is None:
            if prefix is None:
                prefix = naming.current().get(None, hint) + "_"
            return prefix, ParameterDict(prefix) if params is None else ParameterDict(params.prefix, params)
        if prefix is None:
            prefix = current._next(hint)
        if params is None:
            parent = block.params
            made = ParameterDict(parent.prefix + prefix, parent._shared)
        else:
            made = ParameterDict(params.prefix, params)
        return block.prefix + prefix, made

    def __enter__(self) -> BlockScope:
        block = self._block
        if block is None or block._empty_prefix:
            self._old.append((None, None))
            return self
        scope = naming.Prefix(block.prefix)
        self._old.append((getattr(BlockScope._current, "value", None), scope))
        BlockScope._current.value = self
        scope.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        old, scope = self._old.pop()
        if scope is None:
            return
        scope.__exit__(*exc)
        BlockScope._current.value = old


def flatten(args: Any, what: str) -> tuple[list[Any], Any]:
    """The arrays or symbols in nested lists, and how they were nested (0: an array, n: a symbol of n, -1: None)."""
    if isinstance(args, NDArray):
        return [args], 0
    if isinstance(args, Symbol):
        return [args], len(args.list_outputs()) if len(args.list_outputs()) > 1 else 0
    if args is None:
        return [None], -1
    if not isinstance(args, (list, tuple)):
        raise ValueError(f"the {what} of a hybridized block is an array or symbol, or nested lists of them, not {args} of "
                         f"type {type(args)}")  # fmt: skip
    flat: list[Any] = []
    formats: list[Any] = []
    for x in args:
        found, form = flatten(x, what)
        flat.extend(found)
        formats.append(form)
    return flat, formats


def gather(args: Any) -> tuple[bool, bool, dict[Any, None]]:
    """Whether there are arrays and whether there are symbols in nested arguments, and the contexts of the arrays."""
    arrays = symbols = False
    contexts: dict[Any, None] = {}
    stack = list(reversed(args))
    while stack:
        x = stack.pop()
        if isinstance(x, NDArray):
            arrays = True
            ctx = x.context
            contexts[Context("cpu", ctx.device_id) if ctx.device_typeid != 2 else ctx] = None
        elif isinstance(x, Symbol):
            symbols = True
        elif isinstance(x, (list, tuple)):
            stack.extend(reversed(x))
    return arrays, symbols, contexts


def regroup(args: Any, form: Any) -> tuple[Any, list[Any]]:
    """The first of the flat values nested as `form` says, and the rest."""
    args = list(args)
    if isinstance(form, int):
        if form == -1:
            if args and args[0] is None:
                args = args[1:]
            return None, args
        if form == 0:
            return args[0], args[1:]
        return args[:form], args[form:]
    out = []
    for f in form:
        found, args = regroup(args, f)
        out.append(found)
    return out, args
