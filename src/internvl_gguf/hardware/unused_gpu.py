"""Find a GPU that the installed llama.cpp was not built for, by what its driver left on the system.

Nothing is loaded and no context is made: a driver in trouble may hang or end the process.
"""

from __future__ import annotations

import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from internvl_gguf.hardware.trial.build_hint import build_command
from internvl_gguf.hardware.trial.circumstances import circumstances
from internvl_gguf.utils.records import SAID_ONCE

NVIDIA_DRIVER: Final = Path("/proc/driver/nvidia")
RENDER_NODES: Final = Path("/dev/dri")
VULKAN_DRIVERS: Final = Path("/usr/share/vulkan/icd.d")
_ON_CPU: Final = "lvp_"  # Mesa's lavapipe, which computes on the CPU


@dataclass(frozen=True)
class UnusedGPU:
    """A GPU that a build for the CPU cannot use.

    Attributes:
        name: what it is in a sentence.
        cmake_args: argument of CMake that builds llama.cpp for it.
        needs: what the build needs beside a C++ compiler.
    """

    name: str
    cmake_args: str
    needs: str

    @property
    def build_command(self) -> str:
        """The command that builds llama.cpp for it."""
        return build_command(self.cmake_args)

    @property
    def notice(self) -> str:
        """One line that says what is the matter and what to do."""
        return (
            f"There is {self.name}, but this build of llama.cpp is for the CPU alone. To use it, build again "
            f"(a few minutes; needs {self.needs}): {self.build_command}"
        )


def find_unused_gpu() -> UnusedGPU | None:
    """Return the GPU of this machine, to be asked where llama.cpp reports none; None if there is no sign of one."""
    if sys.platform == "darwin":
        is_apple = platform.machine() == "arm64"
        return UnusedGPU("an Apple GPU (Metal)", "-DGGML_METAL=on", "Xcode's command line tools") if is_apple else None
    if shutil.which("nvidia-smi") or NVIDIA_DRIVER.exists():
        return UnusedGPU("an NVIDIA GPU", "-DGGML_CUDA=on", "the CUDA toolkit")
    if _has_vulkan():
        return UnusedGPU("a GPU that Vulkan can use", "-DGGML_VULKAN=on", "the Vulkan SDK, with glslc")
    return None


def notice_once() -> str:
    """Return the notice about an unused GPU the first time on this machine with this llama.cpp; then ""."""
    found = find_unused_gpu()
    if found is None:
        return ""
    key = f"{circumstances().digest} {found.cmake_args}"
    if SAID_ONCE.get(key, bool):
        return ""
    SAID_ONCE.put(key, value=True)  # where it cannot be kept it is said again
    return f"{found.notice} (Said once; `internvl doctor` says it again.)"


def _has_vulkan() -> bool:
    """Return whether a Vulkan driver of a GPU is installed and the kernel has a GPU for it.

    Mesa installs drivers for GPUs that are not there.
    """
    has_gpu = any(RENDER_NODES.glob("renderD*"))
    has_driver = any(not path.name.startswith(_ON_CPU) for path in VULKAN_DRIVERS.glob("*.json"))
    return has_gpu and (has_driver or shutil.which("vulkaninfo") is not None)
