"""A conversation as spans of tokens and tiles, which is how the engine takes a prompt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from internvl_gguf.config import SamplingParams
from internvl_gguf.errors import ContextOverflowError
from internvl_gguf.session.grounding import split_at_tags
from internvl_gguf.session.model_runtime import ModelRuntime
from internvl_gguf.session.prompt_template import (
    AnswerTokens,
    ControlToken,
    PlainText,
    PromptPiece,
    VisualTokens,
    render,
)
from internvl_gguf.session.thinking import can_think, with_thinking
from internvl_gguf.session.tool_prompt import with_tools
from internvl_gguf.types import Message, Span, TileSpan, TokenSpan

if TYPE_CHECKING:
    from internvl_gguf.structured import Tool


def prompt_spans(
    runtime: ModelRuntime,
    messages: Sequence[Message],
    tools: Sequence[Tool] = (),
    sampling: SamplingParams | None = None,
) -> list[Span]:
    """Return the whole prompt of a conversation as spans of tokens and tiles.

    Args:
        runtime: the model.
        messages: the conversation.
        tools: the tools that the next answer may call.
        sampling: that of the question, which says whether to think; None for its default.

    Raises:
        ContextOverflowError: its text is so long that no tokens could hold it; it was not tokenised.
    """
    shown = with_tools(with_thinking(messages, sampling or SamplingParams()), tools)
    return [*opening_spans(runtime), *piece_spans(runtime, render(shown, thoughts=can_think(runtime)))]


def opening_spans(runtime: ModelRuntime) -> list[Span]:
    """Return what stands before every prompt of a model: its token for that, if it has one."""
    bos = runtime.text.bos
    return [] if bos is None else [TokenSpan((bos,))]


def piece_spans(runtime: ModelRuntime, pieces: Sequence[PromptPiece]) -> list[Span]:
    """Return pieces of a prompt as spans of tokens and tiles.

    Raises:
        ContextOverflowError: as in `prompt_spans`.
    """
    spans: list[Span] = []
    refuse_endless(runtime, [piece.text for piece in pieces if isinstance(piece, PlainText)])
    for piece in pieces:
        if isinstance(piece, ControlToken):
            spans.append(TokenSpan((runtime.control_tokens[piece.name],)))
        elif isinstance(piece, PlainText):
            spans += [TokenSpan(ids) for ids in grounded_tokens(runtime, piece.text)]
        elif isinstance(piece, AnswerTokens):
            spans.append(TokenSpan(piece.tokens))
        elif isinstance(piece, VisualTokens):
            length = runtime.vision.tokens_per_tile
            spans += [TileSpan(tile, length) for picture in piece.pictures for tile in picture.tiles]
    return [span for span in spans if span.length]


def refuse_endless(runtime: ModelRuntime, texts: Iterable[str]) -> None:
    """Refuse texts with more bytes than the longest tokens could hold in the whole context.

    llama.cpp takes a second for each two megabytes that it tokenises, and gigabytes of memory for some.

    Raises:
        ContextOverflowError: they have more.
    """
    n_ctx = runtime.engine.n_ctx
    # Composing accents (NFC) makes of three bytes one at most.
    most = 3 * n_ctx * runtime.text.longest_token
    length = sum(map(len, texts))
    if length > most:
        raise ContextOverflowError(
            f"The prompt has {length:,} characters, more than a context of {n_ctx:,} tokens can hold.",
            "Ask with less text; a schema, choices and tools are a part of it.",
            needed=length // (3 * runtime.text.longest_token),
            available=n_ctx,
        )


def grounded_tokens(runtime: ModelRuntime, text: str) -> list[tuple[int, ...]]:
    """Return the tokens of a message's text, with `<ref>`, `</ref>`, `<box>` and `</box>` as the tokens of these names.

    The published tokenizer reads them so, and the published prompts have them. Nothing else in a text becomes a control
    token. Where the vocabulary lacks these tokens, they are text.
    """
    ids = dict(runtime.text.grounding)
    tokenize = runtime.engine.model.tokenize
    return [(ids[part],) if part in ids else tokenize(part) for part in split_at_tags(text, ids)]
