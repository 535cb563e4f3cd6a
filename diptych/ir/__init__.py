"""The intermediate representation: types, Graph, builder, text form, verifier. Data only; imports nothing above it."""

from diptych.ir.build import GraphBuilder, Value
from diptych.ir.graph import Array, Graph, Node, Op
from diptych.ir.types import DTYPES, DType, TensorType, dtype_of, itemsize, numpy_dtype
from diptych.ir.verify import verify

__all__ = [
    "DTYPES",
    "Array",
    "DType",
    "Graph",
    "GraphBuilder",
    "Node",
    "Op",
    "TensorType",
    "Value",
    "dtype_of",
    "itemsize",
    "numpy_dtype",
    "verify",
]
