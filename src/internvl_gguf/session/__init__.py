"""A conversation with a model: ask, stream, batch, fork, save.

session          what callers see
prompt_template  the official prompt, as text and places for pictures
prepare          a question as the engine takes it: spans of tokens and tiles that fit the context
answer           an answer under way: pieces of text, statistics, its end
detokenizer      tokens to text, though a character is several of them
batch            many questions at once
turn_lock        one operation at a time
saved_file       the file of a saved conversation
restore          a saved conversation taken up again
model_runtime    what a session asks of a loaded model, here or in a process of its own
open_runtime     which of the two
runtime          a model loaded in this process: validated, placed, tried
worker/          a model in a process of its own

Names are imported when they are first touched: `internvl history` needs a prompt and no model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from internvl_gguf.session.session import Session

__all__ = ["Session"]


def __getattr__(name: str) -> Any:
    if name == "Session":
        from internvl_gguf.session.session import Session

        return Session
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
