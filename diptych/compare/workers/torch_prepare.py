"""Prepares a PyTorch model for all engines: saves its weights, answers in float64 (the referee), writes ONNX."""

from __future__ import annotations

import copy
import importlib
import warnings
from typing import Any

__all__ = ["Engine"]


class Engine:
    """The referee for PyTorch models: `call` answers with the float64 module.

    `options`: `state` the file to write the weights to, `onnx` and `traced` those to write the ONNX model and
    the TorchScript trace to (where given).
    """

    distributions = ("torch",)

    def __init__(self, spec: dict[str, Any], threads: int, options: dict[str, Any]) -> None:
        self.spec, self.threads, self.options = spec, threads, options
        self.variant = "float64"
        self.notes: dict[str, Any] = {}

    def bring(self) -> str:
        """Import PyTorch."""
        import torch

        self.torch = torch
        torch.set_num_threads(self.threads)
        return str(torch.__version__)

    def load(self, arrays: dict[str, Any]) -> None:
        """Build the module, save the weights, export ONNX, make the float64 twin."""
        self.helpers = importlib.import_module("torch_model")
        module, _ = self.helpers.build(self.spec)
        inputs = self.helpers.tensors(arrays)
        if self.options.get("state"):
            self.torch.save(module.state_dict(), self.options["state"])
        if self.options.get("onnx"):
            self._export(module, inputs, list(arrays))
        if self.options.get("traced"):
            self._trace(module, inputs)
        self.notes["parameters"] = sum(p.numel() for p in module.parameters())
        self.notes["convolutional"] = self.helpers.is_convolutional(module)
        try:
            self.double = copy.deepcopy(module).double()
            self._answer(inputs)
        except Exception as e:
            # Some modules pin float32 inside; their float32 answer is then the yardstick, and the report says so.
            self.notes["referee"] = f"float32 (the module does not run in float64: {str(e).splitlines()[0][:120]})"
            self.double = None
            self.single = module

    def _export(self, module: Any, inputs: tuple[Any, ...], names: list[str]) -> None:
        failures = []
        for dynamo in (False, True):
            try:
                with warnings.catch_warnings(), self.torch.inference_mode():
                    warnings.simplefilter("ignore")
                    self.torch.onnx.export(
                        module, inputs, self.options["onnx"], dynamo=dynamo, opset_version=18, input_names=names
                    )
                self.notes["onnx"] = "dynamo" if dynamo else "torchscript"
                return
            except Exception as e:
                failures.append(f"{'dynamo' if dynamo else 'torchscript'}: {str(e).strip().splitlines()[0][:160]}")
        self.notes["onnx_error"] = "; ".join(failures)

    def _trace(self, module: Any, inputs: tuple[Any, ...]) -> None:
        """For ncnn, which knows no batch: the trace is of one sample."""
        try:
            with warnings.catch_warnings(), self.torch.inference_mode():
                warnings.simplefilter("ignore")
                traced = self.torch.jit.trace(module, tuple(t[:1] for t in inputs), check_trace=False)
                traced.save(self.options["traced"])
        except Exception as e:
            self.notes["traced_error"] = f"torch.jit.trace: {str(e).strip().splitlines()[0][:160]}"

    def _answer(self, inputs: tuple[Any, ...]) -> Any:
        with self.torch.inference_mode():
            if self.double is None:
                return self.single(*inputs)
            return self.double(*(t.double() if t.is_floating_point() else t for t in inputs))

    def feed(self, arrays: dict[str, Any]) -> None:
        """Make the inputs tensors."""
        self.inputs = self.helpers.tensors(arrays)

    def call(self) -> Any:
        """One answer in float64."""
        return self._answer(self.inputs)

    def fetch(self, answer: Any) -> list[Any]:
        """The answer as arrays."""
        return [t.detach().numpy() for t in self.helpers.flatten(answer)]

    def variants(self) -> list[str]:
        """None: a referee is not timed."""
        return []
