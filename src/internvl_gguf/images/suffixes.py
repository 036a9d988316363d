"""File names that pictures have; what a file is, its content decides."""

from __future__ import annotations

from typing import Final

PICTURE_SUFFIXES: Final = frozenset(
    (".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
)
"""Suffixes of the formats that are read, lower case."""

UNREAD_SUFFIXES: Final = frozenset((".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jxl", ".svg"))
"""Suffixes of other pictures: one among a folder's is told to be unreadable, not passed over."""
