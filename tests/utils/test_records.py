"""A record: facts by key, shared by machines and processes, and damage that reads as nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from internvl_gguf.utils.records import Record

SPEED = Record("speed.json", "speed of something", version=2, most_entries=3)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INTERNVL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_an_entry_counts_under_its_key_only() -> None:
    assert SPEED.get("one machine", int) is None
    assert SPEED.put("one machine", 1) is None
    assert SPEED.put("another", 2) is None
    assert (SPEED.get("one machine", int), SPEED.get("another", int), SPEED.get("a third", int)) == (1, 2, None)


def test_the_newest_entries_stay() -> None:
    for number in (0, 1, 2, 0, 3):
        SPEED.put(f"machine {number}", number)
    assert [SPEED.get(f"machine {number}", int) for number in range(4)] == [0, None, 2, 3]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"version": 1, "entries": {"here": 1}}',
        b'{"version": 2, "entries": [1]}',
        b'{"version": 2}',
        b'{"version": 2, "entries": {"here": "x"}}',
        b'{"version": 2, "entries": {"here": null}}',
        b'{"version": 2, "entries": {"here": Infinity}}',
    ],
    ids=lambda content: content[:40],
)
def test_damage_and_foreign_content_read_as_nothing(content: bytes, folder: Path) -> None:
    folder.mkdir()
    SPEED.path.write_bytes(content)
    assert SPEED.get("here", int) is None
    assert SPEED.merge("here", int, lambda before: 7 if before is None else -1) is None
    assert SPEED.get("here", int) == 7


def test_a_folder_in_place_of_the_file_is_no_entry() -> None:
    SPEED.path.mkdir(parents=True)
    assert SPEED.get("here", int) is None
    assert isinstance(SPEED.put("here", 1), OSError)
    assert [path.name for path in SPEED.path.parent.iterdir() if "lock" not in path.name] == ["speed.json"]


def test_no_process_loses_what_another_writes() -> None:
    """Each reads the entries before it writes; without a turn one of two would write over the other's."""
    script = (
        "import sys; from tests.utils.test_records import SPEED\n"
        "for _ in range(20): assert SPEED.merge('sum', int, lambda before: (before or 0) + 1) is None"
    )
    processes = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert SPEED.get("sum", int) == 60
    assert json.loads(SPEED.path.read_bytes()) == {"version": 2, "entries": {"sum": 60}}
