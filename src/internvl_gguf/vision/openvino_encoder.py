"""Encode tiles to embeddings with OpenVINO, on the CPU."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import numpy as np

from internvl_gguf.errors import LibraryError, NotNumbersError
from internvl_gguf.hardware.identity import cpu_flags, processor_name
from internvl_gguf.llama.interrupts import deferred_interrupts
from internvl_gguf.llama.native import closed, never_free
from internvl_gguf.utils.owned import Owned, disown_after_fork, inherited
from internvl_gguf.utils.records import COMPILED_ENCODERS
from internvl_gguf.vision.openvino_graph import encoder_graph
from internvl_gguf.vision.openvino_library import ov

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from internvl_gguf.config import EncoderKind
    from internvl_gguf.gguf.header import GGUFHeader
    from internvl_gguf.gguf.validation import MmprojFacts

EncoderPrecision = Literal["f32", "bf16"]

logger = logging.getLogger("internvl_gguf.vision")

_CPU: Final = "CPU"
_BFLOAT16: Final = "BF16"  # among the plugin's capabilities where the CPU has units for it


def has_bfloat16() -> bool:
    """Return whether this CPU has instructions for bfloat16.

    Raises:
        LibraryError: OpenVINO cannot use this CPU.
    """
    try:
        return _BFLOAT16 in ov.Core().get_property(_CPU, "OPTIMIZATION_CAPABILITIES")
    except RuntimeError as error:
        raise _refused(error) from error


def openvino_arithmetic(kind: EncoderKind, device: str) -> str:
    """Return what decides how embeddings are rounded, beside mmproj and pixels: library, precision and processor."""
    name = processor_name() if device == _CPU else ov.Core().get_property(device, "FULL_DEVICE_NAME")
    return f"{kind} {ov.get_version()}|{device} {name}|{' '.join(sorted(cpu_flags()))}"


class OpenVINOEncoder(Owned):
    """An mmproj compiled by OpenVINO. The published file is used as it is: its positions are right by construction.

    A compiled graph is kept on disk, so that the next process loads it in a fraction of the time and with half of the
    memory: compiling holds every weight twice.

    Args:
        path: an mmproj that `validation` accepted.
        header: its header.
        facts: what its validation found.
        precision: of the arithmetic. "bf16" rounds weights and activations to 8 bits.
        n_threads: CPU threads.
        tiles_per_batch: tiles encoded at once.
        keep: whether compiled graphs are kept on disk.
        device: as OpenVINO names it; others than the CPU are untried.

    Attributes:
        precision: as asked for; "f32" after bfloat16 gave values that are not numbers.

    Raises:
        LibraryError: OpenVINO refused, or has no memory for it.
    """

    def __init__(
        self,
        path: Path,
        header: GGUFHeader,
        facts: MmprojFacts,
        *,
        precision: EncoderPrecision,
        n_threads: int,
        tiles_per_batch: int = 1,
        keep: bool = True,
        device: str = _CPU,
    ) -> None:
        self.tile_size = facts.image_size
        self.tokens_per_tile = facts.tokens_per_tile
        self.n_embd = facts.projection_dim
        self.tiles_per_batch = tiles_per_batch
        self.precision = precision
        self._compile = partial(_compiled, path, header, facts, n_threads, tiles_per_batch, keep=keep, device=device)
        self._compiled: _Compiled | None = self._compile(precision)
        self._is_inherited = False
        disown_after_fork(self)

    def encode(self, tiles: Sequence[bytes]) -> NDArray[np.float32]:
        """Return the embeddings of tiles; see `contract.TileEncoder.encode`."""
        pixels = np.zeros((self.tiles_per_batch, self.tile_size, self.tile_size, 3), np.uint8)
        for row, tile in zip(pixels, tiles, strict=False):
            row[:] = np.frombuffer(tile, np.uint8).reshape(row.shape)
        embeddings = self._infer(pixels)[: len(tiles)]
        if self.precision == "bf16" and not np.isfinite(embeddings).all():
            logger.warning("In bfloat16 the vision encoder gave values that are not numbers: float32 from now on.")
            self.precision, self._compiled = "f32", self._compile("f32")
            embeddings = self._infer(pixels)[: len(tiles)]
        if not np.isfinite(embeddings).all():
            raise NotNumbersError(
                "The vision encoder gave values that are not numbers.",
                "Fetch the mmproj again: its weights are damaged.",
            )
        return embeddings

    def close(self) -> None:
        """Free the compiled graph. Closing twice is harmless."""
        self._compiled = None

    def disown(self) -> None:
        """See `Owned.disown`. The graph is never freed: that would wait for OpenVINO's threads."""
        never_free(self._compiled)
        self._compiled, self._is_inherited = None, True

    def _infer(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        if self._compiled is None:
            raise inherited() if self._is_inherited else closed()
        try:
            with deferred_interrupts():
                return np.array(self._compiled.request.infer([pixels])[0])
        except (RuntimeError, MemoryError) as error:
            raise _refused(error) from error


class _Compiled(NamedTuple):
    """A compiled graph that can be run, and the memory that its constants may lie in."""

    request: Any
    memory: object


def _compiled(
    path: Path,
    header: GGUFHeader,
    facts: MmprojFacts,
    n_threads: int,
    tiles: int,
    precision: EncoderPrecision,
    *,
    keep: bool,
    device: str,
) -> _Compiled:
    """Compile the encoder, or load it from the cache folder where it was compiled before.

    Raises:
        LibraryError: OpenVINO refused, or has no memory for it.
    """
    options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
    if device == _CPU:
        options |= {"INFERENCE_NUM_THREADS": n_threads, "ENABLE_CPU_PINNING": False}  # others use these cores, too
    try:
        core = ov.Core()
        if device not in (found := core.available_devices):
            raise LibraryError(f"OpenVINO finds no device {device} here.", f"It finds {', '.join(found) or 'none'}.")
        if keep:
            with suppress(OSError):  # a folder that cannot be written costs the next process the work, no more
                COMPILED_ENCODERS.path.mkdir(parents=True, exist_ok=True)
                core.set_property({"CACHE_DIR": str(COMPILED_ENCODERS.path)})
        graph = encoder_graph(path, header, facts, tiles=tiles)
        compiled = core.compile_model(graph.model, device, options)
        if keep and not compiled.get_property("LOADED_FROM_CACHE"):
            del compiled  # which holds every weight twice
            compiled = core.compile_model(graph.model, device, options)
        return _Compiled(compiled.create_infer_request(), graph.memory)
    except (RuntimeError, MemoryError, OSError) as error:
        raise _refused(error) from error


def _refused(error: Exception) -> LibraryError:
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return LibraryError(f"OpenVINO cannot encode pictures here: {first[:200]}.", "Use --encoder llama.cpp.")
