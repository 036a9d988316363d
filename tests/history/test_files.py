"""Export of conversations as Markdown and as JSON, and import."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from internvl_gguf import HistoryError, Picture, Session
from internvl_gguf.history import Conversation, History
from tests.support.kept import SHORT, ask
from tests.support.pictures import noise


@pytest.fixture
def told(history: History, session: Session, photo: Path) -> Conversation:
    """A conversation about two pictures, one of them without a file."""
    conversation = history.begin("tiny:F32", "Be brief.")
    ask(
        conversation,
        session,
        "Is <image> like <image>?",
        [Picture(photo, max_tiles=4), Picture(noise(2), name="../b[1]")],
    )
    ask(conversation, session, "Sure?\n# not a heading")
    return conversation


def test_json_there_and_back(told: Conversation, history: History, session: Session, tmp_path: Path) -> None:
    """In another history, which has none of the pictures, everything is as it was."""
    path = told.export(tmp_path / "talk.json")
    document = json.loads(path.read_text())
    assert document["format"] == "internvl conversation"
    assert len(document["pictures"]) == 2
    before = session.messages
    with History.open(tmp_path / "elsewhere") as other:
        loaded = other.load(path)
        assert [replace(entry, created=0) for entry in loaded.entries] == [
            replace(entry, created=0) for entry in told.entries
        ]
        assert [entry.created for entry in loaded.entries] == pytest.approx([entry.created for entry in told.entries])
        assert (loaded.model, loaded.system, loaded.created) == (told.model, told.system, pytest.approx(told.created))
        assert loaded.id != told.id
        loaded.continue_in(session)
        assert session.messages == before
        assert other.latest().id == loaded.id
        again = json.loads(loaded.export(tmp_path / "again.json").read_text())
    assert {**again, "id": "", "updated": ""} == {**document, "id": "", "updated": ""}


def test_json_without_pictures_finds_them_in_the_history(
    told: Conversation, history: History, session: Session, tmp_path: Path
) -> None:
    path = told.export(tmp_path / "small.json", copy_pictures=False)
    assert "pictures" not in json.loads(path.read_text())
    before = session.messages
    history.load(path).continue_in(session)
    assert session.messages == before


def test_markdown_with_its_pictures_beside_it(told: Conversation, tmp_path: Path, photo: Path) -> None:
    path = told.export(tmp_path / "my talk.md")
    text = path.read_text()
    assert text.startswith("# Is <image> like <image>?\n")
    assert "![a photo.png](my%20talk-pictures/a_photo.png)" in text
    assert str(photo.parent) not in text, "whom it is shown to need not know the folders of this machine"
    assert "![b\\[1\\]](my%20talk-pictures/b_1.png)" in text
    assert "> Sure?\n> # not a heading" in text
    assert "> System: Be brief." in text
    files = {file.name: file.read_bytes() for file in (tmp_path / "my talk-pictures").iterdir()}
    assert files.keys() == {"a_photo.png", "b_1.png"}
    assert files["a_photo.png"] == photo.read_bytes()


def test_markdown_links_to_where_pictures_are_still(told: Conversation, tmp_path: Path, photo: Path) -> None:
    text = told.export(tmp_path / "talk.md", copy_pictures=False).read_text()
    assert f"]({str(photo).replace(' ', '%20')})" in text
    assert [file.name for file in (tmp_path / "talk-pictures").iterdir()] == ["b_1.png"]
    photo.write_bytes(b"something else")
    text = told.export(tmp_path / "talk.md", copy_pictures=False).read_text()
    assert "](talk-pictures/a_photo.png)" in text


def test_markdown_holds_nothing_that_a_terminal_acts_on(history: History, session: Session, tmp_path: Path) -> None:
    conversation = history.begin("tiny\x1b]0;x\x07", "\x9b31m")
    ask(conversation, session, "\x1b[31mred", [Picture(noise(1), name="a\x1b[31m.png")])
    conversation._entries[1] = replace(conversation._entries[1], text="```\nopen \x1b[2J \x85\r\nline")
    text = conversation.export(tmp_path / "talk.md").read_text()
    assert not {c for c in text if ord(c) < 32 and c != "\n"}
    assert not {c for c in text if 127 <= ord(c) < 160}
    assert text.rstrip().endswith("line\n```")  # a block of code that was cut does not swallow what follows


def test_pictures_of_one_name_do_not_overwrite_each_other(history: History, session: Session, tmp_path: Path) -> None:
    conversation = history.begin("tiny")
    ask(conversation, session, "?", [Picture(noise(seed), max_tiles=1, name="x.png") for seed in (1, 2, 1)])
    text = conversation.export(tmp_path / "talk.md").read_text()
    assert text.count("(talk-pictures/x.png)") == 2
    assert text.count("(talk-pictures/x-2.png)") == 1
    assert len(list((tmp_path / "talk-pictures").iterdir())) == 2


def test_files_that_cannot_be_written(told: Conversation, tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match=r"is not written as talk\.pdf"):
        told.export(tmp_path / "talk.pdf")
    (tmp_path / "file").touch()
    with pytest.raises(HistoryError, match="cannot be written"):
        told.export(tmp_path / "file" / "talk.json")


@pytest.mark.parametrize("name", ["notes.md", "notes.json"])
def test_a_file_that_is_something_else_is_not_replaced(
    told: Conversation, history: History, session: Session, tmp_path: Path, name: str
) -> None:
    """/export notes.md wrote over the user's own notes."""
    path = tmp_path / name
    path.write_text("precious")
    with pytest.raises(HistoryError, match="is there already"):
        told.export(path)
    assert path.read_text() == "precious"
    assert told.export(path, overwrite=True).read_text() != "precious"
    first = told.export(path).read_text()  # what it wrote itself it brings up to date
    ask(told, session, "And now?")
    assert told.export(path).read_text() != first
    other = history.begin("tiny")
    ask(other, session, "Something else?")
    with pytest.raises(HistoryError, match="is there already"):
        other.export(path)


