"""Spellings of model names that mean the same."""

from __future__ import annotations

import re
from typing import Final

_OWNER: Final = re.compile(r"^opengvlab[_/]")
_FAMILY: Final = re.compile(r"^internvl[-_ ]?(?=\d(?:[._]\d)?[-_ ])")
_HALF_SERIES: Final = re.compile(r"^(\d)_(\d)(?!\d)")
_LAYOUT: Final = re.compile(r"[-_]hf$")


def folded(spelling: str) -> str:
    """Return what all spellings of a name share.

    Upper and lower case are the same; so are `InternVL3_5-8B`, `InternVL3.5-8B` and `3.5-8b`, with the owner's prefix
    `OpenGVLab_` or without, and with `-HF` behind it, which is another layout of the same weights.
    """
    text = _OWNER.sub("", spelling.strip().casefold())
    return _LAYOUT.sub("", _HALF_SERIES.sub(r"\1.\2", _FAMILY.sub("", text)))
