"""The options that `internvl ask` alone has, but for those of `form_options`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from internvl_gguf.cli.options import MODEL_VARIABLE
from internvl_gguf.config import DEFAULT_THRESHOLD, PictureOptions

_CASCADE: Final = "Where the answer is not sure"

WordsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[MODEL] PROMPT",
        help="The model (a name with :QUANT, owner/repo:QUANT, a .gguf path or `demo`; "
        f"{MODEL_VARIABLE} if left out) and the question. "
        "Without a question, or with -, it is read from stdin.",
        show_default=False,
    ),
]
ImageOption = Annotated[
    list[str] | None,
    typer.Option(
        "--image",
        "-i",
        metavar="FILE",
        help="A picture or a clip, - for one on stdin; may be repeated.",
        show_default=False,
        allow_from_autoenv=False,
    ),
]
PromptOption = Annotated[
    str | None,
    typer.Option(
        "--prompt",
        "-p",
        metavar="TEXT",
        help="The question, as PROMPT; with --batch that of lines without one.",
        show_default=False,
        allow_from_autoenv=False,
    ),
]
PromptPicturesOption = Annotated[
    bool,
    typer.Option(
        "--prompt-pictures/--no-prompt-pictures",
        help="Attach the pictures and clips whose paths stand in the question.",
        rich_help_panel=PictureOptions.PANEL,
    ),
]
BoxesOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Write the boxes of the answer: drawn over the picture (.png, .jpg, .webp; of several pictures as FILE-1, "
        "FILE-2, ...) or in COCO's format (.json). An older file is replaced.",
        show_default=False,
        allow_from_autoenv=False,
    ),
]
EscalateOption = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL[,MODEL]...",
        help="Ask these models, too, one after the other, until one is sure enough of its answer; the smallest first.",
        show_default=False,
        rich_help_panel=_CASCADE,
    ),
]
ThresholdOption = Annotated[
    str | None,
    typer.Option(
        metavar="P[,P]...",
        help=f"How sure is sure enough, 0 to 1; {DEFAULT_THRESHOLD} if left out. One for each model but the last, or "
        "one for all; `internvl bench --cascade` finds it.",
        show_default=False,
        rich_help_panel=_CASCADE,
    ),
]
TimingsOption = Annotated[bool, typer.Option("--verbose", "-v", help="Show what the answer took, on stderr.")]
LogOption = Annotated[bool, typer.Option("--log", "-vv", help="Show that and llama.cpp's log, on stderr.")]
