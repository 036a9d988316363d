"""Thinking before the answer, as InternVL3.5 learnt it: asked for in the system message, told apart afterwards.

Sources: OpenGVLab/InternVL `R1_SYSTEM_PROMPT` of the InternVL3.5 model card; for the empty thought, the maintainers'
answer in OpenGVLab/InternVL#1141. There is no other switch, and the published chat keeps thoughts in the conversation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Final

from internvl_gguf.config import SamplingParams
from internvl_gguf.engine.thought import ThoughtBounds
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.gguf.header import read_header
from internvl_gguf.gguf.validation import has_thinking_tokens
from internvl_gguf.models.local_files import ModelFiles
from internvl_gguf.session.model_runtime import ModelRuntime
from internvl_gguf.session.prompt_template import OFFICIAL_SYSTEM, THOUGHT_END, THOUGHT_START, with_system
from internvl_gguf.types import Message

THINKING_SYSTEM: Final = (
    "You are an AI assistant that rigorously follows this response protocol:\n\n"
    "1. First, conduct a detailed analysis of the question. Consider different angles, potential solutions, and reason "
    "through the problem step-by-step. Enclose this entire thinking process within <think> and </think> tags.\n\n"
    "2. After the thinking section, provide a clear, concise, and direct answer to the user's question. Separate the "
    "answer from the think section with a newline.\n\n"
    "Ensure that the thinking process is thorough but remains focused on the query. The final answer should be "
    "standalone and not reference the thinking section."
)
_LINE: Final = "\n"


@dataclass(frozen=True)
class ThoughtPlan:
    """How an answer begins.

    Attributes:
        opening: tokens of the answer that the prompt has already: an empty thought, or the begin of one.
        is_open: whether the answer goes on inside a thought.
        bounds: how that thought ends; None where only the model ends it.
    """

    opening: tuple[int, ...] = ()
    is_open: bool = False
    bounds: ThoughtBounds | None = None


def can_think(runtime: ModelRuntime) -> bool:
    """Return whether a model's vocabulary has the tokens between which InternVL3.5 thinks."""
    return bool(runtime.text.thinking)


def files_can_think(files: ModelFiles) -> bool:
    """Return the same of a model that is not loaded, by its header.

    Raises:
        ModelFileError: the header cannot be read, or is no text model's.
    """
    return has_thinking_tokens(read_header(files.text))


def cannot_think(
    name: str, hint: str = "Leave out thinking=True and any thinking_budget, or use an InternVL3.5."
) -> InvalidRequestError:
    """Return the error of a model that is asked to think and has no tokens for it."""
    return InvalidRequestError(f"{name} cannot think: there is no {THOUGHT_START} in the vocabulary.", hint)


def refuse_without_thoughts(files: ModelFiles, sampling: SamplingParams) -> None:
    """Refuse, before a model is loaded, to let it think where it cannot.

    Raises:
        InvalidRequestError: it is asked to think, and has no tokens for it.
        ModelFileError: it is asked to think, and its header cannot be read.
    """
    if sampling.thinks and not files_can_think(files):
        raise cannot_think(files.label)


def thought_plan(runtime: ModelRuntime, sampling: SamplingParams, *, is_bound: bool) -> ThoughtPlan:
    """Return how the answer to a question begins.

    A model that is asked to think opens its thought by itself, mostly. Where its end has to be known, because a form
    or a budget depends on it, the thought is opened for it.

    Args:
        runtime: the model.
        sampling: of the question.
        is_bound: whether the answer has to have a form.

    Raises:
        InvalidRequestError: thinking is asked of a model that has no tokens for it.
    """
    ids = dict(runtime.text.thinking)
    if not ids:
        if sampling.thinks:
            raise cannot_think(runtime.files.label)
        return ThoughtPlan()
    line = runtime.engine.model.tokenize(_LINE)
    begins, ends = ids[THOUGHT_START], ids[THOUGHT_END]
    if sampling.thinking is False:
        return ThoughtPlan((begins, *line, ends, *line))
    if sampling.thinks and (is_bound or sampling.thinking_budget is not None):
        bounds = ThoughtBounds(ends, before=line, after=line, most=sampling.thinking_budget)
        return ThoughtPlan((begins, *line), is_open=True, bounds=bounds)
    return ThoughtPlan()


def with_thinking(messages: Sequence[Message], sampling: SamplingParams) -> list[Message]:
    """Return a conversation as it stands in the prompt of a question: how to think, and earlier thoughts if they stay.

    The text that asks for thinking takes the place of the official system message; one of the user's own follows it.
    Without earlier thoughts, those after the last question stay: an answer that calls a tool goes on behind its result.

    Args:
        messages: the conversation with the question.
        sampling: of the question.
    """
    found = list(messages)
    if sampling.thinks:
        own = found[0].text if found and found[0].role == "system" else ""
        found = with_system(found, THINKING_SYSTEM if own in ("", OFFICIAL_SYSTEM) else f"{THINKING_SYSTEM}\n\n{own}")
    if sampling.keep_thinking:
        return found
    last = max((place for place, message in enumerate(found) if message.role == "user"), default=0)
    return [
        replace(message, thinking="", tokens=None) if message.thinking and place < last else message
        for place, message in enumerate(found)
    ]


class Place(Enum):
    """Where a token of an answer stands."""

    THOUGHT = auto()
    ANSWER = auto()


class ThoughtReader:
    """Tells the tokens of a thought from those of the answer behind it.

    A thought is what stands between `<think>` and `</think>` where an answer begins with it. White space around it is
    of neither, and of the tags, which some answers have twice, nothing is shown.

    Args:
        ids: names and ids of the two tokens; none where the vocabulary lacks them.
        is_open: whether the prompt has opened a thought.

    Attributes:
        n_tokens: number of tokens of the thought so far, tags included.
    """

    def __init__(self, ids: Sequence[tuple[str, int]], *, is_open: bool = False) -> None:
        known = dict(ids)
        self._begins, self._ends = known.get(THOUGHT_START), known.get(THOUGHT_END)
        self._waiting: list[tuple[int, bytes]] = []
        self._has_begun = is_open
        self._is_inside = is_open
        self._is_answer = not known
        self.n_tokens = 0

    @property
    def is_inside(self) -> bool:
        """Whether a thought has begun and not ended."""
        return self._is_inside

    def take(self, token: int, piece: bytes) -> Iterator[tuple[Place, int, bytes]]:
        """Take the next token of the answer; yield what is to be shown, each with its place, id and bytes.

        Args:
            token: its id.
            piece: its bytes.
        """
        if self._is_answer:
            yield Place.ANSWER, token, piece
        elif self._is_inside:
            self.n_tokens += 1
            if token == self._ends:
                self._is_inside = False
            elif token != self._begins:
                yield Place.THOUGHT, token, piece
        elif self._has_begun:
            if token == self._ends or not piece.strip():
                self.n_tokens += 1
            else:
                self._is_answer = True
                yield Place.ANSWER, token, piece
        elif token == self._begins:
            self._has_begun = self._is_inside = True
            self.n_tokens += len(self._waiting) + 1
            self._waiting.clear()
        else:
            self._waiting.append((token, piece))
            if piece.strip():
                yield from self.finish()

    def finish(self) -> Iterator[tuple[Place, int, bytes]]:
        """Yield white space that was held back, for no thought has followed it."""
        waiting, self._waiting = self._waiting, []
        self._is_answer = self._is_answer or bool(waiting)
        for token, piece in waiting:
            yield Place.ANSWER, token, piece
