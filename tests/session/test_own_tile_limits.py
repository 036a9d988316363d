"""An mmproj that says how many tiles a picture is cut into: obeyed, unless the user says otherwise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from internvl_gguf import ModelFileError, Session
from internvl_gguf.chat.settings import Settings
from internvl_gguf.models.hub import HubCache, HubClient
from internvl_gguf.models.hub_resolver import HubResolver
from internvl_gguf.models.resolve import resolve_model
from internvl_gguf.tiling import TileRange
from tests.support.exact import EXACT
from tests.support.loopback_hub import LoopbackHub
from tests.support.pictures import noise
from tests.support.tiny_models import write_tiny_mmproj, write_tiny_text

WIDE = (640, 320)  # of tiles of 32 pixels, as many as are allowed


def files(folder: Path, **limits: int | None) -> tuple[Path, Path]:
    text = write_tiny_text(folder / "tiny-F32.gguf", n_ctx=2048)
    return text, write_tiny_mmproj(folder / "mmproj-tiny-F32.gguf", **limits)


def cut(session: Session, **options: Any) -> tuple[int, int]:
    """Tiles of a wide picture, and whether a thumbnail follows, counted from what the encoder gets."""
    return session.embed_image(noise(3, *WIDE), **options).shape[:2]


@pytest.mark.parametrize("worker", [False, True])
@pytest.mark.parametrize(
    ("says", "given", "tiles"),
    [({}, {}, 13), ({}, {"max_tiles": 24}, 25), ({}, {"max_tiles": 1}, 1), ({"max_tiles": 6}, {}, 7)],
)
def test_memory_is_planned_for_the_tiles_of_the_session(
    tmp_path: Path, says: dict[str, int | None], given: dict[str, Any], tiles: int, worker: bool
) -> None:
    """One opened with max_tiles=24 was planned with 13 tiles: on a 14B 63 MB too few."""
    with Session.open(*files(tmp_path, **says), n_ctx=512, worker=worker, **given, **EXACT) as session:
        configuration = session.runtime.configuration
        assert configuration.request.tiles == tiles
        vision, text = session.runtime.vision, session.runtime.text
        assert configuration.plan.host.embeddings == 4 * tiles * vision.tokens_per_tile * text.n_embd
        path = tmp_path / "talk.ivl"
        session.save(path)
    with Session.restore(path, worker=worker, **EXACT) as restored:
        assert restored.runtime.configuration.request.tiles == tiles


@pytest.mark.parametrize(
    ("says", "given", "limits", "tiles"),
    [
        ({"min_tiles": None, "max_tiles": None}, {}, (1, 12), 8 + 1),
        ({"max_tiles": 6}, {}, (1, 6), 2 + 1),
        ({"max_tiles": 24}, {}, (1, 24), 18 + 1),
        ({"min_tiles": None, "max_tiles": 2}, {}, (1, 2), 2 + 1),
        ({"min_tiles": 3, "max_tiles": 12}, {}, (3, 12), 8 + 1),
        ({"min_tiles": 2, "max_tiles": None}, {}, (2, 12), 8 + 1),
        ({"max_tiles": 6}, {"max_tiles": 12}, (1, 12), 8 + 1),
        ({"max_tiles": 24}, {"max_tiles": 1}, (1, 1), 1),
        ({"min_tiles": 3, "max_tiles": 12}, {"max_tiles": 2}, (2, 2), 2 + 1),
        ({"min_tiles": 3, "max_tiles": 12}, {"min_tiles": 1}, (1, 12), 8 + 1),
        ({"max_tiles": 6}, {"min_tiles": 8}, (8, 8), 8 + 1),
    ],
)
def test_what_the_mmproj_says_is_obeyed_unless_the_user_says_otherwise(
    tmp_path: Path, says: dict[str, int | None], given: dict[str, Any], limits: tuple[int, int], tiles: int
) -> None:
    """A file with at least 3 tiles still encodes single ones: those are cut here, not by llama.cpp."""
    with Session.open(*files(tmp_path, **says), n_ctx=512, **given, **EXACT) as session:
        assert (session.limits.min_tiles, session.limits.max_tiles) == limits
        assert cut(session)[0] == tiles
        assert cut(session, max_tiles=1, min_tiles=1)[0] == 1


def test_a_question_and_a_chat_may_say_otherwise_and_frames_stay_one_tile(tmp_path: Path) -> None:
    with Session.open(*files(tmp_path, min_tiles=2, max_tiles=6), n_ctx=1024, **EXACT) as session:
        own = TileRange.of(session.runtime.vision)
        assert own == TileRange(2, 6)
        session.ask("What is it?", [noise(3, *WIDE)], max_tokens=1)
        session.ask("And now?", [noise(4, *WIDE)], max_tokens=1, max_tiles=12)
        session.ask("Frames?", [noise(5, *WIDE), noise(6, *WIDE)], max_tokens=1, layout="frames")
        pictures = [len(each.tiles) for message in session.messages for each in message.pictures]
        assert pictures == [3, 9, 1, 1]
    assert Settings().ask_options(own)["max_tiles"] == 6
    assert dict(Settings().rows(own))["min_tiles"] == "2 (not set)"
    assert Settings().changed("max_tiles", "12").ask_options(own)["max_tiles"] == 12


CONTRADICTIONS = [
    ({"min_tiles": 13, "max_tiles": 12}, "at least 13 and at most 12 tiles, which no picture can be"),
    ({"min_tiles": 0, "max_tiles": 12}, "at least 0 and at most 12 tiles, which no picture can be"),
    ({"min_tiles": 1, "max_tiles": 0}, "at least 1 and at most 0 tiles"),
    ({"min_tiles": 1, "max_tiles": 100_000}, "at most 100000 tiles, and 64 are the most here"),
    ({"min_tiles": 13, "max_tiles": None}, "at least 13 and at most 12 tiles"),
    ({"min_tiles": 4, "max_tiles": 12}, "wants 4 along each side"),
]


@pytest.mark.parametrize(("says", "said"), CONTRADICTIONS)
def test_limits_that_contradict_each_other_are_refused_before_a_body_is_fetched(
    tmp_path: Path, says: dict[str, int | None], said: str
) -> None:
    text, mmproj = files(tmp_path, **says)
    with LoopbackHub() as hub:
        hub.add_repo("owner/tuned", {each.name: each.read_bytes() for each in (text, mmproj)})
        cache = tmp_path / "cache"
        resolver = HubResolver(HubClient(hub.url, token=False, sleep=lambda seconds: None), HubCache(cache))
        with pytest.raises(ModelFileError, match=said) as refused:
            resolve_model("owner/tuned", resolver=resolver)
        assert "its model card: 1 and 12" in refused.value.hint
        assert not cache.exists()


def internvl(folder: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "internvl_gguf", *arguments],
        capture_output=True, text=True, check=False, timeout=120, cwd=folder, env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done


def test_the_commands_say_where_the_limit_comes_from(tmp_path: Path) -> None:
    text, mmproj = files(tmp_path, max_tiles=6)
    noise(3, *WIDE).save(tmp_path / "wide.png")
    looked = internvl(tmp_path, "inspect", "wide.png", "--mmproj", mmproj.name)
    assert "6 tiles a picture, as the mmproj says" in looked.stdout
    found = json.loads(internvl(tmp_path, "inspect", "wide.png", "--mmproj", mmproj.name, "--json").stdout)
    assert (found["max_tiles"], found["max_tiles_from"], found["tiles"]) == (6, "mmproj", 3)
    looked = internvl(tmp_path, "inspect", "wide.png", "--mmproj", mmproj.name, "--max-tiles", "12")
    assert "12 tiles a picture, as asked for (--max-tiles)" in looked.stdout
    assert "12 tiles a picture, as the model card says" in internvl(tmp_path, "inspect", "wide.png").stdout
    assert "1 to 6 tiles a picture" in internvl(tmp_path, "show", text.name).stdout
    picked = internvl(tmp_path, "pick", text.name, "--context", "1024")
    assert "Pictures of up to 6 tiles, as the mmproj says; the model card has 12." in picked.stderr
    assert "1 picture (7 tiles" in picked.stdout
    assert "--max-tiles" not in picked.stdout
    asked = internvl(tmp_path, "pick", text.name, "--context", "1024", "--max-tiles", "12")
    assert "as the mmproj says" not in asked.stderr
    assert asked.stdout.splitlines()[-1].endswith("--max-tiles 12")


def test_a_contradiction_is_two_lines(tmp_path: Path) -> None:
    text, mmproj = files(tmp_path, min_tiles=13, max_tiles=12)
    for command in (("ask", text.name, "Hello."), ("pick", text.name), ("show", text.name)):
        refused = internvl(tmp_path, *command, code=1)
        assert len(refused.stderr.splitlines()) == 2, refused.stderr
        assert mmproj.name in refused.stderr
