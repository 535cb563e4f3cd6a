"""Tables, figures in words, verdicts."""

from __future__ import annotations

import pytest

from diptych.compare.table import duration, megabytes, milliseconds, seconds, table
from diptych.compare.verdict import Candidate, verdicts


def test_columns_line_up() -> None:
    lines = table(["engine", "as", "ms"], [["a", "x", "1.5"], ["longer name", "y", "12"]], left=2).splitlines()
    assert lines[0] == "  engine       as   ms"
    assert lines[2] == "  a            x   1.5"
    assert lines[3] == "  longer name  y    12"


@pytest.mark.parametrize(
    ("value", "text"), [(1.0, "1000"), (0.0355, "35.5"), (4e-7, "4.0e-04"), (None, "-"), (0.0, "0")]
)
def test_milliseconds(value: float | None, text: str) -> None:
    assert milliseconds(value) == text


def test_other_figures() -> None:
    assert (seconds(0.0123), seconds(1.234), seconds(None)) == ("0.012", "1.23", "-")
    assert (megabytes(1_500_000), megabytes(0)) == ("2", "-")
    assert [duration(s) for s in (3.0, 600.0, 90000.0)] == ["3.00 s", "10.0 min", "25.0 h"]


def candidate(title: str, call: float, start: float, peak: int = 10**8, installed: int = 10**8) -> Candidate:
    return Candidate(title, [call * f for f in (0.99, 1.0, 1.01, 1.0, 1.0)], start, start / 2, peak, installed)


def test_each_use_goes_to_the_engine_that_measured_best() -> None:
    fast = candidate("fast", 0.001, 30.0, installed=9 * 10**8)
    light = candidate("light", 0.002, 0.1, peak=10**7)
    service, command, short, long, memory, image = verdicts([fast, light])
    assert service.startswith("a service that stays up: fast") and "light takes 2.00 times as long" in service
    assert command.startswith("a command that starts for one answer: light, 0.10 s")
    assert "1,000 calls in a fresh process: light" in short
    assert "100,000 calls in a fresh process: fast" in long
    assert "little memory: light, 10 MB" in memory
    assert "a small image: light" in image


def test_engines_within_the_noise_are_called_level() -> None:
    a = Candidate("a", [1.0, 1.2, 0.9, 1.1, 1.0], 1, 1, 0, 0)
    b = Candidate("b", [1.1, 1.0, 1.0, 0.9, 1.2], 1, 1, 0, 0)
    lines = verdicts([a, b])
    assert "level with" in lines[0]
    assert not any("memory" in line or "image" in line for line in lines)  # those figures were not to be had


def test_no_engine_no_verdict() -> None:
    assert verdicts([]) == []
