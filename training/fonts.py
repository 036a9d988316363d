"""The fonts the training pictures are printed in: Pillow's own, and whatever plain sans-serif ones this machine has.

Only Pillow's embedded font is certain. DejaVu, Liberation and FreeFont (Debian: fonts-dejavu, fonts-liberation,
fonts-freefont-ttf) and the fonts that matplotlib carries are used when they are found.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

EMBEDDED = "pillow"
_SYSTEM_FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts", "/Library/Fonts", "C:/Windows/Fonts")
# Weight by file stem: plain upright sans-serif faces, which people print with and a model this small can learn.
_WEIGHTS = {
    "DejaVuSans": 10, "DejaVuSans-Bold": 9, "DejaVuSansCondensed": 2, "DejaVuSansCondensed-Bold": 2,
    "LiberationSans-Regular": 10, "LiberationSans-Bold": 9, "LiberationSansNarrow-Bold": 1, "FreeSans": 2,
    "FreeSansBold": 2, "Arial": 10, "Arial Bold": 8, "arial": 10, "arialbd": 8, "Verdana": 4, "verdana": 4,
}  # fmt: skip
_EMBEDDED_WEIGHT = 16


@dataclass(frozen=True)
class Face:
    """One font face: its file (or `EMBEDDED`), how often it is drawn, and cap height over font size."""

    path: str
    weight: int
    cap_ratio: float


@lru_cache(maxsize=2048)
def sized(path: str, size: int) -> ImageFont.FreeTypeFont:
    """The face at `path` at `size` pixels per em, kept for later calls."""
    if path == EMBEDDED:
        face = ImageFont.load_default(size)
        assert isinstance(face, ImageFont.FreeTypeFont)
        return face
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


def _cap_ratio(path: str) -> float:
    _, top, _, bottom = sized(path, 200).getbbox("H")
    return float(bottom - top) / 200


@lru_cache(maxsize=1)
def faces() -> tuple[Face, ...]:
    """Every usable face on this machine, Pillow's embedded one first; each file stem once."""
    found = {EMBEDDED: Face(EMBEDDED, _EMBEDDED_WEIGHT, _cap_ratio(EMBEDDED))}
    folders = [Path(folder) for folder in _SYSTEM_FOLDERS]
    spec = importlib.util.find_spec("matplotlib")
    if spec is not None and spec.submodule_search_locations:
        folders.append(Path(next(iter(spec.submodule_search_locations))) / "mpl-data" / "fonts" / "ttf")
    for folder in folders:
        for path in sorted(folder.rglob("*.ttf")) if folder.is_dir() else ():
            if path.stem in _WEIGHTS and path.stem not in found:
                found[path.stem] = Face(str(path), _WEIGHTS[path.stem], _cap_ratio(str(path)))
    return tuple(found.values())
