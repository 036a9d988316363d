"""What several answers are worth: right by the first one, by a vote, by the critic, and if any of them is right.

    python -m training.critic_exam --critic FOLDER/demo-critic-text-Q8_0.gguf --seed 21000000 --count 40

The questions are those of the exam of which the demo model is unsure, with seeds and words that training never saw. The
first answer is the likeliest one, the others are drawn. Answers are kept in a file, and asked for once. Beside the
critic stands what the demo itself knew of its answers: the one is chosen whose least likely token is the likeliest.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from internvl_gguf import Picture, Session
from internvl_gguf import Question as Asked
from internvl_gguf.critics import Critic
from internvl_gguf.judging import Candidate, JudgedQuestion, judged, vote
from internvl_gguf.models.local_files import demo_files
from internvl_gguf.types import Reply, Timings, Usage
from training.checkpoint import load_model
from training.critic import Judged, judged_row
from training.critic_answers import LONGEST
from training.critic_residuals import FrozenDemo, least_likely
from training.exam import SEED, items
from training.questions import Question
from training.scoring import score

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from training.exam import Item

SUITES = (
    ("counts", 1), ("descriptions", 1), ("numbers", 1), ("words", 1), ("small print", 12), ("json", 1), ("receipts", 6),
    ("receipt questions", 6), ("which of three", 1), ("one of three", 1), ("choices", 1),
)  # fmt: skip


HEAD = "suite                   of first   drawn  vote  least critic  sums   any   + told, - told   pairs: least critic"


@dataclass(frozen=True)
class Said:
    """The answers to one question of a suite; those cut off are ""."""

    suite: str
    max_tiles: int
    texts: tuple[str, ...]


def pictures(session: Session, item: Item) -> list[object]:
    """The pictures of an item, cut."""
    return [session.picture(Picture(image, max_tiles=item.max_tiles)) for image in item.shown]


def ask(session: Session, item: Item, number: int, answers: int, temperature: float, top_p: float) -> Said:
    """The likeliest answer to an item and others that are drawn, with seeds that its number gives."""
    shown = pictures(session, item)
    drawn = {"temperature": temperature, "top_p": top_p}
    asked = [
        Asked(item.question, shown, options={**(drawn if index else {"temperature": 0}), "seed": 1000 * number + index})
        for index in range(answers)
    ]
    texts = []
    for outcome in session.batch(asked, max_tokens=LONGEST + 80):
        if isinstance(outcome, Exception):
            raise outcome
        texts.append(outcome.text if outcome.finish_reason == "stop" else "")
    return Said(item.suite, item.max_tiles, tuple(texts))


def all_answers(path: Path, args: argparse.Namespace) -> Iterator[tuple[Item, Said]]:
    """Each item with its answers, from the file as far as it goes, the others asked for and added to it."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    known = {(row["suite"], row["max_tiles"], row["number"]): row["texts"] for row in map(json.loads, lines)}
    with (
        Session.open("demo", n_parallel=8, n_threads=1, n_ctx=4096, embedding_disk_bytes=0) as session,
        path.open("a", encoding="utf-8", buffering=1) as file,
    ):
        for suite, tiles in SUITES:
            if args.suites and suite not in args.suites.split(","):
                continue
            for number, item in enumerate(items(suite, args.count, tiles, args.seed)):
                texts = known.get((suite, tiles, number))
                if texts is None:
                    texts = list(ask(session, item, number, args.answers, args.temperature, args.top_p).texts)
                    row = {"suite": suite, "max_tiles": tiles, "number": number, "texts": texts}
                    file.write(json.dumps(row) + "\n")
                yield item, Said(suite, tiles, tuple(texts))


def candidates(texts: tuple[str, ...]) -> list[Candidate]:
    """Answers as a judge takes them; what was cut off is marked so."""
    usage, timings = Usage(0, 0, 0, 0, 0, 0), Timings(0, 0, 0, 0, 0, 0)
    return [
        Candidate(index, Reply(text, "stop" if text else "length", usage, timings)) for index, text in enumerate(texts)
    ]


@dataclass
class Tally:
    """How many questions of a suite came out right, and how the critic's verdicts on different answers did.

    Attributes:
        pairs, pairs_known, pairs_judged: of a right and a wrong answer to a question; those in order by the demo's
            least likely token, and by the critic.
    """

    questions: int = 0
    first: int = 0
    drawn: float = 0
    voted: int = 0
    least: int = 0
    judged: int = 0
    both: int = 0
    any: int = 0
    right_told: int = 0
    rights: int = 0
    wrong_told: int = 0
    wrongs: int = 0
    pairs: int = 0
    pairs_known: int = 0
    pairs_judged: int = 0

    def line(self, name: str) -> str:
        """The row of the table."""
        told = f"{self.right_told}/{self.rights} {self.wrong_told}/{self.wrongs}"
        return (
            f"{name:20} {self.questions:5} {self.first:5} {self.drawn:7.1f} {self.voted:5} {self.least:6} "
            f"{self.judged:6} {self.both:5} {self.any:5}   {told:17} {self.pairs_known} {self.pairs_judged} of "
            f"{self.pairs}"
        )


