"""Export of conversations as JSON, and import."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, get_args

from internvl_gguf.errors import HistoryError, InvalidRequestError
from internvl_gguf.history.entries import Entry, Heading, HistoryPicture, PictureCut
from internvl_gguf.history.picture_files import PictureFiles, digest_of
from internvl_gguf.session.prompt_template import IMAGE_PLACE, check_places
from internvl_gguf.tiling import MAX_TILES_LIMIT, validate_tile_limits
from internvl_gguf.types import PictureLayout
from internvl_gguf.utils.atomic_write import write_atomically
from internvl_gguf.utils.safe_text import error_line

_FORMAT: Final = "internvl conversation"
_VERSION: Final = 3
_READ: Final = (1, 2, _VERSION)
"""Formats that are read; in 1 no picture has a label, and before 3 no answer a thought."""
_MOST_BYTES: Final = 2**30


def export_json(
    path: Path, heading: Heading, entries: Sequence[Entry], files: PictureFiles, copy_pictures: bool
) -> None:
    """Write a conversation as JSON.

    Args:
        path: the file; it is replaced.
        heading: heading of the conversation.
        entries: its questions and answers.
        files: its pictures.
        copy_pictures: whether the file contains the bytes of the pictures, so that nothing else is needed.

    Raises:
        OSError: the file cannot be written.
    """
    document = conversation_as_json(heading, entries)
    if copy_pictures:
        digests = dict.fromkeys(picture.digest for entry in entries for picture in entry.pictures)
        found = {digest: files.get(digest) for digest in digests}
        document["pictures"] = {
            digest: base64.b64encode(data).decode("ascii") for digest, data in found.items() if data is not None
        }
    write_atomically(path, json.dumps(document, ensure_ascii=False, indent=1).encode())


def is_json_of(beginning: str, heading: Heading) -> bool:
    """Return whether a file that begins like this was written by `export_json` for this conversation."""
    return _FORMAT in beginning and f'"id": "{heading.id}"' in beginning


def conversation_as_json(heading: Heading, entries: Sequence[Entry]) -> dict[str, Any]:
    """Return a conversation as a JSON document, without the bytes of its pictures."""
    return {
        "format": _FORMAT,
        "version": _VERSION,
        "id": heading.id,
        "title": heading.title,
        "model": heading.model,
        "system": heading.system,
        "created": utc(heading.created),
        "updated": utc(heading.updated),
        "messages": [_message(entry) for entry in entries],
    }


def utc(seconds: float) -> str:
    """Return a time in seconds since 1970 as ISO 8601 in UTC, to the microsecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")


