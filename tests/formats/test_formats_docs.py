"""The examples in the documentation of the formats run as printed."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

MODULES = (
    "arrays", "attributes", "params", "params_writer", "record_header", "recordio", "symbol_aliases", "symbol_json", "symbol_schema",
    "symbol_writer",
)  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"diptych.frontends.mxnet.{name}"))
    assert result.attempted > 0 and result.failed == 0


def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).resolve().parents[2] / "docs" / "formats.md"
    result = doctest.testfile(str(page), module_relative=False)
    assert result.attempted > 5 and result.failed == 0
