"""diptych: one inference engine for PyTorch and MXNet models.

>>> import diptych
>>> model = diptych.compile(net, example_inputs)  # doctest: +SKIP
>>> y = model(x)  # doctest: +SKIP
"""

from diptych._version import __version__
from diptych.api import compile, load, open
from diptych.errors import DiptychError, FormatError, GraphError, InputError, TypeRuleError, UnsupportedError
from diptych.generate import Generator
from diptych.ir import Graph, TensorType
from diptych.model import Model

__all__ = [
    "DiptychError",
    "FormatError",
    "Generator",
    "Graph",
    "GraphError",
    "InputError",
    "Model",
    "TensorType",
    "TypeRuleError",
    "UnsupportedError",
    "__version__",
    "compile",
    "load",
    "open",
]
