"""The slash commands and lines of a chat, with the demo model and a screen that records its output."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from internvl_gguf import SamplingParams, Session
from internvl_gguf.chat import commands
from internvl_gguf.chat.background_thread import BackgroundThread, Interrupt, Task
from internvl_gguf.chat.chat import Chat
from internvl_gguf.chat.chat_model import FoundModel, Models
from internvl_gguf.chat.command_table import COMMANDS, split_command
from internvl_gguf.chat.commands import LeaveChat, full_name
from internvl_gguf.chat.context_usage import ConversationPart, context_tokens, droppable_parts, without_parts
from internvl_gguf.chat.local_model import LocalModel
from internvl_gguf.chat.loop import Loop
from internvl_gguf.chat.reader import Reader, ScriptReader
from internvl_gguf.chat.settings import Settings, setting_names, setting_values
from internvl_gguf.chat.show_answer import LeaveChatAtOnce
from internvl_gguf.chat.suggestions import Sources, suggestions
from internvl_gguf.chat.terminal.clipboard import read_clipboard
from internvl_gguf.chat.terminal.screen import PlainScreen, Screen
from internvl_gguf.chat.terminal.terminal_screen import TerminalScreen
from internvl_gguf.config import PictureOptions
from internvl_gguf.errors import InternVLError, InvalidRequestError, PictureError
from internvl_gguf.history import History
from internvl_gguf.models.local_files import ModelFiles, demo_files
from internvl_gguf.models.suggest import suggest_models
from internvl_gguf.types import Chunk, Message
from tests.chat.test_screen import FakeTerminal
from tests.support.pictures import noise

EXAMPLE = demo_files().text.with_name("example.png")


class Recorder(Screen):
    """A screen that records its output.

    Attributes:
        said: every line.
        answers: every answer.
        phases: what took time.
    """

    def __init__(self) -> None:
        self.said: list[str] = []
        self.answers: list[str] = []
        self.phases: list[str] = []

    width, height = 80, 24

    @property
    def columns(self) -> int:
        return self.width

    @property
    def rows(self) -> int:
        return self.height

    def say(self, text: str = "") -> None:
        self.said.append(text)

    def show_lines(self, lines: Sequence[str]) -> None:
        self.said += lines

    def fail(self, error: InternVLError) -> None:
        self.said += [error.message, error.hint]

    def quote(self, role: str, text: str) -> None:
        self.said.append(f"{role}: {text}")

    def progress(self, phase: str = "", detail: str = "", *, at_once: bool = False) -> None:
        self.phases.append(f"{phase}: {detail}")

    def tick(self) -> None:
        return

    def begin_answer(self) -> None:
        self.answers.append("")

    def write(self, text: str) -> None:
        self.answers[-1] += text

    def end_answer(self) -> None:
        return

    def status(self, parts: Sequence[str]) -> None:
        self.said.append(" · ".join(parts))

    @property
    def text(self) -> str:
        return "\n".join(self.said)


class Chooser(Reader):
    """A user who gives these answers when asked what to drop."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)

    def read(self, text: str, waiting: int) -> str:
        raise EOFError

    def choose(self, question: str) -> str:
        return self.answers.pop(0)


@pytest.fixture(scope="module")
def demo() -> Iterator[Session]:
    with Session.open("demo", n_threads=1, n_ctx=1024) as session:
        yield session


@pytest.fixture
def worker() -> Iterator[BackgroundThread]:
    worker = BackgroundThread()
    yield worker
    worker.close()


@pytest.fixture
def chat(demo: Session, worker: BackgroundThread, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Chat]:
    monkeypatch.chdir(tmp_path)
    with demo.fork() as session, History.open(tmp_path / "data") as history:
        session.set_system(None)
        found = FoundModel("demo", lambda: LocalModel(demo.fork(), demo_files(), "demo"))
        current = LocalModel(session, demo_files(), "demo")
        conversation = history.begin("demo")
        yield Chat(Models(lambda name: found), found, current, history, conversation, Settings(), worker, Recorder())


@pytest.fixture
def talk(chat: Chat) -> Callable[..., str]:
    """Take lines, and give what the editor begins with after the last."""
    loop = Loop(chat, Chooser())

    def take(*lines: str) -> str:
        left = ""
        for line in lines:
            left = loop.take(line)
        return left

    return take


def session_of(chat: Chat) -> Session:
    assert isinstance(chat.session, Session)
    return chat.session


def recorder(chat: Chat) -> Recorder:
    assert isinstance(chat.screen, Recorder)
    return chat.screen


