"""The options of `internvl quantize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from internvl_gguf.cli.options import given

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
ToOption = Annotated[Path | None, given("OUTPUT", "The same as OUTPUT behind the types.", None, "--output", "-o")]
CalibrateOption = Annotated[
    list[Path] | None,
    given(
        "FILE|FOLDER|JSONL",
        "Make an importance matrix of a text, a picture, all pictures of a folder, or questions with answers, a line "
        'each: {"prompt", "images", "answer"}. May be repeated.',
        _MATRIX,
    ),
]
MatrixOption = Annotated[
    Path | None,
    given(
        "FILE",
        "An importance matrix of llama-imatrix or --save-imatrix; what --calibrate finds is added to it.",
        _MATRIX,
    ),
]
SaveMatrixOption = Annotated[
    Path | None,
    given(
        "FILE",
        "Keep the importance matrix, in the format of llama-imatrix. Without a TYPE nothing else is made.",
        _MATRIX,
    ),
]
ChunksOption = Annotated[
    int | None,
    given("N", "Most chunks of 512 tokens that --calibrate reads of texts; all if left out.", _MATRIX, min=1),
]
MmprojOption = Annotated[
    str | None,
    given(
        "FILE|PRECISION",
        "The vision encoder that --calibrate sees pictures with; found beside the source if left out.",
        _MATRIX,
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
ThreadsOption = Annotated[int | None, given("N", "CPU threads; all if left out.", None, "--threads", "-t", min=1)]
ForceOption = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Replace files that are there, quantise what is quantised already, and calibrate with a model that by the "
        "plan has no room.",
    ),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Tell what the files would take, make nothing.")]
