"""Every knob of a session and of an answer, with its default, in one place.

The command line and the Python API read their defaults from these classes; unknown names are refused by them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, TypedDict, get_args

from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.types import PictureLayout
from internvl_gguf.utils import arguments

KVType = Literal["f32", "f16", "bf16", "q8_0", "q4_0"]
FlashAttention = bool | Literal["auto"]
GPULayers = int | Literal["auto"]
VRAM = str | int | Sequence[str | int]

DEFAULT_N_CTX = 8192
DEFAULT_N_UBATCH = 512
DEFAULT_WORKER_TIMEOUT = 600.0  # seconds: one tile of the 6B vision encoder takes minutes on a slow CPU
MAX_SEQUENCES = 255  # llama.cpp aborts from sequence 256 on
MAX_DRAFT = 64
MAX_SEED = 2**32 - 2  # llama.cpp reads 2**32 - 1 as "draw a seed"
MAX_TOP_K = 2**31 - 1
MAX_LAST_N = 2**20  # llama.cpp takes memory for as many


def _require(condition: bool, message: str, hint: str) -> None:
    if not condition:
        raise InvalidRequestError(message, hint)


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is chosen, in llama.cpp's own sampler chain.

    Attributes:
        max_tokens: most tokens of the answer; 1024 as in the model card.
        temperature: 0 picks the likeliest token every time (greedy); the card's sampled examples use 0.8.
        top_k: keep the k likeliest tokens; 0 keeps all.
        top_p: keep the smallest set of tokens whose probabilities sum to at least this.
        min_p: drop tokens less likely than this fraction of the likeliest one.
        repeat_penalty: divide the logits of recent tokens by this; 1 is off.
        presence_penalty: subtract this from the logit of every recent token.
        frequency_penalty: subtract this times its count from the logit of a recent token.
        penalty_last_n: how many tokens back "recent" reaches.
        seed: makes sampling repeatable; None draws a new one for each answer.
        stop: strings that end the answer; they are not part of it.

    Raises:
        InvalidRequestError: a value outside its range.
    """

    max_tokens: int = 1024
    temperature: float = 0.0
    top_k: int = 40
    top_p: float = 0.8
    min_p: float = 0.0
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    penalty_last_n: int = 64
    seed: int | None = None
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field in fields(self):
            value = _of_kind(field.name, getattr(self, field.name), field.default)
            if isinstance(value, float) and not math.isfinite(value):
                raise InvalidRequestError(f"{field.name} is {value}.", "Give a finite number.")
            object.__setattr__(self, field.name, value)
        _require(self.max_tokens >= 1, f"max_tokens is {self.max_tokens}.", "Ask for at least one token.")
        _require(self.temperature >= 0, f"temperature is {self.temperature}.", "Use 0 (greedy) or more.")
        _require(0 <= self.top_k <= MAX_TOP_K, f"top_k is {self.top_k}.", "Use 0 (keep all) or more.")
        _require(0 < self.top_p <= 1, f"top_p is {self.top_p}.", "Use a value above 0 and up to 1.")
        _require(0 <= self.min_p < 1, f"min_p is {self.min_p}.", "Use 0 (off) or more, below 1.")
        _require(self.repeat_penalty > 0, f"repeat_penalty is {self.repeat_penalty}.", "Use a value above 0; 1 is off.")
        _require(
            0 <= self.penalty_last_n <= MAX_LAST_N,
            f"penalty_last_n is {self.penalty_last_n}.",
            f"Use 0 (off) to {MAX_LAST_N:,} tokens.",
        )
        _require(
            self.seed is None or 0 <= self.seed <= MAX_SEED,
            f"seed is {self.seed}.",
            f"Use a whole number from 0 to {MAX_SEED}.",
        )
        _require(all(self.stop), "A stop string is empty.", "Leave it out: every answer contains the empty string.")

    @property
    def penalises(self) -> bool:
        """Whether recent tokens change the logits."""
        penalty = self.repeat_penalty != 1 or self.presence_penalty != 0 or self.frequency_penalty != 0
        return penalty and self.penalty_last_n > 0


