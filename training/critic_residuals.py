"""Compute once what the demo model's layers make of right and wrong answers: all that a critic's own layers start from.

    python -m training.critic_residuals runs/shipped.pt runs/answers runs/residuals --others 2000

The demo's layers stay as they are in the critic, so their residual stream is the same in each step of its training.
Cases are those that `training.critic_answers` asked, and others whose wrong answers are made up: a token that the model
expects put for one that it does not expect, or a word for another.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from internvl_gguf.tiling import tile_image
from training.checkpoint import load_model
from training.critic import Judged, JudgedRow, Others, can_be_judged, judged, judged_row, mistaken, other_tokens
from training.critic_cases import draw_case
from training.network import rotary
from training.packing import beginning
from training.phrases import SYSTEM_OFFICIAL
from training.train_vision import normalise

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from PIL.Image import Image

    from training.critic_cases import Case
    from training.network import DemoModel
    from training.questions import Question
    from training.tokenizer import Tokenizer

FIRST_OTHER = 10_000_000
"""Seed of the first case that the demo was not asked."""
A_FILE = 200
ROOM = 900
"""Most tokens of a row with several questions: what a long one takes grows with its square."""
LIKELY = 2


def row_mask(branch: Tensor, stem: Tensor, parent: Tensor, positions: Tensor) -> Tensor:
    """What is added to the scores [batch, 1, tokens, tokens], of [batch, tokens]; padding is in branch -1.

    It is 0 for tokens before, by their positions, of the beginning, of the own branch and of those it goes on from. Of
    its parent's it has the place of one, which it does not see.
    """
    seen = (branch[:, None, :] == branch[:, :, None]) | (branch[:, None, :] == 0)
    seen |= (branch[:, None, :] == stem[:, :, None]) | (branch[:, None, :] == parent[:, :, None])
    displaced = (branch[:, None, :] == parent[:, :, None]) & (parent[:, :, None] > 0)
    seen &= positions[:, None, :] + displaced.long() <= positions[:, :, None]
    return torch.zeros(seen.shape).masked_fill_(~seen, -1e4)[:, None]


@dataclass(frozen=True)
class FrozenDemo:
    """The demo model as it is asked."""

    model: DemoModel
    tokenizer: Tokenizer

    def seen(self, pictures: Sequence[Image], max_tiles: int) -> tuple[list[int], Tensor]:
        """The beginning that conversations about pictures share, and their visual tokens."""
        shape = self.model.vision_shape
        cut = [tile_image(picture, max_tiles=max_tiles, tile_size=shape.image_size).tiles for picture in pictures]
        pixels = np.stack([np.asarray(tile) for part in cut for tile in part])
        visual = self.model.visual_tokens(normalise(torch.from_numpy(pixels)))[1]
        counts = tuple(shape.visual_tokens * len(part) for part in cut)
        return beginning(self.tokenizer, SYSTEM_OFFICIAL, counts), visual

    def residual(self, row: JudgedRow, visual: Tensor) -> Tensor:
        """The residual stream behind the last layer, before the norm [tokens, width]."""
        ids, branch, stem, parent, positions = (
            torch.from_numpy(part)[None] for part in (row.ids, row.branch, row.stem, row.parent, row.positions)
        )
        text = self.model.model.language_model
        x = self.model.embedded(ids, visual, self.tokenizer.special("<IMG_CONTEXT>"))
        mask, rope = row_mask(branch, stem, parent, positions), rotary(positions, self.model.text_shape)
        for layer in text.layers:
            x = layer(x, mask, rope)
        return x[0]

    def next_log_probs(self, residual: Tensor) -> Tensor:
        """Log-probabilities of all tokens behind each one [tokens, vocabulary]."""
        return self.model.lm_head(self.model.model.language_model.norm(residual)).log_softmax(-1)

    def log_prob(self, row: JudgedRow, residual: Tensor) -> Tensor:
        """How likely the tokens of answers were where they stand; 0 of others [tokens]."""
        places = np.flatnonzero(row.before >= 0)
        found = torch.zeros(len(row.ids))
        expected = self.next_log_probs(residual[row.before[places]])
        found[places] = expected[torch.arange(len(places)), row.ids[places]]
        return found


def least_likely(log_prob: Tensor, branch: Tensor, ends: Tensor) -> Tensor:
    """What the demo knew of each answer: the log-probability of its least likely token [answers]."""
    return torch.stack([log_prob[branch == branch[end]].min() for end in ends])


@torch.no_grad()
def read_case(demo: FrozenDemo, case: Case, said: list[list[str]], rng: Random) -> dict[str, Tensor | tuple[str, ...]]:
    """The row of a case with `residual` [tokens, width] in float16 and the `log_prob` of each answer's token."""
    shared, visual = demo.seen([scene.image for scene in case.scenes], case.max_tiles)
    pairs = [pair for pair in zip(case.questions, said, strict=True) if can_be_judged(pair[0])]
    rng.shuffle(pairs)
    likely, others = _likely_mistakes(demo, shared, visual, [question for question, _ in pairs], rng)
    asked = [judged(question, told, made, rng) for (question, told), made in zip(pairs, likely, strict=True)]
    row = judged_row(demo.tokenizer, shared, asked, others)
    while len(row.ids) > ROOM and len(asked) > 1:
        asked.pop()
        row = judged_row(demo.tokenizer, shared, asked, others)
    residual = demo.residual(row, visual)
    numbers = {name: torch.from_numpy(value) for name, value in vars(row).items() if name != "kinds"}
    return {**numbers, "kinds": row.kinds, "residual": residual.half(), "log_prob": demo.log_prob(row, residual)}


