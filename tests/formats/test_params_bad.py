"""Parameter files that are broken or hostile: one FormatError each, before memory is taken."""

from __future__ import annotations

import io
import struct
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from samples import npz_bytes, numbers, params_bytes, params_v0

from diptych.errors import FormatError
from diptych.frontends.mxnet.params import Csr, RowSparse, load_params

V1, V2, V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA


def listed(*records: bytes, count: int | None = None, names: bytes = struct.pack("<Q", 0)) -> bytes:
    return struct.pack("<QQQ", 0x112, 0, len(records) if count is None else count) + b"".join(records) + names


def record(shape: tuple[int, ...], data: bytes = b"", version: int = V2, storage: int = 0, code: int = 0) -> bytes:
    return struct.pack(f"<Iii{len(shape)}qiii", version, storage, len(shape), *shape, 1, 0, code) + data


def sparse(
    stored: tuple[int, ...], shape: tuple[int, ...], parts: list[tuple[int, ...]], data: bytes, storage: int
) -> bytes:
    out = struct.pack(f"<Iii{len(stored)}q", V2, storage, len(stored), *stored)
    out += struct.pack(f"<i{len(shape)}qiii", len(shape), *shape, 1, 0, 0)
    for part in parts:
        out += struct.pack(f"<ii{len(part)}q", 6, len(part), *part)
    return out + data


ROW = struct.pack("<2f", 1, 2)
BAD = {
    "empty": (b"", "does not begin with 0x112"),
    "text": (b'{"nodes": []}', "does not begin with 0x112"),
    "too short": (struct.pack("<QQ", 0x112, 0), "the number of arrays"),
    "too many arrays": (listed(count=1 << 60), "only 0 are left|are left"),
    "huge shape": (listed(record((1 << 60,))), "are left"),
    "huge product": (listed(record((1 << 20, 1 << 20, 1 << 20))), "are left"),
    "huge extents of an empty array": (listed(record((0, 1 << 60, 1 << 60), version=V3)), "no array can have"),
    "negative extent": (listed(record((-2, 3))), "negative extent"),
    "negative rank": (listed(struct.pack("<Iii", V2, 0, -5) + bytes(64)), "rank -5"),
    "rank 33": (listed(record((1,) * 33, bytes(4))), "rank 33"),
    "rank of version 0": (listed(struct.pack("<I", 77) + bytes(900)), "rank 77"),
    "unknown type": (listed(record((1,), bytes(8), code=13)), "type code 13"),
    "negative type": (listed(record((1,), bytes(8), code=-1)), "type code -1"),
    "unknown storage": (listed(record((1,), bytes(4), storage=3)), "storage type 3"),
    "sparse in version 3": (listed(record((1,), bytes(4), version=V3, storage=1)), "cannot be"),
    "short data": (listed(record((3,), bytes(8)), names=b""), "are left"),
    "count of names": (listed(record((1,), bytes(4)), names=struct.pack("<Q", 2)), "1 arrays but 2 names"),
    "length of a name": (listed(record((1,), bytes(4)), names=struct.pack("<QQ", 1, 1 << 60)), "the name of array 0"),
    "name not UTF-8": (listed(record((1,), bytes(4)), names=struct.pack("<QQ", 1, 1) + b"\xff"), "not UTF-8"),
    "name twice": (
        listed(*[record((1,), bytes(4))] * 2, names=struct.pack("<Q", 2) + (struct.pack("<Q", 1) + b"a") * 2), "comes twice",
    ),
    "bytes after the end": (listed() + b"x", "follow"),
    "row outside": (listed(sparse((1, 2), (3, 2), [(1,)], ROW + struct.pack("<q", 3), 1)), "outside"),
    "negative row": (listed(sparse((1, 2), (3, 2), [(1,)], ROW + struct.pack("<q", -1), 1)), "outside"),
    "rows that do not fit": (listed(sparse((1, 2), (3, 3), [(1,)], ROW + bytes(8), 1)), "not 1 of its rows"),
    "indices of rank 2": (listed(sparse((1, 2), (3, 2), [(1, 1)], ROW + bytes(8), 1)), "list of integer"),
    "csr of rank 3": (listed(sparse((0,), (1, 1, 1), [(2,), (0,)], bytes(16), 2)), "rank 2"),
    "csr starts that fall": (
        listed(sparse((2,), (2, 2), [(3,), (2,)], ROW + struct.pack("<5q", 0, 3, 2, 0, 1), 2)), "do not rise",
    ),
    "csr column outside": (listed(sparse((2,), (2, 2), [(3,), (2,)], ROW + struct.pack("<5q", 0, 1, 2, 0, 2), 2)), "outside"),
    "csr with too few starts": (listed(sparse((2,), (9, 2), [(3,), (2,)], ROW + struct.pack("<5q", 0, 1, 2, 0, 1), 2)), "row starts"),
}  # fmt: skip


@pytest.mark.parametrize("data, message", BAD.values(), ids=list(BAD))
def test_broken_file(data: bytes, message: str) -> None:
    tracemalloc.start()
    started = time.monotonic()
    with pytest.raises(FormatError, match=message) as caught:
        load_params(data)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    assert time.monotonic() - started < 1
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_the_error_names_file_and_array(tmp_path: Path) -> None:
    path = tmp_path / "net-0000.params"
    path.write_bytes(listed(record((1,), bytes(4)), record((5,), bytes(4))))
    with pytest.raises(FormatError, match=r"net-0000\.params: array 1 of shape \(5,\) needs 20 bytes"):
        load_params(path)


