"""PyTorch as users run it: eager (contiguous or channels-last) or compiled by inductor with frozen weights."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["Engine"]


class Engine:
    """One module, one thread setting; `options["mode"]` is "eager" or "inductor"."""

    distributions = ("torch",)

    def __init__(self, spec: dict[str, Any], threads: int, options: dict[str, Any]) -> None:
        self.spec, self.threads, self.mode = spec, threads, options["mode"]
        self.variant = "contiguous"

    def bring(self) -> str:
        """Import PyTorch."""
        import torch

        self.torch = torch
        torch.set_num_threads(self.threads)
        return str(torch.__version__)

    def load(self, arrays: dict[str, Any]) -> None:
        """Build the module; inductor compiles at the first call."""
        self.helpers = importlib.import_module("torch_model")
        self.module, _ = self.helpers.build(self.spec)
        self.conv = self.helpers.is_convolutional(self.module)
        self.inputs: tuple[Any, ...] = ()
        if self.mode == "inductor":
            import torch._inductor.config

            torch._inductor.config.freezing = True
            if self.conv:
                self._channels_last(True)
                self.variant = "channels-last"
            self.run = self.torch.compile(self.module)
        else:
            self.run = self.module

    def _channels_last(self, on: bool) -> None:
        layout = self.torch.channels_last if on else self.torch.contiguous_format
        self.module.to(memory_format=layout)
        self.inputs = tuple(t.contiguous(memory_format=layout) if t.dim() == 4 else t for t in self.inputs)

    def feed(self, arrays: dict[str, Any]) -> None:
        """Make the inputs tensors in the layout in use."""
        self.inputs = self.helpers.tensors(arrays)
        if self.variant == "channels-last":
            self.inputs = tuple(
                t.contiguous(memory_format=self.torch.channels_last) if t.dim() == 4 else t for t in self.inputs
            )

    def call(self) -> Any:
        """One answer."""
        with self.torch.inference_mode():
            return self.run(*self.inputs)

    def fetch(self, answer: Any) -> list[Any]:
        """The answer as arrays."""
        return [t.detach().cpu().numpy() for t in self.helpers.flatten(answer)]

    def variants(self) -> list[str]:
        """Layouts worth trying."""
        return ["contiguous", "channels-last"] if self.mode == "eager" and self.conv else []

    def use(self, name: str) -> None:
        """Switch the layout."""
        self._channels_last(name == "channels-last")
        self.variant = name
