"""Formatting of chat output: counts, durations, statistics, lists and errors as text."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Final

from internvl_gguf.chat.attachments import grid_text
from internvl_gguf.config import SamplingParams
from internvl_gguf.errors import ContextOverflowError, EqualAnswersError, InternVLError, InvalidRequestError
from internvl_gguf.utils.clip_times import format_time
from internvl_gguf.utils.safe_text import safe_name
from internvl_gguf.utils.sizes import counted

if TYPE_CHECKING:
    from internvl_gguf.chat.attachments import AttachedClip, Attachment
    from internvl_gguf.chat.chat_model import PlannedCut
    from internvl_gguf.chat.context_usage import ConversationPart
    from internvl_gguf.history import Summary
    from internvl_gguf.types import Reply


_MOST_TIMES = 8
_DIFFERING: Final = {
    "temperature": "/set temperature none leaves it open: the first answer is greedy then, and the others are sampled. "
    "/set best_of 1 asks for one.",
    "top_k": f"/set top_k {SamplingParams.top_k}, its default, lets them differ. /set best_of 1 asks for one.",
}
"""What can be typed where several answers would be equal, by the setting that makes them so."""


def seconds(duration: float) -> str:
    """Format a duration in seconds, with fewer digits the longer it is."""
    if duration >= 60:
        return f"{int(duration // 60)} min {int(duration % 60)} s"
    return f"{duration:.0f} s" if duration >= 10 else f"{duration:.1f} s" if duration >= 1 else f"{duration:.2f} s"


def added_line(
    attachment: Attachment, cut: PlannedCut | None, left: int | None, n_ctx: int | None, *, in_words: bool
) -> str:
    """Return the line about an added picture: its tiles, its tokens, and the positions left, as far as they are known.

    Args:
        cut: how it is cut.
        left: positions left after it; negative if it does not fit.
        n_ctx: positions of the context.
    """
    if cut is None:
        return f"Added {attachment.label}."
    grid = grid_text(cut.grid.columns, cut.grid.rows, has_thumbnail=cut.grid.thumbnail, in_words=in_words)
    line = f"Added {attachment.label}: {grid}, {counted(cut.tokens, 'token')}"
    return line + _room_left(left, n_ctx, "it")


def added_clip_line(clip: AttachedClip, cuts: Sequence[PlannedCut | None], left: int | None, n_ctx: int | None) -> str:
    """Return the line about an added clip: its frames and their times, its tokens, and the positions left.

    Args:
        clip: the clip.
        cuts: how each frame is cut.
        left: positions left after it; negative if it does not fit.
        n_ctx: positions of the context.
    """
    info, known = clip.info, [cut for cut in cuts if cut is not None]
    of = f"{counted(len(clip.times), 'frame')} of {seconds(info.duration)}"
    line = f"Added {clip.label}: {of}, at {_times(clip.times)}"
    if len(known) < len(cuts):
        return f"{line}."
    tiles, tokens = sum(cut.grid.tiles for cut in known), sum(cut.tokens for cut in known)
    return f"{line}; {counted(tiles, 'tile')}, {counted(tokens, 'token')}{_room_left(left, n_ctx, 'they')}"


def _times(times: Sequence[float]) -> str:
    """Return the times of frames: all of a few, else the first and the last ones."""
    shown = [format_time(time).removesuffix(" s") for time in times]
    if len(shown) > _MOST_TIMES:
        shown = [*shown[:3], "…", shown[-1]]
    listed = ", ".join(shown).replace(", …, ", " … ")
    return listed if ":" in shown[-1] else f"{listed} s"


def added_together_line(cuts: Sequence[PlannedCut | None], left: int | None, n_ctx: int | None) -> str:
    """Return the line about several added pictures: their tiles and tokens together, and the positions left.

    Args:
        cuts: how each is cut.
        left: positions left after them; negative if they do not fit.
        n_ctx: positions of the context.
    """
    line, known = f"Added {counted(len(cuts), 'picture')}", [cut for cut in cuts if cut is not None]
    if len(known) < len(cuts):
        return f"{line}."
    tiles, tokens = sum(cut.grid.tiles for cut in known), sum(cut.tokens for cut in known)
    return f"{line}: {counted(tiles, 'tile')}, {counted(tokens, 'token')}{_room_left(left, n_ctx, 'they')}"


def _room_left(left: int | None, n_ctx: int | None, who: str) -> str:
    """Return the end of a line about added pictures: the positions left, as far as they are known."""
    if left is None or n_ctx is None:
        return "."
    if left < 0:
        return f", {-left:,} more than are left: {who} will be cut smaller if that helps."
    return f"; {left:,} of {n_ctx:,} left"


def status_parts(reply: Reply, new_tiles: int, used: int | None, n_ctx: int | None) -> list[str]:
    """Return the short statistics of an answer: why it was chosen, tiles, tokens, times, use of the context.

    Args:
        new_tiles: tiles of this question's pictures; those that were not encoded for it came from a cache.
        used: positions that the conversation takes now, if that is known.
        n_ctx: positions of the context, if that is known.
    """
    usage, timings = reply.usage, reply.timings
    cached = new_tiles - usage.tiles_encoded
    found = [reply.selection.reason] if reply.selection else []
    found += [f"{counted(usage.tiles_encoded, 'tile')} read"] if usage.tiles_encoded else []
    found += [f"{counted(cached, 'tile')} cached"] if cached > 0 else []
    if usage.prompt_tokens:  # a server may count nothing
        found.append(counted(usage.completion_tokens, "token"))
    if reply.thinking:
        of = f"{usage.thinking_tokens:,} of them a thought" if usage.thinking_tokens else "a thought before it"
        found.append(f"{of} (/thought)")
    if timings.time_to_first_token:
        found.append(f"first after {seconds(timings.time_to_first_token)}")
    speed = timings.decode_tokens_per_second
    if speed:
        found.append(f"{speed:,.0f} tokens/s" if speed >= 10 else f"{speed:.1f} tokens/s")
    return [*found, f"{used:,} of {n_ctx:,} used"] if used is not None and n_ctx is not None else found


def thought_end(thought: str, width: int) -> str:
    """Return the end of a thought under way, in one line of at most so many characters."""
    line = " ".join(thought.split())
    return line if len(line) <= width else f"…{line[len(line) - width + 1 :]}"


def statistics(reply: Reply) -> list[tuple[str, str]]:
    """Return all statistics of an answer, as name and value."""
    usage, timings = reply.usage, reply.timings
    known = f"{usage.cached_tokens:,} known, {usage.prompt_tokens - usage.cached_tokens:,} read"
    rows = [
        ("in the context", f"{counted(usage.images, 'picture')}, {counted(usage.tiles, 'tile')}"),
        ("read for this answer", counted(usage.tiles_encoded, "tile")),
        ("prompt", f"{counted(usage.prompt_tokens, 'token')}: {known}"),
        ("answer", f"{counted(usage.completion_tokens, 'token')}, ended by {_ENDS[reply.finish_reason]}"),
        ("cutting tiles", seconds(timings.preprocess)),
        ("encoding tiles", seconds(timings.encode)),
        ("reading the prompt", seconds(timings.prefill)),
        ("first token after", seconds(timings.time_to_first_token)),
        ("answering", f"{seconds(timings.decode)}, {timings.decode_tokens_per_second:,.1f} tokens a second"),
    ]
    if reply.selection:
        rows.append(("chosen", f"{reply.selection.reason}, of {counted(len(reply.selection.candidates), 'answer')}"))
    if usage.thinking_tokens:
        rows.append(("thinking", f"{counted(usage.thinking_tokens, 'token')} of the answer"))
    if usage.drafted_tokens:
        rows.append(("guessed ahead", f"{usage.drafted_tokens:,} tokens, {usage.accepted_tokens:,} of them right"))
    return rows


_ENDS = {"stop": "the model", "length": "its limit", "aborted": "Ctrl-C"}


def columns(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Format rows of name and value as aligned lines."""
    width = max((len(name) for name, _ in rows), default=0)
    return [f"  {name.ljust(width)}  {value}" for name, value in rows]


