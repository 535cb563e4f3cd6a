"""The README does what it says: its programs run, its links lead somewhere, its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from diptych.cli import main

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```", TEXT, re.S)


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_program(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    if "import torch" in PROGRAMS[number]:
        pytest.importorskip("torch", reason="PyTorch is not installed")
    monkeypatch.chdir(tmp_path)
    exec(compile(PROGRAMS[number], f"README.md, program {number}", "exec"), {"__name__": "__readme__"})
    printed = capsys.readouterr().out
    assert printed
    if "close to [[1, -2, 3]]" in PROGRAMS[number]:
        assert [round(float(x)) for x in re.findall(r"-?[\d.]+", printed.split("]]")[0])] == [1, -2, 3]
    if "held-out" in PROGRAMS[number]:
        share = re.search(r"([\d.]+)% of 360 held-out", printed)
        assert share is not None
        assert float(share.group(1)) > 99


def test_there_is_a_program_for_each_way_in() -> None:
    for way in ("import torch", "diptych.load(", "import diptych.mxnet as mx"):
        assert sum(way in p for p in PROGRAMS) == 1, way


def test_links_lead_somewhere() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


@pytest.mark.parametrize("command", sorted(set(re.findall(r"`diptych (\w+)", TEXT))))
def test_command_exists(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert "usage" in capsys.readouterr().out


def test_modules_that_are_named_exist() -> None:
    for name in re.findall(r"python -m (bench\.\w+)|python (bench/\w+)\.py", TEXT):
        path = (name[0] or name[1]).replace(".", "/") + ".py"
        assert (ROOT / path).is_file()
