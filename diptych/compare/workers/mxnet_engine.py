"""Real MXNet 1.9.1, as a bound symbol with its oneDNN fusion or as a hybridized block, under its own interpreter."""

from __future__ import annotations

import os
from typing import Any

__all__ = ["Engine"]


class Engine:
    """A checkpoint (symbol JSON and parameters)."""

    distributions = ("mxnet",)

    def __init__(self, spec: dict[str, Any], threads: int, options: dict[str, Any]) -> None:
        self.spec = spec
        self.variant = "symbol"
        os.environ.setdefault("MXNET_SUBGRAPH_BACKEND", "MKLDNN")

    def bring(self) -> str:
        """Import MXNet."""
        import mxnet

        self.mx = mxnet
        return str(mxnet.__version__)

    def _parameters(self) -> Any:
        loaded = self.mx.nd.load(self.spec["params"])
        args = {k[4:]: v for k, v in loaded.items() if k.startswith("arg:")}
        auxs = {k[4:]: v for k, v in loaded.items() if k.startswith("aux:")}
        return args, auxs

    def load(self, arrays: dict[str, Any]) -> None:
        """Bind the symbol; MXNet fuses for oneDNN while binding."""
        self.symbol = self.mx.sym.load(self.spec["symbol"])
        self.names = list(arrays)
        shapes = {k: v.shape for k, v in arrays.items()}
        types = {k: v.dtype for k, v in arrays.items()}
        self.executor = self.symbol.simple_bind(self.mx.cpu(), grad_req="null", type_dict=types, **shapes)
        args, auxs = self._parameters()
        self.executor.copy_params_from(args, auxs, allow_extra_params=True)
        self.blocks: Any = None
        self.mx.nd.waitall()

    def _block(self) -> Any:
        """The same checkpoint as a hybridized Gluon block; labels of loss heads get zeros."""
        mx = self.mx
        if self.blocks is None:
            args, auxs = self._parameters()
            extra = [n for n in self.symbol.list_arguments() if n not in args and n not in self.names]
            shapes, _, _ = self.symbol.infer_shape(**{n: self.arrays[n].shape for n in self.names})
            known = dict(zip(self.symbol.list_arguments(), shapes))
            self.labels = [mx.nd.zeros(known[n]) for n in extra]
            block = mx.gluon.SymbolBlock(self.symbol, [mx.sym.var(n) for n in self.names + extra])
            for name, parameter in block.collect_params().items():
                parameter.set_data(args.get(name) if name in args else auxs.get(name))
            block.hybridize(static_alloc=True, static_shape=True)
            self.blocks = block
        return self.blocks

    def feed(self, arrays: dict[str, Any]) -> None:
        """Copy the inputs into MXNet's arrays."""
        self.arrays = {k: self.mx.nd.array(v, dtype=v.dtype) for k, v in arrays.items()}
        for name, value in self.arrays.items():
            self.executor.arg_dict[name][:] = value
        self.inputs = list(self.arrays.values())
        self.mx.nd.waitall()

    def call(self) -> Any:
        """One complete answer."""
        if self.variant == "symbol":
            outputs = self.executor.forward(is_train=False)
        else:
            outputs = self.blocks(*self.inputs, *self.labels)
            outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
        for output in outputs:
            output.wait_to_read()
        return outputs

    def fetch(self, answer: Any) -> list[Any]:
        """The answer as arrays."""
        return [output.asnumpy() for output in answer]

    def variants(self) -> list[str]:
        """The bound symbol, and the hybridized block where Gluon takes the checkpoint."""
        try:
            self._block()
        except Exception as e:
            self.notes = {"hybridized": f"not possible: {str(e).splitlines()[0][:160]}"}
            return ["symbol"]
        return ["symbol", "hybridized"]

    def use(self, name: str) -> None:
        """Switch between them."""
        if name == "hybridized":
            self._block()
        self.variant = name
