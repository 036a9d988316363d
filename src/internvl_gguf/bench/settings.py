"""How configurations are run: lists as llama-bench takes them, and the points that their product has."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Self, TypeVar, cast, get_args

from internvl_gguf.config import (
    EngineConfig,
    EngineOptions,
    FlashAttention,
    GPULayers,
    KVType,
)
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.hardware.cpu_tuning import HostSettings
from internvl_gguf.memory.request import context_length

N_PROMPT, N_GEN, REPETITIONS = 512, 128, 5
"""Defaults, those of llama-bench."""

_FLASH: Final[Mapping[str, FlashAttention]] = {"auto": "auto", "on": True, "off": False, "1": True, "0": False}
_MOST: Final = 2**27  # positions that a KV cache can have
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Point:
    """One way to run a pair of files.

    Attributes:
        n_prompt: tokens of the prompt that is read.
        n_gen: tokens of the answer.
        engine: fields of `EngineConfig`.
        n_threads, n_threads_batch: CPU threads for one token, and for more at once.
    """

    n_prompt: int
    n_gen: int
    engine: EngineOptions
    n_threads: int
    n_threads_batch: int

    @property
    def settings(self) -> dict[str, Any]:
        """Everything under its name, as `Configuration.settings` has it."""
        found = {"n_prompt": self.n_prompt, "n_gen": self.n_gen, **self.engine, "n_threads": self.n_threads}
        if self.n_threads_batch != self.n_threads:
            found["n_threads_batch"] = self.n_threads_batch
        return found


@dataclass(frozen=True)
class Sweep:
    """Values of each setting; every combination of them is measured.

    Attributes:
        n_prompt, n_gen: tokens of the prompt and of the answer.
        n_ctx: positions; None takes the usual context of a session.
        n_batch, n_gpu_layers, kv_type, flash_attn: as in `EngineConfig`.
        n_ubatch, n_threads: likewise; None takes what a session takes.
    """

    n_prompt: tuple[int, ...] = (N_PROMPT,)
    n_gen: tuple[int, ...] = (N_GEN,)
    n_ctx: tuple[int | None, ...] = (None,)
    n_batch: tuple[int, ...] = (EngineConfig.n_batch,)
    n_ubatch: tuple[int | None, ...] = (None,)
    n_threads: tuple[int | None, ...] = (None,)
    n_gpu_layers: tuple[GPULayers, ...] = (EngineConfig.n_gpu_layers,)
    kv_type: tuple[KVType, ...] = (EngineConfig.kv_type,)
    flash_attn: tuple[FlashAttention, ...] = (EngineConfig.flash_attn,)

    @classmethod
    def parse(
        cls,
        *,
        n_prompt: str | None = None,
        n_gen: str | None = None,
        n_ctx: str | None = None,
        n_batch: str | None = None,
        n_ubatch: str | None = None,
        n_threads: str | None = None,
        n_gpu_layers: str | None = None,
        type_k: str | None = None,
        type_v: str | None = None,
        flash_attn: str | None = None,
    ) -> Self:
        """Read lists with commas between their values; None is the default.

        Keys and values of the KV cache have one type here: where both are given they are the same list.

        Raises:
            InvalidRequestError: a list that cannot be read, or a value out of range.
        """
        if type_k is not None and type_v is not None and _kv_types("-ctk", type_k) != _kv_types("-ctv", type_v):
            raise InvalidRequestError(
                f"-ctk is {type_k} and -ctv is {type_v}: keys and values of this KV cache have one type.",
                "Give both the same, or one of the two.",
            )
        kv_type = type_v if type_k is None else type_k
        given: dict[str, Any] = {
            "n_prompt": _numbers("-p", n_prompt, 1, _MOST),
            "n_gen": _numbers("-n", n_gen, 1, _MOST),
            "n_ctx": _numbers("-c", n_ctx, 1, _MOST),
            "n_batch": _numbers("-b", n_batch, 1, 65536),
            "n_ubatch": _numbers("-ub", n_ubatch, 1, 65536),
            "n_threads": _numbers("-t", n_threads, 1, 512),
            "n_gpu_layers": _values("-ngl", n_gpu_layers, _layers, "auto, all or numbers of layers"),
            "kv_type": None if kv_type is None else _kv_types("-ctk" if type_v is None else "-ctv", kv_type),
            "flash_attn": _values("-fa", flash_attn, lambda text: _FLASH[text], "auto, on or off"),
        }
        return cls(**{name: values for name, values in given.items() if values is not None})

    def points(self, n_ctx_train: int, host: HostSettings, n_parallel: int = 1) -> list[Point]:
        """Every combination, the first value of each first, for a model trained for so many positions.

        Args:
            n_ctx_train: positions.
            host: threads, and positions computed at once, where none are named.
            n_parallel: answers that are to be decoded together, too.

        Raises:
            InvalidRequestError: a combination that cannot be run: a prompt or answer longer than the context, a context
                longer than the model was trained for, or see `EngineConfig`.
        """
        product = itertools.product(
            self.n_prompt, self.n_gen, self.n_ctx, self.n_batch, self.n_ubatch, self.n_threads, self.n_gpu_layers,
            self.kv_type, self.flash_attn,
        )  # fmt: skip
        found = []
        for n_prompt, n_gen, n_ctx, n_batch, n_ubatch, threads, layers, kv_type, flash_attn in product:
            engine: EngineOptions = {
                "n_ctx": context_length(n_ctx, n_ctx_train, "-c "),
                "n_gpu_layers": layers,
                "kv_type": kv_type,
                "flash_attn": flash_attn,
                "n_threads": threads,
                "n_batch": n_batch,
                "n_ubatch": n_ubatch or min(host.n_ubatch, n_batch),
            }
            replace(EngineConfig(**engine), n_parallel=n_parallel)  # it knows what it takes
            point = Point(n_prompt, n_gen, engine, threads or host.n_threads, threads or host.n_threads_batch)
            _check_lengths(point, n_ctx_train)
            found.append(point)
        return found


def _check_lengths(point: Point, trained: int) -> None:
    n_ctx = cast(int, point.engine["n_ctx"])
    for name, what, length in (("-p", "prompt", point.n_prompt), ("-n", "answer", point.n_gen)):
        if length > n_ctx:
            larger = f"-c {length}, or " if length <= trained else ""
            raise InvalidRequestError(
                f"The {what} has {length:,} tokens ({name}); the context has {n_ctx:,} positions.",
                f"Use {larger}{name} {n_ctx} or less.",
            )


def _values(name: str, text: str | None, read: Callable[[str], _Value], form: str) -> tuple[_Value, ...] | None:
    """The values of a list, each once, in order; None for None."""
    if text is None:
        return None
    try:
        return tuple(dict.fromkeys(read(part.strip()) for part in text.split(",")))
    except (KeyError, ValueError):
        raise InvalidRequestError(f"{name} is {text!r}.", f"Write {form}, with commas between several.") from None


def _numbers(name: str, text: str | None, lowest: int, highest: int) -> tuple[int, ...] | None:
    found = _values(name, text, _number, "whole numbers")
    wrong = next((value for value in found or () if not lowest <= value <= highest), None)
    if wrong is not None:
        raise InvalidRequestError(f"{name} has {wrong:,}.", f"Use whole numbers from {lowest:,} to {highest:,}.")
    return found


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit():  # int() takes signs, underscores and digits of other scripts
        raise ValueError(text)
    return int(text)


def _layers(text: str) -> GPULayers:
    if text == "auto":
        return "auto"
    return -1 if text in ("all", "-1") else _number(text)


def _kv_types(name: str, text: str) -> tuple[KVType, ...]:
    def read(part: str) -> KVType:
        if part.lower() not in get_args(KVType):
            raise ValueError(part)
        return cast(KVType, part.lower())

    return _values(name, text, read, ", ".join(get_args(KVType))) or ()
