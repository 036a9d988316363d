"""Measure the roofline of this machine once, in a child process, and keep it; typical values stand in for the rest.

A roofline is two limits of a device: the bytes a second at which it reads weights to decode one token, and the
operations a second at which it multiplies them with a batch. `internvl_gguf.planning.speed_estimate` computes the speed
of a configuration from them.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from internvl_gguf.errors import LibraryError
from internvl_gguf.hardware.device_speed import BITS_PER_WEIGHT, PLAIN_TABLES, TABLES, DeviceSpeed, Range, Roofline
from internvl_gguf.hardware.encoder_precision import OPENVINO_LABELS, measured_afresh
from internvl_gguf.hardware.identity import machine_identity
from internvl_gguf.hardware.typical_devices import ASSUMED_HOST_TO_GPU, DeviceKind, assumed_device, completed
from internvl_gguf.utils.child_process import child_process, python_module
from internvl_gguf.utils.records import ROOFLINE

__all__ = [
    "DeviceKind",
    "DeviceSpeed",
    "Range",
    "Roofline",
    "assumed_device",
    "completed",
    "measure_roofline",
    "measured_roofline",
    "recorded_roofline",
]

OnProgress = Callable[[str], None]

_COMMAND: Final = python_module("internvl_gguf.llama.measure.rates")
_TIMEOUT: Final = 300.0  # seconds for everything; measurements made by then count
_DEATHS: Final = 16  # deaths of the process after which the rest is given up
_NOT_MEASURED: Final = "Run `internvl doctor` to see what llama.cpp finds here."


def recorded_roofline() -> Roofline | None:
    """Return the kept measurement of this machine; None if there is none, or it is of another machine or damaged."""
    return ROOFLINE.get(machine_identity(), _read)


def measure_roofline(
    on_progress: OnProgress = lambda line: None, *, n_threads: int | None = None, n_threads_batch: int | None = None
) -> Roofline:
    """Measure this machine and keep the result; takes about a minute on two cores, less on more.

    Args:
        on_progress: called with one line for each measurement.
        n_threads: CPU threads for one token; one for each physical core by default.
        n_threads_batch: CPU threads for many tokens and for the vision encoder; `n_threads` by default.

    Raises:
        LibraryError: nothing could be measured.
    """
    kinds = tuple(BITS_PER_WEIGHT)
    roofline = measured_roofline(kinds, on_progress, n_threads=n_threads, n_threads_batch=n_threads_batch)
    roofline = replace(roofline, host=_with_openvino(roofline.host, on_progress))
    ROOFLINE.put(machine_identity(), asdict(roofline))
    return roofline


def measured_roofline(
    kinds: Sequence[str],
    on_progress: OnProgress = lambda line: None,
    *,
    n_threads: int | None = None,
    n_threads_batch: int | None = None,
) -> Roofline:
    """Measure some weight types and keep nothing; see `measure_roofline` for arguments and errors.

    Values that could not be measured on a device are assumed; its `measured` is then False.
    """
    findings: dict[int, _Findings] = {}
    disturbed: set[tuple[int, str, str]] = set()
    for line in _lines(kinds, {"--threads": n_threads, "--batch-threads": n_threads_batch}):
        if "jobs" in line:
            findings.setdefault(
                line["device"], _Findings(line["kind"], line["name"], line["description"], line["jobs"])
            )
            continue
        name, key = line["table"], line["key"]
        device = findings[line["device"]]
        total = sum(each.jobs for each in findings.values())
        on_progress(f"{device.name}: {name.replace('_', ' ')} {key}".rstrip() + f" ({line['job']} of {total})")
        if "error" not in line:
            device.add(name, key, line["amount"], line["seconds"])
            (disturbed.add if line["disturbed"] else disturbed.discard)((line["device"], name, key))
    hosts = [each for each in findings.values() if each.kind == "cpu"]
    if not hosts or not any(each.tables for each in findings.values()):
        raise LibraryError("This machine could not be measured: the process that does it ended.", _NOT_MEASURED)
    roofline = _assembled(hosts[0], [each for each in findings.values() if each.kind == "gpu"])
    return replace(roofline, disturbed=len(disturbed))


def _with_openvino(host: DeviceSpeed, on_progress: OnProgress) -> DeviceSpeed:
    """Return the CPU with the rates of the encoder in OpenVINO, from its time beside llama.cpp's in the same minute."""
    if importlib.util.find_spec("openvino") is None or "f16" not in host.encoder_rate:
        return host
    seconds = measured_afresh(("F16", *OPENVINO_LABELS), on_progress)
    usual = host.encoder_rate["f16"]
    rates = {
        label: usual.times(seconds["F16"] / seconds[label])
        for label in OPENVINO_LABELS
        if label in seconds and "F16" in seconds
    }
    return replace(host, encoder_rate={**host.encoder_rate, **rates})


