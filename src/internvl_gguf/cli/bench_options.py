"""The options of `internvl bench`; those of llama-bench under its names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from internvl_gguf.bench.sweep import N_GEN, N_PROMPT, SWEPT, Sweep
from internvl_gguf.cli.options import given, insecure_network_option, rpc_option
from internvl_gguf.cli.parameters import Group, expand, parameter
from internvl_gguf.cli.run import option_errors
from internvl_gguf.utils.kinds import Whole
from internvl_gguf.utils.options import Declared

FormatName = Literal["md", "json", "csv"]

_WHAT = "What is measured"
_RUN = "How it is run: lists with commas are swept"
_BEST_OF = "Several answers to each question"
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
BestOfOption = Annotated[
    str | None,
    given(
        "N[,N]...",
        "What 1, 2, 4, ... answers are worth, of which a judge chooses one; alone, unless --only names other parts. "
        "With --cascade the vote of so many, whose share says how sure it is.",
        _BEST_OF,
        "--best-of",
        allow_from_autoenv=False,
    ),
]
CascadeOption = Annotated[
    str | None,
    given(
        "MODEL,MODEL[,MODEL]...",
        "Instead of all that: at which confidence of one model the next, bigger one is to be asked, found with the "
        "questions of --task.",
        _WHAT,
        "--cascade",
        allow_from_autoenv=False,
    ),
]
JudgeOption = Annotated[
    list[str] | None,
    given(
        "vote|certainty|MODEL",
        "Who chooses: the vote, certainty, or a critic by the name of its model; the first two if left out. May be "
        "repeated.",
        _BEST_OF,
        "--judge",
        allow_from_autoenv=False,
    ),
]
TemperatureOption = Annotated[
    float | None,
    given(
        "T",
        "Of all answers; if left out, the first is greedy and the others have 0.7.",
        _BEST_OF,
        "--temperature",
        "--temp",
        allow_from_autoenv=False,
    ),
]
SeedOption = Annotated[
    int | None,
    given("N", "Makes other answers; 0 if left out.", _BEST_OF, "--seed", allow_from_autoenv=False),
]
RepetitionsOption = Annotated[
    int,
    typer.Option(
        "--repetitions", "-r", min=1, help="Of each measurement, after one that does not count.", rich_help_panel=_RUN
    ),
]
ParallelOption = Annotated[int, typer.Option(min=1, help="Decode so many answers together, too.", rich_help_panel=_RUN)]
RPCOption = Annotated[str | None, rpc_option("Lay the text models on llama.cpp's RPC servers.", _RUN)]
InsecureNetworkOption = Annotated[bool, insecure_network_option(_RUN)]
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
    FormatName | None, given("md|json|csv", "The report in this form.", _REPORT, "--output-format")
]
JSONOption = Annotated[bool, typer.Option("--json", help="The same as -o json.", rich_help_panel=_REPORT)]
OutputOption = Annotated[
    str | None,
    given(
        "FILE|FORM",
        "Write the report to this file, in the form of its ending: .md, .json, .csv, .html, .png. A form alone, as md, "
        "goes to stdout.",
        _REPORT,
        "-o",
        "--output",
    ),
]
HTMLOption = Annotated[Path | None, given("FILE", "Write a page with charts, too.", _REPORT, "--html")]
PlotOption = Annotated[Path | None, given("FILE", "Write the charts, too; needs matplotlib.", _REPORT, "--plot")]


def takes_sweep(command: Callable[..., None]) -> Callable[..., None]:
    """Decorator: puts an option for each list that is swept in the place of the parameter `sweep`, a `Sweep`."""
    return expand(command, {"sweep": Group(tuple(sweep_parameters()), _sweep)})


def sweep_parameters() -> Iterator[inspect.Parameter]:
    """Yield the parameters that only llama-bench has, and one for each swept field of `EngineConfig`."""
    yield _list("n_prompt", "N", f"Tokens of the prompt that is read; {N_PROMPT} if left out.", "--n-prompt", "-p")
    yield _list("n_gen", "N", f"Tokens of the answer; {N_GEN} if left out.", "--n-gen", "-n")
    for name, declared in SWEPT.items():
        values = "N" if isinstance(declared.kind, Whole) else "|".join(declared.kind.choices)
        if name == "kv_type":
            yield _list("type_k", values, declared.help, "--cache-type-k", "-ctk")
            yield _list("type_v", values, "The same: keys and values have one type.", "--cache-type-v", "-ctv")
        else:
            yield _list(_parameter_name(declared), values, declared.help, *declared.flags)


def _list(name: str, metavar: str, help_text: str, *flags: str) -> inspect.Parameter:
    return parameter(name, Annotated[str | None, given(metavar, help_text, _RUN, *flags)])


def _parameter_name(declared: Declared) -> str:
    return declared.flags[0].removeprefix("--").replace("-", "_")


def _sweep(values: dict[str, Any]) -> Sweep:
    """Return the lists that the parameters give, by the names of fields of `EngineConfig`.

    Raises:
        typer.Exit: a list that cannot be read; the user was told.
    """
    fields = {_parameter_name(declared): name for name, declared in SWEPT.items()}
    with option_errors():
        return Sweep.parse(**{fields.get(name, name): text for name, text in values.items()})
