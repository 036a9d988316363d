"""Assign the nodes of a graph to devices, and add the copies between them.

Follows `ggml_backend_sched_split_graph` of llama.cpp's `ggml/src/ggml-backend.cpp`, for devices that support every
operation of these graphs. The CPU comes last, and is the only one that reads host memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from internvl_gguf.memory.ggml_allocator import Allocation, Backend
from internvl_gguf.memory.ggml_graph import Graph, Tensor

OFFLOAD_ROWS: Final = 32  # op_offload_min_batch_size: from this many rows on, a GPU computes with weights of the CPU
_COPIES: Final = 4  # GGML_SCHED_MAX_COPIES, of inputs when several GPUs work as a pipeline
_VIEWS: Final = frozenset({"view", "reshape", "permute"})

Placed = tuple[Tensor, int]


@dataclass(frozen=True)
class Schedule:
    """Result of placing a graph on devices.

    Attributes:
        buffers: bytes of the compute buffer on each backend.
        host_nodes: nodes that the CPU computes.
    """

    buffers: tuple[int, ...]
    host_nodes: tuple[Tensor, ...]


def schedule(
    graph: Graph, backends: Sequence[Backend], *, offload_to: int | None = 0, pipeline: bool = False
) -> Schedule:
    """Place a graph on its devices.

    Args:
        graph: graph of the model; it is used up, since its nodes' sources are redirected to copies.
        backends: GPUs first, the CPU last.
        offload_to: index of the GPU that takes over operations on weights of the CPU; None if none does.
        pipeline: whether inputs have several copies, as `llama_context` requires when several GPUs hold all layers.
    """
    if len(backends) == 1:
        allocation = Allocation(backends, [(node, 0) for node in graph.nodes], [(leaf, 0) for leaf in graph.leaves])
        return Schedule(allocation.sizes, tuple(graph.nodes))
    return _Scheduler(graph, backends, offload_to, _COPIES if pipeline else 1).run()


class _Scheduler:
    def __init__(self, graph: Graph, backends: Sequence[Backend], offload_to: int | None, copies: int) -> None:
        self._graph = graph
        self._backends = backends
        self._offload_to = offload_to
        self._cpu = len(backends) - 1
        self._copies = copies
        self._backend: dict[Tensor, int] = {}
        self._copied: dict[tuple[Tensor, int], list[Tensor]] = {}

    def run(self) -> Schedule:
        """Assign nodes to devices, split the graph, and place the tensors."""
        self._assign_fixed()
        for order in (self._graph.nodes, self._graph.nodes[::-1]):
            self._spread(order, gpus_only=True)
        for order in (self._graph.nodes, self._graph.nodes[::-1]):
            self._spread(order, gpus_only=False)
        self._assign_sources()
        nodes = self._split()
        leaves = [*self._input_copies(), *self._placed_leaves()]
        host = tuple(node for node in self._graph.nodes if self._backend[node] == self._cpu)
        return Schedule(Allocation(self._backends, nodes, leaves).sizes, host)

    def _assign_fixed(self) -> None:
        """Pass 1: assign tensors with a buffer, nodes that read a weight, and inputs."""
        for tensor in (*self._graph.leaves, *self._graph.nodes):
            backend = tensor.pinned if tensor.pinned is not None else self._fixed(tensor)
            if backend is not None:
                self._backend[tensor] = backend

    def _fixed(self, tensor: Tensor) -> int | None:
        owner = tensor.view_of or tensor
        if owner.is_external:
            return owner.home
        if tensor.is_input:
            return self._cpu
        if tensor.op in ("rope", "flash_attn"):
            return None
        weight = next((source for source in tensor.sources if source.is_weight), None)
        if weight is None:
            return None
        if weight.home == self._cpu and self._offload_to is not None and _offloaded(tensor):
            return self._offload_to
        return weight.home

    def _spread(self, order: Sequence[Tensor], *, gpus_only: bool) -> None:
        """Pass 2: assign remaining nodes to the devices of their neighbours, GPUs before the CPU."""
        current: int | None = None
        for node in order:
            if node.op in _VIEWS:
                continue
            known = self._backend.get(node)
            if known is not None:
                current = None if gpus_only and known == self._cpu else known
            elif current is not None:
                self._backend[node] = current

    def _assign_sources(self) -> None:
        """Pass 4: assign views to the device of their base tensor, other sources to that of their reader."""
        for node in self._graph.nodes:
            if node.view_of is not None and node not in self._backend:
                self._backend[node] = self._backend[node.view_of]
            for source in node.sources:
                if source not in self._backend:
                    follows = self._backend.get(source.view_of) if source.view_of is not None else None
                    self._backend[source] = self._backend[node] if follows is None else follows

    def _split(self) -> list[Placed]:
        """Pass 5: cut the graph where the device changes; a split begins with copies of inputs from other devices."""
        placed: list[Placed] = []
        inputs: list[Tensor] = []
        members: list[Tensor] = []
        current = next(self._backend[node] for node in self._graph.nodes if node.op not in _VIEWS)
        for node in self._graph.nodes:
            if node.op not in _VIEWS:
                own = self._backend[node]
                if own != current or (inputs and self._reads_foreign_weight(node, current)):
                    placed += self._finished(current, inputs, members)
                    current, inputs, members = own, [], []
                node.sources = tuple(self._local(source, current, inputs) for source in node.sources)
            members.append(node)
        return placed + self._finished(current, inputs, members)

    def _reads_foreign_weight(self, node: Tensor, backend: int) -> bool:
        return any(source.is_weight and not self._reaches(source, backend) for source in node.sources)

    def _reaches(self, tensor: Tensor, backend: int) -> bool:
        owner = tensor.view_of or tensor
        return (owner.home if owner.is_external else self._backend[tensor]) == backend

    def _local(self, source: Tensor, backend: int, inputs: list[Tensor]) -> Tensor:
        """Return the source if the backend can read it, else its copy there, made once for the whole graph."""
        if self._reaches(source, backend):
            return source
        copies = self._copied.get((source, backend))
        if copies is None:
            copies = self._copied[source, backend] = [self._copy(source) for _ in range(self._copies)]
            inputs.append(source)
        return copies[0]

    def _copy(self, source: Tensor) -> Tensor:
        copy = Tensor("none", source.kind, source.shape, strides=source.strides, n_bytes=source.n_bytes)
        copy.is_input = copy.is_output = self._copies > 1
        return copy

    def _finished(self, backend: int, inputs: list[Tensor], members: list[Tensor]) -> list[Placed]:
        """Return a split for the allocator: each input is read once more, then its copy appears."""
        placed: list[Placed] = []
        for source in inputs:
            reader = Tensor("none", source.kind, source.shape, (source,), view_of=source, n_bytes=source.n_bytes)
            placed += [(reader, self._backend[source]), (self._copied[source, backend][0], backend)]
        return placed + [(node, self._backend[node]) for node in members]

    def _input_copies(self) -> list[Placed]:
        """Return the copies of inputs and of tensors that cross devices; with several copies they are placed first."""
        if self._copies == 1:
            return []
        placed: list[Placed] = []
        for leaf in self._graph.leaves:
            if leaf.is_input:
                home = self._backend.get(leaf, self._cpu)
                leaf.is_output = True
                placed += [(leaf, home), *((self._copy(leaf), home) for _ in range(self._copies - 1))]
        for (_, backend), copies in self._copied.items():
            placed += [(copy, backend) for copy in copies]
        return placed

    def _placed_leaves(self) -> list[Placed]:
        return [(leaf, self._backend.get(leaf, self._cpu)) for leaf in self._graph.leaves]


def _offloaded(tensor: Tensor) -> bool:
    """Return whether a GPU takes over an operation on a weight in host memory (`get_op_batch_size` in ggml-cuda.cu)."""
    if tensor.op == "get_rows":
        return False
    axis = {"mul_mat": 1, "mul_mat_id": 2}.get(tensor.op)
    rows = math.prod(tensor.shape[1:]) if axis is None else tensor.shape[axis]
    return rows >= OFFLOAD_ROWS
