"""The files of a model that are on this machine under a path, or inside this package."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from internvl_gguf.errors import ModelFileError
from internvl_gguf.model_names import DEMO, DEMO_FOLDER, DEMO_MMPROJ, DEMO_TEXT, LocalModel
from internvl_gguf.precision import Precision, preferred_precisions
from internvl_gguf.repo_files import Quant, RepoContents, RepoFile, find_copy, sort_out
from internvl_gguf.selection import choose_mmproj, choose_text


@dataclass(frozen=True)
class ModelFiles:
    """The two files of a model.

    Attributes:
        name: how it was asked for.
        text: the text model's GGUF; the first part of a split one.
        mmproj: the vision encoder's GGUF.
        choice: in one line what was chosen for the person, "" where everything was named.
    """

    name: str
    text: Path
    mmproj: Path
    choice: str = ""


def demo_files() -> ModelFiles:
    """The embedded model."""
    return ModelFiles(DEMO, DEMO_FOLDER / DEMO_TEXT, DEMO_FOLDER / DEMO_MMPROJ)


def local_files(
    name: str,
    model: LocalModel,
    mmproj: str | None,
    prefer: Callable[[Sequence[str]], Precision] = preferred_precisions,
) -> ModelFiles:
    """The files of a path: a text model's file, or one of a folder.

    Args:
        name: how the model was asked for.
        model: the path.
        mmproj: a file, or a precision that the folder has; None takes the best there is.
        prefer: which precision suits this machine.

    Raises:
        ModelFileError: no such model; no mmproj, or several that precision does not tell apart.
    """
    folder = model.path if model.path.is_dir() else model.path.parent
    contents = folder_contents(folder)
    reason = ""
    if model.path.is_dir():
        if not contents.texts:
            raise ModelFileError(f"{model.path} holds no GGUF of a text model.", "Name a .gguf file.")
        copy = choose_text(contents.texts, model.wanted, str(model.path))
        text = model.path / copy.first.path
        if model.wanted is None and len(contents.texts) > 1:
            reason = f"Chose {copy.first.path}: no quant was named."
    else:
        text = model.path
        if not text.exists():
            raise ModelFileError(f"There is no file {text}.", "Check the path, or give a model's name or `demo`.")
    is_named_here = mmproj is not None and (Quant.parse(mmproj) or find_copy(contents.mmprojs, mmproj))
    if mmproj is not None and (Path(mmproj).expanduser().is_file() or not is_named_here):
        return ModelFiles(name, text, Path(mmproj).expanduser(), reason)
    if mmproj is None and not contents.mmprojs:
        _check_kind(text)
    beside = tuple(copy for copy in contents.mmprojs if folder / copy.first.path != text)
    where = f"The folder {folder}" if folder != Path() else "This folder"
    vision, why = choose_mmproj(beside, mmproj, where, prefer)
    return ModelFiles(name, text, folder / vision.first.path, f"{reason} {why}".strip())


def folder_contents(folder: Path) -> RepoContents:
    """The model files of a local folder, sub-folders of one level included.

    Raises:
        ModelFileError: the folder cannot be read.
    """
    try:
        paths = [*folder.glob("*.gguf"), *folder.glob("*.GGUF"), *folder.glob("*/*.gguf")]
        files = {
            path.relative_to(folder).as_posix(): RepoFile(path.relative_to(folder).as_posix(), path.stat().st_size)
            for path in paths
            if path.is_file()
        }
    except OSError as error:
        raise ModelFileError(f"{folder} cannot be read: {error.strerror or error}.", "Check its permissions.") from None
    return sort_out(files.values())


def _check_kind(text: Path) -> None:
    """What is wrong may be the file itself and not that it has no mmproj beside it.

    Raises:
        ModelFileError: no GGUF, or an mmproj.
    """
    from internvl_gguf.gguf_header import read_header  # only now: it loads numpy

    header = read_header(text)
    if "general.architecture" in header and header.text("general.architecture") == "clip":
        raise ModelFileError(
            f"{text} is an mmproj, the vision half of a model.", "Name the text model, and this with --mmproj."
        )
