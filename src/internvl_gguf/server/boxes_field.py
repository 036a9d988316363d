"""The field with the boxes of an answer, which the interfaces do not have themselves."""

from __future__ import annotations

from typing import Any

from internvl_gguf.types import Reply


def boxes_field(reply: Reply | None) -> dict[str, Any]:
    """Return the field `boxes` of an answer that names some, as `Box.to_dict` has them; nothing for any other."""
    return {"boxes": [box.to_dict() for box in reply.boxes]} if reply and reply.boxes else {}
