"""Select the named files of a repository or folder, or the best ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from internvl_gguf.errors import MissingEncoderError, ModelFileError
from internvl_gguf.gguf.file_pieces import listed_error, whole_name
from internvl_gguf.gguf.filenames import ModelCopy, find_copy, nearest_names
from internvl_gguf.hardware.encoder_precision import Precision

_NAME_IT = "Name one: --mmproj FILE on the command line, mmproj=FILE in Python."


def named_text(texts: tuple[ModelCopy, ...], wanted: str, where: str) -> ModelCopy:
    """Return the text model that `wanted` names.

    Raises:
        ModelFileError: none of that name (the error names the nearest and all), or a part of a split one is missing.
    """
    found = find_copy(texts, wanted)
    if found is None:
        near = ", ".join(nearest_names(texts, wanted))
        raise ModelFileError(
            f"{where} has no quant {wanted!r}{f'; the nearest: {near}' if near else ''}.",
            f"It has {_listed(texts)}.",
        )
    if not found.is_complete:
        raise _incomplete(found, where)
    return found


def complete_texts(texts: tuple[ModelCopy, ...], where: str) -> tuple[ModelCopy, ...]:
    """Return the text models of which no part is missing, one or more.

    Raises:
        ModelFileError: there are none.
    """
    whole = tuple(copy for copy in texts if copy.is_complete)
    if not whole:
        raise _incomplete(texts[0], where)
    return whole


def _incomplete(copy: ModelCopy, where: str) -> ModelFileError:
    if whole_name(copy.first.path):
        return listed_error(copy.name, where, [part.path for part in copy.parts])
    return ModelFileError(
        f"{copy.name} of {where} is split, and parts are missing: there {'is' if len(copy.parts) == 1 else 'are'} "
        f"{', '.join(part.path for part in copy.parts)}.",
        "Take another quant, or get the missing parts.",
    )


def _listed(copies: tuple[ModelCopy, ...]) -> str:
    return ", ".join(copy.name for copy in copies)


def choose_mmproj(
    mmprojs: tuple[ModelCopy, ...], wanted: str | None, where: str, prefer: Callable[[Sequence[str]], Precision]
) -> tuple[ModelCopy, str]:
    """Return the vision encoder that `wanted` names, else the one in the precision that `prefer` chooses.

    Returns:
        The file, and the reason in one line, "" if there was no choice.

    Raises:
        ModelFileError: none of that name, none at all, or several of the same precision.
    """
    if wanted is not None:
        found = find_copy(mmprojs, wanted)
        if found is None:
            raise ModelFileError(f"{where} has no mmproj {wanted}.", f"It has {_listed(mmprojs)}; or name a file.")
        return found, ""
    if not mmprojs:
        raise MissingEncoderError(f"{where} has no mmproj, the file of the vision encoder.", _NAME_IT)
    if len(mmprojs) == 1:
        return mmprojs[0], ""
    labels = [copy.quant.label for copy in mmprojs if copy.quant]
    if len(labels) != len(mmprojs) or len(set(labels)) != len(labels):
        names = ", ".join(copy.first.path for copy in mmprojs)
        raise MissingEncoderError(f"{where} has several mmproj files: {names}.", _NAME_IT)
    precision = prefer(labels)
    chosen = next(copy for copy in mmprojs if copy.quant and copy.quant.label == precision.label)
    return chosen, f"Vision encoder in {precision.label}: {precision.reason}."
