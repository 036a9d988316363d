"""The page of `internvl serve` with the demo model, driven in a real browser as a user would."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest

import internvl_gguf.demo
from internvl_gguf.tiling import choose_grid
from tests.clients.conftest import Opener
from tests.support.page_browser import PageInBrowser, serving_demo
from tests.support.pictures import encoded, noise

_EXAMPLE = Path(internvl_gguf.demo.__file__).with_name("example.png")
_NUMBER = "What number is written?"
_TOKENS_OF_A_TILE = 36


def test_a_dropped_picture_shows_its_tiles_and_what_it_takes_before_anything_is_asked(tab: PageInBrowser) -> None:
    tab.add([("wide.png", "image/png", encoded(noise(1, 700, 300), "PNG"))], "drop")
    grid = choose_grid(700, 300, tile_size=144)
    tab.shows("#pictures .cost", f"{grid.tiles} tiles, {grid.tiles * _TOKENS_OF_A_TILE} tokens")
    assert tab.page.get_attribute("#pictures .grid", "viewBox") == f"0 0 {grid.columns} {grid.rows}"
    tab.shows("#fill-text", re.compile(r"\d+ of [\d,]+ tokens"))
    tab.count(".question", 0)


def test_several_pictures_come_from_the_file_dialog_and_each_can_be_removed(tab: PageInBrowser) -> None:
    with tab.page.expect_file_chooser() as chooser:
        tab.page.click("#add")
    others = [
        {"name": f"{seed}.png", "mimeType": "image/png", "buffer": encoded(noise(seed), "PNG")} for seed in (1, 2)
    ]
    chooser.value.set_files(others)
    tab.count("#pictures li", 2)
    tab.page.get_by_label("Remove 1.png").click()
    tab.count("#pictures li", 1)
    assert tab.page.get_attribute("#pictures img", "alt") == "2.png"


def test_a_pasted_picture_is_asked_about_and_the_answer_says_what_it_took(tab: PageInBrowser) -> None:
    tab.add([("image.png", "image/png", _EXAMPLE.read_bytes())], "paste")
    tab.ask(_NUMBER)
    assert "98" in tab.answered()
    tab.shows(
        ".stats",
        re.compile(r"tokens? ·\s.+ to first token ·\s.+ tokens a second ·\sprompt \d+.* ·\s\d+ tiles?, \d+ encoded"),
    )
    tab.shows("#announcer", "98")


def test_the_bytes_of_a_picture_are_sent_as_they_are_before_the_text(scripted: PageInBrowser) -> None:
    scripted.add([("example.png", "image/png", _EXAMPLE.read_bytes())], "drop")
    picture, text = scripted.begin_scripted("Look.")["messages"][0]["content"]
    head, _, data = picture["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(data) == _EXAMPLE.read_bytes()
    assert text == {"type": "text", "text": "Look."}
    scripted.end()


def test_an_answer_appears_piece_by_piece_after_its_progress(scripted: PageInBrowser) -> None:
    scripted.begin_scripted("Tell me.")
    scripted.chunk(progress={"phase": "encoding", "done": 3, "total": 13})
    scripted.shows(".progress", "3 of 13 tiles")
    scripted.chunk(progress={"phase": "reading", "done": 512, "total": 3400})
    scripted.shows(".progress", "512 of 3,400 tokens")
    scripted.push("First **this**")
    scripted.shows(".answer strong", "this")
    assert scripted.page.is_hidden(".progress")
    first = scripted.page.evaluate_handle("document.querySelector('.markdown p')")
    scripted.push("\n\nthen that")
    scripted.shows(".markdown p:nth-child(2)", "then that")
    assert first.evaluate("(element) => element.isConnected"), "a block that is complete keeps its element"
    scripted.chunk(notices=["The picture was cut into fewer tiles."])
    scripted.end()
    scripted.answered()
    scripted.shows(".notice", "The picture was cut into fewer tiles.")


def test_a_thought_is_folded_above_its_answer(scripted: PageInBrowser) -> None:
    scripted.page.click("#open-settings")
    scripted.page.select_option("#set-thinking", "high")
    scripted.page.click("#settings button[type=submit]")
    assert scripted.begin_scripted("Why?")["reasoning_effort"] == "high"
    scripted.chunk(choices=[{"index": 0, "delta": {"reasoning_content": "Let me *see*.\n"}, "finish_reason": None}])
    scripted.shows(".progress", "Thinking")
    assert scripted.page.is_hidden(".thought-text")
    scripted.page.click(".thought summary")
    scripted.shows(".thought-text", "Let me *see*.")
    scripted.push("Because.")
    scripted.end()
    assert scripted.answered() == "Because."
    sent = scripted.begin_scripted("And?")["messages"]
    assert sent[1] == {"role": "assistant", "content": "Because.", "reasoning_content": "Let me *see*.\n"}
    scripted.end()


def test_escape_stops_an_answer_and_keeps_what_had_come(scripted: PageInBrowser) -> None:
    scripted.begin_scripted("Count to a million.")
    scripted.push("One, two")
    scripted.shows(".markdown", "One, two")
    scripted.page.fill("#question", "the next draft")
    scripted.page.keyboard.press("Escape")
    assert scripted.answered() == "One, two"
    scripted.shows(".notice", "Stopped.")
    assert scripted.page.input_value("#question") == "the next draft"


def test_editing_a_question_replaces_everything_after_it(scripted: PageInBrowser) -> None:
    for count, question in enumerate(("First?", "Second?"), start=1):
        scripted.begin_scripted(question)
        scripted.push(f"Answer {count}")
        scripted.end()
        scripted.answered(count)
    scripted.page.get_by_label("Edit the question").first.click()
    scripted.page.fill(".editor textarea", "Other?")
    asked = scripted.scripted(lambda: scripted.page.press(".editor textarea", "Enter"))
    assert [message["content"] for message in asked["messages"]] == ["Other?"]
    scripted.push("New")
    scripted.end()
    assert scripted.answered(1) == "New"
    scripted.count(".question", 1)


def test_a_reload_keeps_conversations_with_their_pictures_and_the_draft(tab: PageInBrowser) -> None:
    tab.add([("example.png", "image/png", _EXAMPLE.read_bytes())], "drop")
    tab.ask(_NUMBER)
    answer = tab.answered()
    tab.page.fill("#question", "a draft")
    tab.page.reload()
    assert tab.answered() == answer
    tab.until("document.querySelector('.question img').naturalWidth === 480")
    assert tab.page.input_value("#question") == "a draft"
    tab.shows("#conversations .title", _NUMBER)
    assert tab.page.title().startswith(_NUMBER)


def test_a_reload_in_the_middle_keeps_what_had_come_and_offers_to_ask_again(scripted: PageInBrowser) -> None:
    scripted.begin_scripted("Tell me a story.")
    scripted.push("Once upon")
    scripted.shows(".markdown", "Once upon")
    scripted.page.reload()
    assert scripted.answered() == "Once upon"
    scripted.scripted(scripted.page.get_by_role("button", name="Ask again").click)
    scripted.push("There was")
    scripted.end()
    assert scripted.answered() == "There was"


def test_an_error_in_the_middle_keeps_the_text_and_can_be_tried_again(scripted: PageInBrowser) -> None:
    scripted.begin_scripted("Go on.")
    scripted.push("So far")
    scripted.chunk(error={"message": "The worker ended. Ask again.", "code": None})
    assert scripted.answered() == "So far"
    scripted.shows(".trouble.error", "The worker ended. Ask again.")
    scripted.scripted(scripted.page.get_by_role("button", name="Try again").click)
    scripted.push("Whole")
    scripted.end()
    assert scripted.answered() == "Whole"


def test_the_draft_stays_when_the_server_is_gone_and_the_page_notices_its_return(tab: PageInBrowser) -> None:
    tab.page.route(re.compile("/v1/|/health"), lambda route: route.abort("connectionrefused"))
    tab.ask("Are you there?")
    tab.shows("#banner", "The server does not answer.")
    tab.count(".question", 0)
    assert tab.page.input_value("#question") == "Are you there?"
    tab.page.unroute_all()
    tab.page.wait_for_selector("#banner", state="hidden")


def test_a_key_is_asked_for_until_it_is_right_and_kept_for_this_tab_alone(opener: Opener) -> None:
    with serving_demo("--api-key", "secret-of-this-test") as guarded:
        tab = opener(address=guarded)
        wanted = "the key that the server was started with."
        for key, reason in (("wrong", f"Enter {wanted}"), ("secret-of-this-test", "That key is wrong.")):
            tab.shows("#key-reason", reason)
            tab.page.fill("#key-value", key)
            tab.page.press("#key-value", "Enter")
        tab.until("document.querySelector('#model').value")
        tab.ask("Hello?")
        tab.answered()
        tab.count(".trouble", 0)
        kept = tab.page.evaluate("[sessionStorage, localStorage].map((kept) => kept.getItem('key'))")
        assert kept == ["secret-of-this-test", None]


def test_two_tabs_show_the_same_conversations(opener: Opener, address: str) -> None:
    first = opener(scripted=True)
    second = PageInBrowser(first.page.context, address)
    first.begin_scripted("A question")
    first.push("An answer")
    first.end()
    second.shows("#conversations .title", "A question")
    second.page.click("#conversations .title")
    second.shows(".markdown", "An answer")
    second.page.get_by_label("Delete A question").click()
    first.count("#conversations li", 0)
    assert second.complaints == []


def test_settings_and_the_chosen_model_go_with_a_question(scripted: PageInBrowser) -> None:
    models = [{"id": name, "object": "model", "status": "ready", "context_length": 8192} for name in ("small", "large")]
    scripted.page.route("**/v1/models", lambda route: route.fulfill(json={"object": "list", "data": models}))
    scripted.page.reload()
    scripted.page.select_option("#model", "large")
    scripted.page.get_by_role("button", name="Settings").click()
    scripted.page.fill("[name=system]", "Be brief.")
    scripted.page.fill("[name=temperature]", "0.5")
    scripted.page.fill("[name=max_tiles]", "6")
    scripted.page.get_by_role("button", name="Save").click()
    asked = scripted.begin_scripted("Hello?")
    scripted.end()
    assert {name: asked[name] for name in ("model", "temperature", "max_tiles")} == {
        "model": "large",
        "temperature": 0.5,
        "max_tiles": 6,
    }
    assert asked["messages"][0] == {"role": "system", "content": "Be brief."}
    assert "max_tokens" not in asked


def test_conversations_are_renamed_and_deleted_and_a_deletion_is_undone(scripted: PageInBrowser) -> None:
    scripted.begin_scripted("A question")
    scripted.end()
    scripted.answered()
    scripted.page.get_by_label("Rename A question").click()
    scripted.page.fill("#conversations input", "A better title")
    scripted.page.press("#conversations input", "Enter")
    scripted.page.get_by_label("Delete A better title").click()
    scripted.count("#conversations li", 0)
    scripted.count(".question", 0)
    scripted.page.get_by_role("button", name="Undo").click()
    scripted.shows("#conversations .title", "A better title")
    scripted.shows(".question", "A question")


def test_a_full_browser_is_said_and_the_conversation_goes_on(scripted: PageInBrowser) -> None:
    scripted.page.evaluate(
        "() => { IDBObjectStore.prototype.put = () => { throw new DOMException('full', 'QuotaExceededError'); }; }"
    )
    scripted.begin_scripted("Still there?")
    scripted.push("Yes.")
    scripted.end()
    assert scripted.answered() == "Yes."
    scripted.shows("#banner", "The browser has no room left for this page. Delete older conversations.")


def test_a_browser_that_keeps_nothing_is_said_and_the_page_answers(opener: Opener) -> None:
    tab = opener(scripted=True)
    refuse = "Object.defineProperty(window, 'NAME', { get() { throw new DOMException('refused', 'SecurityError'); } });"
    for name in ("indexedDB", "localStorage", "sessionStorage"):
        tab.page.add_init_script(refuse.replace("NAME", name))
    tab.page.reload()
    tab.shows("#banner", "The browser does not keep conversations for this page.")
    tab.begin_scripted("Still there?")
    tab.push("Yes.")
    tab.end()
    assert tab.answered() == "Yes."


def test_files_that_are_no_pictures_or_too_large_are_refused_kindly(tab: PageInBrowser, tmp_path: Path) -> None:
    for name, size in (("report.pdf", 100), ("huge.png", 21 << 20)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(size)
    tab.page.set_input_files("#files", [tmp_path / "report.pdf", tmp_path / "huge.png"])
    tab.shows("#composer-note", "report.pdf is not a picture.")
    tab.shows("#composer-note", "huge.png has 21.0 MiB. A picture can have 20 MiB")
    tab.count("#pictures li", 0)


def test_a_picture_that_the_browser_cannot_show_has_a_placeholder_and_is_sent(scripted: PageInBrowser) -> None:
    scripted.add([("photo.heic", "", b"\0\0\0\x18ftypheic")], "drop")
    scripted.shows("#pictures .placeholder", "HEIC")
    asked = scripted.begin_scripted("What is it?")
    scripted.end()
    assert asked["messages"][0]["content"][0]["image_url"]["url"].startswith("data:image/heic;base64,")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_colours_follow_the_system_until_they_are_switched(opener: Opener, scheme: str) -> None:
    tab = opener(color_scheme=scheme)
    other = "light" if scheme == "dark" else "dark"
    assert _is_dark(tab) == (scheme == "dark")
    tab.page.get_by_label(f"Switch to {other} colours").click()
    assert _is_dark(tab) == (other == "dark")
    tab.page.reload()
    assert _is_dark(tab) == (other == "dark")


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_no_width_scrolls_sideways(opener: Opener, width: int) -> None:
    tab = opener(scripted=True, viewport={"width": width, "height": 800})
    tab.add([("wide.png", "image/png", encoded(noise(1, 1200, 100), "PNG"))], "drop")
    tab.begin_scripted("W" * 300)
    tab.push("| a | b |\n| - | - |\n| " + "c" * 300 + " | d |\n\n```\n" + "e" * 300 + "\n```\n\n" + "f" * 300)
    tab.push(f"\n\nhttps://example.org/{'g' * 300}\n\n# {'h' * 200}")
    tab.end()
    tab.answered()
    sideways = "(place) => document.querySelector(place).scrollWidth <= document.querySelector(place).clientWidth"
    assert all(tab.page.evaluate(sideways, place) for place in ("html", "main", "header", "#scroll", "#dock"))


def test_everything_is_done_by_keyboard_alone(opener: Opener) -> None:
    tab = opener(scripted=True)
    press = tab.page.keyboard.press
    tab.until("document.activeElement.id === 'question'")
    tab.page.keyboard.type("Line one")
    press("Shift+Enter")
    tab.page.keyboard.type("line two")
    asked = tab.scripted(lambda: press("Enter"))
    assert asked["messages"][0]["content"] == "Line one\nline two"
    tab.push("Done")
    tab.end()
    tab.answered()
    press("ArrowUp")
    assert tab.page.evaluate("document.activeElement.closest('.editor') !== null")
    press("Escape")
    tab.count(".editor", 0)
    reached = _labels_reached_by_tab(tab)
    wanted = {
        "New conversation",
        "Delete Line one",
        "Settings",
        "Copy the answer",
        "Answer again, at temperature 0.8",
        "Add pictures",
        "Your question",
    }
    assert wanted <= reached


def _labels_reached_by_tab(tab: PageInBrowser) -> set[str]:
    """Go round once by Tab; what was reached, each of which must show that it has the focus."""
    reached: set[str] = set()
    while True:
        tab.page.keyboard.press("Tab")
        label, shown = tab.page.evaluate(
            """() => {
              const focused = document.activeElement;
              if (focused === document.body) return ["the window", true];
              const name = focused.ariaLabel ?? focused.labels?.[0]?.textContent ?? focused.textContent.trim();
              return [name, getComputedStyle(focused).outlineStyle !== "none" || focused.id === "question"];
            }"""
        )
        assert shown, f"{label} does not show its focus"
        if label in reached:
            return reached
        reached.add(label)


def _is_dark(tab: PageInBrowser) -> bool:
    red = tab.page.evaluate("Number(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])")
    return bool(red < 128)
