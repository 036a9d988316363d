"""Taking a question back, another system message, a conversation from elsewhere: as a fresh session would answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from internvl_gguf import InvalidRequestError, Message, Picture, SamplingParams, Session, SessionStateError
from internvl_gguf.models.resolve import ModelFiles
from internvl_gguf.session.prompt_template import OFFICIAL_SYSTEM
from tests.support.exact import EXACT
from tests.support.pictures import noise
from tests.support.sessions import engine_of
from tests.support.tiny_models import write_tiny_mmproj, write_tiny_text

SHORT = SamplingParams(max_tokens=8)
LONG = SamplingParams(max_tokens=40)


@pytest.fixture
def other(tiny: ModelFiles) -> Iterator[Session]:
    """A session without a conversation, on a second load of the model."""
    with Session.open(tiny.text, tiny.mmproj, system="Be brief.", n_ctx=1024, **EXACT) as opened:
        yield opened


def logits(session: Session, prompt: str = "And now?", **options: object) -> np.ndarray:
    return session.next_token_logprobs(prompt, **options)  # type: ignore[arg-type]


def close(left: np.ndarray, right: np.ndarray) -> bool:
    """Return whether two results are equal up to rounding: batches of other sizes round in another order."""
    return bool(np.abs(left - right).max() < 1e-5)


# --- Undo ------------------------------------------------------------------------------------------------------------


def test_what_is_taken_back_leaves_no_trace(session: Session, other: Session) -> None:
    """After undo the logits are those of a session that never heard the question; nothing that stays is computed."""
    for opened in (session, other):
        opened.ask("What is it?", [noise(1)], sampling=SHORT)
    kept = session.messages
    session.ask("A mistake, with a picture.", [noise(2)], sampling=LONG)
    assert session.undo().text == "A mistake, with a picture."
    assert session.messages == kept
    assert close(logits(session), logits(other))
    session.runtime.engine.check_integrity()
    again, fresh = session.ask("And now?", sampling=SHORT), other.ask("And now?", sampling=SHORT)
    assert again.text == fresh.text
    assert again.usage.tiles_encoded == 0
    assert again.usage.cached_tokens == again.usage.prompt_tokens - 1  # the logits above have read all but the last


def test_undo_to_the_beginning_and_beyond(session: Session) -> None:
    assert session.undo() is None
    for question in ("One?", "Two?", "Three?"):
        session.ask(question, sampling=SHORT)
    assert [session.undo().text for _ in range(3)] == ["Three?", "Two?", "One?"]
    assert session.undo() is None
    assert [message.role for message in session.messages] == ["system"]


def test_undo_takes_a_partial_answer_back_too(session: Session) -> None:
    stream = session.stream("Tell me.", sampling=LONG)
    next(stream)
    stream.close()
    assert session.undo().text == "Tell me."
    assert len(session.messages) == 1


def test_asking_again_with_the_pictures_of_a_message(session: Session) -> None:
    """Regenerating: the same prompt, so all of it but the last token is known, and the same answer when greedy."""
    pictures = [Picture(noise(1), max_tiles=4), noise(2, 96, 64)]
    session.ask("Hello.", sampling=SHORT)
    first = session.ask("What are they?", pictures, sampling=SHORT, layout="combined")
    question = session.undo()
    again = session.ask(question.text, question.pictures, sampling=SHORT, layout=question.layout)
    assert session.messages[-2] == question
    assert again.text == first.text
    assert again.usage.tiles == first.usage.tiles
    assert again.usage.tiles_encoded == 0
    assert again.usage.cached_tokens == again.usage.prompt_tokens - 1


def test_a_cut_picture_beside_a_new_one(session: Session, other: Session) -> None:
    session.ask("What is it?", [noise(1)], sampling=SHORT)
    (cut,) = session.undo().pictures
    mixed = logits(session, "Alike?", images=[noise(2), cut])
    assert close(mixed, logits(other, "Alike?", images=[noise(2), noise(1)]))


def test_a_cut_picture_counts_as_it_is_cut(tiny: ModelFiles) -> None:
    """It is not cut smaller to make room: a new one beside it is."""
    with Session.open(tiny.text, tiny.mmproj, system="", n_ctx=128, **EXACT) as session:
        session.ask("?", [noise(1)], max_tiles=12, sampling=SHORT)
        (cut,) = session.undo().pictures
        reply = session.ask("??", [cut, noise(2)], sampling=SHORT)
        first, second = session.messages[-2].pictures
        assert reply.notices
        assert first.tiles == cut.tiles
        assert len(second.tiles) < len(first.tiles) == 13


def test_a_cut_picture_of_an_encoder_with_other_tiles_is_refused(session: Session) -> None:
    session.ask("What is it?", [noise(1)], sampling=SHORT)
    (cut,) = session.undo().pictures
    torn = replace(cut, tiles=tuple(replace(tile, pixels=tile.pixels[:-3]) for tile in cut.tiles))
    with pytest.raises(InvalidRequestError, match="tiles of another size than the 32 pixels"):
        session.ask("What is it?", [torn])
    assert len(session.messages) == 1


def test_undo_while_an_answer_is_under_way(session: Session) -> None:
    stream = session.stream("Tell me.", sampling=LONG)
    next(stream)
    for use in (session.undo, lambda: session.set_system("x"), lambda: session.continue_with([])):
        with pytest.raises(SessionStateError, match="another question"):
            use()
    assert list(stream)[-1].reply is not None


def test_a_stream_made_before_undo_is_refused(session: Session) -> None:
    session.ask("First?", sampling=SHORT)
    stale = session.stream("Second?", sampling=SHORT)
    session.undo()
    with pytest.raises(SessionStateError, match="went on"):
        next(stale)


def test_a_picture_is_called_by_the_name_it_is_given(session: Session) -> None:
    session.ask("?", [Picture(noise(1), name="photo\x1b[31m.jpg")], sampling=SHORT)
    assert session.messages[-2].pictures[0].name == "photo\\x1b[31m.jpg"


# --- The system message ----------------------------------------------------------------------------------------------


def test_another_system_message_from_here_on(session: Session, tiny: ModelFiles) -> None:
    session.ask("What is it?", [noise(1)], sampling=SHORT)
    session.set_system("Answer in verse.")
    assert [message.text for message in session.messages][:2] == ["Answer in verse.", "What is it?"]
    with Session.open(tiny.text, tiny.mmproj, system="Answer in verse.", n_ctx=1024, **EXACT) as fresh:
        fresh.continue_with([*fresh.messages, *session.messages[1:]])
        assert close(logits(session), logits(fresh))
    assert session.ask("And now?", sampling=SHORT).usage.tiles_encoded == 0


def test_no_system_message_and_the_official_one(session: Session) -> None:
    session.set_system("")
    assert session.messages == ()
    session.set_system(None)
    assert session.messages == (Message("system", OFFICIAL_SYSTEM),)
    session.clear()
    assert session.messages == (Message("system", OFFICIAL_SYSTEM),)


# --- A conversation from elsewhere -----------------------------------------------------------------------------------


def test_another_loaded_copy_goes_on_as_if_it_had_been_there(session: Session, other: Session) -> None:
    session.ask("What is it?", [noise(1)], sampling=SHORT)
    other.continue_with(session.messages)
    assert other.messages == session.messages  # the sampled tokens, too: the same model would say them
    assert close(logits(other), logits(session))


def test_the_same_model_computes_nothing_again(session: Session) -> None:
    session.ask("What is it?", [noise(1)], sampling=SHORT)
    with session.fork() as fork:
        fork.set_system("Else.")
        fork.continue_with(session.messages)
        reply = fork.ask("And now?", sampling=SHORT)
    assert reply.usage.tiles_encoded == 0
    assert reply.usage.prompt_tokens - reply.usage.cached_tokens < 40


def test_another_encoder_sees_the_same_tiles(session: Session, tiny: ModelFiles, tmp_path: Path) -> None:
    """Keys are an encoder's own: with those of the first one its embeddings would be taken for the second's."""
    session.ask("What is it?", [noise(1)], sampling=SHORT)
    mmproj = write_tiny_mmproj(tmp_path / "other-mmproj.gguf", seed=9)
    with Session.open(tiny.text, mmproj, system="Be brief.", n_ctx=1024, **EXACT) as second:
        second.continue_with(session.messages)
        (old,), (new,) = session.messages[1].pictures, second.messages[1].pictures
        assert [tile.pixels for tile in new.tiles] == [tile.pixels for tile in old.tiles]
        assert not {tile.key for tile in new.tiles} & {tile.key for tile in old.tiles}
        assert second.ask("And now?", sampling=SHORT).usage.tiles_encoded == 13
        with Session.open(tiny.text, mmproj, system="Be brief.", n_ctx=1024, **EXACT) as fresh:
            prepared = fresh._prepare("What is it?", [noise(1)], {}).message
        assert second.messages[1] == prepared


def test_tokens_that_do_not_spell_the_answer_are_dropped(session: Session, tiny: ModelFiles) -> None:
    """Another vocabulary's ids mean other words; ids beyond the vocabulary would end the process."""
    model = session.runtime.engine.model
    spelled = tuple(model.tokenize("the thing"))
    control = session.runtime.control_tokens["<|im_end|>"]
    for tokens, stays in [
        (spelled, True),
        (spelled[:-1], False),
        (spelled[::-1], False),
        ((*spelled, control), False),
        ((*spelled, session.runtime.text.img_context), False),
        ((model.n_vocab,), False),
        ((-1,), False),
        ((2**40,), False),
    ]:
        session.continue_with([Message("user", "Hi"), Message("assistant", "the thing", tokens=tokens)])
        assert session.messages[-1].tokens == (tokens if stays else None)
        assert session.ask("And?", sampling=SHORT).usage.prompt_tokens > 0


