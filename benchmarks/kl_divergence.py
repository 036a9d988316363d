"""KL divergence on a text: ours against that of llama-perplexity, on the same files.

Method. The reference's logits are written and each quant is scored against them twice: by llama-perplexity
(--kl-divergence-base, --kl-divergence) and by `internvl_gguf.bench`. Both cut the text into the same chunks, score the
second half of each, and run on the CPU with an F16 KV cache and without flash attention. What is left between them:

- llama-perplexity keeps the likeliest 16 nats of the reference's distribution, in 16 bits. Tokens below e^-16 are left
  out of the sum; of a vocabulary of 150,000 they can have a hundredth of the probability. Ours has all of them. The
  column "cut" is ours with that cut, and is to agree with llama-perplexity in what is not the last digits.
- A scored token that is cut off counts as e^-16 in its perplexity of the reference, which is too low then.
- Its exponentials are float32, ours float64; and chunks are computed in other batches, so that the last bits differ.

    python benchmarks/kl_divergence.py --tools DIR [--reference GGUF --quant GGUF...] [--text FILE] [--chunks N]

--tools is the folder of llama-perplexity and llama-quantize. Without --reference the demo model is compared with quants
of it that llama-quantize makes; without --text the text that comes with the package is scored. It needs no quiet
machine. The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from internvl_gguf.bench.quality.divergence import DivergenceSum
from internvl_gguf.bench.quality.measure_quality import CHUNK, text_chunks
from internvl_gguf.bench.quality.reference_logits import ReferenceReader, ReferenceWriter, Role, vocabulary_digest
from internvl_gguf.bench.quality.scoring import N_DRAFT, ScoredModel, score
from internvl_gguf.bench.quality.sets import TextSet, read_text
from internvl_gguf.bench.results import Divergence
from internvl_gguf.config import EngineConfig
from internvl_gguf.engine import Engine
from internvl_gguf.engine.embedding_cache import EmbeddingCache
from internvl_gguf.hardware.cores import default_threads
from internvl_gguf.llama.context import Context
from internvl_gguf.llama.library import build
from internvl_gguf.llama.model import TextModel
from internvl_gguf.models.resolve import resolve_model
from measure import positive, table

Figures = dict[str, float]

KEPT_NATS, STEPS = 16, 65535
ATTEMPTS = 5  # its log is written by a thread that now and then ends before its last lines are out
QUANTS: Final = ("Q8_0", "Q4_K_M", "Q2_K")
PRINTED: Final = {
    "mean KLD": r"Mean    KLD: *([\d.]+)",
    "median KLD": r"Median  KLD: *(-?[\d.]+)",
    "99% KLD": r"99\.0%   KLD: *([\d.]+)",
    "maximum KLD": r"Maximum KLD: *([\d.]+)",
    "same top token": r"Same top p: *([\d.]+)",
    "perplexity": r"Mean PPL\(Q\) *: *([\d.]+)",
    "reference's": r"Mean PPL\(base\) *: *([\d.]+)",
}
"""What llama-perplexity prints, percentages as such."""


class Peer:
    """llama-perplexity on one text."""

    def __init__(self, tool: Path, text: Path, arguments: argparse.Namespace) -> None:
        flags = {"-f": text, "-c": CHUNK, "-b": CHUNK, "-ub": CHUNK, "-t": arguments.threads, "-ngl": 0, "-fa": "off"}
        if arguments.chunks:
            flags["--chunks"] = arguments.chunks
        self._command = [str(tool), *(str(part) for flag in flags.items() for part in flag)]

    def write(self, model: Path, base: Path) -> None:
        """Write the reference's logits."""
        self._run("-m", model, "--kl-divergence-base", base)

    def read(self, model: Path, base: Path) -> Figures:
        """Score a model against them."""
        for _ in range(ATTEMPTS):
            output = self._run("-m", model, "--kl-divergence-base", base, "--kl-divergence")
            found = {name: re.search(pattern, output) for name, pattern in PRINTED.items()}
            if all(found.values()):
                return {name: float(match[1]) for name, match in found.items() if match}
        raise SystemExit("llama-perplexity printed no statistics; does it score 100 tokens or more?")

    def _run(self, *arguments: object) -> str:
        command = [*self._command, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
        return done.stdout + done.stderr


class CutSum(DivergenceSum):
    """Sums up what llama-perplexity would; see `log_softmax` with `base_log_prob` in its source."""

    def add(
        self, reference: NDArray[np.float64], reference_top: int, log_probs: NDArray[np.float64], token: int
    ) -> None:
        least = max(reference.min(), reference.max() - KEPT_NATS)
        step = (reference.max() - least) / STEPS
        kept = np.rint((np.maximum(reference, least) - least) / step) * step + least
        left_out = -1e4  # so unlikely that nothing of it is in the sum
        super().add(np.where(kept > -KEPT_NATS, kept, left_out), reference_top, log_probs, token)


class BothSums(DivergenceSum):
    """Ours, and beside it what is cut."""

    def __init__(self) -> None:
        super().__init__()
        self.cut = CutSum()

    def add(
        self, reference: NDArray[np.float64], reference_top: int, log_probs: NDArray[np.float64], token: int
    ) -> None:
        super().add(reference, reference_top, log_probs, token)
        self.cut.add(reference, reference_top, log_probs, token)


def ours(
    model_file: Path, text: TextSet, path: Path, role: Role, arguments: argparse.Namespace
) -> tuple[Figures, Figures]:
    """The same by `internvl_gguf.bench`, without and with the cut."""
    config = EngineConfig(flash_attn=False, n_draft=N_DRAFT)
    with ExitStack() as owned:
        model = TextModel(model_file)
        owned.callback(model.close)
        context = Context(model, config, n_ctx=CHUNK, n_threads=arguments.threads)
        owned.callback(context.close)
        engine = Engine(model, None, context, EmbeddingCache(0))
        owned.callback(engine.close)
        passages = text_chunks(engine, text, CHUNK, arguments.chunks)
        head = ScoredModel(engine, {"text": model_file.name}, vocabulary_digest(model_file)).head(text.name, text.text)
        rows = sum(len(passage.tokens) for passage in passages)
        references = ReferenceWriter(path, head, rows) if role == "write" else ReferenceReader(path, head)
        sums = BothSums()
        with references:
            for number, passage in enumerate(passages):
                score(engine, number, passage, references, sums)
    return figures(sums.result()), figures(sums.cut.result())


def figures(found: Divergence) -> Figures:
    """What llama-perplexity prints, of ours."""
    return {
        "mean KLD": found.mean,
        "median KLD": found.median,
        "99% KLD": found.p99,
        "maximum KLD": found.maximum,
        "same top token": 100 * found.top1,
        "perplexity": found.perplexity,
        "reference's": found.reference_perplexity,
    }


def quants_of_demo(quantize: Path, reference: Path, folder: Path) -> list[Path]:
    """The demo model in fewer bits."""
    made = [folder / f"demo-{name}.gguf" for name in QUANTS]
    for name, path in zip(QUANTS, made, strict=True):
        subprocess.run([quantize, reference, path, name, "1"], capture_output=True, check=True)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tools", type=Path, required=True, metavar="DIR", help="folder of llama.cpp's tools")
    parser.add_argument("--reference", type=Path, metavar="GGUF", help="the demo model if left out")
    parser.add_argument("--quant", type=Path, action="append", default=[], metavar="GGUF", help="may be repeated")
    parser.add_argument("--text", type=Path, metavar="FILE", help="what comes with the package if left out")
    parser.add_argument("--chunks", type=positive, help="most chunks to score")
    parser.add_argument("--threads", type=positive, default=default_threads())
    arguments = parser.parse_args()
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        reference = arguments.reference or resolve_model("demo").text
        quants = arguments.quant or quants_of_demo(arguments.tools / "llama-quantize", reference, folder)
        text = read_text(arguments.text)
        copy = folder / "text.txt"
        copy.write_text(f"{text.text}\n", "utf-8", newline="")
        peer = Peer(arguments.tools / "llama-perplexity", copy, arguments)
        peer.write(reference, folder / "base")
        ours(reference, text, folder / "reference", "write", arguments)
        result = {}
        for quant in quants:
            all_of_it, cut = ours(quant, text, folder / "reference", "read", arguments)
            sides = {"llama-perplexity": peer.read(quant, folder / "base"), "cut": cut, "ours": all_of_it}
            del cut["reference's"]
            rows = [
                [name, *(f"{side[name]:.6f}" if name in side else "" for side in sides.values())] for name in PRINTED
            ]
            print(f"\n{quant.name} against {reference.name}\n\n{table(('', *sides), rows)}")
            result[quant.name] = sides
    about = {"benchmark": "kl_divergence", "reference": reference.name, "build": build(), "text": text.name}
    print(json.dumps({**about, "quants": result}))


if __name__ == "__main__":
    main()
