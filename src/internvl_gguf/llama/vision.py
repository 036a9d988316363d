"""The vision encoder: tiles to embeddings through mtmd."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from internvl_gguf.errors import LibraryError, ModelFileError
from internvl_gguf.llama.interrupts import deferred_interrupts
from internvl_gguf.llama.library import build, cpu_features, devices, initialise, last_error, mtmd_cpp
from internvl_gguf.llama.model import TextModel
from internvl_gguf.llama.native import NativeObject

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FLASH_ATTENTION = 1  # loses nothing in the encoder and is the faster


def encoder_arithmetic(*, use_gpu: bool) -> str:
    """What, beside an mmproj and the pixels, decides how embeddings are rounded.

    The build, the instruction sets, the device, and flash attention. Threads do not: each value is summed by one. On a
    GPU the tiles encoded together do, in the last bits; the model's answer is none the worse for either way.
    """
    gpus = [device.description for device in devices() if device.kind in ("gpu", "igpu")]
    device = gpus[0] if use_gpu and gpus else "cpu"
    return f"{build()}|{' '.join(cpu_features())}|{device}|flash attention {_FLASH_ATTENTION}"


class VisionEncoder(NativeObject):
    """An mmproj over its text model. Owns the native encoder; close it before the text model.

    mtmd would cut, letterbox and mark pictures in its own way. A picture of exactly one tile passes its preprocessor
    unchanged, so it is given single tiles only, cut by `tiling`, and asked for nothing but their embeddings.

    Args:
        path: an mmproj that `validation` accepted: llama.cpp aborts on many that it did not.
        model: the text model, open as long as this; its vocabulary alone is enough.
        tile_size: side of a tile in pixels.
        tokens_per_tile: visual tokens of a tile.
        n_embd: width of an embedding, as the mmproj's projector gives it.
        use_gpu: run on the first GPU, where there is one.
        n_threads: CPU threads.

    Raises:
        ModelFileError: llama.cpp cannot load the file.
    """

    def __init__(
        self,
        path: Path,
        model: TextModel,
        *,
        tile_size: int,
        tokens_per_tile: int,
        n_embd: int,
        use_gpu: bool,
        n_threads: int,
    ) -> None:
        super().__init__(model)
        initialise()
        self.tile_size = tile_size
        self.tokens_per_tile = tokens_per_tile
        self.n_embd = n_embd
        # One tile at a time gains nothing from batching on a CPU and can be stopped after each; a GPU wants several.
        self.tiles_per_batch = 4 if use_gpu else 1
        params = mtmd_cpp.mtmd_context_params_default()
        params.use_gpu = use_gpu
        params.print_timings = False
        params.n_threads = n_threads
        params.flash_attn_type = _FLASH_ATTENTION
        params.warmup = False
        params.batch_max_tokens = max(1024, self.tiles_per_batch * tokens_per_tile)
        if not self._make(lambda: mtmd_cpp.mtmd_init_from_file(os.fsencode(path), model.handle, params)):
            raise ModelFileError(
                f"{path.name} cannot be loaded{last_error()}.",
                "Check that it is the mmproj of this text model, that it is complete, and that there is memory for it.",
            )

    def encode(self, tiles: Sequence[bytes]) -> NDArray[np.float32]:
        """Embeddings of tiles, float32 [tiles, tokens_per_tile, n_embd], encoded in one native batch.

        Args:
            tiles: 1 to `tiles_per_batch` of tile_size * tile_size * 3 RGB bytes each.

        Raises:
            LibraryError: llama.cpp refused, or gave something that is not a number.
        """
        expected = self.tile_size * self.tile_size * 3
        for pixels in tiles:
            if len(pixels) != expected:  # llama.cpp reads past the end of a shorter one
                raise ValueError(f"a tile of {len(pixels)} bytes, not {expected}")
        with deferred_interrupts(), ExitStack() as owned:
            batch = mtmd_cpp.mtmd_batch_init(self.handle)
            owned.callback(mtmd_cpp.mtmd_batch_free, batch)
            chunks = [self._chunk(pixels, owned) for pixels in tiles]
            for chunk in chunks:
                if mtmd_cpp.mtmd_batch_add_chunk(batch, chunk) != 0:
                    raise LibraryError(
                        f"llama.cpp takes no batch of {len(tiles)} tiles{last_error()}.",
                        "Report this with your mmproj.",
                    )
            if mtmd_cpp.mtmd_batch_encode(batch) != 0:
                raise LibraryError(
                    f"llama.cpp failed to encode a picture{last_error()}.", "Check that there is memory for it."
                )
            embeddings = np.stack([self._output(batch, chunk) for chunk in chunks])
        if not np.isfinite(embeddings).all():
            raise LibraryError(
                "The vision encoder gave values that are not numbers.",
                "Fetch the mmproj again: its weights are damaged.",
            )
        return embeddings

    def _output(self, batch: int, chunk: int) -> NDArray[np.float32]:
        pointer = mtmd_cpp.mtmd_batch_get_output_embd(batch, chunk)
        if not pointer:
            raise LibraryError(f"llama.cpp gave no embeddings{last_error()}.", "Report this with your mmproj.")
        return np.ctypeslib.as_array(pointer, shape=(self.tokens_per_tile, self.n_embd)).copy()

    def _chunk(self, pixels: bytes, owned: ExitStack) -> int:
        """The image chunk of one tile, freed with `owned`."""
        buffer = (ctypes.c_uint8 * len(pixels)).from_buffer_copy(pixels)
        bitmap = mtmd_cpp.mtmd_bitmap_init(self.tile_size, self.tile_size, buffer)
        owned.callback(mtmd_cpp.mtmd_bitmap_free, bitmap)
        chunks = mtmd_cpp.mtmd_input_chunks_init()
        owned.callback(mtmd_cpp.mtmd_input_chunks_free, chunks)
        part = mtmd_cpp.mtmd_input_part(None, bitmap)
        parts = (ctypes.POINTER(mtmd_cpp.mtmd_input_part) * 1)(ctypes.pointer(part))
        if mtmd_cpp.mtmd_tokenize_from_parts(self.handle, chunks, parts, 1, False) != 0:
            raise LibraryError(f"llama.cpp refused a tile{last_error()}.", "Report this with your mmproj.")
        images = [
            chunk
            for chunk in (mtmd_cpp.mtmd_input_chunks_get(chunks, index) for index in range(_size(chunks)))
            if mtmd_cpp.mtmd_input_chunk_get_type(chunk) == mtmd_cpp.MTMD_INPUT_CHUNK_TYPE_IMAGE
        ]
        tokens = sum(mtmd_cpp.mtmd_input_chunk_get_n_tokens(chunk) for chunk in images)
        if len(images) != 1 or tokens != self.tokens_per_tile:
            raise LibraryError(
                f"llama.cpp cut one tile into {len(images)} pictures of {tokens} visual tokens in all.",
                f"This package expects 1 of {self.tokens_per_tile}; report this with your mmproj.",
            )
        return int(images[0])

    @staticmethod
    def _free(handle: int) -> None:
        mtmd_cpp.mtmd_free(handle)


def _size(chunks: int) -> int:
    return int(mtmd_cpp.mtmd_input_chunks_size(chunks))
