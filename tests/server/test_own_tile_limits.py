"""A server of a model whose mmproj says how many tiles a picture is cut into."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from tests.support.pictures import noise
from tests.support.served import served, user
from tests.support.tiny_models import write_tiny_mmproj, write_tiny_text


def test_requests_are_cut_as_the_mmproj_says_unless_they_say_otherwise(cache_folder: Path, tmp_path: Path) -> None:
    text = write_tiny_text(tmp_path / "tiny-F32.gguf", n_ctx=1024)
    mmproj = write_tiny_mmproj(tmp_path / "mmproj-F32.gguf", max_tiles=6)
    picture = io.BytesIO()
    noise(3, 640, 320).save(picture, format="PNG")
    with served([str(text)], "--mmproj", str(mmproj), "-c", "1024") as server:

        def tiles(detail: str | None = None, **fields: Any) -> int:
            body = {"messages": [user("What is it?", picture.getvalue(), detail=detail)], **fields}
            (found,) = server.post("/v1/chat/completions/input_tokens", body).json()["images"]
            return int(found["tiles"])

        assert tiles() == tiles("auto") == tiles("high") == 2 + 1
        assert tiles(max_tiles=12) == 8 + 1
        assert tiles(min_tiles=8) == 8 + 1
        assert tiles("low") == 1
