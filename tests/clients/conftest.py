"""Servers that the tests of clients share: one that wants a key, one that is busy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from internvl_gguf.models.resolve import ModelFiles
from tests.support.served import Served, events, long, served

KEY = "a-key-of-the-tests"
RED_CIRCLE = "A red circle at the top left, a blue square at the top right and the number 98 at the bottom."
"""What the demo model says of its picture."""


@pytest.fixture(scope="session", autouse=True)
def no_proxy(cache_folder: Path) -> Iterator[None]:
    """Clients ask a server of this machine, whatever proxy the environment names, and with no key of the user's."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            patch.delenv(name, raising=False)
            patch.delenv(name.lower(), raising=False)
        for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session")
def keyed(cache_folder: Path) -> Iterator[Served]:
    """A server with the demo model that wants KEY."""
    with served(["demo"], "--api-key", KEY) as found:
        yield found


@pytest.fixture
def busy(cache_folder: Path, endless_files: ModelFiles) -> Iterator[Served]:
    """A server that answers somebody else for ever and lets nobody wait."""
    options = ["--mmproj", str(endless_files.mmproj), "-c", "32768", "--queue", "0"]
    with served([str(endless_files.text)], *options) as server, ExitStack() as stack:
        client = stack.enter_context(server.client())
        body = {**long(), "stream": True}
        response = stack.enter_context(client.stream("POST", "/v1/chat/completions", json=body))
        answer = events(response)  # as long as it is held, the request goes on
        next(answer)
        yield server
