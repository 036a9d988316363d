"""Which module may import which: the table of the design, held against the code."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import internvl_gguf

PACKAGE = Path(internvl_gguf.__file__).parent
BASE = {"errors", "types", "config", "paths", "arguments", "owned", "kept", "_version"}
HEADER = {"gguf_header", "gguf_values"}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "types": set(),
    "paths": {"errors"},
    "_version": set(),
    "arguments": {"errors"},
    "owned": {"errors"},
    "kept": {"paths"},
    "config": {"errors", "types", "arguments"},
    "sizes": BASE,
    "toml_lines": BASE,
    "toml_tables": BASE | {"toml_lines"},
    "catalog": BASE | {"sizes", "toml_lines", "toml_tables"},
    "gguf_values": BASE,
    "gguf_header": BASE | HEADER,
    "validation": BASE | HEADER,
    "fingerprint": BASE,
    "position_rows": BASE | HEADER,
    "picture_formats": BASE,
    "images": BASE | {"picture_formats"},
    "tiling": BASE,
    "grid_overlay": BASE | {"tiling"},
    "tile_limits": BASE | {"tiling"},
    "context_budget": BASE | {"tiling", "tile_limits"},
    "notices": BASE,
    "conversation": BASE,
    "text_stream": BASE,
    "kv_ledger": BASE,
    "embedding_store": BASE,
    "embedding_cache": BASE | {"embedding_store", "notices"},
    "caches": BASE | {"embedding_store"},
    "repo_files": BASE,
    "machine": BASE,
    "precision": BASE | {"machine"},
    "encoder_operations": BASE,
    "device_speed": BASE,
    "assumed_speed": BASE | {"device_speed"},
    "measuring": BASE,
    "process_end": BASE,
    "roofline": BASE | {"machine", "measuring", "device_speed", "assumed_speed"},
    "tuning": BASE | {"machine", "measuring", "this_machine"},
    "speed": BASE | {"memory", "device_speed", "assumed_speed", "encoder_operations"},
    "selection": BASE | {"repo_files", "precision"},
    "hub": BASE | {"repo_files"},
    "model_names": BASE | {"catalog"},
    "model_listing": BASE
    | {"catalog", "hub_models", "memory", "model_files", "model_names", "planning", "precision", "repo_files"}
    | {"selection"},
    "machine_choice": BASE | {"planning", "roofline", "this_machine", "tuning"},
    "model_files": BASE
    | HEADER
    | {"machine_choice", "memory", "model_names", "planning", "precision", "repo_files", "selection"},
    "hub_models": BASE
    | HEADER
    | {"catalog", "hub", "machine_choice", "memory", "model_files", "model_names", "planning", "precision"}
    | {"repo_files", "selection", "sizes", "validation"},
    "resolve": BASE
    | {"catalog", "hub", "hub_models", "machine_choice", "model_files", "model_names", "planning", "precision"}
    | {"repo_files"},
    "model_report": BASE | HEADER | {"validation"},
    "memory": BASE | HEADER | {"catalog"},
    "planning": BASE
    | HEADER
    | {"catalog", "memory", "repo_files", "sizes", "tiling", "speed", "device_speed", "selection"},
    "this_machine": BASE | {"llama", "planning"},
    "placement": BASE | {"memory", "planning", "roofline", "sizes"},
    "saved_session": BASE,
    "restoring": BASE | {"kv_ledger", "model_runtime", "preparation", "saved_session", "text_stream", "tile_limits"},
    "llama": BASE | {"encoder_operations"},
    "engine": BASE | {"llama", "kv_ledger", "embedding_cache"},
    "loading": BASE
    | HEADER
    | {
        "llama",
        "engine",
        "embedding_cache",
        "embedding_store",
        "fingerprint",
        "position_rows",
        "model_files",
        "model_runtime",
        "validation",
        "conversation",
        "memory",
        "notices",
        "planning",
        "placement",
        "saved_session",
        "this_machine",
        "tuning",
    },
    "model_runtime": BASE,
    "open_runtime": BASE | {"loading", "worker"},
    "worker": BASE | {"engine", "kv_ledger", "loading", "model_files", "model_runtime", "notices", "process_end"},
    "preparation": BASE
    | {"model_runtime", "conversation", "images", "tile_limits", "tiling", "context_budget", "kv_ledger"},
    "exclusive": BASE,
    "answering": BASE | {"engine", "model_runtime", "preparation", "kv_ledger", "text_stream"},
    "batch": BASE | {"answering", "preparation"},
    "session": BASE
    | {"answering", "batch", "model_runtime", "open_runtime", "preparation", "resolve", "repo_files", "conversation"}
    | {"exclusive", "machine_choice", "notices", "restoring", "saved_session", "tile_limits"},
    "history": BASE
    | {"conversation", "images", "memory", "notices", "picture_formats", "preparation", "session", "tiling"},
    "chat": BASE
    | {"catalog", "conversation", "images", "kv_ledger", "model_names", "picture_formats", "placement", "preparation"}
    | {"repo_files", "tile_limits", "tiling"},
    "quantizing": BASE
    | HEADER
    | {"llama", "loading", "preparation", "conversation", "model_files", "notices", "repo_files", "sizes"}
    | {"this_machine", "tile_limits", "validation"},
    "bench": BASE
    | HEADER
    | {"catalog", "conversation", "fingerprint", "hub", "images", "kv_ledger", "llama", "loading", "machine", "memory"}
    | {"model_files", "model_listing", "model_names", "notices", "planning", "precision", "preparation", "quantizing"}
    | {"process_end", "repo_files", "roofline", "selection", "session", "sizes", "this_machine", "tuning"}
    | {"validation"},
    "demo": BASE | {"session"},
}
"""Rooms and the rooms they may know. `cli` may know all; `__init__` is the door."""


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
    if room(path) in ("__init__", "__main__", "cli"):
        return
    assert room(path) in ALLOWED, f"{room(path)} has no row in the table"
    known = {name.split(".")[1] for name in imports(path) if name.startswith("internvl_gguf.")}
    assert known - {room(path)} <= ALLOWED[room(path)]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_native_library_has_one_door(path: Path) -> None:
    native = {name for name in imports(path) if name.split(".")[0] in ("llama_cpp", "ctypes")}
    if room(path) == "position_rows":  # clonefile on macOS
        native -= {"ctypes"}
    assert room(path) == "llama" or not native


@pytest.mark.parametrize("command", ["import internvl_gguf", "import internvl_gguf.cli"])
def test_the_door_loads_neither_llama_cpp_nor_numpy_nor_pillow(command: str) -> None:
    script = f"{command}; import sys; print([m for m in ('llama_cpp', 'numpy', 'PIL', 'gguf') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_what_is_kept_is_declared(path: Path) -> None:
    """`cache clear --all` left a record that had been written around the list of them."""
    if room(path) in ("paths", "kept"):
        return
    text = path.read_text(encoding="utf-8")
    shows_only = path.relative_to(PACKAGE).as_posix() in ("caches.py", "cli/caches.py", "cli/doctor.py", "loading.py")
    assert "cache_dir" not in text or (shows_only and "cache_dir() /" not in text)


def test_help_waits_for_no_library() -> None:
    """Typer and what it stands on take three times as long to import as Python takes to start."""
    script = "import sys; sys.argv[1:] = ['--help']; from internvl_gguf.cli import main; main(); print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    *shown, loaded = result.stdout.splitlines()
    assert shown[0].startswith("Usage: internvl")
    assert not {"typer", "pydantic", "rich", "dataclasses"} & set(loaded.split())
