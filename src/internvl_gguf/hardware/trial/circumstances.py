"""What decides how the native library behaves here: its files, the CPU, and the drivers of GPUs.

All of it is read without the library, in a millisecond: it is read by every command before llama.cpp is imported.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from internvl_gguf.hardware.identity import cpu_flags, processor_name

_VERSION: Final = 2  # of the trial: another one has other checks or bounds
_PACKAGE: Final = "llama_cpp"
_BINARIES: Final = (".so", ".dylib", ".dll", ".metallib")
# Versions of the drivers that Linux tells without a library.
_DRIVERS: Final = tuple(Path("/sys/module", name, "version") for name in ("nvidia", "amdgpu", "i915", "xe"))
# Mesa's drivers of Vulkan tell none: their files stand for it.
_DRIVER_FOLDERS: Final = ("/usr/lib", "/usr/lib64", f"/usr/lib/{platform.machine()}-linux-gnu")
_DRIVER_FILES: Final = "libvulkan_*.so"


@dataclass(frozen=True)
class Circumstances:
    """What a trial was made under, and for no other machine or library counts.

    Attributes:
        library: folder of the library's files.
        processor: the CPU's name.
        driver: versions of GPU drivers, empty where the system tells none.
        digest: of all that, with the CPU's flags, the size and time of every file, and elsewhere than on Linux the
            version of the system, which brings the drivers.
    """

    library: str
    processor: str
    driver: str
    digest: str


def circumstances() -> Circumstances:
    """The circumstances of this process."""
    folders = library_folders()
    files = [(str(path), *_identity(path)) for folder in folders for path in _binaries(folder)]
    processor, driver = processor_name(), " ".join(_first_line(path) for path in _DRIVERS).strip()
    drivers = [(str(path), *_identity(path)) for folder in _DRIVER_FOLDERS for path in Path(folder).glob(_DRIVER_FILES)]
    facts = [_VERSION, files, processor, sorted(cpu_flags()), driver, sorted(drivers), _system()]
    digest = hashlib.blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()
    return Circumstances(str(folders[0]) if folders else "", processor, driver, digest)


def library_folders() -> tuple[Path, ...]:
    """Where the native library's files lie: beside llama_cpp, and where LLAMA_CPP_LIB_PATH says; may be missing."""
    found: list[Path] = []
    with suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(_PACKAGE)
        found = [Path(each, "lib") for each in (spec.submodule_search_locations or () if spec else ())]
    other = os.environ.get("LLAMA_CPP_LIB_PATH")
    return (*([Path(other)] if other else []), *found)


def _binaries(folder: Path) -> list[Path]:
    with suppress(OSError):
        return sorted(path for path in folder.iterdir() if any(part in _BINARIES for part in path.suffixes))
    return []


def _identity(path: Path) -> tuple[int, int]:
    """Size and time of a file; zeros where it is gone."""
    with suppress(OSError):
        status = path.stat()
        return status.st_size, status.st_mtime_ns
    return 0, 0


def _system() -> str:
    return "" if sys.platform == "linux" else platform.version()


def _first_line(path: Path) -> str:
    with suppress(OSError):
        return path.read_text("ascii", errors="replace").strip()
    return ""
