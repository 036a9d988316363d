"""`internvl quantize`: make other quants of a model on this machine."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from internvl_gguf.cli import options, quantize_options
from internvl_gguf.cli.output import print_json, say, show_library_log
from internvl_gguf.cli.quantize_report import (
    file_as_json,
    matrix_as_json,
    progress_bar,
    tell_made,
    tell_plans,
)
from internvl_gguf.cli.run import INTERRUPTED, option_errors
from internvl_gguf.config import EngineConfig, GPULayers
from internvl_gguf.errors import InvalidRequestError, ModelFileError
from internvl_gguf.models.names import LocalModel
from internvl_gguf.utils.options import options_of
from internvl_gguf.utils.paths import expanded
from internvl_gguf.utils.sizes import counted

if TYPE_CHECKING:
    from internvl_gguf.planning.choice import Choice, Choices
    from internvl_gguf.quantizing import Calibration, ImportanceMatrix, QuantizedFile, Quantizer, QuantType
    from internvl_gguf.quantizing.source import Source

_WHOLE: Final = ("BF16", "F32", "F16")  # precisions to quantise from, the published one first


@dataclass(frozen=True)
class _Found:
    """The file that is quantised.

    Attributes:
        path: the file.
        mmproj: looks for the vision encoder of a text model; ModelFileError where there is none.
        folder: where files go if nobody says; None for beside it.
    """

    path: Path
    mmproj: Callable[[], Path]
    folder: Path | None = None


@dataclass(frozen=True)
class _MatrixOptions:
    """The options of the importance matrix.

    Attributes:
        calibrate: what to make one of.
        given: a file of one.
        save: where to keep it.
        chunks: most chunks of text.
        layers: of the model on the GPU while it reads.
    """

    calibrate: Sequence[Path]
    given: Path | None
    save: Path | None
    chunks: int | None
    layers: GPULayers


def quantize(
    source: quantize_options.SourceArgument,
    types: quantize_options.TypesArgument = None,
    output: quantize_options.OutputArgument = None,
    to: quantize_options.ToOption = None,
    calibrate: quantize_options.CalibrateOption = None,
    imatrix: quantize_options.MatrixOption = None,
    save_imatrix: quantize_options.SaveMatrixOption = None,
    chunks: quantize_options.ChunksOption = None,
    mmproj: quantize_options.MmprojOption = None,
    n_gpu_layers: quantize_options.LayersOption = "auto",
    pure: quantize_options.PureOption = False,
    threads: quantize_options.ThreadsOption = None,
    force: quantize_options.ForceOption = False,
    dry_run: quantize_options.DryRunOption = False,
    json_output: options.JSONOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Make other quants of a model, with an importance matrix of texts and pictures if you like.

    Without a TYPE, what each of them would take is listed.
    """
    from internvl_gguf.quantizing import Quantizer, parse_types
    from internvl_gguf.quantizing.output_files import output_paths
    from internvl_gguf.quantizing.source import open_source

    with option_errors():
        output = _one_output(output, to)
        kinds = () if types is None else parse_types(types)
        layers = options_of(EngineConfig)["n_gpu_layers"].read(n_gpu_layers)
        asked = _MatrixOptions(calibrate or (), imatrix, save_imatrix, chunks, layers)
        _check_options(asked, kinds)
    if verbose:
        show_library_log()
    found = _find(source, kinds, mmproj, force)
    opened = open_source(found.path)
    if save_imatrix:
        _check_free(save_imatrix, force)
    paths = output_paths(opened, kinds, output, default=found.folder, force=force)
    with Quantizer(opened, n_threads=threads, pure=pure, force=force) as quantizer:
        matrix, calibration = _given(asked, quantizer), None
        if dry_run or not (kinds or save_imatrix):
            tell_plans(quantizer, kinds or None, json_output=json_output)
            return
        if kinds:
            quantizer.check(kinds, paths, matrix_follows=bool(calibrate))
        if calibrate:
            matrix, calibration = _calibrated(asked, matrix, found, threads, force)
            quantizer.use_matrix(matrix)
        if save_imatrix and matrix:
            _save(save_imatrix, matrix)
        made = _make(quantizer, kinds, paths, quiet=json_output)
    if json_output:
        shown = matrix_as_json(matrix, calibration)
        files = [file_as_json(each) for each in made]
        print_json({"source": str(found.path), "kind": opened.kind, "imatrix": shown, "files": files})
    elif made:
        say(f"Try it: {_command(made[0].path, opened, found)}")


