"""nn.Module -> ExportedProgram in the operators this frontend converts, with errors that point at the user's line."""

from __future__ import annotations

import contextlib
import re
import traceback
import warnings
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from diptych.errors import DiptychError, UnsupportedError
from diptych.frontends.torch.packed import check_packed, packed_as_padded
from diptych.frontends.torch.provenance import user_frame

__all__ = ["decompose", "export", "quiet"]

# Operators that torch would take apart and diptych has kernels or shorter forms for.
_KEEP: frozenset[str] = frozenset((
    "linear", "matmul", "layer_norm", "group_norm", "instance_norm", "rms_norm", "batch_norm",
    "scaled_dot_product_attention", "lstm.input", "gru.input", "rnn_tanh.input", "rnn_relu.input",
    "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_linear1d",
    "upsample_bilinear2d", "upsample_trilinear3d", "upsample_bicubic2d", "max_pool1d", "max_pool2d",
    "max_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "silu", "hardswish",
    "hardsigmoid", "mish", "selu", "celu", "softplus", "prelu", "log_sigmoid", "pixel_shuffle",
    "channel_shuffle", "roll", "repeat_interleave.self_int", "logsumexp", "square", "reflection_pad1d",
    "reflection_pad2d", "reflection_pad3d", "replication_pad1d", "replication_pad2d", "replication_pad3d",
    "stack", "softmax.int", "log_softmax.int", "expand_as", "baddbmm", "linalg_vector_norm",
))  # fmt: skip


@lru_cache(maxsize=1)
def _table() -> dict[Any, Any]:
    import torch.export

    table = torch.export.default_decompositions()
    for op in list(table):
        namespace, base = op._schema.name.split("::")
        overload = op._overloadname
        if namespace == "aten" and overload != "out" and (base in _KEEP or f"{base}.{overload}" in _KEEP):
            del table[op]
    return dict(table)


def decompose(program: Any) -> Any:
    """The program functionalised, in the operators the converters know."""
    import torch

    with quiet(), torch.no_grad():
        return program.run_decompositions(_table())


def export(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any], dynamic: Any = None) -> Any:
    """Export a module in inference mode and decompose it; the module's own training flags are left as they were."""
    import torch
    import torch.export

    flags = [(m, m.training) for m in model.modules()]
    try:
        model.eval()
        with quiet(), torch.no_grad(), packed_as_padded():
            program = torch.export.export(model, args, kwargs, dynamic_shapes=dynamic, strict=False)
        check_packed(program)
        return decompose(program)
    except DiptychError:
        raise
    except Exception as e:
        raise _explain(model, e) from e
    finally:
        for module, training in flags:
            module.training = training


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """torch warns about its own internals while tracing; nothing of that is for the user."""
    import logging

    logger = logging.getLogger("torch")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            logger.setLevel(level)


def _failing_layer(model: Any, error: Exception) -> str:
    """The path of the innermost module whose forward was running, found by the `self` of its frame."""
    names = {id(module): path for path, module in model.named_modules()}
    found, step = "", error.__traceback__
    while step is not None:
        found = names.get(id(step.tb_frame.f_locals.get("self")), found)
        step = step.tb_next
    return found


def _explain(model: Any, error: Exception) -> UnsupportedError:
    """torch.export's failure as one message: what, at which of the user's lines, and what to try next."""
    import os

    import torch

    text = str(error)
    home = os.path.dirname(torch.__file__) + os.sep
    frames = [(f.filename, f.lineno or 0) for f in traceback.extract_tb(error.__traceback__)]
    place = user_frame(frames)
    code = next((f.line for f in reversed(traceback.extract_tb(error.__traceback__)) if not f.filename.startswith(home)
                 and f"{f.filename}:{f.lineno}" == place), "")  # fmt: skip
    reason = re.sub(r"\s+", " ", text.split("\n\n")[0]).strip()[:400] or type(error).__name__
    kinds = ("GuardOnDataDependentSymNode", "DataDependentOutputException", "PendingUnbackedSymbolNotFound",
             "DynamicOutputShapeException")  # fmt: skip
    data_dependent = type(error).__name__ in kinds or "data-dependent" in text.lower() or "_local_scalar_dense" in text
    if data_dependent:
        what = "control flow or a shape depends on the values of a tensor, and a compiled graph has neither"
        advice = (
            "use torch.where or masks instead of `if`, avoid .item(), .tolist() and nonzero, or pass the deciding"
            " value as a Python number so that it is fixed at compile time"
        )
    else:
        what = f"{type(error).__name__}: {reason}"
        advice = "check that model(*example_inputs) runs in eval mode, and that forward is traceable by torch.export"
    layer = _failing_layer(model, error)
    what += f" [layer {layer}]" if layer else ""
    at = f"\n  at {place}" + (f": {code}" if code else "") if place else ""
    more = f"\n  torch says: {reason}" if data_dependent else ""
    return UnsupportedError(
        f"{type(model).__name__}: torch.export could not capture the model: {what}{at}{more}\n  try: {advice}"
    )
