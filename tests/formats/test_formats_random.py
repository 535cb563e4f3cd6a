"""Properties of the readers and writers over random values, graphs, records and damage."""

from __future__ import annotations

import ast
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from samples import MAGIC, npz_bytes, numbers, params_bytes, records_bytes, small_symbol

from diptych.errors import FormatError
from diptych.frontends.mxnet.attributes import parse_value
from diptych.frontends.mxnet.params import Csr, ParamValue, RowSparse, load_params, load_record, save_record
from diptych.frontends.mxnet.recordio import RecordReader, RecordWriter
from diptych.frontends.mxnet.symbol_graph import SymbolGraph, SymbolNode
from diptych.frontends.mxnet.symbol_json import read_symbol, write_symbol

# The same examples in every run; the fuzzer is what searches for new ones.
some = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
many = settings(some, max_examples=300)

TYPES = st.sampled_from(["f4", "f8", "f2", "u1", "i4", "i1", "i8", "?", "i2", "u2", "u4", "u8"])
ARRAYS = hnp.arrays(TYPES.map(np.dtype), hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4))
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@some
@given(st.dictionaries(NAMES, ARRAYS, max_size=5))
def test_dense_arrays_come_back_bit_for_bit(values: dict[str, npt.NDArray[np.generic]]) -> None:
    back = load_params(params_bytes(values))
    if not values:
        assert back == []  # a file without arrays cannot tell a mapping from a list
        return
    assert isinstance(back, dict) and list(back) == list(values)
    for name, value in values.items():
        got = back[name]
        assert isinstance(got, np.ndarray)
        assert (got.dtype, got.shape, got.tobytes()) == (value.dtype, value.shape, value.tobytes())


@some
@given(st.data())
def test_sparse_arrays_come_back(data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(0, 6)), data.draw(st.integers(1, 5))
    dense = data.draw(hnp.arrays(np.float32, (rows, columns), elements=st.sampled_from([0.0, 0.0, 1.5, -2.0])))
    kept = np.flatnonzero(dense.any(axis=1))
    across, down = np.nonzero(dense)
    starts = np.concatenate([[0], np.cumsum(np.bincount(across, minlength=rows))]).astype(np.int64)
    for value in (RowSparse(dense.shape, kept, dense[kept]), Csr((rows, columns), starts, down, dense[across, down])):
        back = load_record(save_record(value))
        assert isinstance(back, RowSparse | Csr) and type(back) is type(value)
        np.testing.assert_array_equal(back.dense(), dense)


TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from('"\\\n\t\r'), max_size=8)
OPERATORS = st.sampled_from(["relu", "BatchNorm", "SliceChannel", "Convolution", "Custom", "topk", "my_op"])


@st.composite
def graphs(draw: st.DrawFn, depth: int = 0) -> SymbolGraph:
    nodes: list[SymbolNode] = []
    for _ in range(draw(st.integers(1, 7))):
        attrs = draw(st.dictionaries(TEXTS.filter(lambda t: not t.startswith("__")), TEXTS, max_size=2))
        hidden = draw(st.dictionaries(TEXTS.filter(bool).map(lambda t: f"__{t}__"), TEXTS, max_size=1))
        if not nodes or draw(st.booleans()):
            nodes.append(SymbolNode(None, draw(TEXTS), (), attrs, hidden))
            continue
        sources = draw(st.lists(st.integers(0, len(nodes) - 1), max_size=6))
        inputs = tuple((s, 0 if nodes[s].op is None else draw(st.integers(0, 2))) for s in sources)
        inner = (draw(graphs(depth=depth + 1)),) if depth < 2 and draw(st.integers(0, 5)) == 0 else ()
        deps = tuple(draw(st.lists(st.integers(0, len(nodes) - 1), max_size=1)))
        nodes.append(SymbolNode(draw(OPERATORS), draw(TEXTS), inputs, attrs, hidden, inner, deps))
    heads = tuple((h, 0) for h in draw(st.lists(st.integers(0, len(nodes) - 1), min_size=1, max_size=3)))
    return SymbolGraph(tuple(nodes), tuple(i for i, n in enumerate(nodes) if n.op is None), heads)


