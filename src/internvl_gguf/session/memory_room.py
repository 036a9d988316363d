"""How a model is loaded in so much memory, and whether one more can be loaded beside others as well as alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from internvl_gguf.config import USUAL_PICTURES, EngineConfig, PictureOptions
from internvl_gguf.errors import InsufficientMemoryError
from internvl_gguf.gguf.validation import validate_files
from internvl_gguf.hardware.cpu_tuning import host_settings
from internvl_gguf.memory import shape_from_headers
from internvl_gguf.memory.memory_request import context_length
from internvl_gguf.models.local_files import ModelFiles
from internvl_gguf.planning.placement import placements
from internvl_gguf.planning.planner import Configuration
from internvl_gguf.planning.workload import MemoryBudget
from internvl_gguf.tiling import TileRange


def fits_beside(
    files: ModelFiles,
    config: EngineConfig,
    whole: MemoryBudget,
    loaded: Sequence[Configuration],
    pictures: PictureOptions = USUAL_PICTURES,
) -> bool:
    """Return whether a model fits beside loaded ones without a smaller context or fewer layers on GPUs than alone.

    Args:
        files, config: the model, and how it is to be run.
        whole: memory of the machine while none of them is loaded.
        loaded: how the others are loaded.
        pictures: how pictures are cut.

    Raises:
        ModelFileError: files that are damaged.
    """
    alone = best_configuration(files, config, whole, pictures)
    if alone is None:
        return True  # it fits nowhere: loading it says why
    beside = best_configuration(files, config, _rest(whole, loaded), pictures)
    return beside is not None and placement_quality(beside) == placement_quality(alone)


def best_configuration(
    files: ModelFiles, config: EngineConfig, budget: MemoryBudget, pictures: PictureOptions = USUAL_PICTURES
) -> Configuration | None:
    """Return the way in which a model is loaded that has so much memory; None if it does not fit.

    Args:
        files, config, pictures: as in `fits_beside`.
        budget: the memory.

    Raises:
        ModelFileError: files that are damaged.
        InvalidRequestError: a context longer than the model was trained for.
    """
    pair = validate_files(files.text, files.mmproj, check_weights=False)
    host = host_settings(config.n_threads)
    try:
        return next(
            placements(
                files.text.stem,
                shape_from_headers(pair.text_headers, pair.mmproj_header),
                config,
                context_length(config.n_ctx, pair.text.n_ctx_train),
                host.most_threads,
                budget,
                host.n_ubatch,
                max_tiles=pictures.most_tiles(TileRange.of(pair.mmproj)),
            )
        )
    except InsufficientMemoryError:
        return None


def _rest(whole: MemoryBudget, loaded: Sequence[Configuration]) -> MemoryBudget:
    """Return the memory that loaded models leave, by their plans."""
    gpus = dict(zip(whole.gpu_numbers, whole.gpus, strict=True))
    host = whole.host
    for configuration in loaded:
        plan = configuration.plan
        host -= plan.total if whole.is_unified else plan.host.total
        for number, gpu in zip(configuration.budget.gpu_numbers, plan.gpus, strict=True):
            gpus[number] = gpus.get(number, 0) - gpu.total
    left = tuple(max(gpus[number], 0) for number in whole.gpu_numbers)
    return replace(whole, host=max(host, 0), gpus=left)


def placement_quality(configuration: Configuration) -> tuple[int, int, int, bool]:
    """Return what a model gives up where memory is short; equal for configurations that are as good as one another."""
    request = configuration.request
    return request.n_ctx, configuration.gpu_layers, -configuration.host_experts, request.mmproj_on_gpu
