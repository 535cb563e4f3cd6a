"""A short run of the fuzzer with a fixed seed; longer runs are for the command line."""

from __future__ import annotations

import fuzz_formats
import pytest


@pytest.mark.parametrize("target", ["symbol", "params", "npz", "record", "attributes", "recordio", "index", "list"])
def test_damaged_files_are_read_or_refused(target: str) -> None:
    assert fuzz_formats.fuzz(0.5, 20, target)[target] > 10


def test_the_fuzzer_sees_what_is_no_format_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(data: bytes) -> None:
        if data != b"valid":
            raise IndexError("a reader that does not check its input")

    monkeypatch.setattr(fuzz_formats, "targets", lambda folder: {"bad": (crash, [b"valid"])})
    with pytest.raises(IndexError):
        fuzz_formats.fuzz(5, 1)
