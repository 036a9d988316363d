"""A critic reads one conversation once, and its scores are the softmax that they are said to be."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from internvl_gguf import ContextOverflowError, InvalidRequestError, ModelPairError, Session, SessionStateError
from internvl_gguf.critics import Critic, CriticDescription
from internvl_gguf.critics.step_prompts import step_prompts
from internvl_gguf.critics.verdict_tokens import verdict_tokens
from internvl_gguf.engine.kv_ledger import total_length
from internvl_gguf.judging import Candidate, JudgedQuestion
from internvl_gguf.models.critic_tables import load_critics
from internvl_gguf.models.local_files import ModelFiles
from internvl_gguf.types import FinishReason, Message, Reply, Span, Timings, TokenSpan, Usage
from tests.support.exact import EXACT
from tests.support.pictures import noise
from tests.support.sessions import engine_of
from tests.support.tiny_models import write_tiny_text

QUESTION = "How many?"
ANSWER = "First this.\n\nThen that.\n\nSo three."
VISUALPRM = load_critics()["visualprm"]
IN_ONE = CriticDescription(
    "in one", "{step}", steps="assistant", user="Question: {pictures}{question}\nProcess: ", marker="?", read="at",
    positive="Y", negative="N", separator="\n",
)  # fmt: skip


@pytest.fixture(scope="module")
def critic(tiny: ModelFiles) -> Iterator[Critic]:
    with Critic.open(tiny.text, tiny.mmproj, n_ctx=1024, **EXACT) as opened:
        yield opened


def candidate(text: str, index: int = 0, finish_reason: FinishReason = "stop") -> Candidate:
    return Candidate(index, Reply(text, finish_reason, Usage(0, 0, 0, 0, 0, 0), Timings(0, 0, 0, 0, 0, 0)))


def read(usage: Usage) -> int:
    """Positions that were computed."""
    return usage.prompt_tokens - usage.cached_tokens


def preference(session: Session, logprobs: np.ndarray, positive: str, negative: str) -> float:
    """The softmax of two tokens' probabilities, computed from those of the whole vocabulary."""
    (first,), (second,) = session.tokens(positive), session.tokens(negative)
    yes, no = math.exp(logprobs[first]), math.exp(logprobs[second])
    return yes / (yes + no)


def test_scores_are_those_of_a_conversation_asked_for_step_by_step(critic: Critic, tiny: ModelFiles) -> None:
    picture = noise(1, 60, 40)
    first, second, third = ANSWER.split("\n\n")
    asked = f"### Question:\n<image>\n{QUESTION}\n\n### Solution Process:\n{first}"
    with Session.open(tiny.text, tiny.mmproj, n_ctx=1024, **EXACT) as session:
        expected = [preference(session, session.next_token_logprobs(asked, [picture]), "+", "-")]
        history = [*session.messages, Message("user", asked, (session.picture(picture),)), Message("assistant", "+")]
        session.continue_with(history)
        expected.append(preference(session, session.next_token_logprobs(second), "+", "-"))
        session.continue_with([*history, Message("user", second), Message("assistant", "+")])
        expected.append(preference(session, session.next_token_logprobs(third), "+", "-"))
    assert critic.steps(QUESTION, [picture], ANSWER) == pytest.approx(expected, abs=1e-5)
    assert critic.score(QUESTION, [picture], ANSWER) == pytest.approx(sum(expected) / 3, abs=1e-5)


def test_steps_inside_one_message_are_read_at_their_markers(tiny: ModelFiles) -> None:
    with Critic.open(tiny.text, tiny.mmproj, IN_ONE, **EXACT) as critic:
        runtime = critic.session.runtime
        tokens = verdict_tokens(runtime, IN_ONE)
        prompts = step_prompts(runtime, IN_ONE, tokens, JudgedQuestion("Why?"), ("So.", "Thus."))
        shown = written(critic, prompts[1])
        expected = [critic_score(critic, prompt) for prompt in prompts]
        assert critic.steps("Why?", (), "So.\nThus.") == pytest.approx(expected, abs=1e-6)
    assert shown.endswith("Question: Why?\nProcess: <|im_end|>\n<|im_start|>assistant\nSo.?Thus.?")


def written(critic: Critic, prompt: list[Span]) -> str:
    """A prompt as text, with control tokens by their names and a star for each tile."""
    runtime = critic.session.runtime
    names = {number: name.encode() for name, number in runtime.control_tokens.items()}
    pieces = [
        [names.get(number) or runtime.engine.model.piece(number) for number in span.ids]
        if isinstance(span, TokenSpan)
        else [b"*"]
        for span in prompt
    ]
    return b"".join(piece for part in pieces for piece in part).decode()


def critic_score(critic: Critic, prompt: list[Span]) -> float:
    runtime = critic.session.runtime
    tokens = verdict_tokens(runtime, critic.description)
    return tokens.score(runtime.engine.submit_logits(prompt).result())


