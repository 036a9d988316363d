"""The options of `internvl ask --batch`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from internvl_gguf.bulk.layout import Workers, read_workers
from internvl_gguf.bulk.sources.source import IMAGE_COLUMNS
from internvl_gguf.bulk.tables import TABLE_SUFFIXES
from internvl_gguf.cli.parameters import Group, expand, parameter
from internvl_gguf.cli.run import option_errors

_BATCH: Final = "Many questions"
_SUFFIXES: Final = (".jsonl", ".ndjson", *TABLE_SUFFIXES)

BATCH_PARALLEL: Final = 4
"""Questions of a batch answered at once where nothing else is said: most of what batching gains, a quarter the memory
of what would gain the rest."""

BATCH_EMBEDDING_BYTES: Final = 128 * 2**20
"""Memory for embeddings in a batch, where most pictures occur once: enough for several questions in a row about one.
With that of a conversation a run grew by half a gigabyte until it was full."""

_BatchOption = Annotated[
    Path | None,
    typer.Option(
        metavar="SOURCE",
        help="Ask about many: a folder or a glob in quotes, a zip or tar of pictures, the rows of a .csv or .parquet, "
        "or lines of JSON (- for stdin) with prompt, images, videos, id, system and options by their names. The "
        "question may have places for {name}, {path} and columns. Fewer --max-tiles are faster.",
        show_default=False,
        rich_help_panel=_BATCH,
    ),
]
_OutputOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Write the answers of --batch to a .jsonl, .csv or .parquet instead; run again, it goes on with what is "
        "not answered yet, by this model and with these options.",
        show_default=False,
        rich_help_panel=_BATCH,
    ),
]
_SampleOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Ask --batch about N only, from all over it, and show the answers: a look before the night.",
        show_default=False,
        rich_help_panel=_BATCH,
        allow_from_autoenv=False,
    ),
]
_ImageColumnOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=f"The column of a table with the pictures; if left out, the first of {', '.join(IMAGE_COLUMNS[:4])}, ...",
        show_default=False,
        rich_help_panel=_BATCH,
        allow_from_autoenv=False,
    ),
]
_UnorderedOption = Annotated[
    bool,
    typer.Option(
        "--unordered",
        help="Write answers to stdout as they end, not in the order of --batch.",
        show_default=False,
        rich_help_panel=_BATCH,
        allow_from_autoenv=False,
    ),
]
_ParallelOption = Annotated[
    int | None,
    typer.Option(
        help=f"Questions of --batch answered at once; {BATCH_PARALLEL} if left out. Each takes a KV cache.",
        show_default=False,
        rich_help_panel=_BATCH,
    ),
]
_WorkersOption = Annotated[
    str | None,
    typer.Option(
        metavar="N|auto",
        help="Processes that answer --batch, each with a model of its own; 1 if left out. `auto` is one for each GPU, "
        "on a CPU as many as the first lines show to be best. They share the CPU threads.",
        show_default=False,
        rich_help_panel=_BATCH,
    ),
]
_RayOption = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Answer --batch on a cluster of Ray: HOST:PORT of its head, auto for the one that this machine is of, "
        "local for one of this machine. --workers is how many models answer there; one a GPU, else a machine, if left "
        "out.",
        show_default=False,
        rich_help_panel=_BATCH,
        allow_from_autoenv=False,
    ),
]
_DropOthersOption = Annotated[
    bool,
    typer.Option(
        "--drop-others",
        help="Drop the answers in --output to lines that --batch does not have; without this they are an error.",
        show_default=False,
        rich_help_panel=_BATCH,
    ),
]


@dataclass(frozen=True)
class BatchOptions:
    """The options that go with `--batch`.

    Attributes:
        batch: what is asked about; None without --batch, `-` for lines on stdin.
        output: the file of answers; None for stdout.
        sample: how many lines are asked; None for all.
        parallel: questions answered at once; None for `BATCH_PARALLEL`.
        workers: processes that answer, each with a model of its own; None for one.
        ray: address of the cluster that answers; None for this machine alone.
        image_column: the column of a table with the pictures; None for the usual names.
        unordered: whether answers on stdout come as they end.
        drop_others: whether answers in `output` to other lines are dropped.
    """

    batch: Path | None = None
    output: Path | None = None
    sample: int | None = None
    parallel: int | None = None
    workers: Workers | None = None
    ray: str | None = None
    image_column: str | None = None
    unordered: bool = False
    drop_others: bool = False

    def check(self) -> None:
        """Refuse options that go with others only.

        Raises:
            typer.BadParameter: there is such an option.
        """
        if self.batch is None:
            for name, value in vars(self).items():
                if value:
                    raise typer.BadParameter("goes with --batch only", param_hint=f"--{name.replace('_', '-')}")
        elif self.sample is not None and self.sample < 1:
            raise typer.BadParameter(f"{self.sample} is no number of lines; give 1 or more", param_hint="--sample")
        elif self.output is not None and self.output.suffix.lower() not in _SUFFIXES and not self.output.is_dir():
            raise typer.BadParameter(
                f"answers are written as .jsonl, .csv or .parquet; {self.output} ends in none of these",
                param_hint="--output",
            )
        elif self.drop_others and self.output is None:
            raise typer.BadParameter("goes with --output only", param_hint="--drop-others")
        elif self.drop_others and self.sample is not None:
            raise typer.BadParameter("a sample drops no answers", param_hint="--drop-others")


_PARAMETERS: Final = (
    parameter("batch", _BatchOption),
    parameter("output", _OutputOption),
    parameter("sample", _SampleOption),
    parameter("parallel", _ParallelOption),
    parameter("workers", _WorkersOption),
    parameter("ray", _RayOption),
    parameter("image_column", _ImageColumnOption),
    parameter("unordered", _UnorderedOption, default=False),
    parameter("drop_others", _DropOthersOption, default=False),
)


def takes_batch_options(command: Callable[..., None]) -> Callable[..., None]:
    """Decorator: replaces the command's parameter `many`, a `BatchOptions`, by the options of batches."""
    return expand(command, {"many": Group(_PARAMETERS, _batch_options)})


def _batch_options(values: dict[str, Any]) -> BatchOptions:
    if values["workers"] is not None:
        with option_errors():
            values["workers"] = read_workers(values["workers"])
    found = BatchOptions(**values)
    found.check()
    return found
