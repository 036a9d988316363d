"""The settings that /set changes: sampling, and how pictures are cut."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast

from internvl_gguf.config import AskOptions, PictureOptions, SamplingParams
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.images.tile_limits import TileLimits
from internvl_gguf.session.candidate_samplings import samplings_of
from internvl_gguf.tiling import CARD_RANGE, TileRange
from internvl_gguf.utils.kinds import JudgeName
from internvl_gguf.utils.options import Declared, options_of

_OPEN: Final = ("none", "default", "auto")
"""Words that leave a setting open."""
_SETTINGS: Final = {
    name: (group, declared)
    for group, configuration in (("sampling", SamplingParams), ("pictures", PictureOptions))
    for name, declared in options_of(configuration).items()
}
"""The field of `Settings` that each setting stands in, and what is declared of it."""
_OTHER_NAMES: Final = {
    flag.removeprefix("--").replace("-", "_"): name
    for name, (_, declared) in _SETTINGS.items()
    for flag in declared.flags
    if flag.startswith("--")
}
"""The settings by their names on the command line, such as temp."""


@dataclass(frozen=True)
class Settings:
    """The settings of a chat.

    Attributes:
        sampling: how tokens are chosen.
        pictures: how pictures are cut and laid out.
        chosen: names of the settings that the user has given, perhaps with the value of their default.
    """

    sampling: SamplingParams = field(default_factory=SamplingParams)
    pictures: PictureOptions = field(default_factory=PictureOptions)
    chosen: frozenset[str] = frozenset()

    def limits(self, own: TileRange = CARD_RANGE) -> TileLimits:
        """Return how pictures are cut for a model whose file says `own`."""
        return TileLimits.of(self.pictures, own)

    def ask_options(self, own: TileRange = CARD_RANGE) -> AskOptions:
        """Return the same as options of `Session.stream`."""
        asked = self.pictures.tiles(own)
        limits = {"max_tiles": asked.most, "min_tiles": asked.least}
        return cast("AskOptions", {"sampling": self.sampling, **vars(self.pictures), **limits})

    @property
    def given_options(self) -> AskOptions:
        """Those of them that the user has given or that are not at their defaults, each by its name."""
        values = {**vars(self.sampling), **vars(self.pictures)}
        given = {
            name: values[name]
            for name, (_, declared) in _SETTINGS.items()
            if name in self.chosen or values[name] != declared.default
        }
        return cast("AskOptions", {name: value for name, value in given.items() if value is not None})

    def changed(self, name: str, text: str) -> Settings:
        """These settings with one of them read from what was typed.

        Raises:
            InvalidRequestError: no such setting, or a value that cannot be used.
        """
        key = setting_key(name)
        if key not in _SETTINGS:
            near = difflib.get_close_matches(key, _SETTINGS, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"The settings are {', '.join(_SETTINGS)}."
            raise InvalidRequestError(f"There is no setting {name!r}.", hint)
        group, declared = _SETTINGS[key]
        is_open = _leaves_open(declared, text.strip())
        value = _read(declared, text.strip())
        now = getattr(self, group)
        new = now.changed({key: value}) if isinstance(now, SamplingParams) else replace(now, **{key: value})
        changed: dict[str, Any] = {group: new}
        return replace(self, **changed, chosen=self.chosen - {key} if is_open else self.chosen | {key})

    def rows(self, own: TileRange = CARD_RANGE, *, is_elsewhere: bool = False) -> list[tuple[str, str]]:
        """Return name and value of each; of one that is not set, what holds then, and that it is not set.

        Args:
            own: the tiles that the model's file says.
            is_elsewhere: whether a server has the model: how several answers differ is left to it.
        """
        values, open_values = {**vars(self.sampling), **vars(self.pictures)}, self._open_values(own)
        if is_elsewhere and self.sampling.best_of > 1:
            open_values |= {"temperature": "the server's", "top_p": "the server's"}
        shown = {name: declared.kind.show(values[name]) for name, (_, declared) in _SETTINGS.items()}
        shown |= {name: f"{text} (not set)" for name, text in open_values.items() if values[name] is None}
        return list(shown.items())

    def _open_values(self, own: TileRange) -> dict[str, str]:
        """Return what holds where a setting is None, by its name."""
        asked = self.pictures.tiles(own)
        answers = samplings_of(self.sampling) if self.sampling.best_of > 1 else [self.sampling]
        temperature, others = answers[0].effective_temperature, answers[-1].effective_temperature
        differs = f" for the first, {others} for the others" if others != temperature else ""
        return {
            "max_tiles": f"{asked.most}",
            "min_tiles": f"{asked.least}",
            "max_tokens": f"{self.sampling.effective_max_tokens}",
            "temperature": f"{temperature}{differs}",
            "top_p": f"{answers[-1].effective_top_p}",  # the first of several is greedy, or like the others
        }


def setting_names() -> tuple[str, ...]:
    """The names that `Settings.changed` knows."""
    return tuple(_SETTINGS)


def setting_values(name: str) -> tuple[str, ...]:
    """The values of a setting, where it has few."""
    if (found := _SETTINGS.get(setting_key(name))) is None:
        return ()
    _, declared = found
    return declared.kind.choices or _OPEN[: declared.can_be_open]


def setting_key(name: str) -> str:
    """Return the name of a setting that was typed in another spelling, or by another name."""
    key = name.lower().replace("-", "_")
    return _OTHER_NAMES.get(key, key)


def _leaves_open(declared: Declared, text: str) -> bool:
    """Return whether a text leaves a setting as it is by itself; no judge is called none, default or auto."""
    return (declared.can_be_open or isinstance(declared.kind, JudgeName)) and text.lower() in _OPEN


def _read(declared: Declared, text: str) -> Any:
    if _leaves_open(declared, text):
        return declared.default
    try:
        return declared.kind.read(text)
    except ValueError:
        raise InvalidRequestError(f"{declared.name} is {text!r}.", f"Give {declared.kind.typed}.") from None
