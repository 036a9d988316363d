"""Which module may import which: the table of the design, held against the code."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import internvl_gguf

PACKAGE = Path(internvl_gguf.__file__).parent
PUBLIC = {"errors", "types", "utils", "config", "tiling"}
ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "types": set(),
    "_version": set(),
    "utils": {"errors"},
    "config": {"errors", "types", "utils"},
    "tiling": {"errors", "utils"},
    "gguf": {"errors", "utils"},
    "images": PUBLIC,
    "hardware": {"errors", "config", "utils"},
    "llama": {"errors", "config", "utils", "gguf", "hardware"},
    "engine": {"errors", "types", "config", "utils", "llama"},
    "memory": {"errors", "config", "utils", "gguf"},
    "planning": {"errors", "config", "tiling", "utils", "gguf", "hardware", "llama", "memory"},
    "models": {"errors", "utils", "_version", "gguf", "hardware", "memory", "planning"},
    "session": {*PUBLIC, "_version", "gguf", "images", "hardware", "llama", "engine", "memory", "planning", "models"},
    "history": {*PUBLIC, "images", "memory", "session"},
    "quantizing": {*PUBLIC, "gguf", "images", "hardware", "llama", "models", "session"},
    "demo": {"session"},
    "bench": {
        *PUBLIC,
        "_version",
        "gguf",
        "images",
        "hardware",
        "llama",
        "engine",
        "memory",
        "planning",
        "models",
        "session",
    }
    | {"quantizing"},
    "chat": {*PUBLIC, "gguf", "images", "engine", "planning", "models", "session", "history"},
    "cli": {*PUBLIC, "_version", "gguf", "images", "hardware", "llama", "engine", "planning", "models", "session"}
    | {"history", "quantizing", "bench", "chat"},
}
"""Rooms, the lowest first, and the rooms below them that they may know. `__init__` and `__main__` are the doors."""

SHOW_THE_CACHE_FOLDER = ("cli/cache_contents.py", "cli/caches.py", "cli/doctor.py", "session/runtime.py")


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts)


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Full names of the modules a file imports, those only for type checkers left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        node
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and isinstance(branch.test, ast.Name) and branch.test.id == "TYPE_CHECKING"
        for node in ast.walk(branch)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_knows_the_rooms_below_it_only(path: Path) -> None:
    if room(path) in ("__init__", "__main__"):
        return
    assert room(path) in ROOMS, f"{room(path)} has no row in the table"
    known = {name.split(".")[1] for name in imports(path) if name.startswith("internvl_gguf.")}
    assert known - {room(path)} <= ROOMS[room(path)]


def test_the_table_has_no_way_back() -> None:
    rooms = list(ROOMS)
    for name, known in ROOMS.items():
        assert known <= set(rooms[: rooms.index(name)]), name


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_native_library_has_one_door(path: Path) -> None:
    native = {name for name in imports(path) if name.split(".")[0] in ("llama_cpp", "ctypes")}
    assert room(path) == "llama" or not native


@pytest.mark.parametrize("command", ["import internvl_gguf", "import internvl_gguf.cli"])
def test_the_door_loads_neither_llama_cpp_nor_numpy_nor_pillow(command: str) -> None:
    script = f"{command}; import sys; print([m for m in ('llama_cpp', 'numpy', 'PIL', 'gguf') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_what_is_kept_is_declared(path: Path) -> None:
    """`cache clear --all` left a record that had been written around the list of them."""
    if path.stem in ("paths", "records"):
        return
    text = path.read_text(encoding="utf-8")
    shows_only = path.relative_to(PACKAGE).as_posix() in SHOW_THE_CACHE_FOLDER
    assert "cache_dir" not in text or (shows_only and "cache_dir() /" not in text)


def test_help_waits_for_no_library() -> None:
    """Typer and what it stands on take three times as long to import as Python takes to start."""
    script = "import sys; sys.argv[1:] = ['--help']; from internvl_gguf.cli import main; main(); print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    *shown, loaded = result.stdout.splitlines()
    assert shown[0].startswith("Usage: internvl")
    assert not {"typer", "pydantic", "rich", "dataclasses"} & set(loaded.split())
