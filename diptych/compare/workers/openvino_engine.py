"""OpenVINO on the ONNX export of the model; float32 pinned unless `options["precision"]` is "default"."""

from __future__ import annotations

from typing import Any

__all__ = ["Engine"]


class Engine:
    """One compiled model with the latency hint and one inference request."""

    distributions = ("openvino",)

    def __init__(self, spec: dict[str, Any], threads: int, options: dict[str, Any]) -> None:
        self.spec, self.threads = spec, threads
        self.precision = options.get("precision", "f32")
        self.variant = "request"

    def bring(self) -> str:
        """Import OpenVINO."""
        import openvino

        self.ov = openvino
        return str(openvino.__version__).partition("-")[0]

    def load(self, arrays: dict[str, Any]) -> None:
        """Read and compile the model."""
        config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": self.threads}
        if self.precision != "default":
            config["INFERENCE_PRECISION_HINT"] = self.precision
        core = self.ov.Core()
        self.compiled = core.compile_model(core.read_model(self.spec["onnx"]), "CPU", config)
        self.request = self.compiled.create_infer_request()
        self.variant = str(self.compiled.get_property("INFERENCE_PRECISION_HINT").to_string())

    def feed(self, arrays: dict[str, Any]) -> None:
        """Share the input arrays with the request."""
        names = [i.get_any_name() for i in self.compiled.inputs]
        if set(names) <= set(arrays):
            chosen = [arrays[n] for n in names]
        else:
            chosen = list(arrays.values())
        self.arrays = chosen
        for i, array in enumerate(chosen):
            self.request.set_input_tensor(i, self.ov.Tensor(array, shared_memory=True))

    def call(self) -> Any:
        """One answer."""
        self.request.infer()

    def fetch(self, answer: Any) -> list[Any]:
        """The answer as arrays."""
        return [self.request.get_output_tensor(i).data.copy() for i in range(len(self.compiled.outputs))]

    def variants(self) -> list[str]:
        """Only one way."""
        return []