def test_a_question_about_a_picture_and_the_next_one(chat: Chat, talk: Callable[..., str]) -> None:
    assert talk(f"What number is written? '{EXAMPLE}'", "What colour is the circle?") == ""
    screen = recorder(chat)
    assert screen.answers == ["98", "Red."]
    added, first, second = screen.said
    assert added == "Added example.png: 3x3 tiles + thumbnail, 360 tokens; 647 of 1,024 left"
    assert re.fullmatch(r"10 tiles \w+ · \d+ tokens · first after .*s · .* tokens/s · 397 of 1,024 used", first)
    assert re.fullmatch(r"\d+ tokens · .* · 416 of 1,024 used", second), "no tile was read for it"
    talk("/tokens")
    assert screen.said[-1] == "608 of 1,024 tokens are free."
    assert chat.pending == []


def test_it_tells_how_far_pictures_are_looked_at(chat: Chat, talk: Callable[..., str], tmp_path: Path) -> None:
    noise(77, 640, 480).save(tmp_path / "new.png")
    talk("new.png What is this?")
    tiles = [f"Looking at the picture: tile {number} of 13" for number in range(1, 14)]
    phases = recorder(chat).phases
    assert [phase for phase in phases if "Looking" in phase] == tiles
    assert phases[0] == "Reading the question: "
    assert phases[-1] == ": "


def test_pictures_wait_for_their_question(chat: Chat, talk: Callable[..., str]) -> None:
    talk(str(EXAMPLE), f"/image {EXAMPLE}")
    assert len(chat.pending) == 2
    assert recorder(chat).answers == []
    assert recorder(chat).said[1] == "example.png is in the conversation already (picture 1); added again."
    assert recorder(chat).said[2].endswith("287 of 1,024 left")
    talk("/images")
    assert recorder(chat).said[-2:] == [
        "  1  example.png: waits for a question",
        "  2  example.png: waits for a question",
    ]
    talk("/images remove 1", "What number is written?")
    assert recorder(chat).answers == ["98"]
    talk("/images")
    assert recorder(chat).said[-1] == "  1  example.png: 3x3 tiles + thumbnail, 360 tokens"
    talk("/images remove 1")
    assert recorder(chat).said[-1].startswith("1 picture removed; ")
    assert context_tokens(session_of(chat).runtime, chat.session.messages) < 60


