"""The options that `internvl ask` alone has, but for those of `form_options`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from internvl_gguf.cli.options import MODEL_VARIABLE
from internvl_gguf.config import DEFAULT_THRESHOLD, PictureOptions

_BATCH: Final = "Many questions"
_CASCADE: Final = "Where the answer is not sure"

BATCH_PARALLEL: Final = 4
"""Questions of a batch answered at once where nothing else is said: most of what batching gains, a quarter the memory
of what would gain the rest."""

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
BatchOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.jsonl",
        help="Answer the questions of a file (- for stdin), one JSON object a line: prompt, images, videos, id, "
        "system, and options by their names, as max_tokens. The answers are JSON lines, in the same order. Fewer "
        "--max-tiles are faster.",
        show_default=False,
        rich_help_panel=_BATCH,
    ),
]
OutputOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE.jsonl",
        help="Write the answers of --batch here instead; run again, it goes on with what is not answered yet, by this "
        "model and with these options.",
        show_default=False,
        rich_help_panel=_BATCH,
    ),
]
ParallelOption = Annotated[
    int | None,
    typer.Option(
        help=f"Questions of --batch answered at once; {BATCH_PARALLEL} if left out. Each takes a KV cache.",
        show_default=False,
        rich_help_panel=_BATCH,
    ),
]
DropOthersOption = Annotated[
    bool,
    typer.Option(
        "--drop-others",
        help="Drop the answers in --output to lines that --batch does not have; without this they are an error.",
        show_default=False,
        rich_help_panel=_BATCH,
    ),
]
TimingsOption = Annotated[bool, typer.Option("--verbose", "-v", help="Show what the answer took, on stderr.")]
LogOption = Annotated[bool, typer.Option("--log", "-vv", help="Show that and llama.cpp's log, on stderr.")]
