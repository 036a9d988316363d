"""What a batch of pictures that occur once does to the disk cache of embeddings, by the rule it is written by.

Method. A store holds the pictures of a chat. A batch of pictures follows that fill the store several times over; some
of them occur a second time, soon after the first. Then the chat's pictures are looked up, and the batch is run again,
as with another question. That is done once for each rule, in an empty folder each, in an order that changes from round
to round; the embeddings are of random numbers and no model runs, as what is measured is what is kept. The rules:

    evict   a batch is written as a chat is, and the least recently used entries go
    never   a batch is not written at all
    twice   a tile is written when it occurs the second time
    room    what the package does: free room is used, and only what occurs a second time gets room that others have

Reported are the MiB written by the batch, the chat's tiles still on disk after it, the tiles of the second run that
come from disk or memory, and the seconds of the first run, writing included.

    python benchmarks/batch_cache.py [--pictures N] [--fill X] [--rounds N] [--quick]

The last line of the output is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

import measure
from internvl_gguf.engine.embedding_cache import EmbeddingCache
from internvl_gguf.engine.embedding_store import EmbeddingStore

MIB: Final = 1024**2
RULES: Final = ("evict", "never", "twice", "room")
TILES: Final = 13
ROWS, COLUMNS = 16, 1008  # 63 KiB, and 16 blocks on disk with the header
BLOCKS: Final = 16 * 4096
MEMORY_PICTURES: Final = 8  # an InternVL3-14B's 512 MiB hold 7.9 pictures
CHAT_PICTURES: Final = 10
AGAIN_EVERY: Final = 20  # one of so many pictures occurs a second time
AGAIN_AFTER: Final = 3  # pictures later


class CountedStore(EmbeddingStore):
    """A store that counts what is written.

    Attributes:
        written: bytes.
    """

    written = 0

    def put(self, key: bytes, embeddings: NDArray[np.float32], *, evicts: bool = True) -> bool:
        """As `EmbeddingStore.put`."""
        was_there = self._path(key).exists()
        is_stored = super().put(key, embeddings, evicts=evicts)
        self.written += BLOCKS * (is_stored and not was_there)
        return is_stored


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pictures", type=measure.positive, default=400, help="pictures of the batch")
    parser.add_argument("--fill", type=float, default=5.0, help="how many times they fill the store")
    parser.add_argument("--rounds", type=measure.positive, default=3)
    parser.add_argument("--quick", action="store_true", help="one round of 40 pictures, to see that it runs")
    args = parser.parse_args()
    pictures = 40 if args.quick else args.pictures
    runs: dict[str, list[dict[str, float]]] = {rule: [] for rule in RULES}
    for index in range(measure.rounds_of(args)):
        shift = index % len(RULES)
        for rule in (*RULES[shift:], *RULES[:shift]):
            with tempfile.TemporaryDirectory() as folder:
                runs[rule].append(measure_rule(rule, Path(folder), pictures, args.fill))
    spreads = {
        rule: {name: measure.Spread(tuple(run[name] for run in several)) for name in several[0]}
        for rule, several in runs.items()
    }
    names = list(spreads[RULES[0]])
    print(measure.table(["rule", *names], [[rule, *map(str, found.values())] for rule, found in spreads.items()]))
    shown = {rule: {name: spread.as_json() for name, spread in found.items()} for rule, found in spreads.items()}
    print(json.dumps({"benchmark": "batch_cache", "pictures": pictures, "fill": args.fill, "rules": shown}))


def measure_rule(rule: str, folder: Path, pictures: int, fill: float) -> dict[str, float]:
    """The chat, the batch twice, by one rule."""
    store = CountedStore(folder, int(pictures / fill) * TILES * BLOCKS)
    chat = range(10**6, 10**6 + min(CHAT_PICTURES, int(pictures / fill) // 2))
    run(store, chat, "evict")
    store.written = 0
    started = time.perf_counter()
    run(store, order(pictures), rule)
    seconds = time.perf_counter() - started
    written = store.written
    kept = sum(store.get(key) is not None for picture in chat for key in keys(picture))
    found = run(store, order(pictures), rule)
    asked = TILES * sum(1 for _ in order(pictures))
    return {
        "MiB written": written / MIB,
        "chat kept, %": 100 * kept / (TILES * len(chat)),
        "second run found, %": 100 * found / asked,
        "first run, s": seconds,
    }


def order(pictures: int) -> Iterator[int]:
    """The pictures of a batch; some occur a second time, shortly after the first."""
    for picture in range(pictures):
        yield picture
        if picture >= AGAIN_AFTER and (picture - AGAIN_AFTER) % AGAIN_EVERY == 0:
            yield picture - AGAIN_AFTER


def run(store: CountedStore, pictures: range | Iterator[int], rule: str) -> int:
    """Ask about pictures in a process of its own, as it were: with an empty memory; the tiles that were known."""
    cache = EmbeddingCache(MEMORY_PICTURES * TILES * ROWS * COLUMNS * 4, store if rule != "never" else None)
    seen: set[bytes] = set()
    found = 0
    for picture in pictures:
        for key in keys(picture):
            if cache.get(key) is not None:
                found += 1
                if rule == "twice":
                    store.put(key, embeddings(key))
            elif rule == "twice" and key not in seen:
                cache._remember(key, embeddings(key))
            else:
                cache.put(key, embeddings(key), evicts=rule != "room")
            seen.add(key)
        for written, _ in list(cache._writes):  # an encoder takes longer than the disk
            written.result()
    cache.close()
    return found


def keys(picture: int) -> list[bytes]:
    """The keys of the tiles of a picture."""
    return [(picture * TILES + tile).to_bytes(16) for tile in range(TILES)]


def embeddings(key: bytes) -> NDArray[np.float32]:
    """What an encoder makes of a tile."""
    return np.full((ROWS, COLUMNS), key[-1], dtype=np.float32)


if __name__ == "__main__":
    main()
