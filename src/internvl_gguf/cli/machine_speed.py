"""The part of `internvl doctor` about the speed of this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from internvl_gguf.cli.output import print_lines, replaced_line
from internvl_gguf.errors import LibraryError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from internvl_gguf.hardware.cpu_tuning import Tuning
    from internvl_gguf.hardware.device_speed import Range, Roofline


@dataclass(frozen=True)
class Measured:
    """The results of the measurements.

    Attributes:
        roofline: how fast the devices are.
        tuning: threads and batches on the CPU; None where these could not be measured.
        problem: why not.
    """

    roofline: Roofline
    tuning: Tuning | None
    problem: str = ""


def measure() -> Measured:
    """Measure the speed and record it; on a terminal a line on stderr shows the progress.

    The roofline is measured with the threads that models use from then on.

    Raises:
        LibraryError: nothing could be measured.
    """
    from internvl_gguf.hardware.cpu_tuning import host_settings, measure_tuning
    from internvl_gguf.hardware.roofline import measure_roofline

    tuning, problem = None, ""
    with replaced_line() as tell:
        tell("Measuring, which takes a minute or two")
        try:
            tuning = measure_tuning(tell)
        except LibraryError as error:
            problem = error.message
        host = host_settings()
        roofline = measure_roofline(tell, n_threads=host.n_threads, n_threads_batch=host.n_threads_batch)
    return Measured(roofline, tuning, problem)


def speed_report(roofline: Roofline | None) -> dict[str, Any] | None:
    """Return the speeds for `--json`: bytes and operations a second, each as lowest and highest; None if unmeasured."""
    if roofline is None:
        return None
    from internvl_gguf.hardware.device_speed import PLAIN_TABLES, TABLES

    return {
        "measured_at": roofline.measured_at,
        "disturbed_measurements": roofline.disturbed,
        "host_to_gpu": _ends(roofline.host_to_gpu) if roofline.gpus else None,
        "devices": [
            {
                "name": device.name,
                "description": device.description,
                "complete": device.measured,
                **{table: {key: _ends(rate) for key, rate in getattr(device, table).items()} for table in TABLES},
                **{table: {key: _ends(rate) for key, rate in getattr(device, table).items()} for table in PLAIN_TABLES},
                "node_seconds": _ends(device.node_seconds),
            }
            for device in (roofline.host, *roofline.gpus)
        ],
    }


def speed_rows(roofline: Roofline | None) -> list[tuple[str, str]]:
    """Return the rows about speed for the table of `internvl doctor`."""
    if roofline is None:
        return [
            ("speed", "not measured, so estimates are assumptions; `internvl doctor --measure` takes a minute or two")
        ]
    devices = (roofline.host, *roofline.gpus)
    rows = [("speed", f"measured {roofline.measured_at} on {', '.join(device.name for device in devices)}")]
    if roofline.disturbed:
        count = roofline.disturbed
        rows.append(("", f"other programs disturbed {count} of it; measure again when the machine is idle"))
    rows += [("", f"{device.name} in part only: the rest is assumed") for device in devices if not device.measured]
    return rows


def kernel_rows(roofline: Roofline | None) -> list[tuple[str, str]]:
    """Return the rows about the kernels of the CPU for the table of `internvl doctor`."""
    from internvl_gguf.planning.cpu_kernels import measured_gains

    gains = measured_gains(roofline.host) if roofline else {}
    if not gains:
        return []
    listed = ", ".join(f"{kind.upper()} {read:.1f}x, {written:.1f}x" for kind, (read, written) in gains.items())
    text = f"weights as in the file, against llama.cpp's own layouts, for reading and for writing: {listed}"
    return [("kernels", f"{text}; each model takes what answers a question about a picture sooner")]


def print_speeds(roofline: Roofline) -> None:
    """Print the measured rates of each device, a line for each type of weights and of attention."""
    for device in (roofline.host, *roofline.gpus):
        print_lines(f"\n{device.name}: {device.description}")
        print_lines(f"{'':<12}{'1 token':>12}{'512 tokens':>14}{'encoder':>12}", wrap=False)
        print_lines(f"{'':<12}{'GB/s':>12}{'GFLOP/s':>14}{'GFLOP/s':>12}", wrap=False)
        for kind in device.bandwidth:
            print_lines(_line(kind, device.bandwidth, device.matrix_rate, device.encoder_rate), wrap=False)
        print_lines("keys and values", wrap=False)
        for kind in device.attention_bandwidth:
            print_lines(_line(kind, device.attention_bandwidth, device.attention_rate, {}), wrap=False)
    if roofline.gpus:
        print_lines(f"\nfrom host to GPU: {_middle(roofline.host_to_gpu):.1f} GB/s", wrap=False)


def _line(kind: str, bandwidth: Mapping[str, Range], rate: Mapping[str, Range], encoder: Mapping[str, Range]) -> str:
    cells = [f"{_middle(bandwidth[kind]):>12.1f}"]
    cells.append(f"{_middle(rate[kind]):>14,.0f}" if kind in rate else f"{'-':>14}")
    cells += [f"{_middle(encoder[kind]):>12,.0f}"] if kind in encoder else []
    return f"{kind:<12}" + "".join(cells)


def _middle(rate: Range) -> float:
    """Return the middle of a range, in billions."""
    return (rate.low + rate.high) / 2e9


def _ends(rate: Range) -> list[float]:
    return [rate.low, rate.high]
