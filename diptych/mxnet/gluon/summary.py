"""`Block.summary`: the layers of a network with the shapes of their outputs and their numbers of parameters."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from diptych.mxnet.ndarray import NDArray

if TYPE_CHECKING:
    from diptych.mxnet.gluon.block import Block

__all__ = ["summarize"]

_LINE = "{:>20}  {:>42} {:>15}"


def _shape(value: Any) -> str:
    if isinstance(value, NDArray):
        return str(tuple(value.shape))
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_shape(v) for v in value) + "]"
    return type(value).__name__


def summarize(block: Block, inputs: tuple[Any, ...]) -> None:
    """Print the table for one forward pass with `inputs`; a parameter that several layers share counts once in the sum."""
    if getattr(block, "_active", False):
        raise AssertionError(f'"{block.name}" is hybridized, so that the layers inside are not called: summary() before hybridize()')
    rows: list[tuple[str, str, int]] = []
    handles = []

    def hook(called: Any, _: Any, outputs: Any) -> None:
        if not isinstance(outputs[0] if isinstance(outputs, (list, tuple)) else outputs, NDArray):
            return  # a pass with symbols, by which deferred shapes are found
        own = sum(prod(p.shape) for p in called._reg_params.values() if p.shape)
        rows.append((f"{type(called).__name__}-{len(rows) + 1}", _shape(outputs), own))

    for layer in block._walk():
        handles.append(layer.register_forward_hook(hook))
    try:
        block(*inputs)
    finally:
        for handle in handles:
            handle.detach()
    trained = fixed = 0
    for p in {id(p): p for p in block.collect_params().values()}.values():
        count = prod(p.shape) if p.shape else 0
        trained, fixed = trained + count * (p.grad_req != "null"), fixed + count * (p.grad_req == "null")
    print("-" * 80)
    print(_LINE.format("Layer (type)", "Output Shape", "Param #"))
    print("=" * 80)
    for name, shape, own in [("Input", _shape(inputs[0] if len(inputs) == 1 else inputs), 0), *rows]:
        print(_LINE.format(name, shape, own))
    print("=" * 80)
    print(f"Parameters in forward computation graph: {trained + fixed}")
    print(f"   Trainable params: {trained}")
    print(f"   Non-trainable params: {fixed}")
    print("-" * 80)
