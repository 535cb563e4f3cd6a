"""The referee for MXNet checkpoints: diptych's NumPy target in float64, the definition every kernel is held to."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["Engine"]


class Engine:
    """Interprets the graph of a checkpoint in float64."""

    distributions = ("diptych",)

    def __init__(self, spec: dict[str, Any], threads: int, options: dict[str, Any]) -> None:
        self.spec = spec
        self.variant = "float64"
        self.notes: dict[str, Any] = {}

    def bring(self) -> str:
        """Import the frontend and the NumPy target."""
        self.frontend = importlib.import_module("diptych.frontends.mxnet")
        self.target = importlib.import_module("diptych.targets.numpy")
        self.types = importlib.import_module("diptych.ir")
        return "float64"

    def load(self, arrays: dict[str, Any]) -> None:
        """Read the checkpoint into a Graph for these inputs."""
        source = self.frontend.load_source(self.spec["symbol"], self.spec["params"])
        types = {k: self.types.TensorType(tuple(v.shape), self.types.dtype_of(v)) for k, v in arrays.items()}
        self.graph = source.graph(types)

    def feed(self, arrays: dict[str, Any]) -> None:
        """Keep the inputs."""
        self.arrays = {k: v for k, v in arrays.items() if k in self.graph.input_names}

    def call(self) -> Any:
        """One answer in float64."""
        return self.target.interpret(self.graph, self.arrays, precision="f64")

    def fetch(self, answer: Any) -> list[Any]:
        """The answer as arrays, in the order of the graph's outputs."""
        return list(answer.values()) if isinstance(answer, dict) else list(answer)

    def variants(self) -> list[str]:
        """None: a referee is not timed."""
        return []
