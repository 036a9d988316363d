"""`internvl doctor`: check whether everything works on this machine."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from internvl_gguf._version import __version__
from internvl_gguf.cli import machine_speed, machine_tuning, options
from internvl_gguf.cli.output import print_fact, print_json, print_lines
from internvl_gguf.cli.rpc_rows import rpc_report, rpc_rows
from internvl_gguf.cli.run import FAILED, option_errors
from internvl_gguf.errors import LibraryError
from internvl_gguf.hardware.cpu_tuning import host_settings, recorded_tuning
from internvl_gguf.hardware.roofline import recorded_roofline
from internvl_gguf.hardware.trial.trial_report import TrialReport, trial_report
from internvl_gguf.hardware.unused_gpu import find_unused_gpu
from internvl_gguf.planning.machine_memory import free_host_memory
from internvl_gguf.utils.paths import cache_dir, data_dir, free_bytes, is_writable
from internvl_gguf.utils.sizes import counted, format_size
from internvl_gguf.vision.choice import measured_choice

if TYPE_CHECKING:
    from internvl_gguf.hardware.device_speed import Roofline

_NAME_WIDTH = 14
_WORKS_REDUCED = "Everything works, without what the trial says is left out."


def doctor(
    measure: Annotated[
        bool,
        typer.Option(
            "--measure",
            help="Measure once how fast this machine is, and with how many threads: a minute or two, best with nothing "
            "else running. Speeds are estimated from that.",
        ),
    ] = False,
    rpc: options.RPCOption = None,
    rpc_insecure_network: options.InsecureNetworkOption = False,
    json_output: options.JSONOption = False,
) -> None:
    """Check the installed llama.cpp, by a trial of its kernels, the devices and the cache folders."""
    with option_errors():
        servers = options.rpc_servers(rpc, rpc_insecure_network)
    facts, trial = _library()
    report: dict[str, Any] = {
        "internvl_gguf": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "library": facts,
        "cache": _cache(),
        "models": _models(),
        "conversations": _conversations(),
    }
    library = report["library"]
    report["problems"] = [*library["problems"], *_folder_problems(report)]
    if servers:
        report["rpc"], problems = rpc_report(servers)
        report["problems"] += problems
    measured = machine_speed.measure() if measure and not library["problems"] else None
    roofline = measured.roofline if measured else recorded_roofline()
    report["encoder"] = _encoder()
    settings, tuning = host_settings(), recorded_tuning()
    if "devices" in library:
        library["threads"] = settings.n_threads
    if json_output:
        host = machine_tuning.tuning_report(settings, tuning, measured.tuning if measured else None)
        print_json({**report, "host": host, "speed": machine_speed.speed_report(roofline)})
    else:
        _print(report, trial, roofline, machine_tuning.tuning_rows(settings, tuning))
        if measured:
            _print_measured(measured)
    if report["problems"]:
        raise typer.Exit(FAILED)


def _library() -> tuple[dict[str, Any], TrialReport | None]:
    """Return facts about the installed library, and the report of its trial."""
    try:
        from internvl_gguf.llama import library
        from internvl_gguf.llama.openmp import spin_settings
    except LibraryError as error:
        return {"problems": [str(error)]}, None
    problems = library.abi_problems()
    if problems:
        return {"build": library.build(), "problems": problems}, None
    facts: dict[str, Any] = {
        "build": library.build(),
        "cpu_features": library.cpu_features(),
        "waiting": asdict(spin_settings()),
        "devices": [
            {
                "name": device.name,
                "description": device.description,
                "kind": device.kind,
                # llama.cpp calls all memory of a CPU free.
                "free_bytes": free_host_memory() if device.kind == "cpu" else device.free_bytes,
                "total_bytes": device.total_bytes,
            }
            for device in library.devices()
        ],
    }
    facts["unused_gpu"] = _unused_gpu(facts["devices"])
    gpus = {device["name"]: device["description"] for device in facts["devices"] if device["kind"] in ("gpu", "igpu")}
    report = trial_report(gpus)
    if report.positions_are_shifted is not None:
        facts["position_correction_needed"] = report.positions_are_shifted
    return {**facts, "trial": report.plain(), "problems": report.problems}, report


def _unused_gpu(devices: Sequence[dict[str, Any]]) -> dict[str, str] | None:
    """Return a GPU that the installed llama.cpp cannot use, with the command that builds a llama.cpp that can."""
    if any(device["kind"] in ("gpu", "igpu") for device in devices):
        return None
    found = find_unused_gpu()
    return {"name": found.name, "build_command": found.build_command, "needs": found.needs} if found else None


def _cache() -> dict[str, Any]:
    from internvl_gguf.cli.cache_contents import cache_contents

    folder, contents = cache_dir(), cache_contents()
    return {
        "folder": str(folder),
        "files": sum(cache.entries for cache in contents),
        "bytes": sum(cache.n_bytes for cache in contents),
        "writable": is_writable(folder),
    }


def _models() -> dict[str, Any]:
    from internvl_gguf.models.hub import HubCache

    cache = HubCache()
    repos = list(cache.repos())
    return {
        "folder": str(cache.root),
        "repositories": len({repo.repo for repo in repos}),
        "bytes": sum(file.size or 0 for repo in repos for file in repo.files) + sum(r.partial_bytes for r in repos),
        "free_bytes": free_bytes(cache.root),
        "writable": is_writable(cache.root),
    }


def _encoder() -> dict[str, str]:
    kind, reason = measured_choice()
    return {"on_cpu": kind, "reason": reason}


def _conversations() -> dict[str, Any]:
    return {"folder": str(data_dir()), "writable": is_writable(data_dir())}


def _folder_problems(report: dict[str, Any]) -> list[str]:
    """Return, for each folder that cannot be written, the consequence and the variable that names another folder."""
    return [
        f"{report[name]['folder']} cannot be written: {cost} Set {variable} to another folder."
        for name, cost, variable in (
            ("cache", "what was computed or measured is not kept.", "INTERNVL_CACHE"),
            ("models", "no model can be fetched.", "HF_HOME"),
            ("conversations", "no conversation is kept.", "INTERNVL_DATA"),
        )
        if not report[name]["writable"]
    ]


def _print(
    report: dict[str, Any], trial: TrialReport | None, roofline: Roofline | None, threads: list[tuple[str, str]]
) -> None:
    library, cache = report["library"], report["cache"]
    rows = [
        ("internvl-gguf", f"{report['internvl_gguf']}, Python {report['python']}"),
        ("system", report["platform"]),
        ("llama.cpp", _build_text(library.get("build"))),
    ]
    if "devices" in library:
        rows.append(("binding", "ok"))
        rows.append(("CPU features", ", ".join(library["cpu_features"])))
        rows += [
            (
                device["name"],
                f"{device['description']}, {device['free_bytes'] / 2**30:.1f} of "
                f"{device['total_bytes'] / 2**30:.1f} GiB free",
            )
            for device in library["devices"]
        ]
        if not any(device["kind"] in ("gpu", "igpu") for device in library["devices"]):
            rows.append(("GPU", _gpu_text(library["unused_gpu"])))
        rows += [*threads, *machine_tuning.waiting_rows(library["waiting"])]
    if "position_correction_needed" in library:
        needed = library["position_correction_needed"]
        rows.append(
            (
                "vision bug",
                "this llama.cpp misplaces picture patches; worked around automatically"
                if needed
                else "none: this llama.cpp places picture patches right",
            )
        )
    rows += rpc_rows(report["rpc"]) if "rpc" in report else []
    rows += trial.rows if trial else []
    rows += machine_speed.speed_rows(roofline)
    rows.append(("pictures", f"encoded on the CPU by {report['encoder']['on_cpu']}: {report['encoder']['reason']}"))
    rows += machine_speed.kernel_rows(roofline)
    rows.append(("cache", f"{cache['folder']}, {format_size(cache['bytes'])} in {counted(cache['files'], 'file')}"))
    models = report["models"]
    free = f", {format_size(models['free_bytes'])} free on its disk" if models["free_bytes"] is not None else ""
    rows.append(
        ("models", f"{models['folder']}, {format_size(models['bytes'])} of {models['repositories']} repositories{free}")
    )
    rows.append(("conversations", report["conversations"]["folder"]))
    for name, text in (*rows, *(("problem", problem) for problem in report["problems"])):
        print_fact(name, text, _NAME_WIDTH + 1)
    if not report["problems"]:
        print_lines(_WORKS_REDUCED if trial and trial.reductions else "Everything is in place.")


def _build_text(build: str | None) -> str:
    if build is None:
        return "not loaded"
    # The Python package that compiles it changes a few of its files, which git calls dirty.
    return f"{build.removesuffix('-dirty')} (with llama-cpp-python's changes)" if build.endswith("-dirty") else build


def _gpu_text(unused: dict[str, str] | None) -> str:
    if unused is None:
        return "none found"
    return (
        f"{unused['name']}, which this build of llama.cpp cannot use: it is for the CPU alone. To use it, build again "
        f"(needs {unused['needs']}): {unused['build_command']}"
    )


def _print_measured(measured: machine_speed.Measured) -> None:
    if measured.tuning:
        machine_tuning.print_tuning(measured.tuning)
    else:
        print_lines(measured.problem)
    machine_speed.print_speeds(measured.roofline)
