"""The page of `internvl serve demo` in a real browser, headless, and answers whose every piece a test decides."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")

PATIENCE: Final = 60
_BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_SWITCHES: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_ADDRESS: Final = re.compile(r"http://127\.0\.0\.1:\d+")

#: Takes the place of `fetch` for questions alone: `pieces.push` sends a piece of text, `pieces.end` ends the answer.
_SCRIPTED: Final = """
(() => {
  const real = window.fetch;
  window.fetch = (path, options = {}) => {
    if (path !== "/v1/chat/completions") return real(path, options);
    const encoder = new TextEncoder();
    let out;
    const body = new ReadableStream({ start: (controller) => (out = controller) });
    const send = (data) => out.enqueue(encoder.encode("data: " + data + "\\n\\n"));
    options.signal?.addEventListener("abort", () => out.error(new DOMException("stopped", "AbortError")));
    window.pieces = {
      asked: JSON.parse(options.body),
      push: (content) => send(JSON.stringify({ choices: [{ delta: { content } }] })),
      chunk: (chunk) => send(JSON.stringify({ choices: [], ...chunk })),
      end: () => { send("[DONE]"); out.close(); },
    };
    return Promise.resolve(new Response(body, { headers: { "Content-Type": "text/event-stream" } }));
  };
})();
"""

_FILES: Final = """
window.transferOf = (files) => {
  const transfer = new DataTransfer();
  for (const [name, type, bytes] of files) {
    const content = Uint8Array.from(atob(bytes), (each) => each.charCodeAt(0));
    transfer.items.add(new File([content], name, { type }));
  }
  return transfer;
};
"""


@contextmanager
def serving_demo(*options: str) -> Iterator[str]:
    """Serve the demo model on a free port; yields the address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "internvl_gguf", "serve", "demo", "--port", str(port), *options]
    environment = {**os.environ, "NO_COLOR": "1", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as server:
        assert server.stdout is not None
        said: list[str] = []
        for line in server.stdout:
            said.append(line)
            if _ADDRESS.search(line):
                break
        else:
            raise AssertionError(f"the server ended:\n{''.join(said)}")
        # What it says later is read, so that a full pipe does not stop it.
        reader = threading.Thread(target=said.extend, args=(server.stdout,))
        reader.start()
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            try:
                server.wait(PATIENCE)
            finally:
                server.kill()
                reader.join()


@contextmanager
def headless_browser() -> Iterator[Any]:
    """A Chromium of this machine; skips where there is none."""
    found = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if found is None:
        pytest.skip(f"no Chromium is installed; looked for {', '.join(_BROWSERS)}")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=found, args=list(_SWITCHES))
        yield browser
        browser.close()


class PageInBrowser:
    """One tab with the page, and what it must never do: complain, break its policy, or ask another origin.

    Attributes:
        page: Playwright's page.
        address: of the server.
        complaints: errors and warnings of the console, errors nobody caught, requests to other origins.
    """

    def __init__(self, context: Any, address: str, *, scripted: bool = False) -> None:
        self.page = context.new_page()
        self.page.set_default_timeout(PATIENCE * 1000)
        self.address = address
        self.complaints: list[str] = []
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._requested)
        self.page.add_init_script(_FILES)
        if scripted:
            self.page.add_init_script(_SCRIPTED)
        self.open()

    def open(self) -> None:
        """Load the page and wait until it knows its model."""
        self.page.goto(self.address)
        self.until("document.querySelector('#model').value || document.querySelector('#key[open], #banner p')")

    def until(self, condition: str) -> None:
        """Wait until an expression holds; the page's policy forbids the `eval` of Playwright's own way."""
        self.page.evaluate(
            """async (patience) => {
              const end = performance.now() + patience;
              while (!(CONDITION)) {
                if (performance.now() > end) throw new Error("it did not come");
                await new Promise(requestAnimationFrame);
              }
            }""".replace("CONDITION", condition),
            PATIENCE * 1000,
        )

    def _said(self, message: Any) -> None:
        # A refused request is one that a test asked for.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.complaints.append(message.text)

    def _requested(self, request: Any) -> None:
        if not request.url.startswith((self.address + "/", "data:", "blob:")):
            self.complaints.append(f"asked {request.url}")

    def add(self, files: Sequence[tuple[str, str, bytes]], how: str) -> None:
        """Drop or paste files (name, type, bytes); `how` is "drop" or "paste"."""
        self.page.evaluate(
            """([files, how]) => {
              const transfer = transferOf(files);
              const name = how === "drop" ? "dataTransfer" : "clipboardData";
              const kind = how === "drop" ? DragEvent : ClipboardEvent;
              const event = new kind(how, { [name]: transfer, bubbles: true, cancelable: true });
              document.querySelector("#question").dispatchEvent(event);
            }""",
            [[(name, kind, base64.b64encode(content).decode()) for name, kind, content in files], how],
        )

    def ask(self, question: str) -> None:
        """Type a question and press Enter."""
        self.page.fill("#question", question)
        self.page.press("#question", "Enter")

    def answered(self, count: int = 1) -> str:
        """Wait until so many answers are complete; the text of the last."""
        complete = self.page.locator(".answer:not(.running)")
        playwright.expect(complete).to_have_count(count, timeout=PATIENCE * 1000)
        return str(complete.last.locator(".markdown").inner_text())

    def begin_scripted(self, question: str) -> Any:
        """Ask, and return what was sent once the scripted answer waits for its pieces."""
        return self.scripted(lambda: self.ask(question))

    def scripted(self, begin: Callable[[], object]) -> Any:
        """Do what begins a scripted answer, and return what was sent once it waits for its pieces."""
        self.page.evaluate("window.pieces = undefined")
        begin()
        self.until("window.pieces !== undefined")
        return self.page.evaluate("pieces.asked")

    def push(self, text: str) -> None:
        """Send a piece of the scripted answer."""
        self.page.evaluate("(text) => pieces.push(text)", text)

    def chunk(self, **fields: object) -> None:
        """Send a chunk of the scripted answer that has no text."""
        self.page.evaluate("(chunk) => pieces.chunk(JSON.parse(chunk))", json.dumps(fields))

    def end(self) -> None:
        """End the scripted answer."""
        self.page.evaluate("pieces.end()")

    def shows(self, selector: str, text: str | re.Pattern[str]) -> None:
        """Wait until an element contains a text."""
        playwright.expect(self.page.locator(selector)).to_contain_text(text, timeout=PATIENCE * 1000)

    def count(self, selector: str, count: int) -> None:
        """Wait until there are so many elements."""
        playwright.expect(self.page.locator(selector)).to_have_count(count, timeout=PATIENCE * 1000)
