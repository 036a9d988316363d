"""The part of `internvl doctor` about threads and batches on the CPU: what was chosen, and by which times."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from internvl_gguf.cli.output import print_lines, print_table
from internvl_gguf.hardware.device_speed import BITS_PER_WEIGHT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from internvl_gguf.hardware.cpu_tuning import HostSettings, Tuning

_FIDELITY = (
    "The type of keys and values and flash attention are not chosen by speed: they change what the model says "
    "(docs/parity.md). Keys and values stay in F16, on a CPU without flash attention, unless you ask for others."
)


def tuning_report(settings: HostSettings, recorded: Tuning | None, measured: Tuning | None) -> dict[str, Any]:
    """Return the tuning for `--json`: the settings, when they were measured (null by rule), the times in seconds.

    Args:
        settings: what models use.
        recorded: what it follows from; None by rule.
        measured: what was measured just now; its times are shown even if nothing was chosen by them.
    """
    shown = measured or recorded
    return {
        **asdict(settings),
        "measured_at": recorded.measured_at if recorded else None,
        "disturbed_measurements": shown.disturbed if shown else 0,
        "seconds": None
        if shown is None
        else {
            "one_token_by_threads": shown.token,
            "512_tokens_by_threads": shown.batch,
            "position_by_n_ubatch": shown.ubatch,
            "token_of_each_by_answers_at_once": shown.answers,
            "attention": {name: seconds._asdict() for name, seconds in shown.attention.items()},
        },
    }


def tuning_rows(settings: HostSettings, recorded: Tuning | None) -> list[tuple[str, str]]:
    """Return the rows about tuning for the table of `internvl doctor`."""
    if recorded is None:
        rule = (
            f"{settings.n_threads}, one for each physical core; `internvl doctor --measure` looks for a better number"
        )
        return [("threads", rule)]
    return [
        (
            "threads",
            f"{settings.n_threads} for a token, {settings.n_threads_batch} for batches and pictures; batches of "
            f"{settings.n_ubatch} on the CPU: measured {recorded.measured_at}",
        ),
        ("at once", f"{settings.n_parallel} answer{'s'[: settings.n_parallel > 1]} by `internvl serve`: measured"),
    ]


def waiting_rows(waiting: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return rows that say how threads wait for each other.

    Args:
        waiting: `llama.openmp.SpinSettings` as a dictionary.
    """
    if not waiting["runtimes"]:
        return []
    setting = ", ".join(waiting["settings"])
    source = "set in the environment" if waiting["set_by"] == "environment" else "set by internvl-gguf"
    rows = [
        ("idle threads", f"how they wait for each other: {setting} ({source}) for {', '.join(waiting['runtimes'])}")
    ]
    if waiting["loaded_before"]:
        names = ", ".join(waiting["loaded_before"])
        rows.append(("", f"{names} had been loaded before llama.cpp, perhaps without that setting"))
    return rows


def print_tuning(tuning: Tuning) -> None:
    """Print the time of each setting relative to the best one, and mark the chosen ones."""
    chosen = None if tuning.disturbed else tuning.chosen
    _title("CPU, time by threads: 1 is the best")
    token, batch = _of_best(tuning.token), _of_best(tuning.batch)
    print_table(
        ("", "1 token", "512 tokens", "chosen"),
        [
            (_threads(count), f"{token[count]:.2f}", f"{batch[count]:.2f}", _uses(chosen, count) if chosen else "")
            for count in token
        ],
    )
    _title("CPU, time of a position by batch: 1 is the best")
    print_table(
        ("", "time", "chosen"),
        [
            (f"batches of {size}", f"{ratio:.2f}", "for prompts" if chosen and size == chosen.n_ubatch else "")
            for size, ratio in _of_best(tuning.ubatch).items()
        ],
    )
    _title("CPU, tokens a second of several answers at once: 1 is one at a time")
    print_table(
        ("", "tokens a second", "chosen"),
        [
            (str(count), f"{count * tuning.answers[1] / seconds:.2f}", _if_served(chosen, count))
            for count, seconds in sorted(tuning.answers.items())
        ],
    )
    if tuning.disturbed:
        print_lines(
            f"Other programs disturbed {tuning.disturbed} of these times, so nothing was chosen by them and nothing "
            "recorded. Measure again when the machine is idle."
        )
    if "f16" in tuning.attention:
        _print_attention(tuning)


def _print_attention(tuning: Tuning) -> None:
    usual = tuning.attention["f16"]
    _title("CPU, attention at a depth of 4,096: 1 is F16's time and memory")
    print_table(
        ("keys and values", "1 token", "512 tokens", "memory"),
        [
            (
                name,
                f"{seconds.token / usual.token:.2f}",
                f"{seconds.batch / usual.batch:.2f}",
                f"{BITS_PER_WEIGHT[name.split()[0]] / BITS_PER_WEIGHT['f16']:.2f}",
            )
            for name, seconds in tuning.attention.items()
        ],
    )
    print_lines(_FIDELITY)


def _title(text: str) -> None:
    print_lines()
    print_lines(text)


def _of_best(seconds: Mapping[int, float]) -> dict[int, float]:
    best = min(seconds.values())
    return {setting: each / best for setting, each in sorted(seconds.items())}


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def _if_served(chosen: HostSettings | None, count: int) -> str:
    return "by serve" if chosen and count == chosen.n_parallel else ""


def _uses(chosen: HostSettings, count: int) -> str:
    uses = {"a token": chosen.n_threads, "batches": chosen.n_threads_batch}
    names = [name for name, threads in uses.items() if threads == count]
    return f"for {' and '.join(names)}" if names else ""