@pytest.mark.parametrize("make", [lambda: params_bytes(numbers()), lambda: params_v0({"a": np.ones(3)}), npz_bytes])
def test_every_truncation_is_an_error(make: Callable[[], bytes]) -> None:
    data = make()
    for end in range(0, len(data), 5):
        with pytest.raises(FormatError):
            load_params(data[:end])


def test_a_sparse_array_of_absurd_size_is_not_made_dense() -> None:
    for value in (
        RowSparse((1 << 50, 2), np.array([3]), np.ones((1, 2))),
        Csr((1 << 25, 1 << 25), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)),
    ):
        with pytest.raises(FormatError, match="limit_bytes"):
            value.dense()


def test_reading_takes_little_more_memory_than_the_arrays(tmp_path: Path) -> None:
    path = tmp_path / "big.params"
    path.write_bytes(params_bytes({"a": np.ones(1 << 20, np.float32)}))
    tracemalloc.start()
    load_params(path)
    assert tracemalloc.get_traced_memory()[1] < (4 << 20) + (1 << 19)
    tracemalloc.stop()


def zipped_pairs(members: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return file.getvalue()


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    return zipped_pairs(list(members.items()), method)


def npy(header: str, data: bytes = b"", version: int = 1) -> bytes:
    length = len(header).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + header.encode() + data


def head(descr: str = "'<f4'", shape: str = "(1,)", order: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


BAD_NPY = {
    "objects": (npy(head("'|O'"), bytes(8)), "never loaded"),
    "text": (npy(head("'<U4'"), bytes(16)), "not numbers"),
    "a record type": (npy(head("[('a', '<f4')]"), bytes(4)), "not numbers"),
    "float8": (npy(head("'<f1'"), bytes(1)), "not numbers"),
    "huge shape": (npy(head(shape="(1152921504606846976,)")), "does not fill"),
    "negative shape": (npy(head(shape="(-1,)")), "no array can have"),
    "bool shape": (npy(head(shape="(True,)"), bytes(4)), "no array can have"),
    "shape that is code": (npy(head(shape="__import__('os')")), "usual dictionary"),
    "deep header": (npy("(" * 5000), "usual dictionary"),
    "long header": (npy(head() + " " * 20000), "claims a header"),
    "header that lies": (npy(head())[:20], "claims a header"),
    "more keys": (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'x': 1}", bytes(4)), "exactly"),
    "wrong order": (npy(head(order="2"), bytes(4)), "not a bool"),
    "version 9": (npy(head(), bytes(4), 9), "version 9"),
    "too little": (npy(head(), bytes(3)), "does not fill"),
    "too much": (npy(head(), bytes(5)), "does not fill"),
}


@pytest.mark.parametrize("data, message", BAD_NPY.values(), ids=list(BAD_NPY))
def test_broken_npy(data: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        load_params(data)
    with pytest.raises(FormatError, match=message):
        load_params(zipped({"a.npy": data}))


def test_zip_bombs_are_refused_unread() -> None:
    zeros = npy(head("'|u1'", f"({200 << 20},)"), bytes(200 << 20))
    bomb = zipped({"a.npy": zeros}, zipfile.ZIP_DEFLATED)
    assert len(bomb) < 1 << 20
    del zeros
    tracemalloc.start()
    with pytest.raises(FormatError, match="64 times"):
        load_params(bomb)
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


def test_damaged_archives() -> None:
    good = zipped({"a.npy": npy(head(), bytes(4))})
    at = good.index(b"}\n") + 2  # the first byte of the value
    with pytest.raises(FormatError, match="CRC"):
        load_params(good[:at] + b"\x01" + good[at + 1 :])
    with pytest.raises(FormatError, match="damaged"):
        load_params(good[:-10])
    with pytest.raises(FormatError, match="does not write"):
        load_params(zipped({"a.npy": b"x" * 100}, zipfile.ZIP_LZMA))
    with pytest.raises(FormatError, match="format 'coo'"):
        load_params(npz_bytes(word=b"coo"))
    with pytest.raises(FormatError, match="two members"), pytest.warns(UserWarning, match="Duplicate"):
        load_params(zipped_pairs([("a.npy", npy(head(), bytes(4)))] * 2))
    assert load_params(zipped({})) == {}


def test_the_broken_format_header_of_mxnet_2_is_read() -> None:
    parts = {
        "data": npy(head("'<f4'", "(1, 2)"), bytes(8)),
        "indices": npy(head("'<i8'", "(1,)"), bytes(8)),
        "shape": npy(head("'<i8'", "(2,)"), struct.pack("<2q", 3, 2)),
        "format": npy("{'descr': '|s10{'descr': '<i8', 'fortran_order': False, 'shape': (), }\n", b"row_sparse"),
    }
    value = load_params(zipped({f"w/{name}.npy": data for name, data in parts.items()}))["w"]  # type: ignore[call-overload]
    assert isinstance(value, RowSparse) and value.dense().shape == (3, 2)