@some
@given(graphs())
def test_symbols_come_back_once_their_nodes_are_in_order(graph: SymbolGraph) -> None:
    text = write_symbol(graph)
    ordered = read_symbol(text)  # nodes that lead nowhere are gone, the others stand in the order of the walk
    again = read_symbol(write_symbol(ordered))
    assert again == ordered
    assert ordered.list_outputs() == graph.list_outputs()
    assert set(ordered.list_auxiliary_states()) <= set(graph.list_auxiliary_states())
    reached = {n.name for n in ordered.nodes if n.op is None}
    assert reached <= {n.name for n in graph.nodes if n.op is None}


PIECES = st.lists(
    st.one_of(st.binary(max_size=9), st.just(MAGIC), st.just(MAGIC[:2]), st.just(b"\0\0\0\0")), max_size=8
)


@some
@given(st.lists(PIECES.map(b"".join), max_size=6))
def test_records_come_back(payloads: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.rec"
        with RecordWriter(path) as writer:
            offsets = [writer.write(p) for p in payloads]
        data = path.read_bytes()
        starts = [i for i in range(0, len(data), 4) if data[i : i + 4] == MAGIC and data[i + 7] >> 5 in (0, 1)]
        assert starts == offsets  # a reader that starts anywhere finds exactly the beginnings of records
        with RecordReader(path) as reader:
            assert list(reader) == payloads


LEAVES = st.one_of(
    st.integers(-(10**18), 10**18), st.booleans(), st.none(), st.floats(allow_nan=False, allow_infinity=False)
)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4).map(tuple), max_leaves=12)


@some
@given(VALUES, st.sampled_from(["()", "[]"]), st.booleans())
def test_values_are_parsed_as_python_would(value: object, brackets: str, tight: bool) -> None:
    text = repr(value)
    if brackets == "[]":
        text = text.replace("(", "[").replace(",)", ",]").replace(")", "]")
    assert parse_value(text.replace(" ", "") if tight else text) == value


def flat(value: object) -> list[object]:
    """The leaves of nested tuples and lists; a bracket around one value is a tuple for MXNet and none for Python."""
    return [leaf for item in value for leaf in flat(item)] if isinstance(value, tuple | list) else [value]


@many
@given(st.text("()[],'\" 0123456789.e-", max_size=20))
def test_text_in_brackets_means_what_python_says_or_is_refused(text: str) -> None:
    if "..." in text:
        return  # Python's Ellipsis
    try:
        value, wanted = parse_value(f"({text})"), ast.literal_eval(f"({text})")
    except (FormatError, ValueError, SyntaxError):
        return  # bare words such as NCHW are text for MXNet and nothing for Python
    assert flat(value) == flat(wanted)


FILES = {
    "params": (params_bytes(numbers()), load_params),
    "npz": (npz_bytes(), load_params),
    "symbol": (small_symbol().encode(), read_symbol),
    "old symbol": (small_symbol(None).encode(), read_symbol),
}


@many
@given(st.sampled_from(sorted(FILES)), st.data())
def test_damaged_files_give_a_value_or_a_format_error(kind: str, data: st.DataObject) -> None:
    whole, read = FILES[kind]
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged)))
        cut = data.draw(st.integers(0, 16))
        damaged[at : at + cut] = data.draw(st.binary(max_size=16))
    try:
        value: object = read(bytes(damaged))
    except FormatError:
        return
    assert isinstance(value, dict | list | SymbolGraph)


@some
@given(st.binary(max_size=200))
def test_any_bytes_as_a_record_give_a_value_or_a_format_error(data: bytes) -> None:
    try:
        value: ParamValue = load_record(data)
    except FormatError:
        return
    assert value is None or value.shape is not None


@some
@given(st.integers(0, 60), st.binary(min_size=1, max_size=8))
def test_damaged_records_give_records_or_a_format_error(at: int, junk: bytes) -> None:
    whole = records_bytes()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.rec"
        path.write_bytes(whole[:at] + junk + whole[at + len(junk) :])
        with RecordReader(path) as reader:
            try:
                assert all(isinstance(r, bytes) for r in reader)
            except FormatError:
                pass
