"""The memory budget of a machine and the work that a model is to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, Self

from internvl_gguf.config import (
    DEFAULT_N_CTX,
    DEFAULT_N_UBATCH,
    MAX_SEQUENCES,
    EncoderKind,
    EngineConfig,
    FlashAttention,
    KVType,
)
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.hardware.remote_device import RemoteDevice
from internvl_gguf.memory.memory_request import check_context
from internvl_gguf.tiling import MAX_TILES, has_thumbnail, validate_tile_limits
from internvl_gguf.utils.sizes import counted

Preference = Literal["balanced", "speed", "quality"]

MARGIN: Final = 0.02
"""Share of a device's free memory that is kept for errors of the prediction (docs/memory.md)."""
MARKERS: Final = 2  # <img> and </img> around a picture
TEXT_ROOM: Final = 1024  # positions that a context for pictures keeps for text
_MAX_PICTURES: Final = 4096
_STEP: Final = 1024


@dataclass(frozen=True)
class MemoryBudget:
    """Bytes that a configuration may take.

    Attributes:
        host: bytes of host memory.
        gpus: bytes of each GPU's memory; empty if there is no GPU.
        is_unified: whether a GPU uses host memory, as on Apple silicon: then all together stay within `host`.
        numbers: numbers of these GPUs on the machine, from 0; None for all GPUs.
        machine_gpus: number of GPUs of the machine; None if these are all.
        extra_buffers: whether the CPU may store weights in layouts of its own, which copies some of them.
        remote: what is known of each GPU that belongs to another machine, None for each of this one; None where none is
            remote. A remote one computes nothing with weights of this machine, and encodes no pictures.
        has_local: whether the machine has GPUs of its own, used or not; None where `remote` says it.
    """

    host: int
    gpus: tuple[int, ...] = ()
    is_unified: bool = False
    numbers: tuple[int, ...] | None = None
    machine_gpus: int | None = None
    extra_buffers: bool = True
    remote: tuple[RemoteDevice | None, ...] | None = None
    has_local: bool | None = None

    @property
    def gpu_numbers(self) -> tuple[int, ...]:
        """Numbers of these GPUs on the machine."""
        return tuple(range(len(self.gpus))) if self.numbers is None else self.numbers

    @property
    def has_gpus(self) -> bool:
        """Whether the machine has GPUs, used or not."""
        return bool(self.gpus if self.machine_gpus is None else self.machine_gpus)

    def smaller(self) -> list[MemoryBudget]:
        """Return the budgets without the smallest GPU, the two smallest, ..., all. Each GPU has an overhead.

        Those of other machines go first, since every token has to travel to them.
        """
        left = sorted(range(len(self.gpus)), key=lambda index: (self.is_remote(index), -self.gpus[index]))
        found = []
        while left:
            left = left[:-1]
            found.append(self.with_gpus(sorted(left)))
        return found

    def with_gpus(self, indices: Sequence[int]) -> MemoryBudget:
        """Return the budget with some of these GPUs, by their index in `gpus`."""
        return replace(
            self,
            gpus=tuple(self.gpus[index] for index in indices),
            numbers=tuple(self.gpu_numbers[index] for index in indices),
            machine_gpus=len(self.gpus) if self.machine_gpus is None else self.machine_gpus,
            remote=self.remote and tuple(self.remote[index] for index in indices),
            has_local=self.has_local_gpus,
        )

    def is_remote(self, index: int) -> bool:
        """Return whether a GPU belongs to another machine."""
        return bool(self.remote and self.remote[index])

    @property
    def local_gpus(self) -> tuple[int, ...]:
        """Indices of the GPUs of this machine."""
        return tuple(index for index in range(len(self.gpus)) if not self.is_remote(index))

    @property
    def has_local_gpus(self) -> bool:
        """Whether the machine has GPUs of its own, used or not."""
        return bool(self.local_gpus) if self.has_local is None else self.has_local

    @property
    def offload_gpu(self) -> int | None:
        """Index of the GPU that computes large batches with weights of the host; None if none does."""
        return next(iter(self.local_gpus), None)

    @property
    def encoder_gpu(self) -> int | None:
        """Index of the GPU to encode pictures on: this machine's with the most memory, the first of equals."""
        return max(self.local_gpus, key=lambda index: self.gpus[index], default=None)


