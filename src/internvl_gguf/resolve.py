"""From what a person types to exact files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from internvl_gguf.errors import ModelFileError

DEMO = "demo"


@dataclass(frozen=True)
class ModelFiles:
    """The two files of a model.

    Attributes:
        name: how it was asked for.
        text: the text model's GGUF.
        mmproj: the vision encoder's GGUF.
    """

    name: str
    text: Path
    mmproj: Path


def resolve_model(model: str | os.PathLike[str], mmproj: str | os.PathLike[str] | None = None) -> ModelFiles:
    """The files of a model: `demo`, or a GGUF with its mmproj.

    Args:
        model: `demo` or the path of a text GGUF.
        mmproj: the path of the vision encoder; left out, the one mmproj in the folder of the text model is taken.

    Raises:
        ModelFileError: no such file, or no single mmproj to take.
    """
    name = os.fspath(model)
    if name == DEMO:
        folder = Path(str(resources.files("internvl_gguf"))) / "demo"
        return ModelFiles(DEMO, folder / "demo-text-BF16.gguf", folder / "demo-mmproj-F16.gguf")
    text = Path(name).expanduser()
    if text.suffix.lower() != ".gguf" and not text.exists():
        raise ModelFileError(f"There is no model {name!r}.", "Give the path of a .gguf file, or `demo`.")
    return ModelFiles(name, text, Path(mmproj).expanduser() if mmproj else _only_mmproj_beside(text))


def _only_mmproj_beside(text: Path) -> Path:
    found = sorted(path for path in text.parent.glob("*.gguf") if "mmproj" in path.name.lower() and path != text)
    if len(found) == 1:
        return found[0]
    several = ", ".join(path.name for path in found)
    raise ModelFileError(
        f"{text.name} has {'several mmproj files beside it: ' + several if found else 'no mmproj beside it'}.",
        "Name the vision encoder's file: --mmproj FILE on the command line, mmproj=FILE in Python.",
    )
