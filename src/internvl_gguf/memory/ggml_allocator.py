"""Simulate how ggml places the tensors of a graph in a compute buffer, from their sizes alone.

Follows `ggml_gallocr_alloc_graph_impl` and `ggml_dyn_tallocr_alloc` of llama.cpp's `ggml/src/ggml-alloc.c`: tensors are
placed in the order of the graph, best fit first, in place over a parent if the operation allows it, and their room is
freed after the last node that reads them. The largest end of any tensor is the size of the buffer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from internvl_gguf.memory.ggml_graph import Tensor

# `ggml_op_can_inplace`, as far as these graphs use it.
_IN_PLACE: Final = frozenset({"add", "mul", "div", "clamp", "rms_norm", "rope", "soft_max", "gelu"})
_ENDLESS: Final = 2**62


@dataclass(frozen=True)
class Backend:
    """Properties of a compute device that affect buffer sizes.

    Attributes:
        name: "CPU", "GPU0", ...
        alignment: bytes that every tensor is padded to: 32 in ggml's CPU buffers, 128 in CUDA's.
        is_gpu: whether it has memory of its own.
    """

    name: str
    alignment: int
    is_gpu: bool


CPU: Final = Backend("CPU", 32, is_gpu=False)


def gpu(index: int) -> Backend:
    """Return the GPU of that index, with CUDA's alignment (`ggml_backend_cuda_buffer_type_get_alignment`)."""
    return Backend(f"GPU{index}", 128, is_gpu=True)


class _Pool:
    """One buffer: free blocks in the order of their offsets; the last one is unlimited."""

    def __init__(self, alignment: int) -> None:
        self._alignment = alignment
        self._free = [[0, _ENDLESS]]
        self.size = 0

    def padded(self, size: int) -> int:
        return size + -size % self._alignment

    def take(self, size: int) -> int:
        """Return the offset of a new block: the smallest hole that fits (the last of equal ones), else the end."""
        size = self.padded(size)
        best, best_size = len(self._free) - 1, _ENDLESS
        for index, (_, room) in enumerate(self._free[:-1]):
            if size <= room <= best_size:
                best, best_size = index, room
        block = self._free[best]
        offset = block[0]
        block[0] += size
        block[1] -= size
        if not block[1]:
            del self._free[best]
        self.size = max(self.size, offset + size)
        return offset

    def give(self, offset: int, size: int) -> None:
        size = self.padded(size)
        if not size:
            return
        place = next(index for index, block in enumerate(self._free) if block[0] > offset)
        self._free.insert(place, [offset, size])
        for left in (place, place - 1):
            if left >= 0 and sum(self._free[left]) == self._free[left + 1][0]:
                self._free[left][1] += self._free[left + 1][1]
                del self._free[left + 1]


@dataclass
class _Slot:
    """Allocator state of a tensor: the numbers of `readers` and `views` still to come, and its place."""

    readers: int = 0
    views: int = 0
    backend: int = 0
    offset: int = 0
    live: bool = False


class Allocation:
    """One allocation pass over a graph.

    Args:
        backends: the devices, by index.
        nodes: the graph in its order of computation, with the index of each node's backend.
        leaves: tensors that no node computes, with their backends; those without a buffer of their own come first.
    """

    def __init__(
        self,
        backends: Sequence[Backend],
        nodes: Sequence[tuple[Tensor, int]],
        leaves: Sequence[tuple[Tensor, int]],
    ) -> None:
        self._backends = backends
        self._pools = [_Pool(backend.alignment) for backend in backends]
        self._slots: dict[Tensor, _Slot] = {}
        for leaf, backend in leaves:
            self._place(leaf, backend)
        for node, backend in nodes:
            if node.view_of is not None and node.op != "none":
                self._slot(node.view_of).views += 1
            for source in node.sources:
                self._slot(source).readers += 1
                if source.is_input:
                    self._place(source, backend)
        for node, backend in nodes:
            for source in node.sources:
                self._place(source, backend)
            self._place(node, backend)
            for source in node.sources:
                self._release(source)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Bytes of the compute buffer of each backend."""
        return tuple(pool.size for pool in self._pools)

    def _slot(self, tensor: Tensor) -> _Slot:
        slot = self._slots.get(tensor)
        if slot is None:
            slot = self._slots[tensor] = _Slot()
        return slot

    def _room(self, tensor: Tensor, backend: int) -> int:
        return tensor.n_bytes + (tensor.gpu_extra if self._backends[backend].is_gpu else 0)

    def _place(self, tensor: Tensor, backend: int) -> None:
        slot = self._slot(tensor)
        if tensor.is_external or slot.live or tensor.view_of is not None:
            return
        slot.live = True
        if tensor.op in _IN_PLACE and self._placed_over_parent(tensor, slot):
            return
        slot.backend = backend
        slot.offset = self._pools[backend].take(self._room(tensor, backend))

    def _placed_over_parent(self, tensor: Tensor, slot: _Slot) -> bool:
        """Place the tensor over a parent that nothing else reads; return whether that worked. Views own no memory."""
        for parent in tensor.sources:
            known = self._slot(parent)
            if not known.live or parent.is_output or parent.layout != tensor.layout:
                continue
            if known.readers == 1 and not known.views:
                slot.backend, slot.offset = known.backend, known.offset
                known.live = False
                return True
        return False

    def _release(self, tensor: Tensor) -> None:
        slot = self._slot(tensor)
        slot.readers -= 1
        if slot.readers or slot.views:
            return
        owner = tensor
        if tensor.view_of is not None:
            owner = tensor.view_of
            slot = self._slot(owner)
            slot.views -= 1
            if slot.views or slot.readers:
                return
        if slot.live and not owner.is_output:
            self._pools[slot.backend].give(slot.offset, self._room(owner, slot.backend))
            slot.live = False