def _one_output(place: Path | None, option: Path | None) -> Path | None:
    """Return the output file, named after the types or by -o.

    Raises:
        InvalidRequestError: two different places.
    """
    if place is not None and option is not None and place != option:
        raise InvalidRequestError(f"The output is {place}, and with --output {option}.", "Give one of them.")
    return option if place is None else place


def _check_options(asked: _MatrixOptions, kinds: Sequence[QuantType]) -> None:
    """Refuse options that contradict each other.

    Raises:
        InvalidRequestError: they do.
    """
    if asked.save and not (asked.calibrate or asked.given):
        raise InvalidRequestError("There is no importance matrix to save.", "Make one with --calibrate.")
    if asked.chunks and not asked.calibrate:
        raise InvalidRequestError("--chunks is for --calibrate.", "Leave it out, or name texts with --calibrate.")
    if asked.calibrate and not kinds and not asked.save:
        raise InvalidRequestError("Nothing is to be made of the calibration.", "Name a TYPE, or use --save-imatrix.")


def _check_free(path: Path, force: bool) -> None:
    if path.exists() and not force:
        raise InvalidRequestError(f"{path} is there already.", "Use --force, or name another file.")
    if not path.parent.is_dir():
        raise InvalidRequestError(f"There is no folder {path.parent}.", "Make it first, or name another.")


def _find(source: str, kinds: Sequence[QuantType], mmproj: str | None, force: bool) -> _Found:
    """Return the file to quantise, fetched if it is not here.

    Raises:
        ModelFileError, HubError: as `resolve.resolve_model`; or nothing of it is in whole precision.
    """
    from internvl_gguf.cli.downloads import obtain
    from internvl_gguf.gguf.filenames import Quant
    from internvl_gguf.models.catalog import load_catalog
    from internvl_gguf.models.local_files import demo_files, local_files
    from internvl_gguf.models.names import parse_model_name

    model = parse_model_name(source, load_catalog())
    if isinstance(model, LocalModel) and not model.is_demo and not model.path.is_dir():
        path = model.path
        return _Found(path, lambda: local_files(source, LocalModel(path), mmproj).mmproj)
    if isinstance(model, LocalModel) and model.is_demo:
        files = demo_files()
    else:
        quant = Quant.parse(model.wanted) if model.wanted else None
        if quant and quant.label not in _WHOLE and kinds and not force:
            raise ModelFileError(
                f"{source} is quantised already, and would lose more than from the original.",
                f"Take {' or '.join(_WHOLE)} of it, or --force.",
            )
        files = obtain(source, mmproj, _whole)
    encoder = expanded(mmproj) if mmproj and expanded(mmproj).is_file() else files.mmproj
    folder = model.path if isinstance(model, LocalModel) and not model.is_demo else Path()
    return _Found(files.text, lambda: encoder, folder)


def _whole(choices: Choices) -> Choice:
    """Return the unquantised text model of a repository or folder."""
    from internvl_gguf.planning.choice import Choice

    labels = {copy.quant.label: copy for copy in choices.texts if copy.quant}
    for label in _WHOLE:
        if label in labels:
            return Choice(labels[label], choices.mmprojs[0], f"Took {label}, of which nothing is lost yet.")
    raise ModelFileError(
        f"{choices.name} has no {', '.join(_WHOLE[:-1])} or {_WHOLE[-1]} to quantise.",
        "Name one of its quants with :QUANT, and --force, or another repository.",
    )