@dataclass(frozen=True)
class Workload:
    """The work that a model is to do.

    Attributes:
        n_ctx: positions of one conversation.
        pictures: pictures in a conversation.
        max_tiles: most tiles of a picture, the thumbnail not counted.
        are_frames: whether the pictures are the frames of one clip; that is for words alone.
        n_parallel: conversations kept at once.
        n_candidates: answers to one question written at once.
        kv_type: element type of the KV cache; None takes F16, or Q8_0 if only that fits.
        flash_attn: flash attention in the text model; "auto" uses it on GPUs and for a quantised cache.
        n_batch: most positions decoded in one call.
        n_ubatch: most positions computed at once; None takes 512, or 128 if only that fits.
        host_ubatch: replaces these 512 on the CPU alone; more than 512 only if nothing else has to give way.
        n_draft: most tokens guessed and verified at once.
        n_threads: CPU threads.
        encoder: what encodes pictures on the CPU.
        n_cpu_moe: layers whose experts stay in host memory, -1 for all; None takes as few as fit.

    Raises:
        InvalidRequestError: a value outside its range, or pictures that the context does not hold.
    """

    n_ctx: int = DEFAULT_N_CTX
    pictures: int = 1
    max_tiles: int = MAX_TILES
    are_frames: bool = False
    n_parallel: int = 1
    n_candidates: int = EngineConfig.n_candidates
    kv_type: KVType | None = None
    flash_attn: FlashAttention = EngineConfig.flash_attn
    n_batch: int = EngineConfig.n_batch
    n_ubatch: int | None = None
    host_ubatch: int = DEFAULT_N_UBATCH
    n_draft: int = EngineConfig.n_draft
    n_threads: int = 1
    encoder: EncoderKind = "llama.cpp"
    n_cpu_moe: int | None = None

    @classmethod
    def of(
        cls,
        config: EngineConfig,
        n_ctx: int,
        n_threads: int,
        host_ubatch: int = DEFAULT_N_UBATCH,
        encoder: EncoderKind = "llama.cpp",
        max_tiles: int = MAX_TILES,
    ) -> Self:
        """Return the workload of one picture, with a model's configuration for the rest.

        Args:
            config: how the model is to be run.
            n_ctx: positions, if the configuration leaves them open.
            n_threads: CPU threads, if the configuration leaves them open.
            host_ubatch, encoder, max_tiles: see the fields of these names.
        """
        return cls(
            n_ctx=n_ctx,
            max_tiles=max_tiles,
            n_parallel=config.n_parallel,
            n_candidates=config.n_candidates,
            kv_type=config.kv_type,
            flash_attn=config.flash_attn,
            n_batch=config.n_batch,
            n_ubatch=config.n_ubatch,
            host_ubatch=host_ubatch,
            n_draft=config.n_draft,
            n_threads=n_threads,
            encoder=encoder,
            n_cpu_moe=-1 if config.cpu_moe else config.n_cpu_moe,
        )

    def __post_init__(self) -> None:
        validate_tile_limits(1, self.max_tiles)
        _within("The number of pictures", self.pictures, 0, _MAX_PICTURES)
        _within("The context", self.n_ctx, 1, 2**27)
        _within("The number of conversations", self.n_parallel, 1, MAX_SEQUENCES)

    @property
    def tiles_per_picture(self) -> int:
        """Number of tiles of a picture that is cut as finely as allowed, the thumbnail included."""
        return self.max_tiles + has_thumbnail(self.max_tiles)

    @property
    def pictures_text(self) -> str:
        """The pictures in words: "1 picture", "2 pictures", "a clip of 32 frames"."""
        if self.are_frames:
            return f"a clip of {counted(self.pictures, 'frame')}"
        return counted(self.pictures, "picture")

    @property
    def tiles(self) -> int:
        """Number of tiles of all pictures."""
        return self.pictures * self.tiles_per_picture

    def picture_positions(self, tokens_per_tile: int) -> int:
        """Return the positions that the pictures take in the context."""
        return self.tiles * tokens_per_tile + self.pictures * MARKERS


def context_for(
    pictures: int, max_tiles: int, tokens_per_tile: int, n_ctx_train: int | None, asked: int | None = None
) -> int:
    """The context asked for; else the usual one, or as much more as pictures need with some words.

    Without one that is asked for it is no longer than a model was trained for.

    Raises:
        InvalidRequestError: a longer one is asked for.
    """
    if asked:
        check_context(asked, n_ctx_train, "--context ")
        return asked
    needed = Workload(pictures=pictures, max_tiles=max_tiles).picture_positions(tokens_per_tile) + TEXT_ROOM
    wanted = max(DEFAULT_N_CTX, needed + -needed % _STEP)
    return wanted if n_ctx_train is None else min(wanted, n_ctx_train)


def most_tiles(workload: Workload, tokens_per_tile: int, text_room: int = 0) -> int | None:
    """Return the most tiles of a picture with which the pictures and some text fit the context; None if one does not.

    Args:
        workload: the pictures, cut into at most `max_tiles`, and the context.
        tokens_per_tile: positions of a tile.
        text_room: positions kept for text, of which there is one at least.
    """
    room = workload.n_ctx - max(text_room, 1)
    cuts = range(workload.max_tiles, 0, -1)
    return next(
        (cut for cut in cuts if replace(workload, max_tiles=cut).picture_positions(tokens_per_tile) <= room), None
    )


def check_pictures_fit(workload: Workload, tokens_per_tile: int, n_ctx_train: int | None = None) -> None:
    """Refuse pictures that do not fit the context; the error says what would fit.

    Args:
        workload: the pictures and the context.
        tokens_per_tile: positions of a tile.
        n_ctx_train: positions the model was trained for; None if unknown.

    Raises:
        InvalidRequestError: they do not fit.
    """
    needed = workload.picture_positions(tokens_per_tile)
    if needed < workload.n_ctx:
        return
    larger = needed + TEXT_ROOM
    fewer = most_tiles(workload, tokens_per_tile)
    larger += -larger % _STEP
    ways = [f"--context {larger}"] if n_ctx_train is None or larger <= n_ctx_train else []
    ways += [f"--max-tiles {fewer}"] if fewer else []
    raise InvalidRequestError(
        f"{workload.pictures} x {workload.tiles_per_picture} tiles take {needed:,} tokens; the context has "
        f"{workload.n_ctx:,}.",
        f"Use {' or '.join(ways)}, or fewer pictures." if ways else "Use fewer pictures.",
    )


def _within(what: str, value: int, lowest: int, highest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        raise InvalidRequestError(f"{what} is {value!r}.", f"Use a whole number from {lowest} to {highest}.")
