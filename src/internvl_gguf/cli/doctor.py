"""`internvl doctor`: is everything in place on this machine?"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from internvl_gguf._version import __version__
from internvl_gguf.cli import machine_speed, options
from internvl_gguf.cli.output import FAILED, print_json
from internvl_gguf.errors import InternVLError, LibraryError
from internvl_gguf.paths import cache_dir, free_bytes
from internvl_gguf.roofline import recorded_roofline
from internvl_gguf.sizes import format_size

if TYPE_CHECKING:
    from internvl_gguf.device_speed import Roofline


def doctor(
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Measure once how fast this machine is; speeds are estimated from that."),
    ] = False,
    json_output: options.JSONOption = False,
) -> None:
    """Check the installed llama.cpp, the devices, the position correction and the cache folders."""
    report: dict[str, Any] = {
        "internvl_gguf": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "library": _library(),
        "cache": _cache(),
        "models": _models(),
    }
    problems = report["library"]["problems"]
    measures = measure and not problems
    roofline = machine_speed.measure() if measures else recorded_roofline()
    if json_output:
        print_json({**report, "speed": machine_speed.speed_report(roofline)})
    else:
        _print(report, roofline)
        if measures and roofline:
            machine_speed.print_speeds(roofline)
    if problems:
        raise typer.Exit(FAILED)


def _library() -> dict[str, Any]:
    try:
        from internvl_gguf.llama import library
        from internvl_gguf.llama.probe import probe
    except LibraryError as error:
        return {"problems": [str(error)]}
    problems = library.abi_problems()
    if problems:
        return {"build": library.build(), "problems": problems}
    from internvl_gguf.this_machine import default_threads

    facts: dict[str, Any] = {
        "build": library.build(),
        "cpu_features": library.cpu_features(),
        "devices": [
            {
                "name": device.name,
                "description": device.description,
                "kind": device.kind,
                "free_bytes": device.free_bytes,
                "total_bytes": device.total_bytes,
            }
            for device in library.devices()
        ],
        "threads": default_threads(),
    }
    try:
        facts["position_correction_needed"] = probe()
    except InternVLError as error:
        problems = [str(error)]
    return {**facts, "problems": problems}


def _cache() -> dict[str, Any]:
    folder = cache_dir()
    files = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    return {
        "folder": str(folder),
        "files": len(files),
        "bytes": sum(path.stat().st_size for path in files),
        "writable": _is_writable(folder),
    }


def _models() -> dict[str, Any]:
    from internvl_gguf.hub import HubCache

    cache = HubCache()
    repos = list(cache.repos())
    return {
        "folder": str(cache.root),
        "repositories": len({repo.repo for repo in repos}),
        "bytes": sum(file.size or 0 for repo in repos for file in repo.files) + sum(r.partial_bytes for r in repos),
        "free_bytes": free_bytes(cache.root),
    }


def _is_writable(folder: Path) -> bool:
    import tempfile

    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            return True
    except OSError:
        return False


def _print(report: dict[str, Any], roofline: Roofline | None) -> None:
    library, cache = report["library"], report["cache"]
    rows = [
        ("internvl-gguf", f"{report['internvl_gguf']}, Python {report['python']}"),
        ("system", report["platform"]),
        ("llama.cpp", library.get("build", "not loaded")),
    ]
    if "devices" in library:
        rows.append(("ABI", "structures and version as this package expects them"))
        rows.append(("CPU features", ", ".join(library["cpu_features"])))
        rows += [
            (
                device["kind"],
                f"{device['name']}: {device['description']}, {device['free_bytes'] / 2**30:.1f} of "
                f"{device['total_bytes'] / 2**30:.1f} GiB free",
            )
            for device in library["devices"]
        ]
        rows.append(("threads", str(library["threads"])))
    if "position_correction_needed" in library:
        needed = library["position_correction_needed"]
        rows.append(
            (
                "positions",
                "shifted by one patch in this build; corrected in a copy of the mmproj"
                if needed
                else "right in this build; mmproj files are used as they are",
            )
        )
    rows += machine_speed.speed_rows(roofline)
    rows.append(("cache", f"{cache['folder']}, {cache['bytes'] / 2**20:.1f} MiB in {cache['files']} files"))
    models = report["models"]
    free = f", {format_size(models['free_bytes'])} free on its disk" if models["free_bytes"] is not None else ""
    rows.append(
        ("models", f"{models['folder']}, {format_size(models['bytes'])} of {models['repositories']} repositories{free}")
    )
    if not cache["writable"]:
        rows.append(("", "the cache folder cannot be written; set INTERNVL_CACHE to another"))
    for name, text in rows:
        typer.echo(f"{name:<14} {text}")
    for problem in library["problems"]:
        typer.echo(f"{'problem':<14} {problem}")
    if not library["problems"]:
        typer.echo("Everything is in place.")
