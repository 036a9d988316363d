"""Messages about small contexts, thoughts, clips and forms, in words that clients of the server can follow."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from typing import Any, Final

from internvl_gguf.images.fit_context import BEGIN_ANEW

_OF_CLIENTS: Final = {
    "(n_ctx)": "(the server's owner can give it with -c)",
    "(format_in_prompt=False)": '("format_in_prompt": false)',
    BEGIN_ANEW: "leave some of the messages out",
    "thinking=True and any thinking_budget": "what asks for a thought",
    "Give it as Video(path)": "Send it as video_url",
    "Give it without Video.": "Send it as image_url.",
    "Give the path of one of those files.": "Send one of those files itself.",
    ", or give the path of the file.": ".",
    "Give the path of the picture.": "Send it as data:image/png;base64,DATA.",
}
"""What only users of the Python interface can do, and the words that replace it."""


_SHORT_FORM: Final = ', or "name, age int, tags list"'
"""A form of schemas that requests do not have."""
_ASSIGNED: Final = re.compile(r"""\b(?:choices|regex)=(\[[^\]]*\]|r?"[^"]*")""")
"""A value as messages write it for Python."""


def for_clients(text: str) -> str:
    """Return a message or hint as a client can follow it."""
    for ours, theirs in _OF_CLIENTS.items():
        text = text.replace(ours, theirs)
    return text


def for_json_clients(text: str) -> str:
    """Return a message or hint about a form or a tool as a client can follow it."""
    from internvl_gguf.utils.json_words import in_json

    text = in_json(text).replace(_SHORT_FORM, "").replace("as schema=", "as json_schema")
    return _ASSIGNED.sub(lambda found: json.dumps(ast.literal_eval(found[1])), text)


def notices_field(notices: Sequence[str]) -> dict[str, Any]:
    """Return the field `notices` of an answer: what was changed so that it fits; no field where nothing was."""
    return {"notices": list(map(for_clients, notices))} if notices else {}
