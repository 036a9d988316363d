"""A GPU that the build cannot use: found by what its driver left, said once, with the line that builds again."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from internvl_gguf.hardware import unused_gpu

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the signs are Linux's")


@pytest.fixture
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without a sign of a GPU; its folder has places for some."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("INTERNVL_CACHE", str(tmp_path / "cache"))
    for name, folder in (("NVIDIA_DRIVER", "nvidia"), ("RENDER_NODES", "dri"), ("VULKAN_DRIVERS", "icd.d")):
        monkeypatch.setattr(unused_gpu, name, tmp_path / folder)
    for folder in ("bin", "dri", "icd.d"):
        (tmp_path / folder).mkdir()
    return tmp_path


def test_no_sign_of_a_gpu(bare_machine: Path) -> None:
    assert unused_gpu.find_unused_gpu() is None
    assert unused_gpu.notice_once() == ""


def test_an_nvidia_driver_is_said_once_with_the_line_that_builds_again(bare_machine: Path) -> None:
    """`make demo` on a machine with a GPU gave a build for the CPU, and nothing ever said so."""
    (bare_machine / "nvidia").mkdir()
    notice = unused_gpu.notice_once()
    assert "NVIDIA" in notice
    assert "CMAKE_ARGS=-DGGML_CUDA=on" in notice
    assert unused_gpu.notice_once() == ""


def test_a_vulkan_driver_counts_where_there_is_a_gpu_for_it(bare_machine: Path) -> None:
    """Mesa installs drivers for all its GPUs everywhere, and lavapipe computes on the CPU."""
    (bare_machine / "icd.d" / "radeon_icd.json").touch()
    assert unused_gpu.find_unused_gpu() is None
    (bare_machine / "dri" / "renderD128").touch()
    found = unused_gpu.find_unused_gpu()
    assert found is not None
    assert found.cmake_args == "-DGGML_VULKAN=on"
    (bare_machine / "icd.d" / "radeon_icd.json").rename(bare_machine / "icd.d" / "lvp_icd.json")
    assert unused_gpu.find_unused_gpu() is None
