"""Opening what a session runs on: files checked, corrected where the library needs it, loaded, closed in order."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace

import psutil

from internvl_gguf.config import DEFAULT_N_CTX, EngineConfig
from internvl_gguf.conversation import END, IMAGE_END, IMAGE_START, START
from internvl_gguf.embedding_cache import EmbeddingCache
from internvl_gguf.engine import Engine
from internvl_gguf.errors import InvalidRequestError, SessionStateError
from internvl_gguf.fingerprint import file_fingerprint, remembered_fingerprint
from internvl_gguf.llama.context import Context
from internvl_gguf.llama.library import build, has_gpu, initialise
from internvl_gguf.llama.model import TextModel
from internvl_gguf.llama.probe import positions_are_shifted
from internvl_gguf.llama.vision import VisionEncoder
from internvl_gguf.model_files import ModelFiles
from internvl_gguf.position_rows import corrected_copy
from internvl_gguf.validation import validate_files

LoadProgress = Callable[[float], None]
"""Called with the fraction of the text model that is loaded, 0 to 1."""


def default_threads() -> int:
    """One thread for each physical core this process may use; more of them slow llama.cpp down."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(usable, psutil.cpu_count(logical=False) or usable))


class Runtime:
    """A loaded model with its engine, shared by a session and its forks.

    Owns every native object; the last `release` frees them: context, vision encoder, text model.

    Args:
        files: the two files of the model.
        config: how to run it.
        on_load: told how far the text model is loaded.

    Raises:
        ModelFileError, ModelPairError: files that are damaged, of another kind, or not of one model.
        InvalidRequestError: a context longer than the model was trained for, or a batch smaller than a tile.
        LibraryError: llama.cpp does not match this package, or refused.
    """

    def __init__(self, files: ModelFiles, config: EngineConfig, on_load: LoadProgress | None = None) -> None:
        # A file whose fingerprint is remembered has had every weight looked at.
        fingerprint = remembered_fingerprint(files.mmproj)
        pair = validate_files(files.text, files.mmproj, check_weights=fingerprint is None)
        fingerprint = fingerprint or file_fingerprint(files.mmproj)
        self.text, self.vision = pair.text, pair.mmproj
        n_ctx = _context_length(config.n_ctx, self.text.n_ctx_train)
        if config.has_quantised_kv and self.text.head_dim % 32:
            raise InvalidRequestError(
                f"A {config.kv_type} KV cache needs heads of a multiple of 32; this model's have {self.text.head_dim}.",
                "Use kv_type f16.",
            )
        if config.n_batch < self.vision.tokens_per_tile:
            raise InvalidRequestError(
                f"n_batch is {config.n_batch}, less than the {self.vision.tokens_per_tile} visual tokens of a tile.",
                f"Use n_batch={self.vision.tokens_per_tile} or more.",
            )
        initialise()
        shifted = positions_are_shifted()
        mmproj = corrected_copy(files.mmproj, pair.mmproj_header, fingerprint) if shifted else files.mmproj
        gpu_layers = config.n_gpu_layers
        if gpu_layers == "auto":
            gpu_layers = -1 if has_gpu() else 0
        if config.flash_attn == "auto" and gpu_layers == 0 and not config.has_quantised_kv:
            config = replace(config, flash_attn=False)
        threads = config.n_threads or default_threads()
        self.files = files
        self.control_tokens: Mapping[str, int] = {
            START: self.text.im_start,
            END: self.text.im_end,
            IMAGE_START: self.text.img,
            IMAGE_END: self.text.img_end,
        }
        self.encoder_identity = hashlib.blake2b(f"{fingerprint}|{shifted}|{build()}".encode()).digest()
        self._users = 1
        self._lock = threading.Lock()
        self._owned = ExitStack()
        with ExitStack() as opening:
            model = TextModel(files.text, n_gpu_layers=gpu_layers, on_progress=on_load)
            opening.callback(model.close)
            encoder = VisionEncoder(
                mmproj,
                model,
                tile_size=self.vision.image_size,
                tokens_per_tile=self.vision.tokens_per_tile,
                n_embd=self.text.n_embd,
                use_gpu=gpu_layers != 0,
                n_threads=threads,
            )
            opening.callback(encoder.close)
            context = Context(model, config, n_ctx=n_ctx, n_threads=threads)
            opening.callback(context.close)
            self.engine = Engine(model, encoder, context, EmbeddingCache(config.embedding_cache_bytes))
            self._owned = opening.pop_all()

    def share(self) -> Runtime:
        """One more user of this runtime.

        Raises:
            SessionStateError: its last user has released it.
        """
        with self._lock:
            if not self._users:
                raise SessionStateError("The session is closed.", "Open a new one with Session.open().")
            self._users += 1
        return self

    def release(self) -> None:
        """One user less; the last one frees the native objects."""
        with self._lock:
            self._users -= 1
            last = self._users == 0
        if last:
            with self.engine.lock:
                self._owned.close()


def _context_length(asked: int | None, trained: int) -> int:
    if asked is None:
        return min(DEFAULT_N_CTX, trained)
    if asked > trained:
        raise InvalidRequestError(
            f"A context of {asked} positions is more than the {trained} this model was trained for.",
            f"Use n_ctx={trained} or less.",
        )
    return asked
