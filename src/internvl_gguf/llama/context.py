"""llama.cpp contexts: the KV cache, and the decoding of tokens and embeddings into it."""

from __future__ import annotations

import ctypes
import math
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from internvl_gguf.config import DEFAULT_N_UBATCH, EngineConfig
from internvl_gguf.errors import LibraryError, NotNumbersError
from internvl_gguf.llama.interrupts import deferred_interrupts
from internvl_gguf.llama.library import forget_errors, last_error, llama_cpp, log_sink
from internvl_gguf.llama.model import TextModel
from internvl_gguf.llama.native import NativeObject

if TYPE_CHECKING:
    from numpy.typing import NDArray

_KV_TYPES = {
    "f32": llama_cpp.GGML_TYPE_F32,
    "f16": llama_cpp.GGML_TYPE_F16,
    "bf16": 30,  # GGML_TYPE_BF16; the bindings do not name it
    "q8_0": llama_cpp.GGML_TYPE_Q8_0,
    "q4_0": llama_cpp.GGML_TYPE_Q4_0,
}
_FLASH_ATTENTION = {"auto": -1, False: 0, True: 1}
_CELL_STEP = 256  # llama.cpp rounds the cache up to this

_OK, _NO_ROOM, _ABORTED = 0, 1, 2


class DecodeAbortedError(Exception):
    """Raised when `Context.abort` stopped a decode; the cache holds a part of its batch."""


class TokenRun(NamedTuple):
    """Tokens to decode into one sequence.

    Attributes:
        tokens: their ids, at least one.
        position: position of the first token: the length of the sequence so far.
        sequence: number of the sequence.
        outputs: number of tokens, counted from the last, whose logits are wanted.
    """

    tokens: Sequence[int]
    position: int
    sequence: int
    outputs: int


