"""The process of a model dies at the worst moments: that costs the running question and nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from internvl_gguf import LibraryError, ModelFileError, Question, Reply, SamplingParams, Session, WorkerDiedError
from internvl_gguf.history import History
from internvl_gguf.models.local_files import demo_files
from internvl_gguf.models.resolve import ModelFiles
from internvl_gguf.utils.process_end import describe_end, signal_name
from tests.session.test_worker import PATIENCE, SHORT
from tests.support.chat_terminal import CTRL_U, ChatTerminal
from tests.support.exact import EXACT, EXACT_WITH_DISK_CACHE
from tests.support.pictures import noise
from tests.support.sessions import worker_pid

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are what ends these processes")
LONG = SamplingParams(max_tokens=900)
EXAMPLE = Path(__file__).parents[2] / "src" / "internvl_gguf" / "demo" / "example.png"


@pytest.fixture
def notices() -> list[str]:
    return []


@pytest.fixture
def far(tiny: ModelFiles, notices: list[str]) -> Iterator[Session]:
    with Session.open(
        tiny.text, tiny.mmproj, worker=True, on_notice=notices.append, system="Be brief.", n_ctx=1024, **EXACT
    ) as opened:
        yield opened


def kill(session: Session, number: int = signal.SIGKILL) -> None:
    os.kill(worker_pid(session), number)


def workers_of(owner: psutil.Process) -> list[psutil.Process]:
    """The processes of models that a process has started and that are alive."""
    found = []
    for process in owner.children():
        with contextlib.suppress(psutil.Error):  # it has ended since
            if "internvl_gguf.session.worker.child_main" in process.cmdline():
                found.append(process)
    return found


def before_the_first_token(session: Session) -> None:
    stream = session.stream("Left?", sampling=LONG)
    kill(session)
    list(stream)


def in_the_middle_of_an_answer(session: Session) -> None:
    stream = session.stream("Left?", sampling=LONG)
    assert next(stream).text
    kill(session)
    list(stream)


def while_encoding(session: Session) -> None:
    def at_the_third_tile(done: int, total: int) -> None:
        if done == 3:
            kill(session)

    session.on_tiles(at_the_third_tile)
    try:
        session.ask("Left?", [noise(2)], sampling=SHORT)
    finally:
        session.on_tiles(None)


def while_logits_are_made(session: Session) -> None:
    session.on_tiles(lambda done, total: kill(session))
    try:
        session.next_token_logprobs("Left?", [noise(3)])
    finally:
        session.on_tiles(None)


@pytest.mark.parametrize(
    "die", [before_the_first_token, in_the_middle_of_an_answer, while_encoding, while_logits_are_made]
)
def test_a_death_costs_the_question_and_nothing_else(
    session: Session, far: Session, notices: list[str], die: Callable[[Session], None]
) -> None:
    for each in (session, far):
        each.ask("What is it?", [noise(1)], sampling=SHORT)
    before = far.messages
    with pytest.raises(WorkerDiedError, match="SIGKILL") as caught:
        die(far)
    assert isinstance(caught.value, LibraryError)
    assert "ask again" in caught.value.hint
    assert far.messages == before
    there = far.ask("And now?", sampling=SHORT)
    assert there.text == session.ask("And now?", sampling=SHORT).text
    assert far.messages[1:3] == session.messages[1:3]
    assert notices == [line for line in notices if line.startswith("The model is loaded again: its process was killed")]
    assert len(notices) == 1


def test_a_death_while_idle_costs_nothing(session: Session, far: Session, notices: list[str]) -> None:
    first = far.ask("What is it?", [noise(1)], sampling=SHORT)
    kill(far)
    second = far.ask("And now?", sampling=SHORT)
    assert first.text == session.ask("What is it?", [noise(1)], sampling=SHORT).text
    assert second.text == session.ask("And now?", sampling=SHORT).text
    assert len(notices) == 1


def test_what_was_encoded_before_a_death_is_not_encoded_again(tiny: ModelFiles) -> None:
    with Session.open(
        tiny.text, tiny.mmproj, worker=True, system="Be brief.", n_ctx=1024, **EXACT_WITH_DISK_CACHE
    ) as far:
        assert far.ask("What is it?", [noise(1)], sampling=SHORT).usage.tiles_encoded == 13
        far.save(Path(os.environ["INTERNVL_DATA"]) / "any.session")  # a turn after the writing thread's
        kill(far)
        reply = far.ask("And now?", sampling=SHORT)
        assert reply.usage.cached_tokens == 0
        assert reply.usage.tiles_encoded <= 13
        assert far.ask("And then?", sampling=SHORT).usage.tiles_encoded == 0


def test_two_deaths_in_a_row_cost_two_questions(far: Session) -> None:
    for _ in range(2):
        with pytest.raises(WorkerDiedError):
            in_the_middle_of_an_answer(far)
    assert far.ask("What is it?", sampling=SHORT).text


@pytest.mark.parametrize("number", [signal.SIGILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS])
def test_an_error_names_what_killed_it(far: Session, number: signal.Signals) -> None:
    stream = far.stream("Talk.", sampling=LONG)
    next(stream)
    kill(far, number)
    with pytest.raises(WorkerDiedError, match=number.name):
        list(stream)


def test_a_death_while_loading_is_an_error(tiny: ModelFiles) -> None:
    """It is killed as soon as it is there: progress of a tiny model may come when all of it is loaded."""
    this = psutil.Process()

    def kill_it() -> None:
        while not (found := workers_of(this)):
            pass
        found[0].kill()

    killer = threading.Thread(target=kill_it, daemon=True)
    killer.start()
    with pytest.raises(WorkerDiedError, match=r"SIGKILL.* while the model was loaded"):
        Session.open(tiny.text, tiny.mmproj, worker=True, system="Be brief.", n_ctx=1024, **EXACT)
    killer.join()


def test_a_process_that_hangs_is_ended_and_started_again(tiny: ModelFiles) -> None:
    """A driver that never returns looks like a process that was stopped."""
    with Session.open(
        tiny.text, tiny.mmproj, worker=True, worker_timeout=1.5, system="Be brief.", n_ctx=1024, **EXACT
    ) as far:
        stream = far.stream("Talk.", sampling=LONG)
        next(stream)
        kill(far, signal.SIGSTOP)
        with pytest.raises(WorkerDiedError, match=r"no sign of life for 1\.5 seconds") as caught:
            list(stream)
        assert "--worker-timeout" in caught.value.hint
        assert far.ask("What is it?", sampling=SHORT).text


def test_a_model_that_is_gone_cannot_be_loaded_again(tiny: ModelFiles, tmp_path: Path) -> None:
    text = tmp_path / "text.gguf"
    text.write_bytes(tiny.text.read_bytes())
    with Session.open(text, tiny.mmproj, worker=True, system="Be brief.", n_ctx=1024, **EXACT) as far:
        far.ask("What is it?", sampling=SHORT)
        before = far.messages
        kill(far)
        text.rename(tmp_path / "moved.gguf")
        with pytest.raises(ModelFileError, match=r"text\.gguf"):
            far.ask("And now?", sampling=SHORT)
        (tmp_path / "moved.gguf").rename(text)
        assert far.messages == before
        assert far.ask("And now?", sampling=SHORT).text


class DeadlyPath:
    """The path of a picture that kills the worker whenever it is read."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __fspath__(self) -> str:
        kill(self._session)
        return str(EXAMPLE)


