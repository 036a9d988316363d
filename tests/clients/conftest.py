"""What the tests of clients share: a server that wants a key, one that is busy, and the page in a browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from internvl_gguf.models.resolve import ModelFiles
from tests.support.served import Served, events, long, served

if TYPE_CHECKING:
    from tests.support.page_browser import PageInBrowser

Opener = Callable[..., "PageInBrowser"]
"""Opens the page: `scripted`, the `address` of the server, and options of the browser's profile."""

KEY = "a-key-of-the-tests"
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


# Where playwright is not installed, tests without the page run: it is imported where it is used.


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The address of a server with the demo model and its page."""
    from tests.support.page_browser import serving_demo

    with serving_demo() as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    from tests.support.page_browser import headless_browser

    with headless_browser() as opened:
        yield opened


@pytest.fixture
def opener(browser: Any, address: str) -> Iterator[Opener]:
    """Opens the page in a browser profile of its own; in the end nothing may have been complained about."""
    from tests.support.page_browser import PageInBrowser

    opened: list[tuple[Any, PageInBrowser]] = []

    def open_page(scripted: bool = False, address: str = address, **profile: Any) -> PageInBrowser:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **profile})
        opened.append((context, PageInBrowser(context, address, scripted=scripted)))
        return opened[-1][1]

    yield open_page
    complaints = [complaint for _, tab in opened for complaint in tab.complaints]
    for context, _ in opened:
        context.close()
    assert complaints == []


@pytest.fixture
def tab(opener: Opener) -> PageInBrowser:
    """The page, answered by the demo model."""
    return opener()


@pytest.fixture
def scripted(opener: Opener) -> PageInBrowser:
    """A page whose answers come from the test."""
    return opener(scripted=True)
