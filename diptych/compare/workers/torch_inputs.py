"""Reads the example inputs that a PyTorch model's factory gives, and the names of its inputs."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

__all__ = ["Engine"]


class Engine:
    """`call` gives the example inputs; `notes["names"]` the parameters of `forward`."""

    distributions = ("torch",)

    def __init__(self, spec: dict[str, Any], threads: int, options: dict[str, Any]) -> None:
        self.spec = spec
        self.variant = "inputs"
        self.notes: dict[str, Any] = {}

    def bring(self) -> str:
        """Import PyTorch."""
        import torch

        return str(torch.__version__)

    def load(self, arrays: dict[str, Any]) -> None:
        """Build the module."""
        self.helpers = importlib.import_module("torch_model")
        module, self.inputs = self.helpers.build(self.spec)
        kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        parameters = inspect.signature(module.forward).parameters.values()
        names = [p.name for p in parameters if p.kind in kinds]
        count = len(self.inputs or ())
        self.notes["given"] = self.inputs is not None
        self.notes["names"] = names[:count] if len(names) >= count else [f"input{i}" for i in range(count)]

    def feed(self, arrays: dict[str, Any]) -> None:
        """Nothing to feed."""

    def call(self) -> Any:
        """The example inputs."""
        return self.inputs or ()

    def fetch(self, answer: Any) -> list[Any]:
        """As arrays."""
        return [t.detach().numpy() for t in answer]

    def variants(self) -> list[str]:
        """None."""
        return []