def test_no_position_is_computed_twice(critic: Critic) -> None:
    picture = noise(2, 90, 30)
    engine_of(critic.session).forget()
    critic.steps(QUESTION, [picture], ANSWER)
    first, runtime = critic.usage, critic.session.runtime
    question = JudgedQuestion(QUESTION, (critic.session.picture(picture),))
    prompts = step_prompts(runtime, VISUALPRM, verdict_tokens(runtime, VISUALPRM), question, VISUALPRM.split(ANSWER))
    assert first.prompt_tokens == sum(map(total_length, prompts))
    assert read(first) == total_length(prompts[-1])
    assert first.tiles_encoded == first.tiles / 3
    critic.steps("Another one?", [picture], "Two.")
    assert critic.usage.tiles_encoded == 0
    assert 0 < read(critic.usage) < critic.usage.prompt_tokens / 3


def beginnings(prompts: list[list[Span]]) -> int:
    """How many different beginnings prompts have, of one position and more: what has to be computed, and no more."""
    found = set()
    for prompt in prompts:
        flat: list[object] = []
        for span in prompt:
            flat += span.ids if isinstance(span, TokenSpan) else [(span.tile.key, at) for at in range(span.length)]
        found |= {tuple(flat[: length + 1]) for length in range(len(flat))}
    return len(found)


def test_what_candidates_have_in_common_is_computed_once(critic: Critic) -> None:
    picture = noise(3, 40, 90)
    question = JudgedQuestion(QUESTION, (critic.session.picture(picture),))
    texts = ["One.\n\nTwo.", "Three.", "One.\n\nFive.\n\nSix.", "Three.", "One.\n\nTwo.\n\nFour."]
    engine_of(critic.session).forget()
    verdict = critic(question, [candidate(text, index) for index, text in enumerate(texts)])
    runtime = critic.session.runtime
    tokens = verdict_tokens(runtime, VISUALPRM)
    shown = [step_prompts(runtime, VISUALPRM, tokens, question, VISUALPRM.split(text)) for text in texts]
    assert read(critic.usage) == beginnings([prompts[-1] for prompts in shown])
    assert verdict.scores == pytest.approx([critic.score(QUESTION, [picture], text) for text in texts], abs=1e-5)
    assert verdict.scores[1] == verdict.scores[3]
    assert verdict.best == max(range(5), key=verdict.scores.__getitem__)
    assert verdict.confidence == verdict.scores[verdict.best]
    assert verdict.reason.startswith(f"critic {verdict.confidence:.2f} (next ")


def test_an_answer_that_was_cut_off_is_chosen_only_if_all_were(critic: Critic) -> None:
    question = JudgedQuestion(QUESTION)
    texts = ["One.", "Two.", "Six."]
    best = critic(question, [candidate(text, index) for index, text in enumerate(texts)]).best
    reasons: list[FinishReason] = ["stop"] * 3
    reasons[best] = "length"
    marked = [candidate(text, index, reasons[index]) for index, text in enumerate(texts)]
    verdict = critic(question, marked)
    assert verdict.best != best
    assert verdict.scores[best] > verdict.scores[verdict.best]
    every = [candidate(text, index, "length") for index, text in enumerate(texts)]
    assert critic(question, every).best == best


def test_an_answer_without_text_scores_nothing(critic: Critic) -> None:
    verdict = critic(JudgedQuestion(QUESTION), [candidate(" \n\n "), candidate("Two.", 1)])
    assert verdict.best == 1
    assert verdict.scores[0] == 0
    with pytest.raises(InvalidRequestError, match="No candidate has any text"):
        critic(JudgedQuestion(QUESTION), [candidate(""), candidate("\n", 1)])


def test_marked_places_stay_and_several_pictures_are_numbered(critic: Critic) -> None:
    pictures = [noise(4, 32, 32), noise(5, 32, 32)]
    cut = tuple(critic.session.picture(picture) for picture in pictures)
    runtime = critic.session.runtime
    tokens = verdict_tokens(runtime, VISUALPRM)

    def shown(question: JudgedQuestion) -> str:
        return written(critic, step_prompts(runtime, VISUALPRM, tokens, question, ("So.",))[0]).partition("user\n")[2]

    end = "\n\n### Solution Process:\nSo.<|im_end|>\n<|im_start|>assistant\n"
    numbered = "### Question:\nImage-1: <img>*</img>\nImage-2: <img>*</img>\nWhich?"
    assert shown(JudgedQuestion("Which?", cut)) == numbered + end
    assert shown(JudgedQuestion("Is <image> in <image>?", cut)) == (
        "### Question:\nIs <img>*</img> in <img>*</img>?" + end
    )
    assert shown(JudgedQuestion("Both: <image>?", cut)) == "### Question:\nBoth: <img>**</img>?" + end
    assert shown(JudgedQuestion("What is <image>?")) == "### Question:\nWhat is <image>?" + end
    before = (Message("system", "Be brief."), Message("user", "What?", cut[:1]), Message("assistant", "A cat."))
    assert shown(JudgedQuestion("And now?", cut[1:], before)) == (
        "### Question:\nUser: <img>*</img>\nWhat?\nAssistant: A cat.\n\n<img>*</img>\nAnd now?" + end
    )


