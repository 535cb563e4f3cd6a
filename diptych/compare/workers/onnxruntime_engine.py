"""ONNX Runtime on the ONNX export of the model."""

from __future__ import annotations

from typing import Any

__all__ = ["Engine"]


class Engine:
    """One session, all optimisations on, sequential execution."""

    distributions = ("onnxruntime",)

    def __init__(self, spec: dict[str, Any], threads: int, options: dict[str, Any]) -> None:
        self.spec, self.threads = spec, threads
        self.variant = "numpy"

    def bring(self) -> str:
        """Import ONNX Runtime."""
        import onnxruntime

        self.ort = onnxruntime
        return str(onnxruntime.__version__)

    def load(self, arrays: dict[str, Any]) -> None:
        """Make the session."""
        options = self.ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = self.ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        self.session = self.ort.InferenceSession(self.spec["onnx"], options, providers=["CPUExecutionProvider"])
        # The exporter drops inputs that the answer does not depend on, and the dynamo exporter may rename them.
        self.names = [i.name for i in self.session.get_inputs()]

    def feed(self, arrays: dict[str, Any]) -> None:
        """Keep the inputs ready, both as arrays and bound to the session's own values."""
        if set(self.names) <= set(arrays):
            chosen = {n: arrays[n] for n in self.names}
        else:
            chosen = dict(zip(self.names, arrays.values(), strict=True))
        self.arrays = chosen
        self.binding = self.session.io_binding()
        self.values = {n: self.ort.OrtValue.ortvalue_from_numpy(a) for n, a in chosen.items()}
        for name, value in self.values.items():
            self.binding.bind_ortvalue_input(name, value)
        for output in self.session.get_outputs():
            self.binding.bind_output(output.name)

    def call(self) -> Any:
        """One answer."""
        if self.variant == "numpy":
            return self.session.run(None, self.arrays)
        self.session.run_with_iobinding(self.binding)
        return None

    def fetch(self, answer: Any) -> list[Any]:
        """The answer as arrays."""
        return list(answer) if answer is not None else self.binding.copy_outputs_to_cpu()

    def variants(self) -> list[str]:
        """Arrays in and out, or values bound beforehand."""
        return ["numpy", "bound"]

    def use(self, name: str) -> None:
        """Switch between them."""
        self.variant = name