def test_every_answer_of_a_model_is_spelled_by_its_tokens(session: Session) -> None:
    """The answers of a random model are full of incomplete characters and invalid UTF-8."""
    control = {*session.runtime.control_tokens.values(), session.runtime.text.img_context}
    spelled = 0
    for seed in range(12):
        wild = SamplingParams(max_tokens=20, temperature=2.0, top_k=0, top_p=1.0, seed=seed)
        session.ask(f"Tell me {seed}.", sampling=wild)
        answer = session.messages[-1]
        is_text = not control & set(answer.tokens or ())
        spelled += is_text
        session.continue_with(session.messages)
        assert session.messages[-1] == (answer if is_text else replace(answer, tokens=None))
        session.undo()
    assert spelled > 4


@pytest.mark.parametrize(
    "messages",
    [
        [Message("user", "?")],
        [Message("assistant", "!")],
        [Message("user", "?"), Message("user", "?")],
        [Message("user", "?"), Message("assistant", "!"), Message("system", "Late.")],
        [Message("system", "One."), Message("system", "Two.")],
    ],
)
def test_messages_out_of_turn_are_refused(session: Session, messages: list[Message]) -> None:
    before = session.messages
    with pytest.raises(InvalidRequestError):
        session.continue_with(messages)
    assert session.messages == before


