"""The clips of a line of `internvl ask --batch`: `"video"` and `"videos"`, and clips among `"images"`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.types import Video
from internvl_gguf.utils.clip_times import parse_time
from internvl_gguf.utils.foreign_names import VIDEO, ForeignNames
from internvl_gguf.video.clip_wishes import ClipWishes, is_clip_source

CLIP_FIELDS: Final = ("video", "videos")
_HINT: Final = 'Give a path, or {"path": "clip.mp4", "frames": 8}, or a list of these.'
_TIMES: Final = ("start", "end")
WISH_FIELDS: Final = ("frames", "fps", *_TIMES)
"""Fields of a line, or of the object of a clip, that say which frames are shown."""
_NAMES: Final = ForeignNames(
    "a clip",
    {
        **{name: meant for name, meant in VIDEO.called.items() if meant in WISH_FIELDS},
        **dict.fromkeys(("source", "video", "url", "file"), "path"),
    },
    VIDEO.otherwise,
)


def clips_of(fields: Mapping[str, Any], wishes: ClipWishes) -> tuple[Video, ...]:
    """Return the clips that a line names as such.

    Args:
        fields: of the line.
        wishes: which frames are shown of a clip that does not say otherwise.

    Raises:
        InvalidRequestError: what is no clip, or says what cannot be done.
    """
    found: list[Video] = []
    for name in CLIP_FIELDS:
        given = fields.get(name, [])
        found += [_clip(name, each, wishes) for each in (given if isinstance(given, list) else [given])]
    return tuple(found)


def _clip(name: str, given: Any, wishes: ClipWishes) -> Video:
    described = given if isinstance(given, dict) else {"path": given}
    for key in described:
        if key not in ("path", *WISH_FIELDS):
            error = _NAMES.unknown(key, ("path", *WISH_FIELDS), "field")
            raise ClipOptionsError(error.message, error.hint)
    if not isinstance(described.get("path"), str):
        raise ClipOptionsError(f"{name} is {json.dumps(given)[:80]}.", _HINT)
    return wishes_of(described, wishes).video(described["path"])


class ClipOptionsError(InvalidRequestError):
    """A line whose clip has options that cannot be used: a question all the same."""


def wishes_of(given: Mapping[str, Any], wishes: ClipWishes) -> ClipWishes:
    """Return which frames are shown by the fields of a line, or of the object of a clip.

    Args:
        given: the fields.
        wishes: what they do not say.

    Raises:
        ClipOptionsError: a value that cannot be used.
    """
    own = {key: given[key] for key in WISH_FIELDS if given.get(key) is not None}
    try:
        own |= {key: parse_time(key, own[key]) for key in _TIMES if isinstance(own.get(key), str)}
        return replace(wishes, **own)
    except InvalidRequestError as error:
        raise ClipOptionsError(error.message, error.hint) from None


def with_clips(images: Iterable[Any], wishes: ClipWishes) -> tuple[Any, ...]:
    """Return pictures of a line, those that are clips by their first bytes as clips."""
    return tuple(wishes.video(each) if isinstance(each, str) and is_clip_source(each) else each for each in images)


def deciding(images: Iterable[Any], wishes: ClipWishes) -> list[dict[str, Any]]:
    """Return what decides which frames of the clips of a line are shown, for its hash; nothing where it has none.

    Args:
        images: its pictures and clips.
        wishes: of clips among the pictures. Files are looked at only if there are some.
    """
    found = images if not wishes.given else with_clips(images, wishes)
    return [{name: getattr(each, name) for name in WISH_FIELDS} for each in found if isinstance(each, Video)]
