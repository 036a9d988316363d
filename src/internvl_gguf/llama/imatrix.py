"""Collect the inputs of a text model's weight matrices while it reads, with llama.cpp's evaluation callback.

The callback of a context sees every node of the graph before and after it is computed. From each product with a weight
matrix of a layer it takes the other operand, as llama.cpp's own `tools/imatrix/imatrix.cpp` does. ggml has no functions
for most facts about a node, so its C structure is read; `check_layout` first compares a node with known values.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from internvl_gguf.errors import LibraryError
from internvl_gguf.llama.interrupts import deferred_interrupts
from internvl_gguf.llama.library import SUPPORTED_VERSION, ggml_function, last_error, llama_cpp
from internvl_gguf.llama.model import TextModel
from internvl_gguf.llama.native import NativeObject

if TYPE_CHECKING:
    from numpy.typing import NDArray

_HANDLE: Final = ctypes.c_void_p
_CELL_STEP: Final = 256  # llama.cpp rounds the cache up to this
_F32: Final = llama_cpp.GGML_TYPE_F32
_I32: Final = llama_cpp.GGML_TYPE_I32
_LAYERS: Final = "blk."


class _Node(ctypes.Structure):
    """`struct ggml_tensor` of ggml.h."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", _HANDLE),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", _HANDLE * 10),
        ("view_src", _HANDLE),
        ("view_offs", ctypes.c_size_t),
        ("data", _HANDLE),
        ("name", ctypes.c_char * 64),
        ("extra", _HANDLE),
        ("padding", ctypes.c_char * 8),
    )


class _InitParams(ctypes.Structure):
    """`struct ggml_init_params` of ggml.h."""

    _fields_ = (("mem_size", ctypes.c_size_t), ("mem_buffer", _HANDLE), ("no_alloc", ctypes.c_bool))


@dataclass(frozen=True)
class ProductCodes:
    """ggml's op codes of a product with one matrix, and of products with some matrices of many: those of experts."""

    whole: int
    chosen: int


