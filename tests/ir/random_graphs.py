"""Hypothesis strategies for graphs: random operators with random samples' attributes, constants, names, dead values."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from diptych.ir import Graph, TensorType
from diptych.ops import OPS, Builder, Clip, Pad, TopK

names = st.one_of(
    st.just(""), st.text(max_size=8), st.sampled_from(["layer1.0.conv1", "net.py:12", "a # b", "it's", "@"])
)
scalars = st.one_of(
    st.tuples(st.just("f32"), st.floats(width=32)),
    st.tuples(st.just("f64"), st.floats()),
    st.tuples(st.just("f16"), st.floats(width=16)),
    st.tuples(st.just("i64"), st.integers(-(2**63), 2**63 - 1)),
    st.tuples(st.just("u8"), st.integers(0, 255)),
    st.tuples(st.just("bool"), st.booleans()),
    st.tuples(st.just("bf16"), st.integers(0, 65535)),
)


@st.composite
def graphs(draw) -> Graph:
    """A graph of up to a dozen operators over all kinds of attributes."""
    g = Builder(draw(names) or "graph")
    taken: set[str] = set()

    def fresh(name: str) -> str:
        while name in taken:
            name += "'"
        taken.add(name)
        return name

    outputs = {}
    for _ in range(draw(st.integers(0, 12))):
        kind = draw(st.sampled_from(["sample", "scalar", "clip", "pad", "top_k", "dead"]))
        g.layer, g.source = draw(names), draw(names)
        if kind == "scalar":
            dtype, value = draw(scalars)
            outputs[fresh(draw(names))] = g.constant(value, dtype, draw(names))
            continue
        x = g.input(fresh(draw(names)), TensorType((3, draw(st.integers(1, 4)))))
        if kind == "clip":
            bound = st.one_of(st.none(), st.floats(allow_nan=False))
            low, high = draw(bound), draw(bound)
            if low is not None and high is not None:
                low, high = min(low, high), max(low, high)
            outputs[fresh(draw(names))] = g.emit(Clip(low, high), x)
        elif kind == "pad":
            outputs[fresh(draw(names))] = g.emit(Pad(((0, 1), (2, 0)), value=draw(st.floats(allow_nan=False))), x)
        elif kind == "top_k":
            values, indices = g.emit_all(TopK(1), x)
            outputs[fresh("values")] = values
            outputs[fresh("indices")] = indices
        elif kind == "dead":
            g.neg(g.neg(x))
        else:
            cls = OPS[draw(st.sampled_from(sorted(OPS)))]
            sample = draw(st.sampled_from(cls.samples))
            rng = np.random.default_rng(0)
            operands = [
                g.constant(a.draw(rng), a.dtype, draw(names))
                if draw(st.booleans())
                else g.input(fresh(draw(names)), TensorType(a.shape, a.dtype))
                for a in sample.args
            ]
            for y in g.emit_all(cls(**sample.attrs), *operands):
                outputs[fresh(draw(names))] = y
    return g.finish(outputs)
