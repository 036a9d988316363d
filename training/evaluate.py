"""Accuracy on held-out pictures: of a checkpoint through PyTorch, or of the two GGUF files through the runtime.

python -m training.evaluate runs/tiles.pt
python -m training.evaluate demo --count 200
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from training.exam import NEW_KINDS, READING_KINDS, SHAPE_KINDS, Turn, items
from training.forms import FORM
from training.read_gguf import TEXT_FILE, VISION_FILE, read, training_tokenizer
from training.scoring import score

if TYPE_CHECKING:
    from collections.abc import Callable

    from internvl_gguf import Session
    from training.exam import Item

SUITES = (
    *((kind, 1) for kind in (*SHAPE_KINDS, *READING_KINDS, "absent", "small print")),
    *((kind, 12) for kind in ("small print", *SHAPE_KINDS, *READING_KINDS, "absent", "text")),
    *((kind, 1) for kind in NEW_KINDS),
    *((kind, 6) for kind in ("boxes", "json", "receipts", "receipt questions")),
)


def measure(answer: Callable[[Item], str], count: int, suites: tuple[tuple[str, int], ...], show: int) -> None:
    """Print each suite's accuracy, how much is right where answers have parts, and the first wrong answers."""
    for suite, max_tiles in suites:
        begun, wrong, scores = time.time(), [], []
        for item in items(suite, count, max_tiles):
            said = answer(item)
            scores.append(score(item, said))
            if scores[-1] < 1:
                wrong.append((item.question, item.answer, said))
        parts = f", {100 * sum(scores) / count:.0f}% of the parts" if any(0 < part < 1 for part in scores) else ""
        print(
            f"{suite:17} max_tiles {max_tiles:2}: {count - len(wrong)} of {count}{parts} ({time.time() - begun:.0f} s)",
            flush=True,
        )
        for question, wanted, said in wrong[:show]:
            print(f"    {question!r} {wanted!r}, said {said!r}")


def answerer(session: Session, folder: Path, bound: bool = False, clips: bool = False) -> Callable[[Item], str]:
    """What answers an item through the runtime with the files of `folder`; special tokens are written out.

    With `bound`, answers with a JSON schema are bound to it. With `clips`, frames come in a clip's file.
    """
    tokenizer = training_tokenizer(read(folder).tokenizer)

    def answer(item: Item) -> str:
        session.clear()
        session.set_system(item.system)
        said = ""
        for turn in (*item.earlier, Turn(item.question, item.shown)):
            form = item.schema if bound and turn.text == item.question else None
            images: list[object] = list(turn.pictures)
            if clips and item.layout == "frames" and images:
                from training.clip_files import as_clip

                images = [as_clip(turn.pictures)]
            session.ask(
                turn.text.split(FORM)[0] if form else turn.text, images=images, max_tiles=item.max_tiles,
                layout=item.layout, temperature=0, max_tokens=240, schema=form,
            )  # fmt: skip
            said = tokenizer.decode(session.messages[-1].tokens or (), marked=True)
        return said.removesuffix("<|im_end|>")

    return answer


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a checkpoint (.pt), or for the runtime `demo` or a folder that `package` wrote")
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--bound", action="store_true", help="bind JSON to its schema (through the runtime)")
    parser.add_argument("--clips", action="store_true", help="put frames into clips (through the runtime, with PyAV)")
    parser.add_argument("--show", type=int, default=3, help="wrong answers shown of each suite")
    parser.add_argument("--suites", default="", help="comma-separated names; all by default")
    args = parser.parse_args()
    suites = tuple(s for s in SUITES if not args.suites or s[0] in args.suites.split(","))
    if args.model.endswith(".pt"):
        from training.checkpoint import answer_with_torch, load_model

        model, tokenizer = load_model(Path(args.model))
        measure(lambda item: answer_with_torch(model, tokenizer, item), args.count, suites, args.show)
        return
    from internvl_gguf import Session
    from internvl_gguf.models.resolve import resolve_model

    folder = Path(args.model) if Path(args.model).is_dir() else resolve_model(args.model).text.parent
    text, vision = folder / TEXT_FILE, folder / VISION_FILE
    with Session.open(text, vision, n_threads=1, embedding_disk_bytes=0) as session:  # each picture is seen once
        measure(answerer(session, folder, args.bound, args.clips), args.count, suites, args.show)


if __name__ == "__main__":
    main()
