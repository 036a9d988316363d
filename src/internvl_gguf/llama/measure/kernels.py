"""Time llama.cpp's own matrix products and attention on one device.

The graphs go through ggml's backend interface as those of a model do, with weights in the buffer type that llama.cpp
would use: reordered where the CPU reorders them (`make_cpu_buft_list` in `src/llama-model.cpp`). The functions take
handles and numbers, and one small structure by value; `library.initialise` has checked the version.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

from internvl_gguf.errors import LibraryError
from internvl_gguf.hardware.trial import Needs, find_usable_settings
from internvl_gguf.llama.library import Device, ggml_function, initialise
from internvl_gguf.llama.measure.timing import DEFAULT_LIMITS, Timing, TimingLimits, time_repeatedly

if TYPE_CHECKING:
    from numpy.typing import NDArray

_HANDLE = ctypes.c_void_p
_INT64 = ctypes.c_int64
_SIZE = ctypes.c_size_t
_FLOAT = ctypes.c_float

_F32: Final = GGMLQuantizationType.F32
_NODES: Final = 1024  # room in a graph and in its table of tensors
_TABLE: Final = 4 * _NODES * 512  # bytes: a tensor's description takes less than 512
_PRECISE: Final = 10  # GGML_PREC_F32, which llama.cpp asks for in attention
_COMPUTED: Final = 0  # GGML_STATUS_SUCCESS

Run = Callable[[], object]
"""Computes a prepared graph."""


@dataclass(frozen=True)
class AttentionShape:
    """Sizes of an attention.

    Attributes:
        heads, kv_heads, head_dim: sizes of each layer.
        positions: keys and values of a layer.
        tokens: number of tokens that attend to all of them.
        layers: number of layers, each with keys and values of its own.
    """

    heads: int
    kv_heads: int
    head_dim: int
    positions: int
    tokens: int
    layers: int


class _InitParams(ctypes.Structure):
    """`ggml_init_params`."""

    _fields_ = (("mem_size", _SIZE), ("mem_buffer", _HANDLE), ("no_alloc", ctypes.c_bool))


class _Functions:
    """The functions of ggml used here."""

    def __init__(self) -> None:
        initialise()
        declare, tensor, number = ggml_function, _HANDLE, ctypes.c_int
        self.init = declare("ggml_init", _HANDLE, _InitParams)
        self.free = declare("ggml_free", None, _HANDLE)
        self.tensor = declare("ggml_new_tensor_3d", tensor, _HANDLE, number, _INT64, _INT64, _INT64)
        self.permute = declare("ggml_permute", tensor, _HANDLE, tensor, number, number, number, number)
        self.mul_mat = declare("ggml_mul_mat", tensor, _HANDLE, tensor, tensor)
        self.mul_mat_precision = declare("ggml_mul_mat_set_prec", None, tensor, number)
        self.add = declare("ggml_add", tensor, _HANDLE, tensor, tensor)
        self.soft_max = declare("ggml_soft_max_ext", tensor, _HANDLE, tensor, tensor, _FLOAT, _FLOAT)
        self.flash = declare("ggml_flash_attn_ext", tensor, _HANDLE, *[tensor] * 4, _FLOAT, _FLOAT, _FLOAT)
        self.flash_precision = declare("ggml_flash_attn_ext_set_prec", None, tensor, number)
        self.graph = declare("ggml_new_graph_custom", _HANDLE, _HANDLE, _SIZE, ctypes.c_bool)
        self.expand = declare("ggml_build_forward_expand", None, _HANDLE, tensor)
        self.n_bytes = declare("ggml_nbytes", _SIZE, tensor)
        self.device = declare("ggml_backend_dev_get", _HANDLE, _SIZE)
        self.start = declare("ggml_backend_dev_init", _HANDLE, _HANDLE, ctypes.c_char_p)
        self.stop = declare("ggml_backend_free", None, _HANDLE)
        self.registry = declare("ggml_backend_dev_backend_reg", _HANDLE, _HANDLE)
        self.address = declare("ggml_backend_reg_get_proc_address", _HANDLE, _HANDLE, ctypes.c_char_p)
        self.buffer_type = declare("ggml_backend_dev_buffer_type", _HANDLE, _HANDLE)
        self.host_buffer_type = declare("ggml_backend_dev_host_buffer_type", _HANDLE, _HANDLE)
        self.supports = declare("ggml_backend_dev_supports_op", ctypes.c_bool, _HANDLE, tensor)
        self.allocate = declare("ggml_backend_alloc_ctx_tensors_from_buft", _HANDLE, _HANDLE, _HANDLE)
        self.free_buffer = declare("ggml_backend_buffer_free", None, _HANDLE)
        self.write = declare("ggml_backend_tensor_set", None, tensor, _HANDLE, _SIZE, _SIZE)
        self.compute = declare("ggml_backend_graph_compute", number, _HANDLE, _HANDLE)


@lru_cache(maxsize=1)
def _functions() -> _Functions:
    return _Functions()


def reorders_weights(found: Sequence[tuple[int, Device]], kinds: Iterable[str]) -> bool:
    """Return whether llama.cpp lets the CPU store weights in layouts of its own on this machine.

    Args:
        found: the devices with their numbers; one with pinned host memory prevents reordering.
        kinds: element types in question, such as "Q4_K": kernels that failed in the trial are not used.
    """
    pinned = (device.kind != "cpu" and pins_host_memory(index) for index, device in found)
    return not any(pinned) and find_usable_settings(Needs(frozenset(kinds))).extra_buffers


def pins_host_memory(index: int) -> bool:
    """Return whether a device has pinned host memory; then the CPU does not reorder weights."""
    return bool(_functions().host_buffer_type(_functions().device(index)))


class KernelBench:
    """One device, and graphs to time on it. A context manager.

    Args:
        index: number of the device among `library.devices()`.
        n_threads: CPU threads; a GPU has no use for them.
        reorders: whether the CPU may reorder weights.
        limits: of the time that timing takes.

    Raises:
        LibraryError: the device cannot be started.
    """

    def __init__(self, index: int, *, n_threads: int, reorders: bool, limits: TimingLimits = DEFAULT_LIMITS) -> None:
        self.limits = limits
        self._ggml = _functions()
        self._device = self._ggml.device(index)
        self._backend = self._ggml.start(self._device, None)
        if not self._backend:
            raise LibraryError(f"Device {index} cannot be started.", "See `internvl doctor`.")
        self._set_threads = self._procedure("ggml_backend_set_n_threads", None, _HANDLE, ctypes.c_int)
        self.use_threads(n_threads)
        self._own_type = self._ggml.buffer_type(self._device)
        self._layouts = [*(self._reordering_types() if reorders else ()), self._own_type]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ggml.stop(self._backend)

    def use_threads(self, n_threads: int) -> None:
        """Compute with `n_threads` threads from now on."""
        self.n_threads = n_threads
        if self._set_threads:
            self._set_threads(self._backend, n_threads)

    def products(self, kind: GGMLQuantizationType, columns: int, rows: int, tokens: int, total: int) -> Timing | None:
        """Time a graph that multiplies the same tokens with one matrix after another; see `multiplying` for arguments.

        Returns:
            None where the device cannot multiply with this type.
        """
        with self.multiplying(kind, columns, rows, tokens, total) as run:
            return self._timed(run) if run else None

    def plain_products(
        self, kind: GGMLQuantizationType, columns: int, rows: int, tokens: int, total: int
    ) -> Timing | None:
        """Time what `products` does with matrices as they lie in a file.

        Returns:
            None where the device has no other layout for this type, so that `products` does the same.
        """
        if not any(self._takes(layout, kind, columns, rows, tokens) for layout in self._layouts[:-1]):
            return None
        with self.multiplying(kind, columns, rows, tokens, total, layouts=self._layouts[-1:]) as run:
            return self._timed(run) if run else None

    @contextmanager
    def multiplying(
        self,
        kind: GGMLQuantizationType,
        columns: int,
        rows: int,
        tokens: int,
        total: int,
        additions: int = 0,
        layouts: Sequence[int] = (),
    ) -> Iterator[Run | None]:
        """Build a graph that multiplies the same tokens with one matrix after another.

        Args:
            kind: type of the matrices.
            columns, rows: size of each.
            tokens: how many are multiplied at once.
            total: bytes of all matrices together; there is at least one.
            additions: small operations after each, as a layer of a model has between its matrices.
            layouts: buffer types for the matrices, the first that takes them is used; those of models if empty.

        Yields:
            None where the device cannot multiply with this type.
        """
        data = _weights(kind, columns * rows)
        for buffer_type in layouts or self._layouts:
            with self._tables() as (weights, results):
                count = max(1, total // data.nbytes)
                matrices = [self._ggml.tensor(weights, kind, columns, rows, 1) for _ in range(count)]
                operand = self._ggml.tensor(results, _F32, columns, tokens, 1)
                nodes = []
                for matrix in matrices:
                    nodes.append(self._ggml.mul_mat(results, matrix, operand))
                    product = nodes[-1]
                    for _ in range(additions):
                        nodes.append(self._ggml.add(results, nodes[-1], product))
                with self._memory(weights, buffer_type):
                    if self._ggml.supports(self._device, nodes[0]):
                        contents = dict.fromkeys(matrices, data) | {operand: _normal(columns * tokens)}
                        with self._ready(results, nodes, contents) as run:
                            yield run
                        return
        yield None

    def attention(self, kind: GGMLQuantizationType, shape: AttentionShape, *, flash: bool) -> Timing | None:
        """Time the attention of some layers; see `attending` for arguments.

        Returns:
            None where the device cannot do it.
        """
        with self.attending(kind, shape, flash=flash) as run:
            return self._timed(run) if run else None

    @contextmanager
    def attending(self, kind: GGMLQuantizationType, shape: AttentionShape, *, flash: bool) -> Iterator[Run | None]:
        """Build the attention of some layers (`build_attn_mha` in `src/llama-graph.cpp`).

        Args:
            kind: type of keys and values.
            shape: sizes.
            flash: flash attention; without it a quantised `kind` has no values to multiply with.

        Yields:
            None where the device cannot do it.
        """
        ggml, scale = self._ggml, shape.head_dim**-0.5
        with self._tables() as (cache, results):
            contents: dict[int, NDArray[Any]] = {}
            nodes = []
            query = ggml.tensor(results, _F32, shape.head_dim, shape.heads, shape.tokens)
            contents[query] = _normal(shape.head_dim * shape.heads * shape.tokens)
            data = _cache(kind, shape.head_dim * shape.kv_heads * shape.positions)
            for _ in range(shape.layers):
                key = ggml.tensor(cache, kind, shape.head_dim, shape.kv_heads, shape.positions)
                if flash:
                    value = ggml.tensor(cache, kind, shape.head_dim, shape.kv_heads, shape.positions)
                    nodes.append(
                        ggml.flash(
                            results, *(self._by_head(results, each) for each in (query, key, value)), None, scale, 0, 0
                        )
                    )
                    ggml.flash_precision(nodes[-1], _PRECISE)
                else:
                    value = ggml.tensor(cache, kind, shape.positions, shape.head_dim, shape.kv_heads)
                    scores = ggml.mul_mat(results, self._by_head(results, key), self._by_head(results, query))
                    ggml.mul_mat_precision(scores, _PRECISE)
                    nodes += [scores, ggml.soft_max(results, scores, None, scale, 0)]
                    nodes.append(ggml.mul_mat(results, value, nodes[-1]))
                contents |= {key: data, value: data}
            with self._memory(cache, self._own_type):
                if all(ggml.supports(self._device, node) for node in nodes):
                    with self._ready(results, nodes, contents) as run:
                        yield run
                    return
        yield None

    def small_operations(self, count: int, width: int) -> Timing:
        """Time `count` additions of `width` values, each to the last one's result."""
        with self.adding(count, width) as run:
            return self._timed(run)

    @contextmanager
    def adding(self, count: int, width: int) -> Iterator[Run]:
        """Build `count` additions of `width` values, each to the last one's result."""
        with self._tables() as (_, results):
            first = self._ggml.tensor(results, _F32, width, 1, 1)
            nodes = [first]
            for _ in range(count):
                nodes.append(self._ggml.add(results, nodes[-1], first))
            with self._ready(results, nodes[1:], {first: np.zeros(width, dtype=np.float32)}) as run:
                yield run

    def uploads(self, n_bytes: int) -> Timing:
        """Time a copy of `n_bytes` bytes from ordinary memory to the device."""
        data = np.ones(n_bytes, dtype=np.uint8)
        with self._tables() as (table, _):
            target = self._ggml.tensor(table, GGMLQuantizationType.I8, n_bytes, 1, 1)
            with self._memory(table, self._own_type):
                return time_repeatedly(lambda: self._write(target, data), limits=self.limits)

    def _timed(self, run: Run) -> Timing:
        return time_repeatedly(run, self.n_threads if self._set_threads else 0, self.limits)

    @contextmanager
    def _ready(self, results: int, nodes: Sequence[int], contents: dict[int, NDArray[Any]]) -> Iterator[Run]:
        """Build a graph, allocate its tensors and fill them."""
        graph = self._ggml.graph(results, _NODES, False)
        for node in nodes:
            self._ggml.expand(graph, node)
        with self._memory(results, self._own_type):
            for tensor, data in contents.items():
                self._write(tensor, data)
            yield lambda: self._compute(graph)

    def _compute(self, graph: int) -> None:
        status = self._ggml.compute(self._backend, graph)
        if status != _COMPUTED:
            raise LibraryError(f"A graph failed with status {status}.", "Measure again with nothing else running.")

    def _write(self, tensor: int, data: NDArray[Any]) -> None:
        self._ggml.write(tensor, data.ctypes.data, 0, data.nbytes)

    def _by_head(self, results: int, tensor: int) -> int:
        """Return a view of [head_dim, heads, positions] as [head_dim, positions, heads]."""
        return int(self._ggml.permute(results, tensor, 0, 2, 1, 3))

    @contextmanager
    def _tables(self) -> Iterator[tuple[int, int]]:
        """Make two ggml contexts without data: one for inputs, one for results."""
        with ExitStack() as owned:
            tables = []
            for _ in range(2):
                tables.append(self._ggml.init(_InitParams(_TABLE, None, True)))
                owned.callback(self._ggml.free, tables[-1])
            yield tables[0], tables[1]

    def _takes(self, layout: int, kind: GGMLQuantizationType, columns: int, rows: int, tokens: int) -> bool:
        """Return whether the device multiplies with matrices of a type in a buffer type."""
        with self._tables() as (weights, results):
            matrix = self._ggml.tensor(weights, kind, columns, rows, 1)
            product = self._ggml.mul_mat(results, matrix, self._ggml.tensor(results, _F32, columns, tokens, 1))
            with self._memory(weights, layout):
                return bool(self._ggml.supports(self._device, product))

    @contextmanager
    def _memory(self, table: int, buffer_type: int) -> Iterator[None]:
        """Allocate memory for every tensor of a table."""
        buffer = self._ggml.allocate(table, buffer_type)
        if not buffer:
            raise LibraryError("The device has no memory left.", "Close other programs and measure again.")
        try:
            yield
        finally:
            self._ggml.free_buffer(buffer)

    def _reordering_types(self) -> Iterator[int]:
        extra = self._procedure("ggml_backend_dev_get_extra_bufts", ctypes.POINTER(_HANDLE), _HANDLE)
        found = extra(self._device) if extra else None
        index = 0
        while found and found[index]:
            yield found[index]
            index += 1

    def _procedure(self, name: str, result: Any, *arguments: Any) -> Any:
        """Return a function that some kinds of devices have; None if this one lacks it."""
        address = self._ggml.address(self._ggml.registry(self._device), name.encode())
        return ctypes.CFUNCTYPE(result, *arguments)(address) if address else None


def _normal(count: int) -> NDArray[np.float32]:
    return np.random.default_rng(1).standard_normal(count, dtype=np.float32)


@lru_cache(maxsize=2)
def _weights(kind: GGMLQuantizationType, elements: int) -> NDArray[np.uint8]:
    """Return random weights of a type, as bytes.

    Every byte is from 0x11 to 0x6F: whatever bytes or nibbles of a block make up a scale, it is then an ordinary
    number, none that is infinite, not a number, or so small that a CPU slows down. (ggml's own quantiser takes 20
    seconds to build the tables of some types.)
    """
    block, size = GGML_QUANT_SIZES[kind]
    count = int(elements // block * size)
    return np.random.default_rng(2).integers(0x11, 0x70, count, dtype=np.uint8)


def _cache(kind: GGMLQuantizationType, elements: int) -> NDArray[Any]:
    """Return keys or values of a type, normally distributed, so that the results of attention are ordinary numbers."""
    values: NDArray[Any] = _normal(elements)
    return values if kind is _F32 else np.asarray(quants.quantize(values, kind))
