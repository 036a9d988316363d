"""Tokens and embeddings in, tokens out: many requests at once on one text model and its vision encoder.

The engine knows no template, file or conversation. A request is the whole prompt as spans; what the KV cache already
holds of it is not computed again, and a tile whose embeddings are known is not encoded again.

There is no thread behind it. Whoever waits for the next token of a request works a step for all of them (`turns`), and
a step is one native call for each kind of work there is (`scheduler`): so Ctrl-C arrives where it always does, in the
main thread, nothing runs that nobody waits for, and closing is simple.

    contract    what callers may ask of an engine, in this process or in another
    engine      what callers see: submit, embed, close
    handle      an answer under way: stream, result, cancel
    scheduler   the step: admit, encode, read, decode, end
    request     what the scheduler knows of one prompt
    tile_run    the tiles a prompt goes on with, encoded batch by batch
    drafting    guesses of what an answer says next
    sequences   who holds what of the KV cache
    embedding_cache, embedding_store  tiles that were encoded, in memory and on disk
    kv_ledger   which tokens a KV sequence holds
    free_cores  how many cores other programs leave
    turns       one thread at a time works, the others wait for what it brings
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from internvl_gguf.engine.contract import ModelEngine, Vocabulary
    from internvl_gguf.engine.engine import Engine
    from internvl_gguf.engine.handle import Handle, LogitsHandle, ScoreHandle
    from internvl_gguf.engine.tile_run import Report, TileProgress

__all__ = [
    "Engine",
    "Handle",
    "LogitsHandle",
    "ModelEngine",
    "Report",
    "ScoreHandle",
    "TileProgress",
    "Vocabulary",
]

_HOMES: Final = {
    "Engine": "engine",
    "Handle": "handle",
    "LogitsHandle": "handle",
    "ModelEngine": "contract",
    "Report": "tile_run",
    "ScoreHandle": "handle",
    "TileProgress": "tile_run",
    "Vocabulary": "contract",
}
"""The module of each name: `engine` loads llama.cpp, and who has an engine in another process does without."""


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"internvl_gguf.engine.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
