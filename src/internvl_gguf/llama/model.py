"""The text model: weights and vocabulary."""

from __future__ import annotations

import ctypes
import os
import threading
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path

from internvl_gguf.errors import InvalidRequestError, ModelFileError
from internvl_gguf.llama.expert_overrides import expert_overrides
from internvl_gguf.llama.library import devices as library_devices
from internvl_gguf.llama.library import forget_errors, gpus, initialise, last_error, llama_cpp
from internvl_gguf.llama.native import NativeObject

Progress = Callable[[float], None]

_REMEMBERED_TEXTS = 256


class TextModel(NativeObject):
    """A loaded text model. Owns the native model; close contexts and vision encoders made from it first.

    Args:
        path: a GGUF that `gguf.validation` accepted: llama.cpp aborts on some others.
        n_gpu_layers: layers to put on GPUs, -1 for all.
        n_cpu_moe: layers, from the first on, whose experts stay in host memory; -1 for all.
        devices: ggml handles of the GPUs to use, in the order in which layers go to them; None for all that a model may
            lie on, an empty tuple for none.
        tensor_split: share of the layers for each GPU, in any unit; empty lets llama.cpp share by free memory.
        use_extra_bufts: whether the CPU may store weights in layouts of its own, for AMX and reordered kernels.
        vocab_only: load no weights; enough to tokenise.
        on_progress: called with the loaded fraction, 0 to 1.

    Raises:
        ModelFileError: llama.cpp cannot load the file.
    """

    def __init__(
        self,
        path: Path,
        *,
        n_gpu_layers: int = 0,
        n_cpu_moe: int = 0,
        devices: Sequence[int] | None = None,
        tensor_split: Sequence[float] = (),
        use_extra_bufts: bool = True,
        vocab_only: bool = False,
        on_progress: Progress | None = None,
    ) -> None:
        super().__init__()
        initialise()
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = n_gpu_layers
        overrides = expert_overrides(n_cpu_moe)
        params.tensor_buft_overrides = ctypes.addressof(overrides)
        if devices is None:
            devices = [] if vocab_only else [gpu.handle for gpu in gpus(library_devices())]
        # By default llama.cpp puts remote devices first, and adds integrated GPUs to them.
        handles = (ctypes.c_void_p * (len(devices) + 1))(*devices, None)  # ends in a null pointer
        params.devices = ctypes.addressof(handles)
        shares = (ctypes.c_float * llama_cpp.llama_max_devices())(*tensor_split)
        if tensor_split:
            params.tensor_split = shares
        params.use_extra_bufts = use_extra_bufts
        params.vocab_only = vocab_only
        interrupted = threading.Event()

        def go_on(done: float, _user_data: int | None) -> bool:
            if on_progress:
                on_progress(done)
            return not interrupted.is_set()

        progress = llama_cpp.llama_progress_callback(go_on)  # a local: it must live as long as the call below
        params.progress_callback = progress
        forget_errors()
        if not self._make(
            lambda: llama_cpp.llama_model_load_from_file(os.fsencode(path), params), on_interrupt=interrupted.set
        ):
            raise ModelFileError(
                f"{path.name} cannot be loaded{last_error()}.",
                "Check that the file is complete and that there is memory for it.",
            )
        self._vocab: int = llama_cpp.llama_model_get_vocab(self.handle)
        self._has_pieces = llama_cpp.llama_vocab_type(self._vocab) == llama_cpp.LLAMA_VOCAB_TYPE_SPM
        self.n_vocab: int = llama_cpp.llama_vocab_n_tokens(self._vocab)
        self.n_embd: int = llama_cpp.llama_model_n_embd_inp(self.handle)
        self.n_ctx_train: int = llama_cpp.llama_model_n_ctx_train(self.handle)
        self._pieces: dict[int, bytes] = {}
        # A conversation is laid out again with every question, most of it the same text.
        tokenize = _tokenize_pieces if self._has_pieces else _tokenize_byte_pairs
        self._known_text = lru_cache(_REMEMBERED_TEXTS)(partial(tokenize, self._vocab))

    @property
    def vocab(self) -> int:
        """The native vocabulary, valid while the model is open."""
        _ = self.handle
        return self._vocab

    def tokenize(self, text: str) -> tuple[int, ...]:
        """Tokenize plain text: nothing in it is read as a control token, and no token is added around it.

        Accents are composed (NFC) for a vocabulary of byte pairs, as Qwen's published tokenizers do and llama.cpp does
        not; those of InternLM, which are SentencePiece's, leave text as it is.

        Raises:
            InvalidRequestError: text with lone surrogates, which has no UTF-8.
        """
        _ = self.handle
        return self._known_text(text)

    def piece(self, token: int) -> bytes:
        """Return the UTF-8 bytes of a token, which may be part of a character; b"" for a control token.

        Raises:
            ValueError: an id outside the vocabulary, on which llama.cpp would abort.
        """
        known = self._pieces.get(token)
        if known is not None:
            return known
        if not 0 <= token < self.n_vocab:
            raise ValueError(f"token {token} is outside the vocabulary of {self.n_vocab}")
        self._pieces[token] = self._detokenize(token, special=False)
        return self._pieces[token]

    def written(self, token: int) -> bytes:
        """Return the bytes of a token as `piece` does, and those of a control token as it is written: b"<box>"."""
        if not 0 <= token < self.n_vocab:
            raise ValueError(f"token {token} is outside the vocabulary of {self.n_vocab}")
        return self._detokenize(token, special=True)

    def _detokenize(self, token: int, *, special: bool) -> bytes:
        room = 64
        while True:
            buffer = ctypes.create_string_buffer(room)
            length = llama_cpp.llama_token_to_piece(self.vocab, token, buffer, room, 0, special)
            if length >= 0:
                return buffer.raw[:length]
            room = -length

    def is_end_of_generation(self, token: int) -> bool:
        """Return whether the model file marks the token as one that ends an answer."""
        return bool(llama_cpp.llama_vocab_is_eog(self.vocab, token))

    @staticmethod
    def _free(handle: int) -> None:
        llama_cpp.llama_model_free(handle)


