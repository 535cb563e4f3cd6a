"""Reading .pt2 files: good ones load, broken and hostile ones give one FormatError, quickly, and run nothing."""

from __future__ import annotations

import io
import json
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from diptych.errors import FormatError, InputError  # noqa: E402
from diptych.frontends.torch import source  # noqa: E402
from diptych.frontends.torch.archive_graph import check_expression  # noqa: E402
from diptych.ir import TensorType  # noqa: E402
from diptych.targets.numpy import interpret  # noqa: E402


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.ReLU()).eval()
    batch = torch.export.Dim("batch")
    program = torch.export.export(model, (torch.randn(2, 4),), dynamic_shapes=({0: batch},))
    path = tmp_path_factory.mktemp("pt2") / "model.pt2"
    torch.export.save(program, path)
    return path.read_bytes()


def write(tmp_path: Path, data: bytes) -> str:
    path = tmp_path / "case.pt2"
    path.write_bytes(data)
    return str(path)


def rebuilt(data: bytes, change: Any, method: int = zipfile.ZIP_STORED) -> bytes:
    """The archive with `change(name, content)` applied to every member; None drops the member."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", method) as new:
        for member in old.infolist():
            content = change(member.filename, old.read(member))
            if content is not None:
                new.writestr(member.filename, content)
    return out.getvalue()


def edited(data: bytes, old: str, new: str) -> bytes:
    """The archive with text replaced in its graph."""

    def change(name: str, content: bytes) -> bytes:
        if name.endswith("models/model.json"):
            assert old.encode() in content
            return content.replace(old.encode(), new.encode())
        return content

    return rebuilt(data, change)


def test_a_saved_program_loads_and_runs(saved: bytes, tmp_path: Path) -> None:
    src = source(write(tmp_path, saved))
    assert src.name == "case" and src.input_names == ("input",)
    for batch in (1, 2, 6):
        x = np.random.default_rng(0).normal(size=(batch, 4)).astype(np.float32)
        graph = src.graph({"input": TensorType((batch, 4))})
        assert (interpret(graph, {"input": x})["output"] >= 0).all()
    with pytest.raises(InputError, match="extent 4 at axis 1"):
        src.graph({"input": TensorType((2, 5))})


def test_the_loaded_program_gives_the_same_numbers(tmp_path: Path, check: Any) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.GELU()).eval()
    x = torch.randn(2, 3, 6, 6)
    path = tmp_path / "conv.pt2"
    torch.export.save(torch.export.export(model, (x,)), path)
    src = source(str(path))
    got = interpret(src.graph(), {src.input_names[0]: x.numpy()})
    np.testing.assert_allclose(got["output"], model(x).detach().numpy(), rtol=1e-4, atol=1e-5)


BROKEN = {
    "empty": lambda d: b"",
    "not a zip": lambda d: b"\x80\x04N." * 100,
    "only the end record": lambda d: b"PK\x05\x06" + b"\0" * 18,
    "cut in half": lambda d: d[: len(d) // 2],
    "cut at the end": lambda d: d[:-10],
    "zeros inside": lambda d: d[:300] + b"\0" * 64 + d[364:],
    "no graph": lambda d: rebuilt(d, lambda n, c: None if "model.json" in n else c),
    "no weights": lambda d: rebuilt(d, lambda n, c: None if n.endswith("weight_0") else c),
    "short weights": lambda d: rebuilt(d, lambda n, c: c[:8] if n.endswith("weight_0") else c),
    "empty weights": lambda d: rebuilt(d, lambda n, c: b"" if n.endswith("weight_0") else c),
    "graph is not JSON": lambda d: rebuilt(d, lambda n, c: b"{" if n.endswith("model.json") else c),
    "graph is a list": lambda d: rebuilt(d, lambda n, c: b"[]" if n.endswith("model.json") else c),
    "deep graph": lambda d: rebuilt(d, lambda n, c: b"[" * 200_000 if n.endswith("model.json") else c),
    "compressed": lambda d: rebuilt(d, lambda n, c: c, zipfile.ZIP_DEFLATED),
    "unknown version": lambda d: rebuilt(d, lambda n, c: b"99" if n.endswith("archive_version") else c),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_archives_are_one_format_error(case: str, saved: bytes, tmp_path: Path) -> None:
    path = write(tmp_path, BROKEN[case](saved))
    start = time.perf_counter()
    with pytest.raises(FormatError):
        source(path)
    assert time.perf_counter() - start < 20


def test_a_missing_file_is_a_format_error(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no such file"):
        source(str(tmp_path / "none.pt2"))


def test_members_outside_the_archive(saved: bytes, tmp_path: Path) -> None:
    out = io.BytesIO(saved)
    with zipfile.ZipFile(out, "a") as z:
        top = z.namelist()[0].split("/")[0]
        z.writestr(f"{top}/../../escape", b"x")
    with pytest.raises(FormatError, match="leaves the archive"):
        source(write(tmp_path, out.getvalue()))


class Bomb:
    """What a hostile pickle holds: loading it writes a file."""

    def __init__(self, target: str) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return open, (self.target, "w")


def test_sample_inputs_are_never_unpickled(saved: bytes, tmp_path: Path) -> None:
    target = tmp_path / "ran"
    buffer = io.BytesIO()
    torch.save((Bomb(str(target)),), buffer)
    bad = rebuilt(saved, lambda n, c: buffer.getvalue() if "sample_inputs" in n else c)
    source(write(tmp_path, bad)).graph()  # they are not needed: dropped, and the model loads
    assert not target.exists()


def test_pickled_weights_and_objects_are_refused(saved: bytes, tmp_path: Path) -> None:
    target = tmp_path / "ran"
    buffer = io.BytesIO()
    torch.save(Bomb(str(target)), buffer)

    def pickled(name: str, content: bytes) -> bytes:
        if name.endswith("model_weights_config.json"):
            config = json.loads(content)
            for entry in config["config"].values():
                entry["use_pickle"] = True
            return json.dumps(config).encode()
        return buffer.getvalue() if name.endswith(("weight_0", "weight_1")) else content

    with pytest.raises(FormatError, match="pickles"):
        source(write(tmp_path, rebuilt(saved, pickled)))
    out = io.BytesIO(saved)
    with zipfile.ZipFile(out, "a") as z:
        top = z.namelist()[0].split("/")[0]
        z.writestr(f"{top}/data/constants/opaque_obj_0", buffer.getvalue())
    with pytest.raises(FormatError, match="pickled object"):
        source(write(tmp_path, out.getvalue()))
    legacy = rebuilt(saved, lambda n, c: c).replace(b"weight_1", b"model.pt")
    with pytest.raises(FormatError):
        source(write(tmp_path, legacy))
    assert not target.exists()


@pytest.mark.parametrize(
    "target",
    ["torch.os.system", "torch.load", "torch.ops.load_library", "torch.ops.aten.relu.__class__", "_operator.attrgetter",
     "_operator.methodcaller", "math.__loader__.load_module", "#extension", "torch.hub.load", "builtins.exec"],
)  # fmt: skip
def test_nodes_may_only_call_operators(target: str, saved: bytes, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="not an operator"):
        source(write(tmp_path, edited(saved, "torch.ops.aten.relu.default", target)))


@pytest.mark.parametrize(
    "text",
    ["__import__('os').system('true')", "().__class__", "Symbol('s0').func", "open('x', 'w')", "9**9**9",
     "Pow(9, Pow(9, 9))", "(lambda: 1)()", "[x for x in ()]", "Symbol('__import__')", "Symbol", "1 if 1 else 2",
     "f'{1}'", "print", ""],
)  # fmt: skip
def test_extents_may_only_be_arithmetic(text: str) -> None:
    if text == "Symbol":
        check_expression("x.pt2", text)  # a bare name is harmless
        return
    with pytest.raises(FormatError, match="extent"):
        check_expression("x.pt2", text)


def test_usual_extents_pass() -> None:
    for text in ("Symbol('s77', positive=True, integer=True)", "2*s0 + 1", "Mul(Integer(-1), Symbol('s0'))", "s0",
                 "Max(1, FloorDiv(s1, 2))", "Eq(Mod(s0, 8), 0)", "Pow(Symbol('s0'), Integer(2))", "u3"):  # fmt: skip
        check_expression("x.pt2", text)


def test_hostile_extent_inside_a_file(saved: bytes, tmp_path: Path) -> None:
    data = edited(saved, '"expr_str": "Symbol', '"expr_str": "__import__(\'os\').abort() or Symbol')
    with pytest.raises(FormatError, match="arithmetic"):
        source(write(tmp_path, data))


def test_containers_may_not_name_modules(saved: bytes, tmp_path: Path) -> None:
    old = '"type\\": \\"builtins.tuple\\"'
    new = '"default_factory_module\\": \\"antigravity\\", \\"type\\": \\"builtins.tuple\\"'
    with pytest.raises(FormatError, match="names code to import"):
        source(write(tmp_path, edited(saved, old, new)))


def test_damaged_bytes_never_crash(saved: bytes, tmp_path: Path) -> None:
    """Single damaged bytes: the model loads or there is one FormatError, nothing else."""
    rng = np.random.default_rng(3)
    for at in rng.integers(0, len(saved), 20):
        data = bytearray(saved)
        data[at] ^= int(rng.integers(1, 256))
        try:
            source(write(tmp_path, bytes(data)))
        except FormatError:
            continue
