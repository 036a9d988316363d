"""Find the files of a model under a local path, or inside this package."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from internvl_gguf.errors import ModelFileError
from internvl_gguf.gguf.family import named_model
from internvl_gguf.gguf.file_pieces import missing_error
from internvl_gguf.gguf.filenames import ModelCopy, Quant, RepoContents, RepoFile, find_copy, sort_out
from internvl_gguf.hardware.encoder_precision import Precision, preferred_precision
from internvl_gguf.memory import ModelShape, TextWeights, shape_from_headers
from internvl_gguf.models.names import DEMO, DEMO_FOLDER, DEMO_MMPROJ, DEMO_TEXT, LocalModel
from internvl_gguf.models.select_files import choose_mmproj, complete_texts, named_text
from internvl_gguf.planning.auto_quant import machine_chooser
from internvl_gguf.planning.choice import Choice, Choices, Chooser
from internvl_gguf.utils.paths import expanded


@dataclass(frozen=True)
class ModelFiles:
    """The two files of a model.

    Attributes:
        name: the model's name as the user gave it.
        text: the text model's GGUF; the first part of a split one.
        mmproj: the vision encoder's GGUF.
        choice: the automatic choice in one line; "" if the user named everything.
    """

    name: str
    text: Path
    mmproj: Path
    choice: str = ""

    @property
    def label(self) -> str:
        """What messages call the model: its name; where that is a path, the file's."""
        is_path = self.name.lower() != DEMO and expanded(self.name).exists()
        return self.text.name if is_path else self.name


def demo_files() -> ModelFiles:
    """Return the files of the embedded model."""
    return ModelFiles(DEMO, DEMO_FOLDER / DEMO_TEXT, DEMO_FOLDER / DEMO_MMPROJ)


def local_files(
    name: str,
    model: LocalModel,
    mmproj: str | None,
    prefer: Callable[[Sequence[str]], Precision] = preferred_precision,
    chooser: Chooser | None = None,
) -> ModelFiles:
    """Return the files of a path: a text model's file, or one of a folder.

    Args:
        name: the model's name as the user gave it.
        model: the path.
        mmproj: a file, or a precision that the folder has; None takes the best one.
        prefer: chooses the precision for this machine.
        chooser: chooses a text model of a folder if none was named; None takes what fits this machine.

    Raises:
        ModelFileError: no such model; no mmproj, or several of the same precision.
        InsufficientMemoryError: none of a folder's text models fits.
    """
    folder = model.path if model.path.is_dir() else model.path.parent
    contents = folder_contents(folder)
    if model.path.is_dir() and not contents.texts:
        raise ModelFileError(f"{model.path} holds no GGUF of a text model.", "Name a .gguf file.")
    check_exists(model)
    if mmproj is None and model.mmproj is not None:
        mmproj = str(model.mmproj)
    vision, why = _encoder(folder, contents, model.path, mmproj, prefer)
    if not model.path.is_dir():
        return ModelFiles(name, model.path, vision, why)
    if model.wanted:
        return ModelFiles(name, folder / named_text(contents.texts, model.wanted, str(folder)).first.path, vision, why)
    whole = complete_texts(contents.texts, str(folder))
    if len(whole) == 1:
        return ModelFiles(name, folder / whole[0].first.path, vision, why)
    choice = (chooser or machine_chooser())(_choices(name, folder, whole, vision))
    return ModelFiles(name, folder / choice.text.first.path, vision, f"{choice.reason} {why}".strip())


def check_exists(model: LocalModel) -> None:
    """Check that there is a file or folder at the path of a model.

    Raises:
        ModelFileError: there is none.
    """
    if not model.path.exists():
        raise missing_error(model.path) or ModelFileError(
            f"There is no file {model.path}.", "Check the path, or give a model's name or `demo`."
        )


def local_choices(
    name: str, model: LocalModel, prefer: Callable[[Sequence[str]], Precision], mmproj: str | None = None
) -> Choices:
    """Return the files under a path to choose from, by headers.

    Args:
        name: the model's name as the user gave it.
        model: a text model's file, or a folder of them.
        prefer: chooses the precision of the vision encoder.
        mmproj: the vision encoder's file or precision; None takes the one in the folder.

    Raises:
        ModelFileError: no such model, damaged headers, or no mmproj.
    """
    files = local_files(name, model, mmproj, prefer, lambda choices: Choice(choices.texts[0], choices.mmprojs[0], ""))
    if not model.path.is_dir():
        quant = next((copy.quant for copy in sort_out([RepoFile(files.text.name)]).texts), None)
        only = ModelCopy(quant, (RepoFile(files.text.name, files.text.stat().st_size),))
        return _choices(name, files.text.parent, [only], files.mmproj)
    return _choices(name, model.path, complete_texts(folder_contents(model.path).texts, str(model.path)), files.mmproj)


