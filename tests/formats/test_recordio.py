"""RecordIO files: cutting at the magic number, the index, image headers, lists, and damage."""

from __future__ import annotations

import multiprocessing
import pickle
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from samples import MAGIC, payloads, records_bytes

from diptych.errors import FormatError, InputError
from diptych.frontends.mxnet.recordio import (
    IndexedRecordReader,
    IndexedRecordWriter,
    IRHeader,
    ListEntry,
    RecordReader,
    RecordWriter,
    pack,
    read_index,
    read_list,
    unpack,
    write_list,
)


@pytest.fixture
def record_file(tmp_path: Path) -> Path:
    path = tmp_path / "a.rec"
    path.write_bytes(records_bytes())
    return path


def test_records_come_back(record_file: Path) -> None:
    with RecordReader(record_file) as reader:
        assert list(reader) == payloads()
        assert [reader.read() for _ in payloads()] == payloads()
        assert reader.read() is None
        reader.reset()
        assert reader.read() == payloads()[0]


def test_the_bytes_of_a_cut_record(tmp_path: Path) -> None:
    with RecordWriter(tmp_path / "a.rec") as writer:
        assert writer.write(b"abcd" + MAGIC + b"ef") == 0
        assert writer.tell() == 24
        assert writer.write(b"") == 24
    assert (tmp_path / "a.rec").read_bytes() == (
        MAGIC
        + struct.pack("<I", 1 << 29 | 4)
        + b"abcd"
        + MAGIC
        + struct.pack("<I", 3 << 29 | 2)
        + b"ef\0\0"
        + MAGIC
        + bytes(4)
    )


def test_reading_at_an_offset(record_file: Path) -> None:
    with RecordReader(record_file) as reader:
        offsets = []
        while reader.tell() < record_file.stat().st_size:
            offsets.append(reader.tell())
            reader.read()
        for offset, payload in reversed(list(zip(offsets, payloads(), strict=True))):
            reader.seek(offset)
            assert reader.read() == payload


def test_an_index_finds_records_by_key(tmp_path: Path) -> None:
    with IndexedRecordWriter(tmp_path / "a.idx", tmp_path / "a.rec") as writer:
        for key, payload in enumerate(payloads()):
            writer.write_idx(key * 10, payload)
        with pytest.raises(InputError, match="already"):
            writer.write_idx(10, b"")
        for bad in ("", "a\tb", "a\n"):
            with pytest.raises(InputError, match="key"):
                writer.write_idx(bad, b"")
    assert (tmp_path / "a.idx").read_text().startswith("0\t0\n10\t8\n20\t20\n")
    with IndexedRecordReader(tmp_path / "a.idx", tmp_path / "a.rec") as reader:
        assert reader.keys == [k * 10 for k in range(len(payloads()))] and len(reader) == len(payloads())
        assert [reader.read_idx(k) for k in reader.keys] == payloads()
        with pytest.raises(InputError, match="no key 7"):
            reader.read_idx(7)
    assert list(read_index(tmp_path / "a.idx", str))[1] == "10"


def _first(reader: RecordReader, out: object) -> None:
    out.put(reader.read())  # type: ignore[attr-defined]


def test_readers_work_in_other_processes_and_threads(record_file: Path) -> None:
    reader = RecordReader(record_file)
    reader.read()
    copy = pickle.loads(pickle.dumps(reader))
    assert copy.read() == payloads()[1] and reader.read() == payloads()[1]
    context = multiprocessing.get_context("fork")
    out = context.SimpleQueue()
    process = context.Process(target=_first, args=(reader, out))
    process.start()
    assert out.get() == payloads()[2]
    process.join()
    with ThreadPoolExecutor(4) as pool:
        assert all(read == payloads() for read in pool.map(lambda _: list(reader), range(16)))
    reader.close()
    copy.close()


