"""`internvl chat --url`: the chat with a model of a server, against one on 127.0.0.1 that answers as told."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import pytest
from PIL import Image

from internvl_gguf import Session
from internvl_gguf.chat.background_thread import BackgroundThread
from internvl_gguf.chat.chat import Chat
from internvl_gguf.chat.chat_model import Models
from internvl_gguf.chat.loop import Loop
from internvl_gguf.chat.remote.address import Address
from internvl_gguf.chat.remote.event_stream import LARGEST_EVENT, EventTooLargeError, event_data
from internvl_gguf.chat.remote.served_models import ServedModels
from internvl_gguf.chat.settings import Settings
from internvl_gguf.demo.__main__ import EXAMPLE
from internvl_gguf.errors import AnswerBrokenError, InvalidRequestError, ServerError
from internvl_gguf.history import History
from internvl_gguf.types import Chunk
from tests.chat.test_commands import Chooser, Recorder
from tests.support.chat_server import OURS, Answer, ChatServer
from tests.support.chat_terminal import CTRL_C, ENTER, PROMPT, ChatTerminal
from tests.support.pictures import noise

USAGE = {"prompt_tokens": 380, "completion_tokens": 2, "total_tokens": 382}
OUR_USAGE = {**USAGE, "prompt_tokens_details": {"cached_tokens": 17}, "images": 1, "tiles": 10, "tiles_encoded": 10}
TIMINGS = {"preprocess": 0.1, "encode": 1.0, "prefill": 2.0, "time_to_first_token": 3.5, "decode": 1.0}
MEASURED = {
    "object": "chat.completion.input_tokens",
    "input_tokens": 380,
    "context_length": 1024,
    "images": [{"width": 480, "height": 480, "grid": [3, 3], "thumbnail": True, "tiles": 10, "tokens": 360}],
}
Found = TypeVar("Found")
KEY = "sk-a-secret-key"


@pytest.fixture
def server() -> Iterator[ChatServer]:
    """Any OpenAI-compatible server, with two models."""
    with ChatServer("one", "two") as server:
        yield server


@pytest.fixture
def ours() -> Iterator[ChatServer]:
    """`internvl serve` with a model that is loaded."""
    with ChatServer({"id": "demo", **OURS}) as server:
        server.measured = Answer(document=MEASURED)
        server.answers = [Answer(["98"], last={"usage": OUR_USAGE, "timings": TIMINGS})]
        yield server


@pytest.fixture
def worker() -> Iterator[BackgroundThread]:
    worker = BackgroundThread()
    yield worker
    worker.close()


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    with History.open(tmp_path / "data") as history:
        yield history


@pytest.fixture
def begin(worker: BackgroundThread, history: History) -> Callable[..., Chat]:
    """Begin a chat with the first model of a server."""

    def chat(server: ChatServer | None, url: str = "", key: str | None = None) -> Chat:
        screen = Recorder()
        served = ServedModels.of(url or (server.url if server else ""), key, screen.say)
        found = served.first()
        models = Models(served.find, served.listed, served.known)
        conversation = history.begin(found.name)
        return Chat(models, found, found.open(), history, conversation, Settings(), worker, screen)

    return chat


def take(chat: Chat, *lines: str) -> str:
    """Take lines; what the editor begins with after the last."""
    loop, left = Loop(chat, Chooser()), ""
    for line in lines:
        left = loop.take(line)
    return left


def screen_of(chat: Chat) -> Recorder:
    assert isinstance(chat.screen, Recorder)
    return chat.screen


def pictures_of(body: Any) -> list[tuple[str, bytes]]:
    """Media type and bytes of the pictures of a request."""
    found = []
    for message in body["messages"]:
        for part in message["content"] if isinstance(message["content"], list) else []:
            if part["type"] == "image_url":
                head, _, data = part["image_url"]["url"].partition(";base64,")
                found.append((head.removeprefix("data:"), base64.b64decode(data, validate=True)))
    return found


def stopped_when_it_waits(server: ChatServer, chat: Chat, work: Callable[[], Found]) -> Found:
    """Do something that is stopped from another thread as soon as the server waits."""

    def stop() -> None:
        assert server.is_waiting.wait(10)
        chat.session.abort()

    stopper = threading.Thread(target=stop)
    stopper.start()
    try:
        return work()
    finally:
        stopper.join()


def test_an_answer_about_a_picture_and_the_next_one(server: ChatServer, begin: Callable[..., Chat]) -> None:
    server.answers = [
        Answer(["The number ", "is **98**."], last={"usage": USAGE}),
        Answer(["Red."], last={"usage": USAGE}),
    ]
    chat = begin(server)
    assert take(chat, f"What number is written? '{EXAMPLE}'", "What colour is the circle?") == ""
    assert screen_of(chat).answers == ["The number is **98**.", "Red."]
    first, second = (each.body for each in server.questions)
    assert pictures_of(first) == [("image/png", EXAMPLE.read_bytes())], "the file as it is"
    assert first["messages"][0]["content"][1] == {"type": "text", "text": "What number is written?"}
    assert [message["role"] for message in second["messages"]] == ["user", "assistant", "user"]
    assert second["messages"][0] == first["messages"][0], "all of it is sent again"
    assert second["messages"][1]["content"] == "The number is **98**."
    assert second["messages"][2]["content"] == "What colour is the circle?"
    added, status, _ = screen_of(chat).said
    assert added == "Added example.png."
    assert re.fullmatch(r"2 tokens · first after \S+ s( · .*tokens/s)?", status), "no context is guessed"


def test_a_strict_server_gets_no_field_that_openai_has_no_name_for(
    server: ChatServer, begin: Callable[..., Chat]
) -> None:
    chat = begin(server)
    take(chat, "Hello", "/set top_k 40", "/set penalty_last_n 32", "/set stop x", "Hello", "/set stop none", "Hello")
    plain, chosen, last = (each.body for each in server.questions)
    assert set(plain) == {"model", "messages", "stream", "stream_options", "max_tokens", "temperature", "top_p"}
    assert (chosen["top_k"], chosen["repeat_last_n"], chosen["stop"]) == (40, 32, ["x"])
    assert "stop" not in last


@pytest.mark.parametrize(("name", "sent"), [("GIF", "gif"), ("WEBP", "webp"), ("JPEG", "jpeg"), ("TIFF", None)])
def test_the_file_is_sent_as_it_is_where_every_server_reads_its_format(
    server: ChatServer, begin: Callable[..., Chat], tmp_path: Path, name: str, sent: str | None
) -> None:
    picture, path = noise(3, 40, 30), tmp_path / "picture"
    picture.save(path, name)
    take(begin(server), f"/image {path}", "What is it?")
    ((media_type, data),) = pictures_of(server.questions[0].body)
    if sent is None:
        assert media_type == "image/png"
        assert Image.open(BytesIO(data)).convert("RGB").tobytes() == picture.convert("RGB").tobytes()
    else:
        assert (media_type, data) == (f"image/{sent}", path.read_bytes())


def test_pictures_stand_where_the_prompt_has_places_for_them(
    server: ChatServer, begin: Callable[..., Chat], tmp_path: Path
) -> None:
    noise(1).save(tmp_path / "a.png")
    noise(2).save(tmp_path / "b.png")
    chat = begin(server)
    take(chat, f"/image {tmp_path / 'a.png'} {tmp_path / 'b.png'}", "Is <image> like <image>?")
    parts = server.questions[0].body["messages"][0]["content"]
    assert [part.get("text", "-") for part in parts] == ["Is ", "-", " like ", "-", "?"]
    take(chat, f"/image {tmp_path / 'a.png'}", "<image> <image>")
    assert "2 <image> places for 1 pictures" in screen_of(chat).text


def test_what_our_server_says_is_shown(ours: ChatServer, begin: Callable[..., Chat]) -> None:
    chat = begin(ours)
    progress = [
        {"choices": [], "progress": {"phase": phase, "done": done, "total": total}}
        for phase, done, total in (("queued", 2, 3), ("loading", 1, 2), ("encoding", 3, 10), ("reading", 100, 380))
    ]
    ours.answers = [
        Answer(
            ["98"], before=progress, last={"usage": OUR_USAGE, "timings": TIMINGS, "notices": ["Cut\x1b[2J smaller."]}
        )
    ]
    take(chat, f"'{EXAMPLE}' What number is written?", "/tokens", "/stats", "/images", "/show", "/model")
    screen = screen_of(chat)
    assert screen.said[0] == "Added example.png: 3x3 tiles + thumbnail, 360 tokens; 644 of 1,024 left"
    assert screen.said[1] == "Cut\\x1b[2J smaller.", "nothing that a terminal obeys"
    assert re.fullmatch(r"10 tiles read · 2 tokens · first after .* s · 382 of 1,024 used", screen.said[2])
    assert "Looking at the picture: tile 4 of 10" in screen.phases
    assert "Reading the question: 100 of 380 tokens" in screen.phases
    assert "The server loads the model: 50%" in screen.phases
    assert "380 tokens: 17 known, 363 read" in screen.text
    assert "encoding tiles" in screen.text
    assert "642 of 1,024 tokens are free." in screen.text
    assert "  1  example.png: 480 x 480 pixels" in screen.said, "it was cut otherwise than measured"
    assert f"{ours.url} (internvl serve)" in screen.text
    assert ours.questions[0].body["return_progress"] is True
    measured = [each.body for each in ours.asked if each.path.endswith("input_tokens")]
    assert len(measured) == 1, "each picture once"


def test_the_context_of_a_conversation_that_was_changed_is_asked_for(
    ours: ChatServer, begin: Callable[..., Chat]
) -> None:
    chat = begin(ours)
    take(chat, f"'{EXAMPLE}' What number is written?", "Hello", "/drop 3")
    assert "Dropped; 644 of 1,024 tokens are free. The history keeps it." in screen_of(chat).said
    measured = [each.body for each in ours.asked if each.path.endswith("input_tokens")]
    assert [message["role"] for message in measured[-1]["messages"]] == ["user", "assistant"]
    take(chat, "/images")
    assert screen_of(chat).said[-1] == "  1  example.png: 3x3 tiles + thumbnail, 360 tokens"


def test_a_full_context_of_our_server_offers_what_to_drop(ours: ChatServer, begin: Callable[..., Chat]) -> None:
    full = {
        "message": "It does not fit. Ask for less.",
        "hint": "Ask for less.",
        "code": "context_length_exceeded",
        "needed": 1100,
        "available": 1024,
        "max_tiles": 3,
    }
    chat = begin(ours)
    take(chat, "Hello")
    ours.answers = [Answer(status=400, document={"error": full}), Answer(["Yes."])]
    assert Loop(chat, Chooser("1")).take("And now?") == ""
    assert "It does not fit. 76 tokens are missing." in screen_of(chat).said
    assert screen_of(chat).answers == ["98", "Yes."]
    assert len(ours.questions[-1].body["messages"]) == 1


def test_taking_back_and_changing_the_system_message(server: ChatServer, begin: Callable[..., Chat]) -> None:
    chat = begin(server)
    take(chat, "/system Be brief.", f"'{EXAMPLE}' What is it?", "Hello", "/undo")
    assert take(chat, "/edit") == "What is it?"
    assert [each.label for each in chat.pending] == ["example.png"]
    take(chat, "What number?", "/regen", "/system none", "/system default", "Hello")
    first, again = server.questions[0].body["messages"], server.questions[3].body
    assert first[0] == {"role": "system", "content": "Be brief."}
    assert (again["temperature"], len(again["messages"])) == (0.8, 2)
    assert [message["role"] for message in server.questions[-1].body["messages"]] == ["user", "assistant", "user"]
    take(chat, "/clear", "Hello")
    assert [message["role"] for message in server.questions[-1].body["messages"]] == ["user"]


def test_the_models_of_the_server(server: ChatServer, begin: Callable[..., Chat]) -> None:
    chat = begin(server)
    take(chat, "Hello", "/model", "/model two", "Hello", "/model :Q8_0")
    assert screen_of(chat).said[1:4] == ["* one", "  two", "The model is one."]
    assert [each.body["model"] for each in server.questions] == ["one", "two"]
    assert len(server.questions[1].body["messages"]) == 3, "the conversation stays"
    assert screen_of(chat).said[-2:] == [f"The server at {server.url} has no model two:Q8_0.", "It has one, two."]
    assert chat.model == "two"
    assert chat.conversation.model == "two"


def test_stopping_closes_the_connection_and_keeps_what_was_said(server: ChatServer, begin: Callable[..., Chat]) -> None:
    server.answers = [Answer(["Once ", "upon"], ends="waits")]
    chat = begin(server)
    stream = chat.session.stream("Tell me a story.")
    pieces: list[Chunk] = [next(stream), next(stream)]
    pieces += stopped_when_it_waits(server, chat, lambda: list(stream))
    assert server.has_left.wait(10)
    assert pieces[-1].reply is not None
    assert pieces[-1].reply.finish_reason == "aborted"
    assert [message.text for message in chat.session.messages] == ["Tell me a story.", "Once upon"]


def test_an_answer_is_stopped_before_it_begins(server: ChatServer, begin: Callable[..., Chat]) -> None:
    server.answers = [Answer(ends="waits")]
    chat = begin(server)
    assert stopped_when_it_waits(server, chat, lambda: take(chat, "Tell me a story.")) == "Tell me a story."
    assert server.has_left.wait(10)
    assert chat.session.messages == ()
    assert chat.conversation.entries == ()


@pytest.mark.parametrize("ends", ["cut", "error"])
def test_an_answer_that_breaks_off_is_kept_as_far_as_it_came(
    server: ChatServer, begin: Callable[..., Chat], ends: str
) -> None:
    server.answers = [Answer(["Once ", "upon"], ends=ends), Answer(["a time."])]
    chat = begin(server)
    assert take(chat, "Tell me a story.") == "", "the question is asked"
    assert screen_of(chat).said[0].startswith("The answer broke off: ")
    assert screen_of(chat).said[1] == "What came of it is kept; /regen asks again."
    assert chat.broken_answers == 1
    assert [entry.text for entry in chat.conversation.entries] == ["Tell me a story.", "Once upon"]
    take(chat, "Go on.")
    assert server.questions[1].body["messages"][1] == {"role": "assistant", "content": "Once upon"}
    server.answers = [Answer(ends=ends)]
    assert take(chat, "Hello") == "Hello", "without an answer it is not asked"
    assert len(chat.conversation.entries) == 4


def test_a_conversation_is_resumed(server: ChatServer, begin: Callable[..., Chat], tmp_path: Path) -> None:
    chat = begin(server)
    take(chat, "/system Be brief.", f"'{EXAMPLE}' What number is written?")
    chat.keep_state()
    again = begin(server)
    take(again, f"/load {chat.conversation.id}", "And the colour?")
    body = server.questions[-1].body
    assert [message["role"] for message in body["messages"]] == ["system", "user", "assistant", "user"]
    assert pictures_of(body) == [("image/png", EXAMPLE.read_bytes())]
    take(again, f"'{EXAMPLE}' What number?")
    assert screen_of(again).said[-2].startswith("example.png is in the conversation already (picture 1)")
    take(again, f"/save {tmp_path / 'talk.json'}", "/clear", f"/load {tmp_path / 'talk.json'}", "Hello")
    assert len(server.questions[-1].body["messages"]) == 8
    assert KEY not in (tmp_path / "talk.json").read_text()


REFUSALS = [
    (Answer(status=401, document={"error": {"message": "no"}}), "wants an API key.", "--api-key"),
    (
        Answer(status=404, document={"error": {"message": "no such model", "code": "model_not_found"}}),
        "has no model one.",
        "/model lists",
    ),
    (Answer(status=404, document="<html>Not found</html>"), "is no OpenAI-compatible server", "http://HOST:PORT"),
    (
        Answer(status=400, document={"error": {"message": "top_p is 7. Use 0 to 1.", "hint": "Use 0 to 1."}}),
        "The server refuses: top_p is 7.",
        "Use 0 to 1.",
    ),
    (Answer(status=413, document={"error": {"message": "too large"}}), "so large: too large.", "smaller pictures"),
    (
        Answer(status=400, document={"message": "maximum context length is 4096 tokens", "object": "error"}),
        "maximum context length is 4096 tokens.",
        "/drop",
    ),
    (
        Answer(status=503, document={"error": {"message": "Loading."}}, headers={"Retry-After": "7"}),
        "is busy: Loading.",
        "Ask again in 7 s.",
    ),
    (Answer(status=500, document={"error": "\x1b[31mbroken"}), "refuses: \\x1b[31mbroken.", "look at"),
    (Answer(status=502, document="<html>"), "fails (status 502).", "Look at the server"),
    (
        Answer(status=403, document={"error": {"message": "No such host. Name it.", "hint": "Name it."}}),
        "No such host.",
        "Name it.",
    ),
    (Answer(status=302, document={}, headers={"Location": "http://else"}), "sends on to http://else.", "--url"),
    (Answer(document={"answer": 1}), "something else than a stream", "http://HOST:PORT"),
    (Answer(raw=b"data: nothing\n\n"), "no JSON object", "http://HOST:PORT"),
    (Answer(raw=b"data: " + b"x" * (LARGEST_EVENT + 9)), "more than a piece", "Look at the server"),
    (Answer(raw=b""), "ended the answer in the middle", "Ask again"),
]


@pytest.mark.parametrize(
    ("answer", "message", "hint"), REFUSALS, ids=lambda each: each if isinstance(each, str) else ""
)
def test_a_refusal_says_what_happened_and_what_to_do(
    server: ChatServer, begin: Callable[..., Chat], answer: Answer, message: str, hint: str
) -> None:
    server.answers = [answer]
    chat = begin(server)
    assert take(chat, "Hello") == "Hello"
    said = screen_of(chat).said
    assert len(said) == 2
    assert message in said[0]
    assert hint in said[1]
    assert chat.session.messages == ()


@pytest.mark.parametrize(
    "answer",
    [
        Answer(status=404, document="<html>"),
        Answer(document="<html>"),
        Answer(document=[]),
        Answer(document={"data": 1}),
    ],
)
def test_an_address_of_something_else(server: ChatServer, answer: Answer) -> None:
    server.models_answer = answer
    with pytest.raises(ServerError, match="is no OpenAI-compatible server"):
        ServedModels.of(server.url, None, print)


def test_a_list_that_names_nothing_usable(server: ChatServer) -> None:
    server.models = [{"id": "a\x1b[2J"}, {"id": ""}, {"id": 3}, {"id": "x" * 1000}]
    with pytest.raises(ServerError, match="lists no model"):
        ServedModels.of(server.url, None, print).first()


def test_nobody_listens_or_speaks_another_protocol(server: ChatServer) -> None:
    with pytest.raises(ServerError, match="does not speak TLS"):
        ServedModels.of(server.url.replace("http:", "https:"), None, print)
    with ChatServer() as gone:
        pass
    with pytest.raises(ServerError, match="Nobody listens at"):
        ServedModels.of(gone.url, None, print)
    with pytest.raises(ServerError, match="cannot be found"):
        ServedModels.of("http://nowhere.invalid:1", None, print)


@pytest.mark.parametrize(
    ("typed", "url"),
    [
        ("http://h:1", "http://h:1"),
        (" http://h:1/v1/ ", "http://h:1"),
        ("https://h/llm/v1", "https://h/llm"),
        ("http://[::1]:8080/v1/chat/completions", "http://[::1]:8080"),
    ],
)
def test_addresses(typed: str, url: str) -> None:
    assert Address.of(typed).url == url


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("localhost:8080", "without http://"),
        ("myhost", "without http://"),
        ("ftp://h", "no address"),
        ("http://", "no address"),
        ("http://h:99999", "no address"),
        ("http://me:secret@h", "a name or a password"),
        ("http://h?x=1", "after a"),
    ],
)
def test_what_is_no_address(typed: str, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message) as error:
        Address.of(typed)
    assert "secret" not in str(error.value)


def test_the_key_is_sent_in_the_header_and_stands_nowhere_else(
    server: ChatServer, begin: Callable[..., Chat], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    server.answers = [Answer(["Yes."]), Answer(status=401, document={"error": {"message": f"{KEY[:3]}... is wrong"}})]
    chat = begin(server, f"{server.url}/v1", KEY)
    take(chat, "Hello", "/show", "Hello", "/stats")
    assert {each.headers["authorization"] for each in server.asked} == {f"Bearer {KEY}"}
    assert {each.path for each in server.asked} == {"/v1/models", "/v1/chat/completions"}
    assert "does not accept this API key" in screen_of(chat).text
    assert KEY not in screen_of(chat).text + caplog.text + repr(vars(chat)) + repr(Address.of(server.url, KEY))
    assert not any(KEY.encode() in path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file())
    with pytest.raises(InvalidRequestError, match="characters that no key has") as error:
        Address.of(server.url, f"{KEY}\r\nX-Other: 1")
    assert KEY not in str(error.value)


def test_a_key_in_clear_text_is_warned_of() -> None:
    assert "in clear text" in (Address.of("http://example.org", KEY).clear_text_notice or "")
    for url, key in (
        ("https://example.org", KEY),
        ("http://127.0.0.1:1", KEY),
        ("http://[::1]:1", KEY),
        ("http://a", None),
    ):
        assert Address.of(url, key).clear_text_notice is None


def test_a_proxy_does_not_stand_before_this_machine(
    server: ChatServer, begin: Callable[..., Chat], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    chat = begin(server)
    take(chat, "Hello")
    assert screen_of(chat).answers == ["Yes."]


def test_a_proxy_that_leads_nowhere_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("http_proxy", raising=False)
    with pytest.raises(ServerError, match="The proxy of HTTP_PROXY does not lead to"):
        ServedModels.of("http://elsewhere.invalid", None, print)


def test_a_conversation_goes_on_with_a_model_here_and_back(
    server: ChatServer, begin: Callable[..., Chat], history: History
) -> None:
    chat = begin(server)
    take(chat, f"'{EXAMPLE}' What number is written?")
    with Session.open("demo", n_threads=1, n_ctx=1024) as session:
        conversation = history.find(chat.conversation.id)
        conversation.continue_in(session)
        assert session.messages[1].pictures[0].grid == (3, 3), "cut as a question cuts it"
        chunks = list(conversation.stream(session, "What colour is the circle?"))
        assert chunks[-1].reply is not None
        assert chunks[-1].reply.text == "Red."
    take(chat, f"/load {chat.conversation.id}", "Hello")
    body = server.questions[-1].body
    assert [message["role"] for message in body["messages"]] == ["user", "assistant"] * 2 + ["user"]
    assert pictures_of(body) == [("image/png", EXAMPLE.read_bytes())]


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_events_are_read_however_they_are_cut(size: int, end: str) -> None:
    text = end.join([": ping", "", "event: x", "data: {", "data:  1}", "", "id: 3", "", "data: grün", "", "data: last"])
    data = text.encode()
    assert list(event_data(data[at : at + size] for at in range(0, len(data), size))) == ["{\n 1}", "grün", "last"]


def test_an_event_of_many_lines_has_an_end() -> None:
    with pytest.raises(EventTooLargeError):
        list(event_data([b"data: " + b"x" * 1000 + b"\n"] * (LARGEST_EVENT // 1000)))


def test_half_a_character_and_wrong_numbers_do_no_harm(server: ChatServer, begin: Callable[..., Chat]) -> None:
    usage = {
        "prompt_tokens": -1,
        "completion_tokens": "many",
        "prompt_tokens_details": [],
        "tiles": 1e300,
        "images": True,
    }
    server.answers = [Answer(["a\ud83d", "b\ude00"], last={"usage": usage, "timings": 3, "notices": {}})]
    chat = begin(server)
    take(chat, "Hello", "/stats")
    assert screen_of(chat).answers == ["a\ufffdb\ufffd"]
    assert chat.conversation.entries[-1].text == "a\ufffdb\ufffd"


def test_in_a_terminal_ctrl_c_ends_the_answer_at_the_server(
    server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INTERNVL_DATA", str(tmp_path / "data"))
    server.answers = [Answer(["Once upon a time"], ends="waits"), Answer(["**Yes.**"], last={"usage": USAGE})]
    with ChatTerminal("--url", server.url, EXAMPLE, "--no-preview", folder=tmp_path, INTERNVL_API_KEY=KEY) as terminal:
        terminal.wait(PROMPT)
        assert f"one at {server.url}. Drop" in " ".join(terminal.text.split())
        terminal.type("Tell me a story.", ENTER)
        terminal.wait("Once upon a time")
        terminal.type(CTRL_C)
        terminal.wait("Stopped; what was said is kept.")
        assert server.has_left.wait(10)
        terminal.do("Is it true?", r"^Yes\.$")
        assert terminal.leave() == 0
    with ChatTerminal("--url", f"{server.url}/v1", "--continue", "-m", "two", folder=tmp_path) as terminal:
        terminal.do("Again?", r"^Yes\.$", times=2)
        assert terminal.leave() == 0
    first, _, last = server.questions
    assert pictures_of(first.body) == [("image/png", EXAMPLE.read_bytes())]
    assert [message["role"] for message in last.body["messages"]] == ["user", "assistant"] * 2 + ["user"]
    assert (first.headers["authorization"], last.headers.get("authorization")) == (f"Bearer {KEY}", None)
    assert last.body["model"] == "two"


def test_from_a_pipe_nothing_of_llama_cpp_is_loaded(server: ChatServer, tmp_path: Path) -> None:
    server.answers = [Answer(["Yes."]), Answer(["No"], ends="cut")]
    script = (
        f"import sys; sys.argv[1:] = ['chat', '--url', {server.url!r}, '--no-history']\n"
        "sys.argv += ['--system', 'Be brief.', '--top-k', '40']\n"
        "from internvl_gguf.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    print(end.code)\n"
        "print(*{'llama_cpp', 'huggingface_hub'} & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], input="One\nTwo\n", capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stdout.split("\n") == ["Yes.", "No", "1", "", ""]
    assert "The answer broke off" in done.stderr
    assert [each.body["messages"][0]["content"] for each in server.questions] == ["Be brief."] * 2
    assert server.questions[0].body["top_k"] == 40, "given, though it is the default here"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--url", "http://127.0.0.1:9", "--n-ctx", "99"], "--n-ctx says how a model is loaded here"),
        (["--url", "http://127.0.0.1:9", "--mmproj", "BF16"], "--mmproj says how"),
        (["--api-key", KEY], "there is no --url"),
    ],
)
def test_options_that_do_not_go_together(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "internvl_gguf", "chat", *arguments], capture_output=True, text=True, cwd=tmp_path,
        stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert message in done.stderr
    assert KEY not in done.stderr


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[str]:
    """The address of `internvl serve demo` with a small context."""
    pytest.importorskip("starlette")
    pytest.importorskip("uvicorn")
    command = [
        sys.executable,
        "-m",
        "internvl_gguf",
        "serve",
        "demo",
        "--port",
        "0",
        "--n-ctx",
        "600",
        "--threads",
        "1",
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stderr is not None
        try:
            address = re.search(r"http://[\d.:]+", process.stderr.readline())
            assert address
            assert "is loaded" in process.stderr.readline()
            yield address[0]
        finally:
            process.terminate()
            process.communicate()


def test_a_chat_with_our_own_server(serve: str, begin: Callable[..., Chat]) -> None:
    chat = begin(None, f"{serve}/v1")
    screen = screen_of(chat)
    take(chat, f"'{EXAMPLE}' What number is written?", "What colour is the circle?", "/images")
    assert screen.answers == ["98", "Red."]
    assert re.fullmatch(r"Added example.png: 3x3 tiles \+ thumbnail, 360 tokens; 2\d\d of 600 left", screen.said[0])
    assert re.fullmatch(r"10 tiles \w+ · 2 tokens · first after .* of 600 used", screen.said[1])
    assert screen.said[3] == "  1  example.png: 3x3 tiles + thumbnail, 360 tokens"
    assert chat.last_reply is not None
    assert chat.last_reply.usage.cached_tokens > 380, "the server goes on with what it knows"
    take(chat, f"/image {EXAMPLE}", "/set fit_pictures off")
    assert Loop(chat, Chooser("1")).take("What do you see?") == ""
    assert "tokens are missing." in screen.text
    assert screen.answers[-1].startswith("A red circle")
    assert Loop(chat, Chooser("")).take("word " * 900) == "word " * 900
    assert screen.said[-1] == "What helps: /drop for parts of the conversation, /clear for a new one."
    take(chat, "/system none", "/clear", "Hello", "/undo", "/set seed 3", "/regen")
    assert chat.last_reply.finish_reason == "stop"


def test_the_error_of_a_broken_answer_keeps_its_kind(server: ChatServer, begin: Callable[..., Chat]) -> None:
    server.answers = [Answer(["Once"], ends="cut")]
    with pytest.raises(AnswerBrokenError, match=r"in the middle|closed the connection"):
        list(begin(server).session.stream("Tell me a story."))


def test_boxes_that_a_server_answers_are_read_from_its_text(
    server: ChatServer, begin: Callable[..., Chat], tmp_path: Path
) -> None:
    """Tags are control tokens, which servers leave out of the text."""
    Image.new("RGB", (400, 600)).save(tmp_path / "photo.png")
    server.answers = [Answer(["red car", "[[100, 200, ", "500, 900]]"])]
    chat = begin(server)
    take(chat, f"{tmp_path / 'photo.png'} Where is the car?", f"/boxes {tmp_path / 'drawn.png'}", "/boxes")
    assert chat.last_reply is not None
    (box,) = chat.last_reply.boxes
    assert (box.label, box.xyxy, box.confidence) == ("red car", (40.0, 120.0, 200.0, 540.0), None)
    assert Image.open(tmp_path / "drawn.png").size == (400, 600)
    assert "red car: 40, 120 to 200, 540 (no tags)" in screen_of(chat).text


def test_a_model_of_our_server_that_cannot_think_refuses_at_once(begin: Callable[..., Chat], tmp_path: Path) -> None:
    with ChatServer({"id": "demo", **OURS, "can_think": False}, {"id": "new", **OURS, "can_think": True}) as server:
        chat = begin(server)
        take(chat, "/think on")
        error, hint = screen_of(chat).said[-2:]
        assert error.startswith("demo cannot think")
        assert "/think auto" in hint
        assert not chat.settings.sampling.thinks
        take(chat, "/model new", "/think on")
        assert screen_of(chat).said[-1] == "The model thinks before it answers."
        with ChatTerminal("--url", server.url, "--think", folder=tmp_path, columns=100) as terminal:
            terminal.wait("demo cannot think: there is no <think> in the vocabulary")
            assert terminal.leave() == 1
        assert not any(each.path.endswith("/completions") for each in server.asked)
