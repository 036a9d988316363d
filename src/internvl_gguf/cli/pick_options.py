"""The options of `internvl pick`."""

from __future__ import annotations

from typing import Annotated

import typer

from internvl_gguf.cli.options import MODEL_VARIABLE, given
from internvl_gguf.config import KVType
from internvl_gguf.planning.task_scores import Task

ModelArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="MODEL",
        help=f"A catalogue's name, owner/repo, a path or `demo`; {MODEL_VARIABLE}, or the whole family, if left out.",
        show_default=False,
    ),
]
MmprojOption = Annotated[
    str | None,
    given("FILE", "The vision encoder of a text model on this disk; the one beside it if left out.", None, "--mmproj"),
]
VRAMOption = Annotated[
    str | None,
    given(
        "SIZE[,SIZE]...",
        'Memory of each GPU, as "12GiB", "24GiB,12GiB" or "2x24GiB"; "none" for no GPU; what is free here if left '
        "out. A card of 12 GB has 12 GiB, of which a desktop often takes 0.5 to 1.",
        None,
    ),
]
RAMOption = Annotated[
    str | None,
    given(
        "SIZE",
        "All memory of the host, of which an eighth, at most 4 GiB, is left to the system; what is free here if left "
        "out.",
        None,
    ),
]
MacOption = Annotated[
    str | None, given("SIZE", "Memory of a Mac with an M-series chip, in place of --vram and --ram.", None)
]
ContextOption = Annotated[
    int | None,
    given(
        None,
        "Tokens of a conversation; 8192, or enough for the pictures, if left out.",
        None,
        "--context",
        "--n-ctx",
        "-c",
        min=1,
    ),
]
ImagesOption = Annotated[
    int | None,
    given(
        None, "Pictures of a conversation; 1, or the 32 frames of a clip with --for video, if left out.", None, min=0
    ),
]
MaxTilesOption = Annotated[
    int | None,
    given(
        None,
        "Most tiles of a picture, the thumbnail not counted: fewer are faster; as the mmproj says, else 12, or 1 "
        "with --for video, if left out.",
        None,
    ),
]
ParallelOption = Annotated[int, typer.Option(min=1, help="Conversations at once.")]
KVOption = Annotated[
    KVType | None,
    given(
        None,
        "Element type of the KV cache; f16, or q8_0 where only that fits, if left out.",
        None,
        "--kv",
        "--kv-type",
        case_sensitive=False,
    ),
]
TaskOption = Annotated[
    Task | None,
    given(
        None,
        "Weigh published scores for a task beside memory, speed and the loss of a quant.",
        None,
        "--for",
        case_sensitive=False,
    ),
]
SpeedOption = Annotated[
    bool, typer.Option("--speed", help="The fastest of those that lose little: of the family a small one.")
]
QualityOption = Annotated[
    bool,
    typer.Option("--quality", help="The most faithful, however slow: of the family a large one."),
]
WhyOption = Annotated[str | None, given("QUANT", "Explain one quant: its memory by part, and its place.", None)]
HeadersOption = Annotated[
    bool, typer.Option("--headers", help="Read the headers of all files, 6 MB each, for exact numbers.")
]
AllOption = Annotated[bool, typer.Option("--all", "-a", help="Show everything that fits.")]
