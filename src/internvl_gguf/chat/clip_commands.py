"""The slash commands about clips."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from internvl_gguf.chat.clips import split_wishes, video_of
from internvl_gguf.chat.typed_line import parse_line, typed_path
from internvl_gguf.errors import InvalidRequestError, PictureError
from internvl_gguf.utils.safe_text import safe_name
from internvl_gguf.utils.sizes import counted
from internvl_gguf.video.recipe import DEFAULT_FRAMES

if TYPE_CHECKING:
    from internvl_gguf.chat.chat import Chat


def video(chat: Chat, text: str) -> str:
    """Add clips by their paths, animations among them, with the frames that are wanted of them."""
    named, wishes = split_wishes(text)
    if not named:
        raise InvalidRequestError("/video needs a path.", "Write /video clip.mp4, or /video clip.mp4 --frames 16.")
    typed = parse_line(named)
    typed.refuse_addresses()
    if typed.pictures and typed.prompt:
        raise PictureError(f"{safe_name(typed.prompt)} is no clip.", "Give paths only; quote those with spaces.")
    clips = [video_of(path, wishes) for path in typed.pictures or [typed_path(named)]]
    default = chat.clip_frames
    chat.add([replace(clip, frames=default) if clip.frames is None and clip.fps is None else clip for clip in clips])
    return ""


def frames(chat: Chat, text: str) -> str:
    """Show or set how many frames of the next clips are shown; those that wait are read again."""
    if text:
        if text.lower() != "auto" and not (text.isdecimal() and int(text)):
            raise InvalidRequestError(f"{safe_name(text)} is no number of frames.", "Give 1 or more, or auto.")
        chat.set_frames("auto" if text.lower() == "auto" else int(text))
    shown = (
        "as many frames as fit" if chat.clip_frames == "auto" else counted(chat.clip_frames or DEFAULT_FRAMES, "frame")
    )
    chat.screen.say(f"Of the next clips {shown} {'is' if chat.clip_frames == 1 else 'are'} shown.")
    for line in chat.describe_pending():
        chat.screen.say(line)
    return ""
