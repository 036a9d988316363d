"""Sweeps of settings: lists of values as llama-bench takes them, and the combinations to run."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self, cast

from internvl_gguf.config import EngineConfig, EngineOptions
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.memory.memory_request import context_length
from internvl_gguf.utils.kinds import Kind, Whole
from internvl_gguf.utils.options import Declared, options_of

if TYPE_CHECKING:
    from internvl_gguf.bench.servers import MeasuredServers
    from internvl_gguf.hardware.cpu_tuning import HostSettings

N_PROMPT, N_GEN, REPETITIONS = 512, 128, 5
"""Defaults, those of llama-bench."""

SWEPT: Final[Mapping[str, Declared]] = {
    name: declared for name, declared in options_of(EngineConfig).items() if declared.option.is_swept
}
"""Fields of `EngineConfig` that can be swept."""
_OF_SERVERS: Final = ("rpc", "rpc_insecure_network")


@dataclass(frozen=True)
class RunConfig:
    """Settings to run a pair of files with.

    Attributes:
        n_prompt: tokens of the prompt.
        n_gen: tokens of the answer.
        engine: fields of `EngineConfig`.
        n_threads, n_threads_batch: CPU threads for one token, and for more at once.
        servers: the RPC servers that `engine` names, and what they are; "" for none.
    """

    n_prompt: int
    n_gen: int
    engine: EngineOptions
    n_threads: int
    n_threads_batch: int
    servers: str = ""

    @property
    def settings(self) -> dict[str, Any]:
        """All settings by name, for `Configuration.settings`."""
        engine = {name: value for name, value in self.engine.items() if name not in _OF_SERVERS}
        found = {"n_prompt": self.n_prompt, "n_gen": self.n_gen, **engine, "n_threads": self.n_threads}
        if self.servers:
            found["rpc"] = self.servers
        if self.n_threads_batch != self.n_threads:
            found["n_threads_batch"] = self.n_threads_batch
        return found


@dataclass(frozen=True)
class Sweep:
    """Values of each setting; every combination of them is measured.

    Attributes:
        n_prompt, n_gen: tokens of the prompt and of the answer.
        engine: values of fields of `EngineConfig`, by name; fields left out have their default. If that is None, the
            value is chosen as a session chooses it.
        servers: RPC servers that all configurations are measured on; None for none.
    """

    n_prompt: tuple[int, ...] = (N_PROMPT,)
    n_gen: tuple[int, ...] = (N_GEN,)
    engine: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    servers: MeasuredServers | None = None

    @classmethod
    def parse(
        cls,
        *,
        n_prompt: str | None = None,
        n_gen: str | None = None,
        type_k: str | None = None,
        type_v: str | None = None,
        **engine: str | None,
    ) -> Self:
        """Parse comma-separated lists; None is the default.

        Keys and values of the KV cache have the same type here: if both lists are given, they must be equal.

        Args:
            n_prompt, n_gen: lists of numbers of tokens.
            type_k, type_v: lists of `kv_type`.
            **engine: lists of the other fields of `SWEPT`.

        Raises:
            InvalidRequestError: a list that cannot be read, or a value out of range.
        """
        keys, values = (
            None if text is None else _values(flag, SWEPT["kv_type"].kind, text)
            for flag, text in (("-ctk", type_k), ("-ctv", type_v))
        )
        if keys is not None and values is not None and keys != values:
            raise InvalidRequestError(
                f"-ctk is {type_k} and -ctv is {type_v}: keys and values of this KV cache have one type.",
                "Give both the same, or one of the two.",
            )
        lists = {name: _allowed(SWEPT[name], text) for name, text in engine.items() if text is not None}
        if kv_types := keys or values:
            lists["kv_type"] = kv_types
        tokens: dict[str, Any] = {
            name: _numbers(flag, text)
            for name, flag, text in (("n_prompt", "-p", n_prompt), ("n_gen", "-n", n_gen))
            if text is not None
        }
        return cls(**tokens, engine=lists)

    def run_configs(self, n_ctx_train: int, host: HostSettings, n_parallel: int = 1) -> list[RunConfig]:
        """Return every combination of settings; the first one has the first value of each list.

        Args:
            n_ctx_train: positions the model was trained for.
            host: threads, and positions computed at once, if the sweep does not name them.
            n_parallel: answers that are decoded together, too.

        Raises:
            InvalidRequestError: a combination that cannot be run: a prompt or answer longer than the context, a context
                longer than the model was trained for, or see `EngineConfig`.
        """
        lists = [self.engine.get(name, (declared.default,)) for name, declared in SWEPT.items()]
        found = []
        for n_prompt, n_gen, *values in itertools.product(self.n_prompt, self.n_gen, *lists):
            values_by_name = dict(zip(SWEPT, values, strict=True))
            threads = values_by_name["n_threads"]
            engine = {
                **values_by_name,
                "n_ctx": context_length(values_by_name["n_ctx"], n_ctx_train, "-c "),
                "n_ubatch": values_by_name["n_ubatch"] or min(host.n_ubatch, values_by_name["n_batch"]),
                **(self.servers.engine if self.servers else {}),
            }
            EngineConfig(**engine, n_parallel=n_parallel)  # checks the values
            run_config = RunConfig(
                n_prompt,
                n_gen,
                cast("EngineOptions", engine),
                threads or host.n_threads,
                threads or host.n_threads_batch,
                self.servers.description if self.servers else "",
            )
            _check_lengths(run_config, n_ctx_train)
            found.append(run_config)
        return found


def _check_lengths(run_config: RunConfig, trained: int) -> None:
    n_ctx = cast(int, run_config.engine["n_ctx"])
    for name, what, length in (("-p", "prompt", run_config.n_prompt), ("-n", "answer", run_config.n_gen)):
        if length > n_ctx:
            larger = f"-c {length}, or " if length <= trained else ""
            raise InvalidRequestError(
                f"The {what} has {length:,} tokens ({name}); the context has room for {n_ctx:,}.",
                f"Use {larger}{name} {n_ctx} or less.",
            )


def _values(flag: str, kind: Kind, text: str) -> tuple[Any, ...]:
    """Return the values of a list, each once, in order.

    Raises:
        InvalidRequestError: a value is not of this kind; the message names the flag.
    """
    try:
        return tuple(dict.fromkeys(kind.read(part.strip()) for part in text.split(",")))
    except ValueError:
        hint = f"Give {kind.typed}, with commas between several."
        raise InvalidRequestError(f"{flag} is {text!r}.", hint) from None


def _allowed(declared: Declared, text: str) -> tuple[Any, ...]:
    """Return the values of an option's list, checked against its range."""
    flag, allows = declared.flags[-1], declared.option.allows
    found = _values(flag, declared.kind, text)
    wrong = [value for value in found if allows is not None and not allows(value)]
    if wrong:
        raise InvalidRequestError(f"{flag} has {wrong[0]}.", declared.option.hint)
    return found


def _numbers(flag: str, text: str) -> tuple[int, ...]:
    found = _values(flag, Whole(), text)
    wrong = [value for value in found if value < 1]
    if wrong:
        raise InvalidRequestError(f"{flag} has {wrong[0]}.", "Use whole numbers above 0.")
    return found
