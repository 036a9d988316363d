"""The command that builds llama.cpp for this machine, and messages for a library that does not load here."""

from __future__ import annotations

import platform
import re
import shlex
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Final

from internvl_gguf.hardware.identity import cpu_flags

REQUIREMENT: Final = "llama-cpp-python==0.3.36"
AMX_HEADER: Final = Path(__file__).parents[2] / "llama" / "amx_tile_config.h"
"""A header that GCC 12 needs to compile AMX correctly; the file says why."""

# Linux's names of the instruction sets that ggml names otherwise (ggml-cpu.h, `ggml_cpu_has_...`).
_FLAGS: Final = {
    "sse3": "pni",
    "avx512": "avx512f",
    "avx512_vbmi": "avx512vbmi",
    "dotprod": "asimddp",
    "fp16_va": "asimdhp",
    "matmul_int8": "i8mm",
    "neon": "asimd",
}
INSTRUCTION_SETS: Final = (
    *("sse3", "ssse3", "avx", "avx_vnni", "avx2", "bmi2", "f16c", "fma", "avx512", "avx512_vbmi", "avx512_vnni"),
    *("avx512_bf16", "amx_int8", "neon", "fp16_va", "dotprod", "matmul_int8", "sve", "sme"),
)
"""Names of ggml's functions that tell which instruction sets the CPU's kernels were compiled for."""

_MISSING: Final = re.compile(r"(\S+\.so[.\d]*): cannot open shared object file")
_DRIVERS: Final = {"libcuda.so": "the NVIDIA driver", "libvulkan.so": "the Vulkan loader"}


def build_command(cmake_args: str = "") -> str:
    """Return the command that compiles llama.cpp for this machine and installs it in this Python.

    Args:
        cmake_args: arguments of CMake, as "-DGGML_CUDA=on".
    """
    pip = ["-m", "pip", "install", "--force-reinstall", "--no-deps", "--no-cache-dir", REQUIREMENT]
    command = shlex.join([sys.executable, *pip])
    if cmake_args:
        command = f"CMAKE_ARGS={shlex.quote(cmake_args)} {command}"
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return command
    flags = shlex.quote(f'-include "{AMX_HEADER}"')
    return f"CXXFLAGS={flags} {command}"


def build_hint() -> str:
    """Return a one-line hint for a library that does not work here."""
    return f"Build it for this machine (a few minutes; a C++ compiler is needed): {build_command()}"


def missing_instruction_sets(built_for: Collection[str]) -> tuple[str, ...]:
    """Return instruction sets that the library needs and this CPU lacks; none if the system does not tell.

    Args:
        built_for: instruction sets of the build, of `INSTRUCTION_SETS`.
    """
    here = cpu_flags()
    return tuple(name.upper() for name in built_for if here and _FLAGS.get(name, name) not in here)


def loading_problem(reason: str) -> tuple[str, str]:
    """Return message and hint for a library that the system cannot load.

    Args:
        reason: error text of the system.
    """
    missing = _MISSING.search(reason)
    if not missing:
        return f"llama-cpp-python cannot be loaded: {reason.rstrip('.')}.", build_hint()
    name = missing[1].rsplit("/", 1)[-1]
    owner = next((owner for start, owner in _DRIVERS.items() if name.startswith(start)), "")
    whose = f", which {owner} brings," if owner else ""
    return (
        f"llama-cpp-python cannot be loaded: {name}{whose} is not on this machine.",
        f"Install {owner or name}. Or b{build_hint()[1:]}",
    )
