"""diptych itself, through its public API, on an MXNet checkpoint or a PyTorch module."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["Engine", "leaves"]


def leaves(answer: Any) -> list[Any]:
    """The arrays of an answer in order, whatever the PyTorch module packs them in."""
    if isinstance(answer, dict):
        answer = list(answer.values())
    if isinstance(answer, (tuple, list)):
        return [leaf for part in answer for leaf in leaves(part)]
    return [] if answer is None else [answer]


class Engine:
    """One model; `options`: `form` ("mxnet", "torch" or "saved"), `precision` and `accuracy` of `diptych.compile`."""

    def __init__(self, spec: dict[str, Any], threads: int, options: dict[str, Any]) -> None:
        self.spec, self.threads, self.options = spec, threads, options
        self.variant = str(options["form"])
        extra = ("torch",) if options["form"] == "torch" else ()
        self.distributions = ("diptych", "numpy", "llvmlite", *extra)

    def bring(self) -> str:
        """Import diptych (and PyTorch, which holds the module, when the model is one)."""
        if self.options["form"] == "torch":
            importlib.import_module("torch").set_num_threads(self.threads)
        self.diptych = importlib.import_module("diptych")
        return str(self.diptych.__version__)

    def load(self, arrays: dict[str, Any]) -> None:
        """Load and compile."""
        keywords = {k: self.options[k] for k in ("precision", "accuracy") if k in self.options}
        if self.options["form"] == "mxnet":
            source = self.diptych.load(self.spec["symbol"], self.spec["params"])
            self.model = self.diptych.compile(source, dict(arrays), threads=self.threads, **keywords)
        elif self.options["form"] == "saved":
            self.model = self.diptych.open(self.spec["saved"], threads=self.threads)
        elif self.spec["torch"].endswith(".pt2"):
            self.model = self.diptych.compile(self.diptych.load(self.spec["torch"]), threads=self.threads, **keywords)
        else:
            helpers = importlib.import_module("torch_model")
            module, _ = helpers.build(self.spec)
            examples = helpers.tensors(arrays)
            self.model = self.diptych.compile(module, examples, threads=self.threads, **keywords)

    def save(self, path: str) -> None:
        """Write the model for `diptych.open`."""
        self.model.save(path)

    def feed(self, arrays: dict[str, Any]) -> None:
        """Put the inputs in the order the model wants."""
        names = self.model.input_names
        if set(names) <= set(arrays):
            self.inputs = tuple(arrays[n] for n in names)
        else:
            self.inputs = tuple(arrays.values())

    def call(self) -> Any:
        """One answer."""
        return self.model(*self.inputs)

    def fetch(self, answer: Any) -> list[Any]:
        """The answer as arrays."""
        return leaves(answer)

    def variants(self) -> list[str]:
        """Only one way."""
        return []
