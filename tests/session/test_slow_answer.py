"""After a slow first answer on a machine that was not measured, one line says what measuring would gain, once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from internvl_gguf import Session
from internvl_gguf.models.resolve import ModelFiles
from internvl_gguf.session import slow_answer
from internvl_gguf.session.slow_answer import SLOW_SECONDS, slow_answer_notice
from internvl_gguf.types import Timings

SLOW = Timings(0.1, SLOW_SECONDS, 5.0, SLOW_SECONDS + 5, 1.0, 10.0)


@pytest.fixture(autouse=True)
def unmeasured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine about which nothing is kept."""
    monkeypatch.setenv("INTERNVL_CACHE", str(tmp_path))


def test_it_is_said_once_and_not_of_quick_answers(session: Session) -> None:
    configuration = session.runtime.configuration
    assert slow_answer_notice(configuration, replace(SLOW, time_to_first_token=SLOW_SECONDS - 1)) == ""
    notice = slow_answer_notice(configuration, SLOW)
    assert notice.startswith(
        "The first token took 25 s, and this machine was not measured: `internvl doctor --measure`"
    )
    assert slow_answer_notice(configuration, SLOW) == ""


def test_a_measured_machine_is_not_told_to_measure(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slow_answer, "recorded_roofline", lambda: "a roofline")
    assert slow_answer_notice(session.runtime.configuration, SLOW) == ""


def test_a_session_tells_whoever_opened_it(
    tiny: ModelFiles, notices: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slow_answer, "SLOW_SECONDS", 0.0)
    with Session.open(tiny.text, tiny.mmproj, n_ctx=512, n_threads=1, on_notice=notices.append) as session:
        session.ask("What is it?", max_tokens=1)
        session.ask("And?", max_tokens=1)
    assert sum("doctor --measure" in notice for notice in notices) == 1
