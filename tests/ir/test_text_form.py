"""The text form: what is printed reads back as the same graph, and nothing else gets in."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_graphs import graphs

from diptych.errors import FormatError, GraphError
from diptych.ir import Graph, Node, TensorType
from diptych.ir.text import parse_graph, print_graph
from diptych.ops import OPS, Builder, Clip, Conv, Relu, Transpose

QUIET = {"suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large], "deadline": None}


def same(a: Graph, b: Graph) -> None:
    """Equal in everything that counts (the types of dropped values do not)."""
    assert (a.name, a.inputs, a.outputs, a.input_names, a.output_names) == (
        b.name, b.inputs, b.outputs, b.input_names, b.output_names)  # fmt: skip
    assert list(map(repr, a.nodes)) == list(map(repr, b.nodes))  # by repr: nan attributes differ from themselves
    assert dict(a.constant_names) == dict(b.constant_names)
    assert set(a.constants) == set(b.constants)
    for v, array in a.constants.items():
        assert array.dtype == b.constants[v].dtype and array.tobytes() == b.constants[v].tobytes()
    for v in [*a.inputs, *a.constants, *(o for n in a.nodes for o in n.outputs)]:
        assert a.types[v] == b.types[v]


@settings(max_examples=150, **QUIET)
@given(graphs())
def test_round_trip(graph):
    text = print_graph(graph)
    again = parse_graph(text, graph.constants, ops=OPS)
    same(graph, again)
    assert print_graph(again) == text


def tiny() -> Graph:
    g = Builder("tiny")
    x = g.input("x", TensorType((1, 3, 8, 8)))
    w = g.constant(np.arange(4 * 27, dtype=np.float32).reshape(4, 3, 3, 3), name="conv0.weight")
    conv = Conv((2, 2), ((1, 1), (1, 1)), (1, 1))
    y = g.emit(conv, x, w, name="conv0", source="net.py:12")
    return g.finish({"y": g.emit(Relu(), g.mul(y, 0.1), name="a layer", source="my net.py:3")})


def test_what_it_looks_like():
    digest = hashlib.sha256(b"f32[4,3,3,3] " + tiny().constants[1].tobytes()).hexdigest()[:16]
    assert print_graph(tiny()).splitlines() == [
        "graph 'tiny'",
        "%0 = input 'x' : f32[1,3,8,8]",
        f"%1 = const f32[4,3,3,3] sha256:{digest}  # conv0.weight",
        "%3 = const f32[] 0.1",
        "%2 = conv(%0, %1) {strides=(2, 2), pads=((1, 1), (1, 1)), dilations=(1, 1), groups=1} : f32[1,4,4,4]"
        "  # conv0 @ net.py:12",
        "%4 = mul(%2, %3) : f32[1,4,4,4]",
        "%5 = relu(%4) : f32[1,4,4,4]  # 'a layer' @ 'my net.py:3'",
        "return 'y': %5",
    ]
    assert str(tiny()) == print_graph(tiny())


def test_the_digest_sees_dtype_shape_and_bytes():
    def digest(array):
        g = Builder()
        return print_graph(g.finish([g.constant(array)])).splitlines()[1].split()[-1]

    zeros = np.zeros((2, 3), np.float32)
    assert digest(zeros) == digest(zeros.astype(">f4").astype("<f4")) == digest(np.zeros((3, 2), np.float32).T)
    assert len({digest(a) for a in (zeros, zeros.T, zeros.view(np.int32), zeros - 1, -zeros)}) == 5


def test_constants_must_be_those_that_were_printed():
    graph, text = tiny(), print_graph(tiny())
    with pytest.raises(FormatError, match=r"array of constant %1 is needed"):
        parse_graph(text, ops=OPS)
    with pytest.raises(FormatError, match="not the one that was printed"):
        parse_graph(text, {1: graph.constants[1] + 1}, ops=OPS)
    with pytest.raises(FormatError, match=r"float64\[4, 3, 3, 3\], not f32"):
        parse_graph(text, {1: graph.constants[1].astype(float)}, ops=OPS)


def test_attributes_must_be_plain():
    x = TensorType((2,))
    graph = Graph((x, x), (0,), (1,), (Node(Clip(np.float32(0), 1.0), (0,), (1,)),), {}, ("x",), ("y",))  # type: ignore[arg-type]
    with pytest.raises(GraphError, match="low holds a float32"):
        print_graph(graph)


def with_line(line: str, returns: str = "'y': %9") -> str:
    return f"graph 'g'\n%0 = input 'x' : f32[2,3]\n%1 = const f32[] 1.0\n{line}\nreturn {returns}\n"


BAD = {
    "empty": ("", "at least"),
    "no graph": ("hello\nreturn", "graph"),
    "unknown operator": (with_line("%9 = frobnicate(%0) : f32[2,3]"), "unknown operator 'frobnicate'"),
    "undefined operand": (with_line("%9 = relu(%5) : f32[2,3]"), "%5 is used before"),
    "defined twice": (with_line("%1 = relu(%0) : f32[2,3]"), "%1 is defined twice"),
    "wrong type": (with_line("%9 = relu(%0) : f32[2,4]"), "type rule of relu"),
    "wrong results": (with_line("%9, %8 = relu(%0) : f32[2,3]"), "2 results have 1 types"),
    "two results": (with_line("%9, %8 = relu(%0) : f32[2,3], f32[2,3]"), "type rule of relu"),
    "wrong attribute": (with_line("%9 = relu(%0) {alpha=1} : f32[2,3]"), "alpha"),
    "missing attribute": (with_line("%9 = transpose(%0) : f32[3,2]"), "perm"),
    "attribute of a strange type": (with_line("%9 = transpose(%0) {perm='ab'} : f32[3,2]"), "does not take"),
    "call in an attribute": (with_line("%9 = transpose(%0) {perm=exit()} : f32[3,2]"), "Call"),
    "attribute escape": (with_line("%9 = transpose(%0) {perm=1)+f(a=2} : f32[3,2]"), "bad attributes"),
    "attribute splat": (with_line("%9 = transpose(%0) {**x} : f32[3,2]"), "bad attributes"),
    "comprehension": (with_line("%9 = transpose(%0) {perm=[i for i in 'ab']} : f32[3,2]"), "ListComp"),
    "power": (with_line("%9 = transpose(%0) {perm=9**9**9} : f32[3,2]"), "BinOp"),
    "deep": (with_line("%9 = transpose(%0) {perm=" + "(" * 5000 + ")" * 5000 + "} : f32[3,2]"), "bad attributes"),
    "minus": (with_line("%9 = transpose(%0) {perm=" + "-" * 50000 + "1} : f32[3,2]"), "bad attributes"),
    "long attribute": (with_line("%9 = transpose(%0) {perm=(" + "1," * 50000 + ")} : f32[3,2]"), "at most"),
    "huge integer": (with_line("%9 = transpose(%0) {perm=(" + "9" * 9000 + ",)} : f32[3,2]"), "bad attributes"),
    "64 bits": (with_line("%9 = transpose(%0) {perm=(18446744073709551616, 0)} : f32[3,2]"), "64 bits"),
    "huge value": (with_line("%99999999 = relu(%0) : f32[2,3]"), "past the limit"),
    "huge shape": (with_line("%9 = input 'z' : f32[999999999999,999999999999]"), "elements"),
    "huge rank": (with_line("%9 = input 'z' : f32[" + "1," * 99 + "1]"), "rank 100"),
    "unknown dtype": (with_line("%9 = input 'z' : f8[1]"), "unknown dtype"),
    "same input": (with_line("%9 = input 'x' : f32[1]"), "two inputs"),
    "array inline": (with_line("%9 = const f32[2] 1.0"), "only scalars"),
    "not a number": (with_line("%9 = const f32[] one"), "not a f32 number"),
    "too large": (with_line("%9 = const f32[] 1e300"), "out of range"),
    "too large an integer": (with_line("%9 = const u8[] 256"), "out of range"),
    "too many bits": (with_line("%9 = const bf16[] bits:0x12345"), "not a bf16 number"),
    "bf16 decimal": (with_line("%9 = const bf16[] 1.0"), "bits"),
    "bool": (with_line("%9 = const bool[] 1"), "not a bool number"),
    "trailing": (with_line("%9 = relu(%0) : f32[2,3] and more"), "nothing more"),
    "no such output": (with_line("%9 = relu(%0) : f32[2,3]", "'y': %7"), "%7 is never defined"),
    "same output": (with_line("%9 = relu(%0) : f32[2,3]", "'y': %9, 'y': %9"), "two outputs"),
    "no return": (with_line("%9 = relu(%0) : f32[2,3]") + "%3 = const f32[] 1.0", "expected"),
    "source of a constant": (with_line("%9 = const f32[] 1.0  # a @ b"), "no source"),
    "long line": (with_line("%9 = const f32[] 1.0  # '" + "a" * (1 << 20) + "'"), "at most"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_text_is_a_format_error(case):
    text, why = BAD[case]
    with pytest.raises(FormatError, match=why):
        parse_graph(text, ops=OPS)


def test_errors_name_the_line():
    with pytest.raises(FormatError, match=r"line 4: unknown operator"):
        parse_graph(with_line("%9 = frobnicate(%0) : f32[2,3]"), ops=OPS)


@settings(max_examples=300, **QUIET)
@given(st.randoms(use_true_random=False))
def test_damaged_text_never_gets_through_as_another_error(source: random.Random):
    text = list(print_graph(tiny()))
    for _ in range(source.randint(1, 4)):
        at = source.randrange(len(text))
        action = source.randrange(3)
        if action == 0:
            text[at] = chr(source.choice([source.randrange(32, 127), 10, 0x661, 0x2028, 0]))
        elif action == 1:
            del text[at : at + source.randint(1, 20)]
        else:
            text.insert(at, source.choice(["(", ")", "{", "'", "%", "9", ",", "\n"]))
    graph = tiny()
    try:
        parsed = parse_graph("".join(text), graph.constants, ops=OPS)
    except FormatError:
        return
    assert isinstance(print_graph(parsed), str)


def test_special_attribute_values():
    g = Builder()
    x = g.input("x", TensorType((2,)))
    graph = g.finish([g.emit(Clip(-float("inf"), 1e300), g.emit(Transpose((0,)), x))])
    text = print_graph(graph)
    assert "{low=-inf, high=1e+300}" in text and "{perm=(0,)}" in text
    same(graph, parse_graph(text, ops=OPS))
