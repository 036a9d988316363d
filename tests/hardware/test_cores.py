"""Cores that a process may use: affinity, hyper-threads, limits of containers, on machines of stand-in folders."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from internvl_gguf.hardware import cgroups, cores
from internvl_gguf.hardware.cgroups import MemoryLimit, cpu_limits, memory_limits
from tests.support.stand_in_machine import V2_MOUNT, write_container, write_groups, write_topology

V1_MOUNT = (
    "33 31 0:30 {top} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 {top} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"
)
V1_GROUPS = "9:name=systemd:/\n4:memory:{group}\n1:cpu,cpuacct:{group}\n0::/\n"


def machine(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    usable: Sequence[int],
    physical: Sequence[Sequence[int]],
    name: str = "core_cpus_list",
) -> None:
    """This process may use some logical cores of a machine with these physical ones, in no container."""
    monkeypatch.setattr(cores, "TOPOLOGY", write_topology(folder / "cpu", physical, name))
    monkeypatch.setattr(cores, "usable_cores", lambda: tuple(usable))
    monkeypatch.setattr(cgroups, "ROOT", folder / "root")


HYPER = [(0, 4), (1, 5), (2, 6), (3, 7)]


@pytest.mark.parametrize("name", ["core_cpus_list", "thread_siblings_list"])  # the second one before Linux 5.3
@pytest.mark.parametrize(
    ("usable", "physical", "threads"),
    [
        (range(8), HYPER, 4),  # one for each physical core
        ((0, 1, 4, 5), HYPER, 2),  # taskset to two cores with their siblings
        ((0, 1, 2, 3), HYPER, 4),
        ((0, 4), HYPER, 1),  # both threads of one core
        ((3,), HYPER, 1),
        (range(6), [(0, 1), (2,), (3,), (4, 5)], 4),  # some cores have two threads, others one
        (range(4), [(0,), (1,), (2,), (3,)], 4),  # a virtual machine
    ],
)
def test_threads_by_rule_are_the_physical_cores_that_may_be_used(
    usable: Sequence[int],
    physical: Sequence[Sequence[int]],
    threads: int,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two processes on a half of a machine each took a thread for each core of the whole one."""
    machine(monkeypatch, tmp_path, usable, physical, name)
    assert cores.usable_threads() == len(usable)
    assert cores.usable_physical_cores() == cores.default_threads() == threads


def test_a_system_without_that_folder_counts_cores_as_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, tmp_path, range(8), [])
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 8 if logical else 4)
    assert cores.default_threads() == 4
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: None)
    assert cores.default_threads() == 8


@pytest.mark.parametrize(
    ("limit", "threads"), [("max 100000", 4), ("250000 100000", 3), ("50000 100000", 1), ("900000 100000", 4)]
)
def test_the_cpu_time_of_a_container_counts(
    limit: str, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, tmp_path, range(8), HYPER)
    write_container(tmp_path / "root", cpu_max=limit)
    assert cores.default_threads() == threads


def test_a_limit_above_the_group_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service of systemd inside of a limited slice: its own group says "max", or has no such file."""
    groups = "0::/user.slice/user@1000.service/app.slice\n"
    limits = {"user.slice/cpu.max": "150000 100000", "user.slice/user@1000.service/cpu.max": "max 100000"}
    monkeypatch.setattr(cgroups, "ROOT", write_groups(tmp_path, groups, V2_MOUNT, limits))
    assert cpu_limits() == [1.5]


@pytest.mark.parametrize(
    ("group", "top", "folder"),
    [
        ("/docker/0123", "/docker/0123", ""),  # a container sees its group as the top of what is mounted
        ("/docker/0123", "/", "docker/0123"),  # and the host below it
        ("/", "/", ""),
        ("/../0123", "/", ""),  # another name space: nothing of its own is mounted
    ],
)
def test_groups_of_version_1(
    group: str, top: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only /sys/fs/cgroup/cpu.max was read: in a container of version 1 the threads were the host's cores."""
    limits = {
        f"cpu,cpuacct/{folder}/cpu.cfs_quota_us": "200000",
        f"cpu,cpuacct/{folder}/cpu.cfs_period_us": "100000",
        f"memory/{folder}/memory.limit_in_bytes": "1000",
        f"memory/{folder}/memory.usage_in_bytes": "400",
    }
    groups, mounts = V1_GROUPS.format(group=group), V1_MOUNT.format(top=top)
    monkeypatch.setattr(cgroups, "ROOT", write_groups(tmp_path, groups, mounts, limits))
    assert cpu_limits() == [2.0]
    assert memory_limits() == [MemoryLimit(1000, 400)]


def test_groups_without_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000"}
    root = write_groups(tmp_path, V1_GROUPS.format(group="/"), V1_MOUNT.format(top="/"), limits)
    monkeypatch.setattr(cgroups, "ROOT", root)
    assert cpu_limits() == memory_limits() == []


def test_a_mount_point_may_have_blanks_in_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mount = V2_MOUNT.replace("/sys/fs/cgroup", r"/sys/fs/cgroup/a\040b")
    root = write_groups(tmp_path, "0::/\n", mount, {"a b/cpu.max": "100000 100000"})
    monkeypatch.setattr(cgroups, "ROOT", root)
    assert cpu_limits() == [1.0]


def test_a_system_without_groups_has_no_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "ROOT", tmp_path)
    assert cpu_limits() == memory_limits() == []


def test_affinity_is_seen() -> None:
    if not hasattr(psutil.Process, "cpu_affinity"):
        pytest.skip("this system has no affinity")
    first = min(os.sched_getaffinity(0))
    script = (
        f"import psutil; psutil.Process().cpu_affinity([{first}]);"
        "from internvl_gguf.hardware.cores import default_threads, usable_cores;"
        "print(usable_cores(), default_threads())"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert said == f"({first},) 1\n"


def test_work_of_others_is_counted_and_own_is_not() -> None:
    """A child that computes for half a second of CPU time counts, and what this process used is left out."""
    before = cores.seconds_used_by_others()
    work = "import time\nwhile time.process_time() < 0.5: pass"
    subprocess.run([sys.executable, "-c", work], check=True)
    assert cores.seconds_used_by_others() - before > 0.4
    busy = sum(sum(times) for times in psutil.cpu_times(percpu=True))
    assert cores.seconds_used_by_others() < busy
