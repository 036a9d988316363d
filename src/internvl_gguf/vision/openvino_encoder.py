"""Tiles to embeddings through OpenVINO, on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from internvl_gguf.errors import LibraryError, NotNumbersError
from internvl_gguf.llama.interrupts import deferred_interrupts
from internvl_gguf.utils.records import COMPILED_ENCODERS
from internvl_gguf.vision.openvino_graph import encoder_graph
from internvl_gguf.vision.openvino_library import ov

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from internvl_gguf.gguf.header import GGUFHeader
    from internvl_gguf.gguf.validation import MmprojFacts

EncoderPrecision = Literal["f32", "bf16"]

_DEVICE: Final = "CPU"
_BFLOAT16: Final = "BF16"  # among the plugin's capabilities where the CPU has units for it


def has_bfloat16() -> bool:
    """Whether this CPU computes in bfloat16 by instructions of its own.

    Raises:
        LibraryError: OpenVINO cannot use this CPU.
    """
    try:
        return _BFLOAT16 in ov.Core().get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")
    except RuntimeError as error:
        raise _refused(error) from error


class OpenVINOEncoder:
    """An mmproj compiled by OpenVINO. The published file is used as it is: its positions are right by construction.

    A compiled graph is kept on disk, so that the next process loads it in a fraction of the time.

    Args:
        path: an mmproj that `validation` accepted.
        header: its header.
        facts: what its validation found.
        precision: of the arithmetic. "bf16" rounds weights and activations to 8 bits.
        n_threads: CPU threads.
        tiles_per_batch: tiles encoded at once.
        keep: whether compiled graphs are kept on disk.

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
    ) -> None:
        self.tile_size = facts.image_size
        self.tokens_per_tile = facts.tokens_per_tile
        self.n_embd = facts.projection_width
        self.tiles_per_batch = tiles_per_batch
        self.precision = precision
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": n_threads,
            "ENABLE_CPU_PINNING": False,  # other processes use these cores, too
        }
        try:
            core = ov.Core()
            if keep:
                COMPILED_ENCODERS.path.mkdir(parents=True, exist_ok=True)
                core.set_property({"CACHE_DIR": str(COMPILED_ENCODERS.path)})
            self._graph = encoder_graph(path, header, facts, tiles=tiles_per_batch)
            self._request = core.compile_model(self._graph.model, _DEVICE, options).create_infer_request()
        except (RuntimeError, MemoryError, OSError) as error:
            raise _refused(error) from error

    def encode(self, tiles: Sequence[bytes]) -> NDArray[np.float32]:
        """Return the embeddings of tiles; see `contract.TileEncoder.encode`."""
        pixels = np.zeros((self.tiles_per_batch, self.tile_size, self.tile_size, 3), np.uint8)
        for row, tile in zip(pixels, tiles, strict=False):
            row[:] = np.frombuffer(tile, np.uint8).reshape(row.shape)
        try:
            with deferred_interrupts():
                embeddings = np.array(self._request.infer([pixels])[0][: len(tiles)])
        except (RuntimeError, MemoryError) as error:
            raise _refused(error) from error
        if not np.isfinite(embeddings).all():
            raise NotNumbersError(
                "The vision encoder gave values that are not numbers.",
                "Fetch the mmproj again: its weights are damaged. In bfloat16 they may be too large: "
                "encoder_precision f32 helps.",
            )
        return embeddings

    def close(self) -> None:
        """Free the compiled graph. Closing twice is harmless."""
        self.__dict__.pop("_request", None)
        self.__dict__.pop("_graph", None)


def _refused(error: Exception) -> LibraryError:
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return LibraryError(f"OpenVINO cannot encode pictures here: {first[:200]}.", "Use --encoder llama.cpp.")
