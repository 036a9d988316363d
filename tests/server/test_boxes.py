"""Boxes of an answer in the three interfaces: a field of their own, beside a text without tags."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.pictures import encoded
from tests.support.pointing_model import SHOWN, write_pointing_model
from tests.support.served import Served, assistant, data_uri, served, streamed, user

PHOTO = encoded(Image.new("RGB", (400, 600), "white"), "PNG")


@pytest.fixture(scope="module")
def pointing(cache_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with a model that answers with a box around a red car."""
    files = write_pointing_model(tmp_path_factory.mktemp("pointing"))
    with served([str(files.text)], "--mmproj", str(files.mmproj), "-c", "1024") as found:
        yield found


def check(boxes: Any) -> None:
    """What every interface tells of the only box."""
    (box,) = boxes
    assert (box["label"], box["image"], box["thousandths"]) == ("red car", 0, [100, 200, 500, 900])
    assert box["xyxy"] == [40.0, 120.0, 200.0, 540.0]
    assert 0 < box["confidence"] <= 1


def test_a_completion_has_the_boxes_of_each_choice(pointing: Served) -> None:
    found = pointing.chat([user("Where is the car?", PHOTO)], n=2)
    for choice in found["choices"]:
        assert choice["message"]["content"] == SHOWN
        check(choice["boxes"])
    assert "boxes" not in pointing.chat("Where is the car?")["choices"][0]


def test_the_end_of_a_stream_has_the_boxes_and_no_tokens_are_told(pointing: Served) -> None:
    sent = streamed(pointing, "/v1/chat/completions", {"messages": [user("Where is the car?", PHOTO)]})
    chunks = [data for _, data in sent if data != "[DONE]"]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == SHOWN
    check(chunks[-1]["choices"][0]["boxes"])
    assert all(chunk["choices"][0]["logprobs"] is None for chunk in chunks)


MARKED = "<ref>red car</ref><box>[[100, 200, 500, 900]]</box>"


def test_tags_stay_in_the_text_if_a_client_wants_them(pointing: Served) -> None:
    """As with vLLM's field. The next turn, which has them, finds its beginning computed."""
    question = user("Where is the car?", PHOTO)
    found = pointing.chat([question], skip_special_tokens=False, logprobs=True)
    (choice,) = found["choices"]
    assert choice["message"]["content"] == MARKED
    assert "".join(token["token"] for token in choice["logprobs"]["content"]) == MARKED
    check(choice["boxes"])
    again = pointing.chat([question, assistant(MARKED), user("And now?")], skip_special_tokens=False)
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] >= found["usage"]["total_tokens"]
    check(again["choices"][0]["boxes"])


def test_the_other_interfaces_have_them_too(pointing: Served) -> None:
    image = data_uri(PHOTO)
    parts = [{"type": "input_text", "text": "Where?"}, {"type": "input_image", "image_url": image}]
    response = pointing.post("/v1/responses", {"input": [{"role": "user", "content": parts}]}).json()
    check(response["boxes"])
    source = {"type": "base64", "media_type": "image/png", "data": image.partition(",")[2]}
    content = [{"type": "image", "source": source}, {"type": "text", "text": "Where?"}]
    body = {"messages": [{"role": "user", "content": content}], "max_tokens": 50}
    check(pointing.post("/v1/messages", body).json()["boxes"])
