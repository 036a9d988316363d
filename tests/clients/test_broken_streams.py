"""A model that dies amid a stream: the packages raise an error, and nobody takes half an answer for a whole one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from internvl_gguf.models.resolve import ModelFiles
from tests.support.served import Served, long, served

openai = pytest.importorskip("openai", reason="the package openai is not installed: make test-clients")
anthropic = pytest.importorskip("anthropic", reason="the package anthropic is not installed: make test-clients")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

#: As in `long`: an answer that ends at its limit only.
ENDLESS = {"presence_penalty": -100}


@pytest.fixture(scope="module")
def endless(cache_folder: Path, endless_files: ModelFiles) -> Iterator[Served]:
    """A server with answers without end."""
    with served([str(endless_files.text)], "--mmproj", str(endless_files.mmproj), "-c", "32768") as found:
        yield found


def openai_of(server: Served) -> Any:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0, timeout=60)


def chat(server: Served) -> Iterator[Any]:
    with openai_of(server) as client:
        yield from client.chat.completions.create(model="text", stream=True, **long())


def response(server: Served) -> Iterator[Any]:
    with (
        openai_of(server) as client,
        client.responses.stream(model="text", input="Go on.", max_output_tokens=30_000, extra_body=ENDLESS) as stream,
    ):
        yield from stream
        stream.get_final_response()


def message(server: Served) -> Iterator[Any]:
    with (
        anthropic.Anthropic(base_url=server.url, api_key="x", max_retries=0, timeout=60) as client,
        client.messages.stream(
            model="text", messages=long()["messages"], max_tokens=30_000, extra_body=ENDLESS
        ) as stream,
    ):
        yield from stream
        stream.get_final_message()


@pytest.mark.parametrize(
    ("ask", "error"), [(chat, openai.APIError), (response, openai.APIError), (message, anthropic.APIStatusError)]
)
def test_an_answer_that_is_broken_off_is_an_error(
    endless: Served, ask: Callable[[Served], Iterator[Any]], error: type[Exception]
) -> None:
    stream = ask(endless)
    for _ in range(10):  # beyond what comes before the text
        next(stream)
    endless.worker.kill()
    with pytest.raises(error, match="SIGKILL"):
        for _ in stream:
            pass
    endless.wait_for_line("loaded again")