@dataclass
class _Findings:
    """Measurements of one device so far.

    Attributes:
        kind: "cpu" or "gpu".
        name, description: as llama.cpp gives them.
        jobs: number of its measurements.
        tables: rates by field of `DeviceSpeed` and by key; "" is the key of fields that are no tables.
    """

    kind: str
    name: str
    description: str
    jobs: int
    tables: dict[str, dict[str, Range]] = field(default_factory=dict)

    def add(self, table: str, key: str, amount: float, seconds: Sequence[float]) -> None:
        """Add a rate from an amount and the range of seconds it took."""
        taken = Range(seconds[0], seconds[1])
        rate = taken.times(1 / amount) if table == "node_seconds" else taken.amount_over(amount)
        self.tables.setdefault(table, {})[key] = rate

    def speed(self) -> DeviceSpeed:
        """Return the speed of the device, with assumed values for missing tables."""
        apple = self.kind == "gpu" and sys.platform == "darwin"
        assumed = assumed_device("apple" if apple else "gpu" if self.kind == "gpu" else "cpu")
        tables = {name: self.tables.get(name) or getattr(assumed, name) for name in TABLES}
        node = self.tables.get("node_seconds", {}).get("")
        measured = node is not None and all(name in self.tables for name in TABLES)
        description = (
            self.description if measured else f"{self.description}, measured in part; else {assumed.description}"
        )
        plain = {name: self.tables.get(name, {}) for name in PLAIN_TABLES}
        return DeviceSpeed(
            self.name, description, measured, **tables, node_seconds=node or assumed.node_seconds, **plain
        )


def _assembled(host: _Findings, gpus: Sequence[_Findings]) -> Roofline:
    uploads = [each.tables["host_to_gpu"][""] for each in gpus if "host_to_gpu" in each.tables]
    return Roofline(
        host=host.speed(),
        gpus=tuple(each.speed() for each in gpus),
        host_to_gpu=uploads[0] if uploads else ASSUMED_HOST_TO_GPU,
        measured_at=datetime.now().astimezone().isoformat(timespec="seconds"),
    )


def _lines(kinds: Sequence[str], threads: Mapping[str, int | None]) -> Iterator[dict[str, Any]]:
    """Yield what the process prints; if a measurement ends it, another process continues after that one."""
    deadline = time.monotonic() + _TIMEOUT
    options = [word for name, count in threads.items() if count is not None for word in (name, str(count))]
    start = 0
    for _ in range(_DEATHS):
        last = None
        command = [*_COMMAND, *options, "--start", str(start), *kinds]
        with child_process(command, timeout=deadline - time.monotonic(), keeps_errors=False) as child:
            for line in child.objects():
                last = max(last or start, line.get("job", start))
                yield line
            came_to_its_end = child.wait() == 0
        if came_to_its_end or last is None or time.monotonic() >= deadline:
            return
        start = last + 1


def _read(kept: Mapping[str, Any]) -> Roofline:
    return Roofline(
        host=_device(kept["host"]),
        gpus=tuple(map(_device, kept["gpus"])),
        host_to_gpu=Range(**kept["host_to_gpu"]),
        measured_at=str(kept["measured_at"]),
        disturbed=int(kept["disturbed"]),
    )


def _device(kept: Mapping[str, Any]) -> DeviceSpeed:
    tables = {name: {str(key): Range(**rate) for key, rate in kept[name].items()} for name in (*TABLES, *PLAIN_TABLES)}
    return DeviceSpeed(
        name=str(kept["name"]),
        description=str(kept["description"]),
        measured=kept["measured"] is True,
        **tables,
        node_seconds=Range(**kept["node_seconds"]),
    )