def part_line(number: int, part: ConversationPart) -> str:
    """Return the line about a part of the conversation that can be dropped, with its tokens."""
    if part.picture is not None:
        what = f"   of which picture {safe_name(PurePath(part.text).name, 40)}"
    else:
        pictures = f" and {counted(part.pictures, 'picture')}" if part.pictures else ""
        what = f'question "{safe_name(part.text, 40)}" with its answer{pictures}'
    return f"{number:>3}  {what}" + ("" if part.tokens is None else f": {counted(part.tokens, 'token')}")


def waiting_pictures(number: int) -> str:
    """Return that pictures of a question that has no answer wait: "1 picture of it waits for another question"."""
    return f"{counted(number, 'picture')} of it wait{'s' * (number == 1)} for another question"


def in_commands(error: InternVLError, *, has_parts: bool, has_clip: bool = False) -> InternVLError:
    """Return an error as the chat shows it: what options and calls of Python would mend, slash commands do.

    Args:
        error: the error that was raised.
        has_parts: whether the conversation has parts to drop.
        has_clip: whether there is a clip with the question.
    """
    if isinstance(error, EqualAnswersError):
        return InvalidRequestError(error.message.replace("=", " ", 1), _DIFFERING[error.option])
    if not isinstance(error, ContextOverflowError):
        return error
    ways = [f"/tiles {error.max_tiles}" if error.max_tiles else ""]
    ways += ["/frames with a smaller number"] if has_clip else []
    ways += ["/drop for parts of the conversation", "/clear for a new one"] if has_parts else []
    ways += [f"a chat begun with --n-ctx {error.n_ctx}" if error.n_ctx else ""]
    found = [way for way in ways if way]
    hint = f"What helps: {', '.join(found)}." if found else "Ask with fewer pictures or less text."
    return InvalidRequestError(error.message, hint)


def summary_row(summary: Summary, now: float | None = None) -> tuple[str, str]:
    """Return the row of a conversation in a list: its id, and its age, title and size."""
    pictures = f", {counted(summary.pictures, 'picture')}" if summary.pictures else ""
    about = f"{safe_name(summary.title)} ({counted(summary.questions, 'question')}{pictures})"
    return summary.id, f"{age(summary.updated, now)}  {about}"


def age(then: float, now: float | None = None) -> str:
    """Format how long ago a time was."""
    passed = max((time.time() if now is None else now) - then, 0)
    for size, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if passed >= size:
            return f"{counted(int(passed // size), name)} ago"
    return "just now"
