"""The object cache: complete or absent, checked, bounded, private, safe among processes."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from diptych.errors import DiptychError
from diptych.runtime.cache import ObjectCache


def _files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def test_round_trip_and_privacy(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "cache"
    cache = ObjectCache(folder)
    assert cache.get("k") is None
    assert cache.put("k", b"value")
    assert cache.get("k") == b"value"
    assert cache.put("k", b"other")
    assert cache.get("k") == b"other"
    assert cache.put("empty", b"")
    assert cache.get("empty") == b""
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert all(stat.S_IMODE(f.stat().st_mode) == 0o600 for f in _files(folder))
    cache.clear()
    assert _files(folder) == []


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "swap"])
def test_a_damaged_entry_is_a_miss_and_removed(tmp_path: Path, damage: str) -> None:
    cache = ObjectCache(tmp_path / "c")
    cache.put("k", b"x" * 1000)
    (file,) = _files(tmp_path / "c")
    content = file.read_bytes()
    if damage == "truncate":
        file.write_bytes(content[:-1])
    elif damage == "flip":
        file.write_bytes(content[:500] + b"y" + content[501:])
    elif damage == "empty":
        file.write_bytes(b"")
    else:  # a valid entry of another key
        cache.put("other", b"z")
        (other,) = (f for f in _files(tmp_path / "c") if f != file)
        file.write_bytes(other.read_bytes())
    assert cache.get("k") is None
    assert not file.exists()
    assert cache.get_or_make("k", lambda: b"made") == b"made"
    assert cache.get_or_make("k", lambda: b"not again") == b"made"


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path / "c", limit_bytes=4000)
    for i in range(3):
        cache.put(f"k{i}", bytes(1000))
        os.utime(_newest(tmp_path / "c"), (i + 1, i + 1))
    assert cache.get("k0") is not None  # now the most recently used
    cache.put("k3", bytes(1000))
    assert [cache.get(f"k{i}") is not None for i in range(4)] == [True, False, True, True]
    assert not cache.put("huge", bytes(5000))


def _newest(folder: Path) -> Path:
    return max(_files(folder), key=lambda f: f.stat().st_mtime)


def test_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path / "chosen"))
    assert ObjectCache().folder == str(tmp_path / "chosen")
    monkeypatch.setenv("DIPTYCH_CACHE", "off")
    off = ObjectCache()
    assert not off.put("k", b"v")
    assert off.get("k") is None
    assert off.get_or_make("k", lambda: b"v") == b"v"
    monkeypatch.delenv("DIPTYCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert ObjectCache().folder == str(tmp_path / "xdg" / "diptych")


def test_a_folder_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(DiptychError, match="chmod 700"):
        ObjectCache(folder).get("k")


def test_a_folder_that_cannot_be_made_means_no_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = ObjectCache(tmp_path / "file" / "below")
    assert cache.get_or_make("k", lambda: b"v") == b"v"
    assert cache.folder is None


_WRITER = """
import sys
from diptych.runtime.cache import ObjectCache
cache = ObjectCache(sys.argv[1], limit_bytes=200_000)
for i in range(150):
    key = str(i % 7)
    value = (key * 20_000).encode()
    found = cache.get(key)
    assert found is None or found == value, key
    assert cache.put(key, value)
"""


def test_many_processes_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _WRITER, str(tmp_path / "c")]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for process in running:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert not [f for f in _files(tmp_path / "c") if f.name.endswith(".tmp")]
