"""Lessons of a critic: right and wrong answers about pictures, each step to be told `+` or `-`.

The form is VisualPRM's: a user turn has the question and the first step, each further step is a user turn of its own,
and every turn of the assistant between them is `+`, whatever the step was worth. One picture's sequence has several
questions, each several answers: an answer sees the beginning and its question's stem, no other answer.

The right answer is learned too, token for token: what would have been written tells what was written wrong.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from internvl_gguf.models.critic_description import CriticDescription
from internvl_gguf.tiling import tile_image
from training.critic_cases import Case, draw_case, spoiled
from training.packing import TARGET_FIELDS, Batch, Packed, answer_cue, collate, pictures
from training.phrases import SYSTEM_OFFICIAL

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from training.questions import Question
    from training.tokenizer import Tokenizer

RIGHT, WRONG = "+", "-"
FIRST_PART, SECOND_PART = "### Question:\n", "\n\n### Solution Process:\n"
SEPARATOR = ", "  # an answer's statements, a form's values
DESCRIPTION = CriticDescription(
    "demo",
    FIRST_PART + "{pictures}{question}" + SECOND_PART + "{step}",
    separator=SEPARATOR,
    aggregation="last",
    max_tiles=12,
    source="training/critic.py",
)
"""How the critic that this trains is asked. None ships: after an hour none told right from wrong well enough."""


@dataclass(frozen=True)
class Attempt:
    """An answer in steps, for each whether all is right so far, and the steps of the right answer."""

    steps: tuple[str, ...]
    right: tuple[bool, ...]
    truth: tuple[str, ...]


@dataclass(frozen=True)
class Judged:
    """A question with several attempts at it."""

    question: Question
    attempts: tuple[Attempt, ...]


def attempt(answer: str, truth: str, splits: bool) -> Attempt:
    """An answer as one step, or split into statements; a statement after a wrong one is wrong, too."""
    if not splits:
        return Attempt((answer,), (answer == truth,), (truth,))
    steps, wanted = answer.split(SEPARATOR), truth.split(SEPARATOR)
    right = [steps[: count + 1] == wanted[: count + 1] for count in range(len(steps))]
    return Attempt(tuple(steps), (*right[:-1], answer == truth), tuple(wanted))


def judged(question: Question, said: list[str], rng: Random) -> Judged:
    """The right answer and one or two wrong ones: what the model said wrong, as far as it did, else made up."""
    truth = question.answer
    wrong = [answer for answer in said if answer not in ("", truth)]
    count = rng.choice((1, 1, 2))
    chosen: list[str] = []
    for _ in range(8):
        if len(chosen) == count:
            break
        answer = rng.choice(wrong) if wrong and rng.random() < 0.75 else spoiled(truth, rng)
        if answer != truth and answer not in chosen:
            chosen.append(answer)
    return Judged(question, tuple(attempt(answer, truth, rng.random() < 0.5) for answer in (truth, *chosen)))


def critic_beginning(tokenizer: Tokenizer, visual_tokens: tuple[int, ...]) -> list[int]:
    """Ids up to where the question starts; one entry of `visual_tokens` a picture."""
    start, end = tokenizer.special("<|im_start|>"), tokenizer.special("<|im_end|>")
    system = [start, *tokenizer.encode("system\n"), *tokenizer.encode(SYSTEM_OFFICIAL), end, *tokenizer.encode("\n")]
    return [*system, start, *tokenizer.encode(f"user\n{FIRST_PART}"), *pictures(tokenizer, visual_tokens)]


class Sequence:
    """A sequence that grows by branches; see `Packed`."""

    def __init__(self, shared: list[int]) -> None:
        self.ids = list(shared)
        self.branch, self.stem = [0] * len(shared), [0] * len(shared)
        self.positions, self.answer = list(range(len(shared))), [0] * len(shared)
        self.wanted, self.truth = [*shared[1:], 0], [-1] * len(shared)
        self.kinds: list[str] = []
        self.branches = 0

    def grow(self, ids: list[int], stem: int, position: int) -> int:
        """Add a branch that sees the beginning and `stem`; returns the index of its first token."""
        begins = len(self.ids)
        self.branches += 1
        self.ids += ids
        self.branch += [self.branches] * len(ids)
        self.stem += [stem] * len(ids)
        self.positions += range(position, position + len(ids))
        self.answer += [0] * len(ids)
        self.wanted += [*ids[1:], 0]
        self.truth += [-1] * len(ids)
        return begins

    def teach(self, places: list[int], wanted: list[int], kind: str) -> None:
        """Have the tokens at these places predict these ids, as one answer of a kind."""
        self.kinds.append(kind)
        for place, token in zip(places, wanted, strict=True):
            self.answer[place], self.wanted[place] = len(self.kinds), token

    def packed(self) -> Packed:
        """The sequence as arrays."""
        return Packed(
            np.array(self.ids), np.array(self.branch), np.array(self.stem), np.array(self.positions),
            np.array(self.answer), tuple(self.kinds), np.zeros((0, TARGET_FIELDS), np.int64),
            np.array(self.wanted), np.array(self.truth),
        )  # fmt: skip


def pack_judged(tokenizer: Tokenizer, shared: list[int], questions: list[Judged]) -> Packed:
    """The shared beginning, then for each question a stem and its attempts."""
    sequence = Sequence(shared)
    for asked in questions:
        encode = tokenizer.encode_marked if asked.question.marked else tokenizer.encode
        stem = encode(asked.question.text + SECOND_PART)
        begins = sequence.grow(stem, 0, len(shared))
        last, number, position = begins + len(stem) - 1, sequence.branches, len(shared) + len(stem)
        for tried in asked.attempts:
            _add_attempt(sequence, tokenizer, asked.question.kind, tried, last, number, position)
    return sequence.packed()


def _add_attempt(
    sequence: Sequence, tokenizer: Tokenizer, kind: str, tried: Attempt, last: int, stem: int, position: int
) -> None:
    """Add an attempt; `last` is the last token of its stem."""
    start, end = tokenizer.special("<|im_start|>"), tokenizer.special("<|im_end|>")
    again = [*tokenizer.encode(RIGHT), end, *tokenizer.encode("\n"), start]
    again += tokenizer.encode("user\n")
    cue = answer_cue(tokenizer)
    ids: list[int] = []
    taught: list[tuple[int, list[int]]] = []
    verdicts: list[int] = []
    for number, step in enumerate(tried.steps):
        ids += again if number else []
        text = tokenizer.encode_marked(step)
        taught.append((len(ids) - 1, [*text, end]))
        ids += [*text, *cue]
        verdicts.append(len(ids) - 1)
    begins = sequence.grow(ids, stem, position)
    ends = [[*tokenizer.encode_marked(step), end] for step in tried.truth]
    good = True
    for number, (before, written) in enumerate(taught):
        for at, token in enumerate(written):
            still = good and number < len(ends) and ends[number][at : at + 1] == [token]
            if number == len(taught) - 1 and at == len(written) - 1:  # it may end where more was to come
                still = still and tried.right[-1]
            if good:
                sequence.truth[begins + before + 1 + at] = int(still)
            good = still
    for place, right in zip(verdicts, tried.right, strict=True):
        sign = RIGHT if right else WRONG
        sequence.teach([begins + place], tokenizer.encode(sign), f"{kind} {sign}")
    if all(tried.right):
        for before, wanted in taught:
            first = begins + before if before >= 0 else last
            rest = [begins + before + 1 + at for at in range(len(wanted) - 1)]
            sequence.teach([first, *rest], wanted, f"{kind} written")


Row = tuple[Packed, list["NDArray[np.uint8]"]]
POOL = 32  # rows of which a batch takes those of about one length


@dataclass
class CriticLessons:
    """Batches of cases; most of them those that the model was asked, over and over, the others new ones.

    Attributes:
        tokenizer: the model's.
        tile_size, per_tile: pixels along a tile's side, visual tokens of a tile.
        folder: what `training.critic_answers` writes, one file or several, read again as they grow.
        tokens: about how many a batch has.
        room: most tokens of a row with several questions, for what a long one takes grows with its square.
        asked: part of the cases whose wrong answers are the model's.
        pool: rows that were drawn and not handed out yet.
    """

    tokenizer: Tokenizer
    tile_size: int
    per_tile: int
    folder: Path
    tokens: int = 2400
    room: int = 600
    asked: float = 0.6
    pool: list[Row] = field(default_factory=list)

    def __call__(self, rng: Random) -> Batch:
        """Draw a batch of cases, padding counted."""
        while len(self.pool) < POOL:
            self.pool.append(self._row(rng))
        length = len(rng.choice(self.pool)[0].ids)
        self.pool.sort(key=lambda row: abs(len(row[0].ids) - length))
        taken: list[Row] = []
        while self.pool:
            longest = max(len(row[0].ids) for row in (*taken, self.pool[0]))
            if taken and longest * (len(taken) + 1) > self.tokens:
                break
            taken.append(self.pool.pop(0))
        return collate([packed for packed, _ in taken], [part for _, cut in taken for part in cut], [])

    def _row(self, rng: Random) -> Row:
        case, said = self._drawn(rng)
        cut = [tile_image(s.image, max_tiles=case.max_tiles, tile_size=self.tile_size).tiles for s in case.scenes]
        shared = critic_beginning(self.tokenizer, tuple(self.per_tile * len(part) for part in cut))
        questions = [judged(q, answers, rng) for q, answers in zip(case.questions, said, strict=True)]
        tiles = [np.stack([np.asarray(tile) for tile in part]) for part in cut]
        rng.shuffle(questions)
        while True:
            row = pack_judged(self.tokenizer, shared, questions)
            if len(row.ids) <= self.room or len(questions) == 1:
                return row, tiles
            questions.pop()

    def _drawn(self, rng: Random) -> tuple[Case, list[list[str]]]:
        """A case and what the model said to each of its questions."""
        if rng.random() < self.asked:
            files = sorted(self.folder.glob("*.jsonl"), key=lambda path: path.name)
            sizes = [path.stat().st_size for path in files]
            found = json.loads(_random_line(rng.choices(files, weights=sizes)[0], rng))
            return draw_case(found["seed"]), found["answers"]
        case = draw_case(rng.randrange(10_000_000, 2_000_000_000))
        return case, [[] for _ in case.questions]


def _random_line(path: Path, rng: Random) -> str:
    """A whole line of a file that may grow at its end; that of a longer line before it is likelier."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        while True:
            file.seek(rng.randrange(size))
            file.readline()
            line = file.readline()
            if line.endswith(b"\n"):
                return line.decode()
