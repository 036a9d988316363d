"""Batches for the whole model: pictures of each kind, cut as the runtime cuts them, and questions about them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from random import Random

import numpy as np

from internvl_gguf.tiling import tile_image
from training.labels import cover_map, view_labels
from training.packing import Batch, Packed, beginning, collate, pack, random_system
from training.phrases import SYSTEM_OFFICIAL, SYSTEMS
from training.questions import Question, loosely, random_question, without_picture
from training.scenes import Scene, new_scene, random_canvas, shapes_scene, text_scene
from training.tokenizer import Tokenizer, learn
from training.views import tile_views


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
        asked = [random_question(scene, rng) for _ in range(2 if rng.random() < 0.12 else 1)]
        turns.append(
            [
                Question("small print" if small and q.kind == "reading" else q.kind, loosely(q.text, rng), q.answer)
                for q in asked
            ]
        )
    return turns


@dataclass(frozen=True)
class Lessons:
    """What a batch is to be like.

    Attributes:
        tokenizer: the model's.
        tile_size, side: of a tile, in pixels and patches.
        pictures: pictures of one tile in a batch; fewer are drawn where they have more tiles.
        branches: conversations about a picture.
        multi: part of the batches whose pictures have several tiles.
        writing: part of the pictures that are about a printed line; the others are about shapes.
    """

    tokenizer: Tokenizer
    tile_size: int
    side: int
    pictures: int = 16
    branches: int = 8
    multi: float = 0.0
    writing: float = 0.5

    def __call__(self, rng: Random) -> Batch:
        """Draw one batch."""
        if rng.random() < 0.03:
            return self._text_only(rng)
        if rng.random() >= self.multi:
            return self._pictures(rng, self.pictures, 1)
        most = rng.choices((2, 4, 6, 12), weights=(1, 4, 3, 4))[0]
        return self._pictures(rng, max(2, self.pictures // (2 if most < 6 else 4)), most)

    def _text_only(self, rng: Random) -> Batch:
        packed = []
        for _ in range(self.pictures):
            turns = [[without_picture(rng)] for _ in range(self.branches)]
            packed.append(pack(self.tokenizer, beginning(self.tokenizer, random_system(rng), ()), turns))
        return collate(packed, [], [])

    def _pictures(self, rng: Random, count: int, max_tiles: int) -> Batch:
        packed: list[Packed] = []
        tiles, labels = [], []
        per_tile = (self.side // 2) ** 2
        wanted = 0
        while len(packed) < count:
            scene = lesson_scene(rng, max_tiles, self.writing)
            cut = tile_image(scene.image, max_tiles=max_tiles, tile_size=self.tile_size)
            if wanted and len(cut.tiles) != wanted:
                continue
            wanted = len(cut.tiles)
            tiles.append(np.stack([np.asarray(tile) for tile in cut.tiles]))
            covers = cover_map(scene)
            views = tile_views(scene, *cut.grid)
            labels.append(np.stack([view_labels(scene, covers, view, self.tile_size, self.side) for view in views]))
            shared = beginning(self.tokenizer, random_system(rng), (per_tile * wanted,))
            packed.append(pack(self.tokenizer, shared, conversations(scene, rng, self.branches)))
        return collate(packed, tiles, labels)
