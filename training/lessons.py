"""Batches for the whole model: pictures of each kind, cut as the runtime cuts them, and questions about them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from internvl_gguf.tiling import tile_image
from training.albums import album, ask_album, ask_later
from training.boxes import ask_box, ask_detection
from training.choices import ENDING, with_choices
from training.copying import ask_copy
from training.forms import ask_form
from training.frames import random_clip
from training.labels import cover_map, view_labels
from training.packing import Batch, Packed, beginning, collate, pack, random_system
from training.phrases import SYSTEM_OFFICIAL, SYSTEMS
from training.questions import Question, loosely, random_question, without_picture
from training.receipts import ask_receipt, ask_receipt_form, random_receipt
from training.scenes import Scene, new_scene, random_canvas, shapes_scene, text_scene
from training.tokenizer import Tokenizer, learn
from training.tools import ask_tools, random_offers, with_tools
from training.views import tile_views

if TYPE_CHECKING:
    from numpy.typing import NDArray

    # One sequence, its pictures' tiles in the order of their tokens, and the dense targets of its tiles (or none).
    Row = tuple[Packed, list[NDArray[np.uint8]], list[NDArray[np.int16]]]


def demo_tokenizer(merges: int = 440, size: int = 768) -> Tokenizer:
    """The tokenizer learned on questions and answers about a few thousand scenes, and on the system texts."""
    rng = Random(0)
    corpus: Counter[str] = Counter()
    for index in range(3000):
        scene = shapes_scene(rng, (200, 200), text=index % 3 == 0) if index % 4 else text_scene(rng, (200, 200))
        for _ in range(4):
            question = random_question(scene, rng)
            corpus.update((question.text, question.answer))
    for _ in range(1500):
        question = without_picture(rng)
        corpus.update((question.text, question.answer))
    corpus.update(dict.fromkeys(SYSTEMS, 400))
    corpus[SYSTEM_OFFICIAL] += 3000
    corpus.update(dict.fromkeys(("Image-1: ", "system\n", "user\n", "assistant\n", "Please: what"), 300))
    return learn(corpus, merges, size)


def lesson_scene(rng: Random, tiles: int, writing: float) -> Scene:
    """A scene for questions, with probability `writing` a printed line; small print only where there are tiles."""
    draw = rng.random()
    if draw < 0.03:
        return new_scene(rng, random_canvas(rng))
    if rng.random() >= writing:
        return shapes_scene(rng, text=rng.random() < 0.25)
    if tiles == 1:
        return text_scene(rng, smallest=0.11, largest=0.7, shapes=rng.choice((0, 0, 0, 2)))
    if draw < 0.5:
        return text_scene(rng, smallest=0.1, largest=0.7, shapes=rng.choice((0, 0, 0, 2)))
    # What the tiles of a grid with so many rows make readable, and one tile does not.
    rows = round(tiles**0.45)
    return text_scene(
        rng, random_canvas(rng, 1600), smallest=0.1 / rows, largest=0.36 / rows, shapes=rng.choice((0, 0, 3))
    )


def conversations(scene: Scene, rng: Random, count: int) -> list[list[Question]]:
    """`count` conversations about a scene, one or two turns each."""
    small = any(line.cap_height < 0.1 * scene.image.height for line in scene.lines)
    turns = []
    for _ in range(count):
        asked = [random_question(scene, rng) for _ in range(rng.choices((1, 2, 3), weights=(70, 22, 8))[0])]
        turns.append(
            [
                replace(q, kind="small print" if small and q.kind == "reading" else q.kind, text=loosely(q.text, rng))
                for q in asked
            ]
        )
    return turns


def extended_tokenizer(known: Tokenizer, merges: int = 754, size: int = 1024) -> Tokenizer:
    """The known tokenizer with more merges, learned on schemas, JSON, boxes, tools and questions of the new kinds."""
    rng = Random(1)
    corpus: Counter[str] = Counter()
    for index in range(1500):
        scene = shapes_scene(rng, (200, 200), text=index % 2 == 0)
        asked = [ask_form(scene, rng), *ask_tools(scene, random_offers(rng), rng)]
        asked += [ask_album([scene, shapes_scene(rng, (200, 200)), text_scene(rng, (200, 200))], rng)]
        asked += [q for q in (ask_box(scene, rng), ask_detection(scene, rng)) if q]
        asked += [ask_receipt_form(random_receipt(rng), rng)] if index % 4 == 0 else []
        asked += rng.sample(random_clip(rng, 4).questions, 2) if index % 2 == 0 else []
        for question in asked:
            corpus.update((question.text, question.answer))
        corpus[with_tools("", random_offers(rng))] += 1
    corpus.update(dict.fromkeys((ENDING, "Frame1: ", "Image-2: "), 500))
    return learn(corpus, merges, size, known)


def varied(scene: Scene, rng: Random, tokenizer: Tokenizer, room: int) -> list[list[Question]]:
    """Old questions, choices, forms and boxes about a scene, as many as fill about `room` tokens."""
    turns = conversations(scene, rng, 5)
    for question in (random_question(scene, rng) for _ in range(3)):
        chosen = with_choices(question, rng)
        turns += [[chosen]] if chosen else []
    located = ask_box(scene, rng)
    turns += [[located]] if located else []
    while room > sum(length(tokenizer, turn) for turn in turns):
        draw = rng.random()
        made = ask_form(scene, rng) if draw < 0.7 else None
        if made is None:
            made = ask_box(scene, rng) if draw < 0.93 else ask_detection(scene, rng)
        if made is not None:
            turns.append([made])
        elif draw > 0.97:
            break
    return turns


def length(tokenizer: Tokenizer, turns: list[Question]) -> int:
    """Tokens of a conversation, its marks not counted exactly."""
    return sum(
        len(tokenizer.encode(q.text)) + len(tokenizer.encode_marked(q.answer)) + 6 + 38 * sum(q.tiles) for q in turns
    )


def _most_tiles(rng: Random) -> int:
    """The tile limit of pictures that one tile shows well: mostly 1, now and then those that users leave it at."""
    return rng.choices((1, 4, 12), weights=(6, 2, 2))[0]


@dataclass(frozen=True)
class Lessons:
    """What a batch is to be like.

    Attributes:
        tokenizer: the model's.
        tile_size, side: of a tile, in pixels and patches.
        tokens: about how many a batch has.
        room: tokens of the conversations about one picture.
        writing: part of the pictures that are about a printed line; the others are about shapes.
        shares: how often each kind of batch is drawn; the names are those of the methods.
    """

    tokenizer: Tokenizer
    tile_size: int
    side: int
    tokens: int = 2400
    room: int = 260
    writing: float = 0.5
    shares: tuple[tuple[str, float], ...] = (
        ("picture", 1.0), ("tiled", 0.14), ("album", 0.24), ("later", 0.12), ("video", 0.17), ("tools", 0.17),
        ("receipt", 0.16), ("copying", 0.1), ("text", 0.03),
    )  # fmt: skip

    def __call__(self, rng: Random) -> Batch:
        """Draw one batch of one kind."""
        names, weights = zip(*self.shares, strict=True)
        return self.batch(rng.choices(names, weights=weights)[0], rng)

    def batch(self, kind: str, rng: Random) -> Batch:
        """Draw sequences of one kind until they fill a batch, padding counted."""
        make = {
            "picture": self._picture, "tiled": self._tiled, "album": self._album, "later": self._later,
            "video": self._video, "tools": self._tools, "receipt": self._receipt, "copying": self._copying,
            "text": self._text,
        }[kind]  # fmt: skip
        packed: list[Packed] = []
        tiles: list[NDArray[np.uint8]] = []
        labels: list[NDArray[np.int16]] = []
        longest = 0
        while True:
            row, seen, told = make(rng)
            longest = max(longest, len(row.ids))
            if packed and longest * (len(packed) + 1) > self.tokens:
                return collate(packed, tiles, labels)
            packed.append(row)
            tiles += seen
            labels += told

    @property
    def _per_tile(self) -> int:
        return (self.side // 2) ** 2

    def _cut(self, scene: Scene, max_tiles: int) -> NDArray[np.uint8]:
        cut = tile_image(scene.image, max_tiles=max_tiles, tile_size=self.tile_size)
        return np.stack([np.asarray(tile) for tile in cut.tiles])

    def _row(
        self, rng: Random, tiles: list[NDArray[np.uint8]], turns: list[list[Question]], mark: str = "Image-",
        system: str | None = None,
    ) -> Packed:  # fmt: skip
        counts = tuple(self._per_tile * len(part) for part in tiles)
        shared = beginning(self.tokenizer, system or random_system(rng), counts, mark)
        return pack(self.tokenizer, shared, turns, self._per_tile, len(tiles))

    def _text(self, rng: Random) -> Row:
        return self._row(rng, [], [[without_picture(rng)] for _ in range(8)]), [], []

    def _copying(self, rng: Random) -> Row:
        return self._row(rng, [], [[ask_copy(rng)] for _ in range(4)]), [], []

    def _picture(self, rng: Random) -> Row:
        scene = lesson_scene(rng, 1, self.writing)
        tiles = self._cut(scene, 1)
        view = tile_views(scene, 1, 1)[0]
        labels = view_labels(scene, cover_map(scene), view, self.tile_size, self.side)[None]
        return self._row(rng, [tiles], varied(scene, rng, self.tokenizer, self.room)), [tiles], [labels]

    def _tiled(self, rng: Random) -> Row:
        most = rng.choices((2, 4, 6, 12), weights=(1, 4, 3, 3))[0]
        scene = lesson_scene(rng, most, self.writing)
        tiles = self._cut(scene, most)
        return self._row(rng, [tiles], varied(scene, rng, self.tokenizer, self.room - 60)), [tiles], []

    def _album(self, rng: Random) -> Row:
        scenes = album(rng, rng.choices((2, 3, 4), weights=(3, 5, 1))[0])
        most = _most_tiles(rng)
        tiles = [self._cut(scene, most) for scene in scenes]
        turns = [[ask_album(scenes, rng) for _ in range(rng.choice((1, 1, 1, 2)))] for _ in range(9)]
        return self._row(rng, tiles, turns), tiles, []

    def _later(self, rng: Random) -> Row:
        scenes, most = album(rng, rng.choice((1, 1, 2))), _most_tiles(rng)
        tiles, turns, brought = [self._cut(scene, most) for scene in scenes], [], []
        for _ in range(4):
            scene = album(rng, 1)[0]
            shown = self._cut(scene, most)
            first = ask_album(scenes, rng) if len(scenes) > 1 else random_question(scenes[0], rng)
            conversation = [first, ask_later([*scenes, scene], len(shown), rng)]
            if rng.random() < 0.4:
                conversation.append(ask_album([*scenes, scene], rng))
            turns.append(conversation)
            brought.append(shown)
        return self._row(rng, tiles, turns), [*tiles, *brought], []

    def _video(self, rng: Random) -> Row:
        clip = random_clip(rng, rng.choices((4, 5, 6, 8), weights=(4, 3, 2, 1))[0])
        tiles = [self._cut(scene, 1) for scene in clip.frames]
        chosen = rng.sample(clip.questions, min(8, len(clip.questions)))
        return self._row(rng, tiles, [[question] for question in chosen], "Frame"), tiles, []

    def _tools(self, rng: Random) -> Row:
        offers = random_offers(rng)
        scene = lesson_scene(rng, 1, 0.6)
        tiles = self._cut(scene, _most_tiles(rng))
        system = with_tools(random_system(rng) or SYSTEM_OFFICIAL, offers)
        return self._row(rng, [tiles], [ask_tools(scene, offers, rng) for _ in range(5)], system=system), [tiles], []

    def _receipt(self, rng: Random) -> Row:
        receipt = random_receipt(rng)
        tiles = self._cut(receipt.scene, rng.choice((1, 1, 2, 6)))
        turns = [[ask_receipt_form(receipt, rng)] for _ in range(2)] + [[ask_receipt(receipt, rng)] for _ in range(4)]
        return self._row(rng, [tiles], turns), [tiles], []
