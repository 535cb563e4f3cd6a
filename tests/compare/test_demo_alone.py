"""The demonstration without PyTorch: diptych alone, with the checkpoint's own graph as the referee."""

from __future__ import annotations

import pytest

from diptych.compare import Settings, compare
from diptych.compare.demo import subject


def test_the_demonstration_needs_no_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "find_spec", lambda name: None)
    alone = subject.demo()
    assert not alone.torch
    report = compare(alone, Settings(("diptych",), 1, 1, 0.05, quick=True))
    (row,) = report.rows
    assert row.passed
    assert "NumPy target" in report.referee
