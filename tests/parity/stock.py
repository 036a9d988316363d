"""Measure what llama.cpp's own InternVL path makes of the reference's cases, and which of its habits costs what.

    python -m tests.parity.stock

Text in F32 KV without flash attention throughout, so that only the pictures differ. Columns: KL of the next token
from the reference with the library as it comes; with its own tiles but corrected position rows; with the card's tiles
but uncorrected rows; with both right. `!` marks another top token.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from training.export_gguf import Metadata, export_mmproj

from .cases import REFERENCES
from .files import DATA
from .measures import divergence
from .model import ReferenceModel, vision_shape
from .native import Native, silence
from .pictures import draw
from .recipe import tiles_of_card
from .vocabulary import IMG_CONTEXT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .cases import Case
    from .model import Answered

POSITIONS = "model.vision_tower.embeddings.position_embeddings"


def stock_can_ask(case: Case) -> bool:
    """Whether the case leaves the cutting to the model: stock llama.cpp takes no limits and knows one layout."""
    pictures = [picture for turn in case.turns for picture in turn.pictures]
    return case.layout == "separate" and bool(pictures) and all(p.max_tiles == 12 and p.thumbnail for p in pictures)


def literal_prompt(model: ReferenceModel, case: Case, answered: Answered) -> str:
    """The whole conversation as text with one `<image>` for each picture."""
    prompt = f"<|im_start|>system\n{case.system}<|im_end|>\n"
    for turn, ids in zip(case.turns, [*answered.answers, []], strict=True):
        prompt += f"<|im_start|>user\n{turn.prompt}<|im_end|>\n<|im_start|>assistant\n"
        prompt += f"{model.decode(ids)}<|im_end|>\n" if ids else ""
    return prompt


def card_logprobs(
    native: Native, context_token: int, ids: list[int], pictures: list[NDArray[np.uint8]]
) -> NDArray[np.float32]:
    """The next token with the card's tiles in the places that the reference's prompt has for them."""
    parts: list[list[int] | NDArray[np.float32]] = []
    position = 0
    for tiles in pictures:
        start = ids.index(context_token, position)
        embeddings = native.embed(tiles).reshape(-1, native.width)
        parts += [ids[position:start], embeddings]
        position = start + len(embeddings)
    return native.logprobs([*parts, ids[position:]])


def measure(model: ReferenceModel, stock: Native, corrected: Native) -> None:
    """Print one line for each case."""
    reference = model.reference
    context_token = model.tokenizer.token_to_id(IMG_CONTEXT)
    print(f"\n{reference.name + ': case':40s} {'tiles':>9s} {'stock':>9s} {'+ rows':>9s} {'+ tiles':>9s} {'both':>9s}")
    for case in filter(stock_can_ask, reference.cases):
        answered = model.answer(case)
        sources = [draw(p.seed, p.width, p.height) for turn in case.turns for p in turn.pictures]
        cut = [tiles_of_card(source, reference.image_size) for source in sources]
        prompt = literal_prompt(model, case, answered)
        as_it_comes, stock_tiles = stock.stock_logprobs(prompt, sources)
        outputs = [
            as_it_comes,
            corrected.stock_logprobs(prompt, sources)[0],
            card_logprobs(stock, context_token, answered.prompt_ids, cut),
            card_logprobs(corrected, context_token, answered.prompt_ids, cut),
        ]
        cells = []
        for logprobs in outputs:
            other_top = "!" if logprobs.argmax() != answered.logprobs.argmax() else " "
            cells.append(f"{divergence(answered.logprobs, logprobs):8.1e}{other_top}")
        print(f"{case.name:40s} {stock_tiles:3d} of {sum(map(len, cut)):2d} {' '.join(cells)}")


def main() -> None:
    """Measure every reference."""
    torch.set_num_threads(1)
    silence()
    with tempfile.TemporaryDirectory(prefix="internvl-stock-") as folder:
        for reference in REFERENCES:
            model = ReferenceModel(reference)
            rolled = dict(model.weights)
            rolled[POSITIONS] = np.roll(rolled[POSITIONS], -1, axis=1)
            corrected_file = Path(folder, f"{reference.name}.gguf")
            export_mmproj(corrected_file, rolled, vision_shape(reference), Metadata("corrected", "corrected"))
            files = DATA / reference.name
            stock = Native(files / "text.gguf", files / "mmproj.gguf", exact=True)
            corrected = Native(files / "text.gguf", corrected_file, exact=True)
            measure(model, stock, corrected)
            stock.close()
            corrected.close()


if __name__ == "__main__":
    main()
