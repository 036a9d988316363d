"""llama.cpp as it comes, called through its low-level bindings: what a user of stock llama.cpp gets.

The measurement beside the reference in docs/parity.md; it shares no code with the package under test.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import llama_cpp
import numpy as np
from llama_cpp import mtmd_cpp

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL.Image import Image

F32 = 0
F16 = 1
_MARKER = "<__media__>"
_keep_alive: list[Any] = []


def silence() -> None:
    """Route the library's logs nowhere."""
    sink = llama_cpp.llama_log_callback(lambda level, text, data: None)
    _keep_alive.append(sink)
    llama_cpp.llama_log_set(sink, ctypes.c_void_p(0))
    mtmd_cpp.mtmd_log_set(sink, ctypes.c_void_p(0))
    mtmd_cpp.mtmd_helper_log_set(sink, ctypes.c_void_p(0))


class Native:
    """One text model with one mmproj and one context.

    Args:
        exact: F32 KV and no flash attention in the text model; otherwise llama.cpp's defaults.
        vision_flash: flash attention in the encoder, None for llama.cpp's default.
    """

    def __init__(
        self, text: Path, mmproj: Path, *, exact: bool, vision_flash: bool | None = None, n_ctx: int = 8192
    ) -> None:
        parameters = llama_cpp.llama_model_default_params()
        parameters.n_gpu_layers = 0
        self._model = llama_cpp.llama_model_load_from_file(str(text).encode(), parameters)
        context = llama_cpp.llama_context_default_params()
        context.n_ctx, context.n_batch, context.n_threads, context.n_threads_batch = n_ctx, 512, 1, 1
        if exact:
            context.type_k = context.type_v = F32
            context.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self._context = llama_cpp.llama_init_from_model(self._model, context)
        vision = mtmd_cpp.mtmd_context_params_default()
        vision.use_gpu, vision.n_threads, vision.warmup = False, 1, False
        if vision_flash is not None:
            vision.flash_attn_type = int(vision_flash)
        self._vision = mtmd_cpp.mtmd_init_from_file(str(mmproj).encode(), self._model, vision)
        if not (self._model and self._context and self._vision):
            raise RuntimeError(f"llama.cpp did not load {text} with {mmproj}")
        self._vocab = llama_cpp.llama_model_get_vocab(self._model)
        self.width = llama_cpp.llama_model_n_embd(self._model)
        self.vocab = llama_cpp.llama_vocab_n_tokens(self._vocab)

    def close(self) -> None:
        """Free the context, the encoder and the model, in this order."""
        llama_cpp.llama_free(self._context)
        mtmd_cpp.mtmd_free(self._vision)
        llama_cpp.llama_model_free(self._model)

    def embed(self, tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embeddings of tiles cut beforehand, one bitmap each: float32 [tiles, tokens, width]."""
        return np.stack([self._embed_chunks(self._chunks(_MARKER, [tile]))[0] for tile in tiles])

    def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        data = text.encode()
        room = (llama_cpp.llama_token * (len(data) + 8))()
        count = llama_cpp.llama_tokenize(self._vocab, data, len(data), room, len(room), False, special)
        return list(room[:count])

    def logprobs(self, parts: Sequence[list[int] | NDArray[np.float32]]) -> NDArray[np.float32]:
        """Natural log-probabilities of the token after ids and embeddings decoded in this order."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
        position = 0
        for part in parts:
            rows = np.asarray(part)
            for start in range(0, len(rows), 512):
                self._decode(rows[start : start + 512], position + start)
            position += len(rows)
        raw = llama_cpp.llama_get_logits_ith(self._context, -1)
        logits = np.ctypeslib.as_array(raw, (self.vocab,)).astype(np.float64)
        logits -= logits.max()
        return np.asarray(logits - np.log(np.exp(logits).sum()), dtype=np.float32)

    def stock_logprobs(self, prompt: str, pictures: Sequence[Image]) -> tuple[NDArray[np.float32], int]:
        """The same as llama.cpp's tools do it: its own tiles, its own markers. Also how many tiles it made."""
        bitmaps = [np.asarray(picture.convert("RGB")) for picture in pictures]
        chunks = self._chunks(prompt.replace("<image>", _MARKER), bitmaps)
        parts: list[list[int] | NDArray[np.float32]] = []
        tiles = 0
        for index in range(mtmd_cpp.mtmd_input_chunks_size(chunks)):
            chunk = mtmd_cpp.mtmd_input_chunks_get(chunks, index)
            if mtmd_cpp.mtmd_input_chunk_get_type(chunk) == mtmd_cpp.MTMD_INPUT_CHUNK_TYPE_TEXT:
                count = ctypes.c_size_t()
                tokens = mtmd_cpp.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(count))
                parts.append(list(tokens[: count.value]))
            else:
                parts.append(self._encode(chunk))
                tiles += 1
        mtmd_cpp.mtmd_input_chunks_free(chunks)
        return self.logprobs(parts), tiles

    def _chunks(self, text: str, bitmaps: Sequence[NDArray[np.uint8]]) -> Any:
        pictures = (ctypes.c_void_p * len(bitmaps))()
        for index, pixels in enumerate(bitmaps):
            height, width, _ = pixels.shape
            data = np.ascontiguousarray(pixels).tobytes()
            buffer = (ctypes.c_uint8 * len(data)).from_buffer_copy(data)
            pictures[index] = mtmd_cpp.mtmd_bitmap_init(width, height, buffer)
        encoded = text.encode()
        request = mtmd_cpp.mtmd_input_text(encoded, len(encoded), False, True)
        chunks = mtmd_cpp.mtmd_input_chunks_init()
        code = mtmd_cpp.mtmd_tokenize(self._vision, chunks, ctypes.byref(request), pictures, len(bitmaps))
        for bitmap in pictures:
            mtmd_cpp.mtmd_bitmap_free(bitmap)
        if code != 0:
            raise RuntimeError(f"mtmd_tokenize returned {code}")
        return chunks

    def _embed_chunks(self, chunks: Any) -> list[NDArray[np.float32]]:
        embeddings = []
        for index in range(mtmd_cpp.mtmd_input_chunks_size(chunks)):
            chunk = mtmd_cpp.mtmd_input_chunks_get(chunks, index)
            if mtmd_cpp.mtmd_input_chunk_get_type(chunk) == mtmd_cpp.MTMD_INPUT_CHUNK_TYPE_IMAGE:
                embeddings.append(self._encode(chunk))
        mtmd_cpp.mtmd_input_chunks_free(chunks)
        return embeddings

    def _encode(self, chunk: Any) -> NDArray[np.float32]:
        if code := mtmd_cpp.mtmd_encode_chunk(self._vision, chunk):
            raise RuntimeError(f"mtmd_encode_chunk returned {code}")
        count = mtmd_cpp.mtmd_input_chunk_get_n_tokens(chunk)
        raw = mtmd_cpp.mtmd_get_output_embd(self._vision)
        return np.array(np.ctypeslib.as_array(raw, (count, self.width)), dtype=np.float32)

    def _decode(self, rows: NDArray[Any], position: int) -> None:
        count = len(rows)
        batch = llama_cpp.llama_batch_init(count, self.width if rows.ndim == 2 else 0, 1)
        batch.n_tokens = count
        if rows.ndim == 2:
            ctypes.memmove(batch.embd, np.ascontiguousarray(rows, dtype=np.float32).ctypes.data, 4 * rows.size)
        for index in range(count):
            if rows.ndim == 1:
                batch.token[index] = int(rows[index])
            batch.pos[index] = position + index
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = 0
            batch.logits[index] = index == count - 1
        code = llama_cpp.llama_decode(self._context, batch)
        llama_cpp.llama_batch_free(batch)
        if code != 0:
            raise RuntimeError(f"llama_decode returned {code}")
