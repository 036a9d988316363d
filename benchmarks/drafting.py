"""What guessing tokens ahead gains on text that repeats, and loses on text that does not (`n_draft`).

Method. One session without guesses and one for each length of guess, on the same weights with the same settings. A
round asks every session the same questions, each from an empty cache, and the order of the sessions changes from round
to round; the first round is a warm-up, in which the sessions with guesses also learn what a computation of several
tokens costs on this machine. Speed is that of the answer's tokens after the first. Answers have at most ANSWER tokens
and are greedy but for one, which is hot enough not to repeat itself; with quantised weights llama.cpp rounds a batch of
tokens differently from single ones, so an answer may part from the other one where two tokens are about equally likely:
how many are equal to the letter is counted.

    python benchmarks/drafting.py [--model TEXT.gguf --mmproj MMPROJ.gguf] [--threads N] [--rounds N] [--quick]

Without --model the embedded demo model is asked, which answers in a word: its answers are made to go on, to see that
this runs; --quick is one short round. The last line of the output is one JSON document.
"""

from __future__ import annotations

import json
import random
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import measure
from internvl_gguf import SamplingParams, Session
from internvl_gguf.config import EngineOptions
from internvl_gguf.models.resolve import ModelFiles
from internvl_gguf.types import Reply
from measure import Settings
from ours import engine_of, make_endless

N_CTX, ANSWER, QUICK_ANSWER = 4096, 300, 12
LENGTHS = (8, 16)


def table() -> str:
    """Rows of figures that cannot be known by heart."""
    draw = random.Random(1)
    rows = [f"| {draw.randrange(1000, 9999)} | {draw.random():.3f} | {draw.choice('ABCD')} |" for _ in range(16)]
    return "\n".join(["| number | share | class |", "| --- | --- | --- |", *rows])


def records() -> str:
    """The same as objects."""
    draw = random.Random(2)
    return json.dumps(
        [{"id": draw.randrange(1000, 9999), "name": draw.choice(["bolt", "nut"]), "ok": True} for _ in range(10)],
        indent=1,
    )


STORY = "Tell me a long story about a lighthouse keeper who finds an unusual shell."
QUESTIONS = {
    "a table read out": f"Repeat this table exactly, and nothing else.\n\n{table()}",
    "JSON with one change": f'Change every "ok" to false in this JSON and print all of it.\n\n{records()}',
    "an explanation": "Explain in detail how a bicycle stays upright, in plain words.",
    "a story": STORY,
    "a story, sampled": STORY,
}
SAMPLED = {"a story, sampled": SamplingParams(temperature=1.2, seed=1)}
"""The answers that are not greedy: small models repeat themselves where they are, and this one is not to."""


@dataclass(frozen=True)
class Answer:
    """One session in one round: by question, tokens a second, guesses made and right, and the text."""

    replies: dict[str, Reply]


def answer_all(session: Session, most: int, _turn: int) -> Answer:
    """Every question, from an empty cache."""
    replies = {}
    for name, question in QUESTIONS.items():
        engine_of(session).forget()
        session.clear()
        sampling = replace(SAMPLED.get(name, SamplingParams()), max_tokens=most)
        replies[name] = session.ask(question, sampling=sampling)
    return Answer(replies)


def open_session(files: ModelFiles, settings: Settings, n_draft: int, owned: ExitStack, *, is_endless: bool) -> Session:
    """One of the sides."""
    options: EngineOptions = {**settings.engine_options(), "n_draft": n_draft}
    session = owned.enter_context(Session.open(files.text, files.mmproj, system="", **options))
    return make_endless(session) if is_endless else session


def main() -> None:
    arguments = measure.parser(__doc__, rounds=5, mmproj=True).parse_args()
    files, settings = measure.model_files(arguments), Settings(arguments.threads, N_CTX)
    lengths, most = ((4,), QUICK_ANSWER) if arguments.quick else (LENGTHS, ANSWER)
    with ExitStack() as owned:
        sides = {
            f"up to {n_draft}" if n_draft else "none": partial(
                answer_all, open_session(files, settings, n_draft, owned, is_endless=not arguments.model), most
            )
            for n_draft in (0, *lengths)
        }
        found = measure.interleaved(sides, measure.rounds_of(arguments))
    rows: list[list[str]] = []
    result: dict[str, dict[str, dict[str, Any]]] = {}
    for question in QUESTIONS:
        speeds = {
            side: [answer.replies[question].timings.decode_tokens_per_second for answer in answers]
            for side, answers in found.items()
        }
        for side, answers in found.items():
            replies = [answer.replies[question] for answer in answers]
            plain = [answer.replies[question].text for answer in found["none"]]
            drafted = sum(reply.usage.drafted_tokens for reply in replies)
            accepted = sum(reply.usage.accepted_tokens for reply in replies)
            same = sum(reply.text == text for reply, text in zip(replies, plain, strict=True))
            speed, gain = measure.Spread(tuple(speeds[side])), measure.ratios(speeds[side], speeds["none"])
            label = question if side == "none" else ""
            guesses = f"{accepted} of {drafted}" if drafted else ""
            rows.append(
                [label, side, str(speed), "" if side == "none" else str(gain), guesses, f"{same} of {len(plain)}"]
            )
            result.setdefault(question, {})[side] = {
                **speed.as_json(),
                "gain": gain.median,
                "drafted": drafted,
                "accepted": accepted,
                "same_text": same,
            }
    print(measure.table(["answer", "guesses", "tokens/s, median (range)", "vs none", "right", "same text"], rows))
    measure.last_line("drafting", arguments, files.text, {"answers": result})


if __name__ == "__main__":
    main()
