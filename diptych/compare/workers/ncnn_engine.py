"""ncnn on the pnnx conversion of the model; float32 throughout, Winograd on, no GPU, under its own interpreter."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["Engine"]

LOWER = ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage", "bf16_packed", "int8_inference")


class Engine:
    """One net. ncnn knows no batch: a batch of eight is eight runs."""

    distributions = ("ncnn", "numpy")

    def __init__(self, spec: dict[str, Any], threads: int, options: dict[str, Any]) -> None:
        self.spec, self.threads = spec, threads
        self.variant = "f32"

    def bring(self) -> str:
        """Import ncnn."""
        import numpy

        self.np = numpy
        self.ncnn = importlib.import_module("ncnn")
        return str(self.ncnn.__version__)

    def load(self, arrays: dict[str, Any]) -> None:
        """Read the net."""
        self.net = self.ncnn.Net()
        self.net.opt.num_threads = self.threads
        self.net.opt.use_vulkan_compute = False
        self.net.opt.use_winograd_convolution = True
        for name in LOWER:
            setattr(self.net.opt, f"use_{name}", False)
        stem = self.spec["ncnn"]
        if self.net.load_param(f"{stem}.param") or self.net.load_model(f"{stem}.bin"):
            raise RuntimeError("ncnn cannot load what pnnx made of the model")
        self.outputs = list(self.net.output_names())

    def feed(self, arrays: dict[str, Any]) -> None:
        """One set of Mats for each sample, without the batch axis; ncnn's integers have 32 bits."""
        np = self.np
        batch = len(next(iter(arrays.values())))
        narrow = [a.astype(np.int32) if a.dtype.kind in "iu" else a for a in arrays.values()]
        self.kept = [[np.ascontiguousarray(a[i]) for a in narrow] for i in range(batch)]  # Mats look into these
        self.mats = [[self.ncnn.Mat(a) for a in sample] for sample in self.kept]

    def call(self) -> Any:
        """All samples, one after the other."""
        answers = []
        for sample in self.mats:
            extractor = self.net.create_extractor()
            for i, mat in enumerate(sample):
                extractor.input(f"in{i}", mat)
            made = []
            for name in self.outputs:
                status, mat = extractor.extract(name)
                if status:
                    raise RuntimeError(f"ncnn cannot compute {name}: status {status}")
                made.append(mat)
            answers.append(made)
        return answers

    def fetch(self, answer: Any) -> list[Any]:
        """The answer as arrays, with the batch axis back."""
        np = self.np
        return [np.stack([np.array(sample[i]) for sample in answer]) for i in range(len(self.outputs))]

    def variants(self) -> list[str]:
        """Only one way."""
        return []
