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
    "_version": set(),
    "utils": {"errors"},
    "types": {"utils"},
    "structured": {"errors", "types", "utils"},
    "tiling": {"errors", "utils"},
    "config": {"errors", "types", "utils", "tiling", "structured"},
    "gguf": {"errors", "utils"},
    "images": PUBLIC,
    "video": {*PUBLIC, "images"},
    "boxes": {"errors", "types", "utils", "images", "structured"},
    "hardware": {"errors", "config", "utils"},
    "llama": {"errors", "config", "utils", "gguf", "hardware"},
    "vision": {"errors", "config", "utils", "gguf", "hardware", "llama"},
    "engine": {"errors", "types", "config", "utils", "structured", "llama", "vision"},
    "memory": {"errors", "config", "utils", "gguf"},
    "planning": {"errors", "config", "tiling", "utils", "gguf", "hardware", "llama", "memory"},
    "models": {"errors", "utils", "_version", "gguf", "hardware", "memory", "planning"},
    "judging": {"errors", "types", "utils", "structured"},
    "session": {
        *PUBLIC,
        "_version",
        "gguf",
        "images",
        "video",
        "structured",
        "boxes",
        "hardware",
        "llama",
        "vision",
        "engine",
        "memory",
        "planning",
        "models",
        "judging",
    },
    "critics": {*PUBLIC, "images", "engine", "models", "judging", "session"},
    "bulk": {
        *PUBLIC,
        "gguf",
        "images",
        "video",
        "structured",
        "hardware",
        "memory",
        "planning",
        "models",
        "judging",
        "session",
        "critics",
    },
    "ray": {"errors", "types", "bulk", "models", "session"},
    "history": {*PUBLIC, "images", "video", "session"},
    "quantizing": {*PUBLIC, "gguf", "images", "hardware", "llama", "models", "session"},
    "demo": {"errors", "session"},
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
        "judging",
        "session",
        "critics",
    }
    | {"quantizing"},
    "chat": {
        *PUBLIC,
        "_version",
        "gguf",
        "images",
        "video",
        "boxes",
        "engine",
        "planning",
        "models",
        "judging",
        "session",
        "history",
    },
    "server": {
        *PUBLIC,
        "_version",
        "gguf",
        "hardware",
        "images",
        "video",
        "structured",
        "engine",
        "memory",
        "planning",
        "models",
        "session",
    },
    "cli": {
        *PUBLIC,
        "_version",
        "gguf",
        "images",
        "video",
        "boxes",
        "hardware",
        "llama",
        "vision",
        "engine",
        "planning",
        "models",
    }
    | {"session", "critics", "bulk", "ray", "history", "quantizing", "bench", "chat", "server"},
}
"""Rooms, the lowest first, and the rooms below them that they may know. `__init__` and `__main__` are the doors."""

