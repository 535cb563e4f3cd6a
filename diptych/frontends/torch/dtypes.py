"""torch dtypes and tensors in the terms of the IR."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.errors import UnsupportedError

if TYPE_CHECKING:
    from diptych.ir import Array

__all__ = ["compute_dtype", "ir_dtype", "to_array", "torch_dtype"]

_IR: dict[str, str] = {
    "float32": "f32", "float64": "f64", "float16": "f16", "bfloat16": "bf16", "int8": "i8", "uint8": "u8",
    "int16": "i16", "uint16": "u16", "int32": "i32", "uint32": "u32", "int64": "i64", "uint64": "u64", "bool": "bool",
}  # fmt: skip
_TORCH: dict[str, str] = {v: k for k, v in _IR.items()}


def ir_dtype(dtype: Any) -> str:
    """The IR name of a torch dtype: `ir_dtype(torch.float32)` is "f32"."""
    name = str(dtype).removeprefix("torch.")
    if name not in _IR:
        raise UnsupportedError(f"torch dtype {name} is not supported; convert the model to one of {', '.join(_IR)}")
    return _IR[name]


def compute_dtype(dtype: Any) -> str:
    """The IR dtype that values of this torch dtype are computed in.

    Half precision is kept at the borders of a model only: inside, its values are f32, which is never less accurate.
    """
    name = ir_dtype(dtype)
    return "f32" if name in ("f16", "bf16") else name


def torch_dtype(dtype: str) -> Any:
    """The torch dtype of an IR name: `torch_dtype("i64")` is torch.int64."""
    import torch

    return getattr(torch, _TORCH[dtype])


def to_array(tensor: Any) -> Array:
    """A NumPy copy of a torch tensor in its compute dtype: later changes of the module's weights do not reach it."""
    import torch

    tensor = tensor.detach()
    if tensor.is_sparse or tensor.is_quantized:
        raise UnsupportedError(
            "sparse and quantised tensors are not supported; call .to_dense() or .dequantize() first"
        )
    if tensor.device.type == "meta":
        raise UnsupportedError("a weight lies on the meta device and has no data; load the weights before compiling")
    if tensor.device.type != "cpu":
        tensor = tensor.cpu()
    if tensor.dtype in (torch.float16, torch.bfloat16):
        tensor = tensor.to(torch.float32)
    return np.array(tensor.resolve_neg().numpy(), order="C")
