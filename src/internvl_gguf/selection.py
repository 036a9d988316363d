"""Which of the files of a repository or folder are meant, or are best taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from internvl_gguf.errors import ModelFileError
from internvl_gguf.precision import Precision
from internvl_gguf.repo_files import ModelCopy, find_copy, nearest_names

# Without a budget: near the published model and small enough for many machines.
_DEFAULT_QUANTS = ("UD-Q4_K_XL", "Q4_K_M", "UD-Q5_K_XL", "Q5_K_M", "UD-Q6_K_XL", "Q6_K", "Q8_0", "Q4_K_S", "IQ4_XS")
_NAME_IT = "Name one: --mmproj FILE on the command line, mmproj=FILE in Python."


def choose_text(texts: tuple[ModelCopy, ...], wanted: str | None, where: str) -> ModelCopy:
    """The text model that `wanted` names, else the default among those there are.

    Raises:
        ModelFileError: none of that name, with the nearest and all of them; or a part of a split one is missing.
    """
    if wanted is None:
        whole = [copy for copy in texts if copy.is_complete]
        if not whole:
            raise _incomplete(texts[0], where)
        return min(whole, key=_default_rank)
    found = find_copy(texts, wanted)
    if found is None:
        near = ", ".join(nearest_names(texts, wanted))
        raise ModelFileError(
            f"{where} has no quant {wanted!r}{f', the nearest are {near}' if near else ''}.",
            f"It has {_listed(texts)}.",
        )
    if not found.is_complete:
        raise _incomplete(found, where)
    return found


def _default_rank(copy: ModelCopy) -> tuple[int, int]:
    name = copy.name
    order = _DEFAULT_QUANTS.index(name) if name in _DEFAULT_QUANTS else len(_DEFAULT_QUANTS)
    return order, copy.size or 0


def _incomplete(copy: ModelCopy, where: str) -> ModelFileError:
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
    """The vision encoder that `wanted` names, else the one in the precision that `prefer` picks.

    Returns:
        The file, and in one line why, "" where there was nothing to choose.

    Raises:
        ModelFileError: none of that name, none at all, or several that precision does not tell apart.
    """
    if wanted is not None:
        found = find_copy(mmprojs, wanted)
        if found is None:
            raise ModelFileError(f"{where} has no mmproj {wanted}.", f"It has {_listed(mmprojs)}; or name a file.")
        return found, ""
    if not mmprojs:
        raise ModelFileError(f"{where} has no mmproj, the file of the vision encoder.", _NAME_IT)
    if len(mmprojs) == 1:
        return mmprojs[0], ""
    labels = [copy.quant.label for copy in mmprojs if copy.quant]
    if len(labels) != len(mmprojs) or len(set(labels)) != len(labels):
        names = ", ".join(copy.first.path for copy in mmprojs)
        raise ModelFileError(f"{where} has several mmproj files: {names}.", _NAME_IT)
    precision = prefer(labels)
    chosen = next(copy for copy in mmprojs if copy.quant and copy.quant.label == precision.label)
    return chosen, f"Vision encoder in {precision.label}: {precision.reason}."