def _encoder(
    folder: Path,
    contents: RepoContents,
    text: Path,
    mmproj: str | None,
    prefer: Callable[[Sequence[str]], Precision],
) -> tuple[Path, str]:
    """Return the vision encoder, and the reason of the choice, "" if there was none."""
    is_named_here = mmproj is not None and (Quant.parse(mmproj) or find_copy(contents.mmprojs, mmproj))
    if mmproj is not None and (expanded(mmproj).is_file() or not is_named_here):
        return expanded(mmproj), ""
    beside = tuple(copy for copy in contents.mmprojs if folder / copy.first.path != text)
    if mmproj is None and not beside and text.is_file():
        _check_kind(text)
    if text.is_file() and mmproj is None:
        beside = _of_model(beside, text.name)
    where = f"The folder {folder}" if folder != Path() else "This folder"
    vision, why = choose_mmproj(beside, mmproj, where, prefer)
    return folder / vision.first.path, why


def _of_model(mmprojs: tuple[ModelCopy, ...], text: str) -> tuple[ModelCopy, ...]:
    """Return the vision encoders whose names do not contradict that of a text model.

    An encoder whose name has the same model is taken first. One without a model in its name, such as `mmproj-F16.gguf`,
    may be of any model in the folder.
    """
    wanted = named_model(text)
    if wanted is None:
        return mmprojs
    named = [(copy, named_model(copy.first.path)) for copy in mmprojs]
    matching = tuple(copy for copy, other in named if other and not wanted.contradicts(other))
    return matching or tuple(copy for copy, other in named if other is None) or mmprojs


def _choices(name: str, folder: Path, texts: Sequence[ModelCopy], mmproj: Path) -> Choices:
    """Return the text models of a folder with their shapes; files with damaged headers are left out."""
    from internvl_gguf.gguf.header import read_header  # only now: it loads numpy
    from internvl_gguf.gguf.validation import most_tiles_of

    vision = read_header(mmproj)
    known: dict[str, TextWeights] = {}
    damage: ModelFileError | None = None
    shape: ModelShape | None = None
    for copy in texts:
        try:
            shape = shape_from_headers([read_header(folder / part.path) for part in copy.parts], vision)
            known[copy.first.path] = shape.text
        except ModelFileError as error:
            damage = error
    if shape is None:
        raise damage or ModelFileError(f"{folder} holds no GGUF of a text model.", "Name a .gguf file.")
    readable = [copy for copy in texts if copy.first.path in known]
    quant = next((copy.quant for copy in sort_out([RepoFile(mmproj.name)]).mmprojs), None)
    encoder = ModelCopy(quant, (RepoFile(str(mmproj), mmproj.stat().st_size),))
    return Choices(name, readable, [encoder], shape, known, most_tiles_of(vision))


def folder_contents(folder: Path) -> RepoContents:
    """Return the model files of a local folder and its direct sub-folders.

    Raises:
        ModelFileError: the folder cannot be read.
    """
    try:
        patterns = ("*.gguf", "*.GGUF", "*/*.gguf", "*.gguf[.-]*", "*/*.gguf[.-]*")
        paths = [path for pattern in patterns for path in folder.glob(pattern)]
        files = {
            path.relative_to(folder).as_posix(): RepoFile(path.relative_to(folder).as_posix(), path.stat().st_size)
            for path in paths
            if path.is_file()
        }
    except OSError as error:
        raise ModelFileError(f"{folder} cannot be read: {error.strerror or error}.", "Check its permissions.") from None
    return sort_out(files.values())


def _check_kind(text: Path) -> None:
    """Refuse a file that is no text model of InternVL, before the missing mmproj is reported.

    Raises:
        ModelFileError: no GGUF, an mmproj, an importance matrix, or another kind of text model.
    """
    from internvl_gguf.gguf.validation import validate_text_model  # only now: it loads numpy
    from internvl_gguf.gguf.validation.text import read_text_headers

    first, *parts = read_text_headers(text)
    validate_text_model(first, parts)
