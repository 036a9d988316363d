"""The options of every command that asks a model, `ask` and `chat`, in one place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast, get_args

from internvl_gguf.cli import options
from internvl_gguf.cli.parameters import VARIABLES, Group, expand, parameter, parameters_of, taken
from internvl_gguf.cli.run import option_errors
from internvl_gguf.cli.settings_file import settings_path
from internvl_gguf.config import (
    DEFAULT_CANDIDATES,
    DEFAULT_WORKER_TIMEOUT,
    MAX_CANDIDATES,
    AskOptions,
    EngineConfig,
    PictureOptions,
    SamplingParams,
)

_OF_SESSION: Final = ("min_tiles", "thumbnail")
"""Picture options that a session is opened with: a video frame is one tile whatever they say."""


@dataclass(frozen=True)
class AskingOptions:
    """Options that say how a model is loaded, how pictures are cut and how answers are chosen.

    Each option can be set by a variable, too: n_ctx by INTERNVL_N_CTX; and in config.toml (`settings_file`).

    Attributes:
        mmproj: the vision encoder; None for the one that suits.
        system: the system message; None for the official one.
        pictures: how pictures are cut and laid out.
        sampling: how answers are chosen.
        engine: how the model is loaded and run.
        worker_timeout: seconds without a sign of life after which a worker is ended.
    """

    mmproj: str | None = None
    system: str | None = None
    pictures: PictureOptions = field(default_factory=PictureOptions)
    sampling: SamplingParams = field(default_factory=SamplingParams)
    engine: EngineConfig = field(default_factory=EngineConfig)
    worker_timeout: float = DEFAULT_WORKER_TIMEOUT

    @property
    def opening(self) -> dict[str, Any]:
        """Arguments of `Session.open` beside the files and the engine's options."""
        return {
            "system": self.system,
            "max_tiles": self.pictures.max_tiles,
            "min_tiles": self.pictures.min_tiles,
            "thumbnail": self.pictures.thumbnail,
            "worker_timeout": self.worker_timeout,
        }

    @property
    def asked(self) -> AskOptions:
        """Options of every question."""
        of_pictures = {name: value for name, value in vars(self.pictures).items() if name not in _OF_SESSION}
        return cast("AskOptions", {"sampling": self.sampling, **of_pictures})


def pictures_of(opening: Mapping[str, Any]) -> PictureOptions:
    """Return how the pictures of a session are cut that is opened with such arguments."""
    return PictureOptions(max_tiles=opening["max_tiles"], min_tiles=opening["min_tiles"])


_PARAMETERS: Final = (
    parameter("mmproj", options.MmprojOption),
    parameter("system", options.SystemOption),
    *parameters_of(PictureOptions),
    parameter("no_cache", options.NoCacheOption, default=False),
    *parameters_of(SamplingParams),
    *parameters_of(EngineConfig),
    parameter("worker_timeout", options.WorkerTimeoutOption, default=DEFAULT_WORKER_TIMEOUT),
)


def asking_options(values: dict[str, Any]) -> AskingOptions:
    """Return the asking options that the parameters of a command give.

    Raises:
        typer.Exit: a value that cannot be used; the user was told.
    """
    disk = {"embedding_disk_bytes": 0} if values.pop("no_cache") else {}
    with option_errors():
        pictures, sampling = taken(PictureOptions, values), taken(SamplingParams, values)
        at_once = {"n_candidates": max(DEFAULT_CANDIDATES, min(sampling.best_of, MAX_CANDIDATES))}
        engine = taken(EngineConfig, values, **disk, **at_once)
        return AskingOptions(pictures=pictures, sampling=sampling, engine=engine, **values)


def asking_types() -> dict[str, Any]:
    """Return the type of each asking option, by the name of its parameter."""
    return {each.name: get_args(each.annotation)[0] for each in _PARAMETERS}


def asks(command: Callable[..., Any]) -> bool:
    """Return whether a command has the asking options."""
    return getattr(command, "has_asking_options", False)


def elsewhere(variables: Mapping[str, str]) -> str:
    """Return the help text that says how variables set the options of a command.

    Args:
        variables: the name of each, by the long name of its option.
    """
    if not variables:
        return ""
    option, variable = next(iter(variables.items()))
    each = "Every option" if len(variables) > 1 else "The option"
    return f"{each} can be set by a variable, too: {option} by {variable}."


def asking_elsewhere(name: str) -> str:
    """Return the help text that names the other places where the asking options of a command can be set."""
    return (
        f"Every option that is not of one question can be set by a variable, --max-tiles by {VARIABLES}_MAX_TILES and "
        f"--verbose, which other commands have, too, by {VARIABLES}_{name.upper()}_VERBOSE; and in {settings_path()}, "
        "as max_tiles = 6. "
        "The command line wins."
    )


def takes_asking_options(command: Callable[..., None]) -> Callable[..., None]:
    """Decorator: replaces the command's parameter `asking`, an `AskingOptions`, by the asking options."""
    expanded = expand(command, {"asking": Group(_PARAMETERS, asking_options)})
    expanded.has_asking_options = True  # type: ignore[attr-defined]
    return expanded


def takes_picture_options(command: Callable[..., None]) -> Callable[..., None]:
    """Decorator: replaces the command's parameter `pictures`, a `PictureOptions`, by the picture options."""
    return expand(command, {"pictures": Group(tuple(parameters_of(PictureOptions)), _picture_options)})


def _picture_options(values: dict[str, Any]) -> PictureOptions:
    with option_errors():
        found: PictureOptions = taken(PictureOptions, values)
        return found
