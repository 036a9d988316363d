"""Make the committed reference: two random models as GGUF pairs, and what transformers answers with them.

    python -m tests.parity.make_reference

writes `tests/parity/data/<name>/text.gguf`, `mmproj.gguf` and `golden.npz` and prints how telling each case is. It
refuses to write a reference that proves nothing: one whose answers do not depend on the pictures, or are certain.

golden.npz holds, for each case, `logprobs/<case>` (float32 [vocab]), `ids/<case>` (int32, the whole prompt) and
`answers/<case>` (the greedy answers before the last turn, as text); and for each picture `embeddings/<picture>`
(float32 [tiles, tokens, width], every `token_stride`-th visual token of a tile).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from training.export_gguf import Metadata, export_mmproj, export_text

from .cases import REFERENCES
from .measures import divergence
from .model import ReferenceModel, text_shape, vision_shape
from .vocabulary import tokenizer_spec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .cases import Case

DATA = Path(__file__).parent / "data"
LEAST_PICTURE_EFFECT = 0.005
LEAST_ENTROPY, MOST_ENTROPY = 1.0, 5.8


def export(model: ReferenceModel, folder: Path) -> None:
    """Write the model as a pair of float32 GGUF files."""
    reference = model.reference
    metadata = Metadata(
        name=f"InternVL parity reference, {reference.name}",
        basename=f"internvl-parity-{reference.name}",
        description="Random weights; made by tests/parity/make_reference.py to compare runtimes with.",
    )
    folder.mkdir(parents=True, exist_ok=True)
    spec = tokenizer_spec(model.tokenizer, reference.vocab)
    export_text(folder / "text.gguf", model.weights, text_shape(reference), spec, metadata)
    export_mmproj(folder / "mmproj.gguf", model.weights, vision_shape(reference), metadata)


def golden_outputs(model: ReferenceModel) -> dict[str, NDArray]:
    """Everything that golden.npz holds.

    Raises:
        ValueError: a case whose answer is nearly certain, nearly uniform, or the same whatever the picture.
    """
    golden: dict[str, NDArray] = {}
    for case in model.reference.cases:
        answered = model.answer(case)
        entropy = -float((np.exp(answered.logprobs) * answered.logprobs).sum())
        best, second = np.sort(answered.logprobs)[:-3:-1]
        effect = divergence(answered.logprobs, model.answer(_with_other_pictures(case)).logprobs)
        print(
            f"{case.name:34s} {len(answered.prompt_ids):5d} tokens, entropy {entropy:.2f} nats, top-1 margin ", end=""
        )
        print(f"{best - second:.2f}, other pictures KL {effect:.3f}")
        if not LEAST_ENTROPY < entropy < MOST_ENTROPY:
            raise ValueError(f"{case.name}: entropy {entropy:.2f} proves little")
        if any(turn.pictures for turn in case.turns) and effect < LEAST_PICTURE_EFFECT:
            raise ValueError(f"{case.name}: the pictures hardly matter")
        golden[f"logprobs/{case.name}"] = answered.logprobs
        golden[f"ids/{case.name}"] = np.array(answered.prompt_ids, dtype=np.int32)
        golden[f"answers/{case.name}"] = np.array([model.decode(ids) for ids in answered.answers], dtype=np.str_)
    for picture in model.reference.embedded:
        golden[f"embeddings/{picture.name}"] = model.embed(picture)[:, :: model.reference.token_stride]
    return golden


def _with_other_pictures(case: Case) -> Case:
    """The same conversation about other pictures of the same sizes, its earlier answers left out."""
    turns = [
        dataclasses.replace(
            turn,
            pictures=tuple(dataclasses.replace(picture, seed=picture.seed + 1000) for picture in turn.pictures),
        )
        for turn in case.turns
    ]
    return dataclasses.replace(case, turns=tuple(turns))


def main() -> None:
    """Remake every reference."""
    torch.set_num_threads(1)
    for reference in REFERENCES:
        model = ReferenceModel(reference)
        golden = golden_outputs(model)
        export(model, DATA / reference.name)
        np.savez_compressed(DATA / reference.name / "golden.npz", **golden)
        for file in sorted((DATA / reference.name).iterdir()):
            print(f"{reference.name}/{file.name}: {file.stat().st_size / 2**20:.2f} MiB")


if __name__ == "__main__":
    main()
