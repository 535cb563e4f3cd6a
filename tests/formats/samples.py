"""Small valid files of every kind, made here, for the tests of the readers and as seeds of the fuzzer."""

from __future__ import annotations

import io
import json
import struct
import tempfile
from pathlib import Path

import numpy as np

from diptych.frontends.mxnet.params import BFloat16, Csr, ParamValue, RowSparse, save_params
from diptych.frontends.mxnet.recordio import IRHeader, RecordWriter, pack

MAGIC = struct.pack("<I", 0xCED7230A)


def numbers() -> dict[str, ParamValue]:
    """One array of each kind that a file of version 2 can hold."""
    rng = np.random.default_rng(3)
    kinds = ["f4", "f8", "f2", "u1", "i4", "i1", "i8", "?", "i2", "u2", "u4", "u8"]
    out: dict[str, ParamValue] = {f"arg:{k}": rng.integers(0, 2, (2, 3)).astype(k) for k in kinds}
    out["aux:bf16"] = BFloat16(np.array([0x3F80, 0x4000, 0xFF80], np.uint16))
    out["arg:rows"] = RowSparse((4, 2), np.array([1, 3]), np.array([[1, 2], [3, 4]], np.float32))
    out["arg:csr"] = Csr((2, 3), np.array([0, 1, 2]), np.array([2, 0]), np.array([7, 8], np.float32))
    out["arg:none"] = None
    return out


def params_bytes(values: object, **options: object) -> bytes:
    """A parameter file as bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.params"
        save_params(path, values, **options)  # type: ignore[arg-type]
        return path.read_bytes()


def params_v0(values: dict[str, np.ndarray]) -> bytes:
    """The layout before 0.11: a record begins with its rank, and extents have 32 bits."""
    out = [struct.pack("<QQQ", 0x112, 0, len(values))]
    for a in values.values():
        out += [struct.pack(f"<I{a.ndim}I", a.ndim, *a.shape), struct.pack("<iii", 2, 0, 0), a.astype("<f4").tobytes()]
    out.append(struct.pack("<Q", len(values)))
    for name in values:
        out.append(struct.pack("<Q", len(name)) + name.encode())
    return b"".join(out)


def params_v1(values: dict[str, np.ndarray]) -> bytes:
    """The layout of 0.11: a mark, and extents of 64 bits."""
    out = [struct.pack("<QQQ", 0x112, 0, len(values))]
    for a in values.values():
        out.append(struct.pack(f"<II{a.ndim}q", 0xF993FAC8, a.ndim, *a.shape))
        out += [struct.pack("<iii", 1, 0, 0), a.astype("<f4").tobytes()]
    out.append(struct.pack("<Q", 0))
    return b"".join(out)


def npz_bytes(*, compressed: bool = False, word: bytes = b"row_sparse") -> bytes:
    """An npz file with the names MXNet 2.0 gives, a row-sparse and a CSR array among them."""
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(
        file,
        **{
            "dense_0.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
            "flags": np.array([True, False]),
            "scalar": np.array(2.5),
            "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
            "big": np.arange(3, dtype=">i4"),
            "rows/data": np.array([[1, 2]], np.float32),
            "rows/indices": np.array([2]),
            "rows/shape": np.array([4, 2]),
            "rows/format": np.array(word),
            "csr/data": np.array([7.0]),
            "csr/indices": np.array([1]),
            "csr/indptr": np.array([0, 1, 1]),
            "csr/shape": np.array([2, 2]),
            "csr/format": np.array(b"csr"),
        },
    )
    return file.getvalue()


def records_bytes() -> bytes:
    """A record file with every way a payload can be cut."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.rec"
        with RecordWriter(path) as writer:
            for payload in payloads():
                writer.write(payload)
        return path.read_bytes()


def payloads() -> list[bytes]:
    """Payloads with the magic number at the start, the end, twice, and where it does not count."""
    return [
        b"", b"abc", b"x" * 8, MAGIC, b"abcd" + MAGIC + b"ef", b"a" + MAGIC, MAGIC * 3 + b"z", b"abcd" + MAGIC,
        pack(IRHeader(0, 3.0, 7, 0), b"image"), pack(IRHeader(0, [1.0, 2.0], 8, 1), MAGIC + b"image"),
    ]  # fmt: skip


def symbol(nodes: list[dict[str, object]], heads: list[list[int]], version: int | None = 10901, **top: object) -> str:
    """A symbol file: the nodes as given, `arg_nodes` filled in."""
    value: dict[str, object] = {
        "nodes": nodes,
        "arg_nodes": [i for i, n in enumerate(nodes) if n["op"] == "null"],
        "heads": heads,
    }
    if version is not None:
        value["attrs"] = {"mxnet_version": ["int", version]}
    return json.dumps(value | top, indent=1)


def variable(name: str, **fields: object) -> dict[str, object]:
    """A variable of a symbol file."""
    return {"op": "null", "name": name, "inputs": [], **fields}


def node(op: str, name: str, *inputs: int, **fields: object) -> dict[str, object]:
    """An operator of a symbol file; inputs are nodes, of which the first output is taken."""
    return {"op": op, "name": name, "inputs": [[i, 0, 0] for i in inputs], **fields}


def small_symbol(version: int | None = 10901) -> str:
    """Convolution, BatchNorm, split and a loss: a bit of everything, in the spelling of that version."""
    key = "attrs" if version and version >= 10000 else "attr" if version else "param"
    nodes = [
        variable("data"), variable("w", **({key: {"__lr_mult__": "2"}} if version else {})), variable("b"),
        node("Convolution", "c", 0, 1, 2, **{key: {"kernel": "(3,3)", "num_filter": "4", "no_bias": "False"}}),
        variable("g"), variable("beta"), *([variable("mean"), variable("var")] if version else []),
    ]  # fmt: skip
    inputs = [3, 4, 5, 6, 7] if version else [3, 4, 5]
    last = len(nodes)
    nodes.append(node("BatchNorm", "bn", *inputs, **{key: {"eps": "0.001"}}))
    nodes.append(node("SliceChannel", "s", last, **{key: {"num_outputs": "2"}}))
    nodes.append({"op": "SoftmaxOutput", "name": "out", "inputs": [[last + 1, 1, 0]], key: {}})
    if version:
        nodes[-1]["inputs"] = [[last + 1, 1, 0], [last + 2, 0, 0]]
        nodes.insert(last + 2, variable("label"))
    return symbol(nodes, [[last + 1, 0, 0], [len(nodes) - 1, 0, 0]], version)


def loop_symbol() -> str:
    """A `_foreach` with its subgraph."""
    inner = json.loads(
        symbol([variable("x0"), variable("s0"), node("elemwise_add", "add", 0, 1)], [[2, 0, 0], [2, 0, 0]], None)
    )
    attrs = {"num_args": "3", "num_outputs": "2", "num_out_data": "1", "in_data_locs": "[0]", "in_state_locs": "[1]",
             "remain_locs": "[]"}  # fmt: skip
    loop = node("_foreach", "loop", 0, 1, attrs=attrs, subgraphs=[inner])
    return symbol([variable("x"), variable("s"), loop], [[2, 0, 0], [2, 1, 0]])
