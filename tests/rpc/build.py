"""Compile libggml-rpc of the pinned llama.cpp: `python -m tests.rpc.build OUTPUT [SDIST]`.

Two files of C++ are compiled against the installed libggml-base, which takes less than a minute; all of llama.cpp takes
several. The sources are those of the sdist, which pip fetches unless it is given.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from internvl_gguf.hardware.trial.build_hint import REQUIREMENT

_GGML = "vendor/llama.cpp/ggml/"
_NEEDED = (f"{_GGML}include/", f"{_GGML}src/")
_SOURCES = ("ggml-rpc.cpp", "transport.cpp")
# As CMake compiles a backend: ggml_add_backend_library in ggml/src/CMakeLists.txt.
_FLAGS = ("-O2", "-std=c++17", "-fPIC", "-shared", "-DGGML_BACKEND_BUILD", "-DGGML_BACKEND_SHARED", "-DGGML_SHARED")


def main(output: Path, sdist: Path | None = None) -> None:
    """Compile the library to a file."""
    with tempfile.TemporaryDirectory() as folder:
        root = _unpacked(sdist or _fetched(Path(folder)), Path(folder))
        spec = importlib.util.find_spec("llama_cpp")
        if spec is None or not spec.submodule_search_locations:
            raise SystemExit("llama-cpp-python is not installed.")
        libraries = Path(spec.submodule_search_locations[0]) / "lib"
        source = root / _GGML / "src"
        output.parent.mkdir(parents=True, exist_ok=True)
        compiler = shlex.split(os.environ.get("CXX", "c++"))
        files = [str(source / "ggml-rpc" / name) for name in _SOURCES]
        includes = [f"-I{root / _GGML / 'include'}", f"-I{source}"]
        linked = [f"-L{libraries}", "-lggml-base", "-o", str(output)]
        subprocess.run([*compiler, *_FLAGS, *includes, *files, *linked], check=True)


def _fetched(folder: Path) -> Path:
    """Fetch the sdist; pip looks at its metadata, for which it fetches what builds it, too."""
    name = REQUIREMENT.partition("==")[0]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "download", "--no-deps"]
    subprocess.run([*pip, "--no-binary", name, "--dest", str(folder), REQUIREMENT], check=True)
    return next(folder.glob("*.tar.gz"))


def _unpacked(sdist: Path, folder: Path) -> Path:
    """Unpack what is needed; return the folder of the sources."""
    with tarfile.open(sdist) as archive:
        members = [each for each in archive if each.name.partition("/")[2].startswith(_NEEDED)]
        archive.extractall(folder, members, filter="data")
    return folder / members[0].name.partition("/")[0]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
