"""Read the CPU and memory limits that a container or service manager sets: Linux control groups, versions 1 and 2.

A limit counts for a group and everything below it, so the limits of the process's own group and of all groups above it
are read, as far as the mounted file system shows them. Other systems than Linux have none.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

ROOT: Final = Path("/")  # tests name a folder of their own
_PROC: Final = "proc/self"


class MemoryLimit(NamedTuple):
    """Memory limit and memory use of one control group, in bytes."""

    limit: int
    used: int


class _Mount(NamedTuple):
    """A mounted cgroup hierarchy: mount point, group at the top, and the controllers of version 1."""

    point: PurePosixPath
    top: PurePosixPath
    is_v2: bool
    controllers: frozenset[str]


def cpu_limits() -> list[float]:
    """Return the CPU limit of each control group of this process, in cores; groups without a limit are left out."""
    limits = []
    for folder, is_v2 in _folders("cpu"):
        with contextlib.suppress(OSError, ValueError):  # a group without this controller, or "max"
            if is_v2:
                quota, period = map(int, _text(folder / "cpu.max").split())
            else:
                quota, period = (int(_text(folder / f"cpu.cfs_{name}_us")) for name in ("quota", "period"))
            if quota > 0 and period > 0:  # version 1 says -1 for none
                limits.append(quota / period)
    return limits


def memory_limits() -> list[MemoryLimit]:
    """Return the memory limit of each control group of this process; groups without a limit are left out.

    Version 1 has no word for "no limit": it gives a number that is larger than any memory.
    """
    limits = []
    for folder, is_v2 in _folders("memory"):
        names = ("memory.max", "memory.current") if is_v2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        with contextlib.suppress(OSError, ValueError):
            limits.append(MemoryLimit(*(int(_text(folder / name)) for name in names)))
    return limits


def _folders(controller: str) -> Iterator[tuple[Path, bool]]:
    """Yield the folder of this process's group and of each group above it, and whether they are of version 2."""
    try:
        groups = _groups(_text(ROOT / _PROC / "cgroup"))
        mounts = list(_mounts(_text(ROOT / _PROC / "mountinfo")))
    except OSError:
        return
    for mount in mounts:
        if not mount.is_v2 and controller not in mount.controllers:
            continue
        group = groups.get("" if mount.is_v2 else controller)
        if group is None:
            continue
        # A group outside of what is mounted, as in some containers: its own is then mounted at the top.
        below = group.relative_to(mount.top) if group.is_relative_to(mount.top) else PurePosixPath()
        for each in (below, *below.parents):
            if ".." not in each.parts:
                yield ROOT.joinpath(*mount.point.parts[1:], *each.parts), mount.is_v2


def _groups(text: str) -> dict[str, PurePosixPath]:
    """Parse /proc/self/cgroup: this process's group by controller, "" for version 2 (`ID:CONTROLLERS:GROUP`)."""
    found = {}
    for line in text.splitlines():
        _, controllers, group = line.split(":", 2)
        found.update(dict.fromkeys(controllers.split(","), PurePosixPath(group)))
    return found


def _mounts(text: str) -> Iterator[_Mount]:
    """Yield the cgroup hierarchies among the lines of proc_pid_mountinfo(5)."""
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            top, point = (PurePosixPath(_unescaped(part)) for part in before.split(" ")[3:5])
            yield _Mount(point, top, kind == "cgroup2", frozenset(options.split(",")))


def _unescaped(path: str) -> str:
    """Decode the octal escapes of blanks in a path."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)


def _text(path: Path) -> str:
    return path.read_text("utf-8", "replace")