def test_many_pictures_have_one_line_together(
    chat: Chat, talk: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty pictures had a line each, and again after each Ctrl-C."""
    screen = recorder(chat)
    for number in range(1, 7):
        noise(number, 20, 20).save(tmp_path / f"p{number}.png")
    talk("/tiles 1", "p1.png p2.png p3.png p4.png")
    assert [line.split(":")[0] for line in screen.said[1:]] == [f"Added p{number}.png" for number in range(1, 5)]
    talk("/images remove 1-4")
    screen.said.clear()
    talk("p[1-5].png")
    assert screen.said == ["Added 5 pictures: 5 tiles, 180 tokens; 827 of 1,024 left"]
    talk("/tiles 1")
    assert screen.said[2:] == screen.said[:1]
    screen.said.clear()
    talk("/image *.png")
    assert screen.said[0] == "5 of these pictures are in the conversation already; added again."
    assert re.fullmatch(r"Added 6 pictures: 6 tiles, 216 tokens; \d+ of 1,024 left", screen.said[1])
    talk("/images remove 1-11", "/tiles 12", "/set min_tiles 12", "*.png")
    assert re.search(r"tokens, [\d,]+ more than are left: they will be cut smaller if that helps\.$", screen.said[-1])
    talk("/images remove 1-6")
    for unknown in ("cut", "used"):  # as with servers that do not say it
        monkeypatch.setattr(LocalModel, unknown, lambda *arguments: None)
    talk("*.png")
    assert screen.said[-1] == "Added 6 pictures."


def test_a_picture_that_does_not_load_leaves_the_line_and_what_waited(
    chat: Chat, talk: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    noise(1).save(tmp_path / "good.png")
    talk("good.png")
    line = "compare good.png with broken.png"
    assert talk(line) == line
    assert [attachment.label for attachment in chat.pending] == ["good.png"]
    assert recorder(chat).answers == []
    assert "broken.png" in recorder(chat).text
    assert talk("/image no.png") == "", "a command that failed is left to the Up key"
    assert "there is no such file" in recorder(chat).said[-2]
    assert talk("what is in no.png?") == "what is in no.png?"
    assert recorder(chat).said[-1].endswith('Between """ and """ a name stays text.')
    assert recorder(chat).answers == []
    assert talk('"""what is no.png?"""') == ""
    assert "  (no such file: no.png)" in recorder(chat).said
    assert len(recorder(chat).answers) == 1


def test_the_address_of_a_picture_puts_the_line_back(chat: Chat, talk: Callable[..., str]) -> None:
    """The question was asked without the picture, and its answer, about an earlier one, was kept."""
    talk(f"{EXAMPLE} What number is written?")
    screen, kept = recorder(chat), chat.conversation.entries
    line = "https://example.org/x.png What is it?"
    assert talk(line) == line
    assert screen.said[-2:] == [
        "https://example.org/x.png is not fetched: pictures come from this machine.",
        'Download it first. Between """ and """ an address stays text.',
    ]
    mixed = f"Is https://example.org/x.png like '{EXAMPLE}'?"
    assert talk(mixed) == mixed
    assert talk("/image https://example.org/x.png") == ""
    assert screen.said[-1] == "Download it first."
    assert (chat.pending, chat.conversation.entries, screen.answers) == ([], kept, ["98"])
    talk(f'"""{line}"""', "What is at https://example.org/page?")
    assert [entry.text for entry in chat.conversation.entries[2::2]] == [line, "What is at https://example.org/page?"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("good.png What is it?", "Stopped before there was an answer: nothing was asked. It is in the line again."),
        ("good.png", "Stopped: nothing was added. It is in the line again."),
    ],
)
def test_ctrl_c_while_pictures_are_added_puts_the_line_back_and_says_so(
    chat: Chat, talk: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, said: str
) -> None:
    """It said "Stopped." alone, and the next question was typed behind the old one."""

    def stopped(self: LocalModel, *arguments: object) -> int:
        raise KeyboardInterrupt

    noise(1).save(tmp_path / "good.png")
    monkeypatch.setattr(LocalModel, "used", stopped)
    assert talk(line) == line
    assert recorder(chat).said == [said]
    assert (chat.pending, recorder(chat).answers) == ([], [])
    with pytest.raises(KeyboardInterrupt):
        Loop(chat, ScriptReader(io.BytesIO(line.encode()))).run()


def test_ctrl_c_before_an_answer_puts_the_line_back_and_says_so(
    chat: Chat, talk: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    talk("Hello")
    screen, said = recorder(chat), "Stopped before there was an answer: nothing was asked."

    def stopped(prompt: str, settings: Settings | None = None) -> bool:
        chat.was_stopped = True
        return False

    monkeypatch.setattr(chat, "ask", stopped)
    assert talk("/regen") == "Hello"
    assert screen.said[-1] == f"{said} It is in the line again."
    assert talk("How are you?") == "How are you?"
    assert screen.said[-1] == f"{said} It is in the line again."
    with pytest.raises(KeyboardInterrupt):
        Loop(chat, ScriptReader(io.BytesIO(b"Hello"))).run()
    assert screen.said[-1] == said, "a script has no line"


def test_a_folder_is_no_question(chat: Chat, talk: Callable[..., str], tmp_path: Path) -> None:
    assert talk(f"'{tmp_path}' ") == f"'{tmp_path}' "
    assert "is a folder" in recorder(chat).text
    assert recorder(chat).answers == []


def test_undo_edit_and_regen(chat: Chat, talk: Callable[..., str]) -> None:
    for nothing in ("/undo", "/edit", "/regen"):
        assert talk(nothing) == ""
        assert recorder(chat).said[-1] == "Nothing was asked yet."
    talk(f"{EXAMPLE} What number is written?", "Hello", "/undo")
    assert len(chat.session.messages) == len(chat.conversation.entries) + 1 == 3
    assert chat.pending == []
    talk("/regen")
    assert "Asked at temperature 0.8" in recorder(chat).text
    assert chat.settings.sampling.temperature is None
    assert len(recorder(chat).answers) == 3
    assert chat.session.messages[-2].pictures
    assert talk("/edit") == "What number is written?"
    assert [attachment.label for attachment in chat.pending] == ["example.png"]
    assert chat.conversation.entries == ()
    talk("What colour is the circle?", "/regen 0")
    assert recorder(chat).answers[-2:] == ["Red.", "Red."]


def test_settings_hold_for_the_next_questions(chat: Chat, talk: Callable[..., str]) -> None:
    talk("/set max_tokens 1", "Hello")
    assert recorder(chat).said[-2] == "The answer was cut at its limit: /set max_tokens raises it."
    talk("/tiles 1", str(EXAMPLE))
    assert recorder(chat).said[-1].startswith("Added example.png: 1 tile, 36 tokens;")
    talk("/tiles 6")
    assert recorder(chat).said[-1].startswith("Added example.png: 2x2 tiles + thumbnail")
    for wrong in ("/set temperature hot", "/set temprature 1", "/set top_p 2", "/tiles 0", "/set layout row"):
        said = len(recorder(chat).said)
        assert talk(wrong) == ""
        assert len(recorder(chat).said) == said + 2
    assert "Did you mean temperature?" in recorder(chat).said
    talk("/set")
    assert "  max_tokens         1" in recorder(chat).said


def test_every_setting_can_be_read_back() -> None:
    values = {
        "stop": "'a b' c",
        "layout": "frames",
        "thumbnail": "off",
        "fit_pictures": "off",
        "frame_times": "on",
        "thinking": "on",
        "keep_thinking": "off",
        "min_p": "0.5",
    }
    for name in setting_names():
        changed = Settings().changed(name, values.get(name, "1"))
        assert dict(changed.rows())[name] in (values.get(name, "1"), "1.0")
        assert all(Settings().changed(name, value) for value in setting_values(name))
    with pytest.raises(InvalidRequestError):
        Settings().changed("nothing", "1")
    assert Settings(pictures=PictureOptions(layout="frames")).ask_options()["max_tiles"] == 1
    assert Settings(SamplingParams(stop=("x",))).changed("stop", "none").sampling.stop == ()


def test_the_system_message(chat: Chat, talk: Callable[..., str]) -> None:
    talk("/system Be brief.")
    assert chat.session.messages[0] == Message("system", "Be brief.")
    talk("/system none")
    assert chat.session.messages == ()
    talk("/system default", "/system")
    assert recorder(chat).said[-1].startswith("System message (the official one): ")


def test_a_new_conversation_and_the_old_one_again(chat: Chat, talk: Callable[..., str]) -> None:
    talk("/load")
    assert recorder(chat).said[-1] == "This is the only conversation so far."
    talk(f"{EXAMPLE} What number is written?")
    old = chat.conversation.id
    talk("/clear")
    assert recorder(chat).said[-1] == f"A new conversation. The old one is kept: /load {old}."
    assert len(chat.session.messages) == 1
    talk("Hello", "/load")
    assert any(line.strip().startswith(old) for line in recorder(chat).said)
    talk(f"/load {old}")
    assert chat.conversation.id == old
    assert recorder(chat).said[-2:] == ["user: What number is written?", "assistant: 98"]
    talk("What colour is the circle?")
    assert recorder(chat).answers[-1] == "Red."
    assert talk("/load zzzzzz") == ""
    assert "zzzzzz" in recorder(chat).said[-2]


def test_a_conversation_that_goes_on_tells_its_size_and_its_pictures(
    chat: Chat, talk: Callable[..., str], tmp_path: Path
) -> None:
    """Only the last exchange was shown: nobody knew which picture "picture 2" was."""
    screen, first = recorder(chat), chat.conversation.id
    talk("Hello", f"/load {first}")
    assert screen.said[-3] == f"Going on with {first}: Hello (1 question)."
    for number in range(1, 7):
        noise(number, 20, 20).save(tmp_path / f"p{number}.png")
    talk("/tiles 1", "p1.png p2.png Which?", "/clear", f"/load {first}")
    assert screen.said[-4:-2] == [f"Going on with {first}: Hello (2 questions).", "Its pictures: p1.png, p2.png."]
    talk("p[3-6].png Which?", "/clear", f"/load {first}")
    assert screen.said[-3] == "Its pictures: p1.png, p2.png, p3.png, p4.png and 2 more; /images lists them."


def test_files(chat: Chat, talk: Callable[..., str], tmp_path: Path) -> None:
    talk("/export")
    assert recorder(chat).said[-1] == "There are no messages yet."
    talk(f"{EXAMPLE} What number is written?", "/export 'my talk.md'", "/save talk", "/export")
    assert "98" in (tmp_path / "my talk.md").read_text()
    assert json.loads((tmp_path / "talk.json").read_text())
    assert len(list(tmp_path.glob("chat-*.md"))) == 1
    talk("/clear", "/load talk.json")
    assert recorder(chat).said[-1] == "assistant: 98"
    assert talk("/export talk.xyz") == ""
    assert recorder(chat).said[-1] == "Call the file .md or .json."


def test_the_model_is_changed_and_the_conversation_stays(chat: Chat, talk: Callable[..., str]) -> None:
    talk(f"{EXAMPLE} What number is written?")
    before = chat.session
    talk("/model other", "What colour is the circle?")
    assert chat.session is not before
    assert recorder(chat).answers == ["98", "Red."]

    def refuse() -> LocalModel:
        raise InvalidRequestError("No.", "Never.")

    before = chat.session
    chat.models = Models(lambda name: FoundModel(name, refuse))
    assert talk("/model broken") == ""
    assert chat.session is not before, "the old one is there again"
    assert chat.model == "demo"
    talk("How many shapes are there?")
    assert recorder(chat).answers[-1] == "Two."


def test_the_name_of_another_quant() -> None:
    assert full_name("InternVL3-8B:Q4_K_M", ":Q8_0") == "InternVL3-8B:Q8_0"
    assert full_name("/models/a/x-Q4_K_M.gguf", ":Q8_0") == "/models/a:Q8_0"
    assert full_name("demo", "owner/repo:Q4_0") == "owner/repo:Q4_0"


def test_a_full_context_offers_what_to_drop(chat: Chat) -> None:
    long = " ".join(["again"] * 700)
    screen = recorder(chat)
    loop = Loop(chat, Chooser("9", "1"))
    loop.take(f"{EXAMPLE} What number is written?")
    loop.take("How many shapes are there?")
    assert loop.take(long) == ""
    assert "9 is not in the list." in screen.text
    assert re.search(r"1  question \"What number is written\?\" with its answer and 1 picture: \d+ tokens", screen.text)
    assert len(chat.session.messages) == 5, "the system message, and two questions with their answers"
    assert len(chat.conversation.entries) == 6, "the history keeps all"
    declined = Loop(chat, Chooser(""))
    longer = long + long
    assert declined.take(longer) == longer
    assert declined.failures == 1


def test_what_does_not_fit_is_told_with_what_can_be_typed_here(chat: Chat) -> None:
    """The advice was `clear()`, which is for programs."""
    screen = recorder(chat)
    loop = Loop(chat, Chooser("", "", ""))
    loop.take("/set fit_pictures off")
    loop.take(" ".join(["again"] * 2000))
    assert re.fullmatch(r"What helps: a chat begun with --n-ctx \d+\.", screen.said[-1])
    loop.take(f"/image {EXAMPLE} {EXAMPLE} {EXAMPLE}")
    loop.take("What number is written?")
    assert re.fullmatch(r"What helps: /tiles \d+, a chat begun with --n-ctx \d+\.", screen.said[-1])
    loop.take("/images remove 1-3")
    loop.take("Hello")
    loop.take(" ".join(["again"] * 20000))
    assert screen.said[-1] == "What helps: /drop for parts of the conversation, /clear for a new one."
    assert "clear()" not in screen.text
    assert "--max-tiles" not in screen.text


def test_what_parts_take_is_what_is_free_without_them(chat: Chat, talk: Callable[..., str]) -> None:
    talk(f"/image {EXAMPLE} {EXAMPLE}", "What number is written?", "/set max_tiles 1")
    talk(f"/image {EXAMPLE}", "What is <image>?", "Hello")
    runtime, messages = session_of(chat).runtime, list(chat.session.messages)
    found = droppable_parts(runtime, messages)
    assert [(part.turn, part.picture) for part in found] == [(0, None), (0, 0), (0, 1), (1, None), (1, 0), (2, None)]
    whole = context_tokens(runtime, messages)
    runtime_tokens = runtime.vision.tokens_per_tile
    assert [part.tokens for part in found if part.picture is not None] == [10 * runtime_tokens] * 2 + [runtime_tokens]
    for part in (part for part in found if part.picture is None):
        assert whole - context_tokens(runtime, without_parts(messages, [part])) == part.tokens
    assert without_parts(messages, [ConversationPart(1, 0, 0, "", 1)])[3].text == "What is ?"
    assert [message.role for message in without_parts(messages, found)] == ["system"]
    chat.drop([found[1]])
    talk("What number is written?")
    talk("/tokens", "/drop", "/drop 1-2")
    assert "Dropped; " in recorder(chat).said[-1]
    assert talk("/drop 77") == ""
    assert recorder(chat).said[-2] == "77 is not in the list."


def test_commands_that_show(chat: Chat, talk: Callable[..., str]) -> None:
    talk("/stats", "Hello", "/stats", "/show", "/model", "/help")
    text = recorder(chat).text
    assert "No answer yet." in text
    assert "ended by the model" in text
    assert "demo-text-BF16.gguf" in text
    assert all(f"/{name}" in text for name in COMMANDS)


@pytest.mark.parametrize(("columns", "rows"), [(59, 20), (79, 24), (159, 45)])
def test_help_fits_the_window(chat: Chat, talk: Callable[..., str], columns: int, rows: int) -> None:
    """Half of it had scrolled away in a small window."""
    screen = recorder(chat)
    screen.width, screen.height = columns, rows
    talk("/help")
    assert len(screen.said) <= rows - 2
    assert max(map(len, screen.said)) <= columns
    assert all(f"/{name}" in screen.text for name in COMMANDS)
    assert "Ctrl-C" in screen.text
    assert ("Take the last question and its answer back." in screen.text) == (rows == 45)
    screen.said.clear()
    talk("/help all")
    assert "Take the last question and its answer back." in screen.text
    screen.said.clear()
    talk("/help /undo")
    assert screen.said[0].startswith("/undo")
    assert talk("/help me") == ""
    assert screen.said[-2] == "There is no command me."


def test_a_picture_that_the_conversation_has_is_added_again_by_a_command_only(
    chat: Chat, talk: Callable[..., str], tmp_path: Path
) -> None:
    """Everyone drags the photo in with each question; the copies made answers wrong."""
    screen = recorder(chat)
    (tmp_path / "copy.png").write_bytes(EXAMPLE.read_bytes())
    noise(5, 100, 90).save(tmp_path / "other.png")
    talk(f"{EXAMPLE} What number is written?", "What colour is the circle? copy.png")
    assert screen.answers == ["98", "Red."]
    known = "copy.png is the same picture as example.png (picture 1)"
    assert screen.said[-2] == f"{known}; /image adds it again."
    talk("other.png", "copy.png")
    assert screen.said[-1] == f"{known}; /image adds it again.", "whatever came after it"
    talk(f"{EXAMPLE} other.png")
    assert screen.said[-2:] == [
        "example.png is in the conversation already (picture 1); /image adds it again.",
        "other.png is in the conversation already (picture 2); /image adds it again.",
    ]
    assert [each.label for each in chat.pending] == ["other.png"]
    talk("/image copy.png")
    assert screen.said[-2] == f"{known}; added again."


def test_a_sentence_calls_pictures_as_the_conversation_numbers_them(
    chat: Chat, talk: Callable[..., str], tmp_path: Path
) -> None:
    """It was cut to "what is left of and right of?", in the title of the conversation, too."""
    noise(5, 100, 90).save(tmp_path / "other.png")
    talk(f"{EXAMPLE} What number is written?", "what is left of other.png and right of example.png?")
    assert chat.conversation.entries[-2].text == "what is left of picture 2 and right of picture 1?"
    assert [picture.name for picture in chat.conversation.entries[-2].pictures] == ["other.png"]
    assert talk("/edit") == "what is left of picture 2 and right of picture 1?"
    assert [each.label for each in chat.pending] == ["other.png"]


@pytest.mark.parametrize("columns", [60, 80])
@pytest.mark.parametrize("is_plain", [True, False])
def test_show_fits_the_terminal_wherever_the_model_lies(
    chat: Chat, talk: Callable[..., str], monkeypatch: pytest.MonkeyPatch, columns: int, is_plain: bool
) -> None:
    """Installed in a folder of sixty characters, /show was wider than the terminal, and a test failed by that."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("LINES", "100")
    terminal = FakeTerminal(200, 100)
    plain = PlainScreen(terminal, terminal, is_script=False, for_screen_reader=False)
    chat.screen = plain if is_plain else TerminalScreen(terminal, None)
    folder = Path("/opt", "a-folder-of-models" * 5, *["nested"] * 20)
    files = ModelFiles("long", folder / "a-model-with-a-long-name-Q4_K_M.gguf", folder / "mmproj.gguf")
    chat.current = LocalModel(session_of(chat), files, "long")
    talk("/show", "/stats", "/model", "/set", "/tokens", "/help")
    assert max(map(len, terminal.lines)) <= columns
    shown = "".join(line.strip() for line in terminal.lines)
    assert str(files.text) in shown, "nothing of the path is lost"


def test_unknown_commands_suggest_the_nearest(chat: Chat, talk: Callable[..., str]) -> None:
    assert talk("/imgae photo.png") == ""
    assert recorder(chat).said[-1] == "There is no command /imgae: did you mean /image? /help lists them."
    assert talk("/xyzzy") == ""
    assert recorder(chat).said[-1] == "There is no command /xyzzy: /help lists them."
    assert talk("/tokns/undo") == "/tokns/undo"
    assert recorder(chat).said[-2] == "There is no command and no file /tokns/undo."
    assert not chat.conversation.entries, "it was asked as a question"


def test_commands_that_take_nothing_say_so(chat: Chat, talk: Callable[..., str]) -> None:
    """/undo 2 took back one."""
    assert talk("/undo 2") == ""
    assert recorder(chat).said[-2:] == ["/undo takes nothing after it.", "Type /undo alone."]
    assert not chat.conversation.entries


def test_the_settings_show_what_holds(chat: Chat, talk: Callable[..., str]) -> None:
    talk("/set max_tiles")
    assert recorder(chat).said[-1] == "max_tiles is 12 (not set)."
    with pytest.raises(LeaveChat):
        talk("/quit")


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("/set temperature 1", ("set", "temperature 1")),
        ("  /HELP", ("help", "")),
        ("/?", ("?", "")),
        ("/home/me/photo.png what?", None),
        ("/photo.png", None),
        ("// comment", None),
        ("/ hello", None),
        ("hello /help", None),
        (" Help ", ("help", "")),
        ("exit", ("exit", "")),
        ("help me", None),
        ("quit?", None),
    ],
)
def test_a_path_is_no_command(line: str, found: tuple[str, str] | None) -> None:
    assert split_command(line) == found


