"""Accuracy on held-out pictures: of a checkpoint through PyTorch, or of the two GGUF files through the runtime.

python -m training.evaluate runs/tiles.pt
python -m training.evaluate demo --count 200
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from internvl_gguf.tiling import tile_image
from training.exam import READING_KINDS, SHAPE_KINDS, items
from training.network import DemoModel, TextShape, VisionShape
from training.packing import beginning, collate, pack
from training.phrases import SYSTEM_OFFICIAL
from training.questions import Question
from training.tokenizer import Tokenizer
from training.train import attention_mask
from training.train_vision import normalise

if TYPE_CHECKING:
    from collections.abc import Callable

    from training.exam import Item

SUITES = (
    *((kind, 1) for kind in (*SHAPE_KINDS, *READING_KINDS, "absent", "small print")),
    *((kind, 12) for kind in ("small print", *SHAPE_KINDS, *READING_KINDS, "absent", "text")),
)


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
def answer_with_torch(model: DemoModel, tokenizer: Tokenizer, item: Item, longest: int = 80) -> str:
    """Greedy decoding without a cache; slow and simple."""
    shape = model.vision_shape
    tiles = []
    if item.picture is not None:
        cut = tile_image(item.picture, max_tiles=item.max_tiles, tile_size=shape.image_size)
        tiles = [np.stack([np.asarray(tile) for tile in cut.tiles])]
    shared = beginning(tokenizer, SYSTEM_OFFICIAL, (shape.visual_tokens * len(tiles[0]),) if tiles else ())
    visual = model.visual_tokens(normalise(torch.from_numpy(tiles[0])))[1] if tiles else None
    batch = collate([pack(tokenizer, shared, [[Question("", item.question, "")]])], tiles, [])
    ids = torch.from_numpy(batch.ids)[:, :-1]
    given, end = ids.shape[1], tokenizer.special("<|im_end|>")
    for _ in range(longest):
        mask = attention_mask(torch.zeros_like(ids))
        hidden = model.hidden(ids, visual, tokenizer.special("<IMG_CONTEXT>"), mask, torch.arange(ids.shape[1])[None])
        best = model.lm_head(hidden[:, -1]).argmax(1, keepdim=True)
        if int(best) == end:
            break
        ids = torch.cat([ids, best], 1)
    return tokenizer.decode(ids[0, given:].tolist())


def measure(answer: Callable[[Item], str], count: int, suites: tuple[tuple[str, int], ...], show: int) -> None:
    """Print each suite's accuracy and its first wrong answers."""
    for suite, max_tiles in suites:
        begun, wrong = time.time(), []
        for item in items(suite, count, max_tiles):
            said = answer(item)
            if said != item.answer:
                wrong.append((item.question, item.answer, said))
        print(
            f"{suite:13} max_tiles {max_tiles:2}: {count - len(wrong)} of {count} ({time.time() - begun:.0f} s)",
            flush=True,
        )
        for question, wanted, said in wrong[:show]:
            print(f"    {question} {wanted!r}, said {said!r}")


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a checkpoint (.pt), or for the runtime `demo` or a folder that `package` wrote")
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--show", type=int, default=3, help="wrong answers shown of each suite")
    parser.add_argument("--suites", default="", help="comma-separated names; all by default")
    args = parser.parse_args()
    torch.set_num_threads(1)
    suites = tuple(s for s in SUITES if not args.suites or s[0] in args.suites.split(","))
    if args.model.endswith(".pt"):
        model, tokenizer = load_model(Path(args.model))
        measure(lambda item: answer_with_torch(model, tokenizer, item), args.count, suites, args.show)
        return
    from internvl_gguf import SamplingParams, Session

    folder = Path(args.model)
    files = {"model": folder / "demo-text-BF16.gguf", "mmproj": folder / "demo-mmproj-F16.gguf"}
    given = files if folder.is_dir() else {"model": args.model}
    with Session.open(**given, n_threads=1, embedding_disk_bytes=0) as session:  # each picture is seen once

        def ask(item: Item) -> str:
            session.clear()
            images = [item.picture] if item.picture is not None else []
            sampling = SamplingParams(temperature=0)
            return session.ask(item.question, images=images, max_tiles=item.max_tiles, sampling=sampling).text

        measure(ask, args.count, suites, args.show)


if __name__ == "__main__":
    main()
