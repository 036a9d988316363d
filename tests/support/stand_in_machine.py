"""Folders that stand in for /proc and /sys of another machine: its control groups and its cores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"


def write_groups(root: Path, groups: str, mounts: str, limits: Mapping[str, str]) -> Path:
    """A root folder whose process has these control groups.

    Args:
        root: the folder.
        groups: /proc/self/cgroup.
        mounts: /proc/self/mountinfo.
        limits: contents of files below /sys/fs/cgroup.
    """
    process = root / "proc" / "self"
    process.mkdir(parents=True, exist_ok=True)
    (process / "cgroup").write_text(groups)
    (process / "mountinfo").write_text(f"23 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n{mounts}\n")
    for name, text in limits.items():
        path = root / "sys" / "fs" / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


def write_container(root: Path, **limits: str) -> Path:
    """A container of today: its own group of version 2 stands at the top. Names of limits have "_" for their dot."""
    return write_groups(root, "0::/\n", V2_MOUNT, {name.replace("_", "."): text for name, text in limits.items()})


def write_topology(folder: Path, physical: Sequence[Sequence[int]], name: str = "core_cpus_list") -> Path:
    """A folder like /sys/devices/system/cpu: each physical core with the numbers of its logical ones."""
    for siblings in physical:
        for core in siblings:
            topology = folder / f"cpu{core}" / "topology"
            topology.mkdir(parents=True)
            (topology / name).write_text(",".join(map(str, siblings)) + "\n")
    return folder
