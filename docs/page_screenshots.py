"""Take the pictures of the server's page, in the repository: `python -m docs.page_screenshots`.

The demo model is served and really asked, in a headless Chromium. The pictures are written beside this file as
`page-WIDTH-COLOURS.png`.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Final

from PIL import Image

from tests.support.page_browser import PageInBrowser, headless_browser, serving_demo

_DOCS: Final = Path(__file__).parent
_PACKAGE: Final = _DOCS.parent / "src" / "internvl_gguf"
_PICTURE: Final = _PACKAGE / "demo" / "example.png"
_NEXT_PICTURE: Final = _PACKAGE / "bench" / "data" / "pictures" / "floor-plan.png"
_EARLIER: Final = ("What number is written?", "What colour is the square?")
_SIZES: Final = ((390, 844), (1280, 800))
_COLOURS: Final = 200


def take(browser: Any, address: str, size: tuple[int, int], scheme: str) -> bytes:
    """Ask the demo model and prepare the next question; returns the window as PNG."""
    width, height = size
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, device_scale_factor=1.5
    )
    tab = PageInBrowser(context, address)
    for question in _EARLIER:
        _ask_anew(tab, question)
    _ask_anew(tab, "What is in this picture?")
    tab.page.set_input_files("#files", _NEXT_PICTURE)
    tab.page.fill("#question", "And in this one?")
    tab.shows("#pictures .cost", "tokens")
    tab.shows("#fill-text", "of")
    tab.page.mouse.move(0, 0)
    png: bytes = tab.page.screenshot(animations="disabled")
    context.close()
    return png


def _ask_anew(tab: PageInBrowser, question: str) -> None:
    """Begin a conversation about the demo's picture."""
    tab.page.goto(tab.address)
    tab.until("document.querySelector('.empty')")
    tab.page.set_input_files("#files", _PICTURE)
    tab.shows("#pictures .cost", "tokens")
    tab.ask(question)
    tab.answered()
    tab.shows(".stats", "tokens")


def optimised(png: bytes) -> Image.Image:
    """The picture with a palette: a page has few colours."""
    return Image.open(io.BytesIO(png)).convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE)


def main() -> None:
    """Write the four pictures."""
    with serving_demo() as address, headless_browser() as browser:
        for size in _SIZES:
            for scheme in ("light", "dark"):
                taken = optimised(take(browser, address, size, scheme))
                taken.save(_DOCS / f"page-{size[0]}-{scheme}.png", optimize=True)


if __name__ == "__main__":
    main()
