"""Where this package keeps what it can make again, what people said, and what they set."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import platformdirs


def expanded(text: str) -> Path:
    """The path that a person typed, `~` replaced; as it stands where there is no such user or home.

    Path.expanduser raises there: for a name mistyped, and in a container with a bare user id.
    """
    return Path(os.path.expanduser(text))  # noqa: PTH111


def cache_dir() -> Path:
    """The cache folder: INTERNVL_CACHE if it is set, else the system's place for caches. Not created here."""
    override = os.environ.get("INTERNVL_CACHE")
    return expanded(override) if override else Path(platformdirs.user_cache_dir("internvl-gguf"))


def config_dir() -> Path:
    """The folder of a person's own settings, for example their models.toml. Not created here.

    INTERNVL_CONFIG if it is set, else the system's place for settings: ~/.config/internvl on Linux. The same folder is
    honoured on the other systems where it exists and the system's own place does not.
    """
    override = os.environ.get("INTERNVL_CONFIG")
    if override:
        return expanded(override)
    native = Path(platformdirs.user_config_dir("internvl"))
    everywhere = expanded("~/.config/internvl")
    return everywhere if everywhere.is_dir() and not native.is_dir() else native


def data_dir() -> Path:
    """The folder of what people would miss: their conversations. Not created here.

    INTERNVL_DATA if it is set, else the system's place for data: ~/.local/share/internvl on Linux.
    """
    override = os.environ.get("INTERNVL_DATA")
    return expanded(override) if override else Path(platformdirs.user_data_dir("internvl"))


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that readers see the old content or the new, never a part; folders are made.

    Raises:
        OSError: the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def free_bytes(path: Path) -> int | None:
    """Bytes that this user can still write where `path` is or would be; None where the system does not say."""
    while not path.exists() and path != path.parent:
        path = path.parent
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return None
