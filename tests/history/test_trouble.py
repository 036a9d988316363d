"""Two chats on one history, killed processes, damaged files, full disks: nothing is lost, and the chat goes on."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from internvl_gguf import HistoryError, Session
from internvl_gguf.history import History
from internvl_gguf.history.database import FILE, open_database
from internvl_gguf.models.resolve import ModelFiles
from internvl_gguf.utils.paths import data_dir
from tests.support.exact import EXACT
from tests.support.kept import again, ask, texts
from tests.support.pictures import noise

# --- Several at once, and killed ones ---------------------------------------------------------------------------------

_CHILD = """
import sys
from internvl_gguf import SamplingParams, Session
from internvl_gguf.history import History
from PIL import Image

text, mmproj, folder, name, questions = sys.argv[1:]
session = Session.open(text, mmproj, n_threads=1, n_ctx=1024, embedding_disk_bytes=0)
history = History.open(__import__("pathlib").Path(folder))
print("ready", flush=True)
sys.stdin.readline()
picture = Image.new("RGB", (8, 8), (len(name), 2, 3))
for number in range(int(questions)):
    conversation = history.begin(name)
    for turn in range(2):
        question = f"{name} {number} {turn}"
        for chunk in conversation.stream(session, question, [picture], sampling=SamplingParams(max_tokens=4)):
            print("chunk", flush=True)
            if name == "doomed" and turn == 1:
                sys.stdin.readline()
    session.clear()
    if number % 3 == 2:
        history.forget([conversation.id])
print("done", flush=True)
"""


def start(tiny: ModelFiles, folder: Path, name: str, questions: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(tiny.text), str(tiny.mmproj), str(folder), name, str(questions)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def go_on(child: subprocess.Popen[str]) -> None:
    child.stdin.write("\n")
    child.stdin.flush()


def test_two_chats_at_once_on_one_history(tiny: ModelFiles, folder: Path) -> None:
    """Two processes write and forget at the same time; both begin on an empty folder."""
    children = [start(tiny, folder, name, 9) for name in ("left", "right")]
    for child in children:
        assert child.stdout.readline() == "ready\n"
    for child in children:
        go_on(child)
    for child in children:
        out, _ = child.communicate(timeout=120)
        assert child.returncode == 0
        assert out.endswith("done\n")
    with again(folder) as history:
        found = [history.find(each.id) for each in history.search()]
        assert len(found) == 12
        for conversation in found:
            assert len(conversation.entries) == 4
            assert history.pictures.get(conversation.entries[0].pictures[0].digest)
        asked = sorted(conversation.entries[2].text for conversation in found)
        assert asked == sorted(f"{name} {n} 1" for name in ("left", "right") for n in (0, 1, 3, 4, 6, 7))
        assert len(history.search("left")) == 6
    with closing(sqlite3.connect(folder / FILE)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows ends processes otherwise")
def test_a_killed_process_loses_at_most_the_answer_under_way(tiny: ModelFiles, folder: Path) -> None:
    child = start(tiny, folder, "doomed", 1)
    assert child.stdout.readline() == "ready\n"
    go_on(child)
    while child.stdout.readline() == "chunk\n":
        with again(folder) as history:
            found = history.latest()
            if found is not None and texts(found)[2:] == ["doomed 0 1"]:
                break
    child.kill()
    child.communicate(timeout=60)
    with again(folder) as history:
        conversation = history.latest()
        assert [entry.role for entry in conversation.entries] == ["user", "assistant", "user"]
        assert conversation.unanswered.text == "doomed 0 1"
        assert len(conversation.unanswered.pictures) == 1


def test_two_that_go_on_with_one_conversation_part(
    history: History, folder: Path, session: Session, tiny: ModelFiles, notices: list[str]
) -> None:
    """Neither loses a word: the second to write goes on under an id of its own."""
    conversation = history.begin("tiny", "")
    ask(conversation, session, "Common?", [noise(1)])
    with again(folder) as other, Session.open(tiny.text, tiny.mmproj, system="", n_ctx=1024, **EXACT) as second:
        twin = other.find(conversation.id)
        twin.continue_in(second)
        ask(twin, second, "Right?")
        ask(conversation, session, "Left?")
        ask(twin, second, "Right again?")
    assert twin.id != conversation.id
    assert len(notices) == 1
    assert f"this one is {conversation.id} from here" in notices[0]
    with again(folder) as other:
        assert texts(other.find(twin.id))[::2] == ["Common?", "Right?", "Right again?"]
        assert texts(other.find(conversation.id))[::2] == ["Common?", "Left?"]
        assert len(other.search()) == 2


def test_threads_share_a_history(history: History, folder: Path, tiny: ModelFiles) -> None:
    def chat(name: str) -> None:
        with Session.open(tiny.text, tiny.mmproj, n_ctx=1024, **EXACT) as session:
            conversation = history.begin(name)
            for number in range(5):
                ask(conversation, session, f"{name} {number}")

    threads = [threading.Thread(target=chat, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with again(folder) as other:
        assert sorted(len(other.find(each.id).entries) for each in other.search()) == [10, 10]


# --- What goes wrong with the folder ----------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_written_is_told_once(tmp_path: Path, session: Session, notices: list[str]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HistoryError, match="cannot be opened") as caught:
        History.open(tmp_path / "file" / "data")
    assert "INTERNVL_DATA" in caught.value.hint
    with History.open_or_forget(tmp_path / "file" / "data", on_notice=notices.append) as history:
        assert not history.is_kept
        conversation = history.begin("tiny")
        ask(conversation, session, "One?", [noise(1)])
        ask(conversation, session, "Two?")
        assert conversation.undo(session).text == "Two?"
        assert conversation.undo(session).pictures[0].source  # from memory
        ask(conversation, session, "Again?", [noise(1)])
        conversation.continue_in(session)
        assert len(session.messages[1].pictures) == 1
        assert not conversation.keep_state(session)
        assert conversation.export(tmp_path / "talk.json").is_file()
        assert history.search("One") == []
        assert history.latest() is None
        assert history.forget(["x"]) == 0
    assert len(notices) == 1
    assert "\n" not in notices[0]
    assert "not kept" in notices[0]


def test_a_write_that_fails_is_told_once_and_made_up_for(
    history: History, folder: Path, session: Session, notices: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk for a while: when there is room again, the history has all of it."""
    conversation = history.begin("tiny")
    ask(conversation, session, "One?")

    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("internvl_gguf.history.picture_files.write_atomically", full)
        ask(conversation, session, "Two?", [noise(1)])
        ask(conversation, session, "Three?")
    assert len(notices) == 1
    assert "No space left on device." in notices[0]
    with again(folder) as other:
        assert len(other.find(conversation.id).entries) == 2
    ask(conversation, session, "Four?")
    with again(folder) as other:
        found = other.find(conversation.id)
        assert texts(found)[::2] == ["One?", "Two?", "Three?", "Four?"]
        assert other.pictures.get(found.entries[2].pictures[0].digest)
    assert len(notices) == 1


