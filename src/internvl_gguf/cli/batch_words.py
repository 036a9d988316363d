"""The words of a batch: what messages name as Python does is named as its lines do."""

from __future__ import annotations

import ast
import contextlib
import json
import re
from typing import Final

from internvl_gguf.bulk.common import FIELDS, FORM_FIELDS
from internvl_gguf.cli.parameters import VALUE, in_flags
from internvl_gguf.config import EngineConfig
from internvl_gguf.utils.json_words import in_json

_ASSIGNED: Final = re.compile(rf"\b({'|'.join((*FIELDS, *FORM_FIELDS))})=({VALUE})?")


def in_fields(text: str) -> str:
    """Return a message as the lines of a batch say it: their fields as JSON has them, options of the model by flags.

    `choices=["red"]` becomes `"choices": ["red"]`.
    """

    def field_of(found: re.Match[str]) -> str:
        name, value = found.groups()
        with contextlib.suppress(ValueError, SyntaxError, TypeError):  # an ellipsis, or a name of Python
            return f'"{name}"' if value is None else f'"{name}": {json.dumps(ast.literal_eval(value))}'
        return found[0]

    return in_flags(_ASSIGNED.sub(field_of, in_json(text)), EngineConfig)
