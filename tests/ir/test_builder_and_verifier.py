"""Types, the builder and the verifier: what they make and what they refuse."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from diptych.errors import GraphError, InputError, TypeRuleError
from diptych.ir import DTYPES, Graph, GraphBuilder, Node, TensorType, dtype_of, itemsize, numpy_dtype, verify
from diptych.ops import Add, Builder, MatMul, Relu, TopK
from diptych.targets.numpy import interpret


def test_types():
    t = TensorType((2, 0, 3), "i64")
    assert (t.rank, t.size, t.nbytes, str(t)) == (3, 0, 0, "i64[2,0,3]")
    assert t.with_shape((4,)) == TensorType((4,), "i64")
    assert t.with_dtype("bool").nbytes == 0
    assert TensorType(()).nbytes == 4


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes_pair_with_numpy(dtype):
    assert itemsize(dtype) == numpy_dtype(dtype).itemsize
    if dtype != "bf16":  # kept as uint16 bit patterns
        assert dtype_of(np.zeros(1, numpy_dtype(dtype))) == dtype
        assert dtype_of(np.zeros(1, numpy_dtype(dtype).newbyteorder(">"))) == dtype


@pytest.mark.parametrize(
    ("shape", "dtype", "why"),
    [((-1,), "f32", ">= 0"), ((1.0,), "f32", "Python int"), ((True,), "f32", "Python int"), ((2,), "float", "unknown"),
     ((1 << 25, 1 << 25), "f32", "2.48")],
)  # fmt: skip
def test_types_refuse(shape, dtype, why):
    with pytest.raises(TypeRuleError, match=why):
        TensorType(shape, dtype)


def test_arrays_without_a_dtype_of_ours():
    for dtype in ("complex64", "datetime64[s]", "U3", object):
        with pytest.raises(TypeRuleError, match="not supported"):
            dtype_of(np.zeros(1, dtype))


def test_builder_infers_types_and_drops_what_is_unused():
    g = Builder("mlp")
    x = g.input("x", TensorType((2, 3)))
    w = g.constant(np.ones((3, 4), np.float32), name="w")
    unused = g.constant(np.zeros(7))
    g.neg(unused)
    y = g.relu(g.matmul(x, w))
    assert (y.shape, y.dtype, y.rank, repr(y)) == ((2, 4), "f32", 2, "%5: f32[2,4]")
    assert g.constant_array(w) is not None and g.constant_array(x) is None
    graph = verify(g.finish({"y": y}))
    assert [n.op for n in graph.nodes] == [MatMul(), Relu()]
    assert set(graph.constants) == set(graph.constant_names) == {w.id}
    assert graph.input_types() == {"x": TensorType((2, 3))}
    assert graph.output_types() == {"y": TensorType((2, 4))}
    assert graph.producer()[y.id].op == Relu()
    assert [n.op for n in graph.uses()[x.id]] == [MatMul()]
    assert graph.renamed("other").name == "other"


def test_names_and_sources():
    g = Builder()
    x = g.input("x", TensorType((2,)))
    g.layer, g.source = "block", "net.py:1"
    y = g.relu(x)
    z = g.emit(Relu(), y, name="own", source="net.py:2")
    nodes = g.finish([z]).nodes
    assert [(n.name, n.source) for n in nodes] == [("block", "net.py:1"), ("own", "net.py:2")]


def test_type_errors_name_operator_types_and_layer():
    g = Builder()
    x = g.input("x", TensorType((2, 3)))
    g.layer = "fc1"
    with pytest.raises(TypeRuleError, match=r"mat_mul\(f32\[2,3\], f32\[2,3\]\): inner extents differ.*\[layer fc1\]"):
        g.matmul(x, x)
    with pytest.raises(TypeRuleError, match="mat_mul: 1 operands do not fit"):
        g.emit(MatMul(), x)


def test_builder_refuses():
    g, other = Builder(), Builder()
    x = g.input("x", TensorType((2,)))
    y = other.input("y", TensorType((2,)))
    with pytest.raises(GraphError, match="two graph inputs"):
        g.input("x", TensorType((2,)))
    with pytest.raises(GraphError, match="another builder"):
        g.add(x, y)
    with pytest.raises(GraphError, match="emit_all"):
        g.emit(TopK(1), x)


def test_constants_of_given_dtype():
    g = GraphBuilder()
    assert g.constant(1.5, "f32").type == TensorType((), "f32")
    assert g.constant([1, 2], "bf16").type == TensorType((2,), "bf16")
    assert g.constant(3).dtype == "i64"


def test_interpreter_checks_its_inputs():
    g = Builder()
    graph = g.finish([g.relu(g.input("x", TensorType((2,))))])
    with pytest.raises(InputError, match="the graph takes"):
        interpret(graph, {"y": np.zeros(2)})
    with pytest.raises(InputError, match="expected"):
        interpret(graph, {"x": np.zeros(3)})
    kept = interpret(graph, {"x": np.array([-1.0, 2.0])}, "f64", keep=True)
    assert kept["output0"].dtype == np.float64 and set(kept) == {"output0", "%0", "%1"}


T = TensorType((2,))
GOOD = Graph((T, T, T), (0,), (2,), (Node(Add(), (0, 1), (2,), "sum"),), {1: np.zeros(2, np.float32)}, ("x",), ("y",))


def test_the_good_graph_verifies():
    assert verify(GOOD) is GOOD


BROKEN = {
    "input names": (replace(GOOD, input_names=("x", "z")), "inputs and their names"),
    "output names": (replace(GOOD, output_names=()), "outputs and their names"),
    "same names": (replace(GOOD, outputs=(2, 2), output_names=("y", "y")), "outputs and their names"),
    "no type": (replace(GOOD, types=(T, T)), "%2 has no type"),
    "twice": (replace(GOOD, nodes=GOOD.nodes * 2), "%2 is defined twice"),
    "input is a constant": (replace(GOOD, constants={0: np.zeros(2, np.float32)}), "%0 is defined twice"),
    "constant type": (replace(GOOD, constants={1: np.zeros(2)}), "float64.* is not of type f32"),
    "constant shape": (replace(GOOD, constants={1: np.zeros(3, np.float32)}), "is not of type"),
    "order": (replace(GOOD, constants={}), "operand %1 is used before"),
    "results": (replace(GOOD, nodes=(Node(Add(), (0, 1), (2, 3)),), types=(T,) * 4), "gives 1 results, the node has 2"),
    "result type": (replace(GOOD, types=(T, T, TensorType((3,)))), r"node 0 \(add sum\).*the type rule says f32\[2\]"),
    "undefined output": (replace(GOOD, outputs=(5,)), "%5 is never defined"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_verifier_refuses(case):
    graph, why = BROKEN[case]
    with pytest.raises(GraphError, match=why):
        verify(graph)
