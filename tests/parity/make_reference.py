"""Make the committed reference: random models as GGUF pairs, and what transformers answers with them.

    python -m tests.parity.make_reference            # make it anew
    python -m tests.parity.make_reference --check    # transformers live against the runtime; see check.py
    python -m tests.parity.make_reference qwen3      # one of them alone, as with --check

The first writes `tests/parity/data/<name>/text.gguf`, `mmproj.gguf` and `golden.npz` and prints how telling each case
is. It refuses to write a reference that proves nothing: whose answers do not depend on the pictures, or are certain.

golden.npz holds, for each case, `logprobs/<case>` (float32 [vocab]), `ids/<case>` (int32, the whole prompt) and
`answers/<case>` (the greedy answers before the last turn, as text); and for each picture `embeddings/<picture>`
(float32 [tiles, tokens, width], every `token_stride`-th visual token of a tile).
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

import numpy as np
import torch

from .cases import REFERENCES
from .check import asked, check
from .files import DATA, export
from .measures import divergence
from .model import ReferenceModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .cases import Reference

LEAST_PICTURE_EFFECT = 0.005
LEAST_ENTROPY, MOST_ENTROPY = 1.0, 5.8


def golden_outputs(model: ReferenceModel) -> dict[str, np.ndarray]:
    """Everything that golden.npz holds.

    Raises:
        ValueError: a case whose answer is nearly certain, nearly uniform, or the same whatever the picture.
    """
    golden: dict[str, np.ndarray] = {}
    for case in model.reference.cases:
        answered = model.answer(case)
        entropy = -float((np.exp(answered.logprobs) * answered.logprobs).sum())
        best, second = np.sort(answered.logprobs)[:-3:-1]
        effect = divergence(answered.logprobs, asked(model, case, seed=1)[1].logprobs)
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


def make(references: Sequence[Reference]) -> None:
    """Write these references."""
    for reference in references:
        model = ReferenceModel(reference)
        golden = golden_outputs(model)
        folder = DATA / reference.name
        export(model, folder)
        np.savez_compressed(folder / "golden.npz", allow_pickle=False, **golden)
        for file in sorted(folder.iterdir()):
            print(f"{reference.name}/{file.name}: {file.stat().st_size / 2**20:.2f} MiB")


def main() -> int:
    """Make the reference or check it; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="the references; all if none is named")
    parser.add_argument("--check", action="store_true", help="write nothing; compare the runtime with transformers")
    parser.add_argument("--seed", type=int, default=1, help="with --check: other seeds draw other pictures (default 1)")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - {reference.name for reference in REFERENCES}:
        parser.error(f"no reference is called {min(unknown)}")
    references = [each for each in REFERENCES if not arguments.names or each.name in arguments.names]
    torch.set_num_threads(1)
    if arguments.check:
        return 0 if check(references, arguments.seed) else 1
    make(references)
    return 0


if __name__ == "__main__":
    sys.exit(main())
