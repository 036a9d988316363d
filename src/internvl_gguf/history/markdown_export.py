"""Export of conversations as Markdown."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Final
from urllib.parse import quote

from internvl_gguf.errors import PictureError
from internvl_gguf.history.clip_frames import in_shape
from internvl_gguf.history.entries import Entry, Heading, HistoryPicture
from internvl_gguf.history.picture_files import PictureFiles, digest_of
from internvl_gguf.utils.atomic_write import write_atomically

_SUFFIXES: Final = {"JPEG": ".jpg", "TIFF": ".tif"}
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
_LONGEST_NAME: Final = 60
_FRAME_SIDE: Final = 896  # pixels of the longer side of a frame


def export_markdown(
    path: Path, heading: Heading, entries: Sequence[Entry], files: PictureFiles, copy_pictures: bool
) -> None:
    """Write a conversation as Markdown, its pictures in a folder beside it.

    Args:
        path: the file; it is replaced.
        heading: heading of the conversation.
        entries: its questions and answers.
        files: its pictures.
        copy_pictures: whether pictures are copied into a folder beside the file; otherwise they are linked where they
            were, and copied only if they are not there any more.

    Raises:
        OSError: the file cannot be written.
    """
    links: dict[str, str] = {}
    for picture in (picture for entry in entries for picture in entry.pictures):
        if picture.digest not in links:
            links[picture.digest] = _place(path, picture, files, copy_pictures, set(links.values()))
    parts = [f"# {_plain(heading.title)}", f"*{_plain(heading.model)}, {_local(heading.created)}, {heading.id}*"]
    if heading.system:
        parts.append(_quoted(f"System: {heading.system}"))
    for entry in entries:
        if entry.role == "user":
            shown = [f"![{_caption(picture)}]({links[picture.digest]})" for picture in entry.pictures]
            parts += ["## You", *shown, *([_quoted(entry.text)] if entry.text else [])]
        else:
            thought = entry.thinking.strip()
            folded = [f"<details><summary>Thought</summary>\n\n{_quoted(thought)}\n\n</details>"] if thought else []
            parts += [f"## {_plain(entry.model or heading.model)}", *folded, _closed(_plain(entry.text))]
    write_atomically(path, ("\n\n".join(parts) + "\n").encode("utf-8", "replace"))


def is_markdown_of(beginning: str, heading: Heading) -> bool:
    """Return whether a file that begins like this was written by `export_markdown` for this conversation."""
    lines = beginning.splitlines()
    return len(lines) > 2 and lines[0].startswith("# ") and lines[2].endswith(f", {heading.id}*")


def picture_folder(path: Path) -> Path:
    """Return the folder for the pictures of a Markdown file, beside it."""
    return path.with_name(f"{path.stem}-pictures")


def _place(path: Path, picture: HistoryPicture, files: PictureFiles, copy_pictures: bool, taken: set[str]) -> str:
    """Return the link to a picture, copying the picture if that is wanted or needed."""
    if not copy_pictures and picture.path and _holds(Path(picture.path), picture.digest):
        return quote(Path(picture.path).as_posix(), safe="/:")
    data = files.get(picture.digest)
    if data is not None and picture.label and picture.cut:
        with contextlib.suppress(PictureError):  # damaged: it is written as it is
            data = in_shape(data, _small(picture.cut.source_size))
    folder = picture_folder(path)
    base = f"{picture.name}." if picture.label else picture.name  # "clip.mp4 at 0.5 s" has no suffix
    for name in _names(base, data or b""):
        link = quote(f"{folder.name}/{name}")
        if link not in taken:
            if data is not None:
                write_atomically(folder / name, data)
            return link
    raise AssertionError("there is always another name")


def _caption(picture: HistoryPicture) -> str:
    """Return the name of a picture; of a frame, with the label that the prompt has: "Frame1: clip.mp4 at 0.5 s"."""
    return _escaped(f"{picture.label}{Path(picture.name).name}")


def _holds(path: Path, digest: str) -> bool:
    """Return whether a file still has the content of the picture."""
    try:
        return digest_of(path.read_bytes()) == digest
    except OSError:
        return False


def _names(name: str, data: bytes) -> Iterator[str]:
    """File names for a picture: its own, then numbered ones."""
    from internvl_gguf.images.raster_formats import identify

    try:
        kind = identify(data, name)
        suffix = _SUFFIXES.get(kind, f".{kind.lower()}")
    except PictureError:
        suffix = ""
    base = re.split(r"[/\\]", name)[-1]
    given = Path(base).suffix
    stem = re.sub(r"[^\w.-]+", "_", base.removesuffix(given)).strip("._")[:_LONGEST_NAME] or "picture"
    if given.lower() in (suffix, ".jpeg", ".tiff") and re.fullmatch(r"\.\w+", given):
        suffix = given
    yield f"{stem}{suffix}"
    for number in count(2):
        yield f"{stem}-{number}{suffix}"


def _small(size: tuple[int, int]) -> tuple[int, int]:
    """Return the size of a frame in an export: its shape, and no more pixels than its tile can tell."""
    scale = min(1.0, _FRAME_SIDE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _plain(text: str) -> str:
    """Return text without control characters that a terminal would act on."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))


def _quoted(text: str) -> str:
    """Return what the user wrote as one Markdown quotation, empty lines included."""
    return "\n".join(f"> {line}".rstrip() for line in _plain(text).split("\n"))


def _closed(text: str) -> str:
    """Return an answer with its last code block closed, as the answer may have ended inside it."""
    fences = re.findall(r"^ {0,3}(```+|~~~+)", text, re.MULTILINE)
    return f"{text}\n{fences[-1]}" if len(fences) % 2 else text


def _escaped(text: str) -> str:
    return re.sub(r"([\\\[\]])", r"\\\1", _plain(text).replace("\n", " "))


def _local(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")