@lru_cache(maxsize=1)
def check_layout() -> ProductCodes:
    """Check that our ggml_tensor layout is right, on test products; return ggml's op codes of them.

    Raises:
        LibraryError: the layout is another one.
    """
    make = ggml_function("ggml_init", _HANDLE, _InitParams)
    free = ggml_function("ggml_free", None, _HANDLE)
    matrix = ggml_function("ggml_new_tensor_2d", _HANDLE, _HANDLE, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    name = ggml_function("ggml_set_name", _HANDLE, _HANDLE, ctypes.c_char_p)
    cube = ggml_function(
        "ggml_new_tensor_3d", _HANDLE, _HANDLE, ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64
    )
    multiply = ggml_function("ggml_mul_mat", _HANDLE, _HANDLE, _HANDLE, _HANDLE)
    multiply_chosen = ggml_function("ggml_mul_mat_id", _HANDLE, _HANDLE, _HANDLE, _HANDLE, _HANDLE)
    op_name = ggml_function("ggml_op_name", ctypes.c_char_p, ctypes.c_int)
    data = ggml_function("ggml_get_data", _HANDLE, _HANDLE)
    size = ggml_function("ggml_tensor_overhead", ctypes.c_size_t)
    context = make(_InitParams(16 * size() + 4096, None, False))
    try:
        weight, rows = matrix(context, _F32, 8, 3), matrix(context, _F32, 8, 5)
        name(weight, b"blk.0.weight")
        product = multiply(context, weight, rows)
        node, factor = _Node.from_address(product), _Node.from_address(weight)
        experts, ids = cube(context, _F32, 8, 3, 4), matrix(context, _I32, 2, 5)
        chosen = _Node.from_address(multiply_chosen(context, experts, cube(context, _F32, 8, 1, 5), ids))
        is_right = (
            (node.src[0], node.src[1], node.src[2]) == (weight, rows, None)
            and (tuple(node.ne), tuple(node.nb)) == ((3, 5, 1, 1), (4, 12, 60, 60))
            and (tuple(factor.ne), tuple(factor.nb)) == ((8, 3, 1, 1), (4, 32, 96, 96))
            and (factor.name, factor.type, factor.data) == (b"blk.0.weight", _F32, data(weight))
            and 0 < node.op < 1024
            and op_name(node.op) == b"MUL_MAT"
            and (chosen.src[0], chosen.src[2], tuple(chosen.ne)) == (experts, ids, (3, 2, 5, 1))
            and 0 < chosen.op < 1024
            and op_name(chosen.op) == b"MUL_MAT_ID"
        )
        codes = ProductCodes(int(node.op), int(chosen.op))
    finally:
        free(context)
    if not is_right:
        raise LibraryError(
            "The installed llama.cpp lays out its tensors in another way than this package knows.",
            f"Install the matching build: pip install llama-cpp-python=={SUPPORTED_VERSION}",
        )
    return codes


@dataclass
class Sums:
    """Sums of squares of the inputs of one matrix, or of the matrices of all experts of a layer.

    Attributes:
        squares: sum of squares of each column, float64 [columns], expert after expert.
        rows: number of positions summed, int64 [experts]; one number where there are no experts.
    """

    squares: NDArray[np.float64]
    rows: NDArray[np.int64]


class ActivationContext(NativeObject):
    """A context that reads texts without answering, and sums the squared inputs of the layers' matrices.

    Args:
        model: the text model; must stay open as long as this context.
        n_ctx: positions of the longest text.
        n_batch: most positions decoded in one call.
        n_threads: CPU threads.

    Attributes:
        sums: by the matrix's name, such as blk.0.attn_q.weight.

    Raises:
        LibraryError: llama.cpp cannot make the context, usually because memory is short, or is another build.
    """

    def __init__(self, model: TextModel, *, n_ctx: int, n_batch: int, n_threads: int) -> None:
        super().__init__(model)
        self._products = check_layout()
        self._read = ggml_function("ggml_backend_tensor_get", None, _HANDLE, _HANDLE, ctypes.c_size_t, ctypes.c_size_t)
        self._n_bytes = ggml_function("ggml_nbytes", ctypes.c_size_t, _HANDLE)
        self.sums: dict[str, Sums] = {}
        self.n_batch = n_batch
        self.n_embd = model.n_embd
        # Nothing after this is of interest, and the output matrix is up to a quarter of a small model.
        last = f"{_LAYERS}{llama_cpp.llama_model_n_layer(model.handle) - 1}"
        self._last = (f"{last}.ffn_down.weight", f"{last}.ffn_down_exps.weight")
        self._inputs: dict[tuple[int, int | None], Sums] = {}
        self._trouble: BaseException | None = None
        self._is_stopped = threading.Event()
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = n_ctx + -n_ctx % _CELL_STEP
        # One computation for each call: the inputs remembered by their addresses are of one graph.
        params.n_batch = params.n_ubatch = params.n_outputs_max = n_batch
        params.n_seq_max = 1
        params.n_threads = params.n_threads_batch = n_threads
        params.flash_attn_type = 0
        self._callback = llama_cpp.ggml_backend_sched_eval_callback(self._on_node)
        params.cb_eval = self._callback
        if not self._make(lambda: llama_cpp.llama_init_from_model(model.handle, params)):
            raise LibraryError(
                f"llama.cpp made no context of {n_ctx:,} tokens{last_error()}.", "Use smaller chunks, or free memory."
            )
        # A row is an output or it does not go through the last layer's feed-forward matrices.
        self._outputs = (ctypes.c_int8 * n_batch)(*([1] * n_batch))

    def decode_tokens(self, tokens: Sequence[int]) -> None:
        """Decode 1 to n_batch tokens, after what was decoded before.

        Raises:
            LibraryError: llama.cpp refused.
        """
        ids = (ctypes.c_int32 * len(tokens))(*tokens)
        batch = llama_cpp.llama_batch()
        batch.token = ctypes.cast(ids, ctypes.POINTER(ctypes.c_int32))
        self._decode(batch, len(tokens))

    def decode_embeddings(self, rows: NDArray[np.float32]) -> None:
        """Decode 1 to n_batch embeddings, float32 [positions, n_embd], after what was decoded before.

        Raises:
            LibraryError: llama.cpp refused.
        """
        if rows.ndim != 2 or rows.shape[1] != self.n_embd:
            raise ValueError(f"embeddings of shape {rows.shape} are not [n, {self.n_embd}]")
        values = np.ascontiguousarray(rows, np.float32)
        batch = llama_cpp.llama_batch()
        batch.embd = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        self._decode(batch, len(values))

    def clear(self) -> None:
        """Empty the KV cache, before a new text."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.handle), False)

    def _decode(self, batch: Any, count: int) -> None:
        """Decode a batch without positions: it continues the only sequence where the last batch ended."""
        if not 0 < count <= self.n_batch:  # llama.cpp aborts the process on a larger one
            raise ValueError(f"a batch of {count} positions, where 1 to {self.n_batch} fit")
        batch.n_tokens = count
        batch.logits = self._outputs
        self._inputs.clear()
        with deferred_interrupts(self._is_stopped.set):
            status = llama_cpp.llama_decode(self.handle, batch)
        self._is_stopped.clear()
        if self._trouble is not None:
            raise self._trouble
        if status != 0:
            raise LibraryError(
                f"llama.cpp failed to read a text, status {status}{last_error()}.", "Check that there is memory for it."
            )

    def _on_node(self, address: int, ask: bool, _user_data: int | None) -> bool:
        """Tell ggml whether a node is of interest (`ask`), or take a computed node and tell whether to continue."""
        try:
            node = _Node.from_address(address)
            if node.op not in (self._products.whole, self._products.chosen):
                return False
            weight = _Node.from_address(node.src[0])
            name = _weight_name(weight.name)
            if not name.startswith(_LAYERS):
                return False
            if not ask:
                self._add(name, node, weight.ne[2])
            return ask or (name not in self._last and not self._is_stopped.is_set())
        except BaseException as error:  # nothing may pass through C
            self._trouble = error
            return False

    def _add(self, name: str, product: _Node, n_matrices: int) -> None:
        """Add the squares of a product's right operand to the sums of its left one, the weight matrix."""
        ids = product.src[2] if product.op == self._products.chosen else None
        found = self._inputs.get((product.src[1], ids))
        if found is None:  # queries, keys and values have one input, and so have gate and up
            rows = self._values(product.src[1], _F32, np.float32)
            found = _sums(rows) if ids is None else _sums_of_chosen(rows, self._values(ids, _I32, np.int32), n_matrices)
            if not np.isfinite(found.squares).all():
                raise LibraryError(
                    "The text model gave values that are not numbers.", "Fetch its file again: the weights are damaged."
                )
            self._inputs[product.src[1], ids] = found
        known = self.sums.get(name)
        if known is None:
            self.sums[name] = Sums(found.squares.copy(), found.rows.copy())
        else:
            known.squares += found.squares
            known.rows += found.rows

    def _values(self, address: int, kind: int, dtype: type[np.generic]) -> NDArray[Any]:
        """Return a copy of a node's values, the slowest axis first, from whatever device it is on."""
        node = _Node.from_address(address)
        if node.type != kind:
            raise LibraryError(
                "llama.cpp multiplies with values of a type that this package does not know.",
                "Report this with your model.",
            )
        data = np.empty(self._n_bytes(address), np.uint8)
        self._read(address, data.ctypes.data, 0, data.nbytes)
        return np.ndarray(tuple(node.ne)[::-1], dtype, data, strides=tuple(node.nb)[::-1])

    @staticmethod
    def _free(handle: int) -> None:
        llama_cpp.llama_free(handle)


def _sums(rows: NDArray[np.float32]) -> Sums:
    flat = rows.reshape(-1, rows.shape[-1])
    return Sums(np.einsum("ij,ij->j", flat, flat).astype(np.float64), np.array([len(flat)]))


def _sums_of_chosen(rows: NDArray[np.float32], chosen: NDArray[np.int32], n_experts: int) -> Sums:
    """Return the sums of each expert.

    Args:
        rows: inputs, float32 [1, tokens, 1 or experts of a token, columns].
        chosen: numbers of the experts, int32 [1, 1, tokens, experts of a token].
        n_experts: experts of the layer.
    """
    places = chosen[0, 0]
    inputs = np.broadcast_to(rows[0], (*places.shape, rows.shape[-1]))
    squares = np.zeros((n_experts, rows.shape[-1]))
    counts = np.zeros(n_experts, np.int64)
    for expert in np.unique(places):
        of_expert = _sums(inputs[places == expert])
        squares[expert], counts[expert] = of_expert.squares, of_expert.rows[0]
    return Sums(squares.reshape(-1), counts)


def _weight_name(raw: bytes) -> str:
    """Return the name of a matrix; ggml calls the copy of one on a device CUDA0#blk.0.attn_k.weight#0."""
    parts = raw.decode("utf-8", "replace").split("#")
    return parts[1] if len(parts) > 1 else parts[0]
