"""Pictures equal by content are answered once; only those of as many bytes are read for that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from internvl_gguf import SamplingParams
from internvl_gguf.bulk.common import Common
from internvl_gguf.bulk.lines import Line
from internvl_gguf.bulk.same_questions import SameQuestions
from tests.bulk.test_sources import archive


def keys(*asked: dict[str, Any], **common: Any) -> list[bytes | None]:
    lines = [Line(number, json.dumps(each).encode()) for number, each in enumerate(asked, 1)]
    same = SameQuestions(lines, Common(**{"prompt": "What?", **common}))
    return [same.key(line) for line in lines]


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    """Two equal pictures under two names, and another."""
    paths = [tmp_path / name for name in ("a.png", "b.png", "c.png")]
    for path, colour in zip(paths, ("red", "red", "blue"), strict=True):
        Image.new("RGB", (8, 8), colour).save(path, "BMP")  # as many bytes, whatever the colour
    return list(map(str, paths))


def test_equal_pictures_have_one_key_wherever_they_lie(pictures: list[str], tmp_path: Path) -> None:
    packed = archive(tmp_path / "p.zip", {"x.png": Path(pictures[0]).read_bytes()})
    first, second, other, inside = keys(*({"images": [path]} for path in (*pictures, f"{packed}/x.png")))
    assert first == second == inside is not None
    assert other not in (first, None)  # as many bytes, so that it was read


def test_what_else_decides_an_answer_decides_the_key(pictures: list[str]) -> None:
    one = {"images": [pictures[0]]}
    assert len(set(keys(one, {**one, "max_tokens": 3}, {**one, "prompt": "Who?"}))) == 1  # none has a twin: all None
    named = keys(*({"images": [path]} for path in pictures[:2]), prompt="Is it {name}?")
    assert named == [None, None]
    folder = keys(*({"images": [path]} for path in pictures[:2]), prompt="Is it in {folder}?")
    assert folder[0] == folder[1] is not None


def test_an_answer_left_to_chance_is_asked_for_each(pictures: list[str]) -> None:
    asked = [{"images": [path]} for path in pictures[:2]]
    assert keys(*asked, sampling=SamplingParams(temperature=1.0)) == [None, None]
    seeded = keys(*asked, sampling=SamplingParams(temperature=1.0, seed=1))
    assert seeded[0] == seeded[1] is not None


def test_lines_without_pictures_and_lines_that_cannot_be_asked_have_no_key(pictures: list[str]) -> None:
    assert keys({"prompt": "a"}, {"prompt": "a"}, {"images": ["no.png"]}, {"images": ["no.png"]}) == [None] * 4
    assert keys({"images": [1]}, {"x": 1}, {"images": [pictures[0]], "video": "a.mp4"}) == [None] * 3
