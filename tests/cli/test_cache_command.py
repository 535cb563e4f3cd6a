"""`diptych cache`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diptych.cli import main
from diptych.runtime.cache import ObjectCache


def test_list_trim_clear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path / "c"))
    monkeypatch.setenv("DIPTYCH_CACHE_LIMIT", "1M")
    for i in range(5):
        ObjectCache().put(f"k{i}", bytes(1000))
    assert main(["cache"]) == 0
    out = capsys.readouterr().out
    assert "5 entries" in out
    assert out.count(".obj") == 5
    assert main(["cache", "trim", "--to", "2500", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["removed"], len(made["entries"]), made["limit_bytes"]) == (3, 2, 1 << 20)
    assert main(["cache", "clear"]) == 0
    assert "2 entries removed" in capsys.readouterr().out
    assert list((tmp_path / "c").iterdir()) == []
    assert main(["cache", "trim", "--to", "lots"]) == 2
    monkeypatch.setenv("DIPTYCH_CACHE", "off")
    assert main(["cache", "list"]) == 0
    assert "there is no cache" in capsys.readouterr().out