def test_scripts_go_on_after_a_line_that_fails(chat: Chat) -> None:
    lines = f'/image {EXAMPLE}\nWhat number is written?\n/nope\nno.png\n"""What\ncolour is the circle?"""\n'
    loop = Loop(chat, ScriptReader(io.BytesIO(lines.encode())))
    loop.run()
    assert recorder(chat).answers[0] == "98"
    assert len(recorder(chat).answers) == 2
    assert loop.failures == 2
    assert recorder(chat).said[1].startswith("Added example.png")
    assert [line for line in recorder(chat).said if line.startswith("> ")] == [
        f"> /image {EXAMPLE}",
        "> What number is written?",
        "> /nope",
        "> no.png",
        '> """What\ncolour is the circle?"""',
    ], "each answer beside its question"
    with pytest.raises(InvalidRequestError, match="Line 2 of stdin is not UTF-8"):
        Loop(chat, ScriptReader(io.BytesIO(b"Hello\ncaf\xe9\n"))).run()


def test_a_script_loses_no_picture_of_a_question_that_fails(chat: Chat, tmp_path: Path) -> None:
    """ "Added example.png" was said, and the picture was gone with its question."""
    noise(1, 20, 20).save(tmp_path / "small.png")
    too_long = " ".join(["again"] * 2000)
    lines = ["small.png", f"{EXAMPLE} {too_long}", "/images", "/images remove 1", "What number is written?"]
    loop = Loop(chat, ScriptReader(io.BytesIO("\n".join([*lines, too_long, "no.png Hm?"]).encode())))
    loop.run()
    said = [line for line in recorder(chat).said if not line.startswith(">")]
    waits = "1 picture of it waits for another question; /images remove takes out what is not wanted."
    at = said.index(waits)
    assert said[at + 1 : at + 3] == [
        "  1  small.png: waits for a question",
        "  2  example.png: waits for a question",
    ]
    assert recorder(chat).answers == ["98"]
    assert said.count(waits) == 1, "the others had none"
    assert (loop.failures, chat.pending) == (3, [])


