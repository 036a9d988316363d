"""Ask the demo model the questions of many cases, several times each, and write down what it answered.

    python -m training.critic_answers runs/answers-0.jsonl --first 0 --minutes 30

The first answer to each question is the likeliest one, the others are drawn. A line is a case: its seed, and for each
of its questions the answers.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from internvl_gguf import Picture, Session
from internvl_gguf import Question as Asked
from training.critic_cases import draw_case

if TYPE_CHECKING:
    from internvl_gguf.session.batch import Outcome

LONGEST = 160


def answers_to(session: Session, seed: int, drawn: int, temperature: float) -> list[list[str]]:
    """For each question of a case the likeliest answer and `drawn` others."""
    case = draw_case(seed)
    pictures = [session.picture(Picture(scene.image, max_tiles=case.max_tiles)) for scene in case.scenes]
    asked = []
    for question in case.questions:
        for number in range(drawn + 1):
            options = {"temperature": temperature if number else 0, "top_p": 0.98, "seed": 100 * seed + number}
            asked.append(Asked(question.text, pictures, options=options))
    said = [text_of(outcome) for outcome in session.batch(asked, max_tokens=LONGEST)]
    each = drawn + 1
    return [said[each * number : each * (number + 1)] for number in range(len(case.questions))]


def text_of(outcome: Outcome) -> str:
    """The text of an answer; "" of one that was cut.

    Raises:
        InternVLError: there is none.
    """
    if isinstance(outcome, Exception):
        raise outcome
    return "" if outcome.finish_reason == "length" else outcome.text


def main() -> None:
    """Read the command line and ask."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--first", type=int, default=0, help="seed of the first case")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--drawn", type=int, default=6, help="answers to a question beside the likeliest")
    parser.add_argument("--temperature", type=float, default=1.0)
    args = parser.parse_args()
    begun, seed = time.time(), args.first
    with (
        Session.open("demo", n_parallel=8, n_threads=1, n_ctx=4096, embedding_disk_bytes=0) as session,
        args.out.open("a", encoding="utf-8", buffering=1) as out,
    ):
        while time.time() - begun < 60 * args.minutes:
            answers = answers_to(session, seed, args.drawn, args.temperature)
            out.write(json.dumps({"seed": seed, "answers": answers}) + "\n")
            seed += 1
            if seed % 100 == 0:
                print(f"{seed - args.first} cases in {time.time() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
