"""The folders of this package: caches, conversations and settings."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from internvl_gguf.errors import InternVLError


def expanded(text: str) -> Path:
    """Return a typed path with `~` expanded; unchanged if there is no such user or home.

    Path.expanduser raises then: for a mistyped name, and in a container whose user id has no account.
    """
    return Path(os.path.expanduser(text))  # noqa: PTH111


def cache_dir() -> Path:
    """Return the cache folder: INTERNVL_CACHE if it is set, else the system's place for caches. Not created here."""
    override = os.environ.get("INTERNVL_CACHE")
    return expanded(override) if override else Path(platformdirs.user_cache_dir("internvl-gguf"))


def config_dir() -> Path:
    """Return the folder of the user's settings, for example models.toml. Not created here.

    INTERNVL_CONFIG if it is set, else the system's place for settings: ~/.config/internvl on Linux. The same folder is
    used on other systems, too, if it exists and the system's own place does not.
    """
    override = os.environ.get("INTERNVL_CONFIG")
    if override:
        return expanded(override)
    native = Path(platformdirs.user_config_dir("internvl"))
    everywhere = expanded("~/.config/internvl")
    return everywhere if everywhere.is_dir() and not native.is_dir() else native


def data_dir() -> Path:
    """Return the folder of data that cannot be made again: the conversations. Not created here.

    INTERNVL_DATA if it is set, else the system's place for data: ~/.local/share/internvl on Linux.
    """
    override = os.environ.get("INTERNVL_DATA")
    return expanded(override) if override else Path(platformdirs.user_data_dir("internvl"))


@contextmanager
def making_temporary() -> Iterator[None]:
    """Context for making a temporary file or folder: a failure becomes an error message.

    Raises:
        InternVLError: the system has no folder for temporary files that can be written.
    """
    try:
        yield
    except OSError as error:
        raise InternVLError(
            f"No temporary file can be made: {error.strerror or error}.", "Set TMPDIR to a folder that can be written."
        ) from error


def free_bytes(path: Path) -> int | None:
    """Return the bytes that this user can still write at the place of `path`; None if the system does not say."""
    try:
        return shutil.disk_usage(_nearest(path)).free
    except OSError:
        return None


def is_writable(folder: Path) -> bool:
    """Return whether files can be created in a folder, or the folder itself if it does not exist yet."""
    try:
        with tempfile.TemporaryFile(dir=_nearest(folder)):
            return True
    except OSError:
        return False


def _nearest(path: Path) -> Path:
    """Return the path, or its nearest parent that exists and may be read."""
    found = path.absolute()
    while found != found.parent and not os.path.exists(found):  # noqa: PTH110  (Path's raises where it may not look)
        found = found.parent
    return found