def test_an_unanswered_question_stands_in_the_line_again(chat: Chat, talk: Callable[..., str]) -> None:
    """The process was killed after the question was kept, and before its answer was."""
    stream = chat.conversation.stream(chat.session, "What number is written?", [EXAMPLE])
    again = chat.history.find(chat.conversation.id)
    assert again.unanswered is not None
    assert talk(f"/load {again.id}") == "What number is written?"
    assert [attachment.label for attachment in chat.pending] == ["example.png"]
    stream.close()


@pytest.mark.skipif(os.name == "nt", reason="the programs here are shell scripts")
@pytest.mark.parametrize(
    ("platform", "environment", "program", "hexadecimal"),
    [
        ("linux", {"WAYLAND_DISPLAY": "wayland-0", "DISPLAY": ":0"}, "wl-paste", ""),
        ("linux", {"WAYLAND_DISPLAY": "wayland-0", "DISPLAY": ":0"}, "xclip", ""),
        ("linux", {"DISPLAY": ":0"}, "xclip", ""),
        ("linux", {"WSL_DISTRO_NAME": "Ubuntu"}, "powershell.exe", "{}\r\n"),
        ("darwin", {}, "pngpaste", ""),
        ("darwin", {}, "osascript", "«data PNGf{}»\n"),
        ("win32", {}, "powershell", "{}\r\n"),
    ],
)
def test_the_clipboard(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    platform: str,
    environment: dict[str, str],
    program: str,
    hexadecimal: str,
) -> None:
    """Programs by these names that write what the real ones do."""
    data = EXAMPLE.read_bytes()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PictureError, match="Nothing here can read the clipboard") as caught:
        read_clipboard(platform, environment)
    assert "Install" in caught.value.hint or "/image PATH" in caught.value.hint
    content = tmp_path / "content"
    content.write_bytes(hexadecimal.format(data.hex().upper()).encode() if hexadecimal else data)
    script = tmp_path / program
    script.write_text(f"#!/bin/sh\nexec /bin/cat {content}\n")
    script.chmod(0o755)
    assert read_clipboard(platform, environment) == data
    script.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(PictureError, match="no picture in the clipboard"):
        read_clipboard(platform, environment)