def test_image_headers() -> None:
    header, data = unpack(pack(IRHeader(5, 1.5, 2**40, 3), b"jpeg"))
    assert header == (0, 1.5, 2**40, 3) and data == b"jpeg"
    header, data = unpack(pack(IRHeader(0, np.array([1, 2, 3]), 1, 0), b"jpeg"))
    assert header.flag == 3 and np.asarray(header.label).tolist() == [1, 2, 3] and data == b"jpeg"
    assert pack(IRHeader(0, 3.0, 7, 0), b"i").hex() == "00000000000040400700000000000000000000000000000069"
    with pytest.raises(FormatError, match="24 bytes"):
        unpack(b"short")
    with pytest.raises(FormatError, match="4294967295 labels"):
        unpack(b"\xff" * 24)
    for bad in (IRHeader(0, 1.0, -1, 0), IRHeader(0, [1.0], 2**64, 0), IRHeader(0, 1e300, 0, 0)):
        with pytest.raises(InputError, match="fit"):
            pack(bad, b"")


def test_lists(tmp_path: Path) -> None:
    path = tmp_path / "a.lst"
    entries = [ListEntry(0, (1.0,), "a b.jpg"), ListEntry(7, (0.5, -2.0), "d/ü.png")]
    write_list(path, entries)
    assert path.read_text(encoding="utf-8").startswith("0\t1.000000\ta b.jpg\n")
    assert read_list(path) == entries
    with pytest.raises(InputError, match="tab"):
        write_list(path, [ListEntry(0, (), "a\tb")])
    for text, message in (("1\ta.jpg\n", "2 fields"), ("1\tx\ta.jpg\n", "not a number")):
        path.write_text(text)
        with pytest.raises(FormatError, match=message):
            read_list(path)
    path.write_bytes(b"\xff\t1\ta\n")
    with pytest.raises(FormatError, match="UTF-8"):
        read_list(path)


@pytest.mark.parametrize(
    "text, message", [("0\n", "line 1"), ("a\t0\n", "line 1"), ("0\t0\n0\t8\n", "twice"), ("0\t-8\n", "negative")]
)
def test_broken_index(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.idx").write_text(text)
    with pytest.raises(FormatError, match=message):
        read_index(tmp_path / "a.idx")


def part(kind: int, data: bytes, length: int | None = None) -> bytes:
    return (
        MAGIC
        + struct.pack("<I", kind << 29 | (len(data) if length is None else length))
        + data
        + b"\0" * (-len(data) % 4)
    )


BAD = {
    "wrong magic": (b"\0" * 16, "magic number is missing"),
    "half a header": (MAGIC, "needs a header"),
    "length that lies": (part(0, b"abcd", (1 << 29) - 1), "claims 536870911 bytes"),
    "no padding": (part(0, b"abc")[:-1], "claims 3 bytes"),
    "starts in the middle": (part(2, b"abcd"), "in the middle"),
    "starts with the end": (part(3, b"abcd"), "in the middle"),
    "never ends": (part(1, b"abcd"), "needs a header"),
    "whole within parts": (part(1, b"abcd") + part(0, b""), "begins another"),
    "unknown kind": (part(5, b""), "unknown kind 5"),
}


@pytest.mark.parametrize("data, message", BAD.values(), ids=list(BAD))
def test_broken_records(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "bad.rec"
    path.write_bytes(part(0, b"good") + data)
    with RecordReader(path) as reader:
        assert reader.read() == b"good"
        with pytest.raises(FormatError, match=message) as caught:
            reader.read()
        assert "bad.rec: the record at offset 12" in str(caught.value)


@pytest.mark.parametrize("offset", [-4, 3, 1 << 60])
def test_an_index_that_points_nowhere(tmp_path: Path, offset: int) -> None:
    path = tmp_path / "a.rec"
    path.write_bytes(part(0, b"good"))
    with RecordReader(path) as reader:
        reader.seek(offset)
        with pytest.raises(FormatError, match="not readable"):
            reader.read()


def test_a_record_of_half_a_gigabyte_is_refused(tmp_path: Path) -> None:
    class Long(bytes):
        def __len__(self) -> int:
            return 1 << 29

    with RecordWriter(tmp_path / "a.rec") as writer, pytest.raises(InputError, match="too long"):
        writer.write(Long(b""))