def _likely_mistakes(
    demo: FrozenDemo, shared: list[int], visual: Tensor, questions: list[Question], rng: Random
) -> tuple[list[list[str]], list[Others]]:
    """For each question wrong answers that the model is likely to give, and wrong tokens in the right one."""
    row = judged_row(demo.tokenizer, shared, [Judged(each, (each.answer,), (True,)) for each in questions])
    residual = demo.residual(row, visual)
    end = demo.tokenizer.special("<|im_end|>")
    answers: list[list[str]] = []
    tokens: list[Others] = []
    for last in row.ends.tolist():
        places = np.flatnonzero((row.branch == row.branch[last]) & (row.before >= 0))
        right = row.ids[places].tolist()
        expected = demo.next_log_probs(residual[row.before[places]]).exp().numpy()
        made = [mistaken(right, expected, end, rng) for _ in range(LIKELY)]
        texts = [demo.tokenizer.decode(ids, marked=True) for ids in made]
        answers.append([text for text in texts if text.strip() and "<" not in text and "\ufffd" not in text])
        tokens.append(other_tokens(right, expected, end, rng))
    return answers, tokens


def cases(answers: Path, others: range) -> Iterator[tuple[Case, list[list[str]], int]]:
    """Cases that were asked, in a random order, then others, of these seeds; with their seeds."""
    lines = [line for path in sorted(answers.glob("*.jsonl")) for line in path.read_text("utf-8").splitlines()]
    asked = [json.loads(line) for line in lines]
    Random(1).shuffle(asked)
    for found in asked:
        yield draw_case(found["seed"]), found["answers"], found["seed"]
    for seed in others:
        case = draw_case(seed)
        yield case, [[] for _ in case.questions], seed


def main() -> None:
    """Read the command line and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("answers", type=Path, help="folder of what training.critic_answers wrote")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--others", type=int, default=2000, help="cases beside those that the demo was asked")
    parser.add_argument("--first", type=int, default=FIRST_OTHER, help="seed of the first of them")
    args = parser.parse_args()
    torch.set_num_threads(1)
    demo, begun = FrozenDemo(*load_model(args.checkpoint)), time.time()
    args.out.mkdir(parents=True, exist_ok=True)
    rows, count = [], 0
    for case, said, seed in cases(args.answers, range(args.first, args.first + args.others)):
        if any(map(can_be_judged, case.questions)):
            rows.append(read_case(demo, case, said, Random(seed)))
        if len(rows) == A_FILE:
            _write(args.out / f"{count:03}.pt", rows)
            rows, count = [], count + 1
            print(f"{A_FILE * count} cases in {time.time() - begun:.0f} s", flush=True)
    if rows:
        _write(args.out / f"{count:03}.pt", rows)


def _write(path: Path, rows: list[dict[str, Tensor | tuple[str, ...]]]) -> None:
    """Write a file that appears whole: training may read the folder as it grows."""
    torch.save(rows, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


if __name__ == "__main__":
    main()