def test_nothing_to_paste_is_said(chat: Chat, talk: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "read_clipboard", EXAMPLE.read_bytes)
    talk("/paste")
    assert recorder(chat).said[-1].startswith("Added the picture from the clipboard: 3x3 tiles")
    monkeypatch.setattr(commands, "read_clipboard", lambda: read_clipboard("linux", {}))
    assert talk("/paste") == ""
    assert recorder(chat).said[-2] == "Nothing here can read the clipboard."


def offered(before: str, sources: Sources | None = None) -> list[str]:
    return [found.text for found in suggestions(before, sources or Sources())]


def test_completion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "my photo (1).png").touch()
    (tmp_path / "pics").mkdir()
    (tmp_path / ".hidden").touch()
    (tmp_path / "notes.txt").touch()
    snapshot = tmp_path / "hub" / "models--me--Other-GGUF" / "snapshots" / "c0"
    snapshot.mkdir(parents=True)
    (snapshot / "Other-Q5_K_M.gguf").touch()
    assert offered("/im") == ["/image", "/images"]
    assert offered("/") == [f"/{name}" for name in COMMANDS]
    assert offered("/help /to") == ["/tokens"]
    assert offered("/image my") == [r"my\ photo\ \(1\).png"]
    assert offered("/image 'my ph") == ["'my photo (1).png'"]
    assert offered("/image ") == ["hub/", r"my\ photo\ \(1\).png", "notes.txt", "pics/"]
    assert offered("look at ./pi") == ["./pics/"]
    assert offered("look at pi") == ["pics/"]
    assert offered("my") == [r"my\ photo\ \(1\).png"]
    assert offered("look at no") == [], "other files are no pictures"
    assert offered("/set temp") == ["temperature"]
    assert offered("/set layout ") == ["separate", "combined", "frames"]
    assert "InternVL3-14B-Instruct" in offered("/model intern")
    assert "me/Other-GGUF" in offered("/model m")
    assert offered("/model me/Other-GGUF:") == ["me/Other-GGUF:Q5_K_M"]
    sources = Sources(lambda: [("k7m", "A talk"), ("b2c", "")], lambda: "InternVL3-14B-Instruct:Q4_K_M")
    assert offered("/load k", sources) == ["k7m"]
    assert offered("/model :q4_k_m", sources) == [":Q4_K_M"]
    assert "InternVL3-14B-Instruct:Q4_K_XL" in suggest_models("InternVL3-14B-Instruct:Q4_K")
    assert offered("/help me ") == []
    assert offered("hello") == []


