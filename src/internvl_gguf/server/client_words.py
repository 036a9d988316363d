"""Messages about a context that is too small and about clips, in words that clients of the server can follow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from internvl_gguf.images.fit_context import BEGIN_ANEW

_OF_CLIENTS: Final = {
    "(n_ctx)": "(the server's owner can give it with -c)",
    "(format_in_prompt=False)": '("format_in_prompt": false)',
    BEGIN_ANEW: "leave some of the messages out",
    "Give it as Video(path)": "Send it as video_url",
    "Give it without Video.": "Send it as image_url.",
    "Give the path of one of those files.": "Send one of those files itself.",
    ", or give the path of the file.": ".",
    "Give the path of the picture.": "Send it as data:image/png;base64,DATA.",
}
"""What only users of the Python interface can do, and the words that replace it."""


def for_clients(text: str) -> str:
    """Return a message or hint as a client can follow it."""
    for ours, theirs in _OF_CLIENTS.items():
        text = text.replace(ours, theirs)
    return text


def notices_field(notices: Sequence[str]) -> dict[str, Any]:
    """Return the field `notices` of an answer: what was changed so that it fits; no field where nothing was."""
    return {"notices": list(map(for_clients, notices))} if notices else {}