class Context(NativeObject):
    """A context over a text model. Owns the native context and its batch buffers.

    Args:
        model: the text model; must stay open as long as this context.
        config: how to run it. `n_ctx` positions are kept for each of `n_parallel` sequences; `n_candidates` - 1 more
            sequences share them: they branch off another one.
        n_ctx: positions of one sequence.
        n_threads: CPU threads for one token.
        n_threads_batch: CPU threads for more at once; `n_threads` if None.

    Attributes:
        n_parallel: sequences that have room for `n_ctx` positions each, numbered from 0.
        n_sequences: all sequences, those included that have no room of their own.
        abort_requested: whether the running computation is to stop.
        polls: how often llama.cpp polled that flag; grows while a long computation runs.

    Raises:
        LibraryError: llama.cpp cannot make the context, usually because memory is short.
    """

    def __init__(
        self,
        model: TextModel,
        config: EngineConfig,
        *,
        n_ctx: int,
        n_threads: int,
        n_threads_batch: int | None = None,
    ) -> None:
        super().__init__(model)
        self.n_embd = model.n_embd
        self.n_vocab = model.n_vocab
        self._row_type = ctypes.c_float * model.n_vocab
        self.n_parallel = config.n_parallel
        self.n_sequences = config.n_sequences
        self.n_draft = config.n_draft
        self.n_ctx = n_ctx
        cells = n_ctx * config.n_parallel
        cells += -cells % _CELL_STEP
        self.n_batch = min(config.n_batch, cells)
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = cells
        params.n_batch = self.n_batch
        self.n_ubatch = params.n_ubatch = min(config.n_ubatch or DEFAULT_N_UBATCH, self.n_batch)
        params.n_seq_max = config.n_sequences
        # One row of logits for each sequence and each guess: more only grows the compute buffer (n_ubatch x n_vocab
        # floats).
        self.n_outputs = params.n_outputs_max = min(config.n_sequences + config.n_draft, self.n_batch)
        params.n_threads = n_threads
        params.n_threads_batch = n_threads if n_threads_batch is None else n_threads_batch
        params.flash_attn_type = _FLASH_ATTENTION[config.flash_attn]
        params.type_k = params.type_v = _KV_TYPES[config.kv_type]
        params.kv_unified = True
        self.abort_requested = False
        self.polls = 0
        me = weakref.ref(self)  # a strong one would make a cycle that only the garbage collector frees
        self._abort_callback = llama_cpp.ggml_abort_callback(lambda _: _poll_abort(me()))
        params.abort_callback = self._abort_callback
        forget_errors()
        if not self._make(lambda: llama_cpp.llama_init_from_model(model.handle, params)):
            raise LibraryError(
                f"llama.cpp made no context of {cells:,} tokens{last_error()}.",
                "Use a smaller context (n_ctx), or fewer conversations at once.",
            )
        self._memory: int = llama_cpp.llama_get_memory(self.handle)
        self._watch_abort(False)
        self._batch = _Batch(self.n_batch)
        self._threads = (params.n_threads, params.n_threads_batch)
        self._thread_limit = max(self._threads)

    def _watch_abort(self, watch: bool) -> None:
        """Turn polling of the abort flag on or off; polling costs a Python call for each node of the graph."""
        callback = self._abort_callback if watch else llama_cpp.ggml_abort_callback(0)
        llama_cpp.llama_set_abort_callback(self.handle, callback, None)

    def abort(self) -> None:
        """Ask the running computation to stop; callable from any thread."""
        self.abort_requested = True

    @contextmanager
    def _abortable(self) -> Iterator[None]:
        """Let Ctrl-C and `abort` stop the native call inside the block, which may take minutes.

        llama.cpp polls the abort flag on the calling thread, where a signal handler gets its turn. Computing on a GPU
        does not poll; there the call ends with its batch.
        """
        self._watch_abort(True)
        try:
            with deferred_interrupts(self.abort):
                yield
        finally:
            log_sink.is_aborting = False
            self._watch_abort(False)

    def limit_threads(self, most: int) -> None:
        """Compute with at most `most` threads from now on, and never with more than the context was made with."""
        if most != self._thread_limit:
            llama_cpp.llama_set_n_threads(self.handle, *(min(count, most) for count in self._threads))
            self._thread_limit = most

    def decode_token(self, token: int, position: int, sequence: int) -> None:
        """Decode one token and compute its logits: the inner step of an answer."""
        self._run(self._batch.one_token(token, position, sequence), 1)

    def decode_many(self, runs: Sequence[TokenRun]) -> list[int]:
        """Decode tokens of several sequences in one call: at most n_batch tokens, at most one run a sequence.

        Returns:
            For each run the row of its last token, for `logits`; the tokens before it have the rows before.

        Raises:
            DecodeAbortedError: stopped half-way; the cache holds a part of the tokens.
            LibraryError: llama.cpp refused; the cache may hold a part of the tokens.
        """
        count = sum(len(run.tokens) for run in runs)
        self._check_size(count)
        self._check_runs(runs)
        batch, rows = self._batch.runs(runs)
        if count > len(runs):
            with self._abortable():
                self._run(batch, count)
        else:  # one token a sequence ends before a user could want to stop it
            self._run(batch, count)
        return rows

    def decode_embeddings(self, rows: NDArray[np.float32], position: int, sequence: int, *, logits: bool) -> None:
        """Decode at most n_batch embeddings, float32 [positions, n_embd], starting at `position`.

        Raises:
            DecodeAbortedError, LibraryError: see `decode_many`.
        """
        self._check_size(len(rows))
        if rows.ndim != 2 or rows.shape[1] != self.n_embd or rows.dtype.str != "<f4" or not rows.flags.c_contiguous:
            raise ValueError(
                f"embeddings of shape {rows.shape} and type {rows.dtype} are not float32 [n, {self.n_embd}]"
            )
        with self._abortable():
            self._run(self._batch.embeddings(rows, position, sequence, logits), len(rows))

    def _check_size(self, count: int) -> None:
        if not 0 < count <= self.n_batch:  # llama.cpp aborts the process on a larger one
            raise ValueError(f"a batch of {count} positions, where 1 to {self.n_batch} fit")

    def _check_runs(self, runs: Sequence[TokenRun]) -> None:
        """Refuse runs on which llama.cpp would abort the process or mix up sequences."""
        sequences = {run.sequence for run in runs}
        if len(sequences) != len(runs) or not sequences <= set(range(self.n_sequences)):
            raise ValueError(f"runs for the sequences {[run.sequence for run in runs]} of {self.n_sequences}")
        if not all(0 <= run.outputs <= len(run.tokens) > 0 for run in runs):
            raise ValueError("a run without tokens, or with more outputs than tokens")
        if sum(run.outputs for run in runs) > self.n_outputs:
            raise ValueError(f"more than {self.n_outputs} rows of logits in one call")

    def _run(self, batch: Any, count: int) -> None:
        status = llama_cpp.llama_decode(self.handle, batch)
        if status == _OK:
            return
        if status == _ABORTED:
            raise DecodeAbortedError
        if status == _NO_ROOM:
            raise LibraryError(
                f"The KV cache has no room for {count} more tokens.", "Use a larger n_ctx, or fewer conversations."
            )
        raise LibraryError(f"llama.cpp failed to decode, status {status}{last_error()}.", "Try a smaller n_batch.")

    def logits(self, row: int = -1) -> NDArray[np.float32]:
        """Return the logits of a row, float32 [n_vocab]: a view of the library's memory, valid until the next decode.

        Args:
            row: a row that `decode_many` returned; -1 for the last row with logits.

        Raises:
            LibraryError: there are no logits.
            NotNumbersError: a logit is NaN or infinite.
        """
        logits = self._row(row)
        if not np.isfinite(logits).all():
            raise _not_numbers()
        return logits

    def likeliest_token(self, row: int = -1) -> int:
        """Return the token with the largest logit of a row, the first if several are equal.

        See `logits` for arguments and errors.
        """
        logits = self._row(row)
        token = int(logits.argmax())  # a NaN counts as the largest
        if not math.isfinite(logits[token]):
            raise _not_numbers()
        return token

    def _row(self, row: int) -> NDArray[np.float32]:
        pointer = llama_cpp.llama_get_logits_ith(self.handle, row)
        if not pointer:
            raise LibraryError("There are no logits to read.", "Decode with logits first.")
        # numpy's own as_array takes 20 microseconds, more than everything else between two decodes.
        values: Any = self._row_type.from_address(ctypes.addressof(pointer.contents))
        return np.frombuffer(values, np.float32)

    def last_position(self, sequence: int) -> int:
        """Return the last position that the cache holds of a sequence; -1 if the sequence is empty."""
        return int(llama_cpp.llama_memory_seq_pos_max(self._open_memory(), sequence))

    def cut(self, sequence: int, length: int) -> None:
        """Keep the first `length` positions of a sequence and drop the rest."""
        if not llama_cpp.llama_memory_seq_rm(self._open_memory(), sequence, length, -1):
            raise LibraryError("llama.cpp cannot cut this KV cache.", "Start a new conversation.")

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """Make an emptied `target` share the first `length` positions of `source`; nothing is computed."""
        self.cut(target, 0)
        if length:
            llama_cpp.llama_memory_seq_cp(self._open_memory(), source, target, 0, length)

    def _open_memory(self) -> int:
        _ = self.handle
        return self._memory

    @staticmethod
    def _free(handle: int) -> None:
        llama_cpp.llama_free(handle)


