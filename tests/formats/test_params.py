"""Parameter files: every version, type and storage; what is written is what MXNet writes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from samples import npz_bytes, numbers, params_bytes, params_v0, params_v1

from diptych.errors import FormatError, InputError
from diptych.frontends.mxnet.params import (
    BFloat16,
    Csr,
    ParamValue,
    RowSparse,
    load_params,
    load_record,
    save_params,
    save_record,
    split_arg_aux,
)


def named(source: object) -> dict[str, ParamValue]:
    values = load_params(source)  # type: ignore[arg-type]
    assert isinstance(values, dict)
    return values


def assert_same(got: ParamValue, wanted: ParamValue) -> None:
    assert type(got) is type(wanted)
    if isinstance(got, BFloat16) and isinstance(wanted, BFloat16):
        assert_same(got.bits, wanted.bits)
    elif isinstance(got, RowSparse | Csr) and isinstance(wanted, RowSparse | Csr):
        assert got.shape == wanted.shape
        assert_same(got.dense(), wanted.dense())
        assert_same(got.indices, wanted.indices)
    elif isinstance(got, np.ndarray) and isinstance(wanted, np.ndarray):
        assert got.dtype == wanted.dtype and got.dtype.isnative and got.shape == wanted.shape
        assert got.flags.writeable and got.flags.c_contiguous and got.flags.aligned
        np.testing.assert_array_equal(got, wanted)


def test_every_type_and_storage_comes_back() -> None:
    values = numbers()
    back = named(params_bytes(values))
    assert list(back) == list(values)
    for name, value in values.items():
        assert_same(back[name], value)


def test_the_first_bytes_are_those_of_mxnet() -> None:
    got = params_bytes({"a": np.array([1.0], np.float32)})
    assert got.hex() == (
        "1201000000000000" "0000000000000000" "0100000000000000"  # list, reserved, one array
        "c9fa93f9" "00000000" "01000000" "0100000000000000"  # version 2, dense, rank 1, extent 1
        "01000000" "00000000" "00000000" "0000803f"  # cpu(0), float32, 1.0
        "0100000000000000" "0100000000000000" "61"  # one name
    )  # fmt: skip


@pytest.mark.parametrize("make", [params_v0, params_v1])
def test_old_versions(make: object) -> None:
    values = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(4, np.float32)}
    back = load_params(make(values))  # type: ignore[operator]
    for got, wanted in zip(back.values() if isinstance(back, dict) else back, values.values(), strict=True):
        assert_same(got, wanted)


def test_a_list_has_no_names() -> None:
    values: list[ParamValue] = [np.ones(2), np.zeros((1, 3), np.int8)]
    back = load_params(params_bytes(values))
    assert isinstance(back, list)
    for got, wanted in zip(back, values, strict=True):
        assert_same(got, wanted)
    assert load_params(params_bytes([])) == []


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2)])
def test_scalars_and_empty_arrays_need_version_3(shape: tuple[int, ...]) -> None:
    value = np.full(shape, 2.5)
    data = params_bytes({"a": value, "b": np.ones(2)})
    assert data[24:28].hex() == "cafa93f9"
    assert_same(named(data)["a"], value)
    with pytest.raises(InputError, match="np_shape"):
        params_bytes([value], np_shape=False)
    with pytest.raises(InputError, match="two files"):
        params_bytes([value, numbers()["arg:rows"]])


@pytest.mark.parametrize("np_shape", [False, True])
def test_arrays_without_a_value(np_shape: bool) -> None:
    assert load_params(params_bytes([None, np.ones(1)], np_shape=np_shape))[0] is None  # type: ignore[index]


def test_layout_and_byte_order_of_the_source_do_not_matter() -> None:
    value = np.arange(6.0).reshape(2, 3)
    for same in (np.asfortranarray(value), value.astype(">f8"), np.repeat(value, 2, axis=0)[::2]):
        assert params_bytes([same]) == params_bytes([value])


def test_types_without_a_code_are_refused_and_no_file_is_left(tmp_path: Path) -> None:
    path = tmp_path / "x.params"
    for bad in (np.zeros(2, complex), np.array(["a"]), np.array([None])):
        with pytest.raises(InputError, match="no type"):
            save_params(path, {"a": bad})
    with pytest.raises(InputError, match="UTF-8"):
        save_params(path, {"\ud800": np.ones(1)})
    assert not os.listdir(tmp_path)


def test_an_old_file_survives_a_failed_save(tmp_path: Path) -> None:
    path = tmp_path / "x.params"
    save_params(path, {"a": np.ones(1)})
    with pytest.raises(InputError):
        save_params(path, {"a": np.ones(1), "b": np.zeros(2, complex)})
    assert list(named(path)) == ["a"]


def test_records_without_a_list() -> None:
    for value in numbers().values():
        assert_same(load_record(save_record(value)), value)
    with pytest.raises(FormatError, match="follow"):
        load_record(save_record(np.ones(1)) + b"x")


def test_bfloat16_and_bool_values() -> None:
    assert BFloat16(np.array([0x3F80, 0x7F80, 0xC020], np.uint16)).float32().tolist() == [1.0, np.inf, -2.5]
    data = bytearray(params_bytes([np.array([True, False])]))
    at = data.rindex(b"\x01\x00" + bytes(8))
    data[at] = 2  # a bool byte that is neither 0 nor 1
    assert load_params(bytes(data))[0].tolist() == [True, False]  # type: ignore[index, union-attr]


def test_a_stored_shape_of_nothing_is_taken_from_the_indices() -> None:
    # MXNet 1.9.1 writes the stored shape of a pending array before it waits for the values that follow.
    value = Csr((2, 3), np.array([0, 1, 2]), np.array([2, 0]), np.array([7, 8], np.float32))
    data = params_bytes([value])
    assert data.count((2).to_bytes(8, "little")) >= 2
    at = data.index((1).to_bytes(4, "little") + (2).to_bytes(8, "little")) + 4
    assert_same(load_params(data[:at] + bytes(8) + data[at + 8 :])[0], value)  # type: ignore[index]


def test_splitting_a_checkpoint() -> None:
    one, two, three = np.ones(1), np.ones(2), np.ones(3)
    arguments, states = split_arg_aux({"arg:w": one, "aux:w": two, "x:y": three})
    assert arguments == {"w": one, "x:y": three} and states == {"w": two}
    with pytest.raises(FormatError, match="twice"):
        split_arg_aux({"arg:w": one, "w": two})
    with pytest.raises(FormatError, match="no names"):
        split_arg_aux([one])


@pytest.mark.parametrize("compressed", [False, True])
def test_npz_files_of_mxnet_2(compressed: bool, tmp_path: Path) -> None:
    path = tmp_path / "net.params"
    path.write_bytes(npz_bytes(compressed=compressed))
    values = named(path)
    assert_same(values["dense_0.weight"], np.arange(6, dtype=np.float32).reshape(2, 3))
    assert_same(values["flags"], np.array([True, False]))
    assert_same(values["scalar"], np.array(2.5))
    assert_same(values["columns"], np.arange(6.0).reshape(2, 3))
    assert_same(values["big"], np.arange(3, dtype=np.int32))
    assert_same(values["rows"], RowSparse((4, 2), np.array([2]), np.array([[1, 2]], np.float32)))
    assert_same(values["csr"], Csr((2, 2), np.array([0, 1, 1]), np.array([1]), np.array([7.0])))


def test_npy_files_and_bfloat16_in_them(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.arange(4))
    assert_same(load_params(path)[0], np.arange(4))  # type: ignore[index]
    header = "{'descr': [('bfloat16', '<u2')], 'fortran_order': False, 'shape': (2,), }"
    data = b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little") + header.encode() + b"\n\x80\x3f\x00\x40"
    value = load_params(data)[0]  # type: ignore[index]
    assert isinstance(value, BFloat16) and value.float32().tolist() == [1.0, 2.0]


def test_published_checkpoints(mxnet_models: Path, tmp_path: Path) -> None:
    files = [*sorted(mxnet_models.glob("*/*.params")), mxnet_models / "legacy_ndarray.v0"]
    assert len(files) > 10
    for path in files:
        values = load_params(path)
        assert len(values) >= 6
        save_params(tmp_path / "again", values)
        data = path.read_bytes()
        version = data[24:28].hex()
        if version == "c9fa93f9":
            again = bytearray((tmp_path / "again").read_bytes())
            differ = [i for i, (x, y) in enumerate(zip(data, again, strict=True)) if x != y]
            for i in differ:  # only the device that wrote it may differ: a GPU is 2, its number any
                again[i] = data[i]
            assert len(differ) <= 2 * len(values), f"{path.name}: written differently from MXNet"
        else:
            back = load_params(tmp_path / "again")
            for x, y in zip(
                values.values() if isinstance(values, dict) else values,
                back.values() if isinstance(back, dict) else back,
                strict=True,
            ):
                assert_same(x, y)
