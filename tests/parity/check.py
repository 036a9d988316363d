"""Transformers live against the runtime on freshly drawn pictures, as `make_reference --check` runs it.

The models are made anew from their seeds, the pictures drawn with other seeds than the golden ones. The last lines say
whether the committed reference is still what this machine makes.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .files import DATA, export
from .measures import divergence, worst_tile_error
from .model import ReferenceModel
from .runtime import DEFAULTS, EXACT, answer, embed, open_session

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .cases import Case, Picture, Reference
    from .model import Answered

EMBEDDING_LIMIT = 1e-3
EXACT_LIMIT, DEFAULT_LIMIT = 1e-6, 5e-3


def redrawn(case: Case, seed: int) -> Case:
    """The same conversation about other pictures of the same sizes."""

    def other(picture: Picture) -> Picture:
        return dataclasses.replace(picture, seed=picture.seed + 1000 * seed)

    turns = (dataclasses.replace(turn, pictures=tuple(map(other, turn.pictures))) for turn in case.turns)
    return dataclasses.replace(case, turns=tuple(turns))


def asked(model: ReferenceModel, case: Case, seed: int) -> tuple[Case, Answered]:
    """The case with pictures of this seed, or of a later one if a greedy answer does not survive being read again."""
    for attempt in range(20):
        candidate = redrawn(case, seed + attempt)
        try:
            return candidate, model.answer(candidate)
        except ValueError:
            continue
    raise ValueError(f"{case.name}: no seed from {seed} on gives an answer that survives being read again")


def check_reference(model: ReferenceModel, folder: Path, seed: int) -> bool:
    """Print one line for each case; whether all of them are within the limits."""
    held = True
    heading = f"{model.reference.name}: case"
    print(f"\n{heading:40s} {'tiles':>5s} {'embedding':>10s} {'KL exact':>10s} {'KL default':>10s}")
    for original in model.reference.cases:
        case, expected = asked(model, original, seed)
        pictures = [picture for turn in case.turns for picture in turn.pictures]
        with open_session(folder, EXACT) as session:
            pairs = [(model.embed(picture), embed(session, picture)) for picture in pictures]
        error = max((worst_tile_error(*pair) for pair in pairs), default=0.0)
        exact, exact_answers = answer(folder, EXACT, case)
        default, _ = answer(folder, DEFAULTS, case)
        divergences = divergence(expected.logprobs, exact), divergence(expected.logprobs, default)
        good = (
            error < EMBEDDING_LIMIT
            and divergences[0] <= EXACT_LIMIT
            and divergences[1] <= DEFAULT_LIMIT
            and exact_answers == [model.decode(ids) for ids in expected.answers]
        )
        tiles = sum(len(embeddings) for embeddings, _ in pairs)
        print(f"{case.name:40s} {tiles:5d} {error:10.1e} {divergences[0]:10.1e} {divergences[1]:10.1e}", end="")
        print("" if good else "  MISS")
        held = held and good
    return held


def report_committed(model: ReferenceModel, folder: Path) -> None:
    """Say whether the committed files are those this machine makes, to the byte, and their outputs to what KL."""
    committed = DATA / model.reference.name
    same = all((folder / name).read_bytes() == (committed / name).read_bytes() for name in ("text.gguf", "mmproj.gguf"))
    with np.load(committed / "golden.npz") as golden:
        worst = max(
            divergence(golden[f"logprobs/{case.name}"], model.answer(case).logprobs) for case in model.reference.cases
        )
    print(f"{model.reference.name}: committed model {'made again to the byte' if same else 'DIFFERS'}; ", end="")
    print(f"golden outputs made again to KL {worst:.1e}")


def check(references: Sequence[Reference], seed: int) -> bool:
    """Check references with pictures of this seed; whether all cases are within the limits."""
    held = True
    with tempfile.TemporaryDirectory(prefix="internvl-parity-") as root:
        models = [ReferenceModel(reference) for reference in references]
        for model in models:
            folder = Path(root, model.reference.name)
            export(model, folder)
            held &= check_reference(model, folder, seed)
        print()
        for model in models:
            report_committed(model, Path(root, model.reference.name))
    limits = f"embeddings {EMBEDDING_LIMIT:.0e}, KL {EXACT_LIMIT:.0e} exact and {DEFAULT_LIMIT:.0e} with defaults"
    print(f"{'Within' if held else 'NOT within'} the limits: {limits}.")
    return held
