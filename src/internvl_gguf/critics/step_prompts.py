"""An answer in steps as prompts for a critic, each up to the place where the score of its step is read.

Each prompt begins with the one before it, so that a KV cache reads the conversation once; answers to one question share
the part up to their first step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from internvl_gguf.critics.verdict_tokens import ROLE, VerdictTokens
from internvl_gguf.models.critic_description import CriticDescription, template_parts
from internvl_gguf.session.model_runtime import ModelRuntime
from internvl_gguf.session.prompt_spans import opening_spans, piece_spans
from internvl_gguf.session.prompt_template import (
    END,
    IMAGE_PLACE,
    OFFICIAL_SYSTEM,
    START,
    AnswerTokens,
    ControlToken,
    PlainText,
    PromptPiece,
    join_text,
    user_pieces,
)
from internvl_gguf.types import Message, MessagePicture, Span

if TYPE_CHECKING:
    from internvl_gguf.judging import JudgedQuestion


def step_prompts(
    runtime: ModelRuntime,
    description: CriticDescription,
    tokens: VerdictTokens,
    question: JudgedQuestion,
    steps: Sequence[str],
) -> list[list[Span]]:
    """Return the prompt of each step: its last position is the one whose logits tell the step's score.

    Args:
        runtime: the critic's model.
        description: how it is asked.
        tokens: those that the description means.
        question: what was asked, with pictures that are cut for this model.
        steps: one or more.

    Raises:
        ContextOverflowError: a text that no context could hold.
    """
    spans, prompts = opening_spans(runtime), []
    for pieces in _stretches(description, tokens, question, steps):
        spans = [*spans, *piece_spans(runtime, list(join_text(pieces)))]
        prompts.append(spans)
    return prompts


def _stretches(
    description: CriticDescription, tokens: VerdictTokens, question: JudgedQuestion, steps: Sequence[str]
) -> Iterator[list[PromptPiece]]:
    """Yield what each step adds to the prompt. Texts of two stretches tokenise apart: a marker stands between them."""
    marker = AnswerTokens(tokens.marker)
    is_after = description.read == "at"
    for number, step in enumerate(steps):
        pieces: list[PromptPiece] = [marker] if number and not is_after else []
        template = description.next_step if number else description.first_step
        if description.steps == "user":
            pieces += [ControlToken(END), PlainText("\n")] if number else _system(description)
            pieces += [ControlToken(START), PlainText("user\n"), *_filled(template, question, step), *_answer()]
        elif number:
            pieces += _filled(template, question, step)
        else:
            pieces += [*_system(description), ControlToken(START), PlainText("user\n")]
            pieces += [*_filled(description.user, question, ""), *_answer(), *_filled(template, question, step)]
        yield [*pieces, marker] if is_after else pieces


def _system(description: CriticDescription) -> list[PromptPiece]:
    text = OFFICIAL_SYSTEM if description.system is None else description.system
    return [ControlToken(START), PlainText(f"system\n{text}"), ControlToken(END), PlainText("\n")] if text else []


def _answer() -> list[PromptPiece]:
    """Return the end of a message of the user and the beginning of the assistant's."""
    return [ControlToken(END), PlainText("\n"), ControlToken(START), PlainText(ROLE)]


def _filled(template: str, question: JudgedQuestion, step: str) -> list[PromptPiece]:
    """Return a template with its fields filled in."""
    pieces: list[PromptPiece] = []
    for part in template_parts(template):
        if part.field == "step":
            pieces.append(PlainText(step))
        elif part.field == "question":
            pieces += _question(question)
        elif part.field == "pictures":
            pieces += _before_question(question)
        else:
            pieces.append(PlainText(part.text))
    return pieces


def _question(question: JudgedQuestion) -> list[PromptPiece]:
    """Return the text of the question, with its pictures where it marks their places."""
    if not _marks_places(question):
        return [PlainText(question.prompt)]
    is_combined = question.prompt.count(IMAGE_PLACE) < len(question.pictures)
    shown = Message("user", question.prompt, question.pictures, "combined" if is_combined else "separate")
    return list(user_pieces(shown, _numbered(question.messages)))


def _marks_places(question: JudgedQuestion) -> bool:
    """Return whether the question says where its pictures are to be, one by one or all in one place."""
    places = question.prompt.count(IMAGE_PLACE)
    return places > 0 and places in (1, len(question.pictures)) and bool(question.pictures)


def _before_question(question: JudgedQuestion) -> list[PromptPiece]:
    """Return the conversation before the question, whose pictures it may be about, and its own pictures."""
    pieces: list[PromptPiece] = []
    numbered = 0
    for message in question.messages:
        if message.role == "system":
            continue
        pieces += [PlainText(f"{message.role.capitalize()}: "), *user_pieces(message, numbered), PlainText("\n")]
        numbered += _numbered([message])
    if pieces:
        pieces.append(PlainText("\n"))
    if question.pictures and not _marks_places(question):
        pieces += user_pieces(Message("user", "", question.pictures), numbered)
    return pieces


def _numbered(messages: Sequence[Message]) -> int:
    """Return how many pictures of messages count as Image-1, Image-2, ..."""
    pictures: list[MessagePicture] = [picture for message in messages for picture in message.pictures]
    return sum(not picture.label for picture in pictures)