def test_places_without_their_pictures_are_refused(session: Session) -> None:
    session.ask("<image> or <image>?", [noise(1), noise(2)], sampling=SHORT)
    question, answer = session.messages[1:]
    with pytest.raises(InvalidRequestError, match="places"):
        session.continue_with([replace(question, pictures=question.pictures[:1]), answer])


def test_pictures_of_other_tiles_are_refused_and_the_conversation_stays(
    session: Session, tiny: ModelFiles, tmp_path: Path
) -> None:
    session.ask("What is it?", [noise(1)], sampling=SHORT)
    mmproj = write_tiny_mmproj(tmp_path / "larger-tiles.gguf", image_size=64)
    with Session.open(tiny.text, mmproj, system="Be brief.", n_ctx=1024, **EXACT) as second:
        before = second.messages
        with pytest.raises(InvalidRequestError, match="tiles of another size"):
            second.continue_with(session.messages)
        assert second.messages == before


def test_saved_kv_is_taken_up(session: Session, other: Session, tmp_path: Path) -> None:
    session.ask("What is it?", [noise(1)], sampling=SHORT)
    session.save(tmp_path / "talk")
    other.continue_with(session.messages, saved=tmp_path / "talk")
    reply = other.ask("And now?", sampling=SHORT)
    assert reply.usage.tiles_encoded == 0
    assert reply.usage.prompt_tokens - reply.usage.cached_tokens < 40
    assert reply.text == session.ask("And now?", sampling=SHORT).text
    other.runtime.engine.check_integrity()


def test_kv_of_another_conversation_changes_nothing(session: Session, other: Session, tmp_path: Path) -> None:
    """The KV is a cache: the common prefix is reused, and the rest is read."""
    session.ask("What is it?", [noise(1)], sampling=SHORT)
    asked = session.messages
    session.undo()
    session.ask("What is that?", [noise(2)], sampling=SHORT)
    session.save(tmp_path / "talk")
    session.continue_with(asked)
    other.continue_with(asked, saved=tmp_path / "talk")
    assert close(logits(other), logits(session))


def test_saved_kv_that_cannot_be_used_is_left_alone(session: Session, tiny: ModelFiles, tmp_path: Path) -> None:
    session.ask("What is it?", [noise(1)], sampling=SHORT)
    session.save(tmp_path / "talk")
    (tmp_path / "torn").write_bytes((tmp_path / "talk").read_bytes()[:-5])
    another = write_tiny_text(tmp_path / "another.gguf", seed=5, n_ctx=2048)
    with Session.open(another, tiny.mmproj, system="Be brief.", n_ctx=1024, **EXACT) as second:
        for saved in ("talk", "torn", "missing"):
            second.continue_with(session.messages, saved=tmp_path / saved)
            assert second.ask("And now?", sampling=SHORT).usage.tiles == 13
            second.runtime.engine.check_integrity()
    expected = session.ask("And now?", sampling=SHORT).text
    session.undo()
    engine_of(session).forget()
    session.continue_with(session.messages, saved=tmp_path / "torn")
    assert session.ask("And now?", sampling=SHORT).text == expected
