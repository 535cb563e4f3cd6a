"""Both ways between diptych and real MXNet 1.9.1, which runs in its own interpreter (environment: DIPTYCH_MXNET_PYTHON)."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from samples import loop_symbol, node, numbers, payloads, small_symbol, symbol, variable

from diptych.frontends.mxnet.params import Csr, RowSparse, load_params, save_params
from diptych.frontends.mxnet.recordio import IndexedRecordReader, IndexedRecordWriter, IRHeader, pack, unpack
from diptych.frontends.mxnet.symbol_json import SymbolGraph, read_symbol, write_symbol

pytestmark = pytest.mark.slow


def run_mxnet(command: str, folder: Path) -> dict[str, Any]:
    """Run the worker under MXNet's interpreter; its report comes back."""
    python = os.environ.get("DIPTYCH_MXNET_PYTHON", "")
    if not Path(python).is_file():
        pytest.skip("DIPTYCH_MXNET_PYTHON names no interpreter with MXNet 1.9.1")
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")} | {
        "OMP_NUM_THREADS": "1"
    }
    worker = Path(__file__).with_name("mxnet_worker.py")
    done = subprocess.run(
        [python, str(worker), command, str(folder)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return report


def old(version: int | None, op: str, attrs: dict[str, str], inputs: int, key: str) -> str:
    nodes = [variable(f"x{i}") for i in range(inputs)]
    return symbol([*nodes, node(op, "n", *range(inputs), **{key: attrs})], [[inputs, 0, 0]], version)


def old_symbols() -> dict[str, str]:
    """Files as versions 0.8 to 1.9 wrote them, each of which needs one of the upgrade rules."""
    fc = {"num_hidden": "1", "weight_lr_mult": "3", "lr_mult": "2"}
    out = {f"small{v}": small_symbol(v) for v in (None, 903, 10300, 10901)} | {"loop": loop_symbol()}
    out["hidden8"] = old(None, "FullyConnected", fc | {"ctx_group": "a"}, 3, "attr")
    out["hidden9"] = old(900, "FullyConnected", fc, 3, "attr")
    out["hidden12"] = old(10200, "Convolution", {"kernel": "(1,1)", "num_filter": "1", "bias_wd_mult": "0"}, 3, "attrs")
    for op, attrs, inputs in (
        ("SoftmaxOutput", {}, 1), ("Softmax", {}, 1), ("LinearRegressionOutput", {}, 1), ("SVMOutput", {}, 1), ("BatchNorm", {}, 3),
        ("BatchNorm", {}, 1), ("LeakyReLU", {"act_type": "prelu"}, 1), ("Convolution", {"kernel": "(1,1)", "num_filter": "1"}, 1),
        ("Deconvolution", {"kernel": "(1,1)", "num_filter": "1"}, 1), ("Embedding", {"input_dim": "2", "output_dim": "3"}, 1),
        ("RNN", {"mode": "lstm", "state_size": "2", "num_layers": "1"}, 1), ("IdentityAttachKLSparseReg", {}, 1),
        ("SequenceMask", {"use_sequence_length": "True"}, 1), ("InstanceNorm", {}, 1), ("ROIPooling", {"pooled_size": "(1,1)", "spatial_scale": "1"}, 1),
        ("UpSampling", {"scale": "2", "sample_type": "bilinear", "num_args": "2"}, 1), ("_Plus", {}, 1), ("dot", {}, 1), ("Activation", {"act_type": "relu"}, 1),
    ):  # fmt: skip
        out[f"missing-{op}{inputs}"] = old(None, op, attrs, inputs, "param")
    for version in (903, 904, 905):
        out[f"argmax{version}"] = old(version, "argmax", {"axis": "-1"}, 1, "attr")
        out[f"init{version}"] = old(version, "BatchNorm", {}, 5, "attr")
        out[f"prelu{version}"] = old(version, "LeakyReLU", {"act_type": "prelu"}, 2, "attr")
    return out


def assert_described(graph: SymbolGraph, said: dict[str, Any]) -> None:
    assert list(graph.list_arguments()) == said["arguments"]
    assert list(graph.list_auxiliary_states()) == said["states"]
    assert list(graph.list_outputs()) == said["outputs"]
    assert replace(graph, version=10901) == read_symbol(said["json"])


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder of files that MXNet wrote, and what it says about its graphs."""
    folder = tmp_path_factory.mktemp("by-mxnet")
    (folder / "payloads.json").write_text(json.dumps([p.hex() for p in payloads()]))
    return folder, run_mxnet("write", folder)


def test_we_read_and_rewrite_mxnets_symbols(written: tuple[Path, dict[str, Any]]) -> None:
    assert len(written[1]) > 20
    for name, said in written[1].items():
        graph = read_symbol(said["json"])
        assert_described(graph, said)
        assert write_symbol(graph) == said["json"], name


def test_we_read_mxnets_parameters_and_write_the_same_bytes(
    written: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder = written[0]
    with np.load(folder / "expected.npz") as expected:
        for name in ("dense", "sparse", "np"):
            values = load_params(folder / f"{name}.params")
            assert isinstance(values, dict)
            for key, value in values.items():
                got = value.dense() if isinstance(value, RowSparse | Csr) else value
                assert (
                    isinstance(got, np.ndarray)
                    and got.dtype == expected[key].dtype
                    and got.shape == expected[key].shape
                )
                np.testing.assert_array_equal(got, expected[key])
    for name in ("dense", "list", "sparse", "np"):
        save_params(tmp_path / "again", load_params(folder / f"{name}.params"))
        assert (tmp_path / "again").read_bytes() == (folder / f"{name}.params").read_bytes(), name


def test_we_read_mxnets_records_and_write_the_same_bytes(written: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder = written[0]
    with IndexedRecordReader(folder / "a.idx", folder / "a.rec") as reader:
        records = [reader.read_idx(k) for k in reader.keys]
        assert records[:-2] == payloads() and list(reader) == records
        assert unpack(records[-2]) == (IRHeader(0, 3.0, 7, 1), b"image")
        assert np.asarray(unpack(records[-1])[0].label).tolist() == [1, 2, 3]
        with IndexedRecordWriter(tmp_path / "b.idx", tmp_path / "b.rec") as writer:
            for key, record in zip(reader.keys, records, strict=True):
                writer.write_idx(key, record)
    for end in ("idx", "rec"):
        assert (tmp_path / f"b.{end}").read_bytes() == (folder / f"a.{end}").read_bytes()


def test_mxnet_reads_what_we_write(tmp_path: Path) -> None:
    values = {
        k: v for k, v in numbers().items() if k[4:] in ("f4", "f8", "f2", "u1", "i4", "i1", "i8", "?", "rows", "csr")
    }
    save_params(tmp_path / "dense.params", values)
    save_params(tmp_path / "np.params", {"scalar": np.array(2.5, np.float32), "none": np.zeros((0, 3), np.float32)})
    save_params(tmp_path / "list.params", [np.ones(2, np.float32)])
    with IndexedRecordWriter(tmp_path / "a.idx", tmp_path / "a.rec") as writer:
        for key, payload in enumerate([*payloads(), pack(IRHeader(0, [1.0, 2.0], 3, 4), b"image")]):
            writer.write_idx(key, payload)
    symbols = old_symbols()
    for name, text in symbols.items():
        (tmp_path / f"{name}.old.json").write_text(text)
        (tmp_path / f"{name}.new.json").write_text(write_symbol(read_symbol(text)))
    report = run_mxnet("read", tmp_path)
    for name, text in symbols.items():
        assert_described(read_symbol(text), report["symbols"][f"{name}.old.json"])
        assert_described(read_symbol(text), report["symbols"][f"{name}.new.json"])
    assert [bytes.fromhex(r) for r in report["records"].values()][:-1] == payloads()
    assert report["label"] == [1.0, 2.0] and bytes.fromhex(report["image"]) == b"image"
    with np.load(tmp_path / "arrays.npz") as arrays:
        assert len(arrays.files) == len(values) + 3
        for key, value in values.items():
            wanted = value.dense() if isinstance(value, RowSparse | Csr) else value
            got = arrays[f"dense.params:{key}"]
            assert isinstance(wanted, np.ndarray) and got.dtype == wanted.dtype
            np.testing.assert_array_equal(got, wanted)
        assert arrays["np.params:scalar"] == 2.5 and arrays["np.params:none"].shape == (0, 3)
        assert arrays["list.params:0"].tolist() == [1, 1]


def test_published_symbols_are_upgraded_as_mxnet_does(mxnet_models: Path, tmp_path: Path) -> None:
    files = sorted(mxnet_models.glob("*/*symbol*.json"))
    assert len(files) > 12
    for i, path in enumerate(files):
        (tmp_path / f"{i}.json").write_bytes(path.read_bytes())
    report = run_mxnet("read", tmp_path)
    for i, path in enumerate(files):
        assert_described(read_symbol(path), report["symbols"][f"{i}.json"])
