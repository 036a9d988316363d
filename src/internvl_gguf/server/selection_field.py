"""The field that says how an answer was chosen among several, and the tokens of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from internvl_gguf.types import Reply


def selection_field(reply: Reply | None) -> dict[str, Any]:
    """Return the field `selection` of the first answer to a request, as `Selection.to_dict` has it, if there is one."""
    return {"selection": reply.selection.to_dict()} if reply and reply.selection else {}


def written_tokens(replies: Sequence[Reply]) -> int:
    """Return the tokens that were written for a request, those of answers that were not chosen included."""
    selection = replies[0].selection
    if selection is not None:
        return sum(each.tokens for each in selection.candidates)
    return sum(reply.usage.completion_tokens for reply in replies)