def _tokenize_byte_pairs(vocab: int, text: str) -> tuple[int, ...]:
    return _tokenize(vocab, unicodedata.normalize("NFC", text))


def _tokenize_pieces(vocab: int, text: str) -> tuple[int, ...]:
    """Tokenize text with a SentencePiece vocabulary, of which llama.cpp merges any two tokens that spell a third.

    That may be a control token: "<img" and ">". SentencePiece never makes one of text, so they are taken apart again.
    """
    tokens = _tokenize(vocab, text)
    if not any(_is_control(vocab, token) for token in tokens):
        return tokens
    ids = _ordinary_pieces(vocab)
    return tuple(
        part for token in tokens for part in (_halves(vocab, ids, token) if _is_control(vocab, token) else (token,))
    )


def _is_control(vocab: int, token: int) -> bool:
    no_text = llama_cpp.LLAMA_TOKEN_ATTR_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN
    return bool(llama_cpp.llama_vocab_get_attr(vocab, token) & no_text)


def _ordinary_pieces(vocab: int) -> dict[bytes, int]:
    """Return the ids of all tokens that are none of control, by the text that the vocabulary has."""
    count = llama_cpp.llama_vocab_n_tokens(vocab)
    ids = (token for token in range(count) if not _is_control(vocab, token))
    return {llama_cpp.llama_vocab_get_text(vocab, token): token for token in ids}


def _halves(vocab: int, ids: Mapping[bytes, int], token: int) -> tuple[int, int]:
    """Return the two tokens that a control token was merged from, the first as long as possible."""
    text: bytes = llama_cpp.llama_vocab_get_text(vocab, token)
    ways = ((text[:end], text[end:]) for end in range(len(text) - 1, 0, -1))
    return next((ids[left], ids[right]) for left, right in ways if left in ids and right in ids)


def _tokenize(vocab: int, text: str) -> tuple[int, ...]:
    if not text:
        return ()
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidRequestError(
            f"The text is not valid Unicode at character {error.start}.", "Give it as UTF-8."
        ) from error
    room = len(data) + 8
    tokens = (ctypes.c_int32 * room)()
    count = llama_cpp.llama_tokenize(vocab, data, len(data), tokens, room, False, False)
    if count < 0:
        raise InvalidRequestError(
            f"The text of {len(data)} bytes cannot be tokenised.", "Check the tokenizer of the model file."
        )
    return tuple(tokens[:count])
