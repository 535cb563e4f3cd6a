"""Math: arithmetic and functions on Val. Polynomials on whole vectors; every function states its error bound."""

from __future__ import annotations

from diptych.codegen.builder import Val
from diptych.codegen.math_special import Special
from diptych.codegen.math_trig import Trigonometry

__all__ = ["C_FUNCTIONS", "Math", "Val"]

# The functions of the C library that code made here may call; a loader has to know their addresses.
C_FUNCTIONS = (
    "acos", "asin", "atan", "atan2", "cos", "cosf", "erf", "erfc", "fmod", "fmodf", "hypot", "lgamma", "pow",
    "sin", "sinf", "tan", "tanf",
)  # fmt: skip


class Math(Special, Trigonometry):
    """Everything an operator's `lower` can use, writing into one function under construction.

    Operands of a method have one dtype and one number of lanes (`fn.splat` makes vectors of scalars). Integers and
    bools have arithmetic, comparisons and bits; f16 functions go by way of f32; bf16 can only be cast.
    """
