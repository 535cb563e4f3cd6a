"""All converters: importing this module fills the table. Also what to advise for operators that have none."""

from __future__ import annotations

from diptych.frontends.mxnet import (  # noqa: F401
    convert_control,
    convert_create,
    convert_detection,
    convert_elementwise,
    convert_image,
    convert_index,
    convert_nn,
    convert_norm,
    convert_numpy,
    convert_proposal,
    convert_reduce,
    convert_sequence,
    convert_shape,
    convert_slice,
    convert_windows,
)

__all__ = ["ADVICE"]

_TRAINING = "it is for training only: choose the layers you need with outputs=[...]"
_RANDOM = "random sampling is no part of a compiled graph: draw the numbers outside and pass them as an input"
_DYNAMIC = "the shape of its result depends on the data: cut the graph before it with outputs=[...]"
_INT8 = "quantised graphs are not supported: load the float checkpoint of this model"

ADVICE: dict[str, str] = {
    "_contrib_MultiBoxTarget": _TRAINING, "_contrib_ProposalTarget": _TRAINING, "CTCLoss": _TRAINING,
    "softmax_cross_entropy": _TRAINING, "_contrib_bipartite_matching": _TRAINING, "_contrib_box_encode": _TRAINING,
    "WarpCTC": "a plugin operator: choose the layer before it with outputs=[...]",
    "Custom": "it runs Python code of the model's authors: cut the graph before it with outputs=[...]",
    "_contrib_boolean_mask": _DYNAMIC,
    "_sample_multinomial": _RANDOM, "_sample_normal": _RANDOM, "_sample_gamma": _RANDOM, "_sample_uniform": _RANDOM,
    "_random_normal": _RANDOM, "_random_uniform": _RANDOM, "_random_gamma": _RANDOM, "_shuffle": _RANDOM,
    "_contrib_quantize_v2": _INT8, "_contrib_dequantize": _INT8, "_contrib_requantize": _INT8,
    "_contrib_quantized_pooling": _INT8,
    "_while_loop": "the number of steps depends on the data: unroll the loop when building the symbol",
}  # fmt: skip
