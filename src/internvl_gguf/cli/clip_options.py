"""The options of commands that take clips: the files, and which of their frames are shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final

import typer

from internvl_gguf.cli.parameters import Group, expand, parameter, value_sources
from internvl_gguf.cli.run import option_errors
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.utils.clip_times import parse_time
from internvl_gguf.utils.kinds import FramesOrAuto
from internvl_gguf.video.clip_wishes import ClipWishes

PANEL: Final = "Clips"
_TIME: Final = "TIME"


def _option(metavar: str, help_text: str, *names: str) -> Any:
    """Return an option of one question, which no variable sets."""
    return typer.Option(
        *names,
        metavar=metavar,
        help=help_text,
        show_default=False,
        rich_help_panel=PANEL,
        allow_from_autoenv=False,
    )


VideoOption = Annotated[
    list[str] | None,
    _option("FILE", "A clip, also a GIF, WebP or APNG animation; - for one on stdin; may be repeated.", "--video"),
]
_FramesOption = Annotated[
    str | None,
    FramesOrAuto(),
    _option("N|auto", "Frames of each clip that are shown, auto for as many as fit the context; 8 if left out."),
]
_FPSOption = Annotated[
    float | None, _option("RATE", "Frames a second of the clip that are shown, --frames at most.", "--fps")
]
_StartOption = Annotated[
    str | None, _option(_TIME, "Where in the clip to begin: seconds, 1:23.5 or 0:01:23.5.", "--start")
]
_EndOption = Annotated[str | None, _option(_TIME, "Where in the clip to end, in the same form.", "--end")]
_PARAMETERS: Final = (
    parameter("frames", _FramesOption),
    parameter("fps", _FPSOption),
    parameter("start", _StartOption),
    parameter("end", _EndOption),
)


def takes_clip_options(command: Callable[..., None]) -> Callable[..., None]:
    """Decorator: replaces the command's parameter `wishes`, a `ClipWishes`, by the options of clips."""
    return expand(command, {"wishes": Group(_PARAMETERS, _wishes)})


def _wishes(values: dict[str, Any]) -> ClipWishes:
    with option_errors():
        for name in ("start", "end"):
            if values[name] is not None:
                values[name] = parse_time(f"--{name}", values[name])
        if values["frames"] is not None:
            values["frames"] = _frames(values["frames"])
        return ClipWishes(**values)


def _frames(text: str) -> int | str:
    kind = FramesOrAuto()
    try:
        found: int | str = kind.read(text.lower())
    except ValueError:
        raise InvalidRequestError(f"--frames is {text!r}.", f"Give {kind.typed}.") from None
    return found


def refuse_wishes_without_clip(wishes: ClipWishes, animation: str | None = None) -> None:
    """Refuse options that say which frames are shown, or how, where there is no clip.

    An option that a variable or config.toml sets for all questions is not refused.

    Args:
        wishes: which frames are shown.
        animation: the name of an animation that was given as a picture; None for none.

    Raises:
        typer.BadParameter: there is such an option.
    """
    typed = [*wishes.given, *(["frame-times"] if value_sources.get().get("frame_times") == "COMMANDLINE" else [])]
    where = "--video FILE" if animation is None else f"give {animation} with --video"
    for name in typed:
        raise typer.BadParameter(f"goes with a clip only: {where}", param_hint=f"--{name}")
