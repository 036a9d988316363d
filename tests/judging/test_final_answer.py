"""The final answer in a text: where the field's prompts have it put, and where models put it."""

from __future__ import annotations

import pytest

from internvl_gguf.judging.final_answer import final_answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("There are two rows of three.\nAnswer: \\boxed{6}", "6"),
        ("So it is\n\nAnswer: \\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("Answer: \\boxed B", "B"),
        ("First \\boxed{3}, but then \\boxed{4} is right.", "4"),
        ("The set \\boxed{\\{1, 2\\}}.", "\\{1, 2\\}"),
        ("I count them one by one.\n**Final Answer:** 12 cats", "12 cats"),
        ("**Answer**: B", "B"),
        ("Final answer:\n\n42", "42"),
        ("Because of this, the answer is 5. I counted twice.", "5"),
        ("I think that the correct answer is: **Mr. Smith**.", "Mr. Smith"),
        ("Question: 1 + 1? Answer: 3\nNo.\nAnswer: 2", "2"),
        ("图中有两只猫。\n答案：B", "B"),
        ("因此答案是3。", "3"),
        ("A red car", "A red car"),
        ("一辆红色的汽车", "一辆红色的汽车"),
    ],
)
def test_it_is_found(text: str, answer: str) -> None:
    assert final_answer(text) == answer


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  \n ",
        "The picture shows a street in the evening with two cars, some people under umbrellas, and a lamp that is on.",
        "A car.\nA tree.",
        "图中是傍晚的街道，有两辆汽车和几个打伞的人，还有一盏亮着的路灯。",
        "So we come, by adding both of them to the number of the others that stand there, to \\boxed{12",
    ],
)
def test_a_text_without_one_has_none(text: str) -> None:
    assert final_answer(text) is None


@pytest.mark.parametrize(
    ("piece", "answer"),
    [("Answer: ", "Answer:"), ("\\boxed{", None), ("the answer is. ", None), ("答案", None), ("{\\", None)],
)
def test_a_hostile_text_ends_soon(piece: str, answer: str | None) -> None:
    assert final_answer(piece * 20_000) == answer
