"""A checkpoint read back into a model, and questions answered with it through PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from internvl_gguf.tiling import tile_image
from training.exam import Turn
from training.network import DemoModel, TextShape, VisionShape
from training.packing import answer_cue, beginning
from training.packing import pictures as pictures_of
from training.phrases import SYSTEM_OFFICIAL
from training.tokenizer import Tokenizer
from training.train import attention_mask
from training.train_vision import normalise

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL.Image import Image

    from training.exam import Item


def model_of(state: dict[str, Any], averaged: bool = True) -> tuple[DemoModel, Tokenizer]:
    """The model (its averaged weights, or the last) and the tokenizer of a checkpoint."""
    tokenizer = Tokenizer(tuple(map(tuple, state["merges"])), state["size"], state.get("early"))
    layers = state.get("layers", TextShape.num_hidden_layers)
    model = DemoModel(VisionShape(), TextShape(vocab_size=tokenizer.size, num_hidden_layers=layers))
    model.load_state_dict(state["average" if averaged else "net"])
    return model.eval(), tokenizer


def load_model(path: Path, averaged: bool = True) -> tuple[DemoModel, Tokenizer]:
    """The model and the tokenizer of a checkpoint's file."""
    return model_of(torch.load(path, weights_only=True), averaged)


@torch.no_grad()
def answer_with_torch(model: DemoModel, tokenizer: Tokenizer, item: Item, longest: int = 200) -> str:
    """Greedy decoding without a cache; slow and simple."""
    shape = model.vision_shape
    tiles: list[NDArray[np.uint8]] = []
    per_tile = shape.visual_tokens

    def shown(pictures: tuple[Image, ...]) -> tuple[int, ...]:
        cuts = [tile_image(picture, max_tiles=item.max_tiles, tile_size=shape.image_size) for picture in pictures]
        tiles.extend(np.stack([np.asarray(tile) for tile in cut.tiles]) for cut in cuts)
        return tuple(len(cut.tiles) for cut in cuts)

    turns = (*item.earlier, Turn(item.question, item.shown))
    mark = "Frame" if item.layout == "frames" else "Image-"
    counts = tuple(per_tile * count for count in shown(turns[0].pictures))
    ids = beginning(tokenizer, item.system or SYSTEM_OFFICIAL, counts, mark)
    start, end = tokenizer.special("<|im_start|>"), tokenizer.special("<|im_end|>")
    answer: list[int] = []
    for index, turn in enumerate(turns):
        if index:
            counts = tuple(per_tile * count for count in shown(turn.pictures))
            ids += [*answer, end, *tokenizer.encode("\n"), start, *tokenizer.encode("user\n")]
            ids += pictures_of(tokenizer, counts, numbered=sum(len(t.pictures) for t in turns[:index]))
        ids += [*tokenizer.encode(turn.text), *answer_cue(tokenizer)]
        visual = model.visual_tokens(normalise(torch.from_numpy(np.concatenate(tiles))))[1] if tiles else None
        answer = _greedy(model, tokenizer, torch.tensor([ids]), visual, longest)
    return tokenizer.decode(answer, marked=True)


def _greedy(
    model: DemoModel, tokenizer: Tokenizer, ids: torch.Tensor, visual: torch.Tensor | None, longest: int
) -> list[int]:
    given, end = ids.shape[1], tokenizer.special("<|im_end|>")
    for _ in range(longest):
        mask = attention_mask(torch.zeros_like(ids))
        hidden = model.hidden(ids, visual, tokenizer.special("<IMG_CONTEXT>"), mask, torch.arange(ids.shape[1])[None])
        best = model.lm_head(hidden[:, -1]).argmax(1, keepdim=True)
        if int(best) == end:
            break
        ids = torch.cat([ids, best], 1)
    return ids[0, given:].tolist()
