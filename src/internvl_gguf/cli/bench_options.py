"""The options of `internvl bench`; those of llama-bench under its names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from internvl_gguf.cli.options import given

FormatName = Literal["md", "json", "csv"]

_WHAT = "What is measured"
_RUN = "How it is run: lists with commas are swept"
_REPORT = "The report"


ModelsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="MODEL[:QUANT,QUANT...]",
        help="A catalogue's name or owner/repo with quants, paths of .gguf files, a folder, or `demo`; INTERNVL_MODEL "
        "if left out.",
        show_default=False,
    ),
]
AllOption = Annotated[bool, typer.Option("--all", "-a", help="Every quant there is.", rich_help_panel=_WHAT)]
FitsOption = Annotated[
    str | None, given("SIZE[,SIZE]...", "Every quant that by the plan fits the memory, as 12GiB.", _WHAT, "--fits")
]
MmprojsOption = Annotated[
    str | None,
    given(
        "PRECISION|FILE[,...]",
        "Vision encoders to run each quant with; the one that suits this machine if left out.",
        _WHAT,
        "--mmproj",
    ),
]
NoSpeedOption = Annotated[bool, typer.Option("--no-speed", help="Leave speed out.", rich_help_panel=_WHAT)]
NoQualityOption = Annotated[bool, typer.Option("--no-quality", help="Leave quality out.", rich_help_panel=_WHAT)]
OnlyOption = Annotated[
    str | None, given("PART[,PART]...", "Only these of speed, memory, quality, accuracy.", _WHAT, "--only")
]
ReferenceOption = Annotated[
    list[str] | None,
    given("QUANT", "What quality is measured against; the quant of the most bits if left out.", _WHAT, "--reference"),
]
TextOption = Annotated[
    str | None, given("FILE", "Text to measure quality on, or off; one comes with the package.", _WHAT, "--text")
]
ChunksOption = Annotated[
    int | None, given("N", "Score so many chunks of 512 tokens of the text; all if left out.", _WHAT, "--chunks", min=1)
]
PicturesOption = Annotated[
    str | None,
    given(
        "DIR|JSONL",
        "Pictures to measure quality on, or questions about them as of --task; or off. Some come with the package.",
        _WHAT,
        "--pictures",
    ),
]
TaskOption = Annotated[
    list[str] | None,
    given(
        "FILE.jsonl",
        'Questions for accuracy, a line each: {"image": FILE, "prompt": TEXT, "answer": TEXT}. May be repeated.',
        _WHAT,
        "--task",
    ),
]
PromptOption = Annotated[
    str | None, given("N", "Tokens of the prompt that is read; 512 if left out.", _RUN, "--n-prompt", "-p")
]
GenOption = Annotated[str | None, given("N", "Tokens of the answer; 128 if left out.", _RUN, "--n-gen", "-n")]
ContextOption = Annotated[
    str | None,
    given("N", "Positions of the context; 8192, or all there are, if left out.", _RUN, "--n-ctx", "--context", "-c"),
]
BatchOption = Annotated[str | None, given("N", "Most positions decoded in one call.", _RUN, "--batch-size", "-b")]
UbatchOption = Annotated[str | None, given("N", "Most positions computed at once.", _RUN, "--ubatch-size", "-ub")]
ThreadsOption = Annotated[
    str | None, given("N", "CPU threads; what suits this machine if left out.", _RUN, "--threads", "-t")
]
LayersOption = Annotated[
    str | None, given("N", "Layers on the GPU: auto, all or numbers.", _RUN, "--n-gpu-layers", "-ngl")
]
TypeKOption = Annotated[
    str | None, given("TYPE", "Element type of the KV cache: f16, q8_0, ...", _RUN, "--cache-type-k", "-ctk")
]
TypeVOption = Annotated[
    str | None, given("TYPE", "The same: keys and values have one type.", _RUN, "--cache-type-v", "-ctv")
]
FlashOption = Annotated[str | None, given("WHEN", "Flash attention: auto, on, off.", _RUN, "--flash-attn", "-fa")]
RepetitionsOption = Annotated[
    int,
    typer.Option(
        "--repetitions", "-r", min=1, help="Of each measurement, after one that does not count.", rich_help_panel=_RUN
    ),
]
ParallelOption = Annotated[int, typer.Option(min=1, help="Decode so many answers together, too.", rich_help_panel=_RUN)]
FreshOption = Annotated[
    bool,
    typer.Option(
        "--resume/--fresh", help="Use what was measured before, or measure all of it anew.", rich_help_panel=_RUN
    ),
]
BudgetOption = Annotated[
    str | None,
    given("SIZE", "Memory that the advice is for, as 12GiB; what is free if left out.", _REPORT, "--budget"),
]
FormatOption = Annotated[
    FormatName | None, given("md|json|csv", "The report in this form.", _REPORT, "-o", "--output-format")
]
JSONOption = Annotated[bool, typer.Option("--json", help="The same as -o json.", rich_help_panel=_REPORT)]
OutputOption = Annotated[Path | None, given("FILE", "Write the report here, not to stdout.", _REPORT, "--output")]
HTMLOption = Annotated[Path | None, given("FILE", "Write a page with charts, too.", _REPORT, "--html")]
PlotOption = Annotated[Path | None, given("FILE", "Write the charts, too; needs matplotlib.", _REPORT, "--plot")]