def read_exported(path: Path) -> tuple[Heading, list[Entry], list[bytes]]:
    """Read a conversation that was written as JSON.

    Returns:
        Its heading, its questions and answers, and the bytes of its pictures.

    Raises:
        HistoryError: the file is missing, or not an exported conversation.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise HistoryError(f"{path} is too large for a conversation.", "Give a file that /export wrote.")
        return _conversation(json.loads(path.read_bytes()))
    except OSError as error:
        raise HistoryError(f"{path} cannot be read: {error.strerror or error}.", "Check the path.") from error
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise HistoryError(
            f"{path} is not a conversation: {_what(error)}.",
            "Give a .json file that /export or `internvl history` wrote.",
        ) from error


def _message(entry: Entry) -> dict[str, Any]:
    message: dict[str, Any] = {"role": entry.role, "text": entry.text, "created": utc(entry.created)}
    if entry.pictures:
        message |= {"layout": entry.layout, "pictures": [_picture(picture) for picture in entry.pictures]}
    if entry.role == "assistant":
        message |= {"model": entry.model, "tokens": entry.tokens, "statistics": entry.statistics}
    if entry.thinking:
        message["thinking"] = entry.thinking
    return message


def _picture(picture: HistoryPicture) -> dict[str, Any]:
    max_tiles, min_tiles, thumbnail = picture.limits
    found: dict[str, Any] = {"digest": picture.digest, "name": picture.name, "path": picture.path}
    found |= {"max_tiles": max_tiles, "min_tiles": min_tiles, "thumbnail": thumbnail}
    if picture.label:
        found["label"] = picture.label
    if picture.cut:
        cut = picture.cut
        found["cut"] = {"grid": cut.grid, "has_thumbnail": cut.has_thumbnail, "source_size": cut.source_size}
    return found


# --- Reading: anything unexpected raises ValueError, KeyError or TypeError -------------------------------------------


def _conversation(document: Any) -> tuple[Heading, list[Entry], list[bytes]]:
    if _of(document, dict).get("format") != _FORMAT:
        raise ValueError("it does not say that it is one")
    if document["version"] not in _READ:
        raise ValueError(f"it is of format {document['version']!r}, this version of the package reads {_VERSION}")
    system = document["system"]
    heading = Heading(
        "", "", _text(document["model"]), None if system is None else _text(system),
        _seconds(document["created"]), _seconds(document["updated"]),
    )  # fmt: skip
    entries = [_entry(message) for message in _of(document["messages"], list)]
    for number, entry in enumerate(entries):
        if entry.role != ("user", "assistant")[number % 2]:
            raise ValueError(f"message {number + 1} is out of turn")
    pictures = []
    for digest, text in _of(document.get("pictures", {}), dict).items():
        data = base64.b64decode(_of(text, str), validate=True)
        if digest_of(data) != digest:
            raise ValueError("the bytes of a picture are not those that were written")
        pictures.append(data)
    return heading, entries, pictures


def _entry(message: dict[str, Any]) -> Entry:
    role = _of(message, dict)["role"]
    entry = Entry(role, _text(message["text"]), _seconds(message["created"]))
    if role == "user":
        layout = message.get("layout", "separate")
        if layout not in get_args(PictureLayout):
            raise ValueError("a layout of no such name")
        pictures = tuple(_kept(picture) for picture in _of(message.get("pictures", []), list))
        check_places(entry.text, len(pictures), layout)
        return replace(entry, pictures=pictures, layout=layout)
    tokens, model = message.get("tokens"), message.get("model")
    return replace(
        entry,
        tokens=None if tokens is None else tuple(_whole(token, 0, 2**31 - 1) for token in _of(tokens, list)),
        model=None if model is None else _text(model),
        statistics=_of(message.get("statistics", {}), dict),
        thinking=_text(message.get("thinking", "")),
    )


def _kept(picture: dict[str, Any]) -> HistoryPicture:
    found = _of(picture, dict)
    path = found.get("path")
    limits = (found.get("max_tiles"), found.get("min_tiles"), found.get("thumbnail"))
    for limit in limits[:2]:
        if limit is not None:
            _whole(limit, 1, MAX_TILES_LIMIT)
    validate_tile_limits(limits[1] or 1, limits[0] or MAX_TILES_LIMIT)
    if limits[2] is not None:
        _of(limits[2], bool)
    label = _text(found.get("label", ""))
    if IMAGE_PLACE in label:
        raise ValueError(f"a label with {IMAGE_PLACE}")
    kept = HistoryPicture(
        _text(found["digest"]),
        _text(found["name"]),
        None if path is None else _text(path),
        limits,
        label=label,
    )
    if "cut" not in found:
        return kept
    columns, rows = (_whole(side, 1, MAX_TILES_LIMIT) for side in found["cut"]["grid"])
    width, height = (_whole(side, 1, 2**31 - 1) for side in found["cut"]["source_size"])
    if columns * rows > MAX_TILES_LIMIT:
        raise ValueError("a picture of too many tiles")
    return replace(kept, cut=PictureCut((columns, rows), _of(found["cut"]["has_thumbnail"], bool), (width, height)))


def _of(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{type(value).__name__} where there should be {kind.__name__}")
    return value


def _text(value: Any) -> str:
    text: str = _of(value, str)
    text.encode()  # lone surrogates are no text
    return text


def _whole(value: Any, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{value!r} where there should be a number from {least} to {most}")
    return value


def _seconds(value: Any) -> float:
    return datetime.fromisoformat(_of(value, str)).astimezone(UTC).timestamp()


def _what(error: Exception) -> str:
    """Describe a reading error in a few printable words."""
    if isinstance(error, InvalidRequestError):
        return error.message[0].lower() + error.message[1:].rstrip(".")
    if isinstance(error, json.JSONDecodeError):
        return f"it is no JSON at line {error.lineno}"
    if isinstance(error, KeyError):
        return f"it has no {error}"
    return error_line(error)