def _of_kind(name: str, value: object, default: object) -> Any:
    """A sampling parameter as its default says that it must be; None stands for a whole number or none.

    Raises:
        InvalidRequestError: it is of another kind.
    """
    if isinstance(default, float):
        return arguments.number(name, value)
    if not isinstance(default, tuple):
        return None if value is default is None else arguments.whole(name, value)
    hint = "Give a text, or a list of texts."
    texts = (value,) if isinstance(value, str) else tuple(arguments.items(name, value, hint))
    return tuple(arguments.text(f"{name}[{index}]", each, hint) for index, each in enumerate(texts))


class AskOptions(TypedDict, total=False):
    """What `Session.ask`, `stream` and `next_token_logprobs` accept beside the prompt and its pictures.

    Keys:
        sampling: how tokens are chosen; greedy by default.
        max_tiles: most tiles a picture is cut into for this question, the thumbnail not counted.
        min_tiles: fewest tiles a picture is cut into.
        thumbnail: whether a picture of several tiles is followed by the whole of it in one tile.
        layout: the official prompt form for several pictures: `separate` ("Image-1: <image>"), `combined` (all tiles
            under one <image>), or `frames` ("Frame1: <image>", one tile each unless max_tiles says otherwise).
        fit_pictures: whether pictures that do not fit the context are cut into fewer tiles, the same most for each, and
            a notice says so; True if left out. False makes that an error.
    """

    sampling: SamplingParams
    max_tiles: int
    min_tiles: int
    thumbnail: bool
    layout: PictureLayout
    fit_pictures: bool


