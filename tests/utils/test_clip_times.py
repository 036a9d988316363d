"""Times in clips: as people write them, and as they are shown."""

from __future__ import annotations

import pytest

from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.utils.clip_times import format_time, parse_time


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("83.5", 83.5),
        (".5", 0.5),
        ("90", 90),
        ("1:23", 83),
        ("0:01:23.5", 83.5),
        ("90:00", 5400),
        ("1:00:00", 3600),
        (" 5 ", 5),
    ],
)
def test_times_are_read(text: str, seconds: float) -> None:
    assert parse_time("start", text) == seconds


@pytest.mark.parametrize(
    "text", ["", "soon", "-1", "1e5", "nan", "1:60", "1:75:00", "1:2:3:4", ":5", "5s", "٣", "9" * 400]
)
def test_what_is_no_time_is_told(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="start is "):
        parse_time("start", text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (0.36, "0.4 s"), (59.96, "1:00.0"), (83.5, "1:23.5"), (3723, "1:02:03.0"), (36000, "10:00:00.0")],
)
def test_times_are_shown(seconds: float, text: str) -> None:
    assert format_time(seconds) == text
