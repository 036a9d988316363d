"""The engine runs many requests at once on one text model and its vision encoder: tokens and tiles in, tokens out.

The engine knows no template, file or conversation. A request is the whole prompt as spans; what the KV cache already
holds of it is not computed again, and a tile whose embeddings are known is not encoded again.

The engine has no thread of its own. The thread that waits for the next token of a request works a step for all
requests (`step_lock`), and a step is one native call for each kind of work (`scheduler`). So Ctrl-C arrives in the main
thread as usual, nothing runs that no caller waits for, and closing is simple.

    contract    protocol of an engine, in this process or in another
    engine      the engine as callers see it: submit, embed, close
    handle      a running request as callers see it: stream, result, cancel
    scheduler   one step: admit, encode, read, decode, end
    request     the state of one request
    tile_run    the next tiles of a prompt, encoded batch by batch
    constraint  what a grammar allows an answer to go on with
    thought     the thought before an answer, and where it ends
    certainty   how far a next-token distribution is from knowing nothing
    stretch_logprobs  how likely the tokens of some stretches of an answer were
    drafting    prompt lookup: guesses of the next tokens
    sequences   the sequences of the KV cache: contents, owners, choice
    embedding_cache, embedding_store  embeddings of encoded tiles, in memory and on disk
    kv_ledger   the tokens and tiles that a KV sequence holds
    free_cores  the number of cores that other programs leave free
    step_lock   a lock whose holder works one step for all threads that wait
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from internvl_gguf.engine.contract import ModelEngine, Vocabulary
    from internvl_gguf.engine.engine import Engine
    from internvl_gguf.engine.handle import Handle, LogitsHandle, ScoreHandle
    from internvl_gguf.engine.tile_run import RequestReport, TileProgress

__all__ = [
    "Engine",
    "Handle",
    "LogitsHandle",
    "ModelEngine",
    "RequestReport",
    "ScoreHandle",
    "TileProgress",
    "Vocabulary",
]

_HOMES: Final = {
    "Engine": "engine",
    "Handle": "handle",
    "LogitsHandle": "handle",
    "ModelEngine": "contract",
    "RequestReport": "tile_run",
    "ScoreHandle": "handle",
    "TileProgress": "tile_run",
    "Vocabulary": "contract",
}
"""The module of each name, imported on first use: `engine` loads llama.cpp, which the parent of a worker never does."""


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"internvl_gguf.engine.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