def test_a_later_version_is_refused_and_left_alone(folder: Path, session: Session, notices: list[str]) -> None:
    with History.open(folder) as history:
        ask(history.begin("tiny"), session, "One?")
    with closing(sqlite3.connect(folder / FILE)) as connection:
        connection.execute("PRAGMA user_version = 4")
    before = (folder / FILE).read_bytes()
    with pytest.raises(HistoryError, match="is of format 4; this version of the package reads 3"):
        History.open(folder)
    with History.open_or_forget(folder, on_notice=notices.append) as history:
        assert not history.is_kept
    assert len(notices) == 1
    assert (folder / FILE).read_bytes() == before
    assert not list(folder.glob("damaged-*"))


@pytest.mark.parametrize("damage", ["text", "zeros", "torn", "foreign", "no tables"])
def test_a_damaged_database_is_moved_aside_and_never_lost(
    folder: Path, session: Session, notices: list[str], damage: str
) -> None:
    with History.open(folder) as history:
        ask(history.begin("tiny"), session, "One?")
    path = folder / FILE
    data = path.read_bytes()
    if damage in ("foreign", "no tables"):
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("DROP TABLE pictures")
            if damage == "foreign":
                connection.execute("PRAGMA application_id = 1")
            connection.commit()
    else:
        path.write_bytes({"text": b"hello", "zeros": bytes(len(data)), "torn": data[:1000]}[damage])
    damaged = path.read_bytes()
    with History.open(folder, on_notice=notices.append) as history:
        assert history.search() == []
        session.clear()
        ask(history.begin("tiny"), session, "Two?")
        assert len(history.search()) == 1
    (aside,) = folder.glob("damaged-*.sqlite")
    assert aside.read_bytes() == damaged
    assert len(notices) == 1
    assert str(aside) in notices[0]


def test_damage_in_the_middle_of_a_chat(folder: Path, session: Session, notices: list[str]) -> None:
    """The chat goes on, and what was said in it is in the new database from its first word."""
    with History.open(folder) as history:
        for number in range(6):
            session.clear()
            ask(history.begin("tiny"), session, f"{number} " + "filling " * 60)
    with History.open(folder, on_notice=notices.append) as history:
        session.clear()
        conversation = history.begin("tiny")
        ask(conversation, session, "Before?", [noise(1)])
        with closing(sqlite3.connect(folder / FILE)) as connection:
            connection.execute("PRAGMA wal_checkpoint (TRUNCATE)")
        data = (folder / FILE).read_bytes()
        (folder / FILE).write_bytes(data[:4096] + b"\xa5" * (len(data) - 4096))
        ask(conversation, session, "After?")
        assert len(conversation.entries) == 4
        assert len(notices) == 1
        assert "was damaged" in notices[0]
        assert [each.id for each in history.search()] == [conversation.id]
        assert texts(history.find(conversation.id)) == texts(conversation)
        assert history.pictures.get(conversation.entries[0].pictures[0].digest)
    assert len(list(folder.glob("damaged-*.sqlite"))) == 1


def test_an_empty_file_in_its_place_is_a_beginning(folder: Path) -> None:
    folder.mkdir()
    (folder / FILE).touch()
    with closing(open_database(folder, pytest.fail)) as connection:
        assert connection.execute("SELECT count(*) FROM conversations").fetchone() == (0,)


def test_the_folder_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INTERNVL_DATA", str(tmp_path / "mine"))
    with History.open() as history:
        assert history.folder == data_dir() == tmp_path / "mine"
    monkeypatch.delenv("INTERNVL_DATA")
    assert data_dir().name == "internvl"
    assert not data_dir().is_relative_to(tmp_path)
