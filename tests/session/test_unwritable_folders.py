"""A cache folder that cannot be written costs time, never the answer, and is reported once."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from internvl_gguf import InternVLError, LibraryError, Session
from internvl_gguf.config import EngineConfig
from internvl_gguf.hardware.trial.usable_settings import find_usable_settings
from internvl_gguf.models.resolve import ModelFiles
from internvl_gguf.session.in_process_runtime import InProcessRuntime
from internvl_gguf.utils.paths import cache_dir, config_dir, data_dir, free_bytes, is_writable
from internvl_gguf.utils.records import RECORDS, Record
from tests.cli.test_commands import FAST, assert_two_lines, run
from tests.support.exact import EXACT, EXACT_WITH_DISK_CACHE
from tests.support.kept import SHORT
from tests.support.pictures import noise


@pytest.fixture
def unwritable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache would have to be inside a file; a user with all rights cannot write there either."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("INTERNVL_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def opened(tiny: ModelFiles, notices: list[str]) -> Session:
    return Session.open(tiny.text, tiny.mmproj, on_notice=notices.append, n_ctx=1024, **EXACT_WITH_DISK_CACHE)


def test_a_question_is_answered_with_a_temporary_encoder(
    tiny: ModelFiles, unwritable: Path, notices: list[str]
) -> None:
    """It was refused: the corrected copy of the vision encoder had no other place than the cache."""
    with opened(tiny, notices) as session:
        assert session.ask("What is it?", [noise(1)], sampling=SHORT).text
        (notice,) = notices
        assert notice.startswith(
            f"{unwritable / 'file' / 'cache'} cannot be written: nothing is kept for the next time"
        )
        assert "INTERNVL_CACHE" in notice
        (folder,) = unwritable.glob("internvl-*")
        assert str(folder) in notice
        assert [path.name for path in folder.iterdir()] == [tiny.mmproj.name]
    assert not list(unwritable.glob("internvl-*")), "it goes with the session"
    assert len(notices) == 1, "the embeddings that are not kept are the same matter"


def test_the_temporary_encoder_goes_with_a_session_that_is_dropped(
    tiny: ModelFiles, unwritable: Path, notices: list[str]
) -> None:
    session = opened(tiny, notices)
    assert list(unwritable.glob("internvl-*"))
    del session
    assert not list(unwritable.glob("internvl-*"))


def test_the_answer_is_the_same(tiny: ModelFiles, unwritable: Path, session: Session, notices: list[str]) -> None:
    expected = session.fork().ask("What is it?", [noise(1)], sampling=SHORT).text
    with Session.open(
        tiny.text, tiny.mmproj, system="Be brief.", on_notice=notices.append, n_ctx=1024, **EXACT
    ) as other:
        assert other.ask("What is it?", [noise(1)], sampling=SHORT).text == expected


def test_where_no_temporary_file_can_be_made_it_is_refused_in_words(
    tiny: ModelFiles, unwritable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container whose file systems are all read-only."""
    monkeypatch.setattr(tempfile, "tempdir", str(unwritable / "file" / "temporary"))
    with pytest.raises(InternVLError, match="No temporary file can be made") as caught:
        Session.open(tiny.text, tiny.mmproj, worker=True, n_ctx=1024, **EXACT)
    assert "TMPDIR" in caught.value.hint


def test_where_only_the_copy_has_no_place_the_cache_is_to_blame(
    tiny: ModelFiles, unwritable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shifted = lambda *asked: replace(find_usable_settings(*asked), positions_are_shifted=True)  # noqa: E731
    monkeypatch.setattr("internvl_gguf.session.in_process_runtime.find_usable_settings", shifted)
    monkeypatch.setattr(tempfile, "tempdir", str(unwritable / "file" / "temporary"))
    with pytest.raises(LibraryError, match="cannot be kept in") as caught:
        InProcessRuntime(tiny, EngineConfig(n_ctx=1024, **EXACT))
    assert "INTERNVL_CACHE" in caught.value.hint


@pytest.mark.parametrize("arguments", [(), ("--json",), ("--batch", "-")])
def test_ask_answers_and_says_it_once(
    tiny: ModelFiles, unwritable: Path, photo: Path, arguments: tuple[str, ...]
) -> None:
    question = ("What is it?", "-i", photo)
    line = json.dumps({"prompt": "What is it?", "images": [str(photo)]}).encode()
    is_batch = "--batch" in arguments
    done = run("ask", tiny.text, *(() if is_batch else question), *arguments, *FAST, stdin=line if is_batch else b"")
    assert done.returncode == 0
    assert done.stdout
    assert done.stderr.count("cannot be written") == 1
    assert "not kept on disk" not in done.stderr
    assert not list(unwritable.glob("internvl-*"))


def test_the_chat_answers(tiny: ModelFiles, unwritable: Path) -> None:
    done = run("chat", tiny.text, *FAST, stdin=b"Hello?\n", INTERNVL_DATA=str(unwritable / "file" / "data"))
    assert done.returncode == 0
    assert done.stdout.strip()
    assert done.stderr.count("cannot be written") == 1
    assert done.stderr.count("This conversation is not kept.") == 1


@pytest.mark.parametrize("command", [("cache",), ("cache", "clear", "--all"), ("show", "demo"), ("history",)])
def test_commands_that_only_look_do_not_mind(unwritable: Path, command: tuple[str, ...]) -> None:
    assert run(*command, INTERNVL_DATA=str(unwritable / "file" / "data")).returncode == 0


def test_the_quants_of_the_demo_need_a_place(unwritable: Path) -> None:
    """`bench demo --all` ended in a traceback."""
    done = run("bench", "demo", "--all", "--only", "memory")
    assert_two_lines(done)
    assert "INTERNVL_CACHE" in done.stderr


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)
def test_a_record_that_cannot_be_written_is_none(unwritable: Path, record: Record) -> None:
    assert isinstance(record.put("this machine", 1), OSError)
    assert record.get("this machine", int) is None


def test_a_folder_that_does_not_exist_yet_is_writable_where_its_parent_is(tmp_path: Path, unwritable: Path) -> None:
    assert is_writable(tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()
    assert not is_writable(unwritable / "file" / "cache")
    assert free_bytes(unwritable / "file" / "cache") is not None


def test_a_home_that_nobody_has_is_a_name_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """`INTERNVL_CACHE=~nobody-of-that-name/cache` ended in a RuntimeError."""
    for variable, folder in (("CACHE", cache_dir), ("CONFIG", config_dir), ("DATA", data_dir)):
        monkeypatch.setenv(f"INTERNVL_{variable}", "~nobody-of-that-name/x")
        assert folder() == Path("~nobody-of-that-name/x")
