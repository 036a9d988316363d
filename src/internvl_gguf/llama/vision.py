"""The vision encoder: encode tiles to embeddings with mtmd."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from internvl_gguf.errors import LibraryError, ModelFileError, NotNumbersError
from internvl_gguf.llama.allocation_probe import can_allocate
from internvl_gguf.llama.interrupts import deferred_interrupts
from internvl_gguf.llama.library import (
    Device,
    build,
    cpu_features,
    forget_errors,
    initialise,
    last_error,
    logger,
    mtmd_cpp,
    recent_errors,
)
from internvl_gguf.llama.model import TextModel
from internvl_gguf.llama.native import NativeObject
from internvl_gguf.utils.sizes import format_size

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TABLES = 192 * 1024**2  # host bytes: 158 MiB of ggml_backend_sched_new, never touched, and other needs of loading
_MEMORY_HINT = "Free memory of the device, allow the model less of it (vram), or use the CPU alone (vram='none')."


def encoder_arithmetic(device: Device | None, *, flash_attn: bool = True) -> str:
    """Return a key for everything beside mmproj and pixels that decides how embeddings are rounded.

    These are the build, the instruction sets, the device, and flash attention. Threads do not matter: one thread sums
    each value. On a GPU the number of tiles encoded together changes the last bits, which is ignored.

    Args:
        device: the GPU that the encoder runs on; None for the CPU.
        flash_attn: whether it uses flash attention.
    """
    where = "cpu" if device is None else device.description
    return f"{build()}|{' '.join(cpu_features())}|{where}|flash attention {int(flash_attn)}"


class EncoderMemory(NamedTuple):
    """Memory that an encoder takes on its device, in bytes.

    Attributes:
        weights: of the mmproj.
        compute_buffer: intermediate results of `tiles_per_batch` tiles.
    """

    weights: int
    compute_buffer: int


class VisionEncoder(NativeObject):
    """An mmproj over its text model. Owns the native encoder; close it before the text model.

    mtmd would cut, letterbox and mark pictures in its own way. A picture of exactly one tile passes its preprocessor
    unchanged, so mtmd gets single tiles only, cut by `tiling`, and returns nothing but their embeddings.

    mtmd checks no allocation: without memory for the weights it aborts the process, without memory for the compute
    buffer it segfaults at the first picture, and an encoder that failed once may abort when called again. So the device
    is probed first, all buffers are allocated when the encoder is made, and after a failure the encoder is made again.

    Args:
        path: an mmproj that `gguf.validation` accepted: llama.cpp aborts on many others.
        model: the text model, open as long as this; its vocabulary alone is enough.
        tile_size: side of a tile in pixels.
        tokens_per_tile: visual tokens of a tile.
        n_embd: width of an embedding: the output of the mmproj's projector.
        use_gpu: run on a GPU if there is one.
        n_threads: CPU threads.
        flash_attn: use flash attention, which is faster and loses nothing in the encoder.
        device: ggml's handle of the GPU; None takes the first.
        room: memory to probe the device for; None skips the probe.

    Attributes:
        tiles_per_batch: tiles encoded at once. Fewer after a failure.

    Raises:
        ModelFileError: llama.cpp cannot load the file.
        LibraryError: the device has no room for it.
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
        flash_attn: bool = True,
        device: int | None = None,
        room: EncoderMemory | None = None,
    ) -> None:
        super().__init__(model)
        initialise()
        self.tile_size = tile_size
        self.tokens_per_tile = tokens_per_tile
        self.n_embd = n_embd
        # One tile at a time gains nothing from batching on a CPU and can be stopped after each; a GPU wants several.
        self.tiles_per_batch = 4 if use_gpu else 1
        self._path = path
        self._model = model
        self._device = device
        self._room = room
        self._has_failed = False
        params = mtmd_cpp.mtmd_context_params_default()
        params.use_gpu = use_gpu
        if use_gpu and device is not None:
            params.device = device
        params.print_timings = False
        params.n_threads = n_threads
        params.flash_attn_type = int(flash_attn)
        params.warmup = True  # takes the compute buffer of one tile, and computes nothing
        params.batch_max_tokens = max(1024, self.tiles_per_batch * tokens_per_tile)
        self._params = params
        self._open()
        if use_gpu:  # takes the compute buffer of a whole batch
            try:
                self.encode([bytes(tile_size * tile_size * 3)] * self.tiles_per_batch)
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Free the native encoder. Closing twice is harmless."""
        self._has_failed = False
        super().close()

    def _open(self) -> None:
        """Make the native encoder, with all its buffers for one tile."""
        if self._room and not self._can_allocate(self._room):
            raise LibraryError(
                f"There is no room for the vision encoder: {format_size(sum(self._room))} were asked for"
                f"{last_error()}.",
                _MEMORY_HINT,
            )
        forget_errors()
        if not self._make(
            lambda: mtmd_cpp.mtmd_init_from_file(os.fsencode(self._path), self._model.handle, self._params)
        ):
            raise ModelFileError(
                f"{self._path.name} cannot be loaded{last_error()}.",
                "Check that it is the mmproj of this text model, that it is complete, and that there is memory for it.",
            )
        if any("failed to allocate" in line for line in recent_errors):  # mtmd goes on all the same
            super().close()
            raise LibraryError(f"There is no room for the vision encoder's results{last_error()}.", _MEMORY_HINT)

    def _can_allocate(self, room: EncoderMemory) -> bool:
        if self._params.use_gpu:
            return can_allocate(self._device, room) and can_allocate(None, [_TABLES])
        return can_allocate(None, [*room, _TABLES])

    def _reopen(self) -> None:
        """Make the native encoder again, for one tile at a time, after a failure."""
        super().close()
        if self._room:
            self._room = EncoderMemory(self._room.weights, self._room.compute_buffer // self.tiles_per_batch)
        self.tiles_per_batch = 1
        self._open()
        self._has_failed = False

    def encode(self, tiles: Sequence[bytes]) -> NDArray[np.float32]:
        """Encode tiles in one native batch; return float32 [tiles, tokens_per_tile, n_embd].

        Args:
            tiles: 1 to `tiles_per_batch` of tile_size * tile_size * 3 RGB bytes each.

        Raises:
            LibraryError: llama.cpp refused.
            NotNumbersError: an embedding holds NaN or infinity.
        """
        expected = self.tile_size * self.tile_size * 3
        for pixels in tiles:
            if len(pixels) != expected:  # llama.cpp reads past the end of a shorter one
                raise ValueError(f"a tile of {len(pixels)} bytes, not {expected}")
        if self._has_failed:
            self._reopen()
        embeddings = self._encoded(tiles)
        if embeddings is None and len(tiles) > 1:
            logger.warning("The device had no room for %d tiles at once: one at a time from now on.", len(tiles))
            self._reopen()
            return np.concatenate([self.encode([pixels]) for pixels in tiles])
        if embeddings is None:
            raise LibraryError(f"llama.cpp failed to encode a picture{last_error()}.", _MEMORY_HINT)
        if not np.isfinite(embeddings).all():
            raise NotNumbersError(
                "The vision encoder gave values that are not numbers.",
                "Fetch the mmproj again: its weights are damaged.",
            )
        return embeddings

    def _encoded(self, tiles: Sequence[bytes]) -> NDArray[np.float32] | None:
        """Return embeddings of tiles; None on failure, after which the native encoder must not be called again."""
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
            forget_errors()
            if mtmd_cpp.mtmd_batch_encode(batch) != 0:
                self._has_failed = True
                return None
            return np.stack([self._output(batch, chunk) for chunk in chunks])

    def _output(self, batch: int, chunk: int) -> NDArray[np.float32]:
        pointer = mtmd_cpp.mtmd_batch_get_output_embd(batch, chunk)
        if not pointer:
            raise LibraryError(f"llama.cpp gave no embeddings{last_error()}.", "Report this with your mmproj.")
        return np.ctypeslib.as_array(pointer, shape=(self.tokens_per_tile, self.n_embd)).copy()

    def _chunk(self, pixels: bytes, owned: ExitStack) -> int:
        """Return the image chunk of one tile, freed with `owned`."""
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
