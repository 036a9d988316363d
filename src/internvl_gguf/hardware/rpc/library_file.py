"""Find the library that holds ggml's RPC backend. The usual build of llama.cpp has none."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from internvl_gguf.errors import LibraryError
from internvl_gguf.hardware.trial.build_hint import build_command
from internvl_gguf.hardware.trial.circumstances import library_folders
from internvl_gguf.utils.paths import expanded

VARIABLE: Final = "INTERNVL_GGML_RPC"
"""Environment variable that names the library, where it does not lie beside the others of llama.cpp."""
# A wheel carries libggml under several names; libllama loads the one with the number.
_NAMES: Final = {
    "win32": ("ggml-rpc.dll",),
    "darwin": ("libggml-rpc.0.dylib", "libggml-rpc.dylib"),
}
_OTHER_NAMES: Final = ("libggml-rpc.so.0", "libggml-rpc.so")


def find_rpc_library() -> Path | None:
    """Return the library of ggml's RPC backend; None if there is none.

    Raises:
        LibraryError: INTERNVL_GGML_RPC names a file that is not there.
    """
    named = os.environ.get(VARIABLE)
    if named:
        path = expanded(named)
        if not path.is_file():
            raise LibraryError(f"{VARIABLE} names {path}, which is no file.", "Name a libggml-rpc, or unset it.")
        return path
    names = _NAMES.get(sys.platform, _OTHER_NAMES)
    return next((path for folder in library_folders() for name in names if (path := folder / name).is_file()), None)


def rpc_library() -> Path:
    """Return the library of ggml's RPC backend.

    Raises:
        LibraryError: there is none; the hint has the command that builds one.
    """
    found = find_rpc_library()
    if found is None:
        raise LibraryError(
            "The installed llama.cpp was built without RPC.",
            f"Name a libggml-rpc of the same version by {VARIABLE} (docs/rpc.md makes one in a minute), or build it "
            f"with RPC (a few minutes; a C++ compiler is needed): {build_command('-DGGML_RPC=on')}",
        )
    return found