def _document(told: Conversation, tmp_path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(told.export(tmp_path / "talk.json").read_text())
    return document


NONSENSE: list[tuple[list[Any], Any]] = [
    (["format"], "something"), (["version"], 4), (["version"], None), (["model"], 5), (["model"], "\ud800"),
    (["created"], "yesterday"), (["created"], 10**30), (["messages"], {}), (["messages", 0], None),
    (["messages", 0, "role"], "assistant"), (["messages", 0, "role"], "system"), (["messages", 0, "text"], None),
    (["messages", 0, "text"], "one <image>"), (["messages", 0, "layout"], "circle"),
    (["messages", 0, "pictures"], 5), (["messages", 0, "pictures", 0, "digest"], 7),
    (["messages", 0, "pictures", 0, "label"], 1), (["messages", 0, "pictures", 0, "label"], "Frame1: <image>"),
    (["messages", 0, "pictures", 0, "max_tiles"], 0), (["messages", 0, "pictures", 0, "max_tiles"], True),
    (["messages", 0, "pictures", 0, "min_tiles"], 9), (["messages", 0, "pictures", 0, "cut", "grid"], [9, 9]),
    (["messages", 0, "pictures", 0, "cut", "grid"], [1]), (["messages", 0, "pictures", 0, "cut"], None),
    (["messages", 0, "pictures", 0, "cut", "has_thumbnail"], "yes"), (["messages", 1, "tokens"], ["x"]),
    (["messages", 1, "tokens"], [-1]), (["messages", 1, "statistics"], []), (["pictures"], []),
    (["pictures", "0" * 32], "aGVsbG8="), (["pictures", "0" * 32], "!"), (["pictures", "0" * 32], None),
]  # fmt: skip
"""Places in a document, and what does not belong there."""


def test_a_file_that_says_nonsense_is_refused(told: Conversation, history: History, tmp_path: Path) -> None:
    document = _document(told, tmp_path)
    for keys, value in NONSENSE:
        bad = copy.deepcopy(document)
        place: Any = reduce(lambda inside, key: inside[key], keys[:-1], bad)
        place[keys[-1]] = value
        (tmp_path / "bad.json").write_text(json.dumps(bad))
        with pytest.raises(HistoryError) as caught:
            history.load(tmp_path / "bad.json")
        assert caught.value.message.isprintable()
    assert len(history.search()) == 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200))
def test_a_file_of_anything_is_refused(history: History, tmp_path: Path, data: bytes) -> None:
    for start_of in (b"", b'{"format": "internvl conversation", "version": 1, "messages": [', b"[" * 3000):
        (tmp_path / "bad.json").write_bytes(start_of + data)
        with pytest.raises(HistoryError) as caught:
            history.load(tmp_path / "bad.json")
        assert "\n" not in caught.value.message


def test_files_that_cannot_be_read(history: History, tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(HistoryError, match="cannot be read"):
            history.load(path)


def test_tokens_of_a_loaded_file_never_become_control_tokens(
    told: Conversation, history: History, session: Session, tmp_path: Path
) -> None:
    document = _document(told, tmp_path)
    for tokens in ([session.runtime.control_tokens["<|im_start|>"]], [2**31 - 1]):
        document["messages"][1]["tokens"] = tokens
        (tmp_path / "evil.json").write_text(json.dumps(document))
        history.load(tmp_path / "evil.json").continue_in(session)
        assert session.messages[2].tokens is None
        assert session.ask("And now?", sampling=SHORT).usage.prompt_tokens > 0