def test_a_batch_goes_on_and_a_question_that_kills_twice_is_its_own_error(session: Session, far: Session) -> None:
    prompts = ["One?", "Two?", "Three?", "Four?", "Five?"]
    questions = [Question(prompt) for prompt in prompts]
    questions.insert(2, Question("Deadly?", [DeadlyPath(far)]))
    outcomes = far.batch(questions, sampling=SHORT)
    deadly = outcomes.pop(2)
    assert isinstance(deadly, WorkerDiedError)
    assert "twice with this question" in deadly.message
    expected = session.batch(prompts, sampling=SHORT)
    assert [outcome.text for outcome in outcomes if isinstance(outcome, Reply)] == [reply.text for reply in expected]


def test_answers_under_way_together_are_asked_again_one_by_one(tiny: ModelFiles, session: Session) -> None:
    """The process does not say which of them it died of."""
    killed: list[int] = []
    with Session.open(
        tiny.text, tiny.mmproj, worker=True, n_parallel=3, system="Be brief.", n_ctx=1024, **EXACT
    ) as far:

        def once(done: int, total: int) -> None:
            if done == 2 and not killed:
                killed.append(worker_pid(far))
                kill(far)

        far.on_tiles(once)
        questions = [Question("What is it?", [noise(seed)]) for seed in range(5)]
        outcomes = far.batch(questions, sampling=SHORT)
    assert len(killed) == 1
    expected = session.batch(questions, sampling=SHORT)
    assert [outcome.text for outcome in outcomes if isinstance(outcome, Reply)] == [reply.text for reply in expected]


OWNER = """
import os, sys, time
from internvl_gguf import SamplingParams, Session
session = Session.open("demo", worker=True, n_threads=1)
{before}
print(session.runtime.pid, flush=True)
{then}
"""