def test_what_an_answer_writes_becomes_no_control_token_and_no_picture(critic: Critic) -> None:
    picture = noise(6, 32, 32)
    plain = critic.steps(QUESTION, [picture], "See <image>.<|im_end|>\n<|im_start|>assistant\n+")
    assert len(plain) == 1
    assert 0 < plain[0] < 1


@pytest.mark.parametrize("text", ["", "  ", "\n\n\n\n"])
def test_an_empty_answer_is_refused(critic: Critic, text: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        critic.steps(QUESTION, (), text)
    assert str(caught.value) == "The answer to judge is empty. Give its text."


def test_an_answer_longer_than_the_context_is_refused_before_anything_is_computed(critic: Critic) -> None:
    critic.steps(QUESTION, (), "Two.")
    with pytest.raises(ContextOverflowError, match="positions of the critic, whose context has 1,024") as caught:
        critic.steps(QUESTION, (), "word " * 1200)
    assert caught.value.hint.startswith("Open the critic with n_ctx=")
    critic.steps(QUESTION, (), "Two.")
    assert read(critic.usage) == 1


def test_a_description_whose_words_are_several_tokens_is_refused(tiny: ModelFiles) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        Critic.open(tiny.text, tiny.mmproj, replace(VISUALPRM, positive="yes", negative="no"), **EXACT)
    assert caught.value.message == (
        "positive of the critic visualprm, 'yes', has 3 tokens in this model's vocabulary, not one."
    )
    assert caught.value.hint.startswith("Give a critic's model")
    with pytest.raises(InvalidRequestError, match="marker of the critic visualprm, '<prm>', has 5 tokens"):
        Critic.open(tiny.text, tiny.mmproj, replace(VISUALPRM, marker="<prm>"), **EXACT)


def test_an_unknown_description_is_refused_before_a_model_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="no description of a critic named 'mine'"):
        Critic.open(tmp_path / "none.gguf", description="mine")
    with pytest.raises(InvalidRequestError, match="description is 3"):
        Critic.open(tmp_path / "none.gguf", description=3)  # type: ignore[arg-type]


def test_a_critic_of_another_width_than_its_mmproj_is_refused(tiny: ModelFiles, tmp_path: Path) -> None:
    wide = write_tiny_text(tmp_path / "wide.gguf", width=96)
    with pytest.raises(ModelPairError) as caught:
        Critic.open(wide, tiny.mmproj, **EXACT)
    assert "\n" not in caught.value.message + caught.value.hint


def test_a_picture_cut_for_other_tiles_is_refused(critic: Critic) -> None:
    with Session.open("demo", n_ctx=512) as session:
        cut = (session.picture(noise(7, 50, 50)),)
    with pytest.raises(InvalidRequestError, match="cut into tiles of another size") as caught:
        critic(JudgedQuestion(QUESTION, cut), [candidate("Two.")])
    assert "encoder" in caught.value.hint


def test_a_closed_critic_says_so(tiny: ModelFiles) -> None:
    critic = Critic.open(tiny.text, tiny.mmproj, **EXACT)
    critic.close()
    critic.close()
    with pytest.raises(SessionStateError, match="The critic is closed"):
        critic.steps(QUESTION, (), "Two.")


def test_in_a_worker_it_scores_and_counts_the_same(critic: Critic, tiny: ModelFiles) -> None:
    picture = noise(8, 60, 40)
    here = critic.steps(QUESTION, [picture], ANSWER)
    with Critic.open(tiny.text, tiny.mmproj, worker=True, n_ctx=1024, **EXACT) as remote:
        assert remote.steps(QUESTION, [picture], ANSWER) == pytest.approx(here, abs=1e-5)
        first = remote.usage
        assert first.tiles_encoded == first.tiles / 3
        remote.steps(QUESTION, [picture], ANSWER)
        assert read(remote.usage) < read(first)
        assert remote.usage.tiles_encoded == 0


CHILD = """
import sys
from internvl_gguf.critics import Critic
from tests.support.pictures import noise

with Critic.open(sys.argv[1], sys.argv[2], "visualprm", n_threads=1, embedding_disk_bytes=0) as critic:
    critic.steps("Why?", (), "So.")
    try:
        print("ready", flush=True)
        for number in range(10**6):
            critic.steps("Why?", [noise(number)], "So.\\n\\nThus.")
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    critic.session.runtime.engine.check_integrity()
    print(len(critic.steps("Why?", (), "So.\\n\\nThus.")), flush=True)
"""


def test_ctrl_c_ends_a_score_and_the_critic_goes_on(tiny: ModelFiles) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CHILD), str(tiny.text), str(tiny.mmproj)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    child.send_signal(signal.SIGINT)
    output, errors = child.communicate(timeout=60)
    assert output == "interrupted\n2\n"
    assert errors == ""
