"""What tests of kept conversations have in common: asking in one, and looking at it from another process's side."""

from __future__ import annotations

from pathlib import Path

from internvl_gguf import SamplingParams, Session
from internvl_gguf.history import Conversation, History

SHORT = SamplingParams(max_tokens=8)
LONG = SamplingParams(max_tokens=40)


def ask(conversation: Conversation, session: Session, prompt: str, images: object = (), **options: object) -> str:
    """Ask a question to its end; returns the answer."""
    chunks = list(conversation.stream(session, prompt, images, sampling=SHORT, **options))  # type: ignore[arg-type]
    assert chunks[-1].reply is not None
    return chunks[-1].reply.text


def texts(conversation: Conversation) -> list[str]:
    """What was said, in order."""
    return [entry.text for entry in conversation.entries]


def again(folder: Path) -> History:
    """The history as another process finds it."""
    return History.open(folder)
