"""The options of every command that asks a model, `ask` and `chat`, in one place."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, get_type_hints

from internvl_gguf.cli import options
from internvl_gguf.cli.run import option_errors
from internvl_gguf.cli.settings_file import settings_path
from internvl_gguf.config import DEFAULT_WORKER_TIMEOUT, EngineConfig, SamplingParams
from internvl_gguf.tiling import MAX_TILES, validate_tile_limits


@dataclass(frozen=True)
class AskingOptions:
    """The options of every command that asks a model: how it is loaded, how pictures are cut, how answers are chosen.

    Each can be set by a variable, too: n_ctx by INTERNVL_N_CTX; and in config.toml (`settings_file`).
    """

    mmproj: options.MmprojOption = None
    system: options.SystemOption = None
    max_tiles: options.MaxTilesOption = None
    min_tiles: options.MinTilesOption = 1
    thumbnail: options.ThumbnailOption = True
    layout: options.LayoutOption = "separate"
    fit_pictures: options.FitPicturesOption = True
    no_cache: options.NoCacheOption = False
    max_tokens: options.MaxTokensOption = options.SAMPLING.max_tokens
    temperature: options.TemperatureOption = options.SAMPLING.temperature
    top_k: options.TopKOption = options.SAMPLING.top_k
    top_p: options.TopPOption = options.SAMPLING.top_p
    min_p: options.MinPOption = options.SAMPLING.min_p
    repeat_penalty: options.RepeatPenaltyOption = options.SAMPLING.repeat_penalty
    presence_penalty: options.PresencePenaltyOption = options.SAMPLING.presence_penalty
    frequency_penalty: options.FrequencyPenaltyOption = options.SAMPLING.frequency_penalty
    penalty_last_n: options.PenaltyLastOption = options.SAMPLING.penalty_last_n
    seed: options.SeedOption = None
    stop: options.StopOption = None
    n_ctx: options.ContextOption = None
    n_gpu_layers: options.GPULayersOption = "auto"
    vram: options.VRAMOption = None
    force: options.ForceOption = False
    kv_type: options.KVTypeOption = options.ENGINE.kv_type
    flash_attn: options.FlashAttentionOption = "auto"
    threads: options.ThreadsOption = None
    n_batch: options.BatchSizeOption = options.ENGINE.n_batch
    n_ubatch: options.UbatchSizeOption = None
    draft: options.DraftOption = options.ENGINE.n_draft
    worker_timeout: options.WorkerTimeoutOption = DEFAULT_WORKER_TIMEOUT

    def sampling(self) -> SamplingParams:
        """How answers are chosen.

        Raises:
            typer.Exit: a value out of range; it was told.
        """
        with option_errors():
            given = {field.name: getattr(self, field.name) for field in fields(SamplingParams)}
            return SamplingParams(**{**given, "stop": tuple(self.stop or ())})

    def engine(self, **more: Any) -> dict[str, Any]:
        """How the model is loaded, as arguments of `EngineConfig` and `Session.open`; checked.

        Args:
            **more: further ones.

        Raises:
            typer.Exit, typer.BadParameter: a value out of range.
        """
        from internvl_gguf.planning.workload import parse_vram

        arguments: dict[str, Any] = {
            "n_ctx": self.n_ctx,
            "n_gpu_layers": options.gpu_layers(self.n_gpu_layers),
            "vram": self.vram,
            "force": self.force,
            "kv_type": self.kv_type,
            "flash_attn": options.flash_attention(self.flash_attn),
            "n_threads": self.threads,
            "n_batch": self.n_batch,
            "n_ubatch": self.n_ubatch,
            "n_draft": self.draft,
            "embedding_disk_bytes": 0 if self.no_cache else options.ENGINE.embedding_disk_bytes,
            **more,
        }
        with option_errors():
            EngineConfig(**arguments)
            parse_vram(self.vram)
            validate_tile_limits(self.min_tiles, MAX_TILES if self.max_tiles is None else self.max_tiles)
        return arguments

    def opening(self) -> dict[str, Any]:
        """What else `Session.open` takes of them."""
        return {
            "system": self.system,
            "min_tiles": self.min_tiles,
            "thumbnail": self.thumbnail,
            "worker_timeout": self.worker_timeout,
        }


def asking_types() -> dict[str, Any]:
    """The type of each asking option."""
    hints = get_type_hints(AskingOptions)
    return {field.name: hints[field.name] for field in fields(AskingOptions)}


def asks(command: Callable[..., Any]) -> bool:
    """Whether a command has the asking options."""
    return getattr(command, "has_asking_options", False)


def where_else(name: str) -> str:
    """What the help of a command that asks says of other places for its options."""
    prefix = options.VARIABLES
    return (
        f"Every option can be set by a variable, --max-tiles by {prefix}_MAX_TILES and --verbose, which other commands "
        f"have, too, by {prefix}_{name.upper()}_VERBOSE; and in {settings_path()}, as max_tiles = 6. "
        "The command line wins."
    )


def takes_asking_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose parameter `asking` is an `AskingOptions`, its fields options of the command line."""
    hints = get_type_hints(AskingOptions, include_extras=True)
    expanded = [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
        )
        for field in fields(AskingOptions)
    ]
    signature = inspect.signature(command, eval_str=True)
    own = [parameter for parameter in signature.parameters.values() if parameter.name != "asking"]

    @functools.wraps(command)
    def run(**arguments: Any) -> None:
        asking = AskingOptions(**{field.name: arguments.pop(field.name) for field in fields(AskingOptions)})
        command(**arguments, asking=asking)

    signature = signature.replace(
        parameters=[each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own] + expanded
    )
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.has_asking_options = True  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in signature.parameters.values()} | {"return": None}
    return run
