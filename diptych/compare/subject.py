"""What is compared: one model in the forms the engines take (an MXNet checkpoint, a PyTorch module), and its inputs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diptych.errors import InputError
from diptych.ir import Array, TensorType
from diptych.ir.types import numpy_dtype

__all__ = ["InputSpec", "Samples", "Subject", "parse_input", "random_inputs"]


@dataclass(frozen=True, slots=True)
class InputSpec:
    """An input's name and type; `bound` is the exclusive upper bound of random integers."""

    name: str
    type: TensorType
    bound: int = 10


@dataclass(frozen=True, slots=True)
class Samples:
    """Real data to answer: inputs with the samples on axis 0, their labels, and where they come from."""

    inputs: Mapping[str, Array]
    labels: Array
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """The model under comparison.

    `torch` names a factory or a `.pt2` file (`arguments` go to the factory); `symbol` and `params` an MXNet checkpoint.
    """

    name: str
    inputs: Mapping[str, Array]
    torch: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    symbol: str = ""
    params: str = ""
    samples: Samples | None = None

    @property
    def batch(self) -> int:
        """The extent of axis 0 of the first input."""
        first = next(iter(self.inputs.values()))
        return int(first.shape[0]) if first.ndim else 1

    def spec(self, **more: Any) -> dict[str, Any]:
        """What a worker needs to load the model."""
        return {
            "torch": self.torch,
            "arguments": dict(self.arguments),
            "symbol": self.symbol,
            "params": self.params,
            **more,
        }


_INPUT = re.compile(r"([^=]+)=(\d+(?:[x,]\d+)*)(?::(\w+)(?:<(\d+))?)?")
_DTYPES = {"float32": "f32", "float64": "f64", "float16": "f16", "int32": "i32", "int64": "i64", "uint8": "u8"}


def parse_input(text: str) -> InputSpec:
    """Read NAME=SHAPE[:DTYPE[<BOUND]].

    >>> parse_input("ids=1x128:i64<30522")
    InputSpec(name='ids', type=TensorType(shape=(1, 128), dtype='i64'), bound=30522)
    """
    found = _INPUT.fullmatch(text.strip())
    if not found:
        raise InputError(f"input {text!r}: write NAME=SHAPE[:DTYPE], as in data=1x3x224x224 or ids=1x128:i64<30522")
    name, shape, dtype, bound = found.groups()
    dtype = _DTYPES.get(dtype or "f32", dtype or "f32")
    numpy_dtype(dtype)
    return InputSpec(
        name.strip(), TensorType(tuple(int(d) for d in re.split("[x,]", shape)), dtype), int(bound) if bound else 10
    )


def random_inputs(specs: Sequence[InputSpec], seed: int = 0) -> dict[str, Array]:
    """Seeded inputs: standard normal, or integers below the bound, or coin tosses."""
    rng = np.random.default_rng(seed)
    made: dict[str, Array] = {}
    for spec in specs:
        dtype = numpy_dtype(spec.type.dtype)
        if spec.type.dtype == "bool":
            made[spec.name] = rng.integers(0, 2, spec.type.shape).astype(dtype)
        elif dtype.kind in "iu":
            made[spec.name] = rng.integers(0, spec.bound, spec.type.shape).astype(dtype)
        else:
            made[spec.name] = rng.standard_normal(spec.type.shape).astype(dtype)
    return made


def existing(path: str) -> str:
    """The absolute path of a file that must exist."""
    found = Path(path)
    if not found.is_file():
        raise InputError(f"{path}: no such file")
    return str(found.resolve())
