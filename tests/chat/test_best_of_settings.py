"""What is set about several answers in the chat: the judge, how the answers differ, and asking them again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from internvl_gguf import Session
from internvl_gguf.chat.background_thread import BackgroundThread
from internvl_gguf.chat.chat import Chat
from internvl_gguf.chat.chat_model import FoundModel, Models
from internvl_gguf.chat.local_model import LocalModel
from internvl_gguf.chat.loop import Loop
from internvl_gguf.chat.settings import Settings
from internvl_gguf.cli.judges import check_judge
from internvl_gguf.config import SamplingParams
from internvl_gguf.history import History
from internvl_gguf.models.local_files import demo_files
from tests.chat.test_commands import Chooser, Recorder


@pytest.fixture
def chat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Chat]:
    """A chat with the demo model, and with the judges that the command has."""
    monkeypatch.chdir(tmp_path)
    worker = BackgroundThread()
    with (
        Session.open("demo", n_threads=1, n_ctx=1024, n_candidates=3) as session,
        History.open(tmp_path / "data") as history,
    ):
        current = LocalModel(session, demo_files(), "demo", check_critic=check_judge)
        found = FoundModel("demo", lambda: current)
        models = Models(lambda name: found)
        yield Chat(models, found, current, history, history.begin("demo"), Settings(), worker, Recorder())
        worker.close()


@pytest.fixture
def talk(chat: Chat) -> Callable[..., str]:
    """Take lines, and give what the editor begins with after the last."""
    loop = Loop(chat, Chooser())
    return lambda *lines: [loop.take(line) for line in lines][-1]


def recorder(chat: Chat) -> Recorder:
    assert isinstance(chat.screen, Recorder)
    return chat.screen


def test_a_judge_that_is_none_is_refused_when_it_is_set(chat: Chat, talk: Callable[..., str]) -> None:
    """`/set judge foo` said "judge is foo.", and every question failed until it was changed."""
    screen = recorder(chat)
    for name, why in (("foo", "There is no model 'foo'."), ("./no.gguf", "There is no file no.gguf.")):
        talk(f"/set judge {name}")
        assert screen.said[-2] == f"{name} is no judge: {why}"
        assert screen.said[-1].startswith("vote and certainty are judges, too. ")
        assert chat.settings.sampling.judge == "vote"
    talk("/set judge demo")
    assert screen.said[-1] == "judge is demo."
    for word in ("none", "default", "auto"):
        talk("/set judge certainty", f"/set judge {word}")
        assert screen.said[-1] == "judge is vote."
        assert "judge" not in chat.settings.chosen


def test_a_judge_of_a_settings_file_counts_when_several_are_asked_for(chat: Chat, talk: Callable[..., str]) -> None:
    chat.settings = Settings(SamplingParams(judge="foo"))
    talk("/set temperature 0.5")
    assert recorder(chat).said[-1] == "temperature is 0.5."
    talk("/set best_of 4")
    assert recorder(chat).said[-2] == "foo is no judge: There is no model 'foo'."
    assert chat.settings.sampling.best_of == 1


def test_unset_is_told_from_nothing(chat: Chat, talk: Callable[..., str]) -> None:
    """Both were "temperature is 0.0.", and the way out, "Leave it out", could not be typed."""
    screen = recorder(chat)
    talk("/set temperature")
    assert screen.said[-1] == "temperature is 0.0 (not set)."
    talk("/set best_of 8", "/set temperature")
    assert screen.said[-1] == "temperature is 0.0 for the first, 0.7 for the others (not set)."
    talk("/set top_p")
    assert screen.said[-1] == "top_p is 0.95 (not set)."
    thinks = Settings(SamplingParams(best_of=8, thinking=True))
    assert dict(thinks.rows())["temperature"] == "0.6 (not set)", "of all of them"
    talk("/set temperature 0")
    dead_end = screen.said[-2:]
    assert dead_end == [
        "With temperature 0 all 8 answers would be equal.",
        "/set temperature none leaves it open: the first answer is greedy then, and the others are sampled. "
        "/set best_of 1 asks for one.",
    ]
    talk("/set best_of 1", "/set temperature 0")
    assert screen.said[-1] == "temperature is 0.0."
    talk("/set best_of 8")
    assert screen.said[-2:] == dead_end, "the other way round"
    talk("/set temperature none", "/set best_of 8")
    assert screen.said[-2:] == ["temperature is 0.0 (not set).", "best_of is 8."]
    talk("/set top_k 1")
    assert screen.said[-2:] == [
        "With top_k 1 all 8 answers would be equal.",
        "/set top_k 40, its default, lets them differ. /set best_of 1 asks for one.",
    ]


def test_what_a_server_takes_for_an_open_setting_is_not_guessed() -> None:
    several = Settings(SamplingParams(best_of=8, top_p=0.9))
    rows = dict(several.rows(is_elsewhere=True))
    assert (rows["temperature"], rows["top_p"]) == ("the server's (not set)", "0.9")
    assert dict(Settings().rows(is_elsewhere=True))["temperature"] == "0.0 (not set)", "it is always sent"


def test_retry_draws_new_seeds_and_keeps_the_temperatures(chat: Chat, talk: Callable[..., str]) -> None:
    """All were sampled at 0.8, since "at 0 the answer would be the same"."""
    screen = recorder(chat)
    talk("/set best_of 3", "/set judge certainty", "/set seed 5", "/set max_tokens 4", "What is there?")

    def seeds() -> list[int]:
        assert chat.last_reply is not None
        assert chat.last_reply.selection is not None
        return [each.seed for each in chat.last_reply.selection.candidates if each.seed is not None]

    assert seeds() == [6, 7], "the first answer is greedy"
    screen.said.clear()
    talk("/retry")
    assert screen.said[0] == "Asked with new seeds for the 3 answers, at the usual temperatures."
    assert "at temperature" not in screen.text
    assert len(seeds()) == 2
    assert seeds() != [6, 7]
    assert chat.settings.sampling.seed == 5
    talk("/retry 0.9")
    assert len(seeds()) == 3, "all are sampled at a temperature that was typed"
    talk("/set best_of 1", "/retry")
    assert "Asked at temperature 0.8: at 0 the answer would be the same." in screen.said
