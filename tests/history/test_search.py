"""Stored conversations are found by their words, and deleted without a trace."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvl_gguf import HistoryError, Picture, Session
from internvl_gguf.history import Conversation, History
from internvl_gguf.history.entries import Entry, title_of
from tests.support.kept import again, ask
from tests.support.pictures import noise

# --- Finding ----------------------------------------------------------------------------------------------------------


def test_by_the_beginning_of_an_id(history: History, session: Session) -> None:
    conversations = []
    for name in ("abcdef", "abcxyz", "k7m3xq"):
        conversations.append(history.begin("tiny"))
        conversations[-1].id = name
        session.clear()
        ask(conversations[-1], session, f"I am {name}.")
    assert history.find(" K7 ").id == "k7m3xq"
    assert history.find("abcx").id == "abcxyz"
    assert history.latest().id == "k7m3xq"
    with pytest.raises(HistoryError, match="Several") as caught:
        history.find("ab")
    assert caught.value.hint == "They are abcxyz, abcdef."
    for wanted in ("", " ", "zz", "k7m3xqq", "%", "_", "'"):
        with pytest.raises(HistoryError, match="There is no conversation"):
            history.find(wanted)


def test_an_id_that_is_the_beginning_of_another_is_found(history: History, session: Session) -> None:
    for name in ("abc", "abcd"):
        conversation = history.begin("tiny")
        conversation.id = name
        session.clear()
        ask(conversation, session, "?")
    assert history.find("abc").id == "abc"


@pytest.fixture
def library(history: History, session: Session) -> History:
    """Four conversations."""
    for question, name in [
        ("What is on the Kitchen table?", "kitchen.jpg"),
        ("这张图片里有什么", "图.png"),
        ("Größe der Straße", "x.png"),
        ('A "quoted" 100% sure_thing', "plan b.png"),
    ]:
        session.clear()
        ask(history.begin("tiny"), session, question, [Picture(noise(1), max_tiles=1, name=name)])
    return history


WANTED = [
    ("kitchen", 1), ("KITCHEN table", 1), ("table kitchen", 1), ("kitchen nothing", 0), ("itche", 1), ("图片", 1),
    ("这张图片", 1), ("图", 1), ("größe", 1), ("GRÖSSE", 0), ("straße", 1), ('"quoted"', 1), ("100%", 1), ("0%", 1),
    ("sure_thing", 1), ("sureXthing", 0), (".jpg", 1), ("plan b", 1), ("", 4), ("   ", 4), (" OR ", 0),
    ("NOT AND", 0), ("a*b", 0), ("kitchen*", 0), ('"', 1), ("x\0.png", 1), ("NEAR(a", 0), ("text:quoted", 0),
]  # fmt: skip
"""Words, and how many questions have all of them; answers of the random model have hardly any."""


@pytest.mark.parametrize("has_index", [True, False])
def test_search(library: History, monkeypatch: pytest.MonkeyPatch, has_index: bool) -> None:
    """The index and the look at every message find the same, whatever signs are in the words."""
    if not has_index:
        monkeypatch.setattr("internvl_gguf.history.word_search._bring_up_to_date", lambda connection: False)
    for text, expected in WANTED:
        found = {each.id for each in library.search(text)}
        assert found == {each.id for each in library.search() if _holds(library.find(each.id), text)}, text
        assert len(found) >= expected, text


def _holds(conversation: Conversation, text: str) -> bool:
    """Return whether every word is in a message or a picture's name."""
    said = "\n".join(
        part for entry in conversation.entries for part in (entry.text, *(picture.name for picture in entry.pictures))
    )
    return all(word.lower() in said.lower() for word in text.replace("\0", " ").split())


def test_results_are_newest_first_limited_and_show_where(library: History) -> None:
    everything = library.search()
    assert [each.updated for each in everything] == sorted((each.updated for each in everything), reverse=True)
    assert library.search(limit=2) == everything[:2]
    (found,) = library.search("kitchen TABLE")
    assert "Kitchen table" in found.excerpt
    assert (found.questions, found.pictures, found.model) == (1, 1, "tiny")
    assert found.title == "What is on the Kitchen table?"


def test_the_index_knows_what_was_taken_back_and_what_came_later(history: History, session: Session) -> None:
    conversation = history.begin("tiny")
    ask(conversation, session, "elephants")
    assert history.search("elephants")
    conversation.undo(session)
    ask(conversation, session, "giraffes")
    assert not history.search("elephants")
    assert history.search("giraffes")


# --- Forgetting -------------------------------------------------------------------------------------------------------


def test_what_is_forgotten_is_gone_from_the_disk(history: History, folder: Path, session: Session, photo: Path) -> None:
    """Its words are in no file, its state and its pictures are removed; a picture that another one shows stays."""
    first, second = history.begin("tiny"), history.begin("tiny")
    ask(first, session, "unforgettable rhinoceros", [photo, noise(2)])
    assert first.keep_state(session)
    session.clear()
    ask(second, session, "harmless", [photo])
    assert history.search("rhinoceros")
    assert len(list((folder / "pictures").iterdir())) == 2
    assert history.forget([first.id, "nobody"]) == 1
    assert [path.name for path in (folder / "pictures").iterdir()] == [second.entries[0].pictures[0].digest]
    assert list((folder / "states").iterdir()) == []
    assert [each.id for each in history.search()] == [second.id]
    history.close()
    for path in folder.rglob("*"):
        assert not path.is_file() or b"rhino" not in path.read_bytes().lower(), path
    with again(folder) as other:
        other.find(second.id).continue_in(session)
        assert len(session.messages[1].pictures) == 1


def test_a_conversation_forgotten_while_it_is_open_stays_forgotten(
    history: History, folder: Path, session: Session, notices: list[str]
) -> None:
    conversation = history.begin("tiny")
    ask(conversation, session, "One?")
    with again(folder) as other:
        other.forget([conversation.id])
    ask(conversation, session, "Two?")
    ask(conversation, session, "Three?")
    assert conversation.is_removed
    assert len(notices) == 1
    assert "was removed" in notices[0]
    assert history.search() == []
    assert not conversation.keep_state(session)
    assert len(conversation.entries) == 6  # to be written to a file, for example


def test_rests_of_killed_writers_are_swept(history: History, folder: Path, session: Session) -> None:
    ask(conversation := history.begin("tiny"), session, "One?", [noise(1)])
    (folder / "pictures" / ("0" * 32)).write_bytes(b"shown by nobody")
    (folder / "pictures" / f".{'0' * 32}.abc").write_bytes(b"half")
    (folder / "pictures" / "notes.txt").write_bytes(b"of a person")
    history.forget(["nobody"])
    assert {path.name for path in (folder / "pictures").iterdir()} == {
        "notes.txt",
        conversation.entries[0].pictures[0].digest,
    }


# --- Titles -----------------------------------------------------------------------------------------------------------


@given(st.text())
def test_a_title_is_one_harmless_line(text: str) -> None:
    title = title_of([Entry("user", text, 0.0)])
    assert title.isprintable()
    assert len(title) <= 120
    assert "  " not in title
