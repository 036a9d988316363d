"""Build graphs of tensors without data, in the way ggml builds them.

Each function here is named after a function of llama.cpp's `ggml/src/ggml.c` and makes a tensor of the same type, shape
and strides, so that `text_graph` and `vision_graph` can be read beside the C++ they follow.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

# Elements and bytes of a block (`type_traits` in ggml.c): the types that activations, inputs and KV caches have.
BLOCKS: Final[dict[str, tuple[int, int]]] = {
    "f32": (1, 4),
    "f16": (1, 2),
    "bf16": (1, 2),
    "i32": (1, 4),
    "i64": (1, 8),
    "q8_0": (32, 34),
    "q8_1": (32, 36),
    "q4_0": (32, 18),
    "q8_K": (256, 292),
}

Shape = tuple[int, int, int, int]


def row_bytes(kind: str, elements: int) -> int:
    """Return the bytes of `elements` elements of a type (`ggml_row_size`)."""
    block, size = BLOCKS[kind]
    return elements // block * size


class Tensor:
    """A tensor of a graph: the properties that determine its place and its size.

    Attributes:
        op: the operation that makes it; "none" for leaves.
        kind: element type, a key of `BLOCKS`; of weights the type's name in lower case, whatever it is.
        shape: elements along each axis, the fastest first.
        strides: bytes between neighbours along each axis.
        sources: the tensors it is made from.
        view_of: the tensor whose memory it shares; None if it has its own.
        n_bytes: its size, strides considered.
        is_input: filled before the graph runs.
        is_output: read after the graph has run, so that nothing may overwrite it.
        is_external: lies in a buffer of its own: a weight, or part of the KV cache.
        is_weight: a weight.
        home: index of the backend of an external tensor's buffer.
        pinned: index of the backend that the graph's builder requires; None leaves it to the scheduler.
        gpu_extra: bytes that CUDA needs after it as scratch memory of the operation.
    """

    __slots__ = (
        "gpu_extra",
        "home",
        "is_external",
        "is_input",
        "is_output",
        "is_weight",
        "kind",
        "n_bytes",
        "op",
        "pinned",
        "shape",
        "sources",
        "strides",
        "view_of",
    )

    def __init__(
        self,
        op: str,
        kind: str,
        shape: Shape,
        sources: tuple[Tensor, ...] = (),
        *,
        strides: Shape | None = None,
        view_of: Tensor | None = None,
        n_bytes: int | None = None,
    ) -> None:
        self.op = op
        self.kind = kind
        self.shape = shape
        self.strides = strides or contiguous(kind, shape)
        self.sources = sources
        self.view_of: Tensor | None = (view_of.view_of or view_of) if view_of is not None else None
        self.n_bytes = self._spanned() if n_bytes is None else n_bytes
        self.is_input = self.is_output = self.is_external = self.is_weight = False
        self.home = 0
        self.pinned: int | None = None
        self.gpu_extra = 0

    def _spanned(self) -> int:
        """Return the bytes from the first element to the last (`ggml_nbytes`)."""
        block = BLOCKS.get(self.kind, (1, 1))[0]
        steps = zip(self.shape[1:], self.strides[1:], strict=True)
        return self.shape[0] // block * self.strides[0] + sum((count - 1) * stride for count, stride in steps)

    @property
    def layout(self) -> tuple[str, Shape, Shape]:
        """Type, shape and strides, as compared by `ggml_are_same_layout`."""
        return self.kind, self.shape, self.strides

    @property
    def elements(self) -> int:
        """Number of elements."""
        return self.shape[0] * self.shape[1] * self.shape[2] * self.shape[3]


def contiguous(kind: str, shape: Shape) -> Shape:
    """Return the strides of a tensor without gaps; types outside `BLOCKS`, which only weights have, count as bytes."""
    block, size = BLOCKS.get(kind, (1, 1))
    row = shape[0] // block * size
    return size, row, row * shape[1], row * shape[1] * shape[2]


def new_tensor(kind: str, *sizes: int) -> Tensor:
    """Make a leaf."""
    return Tensor("none", kind, _shape(sizes))


def new_input(kind: str, *sizes: int) -> Tensor:
    """Make a leaf that is filled before the graph runs."""
    tensor = new_tensor(kind, *sizes)
    tensor.is_input = True
    return tensor


def external(kind: str, home: int, n_bytes: int, *sizes: int, weight: bool = True) -> Tensor:
    """Make a weight or a part of the KV cache, in a buffer of its own on backend `home`."""
    tensor = Tensor("none", kind, _shape(sizes), n_bytes=n_bytes)
    tensor.is_external, tensor.is_weight, tensor.home = True, weight, home
    return tensor


def get_rows(table: Tensor, rows: Tensor) -> Tensor:
    """Return rows of a table as F32; of several tables, those that each list of `rows` names."""
    return Tensor("get_rows", "f32", (table.shape[0], *rows.shape[:3]), (table, rows))


def mul_mat(weight: Tensor, activations: Tensor) -> Tensor:
    """Return a matrix product as F32."""
    shape = (weight.shape[1], activations.shape[1], activations.shape[2], activations.shape[3])
    return Tensor("mul_mat", "f32", shape, (weight, activations))


def mul_mat_id(experts: Tensor, activations: Tensor, chosen: Tensor) -> Tensor:
    """Return the products with some matrices of many as F32 [rows, chosen matrices, tokens].

    Args:
        experts: all matrices.
        activations: [columns, 1 or the number of chosen matrices, tokens].
        chosen: numbers of the matrices for each token.
    """
    shape = (experts.shape[1], chosen.shape[0], activations.shape[2], 1)
    return Tensor("mul_mat_id", "f32", shape, (experts, activations, chosen))


def argsort(tensor: Tensor) -> Tensor:
    """Return the order of each row's values as I32."""
    return Tensor("argsort", "i32", tensor.shape, (tensor,))


