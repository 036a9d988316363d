"""The page where something is in the way: pictures that cannot be read, answers that stop, views that must follow."""

from __future__ import annotations

import re
from pathlib import Path

import internvl_gguf.demo
from tests.support.page_browser import PageInBrowser
from tests.support.pictures import encoded, noise

_EXAMPLE = Path(internvl_gguf.demo.__file__).with_name("example.png")
_GOOD = ("good.png", "image/png", _EXAMPLE.read_bytes())
_BAD = ("notes.png", "image/png", b"no picture at all")
_USAGE = {"prompt_tokens": 500, "completion_tokens": 40, "tiles": 10}
_LEFT_OUT = ".question.left-out .aside:visible"


def _answer(tab: PageInBrowser, question: str, count: int, text: str = "An answer") -> None:
    """Ask, and give a whole scripted answer."""
    tab.begin_scripted(question)
    tab.push(text)
    tab.chunk(usage=_USAGE)
    tab.end()
    tab.answered(count)


def test_a_question_with_a_new_picture_and_its_answer_are_in_view(tab: PageInBrowser) -> None:
    at_end = "((at) => at.scrollHeight - at.scrollTop - at.clientHeight < 2)(document.querySelector('#scroll'))"
    for count in range(1, 4):
        with tab.page.expect_file_chooser() as chooser:
            tab.page.click("#add")
        picture = encoded(noise(count, 640, 480), "PNG")
        chooser.value.set_files([{"name": "new.png", "mimeType": "image/png", "buffer": picture}])
        tab.shows("#pictures .cost", "tokens")
        # The composer that loses its picture then moves the view, which is not the reader's doing.
        tab.until("document.querySelector('#pictures img').clientHeight === 112")
        tab.until("document.querySelector('#pictures .grid')")
        tab.until(at_end)
        tab.page.fill("#question", "What is it?")
        tab.page.keyboard.press("Enter")
        tab.answered(count)
        tab.until("[...document.querySelectorAll('.question img')].every((image) => image.naturalWidth === 640)")
        tab.until(at_end)
        assert tab.page.is_hidden("#latest")


def test_a_question_stopped_before_its_answer_is_marked_and_not_sent_with_later_ones(scripted: PageInBrowser) -> None:
    scripted.begin_scripted("Never answered?")
    scripted.count(_LEFT_OUT, 0)
    scripted.page.keyboard.press("Escape")
    scripted.answered()
    scripted.shows(_LEFT_OUT, "Not sent with later questions: not part of the conversation.")
    assert scripted.page.get_attribute(".question", "aria-label") == "Question, not part of the conversation"
    asked = scripted.begin_scripted("The next one?")
    assert [message["content"] for message in asked["messages"]] == ["The next one?"]
    scripted.push("Yes")
    scripted.end()
    scripted.answered(2)
    scripted.count(_LEFT_OUT, 1)


def test_a_picture_that_cannot_be_read_keeps_the_question_from_being_asked(tab: PageInBrowser) -> None:
    tab.add([_BAD, _GOOD], "drop")
    tab.page.fill("#question", "What is it?")
    tab.shows("#pictures li.bad .cost", re.compile(r"Cannot use notes\.png: .+\."))
    tab.shows("#pictures li:not(.bad) .cost", "tokens")
    tab.shows("#fill-text", re.compile(r"\d+ of [\d,]+ tokens"))
    tab.shows("#composer-note", "Remove notes.png to ask: the server cannot read it.")
    assert tab.page.is_disabled("#send")
    tab.page.press("#question", "Enter")
    tab.count(".question", 0)
    tab.page.get_by_label("Remove notes.png").click()
    assert tab.page.is_enabled("#send")
    tab.page.press("#question", "Enter")
    assert tab.answered() != ""
    tab.count(".trouble", 0)


def test_a_refused_question_names_the_picture_and_is_edited_rather_than_tried_again(tab: PageInBrowser) -> None:
    # The question is on its way before the page knows what the picture is.
    tab.page.route("**/input_tokens", lambda route: route.fulfill(status=503, json={}))
    tab.add([_GOOD, _BAD], "drop")
    tab.ask("What is it?")
    tab.answered()
    tab.shows(".trouble.error", re.compile(r"^Cannot use notes\.png: "))
    tab.count(".trouble button", 0)
    tab.count(_LEFT_OUT, 1)
    tab.page.get_by_label("Edit the question").click()
    tab.page.get_by_label("Remove notes.png").click()
    tab.page.fill(".editor textarea", "What number is written?")
    tab.page.press(".editor textarea", "Enter")
    tab.count(".trouble", 0)
    assert "98" in tab.answered()
    tab.count(_LEFT_OUT, 0)
    tab.page.unroute_all()


def test_another_answer_takes_the_place_of_the_last_at_a_temperature_that_differs(scripted: PageInBrowser) -> None:
    _answer(scripted, "Tell me.", 1)
    asked = scripted.scripted(scripted.page.get_by_label("Answer again, at temperature 0.8").click)
    assert asked["temperature"] == 0.8
    scripted.push("Another")
    scripted.end()
    assert scripted.answered(1) == "Another"
    scripted.page.get_by_role("button", name="Settings").click()
    scripted.page.fill("[name=temperature]", "0.3")
    scripted.page.get_by_role("button", name="Save").click()
    asked = scripted.scripted(scripted.page.get_by_label("Answer again", exact=True).click)
    assert asked["temperature"] == 0.3
    scripted.end()


def test_the_context_stays_right_while_answering_again_and_after_a_stop(scripted: PageInBrowser) -> None:
    _answer(scripted, "Tell me.", 1)
    scripted.shows("#fill-text", "540 of ")
    scripted.scripted(scripted.page.get_by_label("Answer again").click)
    scripted.shows("#fill-text", "500 of ")
    scripted.push("One two three")
    scripted.shows(".markdown", "One two three")
    with scripted.page.expect_request("**/input_tokens") as asked:
        scripted.page.keyboard.press("Escape")
    assert [message["content"] for message in asked.value.post_data_json["messages"]] == ["Tell me.", "One two three"]
    counted = asked.value.response().json()["input_tokens"]
    scripted.shows("#fill-text", re.compile(rf"^{counted} of "))


def test_tiles_that_the_server_knew_are_not_said_to_be_left_out(scripted: PageInBrowser) -> None:
    for count, (encoded_tiles, line) in enumerate({0: "10 tiles, known already", 4: "10 tiles, 4 encoded"}.items(), 1):
        scripted.begin_scripted("Look.")
        scripted.push("Seen")
        scripted.chunk(usage={**_USAGE, "tiles_encoded": encoded_tiles})
        scripted.end()
        scripted.answered(count)
        scripted.shows(".answer:last-child .stats", line)


def test_a_suggestion_is_asked_at_once_where_a_picture_is_there(scripted: PageInBrowser) -> None:
    suggestion = scripted.page.get_by_role("button", name="Read the text in it.")
    suggestion.click()
    assert scripted.page.input_value("#question") == "Read the text in it."
    scripted.add([_GOOD], "drop")
    asked = scripted.scripted(suggestion.click)
    assert asked["messages"][0]["content"][1] == {"type": "text", "text": "Read the text in it."}
    scripted.end()


def test_a_size_just_above_the_bound_does_not_read_as_the_bound(tab: PageInBrowser, tmp_path: Path) -> None:
    with (tmp_path / "big.png").open("wb") as file:
        file.truncate(21_000_000)
    tab.page.set_input_files("#files", tmp_path / "big.png")
    tab.shows("#composer-note", "big.png has 20.1 MiB. A picture can have 20 MiB")
