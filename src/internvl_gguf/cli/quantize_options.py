"""The options of `internvl quantize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_MATRIX = "Importance matrix"

SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="The model in BF16, F16 or F32: a .gguf of a text model or of a vision encoder (mmproj), a catalogue's "
        "name or owner/repo:BF16, or `demo`.",
    ),
]
TypesArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="TYPE[,TYPE]...",
        help="What to make of it, as Q4_K_M or Q4_K_M,Q6_K; left out, what each type would take is listed.",
        show_default=False,
    ),
]
OutputArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="OUTPUT",
        help="A .gguf file or a folder. NAME-TYPE.gguf if left out: beside the source, or in this folder for a model "
        "of the hub or the demo.",
        show_default=False,
    ),
]
CalibrateOption = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FILE|FOLDER|JSONL",
        help="Make an importance matrix of a text, a picture, all pictures of a folder, or questions with answers, a "
        'line each: {"prompt", "images", "answer"}. May be repeated.',
        show_default=False,
        rich_help_panel=_MATRIX,
    ),
]
MatrixOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="An importance matrix of llama-imatrix or --save-imatrix; what --calibrate finds is added to it.",
        show_default=False,
        rich_help_panel=_MATRIX,
    ),
]
SaveMatrixOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Keep the importance matrix, in the format of llama-imatrix. Without a TYPE nothing else is made.",
        show_default=False,
        rich_help_panel=_MATRIX,
    ),
]
ChunksOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Most chunks of 512 tokens that --calibrate reads of texts; all if left out.",
        show_default=False,
        rich_help_panel=_MATRIX,
    ),
]
MmprojOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|PRECISION",
        help="The vision encoder that --calibrate sees pictures with; found beside the source if left out.",
        show_default=False,
        rich_help_panel=_MATRIX,
    ),
]
LayersOption = Annotated[
    str,
    typer.Option(
        "--n-gpu-layers",
        "-ngl",
        help="Layers on the GPU for --calibrate: auto, all or a number.",
        rich_help_panel=_MATRIX,
    ),
]
PureOption = Annotated[
    bool, typer.Option("--pure", help="Store every matrix in the type's own format, not in a mixture of several.")
]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", "-t", min=1, help="CPU threads; all if left out.", show_default=False)
]
ForceOption = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Replace files that are there, quantise what is quantised already, and calibrate with a model that by the "
        "plan has no room.",
    ),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Tell what the files would take, make nothing.")]