SHOW_THE_CACHE_FOLDER = ("cli/cache_contents.py", "cli/caches.py", "cli/doctor.py", "session/open_encoder.py")


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts)


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path, *, typing: bool = False) -> set[str]:
    """Full names of what a file imports, with what only type checkers see if that is wanted."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        node
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and isinstance(branch.test, ast.Name) and branch.test.id == "TYPE_CHECKING"
        for node in ast.walk(branch)
    }
    typing_only = set() if typing else typing_only
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


def test_no_two_modules_need_each_other() -> None:
    """Neither when they run nor for a type checker; inside a room as little as between rooms."""
    paths = {dotted(path): path for path in modules()}
    needs = {name: {module_of(each, paths) for each in imports(path, typing=True)} for name, path in paths.items()}
    needs = {name: known - {name, ""} for name, known in needs.items()}
    while free := {name for name, known in needs.items() if not known & needs.keys()}:
        needs = {name: known for name, known in needs.items() if name not in free}
    assert not needs, "these stand in a circle, or need one that does"


def dotted(path: Path) -> str:
    return ".".join(("internvl_gguf", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


def module_of(imported: str, paths: dict[str, Path]) -> str:
    """The module an imported name stands in; "" for what is not of this package, and for its door."""
    while imported not in paths and "." in imported:
        imported = imported.rpartition(".")[0]
    return imported if imported in paths and imported != "internvl_gguf" else ""


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_native_library_has_one_door(path: Path) -> None:
    native = {name for name in imports(path) if name.split(".")[0] in ("llama_cpp", "ctypes")}
    assert room(path) == "llama" or not native


@pytest.mark.parametrize(
    "command", ["import internvl_gguf", "import internvl_gguf.cli", "import internvl_gguf.session"]
)
def test_the_door_loads_neither_llama_cpp_nor_numpy_nor_pillow(command: str) -> None:
    assert not loaded_by(command) & {"llama_cpp", "numpy", "PIL", "gguf"}


@pytest.mark.parametrize(
    ("arguments", "needless"),
    [
        (["cache"], {"llama_cpp", "PIL", "huggingface_hub", "prompt_toolkit"}),
        (["history"], {"llama_cpp", "numpy", "PIL", "huggingface_hub", "prompt_toolkit"}),
        (["doctor", "--help"], {"llama_cpp", "numpy", "PIL", "huggingface_hub", "prompt_toolkit"}),
        (["list", "--help"], {"llama_cpp", "numpy", "PIL", "huggingface_hub", "prompt_toolkit"}),
        (["pick", "demo", "--vram", "8GiB"], {"llama_cpp", "PIL", "huggingface_hub", "prompt_toolkit"}),
        (["inspect", "--help"], {"llama_cpp", "PIL", "huggingface_hub", "prompt_toolkit"}),
    ],
    ids=lambda given: given[0] if isinstance(given, list) else "",
)
def test_a_command_waits_for_no_library_that_it_does_not_need(arguments: list[str], needless: set[str]) -> None:
    """`doctor` is for the machine on which llama.cpp cannot be loaded; the others are to answer at once."""
    main = "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code"
    assert (
        not loaded_by(f"import sys; sys.argv[1:] = {arguments!r}\nfrom internvl_gguf.cli import main\n{main}")
        & needless
    )


def loaded_by(script: str) -> set[str]:
    """The modules that are loaded at the end of a script in a process of its own."""
    script = f"{script}\nimport sys; print(*sys.modules, file=sys.stderr)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(result.stderr.splitlines()[-1].split())


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_what_is_kept_is_declared(path: Path) -> None:
    """`cache clear --all` left a record that had been written around the list of them."""
    if path.stem in ("paths", "records"):
        return
    text = path.read_text(encoding="utf-8")
    shows_only = path.relative_to(PACKAGE).as_posix() in SHOW_THE_CACHE_FOLDER
    text = text.replace('"cache_dir"', "")  # the name of an option that others have
    assert "cache_dir" not in text or (shows_only and "cache_dir() /" not in text)


WRITE_THEMSELVES = {
    "cli/__init__.py": "`--help` and completion are answered before there is anything to write with",
    "cli/streams.py": "mends the streams themselves",
    "cli/chat_terminal.py": "gives the chat's screen the streams",
}


def writes(path: Path) -> set[str]:
    """What a file of cli/ writes with: functions that print, consoles, the streams themselves."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("print", "Console"):
            found.add(node.func.id)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            name = f"{node.value.id}.{node.attr}"
            if name in ("sys.stdout", "sys.stderr", "typer.echo", "typer.secho", "typer.style", "typer.confirm"):
                found.add(name)
    return found


@pytest.mark.parametrize("path", sorted((PACKAGE / "cli").glob("*.py")), ids=lambda path: path.name)
def test_commands_write_by_one_output(path: Path) -> None:
    """Width, wrapping, colour, JSON and what a stream cannot encode: one place each, in cli/output."""
    name = path.relative_to(PACKAGE).as_posix()
    assert bool(writes(path)) == (name in WRITE_THEMSELVES), writes(path)


def test_help_waits_for_no_library() -> None:
    """Typer and what it stands on take three times as long to import as Python takes to start."""
    script = "import sys; sys.argv[1:] = ['--help']; from internvl_gguf.cli import main; main(); print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    *shown, loaded = result.stdout.splitlines()
    assert shown[0].startswith("Usage: internvl")
    assert not {"typer", "pydantic", "rich", "dataclasses"} & set(loaded.split())


def test_one_function_names_the_command_of_a_child() -> None:
    """A child that runs Python with -m alone imports from the current folder first, whoever put files there."""
    for path in PACKAGE.rglob("*.py"):
        if path.name != "child_process.py":
            assert 'sys.executable, "-m"' not in path.read_text(encoding="utf-8"), path