def _given(asked: _MatrixOptions, quantizer: Quantizer) -> ImportanceMatrix | None:
    """Return the matrix of --imatrix, which the quantiser uses from here on.

    Raises:
        ModelFileError, InvalidRequestError: damaged, or of another model; or the source is a vision encoder.
    """
    from internvl_gguf.quantizing import read_matrix

    if quantizer.source.kind == "mmproj" and (asked.given or asked.calibrate):
        raise InvalidRequestError(
            f"{quantizer.source.path} is a vision encoder; importance matrices are for text models.",
            "Leave --imatrix and --calibrate out.",
        )
    if asked.given is None:
        return None
    matrix = read_matrix(asked.given)
    quantizer.use_matrix(matrix)
    return matrix


def _calibrated(
    asked: _MatrixOptions, known: ImportanceMatrix | None, found: _Found, threads: int | None, force: bool
) -> tuple[ImportanceMatrix, Calibration]:
    """Return the matrix of --calibrate, added to a known one."""
    from internvl_gguf.quantizing import importance_matrix
    from internvl_gguf.quantizing.calibration_set import CalibrationQuestion, read_items

    has_questions = any(isinstance(item, CalibrationQuestion) for item in read_items(asked.calibrate))
    mmproj = found.mmproj() if has_questions else None
    with _interruptible("nothing was written"), progress_bar("Reading to calibrate") as bar:
        calibration = importance_matrix(
            found.path,
            asked.calibrate,
            mmproj=mmproj,
            n_threads=threads,
            n_gpu_layers=asked.layers,
            max_chunks=asked.chunks,
            force=force,
            on_progress=bar.advance,
            on_notice=bar.say,
        )
    read = [counted(calibration.chunks, "chunk of text", "chunks of text")] if calibration.chunks else []
    if has_questions:
        questions = counted(calibration.questions, "question", "questions")
        read.append(f"{questions} with {calibration.visual_tokens:,} visual tokens")
    left_out = f"; left out {counted(calibration.skipped, 'question', 'questions')}" if calibration.skipped else ""
    say(f"Read {' and '.join(read)}{left_out}.")
    return (calibration.matrix if known is None else known + calibration.matrix), calibration


def _save(path: Path, matrix: ImportanceMatrix) -> None:
    from internvl_gguf.quantizing import write_matrix

    write_matrix(path, matrix)
    say(f"The importance matrix is in {path}.")


def _make(
    quantizer: Quantizer, kinds: Sequence[QuantType], paths: Sequence[Path], *, quiet: bool
) -> list[QuantizedFile]:
    """Make every type, and tell of each when it is there."""
    made = []
    for kind, path in zip(kinds, paths, strict=True):
        with _interruptible(f"{path} was not written"), progress_bar(f"Making {path.name}") as bar:
            made.append(quantizer.make(kind, path, bar.advance))
        if not quiet:
            tell_made(made[-1])
    return made


@contextlib.contextmanager
def _interruptible(what: str) -> Iterator[None]:
    """Say what Ctrl-C left, and exit."""
    try:
        yield
    except KeyboardInterrupt:
        say(f"Interrupted; {what}.")
        raise typer.Exit(INTERRUPTED) from None


def _command(made: Path, source: Source, found: _Found) -> str:
    """Return the command that tries a file."""
    question = "'What is it?' -i PICTURE"
    if source.kind == "mmproj":
        return f"internvl ask MODEL {question} --mmproj {shlex.quote(str(made))}"
    command = f"internvl ask {shlex.quote(str(made))} {question}"
    if any("mmproj" in path.name.lower() for path in made.parent.glob("*.gguf")):
        return command
    try:
        return f"{command} --mmproj {shlex.quote(str(found.mmproj()))}"
    except ModelFileError:
        return f"{command} --mmproj MMPROJ"
