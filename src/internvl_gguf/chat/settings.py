"""What /set changes: how answers are chosen and how pictures are cut."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, get_args

from internvl_gguf.config import AskOptions, SamplingParams
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.images.tile_limits import TileLimits
from internvl_gguf.tiling import validate_tile_limits
from internvl_gguf.types import PictureLayout

_ON, _OFF, _NONE = ("on", "true", "yes", "1"), ("off", "false", "no", "0"), ("none", "default", "auto")


@dataclass(frozen=True)
class Settings:
    """The settings of a chat.

    Attributes:
        sampling: how tokens are chosen.
        max_tiles: most tiles of a picture, the thumbnail not counted; None for the model card's, or 1 for frames.
        min_tiles: fewest tiles of a picture.
        thumbnail: whether the whole picture follows its tiles.
        layout: how several pictures stand in the prompt.
        fit_pictures: whether pictures that do not fit are cut smaller.

    Raises:
        InvalidRequestError: values out of range.
    """

    sampling: SamplingParams = field(default_factory=SamplingParams)
    max_tiles: int | None = None
    min_tiles: int = TileLimits.min_tiles
    thumbnail: bool = TileLimits.thumbnail
    layout: PictureLayout = "separate"
    fit_pictures: bool = True

    def __post_init__(self) -> None:
        validate_tile_limits(self.min_tiles, self._most_tiles)

    @property
    def limits(self) -> TileLimits:
        """How pictures are cut."""
        return TileLimits(self._most_tiles, self.min_tiles, self.thumbnail)

    @property
    def _most_tiles(self) -> int:
        if self.max_tiles is not None:
            return self.max_tiles
        return 1 if self.layout == "frames" else max(TileLimits.max_tiles, self.min_tiles)

    @property
    def ask_options(self) -> AskOptions:
        """The same as options of `Session.stream`."""
        limits = self.limits
        return {
            "sampling": self.sampling,
            "max_tiles": limits.max_tiles,
            "min_tiles": limits.min_tiles,
            "thumbnail": limits.thumbnail,
            "layout": self.layout,
            "fit_pictures": self.fit_pictures,
        }

    def changed(self, name: str, text: str) -> Settings:
        """These settings with one of them read from what was typed.

        Raises:
            InvalidRequestError: no such setting, or a value that cannot be used.
        """
        key = name.lower().replace("-", "_")
        if key not in _READERS:
            near = difflib.get_close_matches(key, _READERS, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"The settings are {', '.join(_READERS)}."
            raise InvalidRequestError(f"There is no setting {name!r}.", hint)
        value = _READERS[key](key, text.strip())
        if key in _SAMPLING:
            return replace(self, sampling=replace(self.sampling, **{key: value}))
        return replace(self, **{key: value})

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of each."""
        values = {name: getattr(self.sampling if name in _SAMPLING else self, name) for name in _READERS}
        return [(name, _shown(value)) for name, value in (values | {"max_tiles": self._most_tiles}).items()]


def setting_names() -> tuple[str, ...]:
    """The names that `Settings.changed` knows."""
    return tuple(_READERS)


def setting_values(name: str) -> tuple[str, ...]:
    """The values of a setting, where it has few."""
    reader = _READERS.get(name.lower().replace("-", "_"))
    if reader is _read_switch:
        return (_ON[0], _OFF[0])
    if reader is _read_layout:
        return get_args(PictureLayout)
    return (_NONE[0],) if reader in (_read_number_or_none, _read_stop) else ()


def _shown(value: Any) -> str:
    if value is None or value == ():
        return "none"
    if isinstance(value, bool):
        return _ON[0] if value else _OFF[0]
    return " ".join(shlex.quote(each) for each in value) if isinstance(value, tuple) else str(value)


def _read_number(name: str, text: str) -> int:
    try:
        return int(text.replace(",", ""))
    except ValueError:
        raise InvalidRequestError(f"{name} is {text!r}.", "Give a whole number.") from None


def _read_number_or_none(name: str, text: str) -> int | None:
    return None if text.lower() in _NONE else _read_number(name, text)


def _read_real(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidRequestError(f"{name} is {text!r}.", "Give a number, such as 0.8.") from None


def _read_switch(name: str, text: str) -> bool:
    if text.lower() not in _ON + _OFF:
        raise InvalidRequestError(f"{name} is {text!r}.", "Say on or off.")
    return text.lower() in _ON


def _read_layout(name: str, text: str) -> PictureLayout:
    for layout in get_args(PictureLayout):
        if text.lower() == layout:
            return layout  # type: ignore[no-any-return]
    raise InvalidRequestError(f"{name} is {text!r}.", f"Use {', '.join(get_args(PictureLayout))}.")


def _read_stop(name: str, text: str) -> tuple[str, ...]:
    if text.lower() in _NONE:
        return ()
    try:
        return tuple(shlex.split(text))
    except ValueError:
        return (text,)


def _reader_of(default: Any) -> Callable[[str, str], Any]:
    if default is None:
        return _read_number_or_none
    if isinstance(default, bool):
        return _read_switch
    if isinstance(default, tuple):
        return _read_stop
    return _read_number if isinstance(default, int) else _read_real


_SAMPLING = tuple(each.name for each in fields(SamplingParams))
_READERS: dict[str, Callable[[str, str], Any]] = {
    **{each.name: _reader_of(each.default) for each in fields(SamplingParams)},
    "max_tiles": _read_number_or_none,
    "min_tiles": _read_number,
    "thumbnail": _read_switch,
    "layout": _read_layout,
    "fit_pictures": _read_switch,
}
