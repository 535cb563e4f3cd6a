"""MXNet 1.x checkpoints without libmxnet: `load_source(symbol_file, params_file)` gives a Source."""

from __future__ import annotations

from diptych.frontends.mxnet.shapes import infer_shapes, infer_types, random_params
from diptych.frontends.mxnet.source import MxnetSource, load_source

__all__ = ["MxnetSource", "infer_shapes", "infer_types", "load_source", "random_params"]
