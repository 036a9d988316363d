"""The circumstances that a trial is valid for: files of the native library, the CPU, and drivers of GPUs.

They are read without the library, in a millisecond: every command reads them before it imports llama.cpp.
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

_VERSION: Final = 3  # of the trial: raised when checks or bounds change
_PACKAGE: Final = "llama_cpp"
_BINARIES: Final = (".so", ".dylib", ".dll", ".metallib")
# Driver versions that Linux gives without a library.
_DRIVERS: Final = tuple(Path("/sys/module", name, "version") for name in ("nvidia", "amdgpu", "i915", "xe"))
# Mesa's Vulkan drivers give no version: size and time of their files stand for it.
_DRIVER_FOLDERS: Final = ("/usr/lib", "/usr/lib64", f"/usr/lib/{platform.machine()}-linux-gnu")
_DRIVER_FILES: Final = "libvulkan_*.so"


@dataclass(frozen=True)
class Circumstances:
    """Circumstances of a trial; its result is valid for no other machine or library.

    Attributes:
        library: folder of the library's files.
        processor: the CPU's name.
        driver: versions of GPU drivers; empty if the system gives none.
        digest: digest of all that, of the CPU's flags, of size and time of every file, and on other systems than Linux
            of the system's version, which brings the drivers.
    """

    library: str
    processor: str
    driver: str
    digest: str


def circumstances() -> Circumstances:
    """Return the circumstances of this process."""
    folders = library_folders()
    files = [(str(path), *_identity(path)) for folder in folders for path in _binaries(folder)]
    processor, driver = processor_name(), " ".join(_first_line(path) for path in _DRIVERS).strip()
    drivers = [(str(path), *_identity(path)) for folder in _DRIVER_FOLDERS for path in Path(folder).glob(_DRIVER_FILES)]
    facts = [_VERSION, files, processor, sorted(cpu_flags()), driver, sorted(drivers), _system()]
    digest = hashlib.blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()
    return Circumstances(str(folders[0]) if folders else "", processor, driver, digest)


def library_folders() -> tuple[Path, ...]:
    """Return the folders of the native library's files, which may be missing: llama_cpp/lib and LLAMA_CPP_LIB_PATH."""
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
    """Return size and modification time of a file; zeros if it is gone."""
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