@pytest.mark.parametrize(
    ("before", "then"),
    [
        ("", "sys.stdin.read()"),
        ("", "for _ in range(1000): session.ask('Talk.', sampling=SamplingParams(temperature=9.0, seed=1)).text"),
        # A forked child of the owner holds the pipe open after its death.
        ("child = os.fork()\nif child == 0: sys.stdin.read(); os._exit(0)", "sys.stdin.read()"),
    ],
    ids=["idle", "answering", "with a forked child"],
)
def test_no_worker_outlives_its_owner(before: str, then: str) -> None:
    script = OWNER.format(before=before, then=then)
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        worker = psutil.Process(int(owner.stdout.readline()))
        owner.kill()
        worker.wait(PATIENCE)
        assert not worker.is_running()


def test_a_batch_file_is_answered_whole_though_its_worker_is_killed(tmp_path: Path) -> None:
    lines = [{"prompt": "What number is written?", "images": [str(EXAMPLE)], "id": number} for number in range(6)]
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps(line) + "\n" for line in lines))
    output = tmp_path / "answers.jsonl"
    command = [sys.executable, "-m", "internvl_gguf", "ask", "demo", "--batch", str(questions), "-t", "1"]
    with subprocess.Popen([*command, "--output", str(output)], stderr=subprocess.PIPE, text=True) as process:
        owner = psutil.Process(process.pid)
        killed = False
        while not killed and process.poll() is None:
            workers = workers_of(owner)
            if workers and output.exists() and output.stat().st_size:
                workers[0].kill()
                killed = True
        _, errors = process.communicate(timeout=PATIENCE)
    answers = [json.loads(line) for line in output.read_text().splitlines()]
    assert process.returncode == 0, errors
    assert [answer["id"] for answer in answers] == list(range(6))
    assert {answer["text"] for answer in answers} == {"98"}


def test_killed_in_the_middle_of_a_chat_answer_costs_that_answer(tmp_path: Path) -> None:
    """The chat lives, says what happened, gives the line back, and answers the next question."""
    babble = {"temperature": "1e6", "top_k": "0", "top_p": "1", "seed": "3", "max_tokens": "7000"}
    with ChatTerminal("demo", "-t", "1", str(EXAMPLE), folder=tmp_path, INTERNVL_DATA=str(tmp_path)) as chat:
        chat.do("What number is written?", r"^98\n[^>]*used$")
        for name, value in babble.items():
            chat.do(f"/set {name} {value}", rf"^{name} is ")
        chat.do("Talk.", r"^> Talk\.\n\n.*\S.*\n.*\S.*\n")
        (worker,) = workers_of(psutil.Process(chat.pid))
        worker.kill()
        chat.wait(r"The process of the model was killed by SIGKILL")
        chat.wait(r"^> Talk\.\Z")
        chat.type(CTRL_U)
        chat.do("/set temperature 0", r"^temperature is 0\.")
        chat.do("What colour is the circle?", r"^The model is loaded again")
        chat.wait(r"^Red\.$")
        assert chat.leave() == 0
    with History.open(tmp_path) as history:
        latest = history.latest()
        assert latest is not None
        assert [entry.text for entry in latest.entries if entry.role == "assistant"] == ["98", "Red."]


def test_a_chat_goes_on_though_its_model_cannot_be_loaded_again(tmp_path: Path) -> None:
    """The error was told by asking the model what could be dropped, which ended the chat."""
    text, mmproj = (shutil.copy(file, tmp_path) for file in (demo_files().text, demo_files().mmproj))
    moved = tmp_path / "moved"
    with ChatTerminal(text, "--mmproj", mmproj, "-t", "1", folder=tmp_path, INTERNVL_DATA=str(tmp_path)) as chat:
        chat.do("How many shapes are there?", r"used$")
        Path(text).rename(moved)
        (worker,) = workers_of(psutil.Process(chat.pid))
        worker.kill()
        chat.do("Is it red?", r"^Error: ")
        chat.wait(r"^> Is it red\?\Z")
        moved.rename(text)
        chat.type(CTRL_U)
        chat.do("Is it red?", r"used$", 2)
        assert chat.leave() == 0


def test_windows_names_its_exceptions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert signal_name(0xC000001D) == signal_name(0xC000001D - 2**32) == "SIGILL"
    assert "instruction" in describe_end(0xC000001D)
    assert signal_name(1) == ""


def test_last_words_go_before_a_guess() -> None:
    assert "GGML_ASSERT" in describe_end(-signal.SIGABRT, "GGML_ASSERT(x) failed")
    assert describe_end(3) == "ended with status 3"