def test_show_says_where_the_model_runs(chat: Chat, talk: Callable[..., str]) -> None:
    """/help promised it; and "batches of 512" was not the --batch-size of 2048."""
    talk("/show")
    assert re.search(r"^  runs +on the CPU", recorder(chat).text, re.MULTILINE)
    assert re.search(r"^  encoder +(llama.cpp|openvino)", recorder(chat).text, re.MULTILINE)
    assert re.search(r"2,048 tokens a call, \d+ computed together", recorder(chat).text)


def test_a_second_ctrl_c_between_answer_and_prompt_leaves(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was taken for the first one of a question, or was lost, and the chat stayed."""

    def interrupted(prompt: str, was_stopped: bool) -> bool:
        chat.was_stopped = was_stopped
        raise KeyboardInterrupt

    monkeypatch.setattr(chat, "ask", lambda prompt: interrupted(prompt, False))
    assert Loop(chat, Chooser()).take("Talk.") == "Talk."
    monkeypatch.setattr(chat, "ask", lambda prompt: interrupted(prompt, True))
    with pytest.raises(LeaveChatAtOnce):
        Loop(chat, Chooser()).take("Talk.")
    task = Task()
    task.run(lambda: [Chunk("x")])
    task.post(Interrupt())
    assert [type(event) for event in task.events(1.0)] == [Chunk]
    assert [type(event) for event in task.unread()] == [Interrupt]