@torch.no_grad()
def known_by(demo: FrozenDemo, item: Item, texts: tuple[str, ...]) -> list[float]:
    """Log-probability of the least likely token of each answer."""
    shared, visual = demo.seen(item.shown, item.max_tiles)
    asked = Judged(Question(item.suite, item.question, item.answer), texts, (False,) * len(texts))
    row = judged_row(demo.tokenizer, shared, [asked])
    log_prob = demo.log_prob(row, demo.residual(row, visual))
    return least_likely(log_prob, torch.from_numpy(row.branch), torch.from_numpy(row.ends)).tolist()


def judge(critic: Critic, demo: FrozenDemo, session: Session, item: Item, said: Said, tally: Tally) -> None:
    """Count what comes out of the answers to one item."""
    question = JudgedQuestion(item.question, tuple(pictures(session, item)))  # type: ignore[arg-type]
    tried = candidates(said.texts)
    right = [score(item, text) == 1 for text in said.texts]
    tally.questions += 1
    tally.first += right[0]
    tally.drawn += sum(right) / len(right)
    tally.any += any(right)
    ballot = vote(question, tried)
    tally.voted += right[ballot.best]
    if not any(said.texts):
        return
    verdict = judged(critic, question, tried)
    tally.judged += right[verdict.best]
    sums: dict[str, float] = {}
    for text, worth in zip(said.texts, verdict.scores, strict=True):
        sums[text] = sums.get(text, 0) + worth
    tally.both += right[said.texts.index(max(sums, key=sums.__getitem__))]
    different = tuple(dict.fromkeys(filter(None, said.texts)))
    scores = [verdict.scores[said.texts.index(text)] for text in different]
    good = [right[said.texts.index(text)] for text in different]
    known = known_by(demo, item, different)
    tally.least += good[max(range(len(known)), key=known.__getitem__)]
    for is_right, value in zip(good, scores, strict=True):
        is_told = value >= critic.description.threshold
        tally.rights += is_right
        tally.wrongs += not is_right
        tally.right_told += is_right and is_told
        tally.wrong_told += not is_right and not is_told
    for one, other in itertools.permutations(range(len(good)), 2):
        if good[one] and not good[other]:
            tally.pairs += 1
            tally.pairs_known += known[one] > known[other]
            tally.pairs_judged += scores[one] > scores[other]


def main() -> None:
    """Read the command line, ask, judge, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--critic", default="demo-critic", help="the critic's name, or its text GGUF")
    parser.add_argument("--demo", type=Path, default=Path("runs/shipped.pt"), help="the demo's checkpoint")
    parser.add_argument("--answers-file", type=Path, default=Path("exam-answers.jsonl"), help="where answers are kept")
    parser.add_argument("--answers", type=int, default=8)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--top-p", type=float, default=0.95)
    parser.add_argument("--suites", default="", help="comma-separated names; all by default")
    args = parser.parse_args()
    torch.set_num_threads(1)
    demo = FrozenDemo(*load_model(args.demo))
    begun, tallies = time.time(), dict[str, Tally]()
    print(HEAD)
    with (
        Critic.open(
            args.critic, demo_files().mmproj, "demo", n_threads=1, n_ctx=4096, embedding_disk_bytes=0
        ) as critic,
        Session.open("demo", n_threads=1, n_ctx=2048, embedding_disk_bytes=0) as session,
    ):
        for item, said in all_answers(args.answers_file, args):
            name = f"{said.suite} ({said.max_tiles})"
            if name not in tallies and tallies:
                last = next(reversed(tallies))
                print(tallies[last].line(last), flush=True)
            judge(critic, demo, session, item, said, tallies.setdefault(name, Tally()))
    last = next(reversed(tallies))
    print(tallies[last].line(last))
    print(added(tallies.values()).line("all"))
    print(f"{time.time() - begun:.0f} s")


def added(tallies: Iterable[Tally]) -> Tally:
    """All suites as one."""
    total = Tally()
    for tally in tallies:
        for key, value in vars(tally).items():
            setattr(total, key, getattr(total, key) + value)
    return total


if __name__ == "__main__":
    main()
