"""Colours and markers of the charts and the page, for light and dark surroundings.

The colours of the series are Okabe and Ito's (Color Universal Design, 2008), which people with any kind of colour
vision tell apart; each series has a marker of its own as well. Two are a shade darker on white, and one lighter on
black, than theirs: graphics have a contrast of 3:1 and more to the surface (WCAG 2.2, 1.4.11), text 4.5:1 and more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Role = Literal["ink", "muted", "grid", "surface", "pictures", "text", "quant_alone", "mmproj_alone"]
"""Use of a colour."""
SERIES: Final[tuple[Role, ...]] = ("pictures", "text", "quant_alone", "mmproj_alone")


@dataclass(frozen=True)
class Shade:
    """A role's colour on light and on dark surfaces, as #rrggbb. No two roles have the same light one."""

    light: str
    dark: str


SHADES: Final[dict[Role, Shade]] = {
    "ink": Shade("#1f2328", "#e6edf3"),
    "muted": Shade("#59636e", "#9198a1"),
    "grid": Shade("#d8dee4", "#30363d"),
    "surface": Shade("#fffffe", "#0d1117"),
    "pictures": Shade("#0072b2", "#56b4e9"),
    "text": Shade("#d55e00", "#e69f00"),
    "quant_alone": Shade("#008a65", "#2ec79a"),
    "mmproj_alone": Shade("#b5568f", "#cc79a7"),
}
MARKERS: Final[dict[Role, str]] = {"pictures": "o", "text": "s", "quant_alone": "^", "mmproj_alone": "D"}
"""Markers of the series, by matplotlib's names."""


def light(role: Role) -> str:
    """Return the colour of a role on white, used in all drawn pictures."""
    return SHADES[role].light


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours (#rrggbb), 1 to 21 (WCAG 2.2, relative luminance)."""
    first, second = sorted((_luminance(one), _luminance(other)))
    return (second + 0.05) / (first + 0.05)


def _luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
