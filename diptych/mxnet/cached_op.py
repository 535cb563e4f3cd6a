"""CachedOp: a symbol called like a function on arrays, what `hybridize()` makes of a block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diptych.mxnet.base import MXNetError
from diptych.mxnet.imperative import deliver
from diptych.mxnet.symbol import run
from diptych.mxnet.symbol.node import topological
from diptych.mxnet.tape import CallNode

if TYPE_CHECKING:
    from collections.abc import Collection

    from diptych.mxnet.symbol.symbol import Symbol

__all__ = ["CachedOp"]


class CachedOp:
    """Call a symbol with arrays in the order of `list_inputs()`.

    The graph is prepared once for each set of shapes, types and the training mode; while recording the whole call is
    one step on the tape. `flags` (static_alloc and so on) change nothing here.
    `params`: the inputs that are parameters, which inference may build in while nobody writes to them.

    >>> from diptych.mxnet import nd, sym
    >>> double = CachedOp(sym.Variable("x") * 2)
    >>> double(nd.ones((2,))).asnumpy()
    array([2., 2.], dtype=float32)
    """

    def __init__(self, sym: Symbol, flags: Any = (), params: Collection[str] = ()) -> None:
        self._symbol = sym
        self._flags = dict(flags)
        self._names = sym.list_inputs()
        self._params = frozenset(params)
        self._operators = sum(n.op is not None for n in topological(sym._heads))
        self._monitor: Any = None
        self._monitor_all = False

    def __call__(self, *args: Any, out: Any = None, default_ctx: Any = None, **kwargs: Any) -> Any:
        if len(args) != len(self._names):
            raise MXNetError(f"the graph takes {len(self._names)} arrays ({', '.join(self._names)}), {len(args)} were given")
        results = run.run(self._symbol, dict(zip(self._names, args)), self._monitor, self._monitor_all, self._params)
        self._describe(results)
        context = args[0]._ctx if args else None
        if context is not None:
            for r in results:
                r._ctx = context
        if out is not None:
            node = results[0]._entry.node if results[0]._entry is not None else None
            results = deliver([r._data for r in results], out if isinstance(out, (list, tuple)) else [out], node)
        return results[0] if len(results) == 1 else results

    def _describe(self, results: list[Any]) -> None:
        """Tell the tape which symbol its step is, and whether `autograd.get_symbol` shows it as its operators or as one."""
        for r in results[:1]:
            node = r._entry.node if r._entry is not None else None
            if isinstance(node, CallNode) and node.source is None:
                inline = not self._flags.get("static_alloc") and self._operators <= int(self._flags.get("inline_limit", 2))
                node.source = self._symbol, inline

    def get_optimized_symbol(self) -> Symbol:
        """The symbol that runs."""
        return self._symbol

    def _register_op_hook(self, callback: Any, monitor_all: bool = False) -> None:
        def watch(name: str, operator: str | None, array: Any) -> None:
            if operator is not None:  # variables are seen as the operands of operators
                callback(name, operator, array)

        self._monitor, self._monitor_all = watch, monitor_all