def _poll_abort(context: Context | None) -> bool:
    if context is None:
        return False
    context.polls += 1
    if context.abort_requested:
        log_sink.is_aborting = True  # what it logs from here on is that it stopped
    return context.abort_requested


def _not_numbers() -> NotNumbersError:
    return NotNumbersError(
        "The text model gave values that are not numbers.", "Fetch its file again: the weights are damaged."
    )


class _Batch:
    """The arrays of a llama_batch, allocated once and filled in place."""

    def __init__(self, capacity: int) -> None:
        int32 = ctypes.c_int32
        self._tokens = (int32 * capacity)()
        self._positions = (int32 * capacity)()
        self._sequences = (int32 * capacity)()
        # Each position names its sequences through a pointer; ours belongs to one, whose number lies in `_sequences`.
        first = ctypes.addressof(self._sequences)
        self._sequence_pointers = np.arange(capacity, dtype=np.uintp) * ctypes.sizeof(int32) + first
        self._sequence_counts = (int32 * capacity)(*([1] * capacity))
        self._outputs = (ctypes.c_int8 * capacity)()
        self._native = llama_cpp.llama_batch()
        self._native.n_seq_id = self._sequence_counts
        self._native.seq_id = self._sequence_pointers.ctypes.data_as(ctypes.POINTER(ctypes.POINTER(int32)))
        self._native.pos = self._positions
        self._native.logits = self._outputs
        self._no_tokens = ctypes.POINTER(int32)()
        self._no_rows = ctypes.POINTER(ctypes.c_float)()
        self._token_pointer = ctypes.cast(self._tokens, ctypes.POINTER(int32))

    def one_token(self, token: int, position: int, sequence: int) -> Any:
        self._tokens[0] = token
        self._positions[0] = position
        self._sequences[0] = sequence
        self._outputs[0] = 1
        native = self._native
        native.n_tokens = 1
        native.token = self._token_pointer
        native.embd = self._no_rows
        return native

    def runs(self, runs: Sequence[TokenRun]) -> tuple[Any, list[int]]:
        """Fill in several runs; return the batch and the row of the last token of each run."""
        rows = []
        end = 0
        for run in runs:
            start, end = end, end + len(run.tokens)
            self._tokens[start:end] = list(run.tokens)
            self._place(start, end, run.position, run.sequence, run.outputs)
            rows.append(end - 1)
        self._native.n_tokens = end
        self._native.token = self._token_pointer
        self._native.embd = self._no_rows
        return self._native, rows

    def embeddings(self, rows: NDArray[np.float32], position: int, sequence: int, logits: bool) -> Any:
        self._place(0, len(rows), position, sequence, int(logits))
        self._native.n_tokens = len(rows)
        self._native.token = self._no_tokens
        self._native.embd = rows.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        return self._native

    def _place(self, start: int, end: int, position: int, sequence: int, outputs: int) -> None:
        count = end - start
        self._positions[start:end] = list(range(position, position + count))
        self._sequences[start:end] = [sequence] * count
        self._outputs[start:end] = [0] * (count - outputs) + [1] * outputs  # type: ignore[assignment]  # a list of ints