def sum_rows(tensor: Tensor) -> Tensor:
    """Return the sum of each row."""
    return Tensor("sum_rows", tensor.kind, (1, *tensor.shape[1:]), (tensor,))


def elementwise(op: str, first: Tensor, *others: Tensor) -> Tensor:
    """Apply an operation whose result has its first operand's shape, without gaps: add, mul, norms, rope, soft_max."""
    return Tensor(op, first.kind, first.shape, (first, *others))


def cast(tensor: Tensor, kind: str) -> Tensor:
    """Copy a tensor to another type; as in ggml, the copy is among its own sources."""
    result = Tensor("cpy", kind, tensor.shape, (tensor,))
    result.sources = (tensor, result)
    return result


def cont(tensor: Tensor, *sizes: int) -> Tensor:
    """Copy a tensor without gaps, optionally to another shape."""
    return Tensor("cont", tensor.kind, _shape(sizes) if sizes else tensor.shape, (tensor,))


def concat(first: Tensor, second: Tensor, axis: int) -> Tensor:
    """Join two tensors along an axis."""
    sizes = list(first.shape)
    sizes[axis] += second.shape[axis]
    return Tensor("concat", first.kind, _shape(tuple(sizes)), (first, second))


def flash_attention(query: Tensor, key: Tensor, value: Tensor, *mask: Tensor) -> Tensor:
    """Compute attention in one operation: F32 [head_dim, heads, tokens, batch].

    CUDA keeps F16 copies of keys and values of another type after the result
    (`ggml_cuda_flash_attn_ext_get_alloc_size` in `ggml-cuda/fattn.cu`, for the kernels that a prefill takes).
    """
    shape = (value.shape[0], query.shape[2], query.shape[1], query.shape[3])
    result = Tensor("flash_attn", "f32", shape, (query, key, value, *mask))
    result.gpu_extra = sum(2 * each.elements for each in (key, value) if each.kind != "f16")
    return result


def set_rows(target: Tensor, rows: Tensor, places: Tensor) -> Tensor:
    """Write rows into a part of the KV cache; the result is a view of that part."""
    return Tensor("set_rows", target.kind, target.shape, (rows, places, target), view_of=target)


def reshape(tensor: Tensor, *sizes: int) -> Tensor:
    """Return a view of the same memory in another shape."""
    return Tensor("reshape", tensor.kind, _shape(sizes), (tensor,), view_of=tensor)


def permute(tensor: Tensor, *axes: int) -> Tensor:
    """Return a view of the same memory with axis i moved to place axes[i]."""
    sizes, strides = [0] * 4, [0] * 4
    for source, target in enumerate(axes):
        sizes[target], strides[target] = tensor.shape[source], tensor.strides[source]
    return Tensor(
        "permute",
        tensor.kind,
        _shape(tuple(sizes)),
        (tensor,),
        strides=_shape(tuple(strides)),
        view_of=tensor,
    )


def view(tensor: Tensor, sizes: tuple[int, ...], strides: Shape | None = None) -> Tensor:
    """Return a view of a part of the same memory, without gaps unless strides are given."""
    return Tensor("view", tensor.kind, _shape(sizes), (tensor,), strides=strides, view_of=tensor)


def _shape(sizes: tuple[int, ...]) -> Shape:
    padded = (*sizes, 1, 1, 1)
    return padded[0], padded[1], padded[2], padded[3]


class Graph:
    """Nodes in their order of computation and the leaves below them (`ggml_build_forward_expand`)."""

    def __init__(self) -> None:
        self.nodes: list[Tensor] = []
        self.leaves: list[Tensor] = []
        self._known: set[Tensor] = set()

    def expand(self, tensor: Tensor) -> None:
        """Add a tensor and, before it, its sources recursively, left to right."""
        # Depth first with an explicit stack, since a graph is deeper than Python's recursion limit.
        stack: list[tuple[Tensor, Iterator[Tensor]]] = []
        self._enter(tensor, stack)
        while stack:
            current, sources = stack[-1]
            for source in sources:
                if self._enter(source, stack):
                    break
            else:
                stack.pop()
                (self.leaves if current.op == "none" else self.nodes).append(current)

    def _enter(self, tensor: Tensor, stack: list[tuple[Tensor, Iterator[Tensor]]]) -> bool:
        if tensor in self._known:
            return False
        self._known.add(tensor)
        stack.append((tensor, iter(tensor.sources)))
        return True
