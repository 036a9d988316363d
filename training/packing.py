"""Many short conversations about one picture in one sequence, each seeing the shared beginning and itself only.

The beginning is the system text and the picture; each branch is a question with its answer (or two turns). A boolean
mask and restarted positions make this equal to that many separate conversations, at a fraction of the work.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from training.phrases import SYSTEM_OFFICIAL, SYSTEMS

if TYPE_CHECKING:
    from random import Random

    from numpy.typing import NDArray

    from training.questions import Question
    from training.scenes import Target
    from training.tokenizer import Tokenizer


TARGET_FIELDS = 6


@dataclass(frozen=True)
class Packed:
    """One picture's sequence.

    Attributes:
        ids: token ids [tokens]; context tokens hold the visual tokens' places.
        branch: 0 in the shared beginning, then 1, 2, ... [tokens].
        positions: rotary positions [tokens].
        answer: 1, 2, ... where the next token is part of the first, second, ... answer, else 0 [tokens].
        kinds: the kind of each question answered.
        targets: token, picture, left, top, right, bottom of each thing asked about, -1 for what is not told
            [targets, 6]; the token is the last one before the part of the answer that is about the thing.
    """

    ids: NDArray[np.int64]
    branch: NDArray[np.int64]
    positions: NDArray[np.int64]
    answer: NDArray[np.int64]
    kinds: tuple[str, ...]
    targets: NDArray[np.int64]


def pictures(
    tokenizer: Tokenizer, visual_tokens: tuple[int, ...], mark: str = "Image-", numbered: int = 0
) -> list[int]:
    """Ids of a message's pictures; one entry of `visual_tokens` a picture.

    Several are marked `Image-1: ` and so on, counted on from the `numbered` ones of the messages before; frames of a
    video (mark "Frame") from 1, also a single one.
    """
    ids: list[int] = []
    for number, count in enumerate(visual_tokens, 1):
        if mark != "Image-":
            ids += tokenizer.encode(f"{mark}{number}: ")
        elif len(visual_tokens) > 1:
            ids += tokenizer.encode(f"{mark}{numbered + number}: ")
        context = [tokenizer.special("<IMG_CONTEXT>")] * count
        ids += [tokenizer.special("<img>"), *context, tokenizer.special("</img>"), *tokenizer.encode("\n")]
    return ids


def beginning(
    tokenizer: Tokenizer, system: str | None, visual_tokens: tuple[int, ...], mark: str = "Image-"
) -> list[int]:
    """Ids up to where the question starts; one entry of `visual_tokens` a picture."""
    start, end = tokenizer.special("<|im_start|>"), tokenizer.special("<|im_end|>")
    ids: list[int] = []
    if system is not None:
        ids = [start, *tokenizer.encode("system\n"), *tokenizer.encode(system), end, *tokenizer.encode("\n")]
    return [*ids, start, *tokenizer.encode("user\n"), *pictures(tokenizer, visual_tokens, mark)]


def answer_cue(tokenizer: Tokenizer) -> list[int]:
    """Ids between the end of a question and the start of its answer."""
    start, end = tokenizer.special("<|im_start|>"), tokenizer.special("<|im_end|>")
    return [end, *tokenizer.encode("\n"), start, *tokenizer.encode("assistant\n")]


def pack(
    tokenizer: Tokenizer, shared: list[int], turns: list[list[Question]], per_tile: int = 36, numbered: int = 1
) -> Packed:
    """The shared beginning followed by one branch for each conversation in `turns`.

    Args:
        shared: what `beginning` gives.
        per_tile: visual tokens of a tile.
        numbered: pictures in the beginning, which later ones are counted on from.
    """
    start, end = tokenizer.special("<|im_start|>"), tokenizer.special("<|im_end|>")
    again = [*tokenizer.encode("\n"), start, *tokenizer.encode("user\n")]
    ids, branch, positions, answer = list(shared), [0] * len(shared), list(range(len(shared))), [0] * len(shared)
    kinds: list[str] = []
    targets: list[tuple[int, ...]] = []
    for number, conversation in enumerate(turns, 1):
        own: list[int] = []
        told: list[int] = []
        for turn, question in enumerate(conversation):
            encode = tokenizer.encode_marked if question.marked else tokenizer.encode
            brought = pictures(tokenizer, tuple(per_tile * tiles for tiles in question.tiles), numbered=numbered)
            asked = [*(again if turn else []), *brought, *encode(question.text), *answer_cue(tokenizer)]
            reply = [*tokenizer.encode_marked(question.answer), end]
            if question.target:
                targets.append(_told(len(ids) + len(own) + len(asked) - 1, question.target))
            if question.marks:
                ends = [0, *accumulate(len(tokenizer.decode([token], marked=True)) for token in reply[:-1])]
                cue = len(ids) + len(own) + len(asked) - 1
                targets += [_told(cue + bisect_right(ends, at) - 1, mark) for at, mark in question.marks]
            own += asked + reply
            kinds.append(question.kind)
            told += [0] * (len(asked) - 1) + [len(kinds)] * len(reply) + [0]
        ids += own
        answer += told
        branch += [number] * len(own)
        positions += range(len(shared), len(shared) + len(own))
    told_of = np.array(targets, np.int64).reshape(-1, TARGET_FIELDS)
    return Packed(
        np.array(ids), np.array(branch), np.array(positions), np.array(answer), kinds=tuple(kinds), targets=told_of
    )


def _told(token: int, target: Target) -> tuple[int, ...]:
    return (token, target.picture, *(target.edges or (-1,) * 4))


def random_system(rng: Random) -> str | None:
    """The official system text mostly, another now and then, sometimes none."""
    draw = rng.random()
    if draw < 0.7:
        return SYSTEM_OFFICIAL
    return None if draw < 0.78 else rng.choice(SYSTEMS)


@dataclass(frozen=True)
class Batch:
    """Padded sequences of pictures; `labels` and `tiles` are [all tiles, ...], `targets` begin with their row."""

    tiles: NDArray[np.uint8] | None
    labels: NDArray[np.int16] | None
    ids: NDArray[np.int64]
    branch: NDArray[np.int64]
    positions: NDArray[np.int64]
    answer: NDArray[np.int64]
    kinds: tuple[tuple[str, ...], ...]
    targets: NDArray[np.int64]


def collate(packed: list[Packed], tiles: list[NDArray[np.uint8]], labels: list[NDArray[np.int16]]) -> Batch:
    """Pad on the right; padding is in branch -1, which nothing else sees."""
    longest = max(len(p.ids) for p in packed)

    def padded(name: str, fill: int) -> NDArray[np.int64]:
        rows = [getattr(p, name) for p in packed]
        return np.stack([np.pad(row, (0, longest - len(row)), constant_values=fill) for row in rows])

    return Batch(
        np.concatenate(tiles) if tiles else None, np.concatenate(labels) if labels else None,
        padded("ids", 0), padded("branch", -1), padded("positions", 0), padded("answer", 0),
        tuple(p.kinds for p in packed),
        np.concatenate([np.insert(p.targets, 0, row, 1) for row, p in enumerate(packed)]),
    )  # fmt: skip