@dataclass(frozen=True)
class EngineConfig:
    """How a model is loaded and run.

    Attributes:
        n_ctx: positions (tokens and visual tokens) one conversation can hold; None takes the smaller of 8192 and what
            the model was trained for.
        n_gpu_layers: layers on the GPU; -1 all, 0 none, "auto" as many as fit beside everything else.
        vram: memory of a GPU that may be taken, as "12GiB" or in bytes, "24GiB,12GiB" or a list for several; None takes
            what is free. Without a quant in the model's name it decides on that, too.
        force: load a model that by the plan of its memory does not fit.
        kv_type: element type of the KV cache.
        flash_attn: flash attention in the text model. "auto" leaves it off on a CPU, where llama.cpp sums its F16
            values in half precision and the error grows with the context (docs/parity.md), unless a quantised KV cache
            needs it; on a GPU llama.cpp decides.
        n_threads: CPU threads; None takes what `internvl doctor --measure` found best, for one token and for many, else
            one for each physical core this process may use.
        n_parallel: questions answered at once, and conversations whose KV is kept.
        n_batch: most positions decoded in one call.
        n_ubatch: most positions computed at once; more take more memory. None takes 512, or what `internvl doctor
            --measure` found better for models on the CPU alone, and 128 where only that fits.
        n_draft: most tokens of an answer guessed from what the conversation said before and verified in one
            computation (prompt-lookup decoding); 0 guesses none. The same text, sooner where it repeats.
        embedding_cache_bytes: memory for the embeddings of pictures already encoded.
        embedding_disk_bytes: room on disk for them, which all processes and all quants of a model share; 0 neither
            reads nor writes any (docs/caches.md).

    Raises:
        InvalidRequestError: a value outside its range.
    """

    n_ctx: int | None = None
    n_gpu_layers: GPULayers = "auto"
    vram: VRAM | None = None
    force: bool = False
    kv_type: KVType = "f16"
    flash_attn: FlashAttention = "auto"
    n_threads: int | None = None
    n_parallel: int = 1
    n_batch: int = 2048
    n_ubatch: int | None = None
    n_draft: int = 0
    embedding_cache_bytes: int = 512 * 1024**2
    embedding_disk_bytes: int = 4 * 1024**3

    def __post_init__(self) -> None:
        caches = ("embedding_cache_bytes", "embedding_disk_bytes")
        for name in ("n_ctx", "n_threads", "n_parallel", "n_batch", "n_ubatch", "n_draft", *caches):
            value = getattr(self, name)
            if value is not None or name not in ("n_ctx", "n_threads", "n_ubatch"):
                object.__setattr__(self, name, arguments.whole(name, value))
        layers = 'Use "auto", -1 (all layers), 0 (none) or a number of layers.'
        if not (isinstance(self.n_gpu_layers, str) and self.n_gpu_layers == "auto"):
            object.__setattr__(self, "n_gpu_layers", arguments.whole("n_gpu_layers", self.n_gpu_layers, layers))
        arguments.switch("force", self.force)
        arguments.text("kv_type", self.kv_type)
        _require(self.n_ctx is None or self.n_ctx >= 1, f"n_ctx is {self.n_ctx}.", "Use a positive context length.")
        _require(
            self.n_gpu_layers == "auto" or -1 <= self.n_gpu_layers < 2**31,
            f"n_gpu_layers is {self.n_gpu_layers!r}.",
            layers,
        )
        _require(
            self.kv_type in get_args(KVType),
            f"kv_type is {self.kv_type!r}.",
            f"Use one of {', '.join(get_args(KVType))}.",
        )
        _require(
            isinstance(self.flash_attn, bool) or (isinstance(self.flash_attn, str) and self.flash_attn == "auto"),
            f"flash_attn is {arguments.shown(self.flash_attn)}.",
            'Use True, False or "auto".',
        )
        _require(
            self.n_threads is None or 1 <= self.n_threads <= 512,
            f"n_threads is {self.n_threads}.",
            "Use 1 to 512 threads.",
        )
        _require(
            1 <= self.n_parallel <= MAX_SEQUENCES,
            f"n_parallel is {self.n_parallel}.",
            f"Use 1 to {MAX_SEQUENCES} conversations.",
        )
        _require(
            1 <= (1 if self.n_ubatch is None else self.n_ubatch) <= self.n_batch <= 65536,
            f"n_ubatch is {self.n_ubatch} and n_batch is {self.n_batch}.",
            "Use 1 <= n_ubatch <= n_batch <= 65536.",
        )
        _require(
            self.n_parallel <= self.n_batch,
            f"n_parallel is {self.n_parallel} and n_batch is {self.n_batch}.",
            "Use an n_batch of at least n_parallel: each answer takes a place in every batch.",
        )
        _require(0 <= self.n_draft <= MAX_DRAFT, f"n_draft is {self.n_draft}.", f"Use 0 (off) to {MAX_DRAFT} tokens.")
        _require(
            self.n_parallel + self.n_draft <= self.n_batch,
            f"n_draft is {self.n_draft}, n_parallel {self.n_parallel} and n_batch {self.n_batch}.",
            "Use an n_batch of at least n_parallel + n_draft.",
        )
        for name in caches:
            _require(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}.", "Use 0 (off) or more bytes.")
        _require(
            not (self.has_quantised_kv and self.flash_attn is False),
            f"A {self.kv_type} KV cache needs flash attention, which is off.",
            'Leave flash_attn at "auto", or use kv_type f16.',
        )

    @property
    def has_quantised_kv(self) -> bool:
        """Whether the KV cache is stored in blocks, which only flash attention can read."""
        return self.kv_type in ("q8_0", "q4_0")


class EngineOptions(TypedDict, total=False):
    """The fields of `EngineConfig` as keyword arguments, for callers and their editors; a test holds both equal."""

    n_ctx: int | None
    n_gpu_layers: GPULayers
    vram: VRAM | None
    force: bool
    kv_type: KVType
    flash_attn: FlashAttention
    n_threads: int | None
    n_parallel: int
    n_batch: int
    n_ubatch: int | None
    n_draft: int
    embedding_cache_bytes: int
    embedding_disk_bytes: int
