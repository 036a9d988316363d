"""The output of `internvl quantize`: a bar while it works, the files made, and those that could be made."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from internvl_gguf.cli.output import print_json, print_lines, print_table, progress_bars, say
from internvl_gguf.errors import LibraryError
from internvl_gguf.utils.sizes import format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from internvl_gguf.quantizing import Calibration, ImportanceMatrix, QuantizedFile, Quantizer, QuantType
    from internvl_gguf.quantizing.quantizer import PlannedFile
    from internvl_gguf.quantizing.quantizer_process import Fallback


_LEAST_IN_GIB: Final = 2**28


class ProgressBar:
    """Progress of long work: a bar on a terminal, elsewhere only the line that says what begins.

    Args:
        advance: called with how much of how much is done.
        say: prints a line for the user beside the bar.
    """

    def __init__(self, advance: Callable[[int, int], None], say: Callable[[str], None]) -> None:
        self.advance = advance
        self.say = say


@contextlib.contextmanager
def progress_bar(label: str) -> Iterator[ProgressBar]:
    """Say what begins, and show its progress until it ends."""
    with progress_bars("bar", "count", "short time left") as bars:
        if not bars.are_shown:
            say(f"{label}.")
        change = bars.add(label)
        yield ProgressBar(lambda done, count: change(completed=done, total=count), bars.say)


def tell_made(made: QuantizedFile) -> None:
    """Print a file that was made to stdout."""
    size = f"{format_size(made.n_bytes)} of {format_size(made.source_bytes)}"
    print_lines(f"{made.path}: {size}, {made.bits_per_weight:.2f} bits a weight, {made.seconds:.1f} s", hang=4)
    if made.fallbacks:
        print_lines(f"  {_fallbacks(made.fallbacks, made.matrices)}; their rows do not divide into its blocks.")


def _fallbacks(fallbacks: Sequence[Fallback], matrices: int) -> str:
    """Return how many matrices did not get their type: "3 of 23 matrices fell back, 2 to Q5_0, 1 to Q8_0"."""
    given = [fallback.given for fallback in fallbacks]
    counts = ", ".join(f"{given.count(kind)} to {kind}" for kind in dict.fromkeys(given))
    return f"{len(fallbacks)} of {matrices} matrices fell back, {counts}"


def tell_plans(quantizer: Quantizer, kinds: Sequence[QuantType] | None, *, json_output: bool) -> None:
    """Print the sizes that types would take, exact except for some kilobytes.

    Args:
        quantizer: of the model.
        kinds: the types; None for all that there are.
        json_output: whether to print one JSON document instead of a table.

    Raises:
        InvalidRequestError: one of `kinds` is not for a vision encoder.
    """
    from internvl_gguf.quantizing import TYPES
    from internvl_gguf.quantizing.quant_types import check_kind

    source = quantizer.source
    check_kind(source.kind, kinds or ())
    plans: list[PlannedFile] = []
    for kind in kinds or [each for each in TYPES if source.kind == "text" or each.for_mmproj]:
        try:
            plans.append(quantizer.plan(kind))
        except LibraryError as error:
            say(error.message)
    if json_output:
        print_json({"source": str(source.path), "kind": source.kind, "bytes": source.n_bytes,
                    "types": [asdict(plan) for plan in plans]})  # fmt: skip
        return
    _print_plans(plans, len(source.matrices))
    say("~: the size of the file, at most some kilobytes too large. Bits are those of the weights alone.")
    say(f"The source takes {format_size(source.n_bytes)}. Nothing was made.")


def _print_plans(plans: Sequence[PlannedFile], matrices: int) -> None:
    rows: list[tuple[str, ...]] = []
    largest = max((plan.n_bytes for plan in plans), default=0)
    unit, scale = ("GiB", 2**30) if largest >= _LEAST_IN_GIB else ("MiB", 2**20)
    for plan in sorted(plans, key=lambda each: -each.n_bytes):
        notes = ["needs an importance matrix"] if plan.needs_matrix else []
        if plan.fallbacks:
            notes.append(_fallbacks(plan.fallbacks, matrices))
        rows.append(
            (plan.label, f"~{plan.n_bytes / scale:.2f} {unit}", f"{plan.bits_per_weight:.2f}", "; ".join(notes))
        )
    print_table(("TYPE", "SIZE", "BITS A WEIGHT", ""), rows, least_first=("BITS A WEIGHT",))


def file_as_json(made: QuantizedFile) -> dict[str, Any]:
    """Return a file as `--json` shows it."""
    return {
        "path": str(made.path),
        "type": made.label,
        "bytes": made.n_bytes,
        "source_bytes": made.source_bytes,
        "bits_per_weight": round(made.bits_per_weight, 3),
        "seconds": round(made.seconds, 3),
        "imatrix": made.has_matrix,
        "matrices": made.matrices,
        "fallbacks": [asdict(fallback) for fallback in made.fallbacks],
    }


def matrix_as_json(matrix: ImportanceMatrix | None, calibration: Calibration | None) -> dict[str, Any] | None:
    """Return an importance matrix as `--json` shows it, with the amount of calibration data that the model read."""
    if matrix is None:
        return None
    shown: dict[str, Any] = {"tensors": len(matrix.entries), "positions": matrix.positions}
    if calibration is not None:
        shown |= {name: value for name, value in vars(calibration).items() if name != "matrix"}
    return shown
