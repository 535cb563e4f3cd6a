"""Importing this module fills the table of converters."""

from diptych.frontends.torch import (
    convert_activation,
    convert_extra,
    convert_index,
    convert_linear,
    convert_movement,
    convert_norm,
    convert_pointwise,
    convert_pool,
    convert_recurrent,
    convert_reduce,
)

__all__ = [
    "convert_activation",
    "convert_extra",
    "convert_index",
    "convert_linear",
    "convert_movement",
    "convert_norm",
    "convert_pointwise",
    "convert_pool",
    "convert_recurrent",
    "convert_reduce",
]
