"""The pictures that the docs ask about many of."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest

from internvl_gguf.demo import pictures
from internvl_gguf.demo.pictures import draw_pictures, drawn_picture


def test_pictures_are_drawn_with_a_table_of_what_they_show(tmp_path: Path) -> None:
    table = draw_pictures(tmp_path / "photos", 12)
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["image"]) for row in rows] == sorted((tmp_path / "photos").iterdir())
    assert [row["shape"] for row in rows] == [drawn_picture(seed).shape for seed in range(1, 13)]
    assert len({path.read_bytes() for path in (tmp_path / "photos").iterdir()}) == 12


def test_no_two_backgrounds_are_equal() -> None:
    assert len({drawn_picture(seed).image.getpixel((0, 0)) for seed in range(1, 3000)}) == 2999


@pytest.mark.parametrize("arguments", [[], ["-h"], ["a", "0"], ["a", "x"], ["a", "1", "2"]])
def test_wrong_usage_draws_nothing(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pictures", *arguments])
    assert pictures.main() == 2
    assert "Usage" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setattr(sys, "argv", ["pictures", str(tmp_path / "file" / "photos"), "1"])
    assert pictures.main() == 1
    assert "cannot be written" in capsys.readouterr().err
