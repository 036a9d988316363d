"""Where a wish stands in each interface that a client named as another interface, runtime or library calls it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from internvl_gguf.server.fields import Fields, Refused

_SCHEMA: Final = ("response_format", "text.format", "output_config.format")
_LENGTH: Final = ("max_completion_tokens", "max_output_tokens", "max_tokens")
_STOP: Final = ("stop", "stop_sequences")
_SYSTEM: Final = ("instructions", "system", "messages")
_HOMES: Final[Mapping[str, tuple[str, ...]]] = {
    **dict.fromkeys(("response_format", "text", "output_config", "output_format", "format"), _SCHEMA),
    **dict.fromkeys(("schema", "output_schema", "response_model", "response_schema", "json", "output_type"), _SCHEMA),
    **dict.fromkeys(("choices", "choice", "labels"), ("structured_outputs.choice",)),
    "regex": ("structured_outputs.regex",),
    **dict.fromkeys(("guided_decoding", "guided_json_object"), ("structured_outputs",)),
    **dict.fromkeys(("max_tokens", "max_completion_tokens", "max_output_tokens"), _LENGTH),
    **dict.fromkeys(("max_new_tokens", "num_predict", "n_predict"), _LENGTH),
    **dict.fromkeys(("stop", "stop_sequences", "stop_strings"), _STOP),
    **dict.fromkeys(("system", "instructions", "system_prompt"), _SYSTEM),
    **dict.fromkeys(("messages", "input", "prompt"), ("messages", "input")),
    "functions": ("tools",),
    "function_call": ("tool_choice",),
    **dict.fromkeys(("images", "image"), ("messages", "input")),
}
"""Names, and the places of what they mean in the interfaces: of those that an interface has, the first is meant."""


def home_of(name: str, fields: Fields) -> str | None:
    """Return where an interface has what a client called otherwise; None if that is not known.

    Args:
        name: a field that the interface does not have.
        fields: those that it has.
    """
    for place in _HOMES.get(name, ()):
        field = fields.get(place.partition(".")[0])
        if field is not None and not isinstance(field, Refused):
            return place
    return None
