"""Choose the best quant that fits when the user names none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from internvl_gguf.config import DEFAULT_N_UBATCH, USUAL_PICTURES, EngineConfig, PictureOptions
from internvl_gguf.errors import InsufficientMemoryError, ModelFileError
from internvl_gguf.gguf.filenames import ModelCopy
from internvl_gguf.hardware.device_speed import Roofline
from internvl_gguf.memory import ModelShape, TextWeights
from internvl_gguf.planning.candidates import Candidate, listed_candidates
from internvl_gguf.planning.plan_text import memory_table, verdict
from internvl_gguf.planning.planner import Planner
from internvl_gguf.planning.ranking import cost_of, rank
from internvl_gguf.planning.workload import MemoryBudget, Workload, context_for
from internvl_gguf.tiling import CARD_RANGE
from internvl_gguf.utils.sizes import format_size


@dataclass(frozen=True)
class Choices:
    """The files to choose from.

    Attributes:
        name: name of the model.
        texts: complete text models.
        mmprojs: vision encoders, the best first.
        shape: shape of the model; the sizes of its weights do not matter.
        known: shapes that were read from headers, by the path of the text file.
        max_tiles: most tiles of a picture that the mmproj says; None where it was not read or does not say.
    """

    name: str
    texts: Sequence[ModelCopy]
    mmprojs: Sequence[ModelCopy]
    shape: ModelShape
    known: Mapping[str, TextWeights]
    max_tiles: int | None = None


@dataclass(frozen=True)
class Choice:
    """The chosen files.

    Attributes:
        text: the text model.
        mmproj: the vision encoder.
        reason: the reason in one line.
    """

    text: ModelCopy
    mmproj: ModelCopy
    reason: str


Chooser = Callable[[Choices], Choice]


def choose(
    choices: Choices,
    config: EngineConfig,
    n_threads: int,
    budget: MemoryBudget,
    roofline: Roofline | None,
    host_ubatch: int = DEFAULT_N_UBATCH,
    pictures: PictureOptions = USUAL_PICTURES,
) -> Choice:
    """Return the best quant that fits a budget, run as `config` says.

    Args:
        choices: the files.
        config: how the model will be run.
        n_threads: CPU threads.
        budget: bytes that may be taken.
        roofline: how fast the devices are; None assumes typical ones.
        host_ubatch: see `Workload.host_ubatch`.
        pictures: how pictures will be cut.

    Raises:
        InsufficientMemoryError: none fits, and `config.force` is not set.
        ModelFileError: no file has a size that this model can have.
    """
    candidates = listed_candidates(choices.name, choices.texts, choices.mmprojs, choices.shape, choices.known)
    vision = choices.shape.vision
    tokens = vision.tokens_per_tile if vision else 0
    own = CARD_RANGE if choices.max_tiles is None else replace(CARD_RANGE, most=choices.max_tiles)
    most = pictures.most_tiles(own)
    n_ctx = config.n_ctx or context_for(1, most, tokens, choices.shape.text.n_ctx_train)
    workload = Workload.of(config, n_ctx, n_threads, host_ubatch, max_tiles=most)
    ranked = rank(candidates, budget, workload, roofline)
    if ranked:
        best = ranked[0]
        text = _copy(choices.texts, best.candidate.file)
        why = f"Picked {best.candidate.quant}, {verdict(best)} (`internvl pick` says why, and shows the others.)"
        return Choice(text, _copy(choices.mmprojs, best.encoder.file), why)
    if not candidates:
        raise ModelFileError(
            f"The sizes of the files of {choices.name} are not those of such a model.", "Name a quant: NAME:QUANT."
        )
    smallest = min(candidates, key=lambda candidate: candidate.size)
    if not config.force:
        raise nothing_fits(smallest, budget, workload, roofline)
    text = _copy(choices.texts, smallest.file)
    return Choice(text, choices.mmprojs[0], f"Took {text.name}, the smallest: nothing fits, and it was forced.")


def nothing_fits(
    smallest: Candidate,
    budget: MemoryBudget,
    workload: Workload,
    roofline: Roofline | None,
    *,
    of_several: bool = False,
) -> InsufficientMemoryError:
    """Return the error for a budget that not even the smallest quant fits.

    Args:
        smallest: that quant.
        budget, workload, roofline: as in `Planner`.
        of_several: whether it is the smallest of several models, and there is no smaller one to take.
    """
    least = Planner(budget, workload, roofline, cost_of("balanced")).smallest(smallest)
    what = "model of the family" if of_several else f"quant of {smallest.model}"
    name = f"{smallest.model}:{smallest.quant}" if of_several else smallest.quant
    model = "" if of_several else " a smaller model (`internvl pick` without one),"
    pictures = f" and {workload.pictures_text}" if workload.pictures else ""
    fewer = " pictures of fewer tiles," if workload.pictures and workload.max_tiles > 1 else ""
    return InsufficientMemoryError(
        f"No {what} fits with a context of {workload.n_ctx:,} tokens{pictures}: the smallest, {name}, "
        f"misses {format_size(least.shortage)}.",
        f"Take a smaller context,{fewer} fewer conversations,{model} or more memory.",
        table=memory_table(least),
    )


def _copy(copies: Sequence[ModelCopy], file: str) -> ModelCopy:
    return next(copy for copy in copies if copy.first.path == file)
