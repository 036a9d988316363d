"""Predict the memory of a configuration on each device, part by part."""

from __future__ import annotations

import platform
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final, Literal

from internvl_gguf.gguf.model_weights import ModelShape, TextWeights, VisionWeights, Weight
from internvl_gguf.memory.ggml_allocator import CPU, Backend, gpu
from internvl_gguf.memory.ggml_graph import row_bytes
from internvl_gguf.memory.ggml_scheduler import OFFLOAD_ROWS, schedule
from internvl_gguf.memory.memory_request import MemoryRequest
from internvl_gguf.memory.openvino_memory import openvino_activations, openvino_weights
from internvl_gguf.memory.text_graph import Placement, TextBatch, text_graph
from internvl_gguf.memory.vision_graph import vision_graph
from internvl_gguf.memory.work_buffer import kept_beside, work_buffer

Source = Literal["header", "listing", "dry run"]

# Measured (docs/memory.md): Python with this package and its libraries, and llama.cpp's tables of the vocabulary.
PROCESS_BYTES: Final = 80 * 1024**2
BYTES_PER_TOKEN: Final = 290
# Not measured here: a CUDA context with the library's kernels and its temporary buffers.
GPU_CONTEXT_BYTES: Final = 400 * 1024**2

# `ggml_repack_get_optimal_repack_type` in ggml/src/ggml-cpu/repack.cpp: types the CPU backend reorders.
REPACKED_X86: Final = frozenset({"q4_0", "q4_k", "q2_k", "iq4_nl", "mxfp4"})
_REPACKED_ARM: Final = frozenset({"q4_0", "q4_k", "q5_k", "q6_k", "q8_0", "iq4_nl", "mxfp4"})
_REPACKED_ROWS: Final = 8


@dataclass(frozen=True)
class DeviceMemory:
    """Memory on one device, in bytes.

    Attributes:
        device: "CPU" for the host's memory, "GPU0", "GPU1", ... for a GPU's own.
        weights: weights of the text model.
        kv_cache: keys and values of every position.
        compute_buffer: intermediate results of the text model's largest batch.
        output_buffer: logits.
        mmproj_weights: weights of the vision encoder.
        mmproj_compute_buffer: intermediate results of its largest batch of tiles.
        embeddings: embeddings of the pictures, float32, kept for the next question.
        work_buffer: operands that the CPU converts before it multiplies them; grows while the context fills. Above 32
            MiB also what the C library keeps of smaller ones.
        overhead: the process with its libraries and vocabulary; on a GPU, its context.
        total: the sum.
    """

    device: str
    weights: int = 0
    kv_cache: int = 0
    compute_buffer: int = 0
    output_buffer: int = 0
    mmproj_weights: int = 0
    mmproj_compute_buffer: int = 0
    embeddings: int = 0
    work_buffer: int = 0
    overhead: int = 0
    total: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "total", sum(getattr(self, part) for part in PARTS))


PARTS: Final = (
    "weights",
    "kv_cache",
    "compute_buffer",
    "output_buffer",
    "mmproj_weights",
    "mmproj_compute_buffer",
    "embeddings",
    "work_buffer",
    "overhead",
)


@dataclass(frozen=True)
class MemoryPlan:
    """Memory of a configuration.

    Attributes:
        source: source of the numbers: GGUF headers by formula, a listing of file sizes by formula, or llama.cpp.
        devices: the host first, then the GPUs in order.
        cells: positions of the KV cache.
        kv_bytes_per_position: bytes of keys and values of one position, in all layers on all devices.
        picture_positions: positions that the pictures take.
        picture_kv: their share of the KV cache, in bytes.
        page_cache: mapped bytes of the file that `devices` does not count: the originals of weights that were copied to
            a GPU or reordered for the CPU. The system drops them when it needs the memory, but counts them as the
            process's until then.
    """

    source: Source
    devices: tuple[DeviceMemory, ...]
    cells: int
    kv_bytes_per_position: int
    picture_positions: int
    picture_kv: int
    page_cache: int

    @property
    def total(self) -> int:
        """Bytes on all devices."""
        return sum(device.total for device in self.devices)

    @property
    def host(self) -> DeviceMemory:
        """The host's memory."""
        return self.devices[0]

    @property
    def gpus(self) -> tuple[DeviceMemory, ...]:
        """The GPUs."""
        return self.devices[1:]


def predict_memory(shape: ModelShape, request: MemoryRequest) -> MemoryPlan:
    """Predict the memory of a configuration on each device, by formula.

    Raises:
        InvalidRequestError: the model cannot be run in this configuration.
    """
    request.check(shape)
    text, vision = shape.text, shape.vision
    homes = layer_homes(text.n_layers, request)
    cpu = len(homes.backends) - 1
    per_position = kv_bytes_per_position(text, request.kv_type)
    per_layer = per_position // text.n_layers * request.cells
    buffers, text_work = _cached_buffers(_BufferKey.of(text, request, homes))
    names = [backend.name for backend in homes.backends]
    layers = [names[home] for home in homes.layers]
    experts = [names[home] for home in homes.experts]
    weights = text_weights(text, layers, names[homes.output], experts, reorders=request.reorders)
    encoder, vision_buffers, vision_work = _vision_memory(vision, request, homes)
    positions = request.tiles * vision.tokens_per_tile + 2 * request.pictures if vision else 0
    devices = [
        DeviceMemory(
            backend.name,
            weights=weights.get(backend.name, 0),
            kv_cache=per_layer * sum(home == index for home in homes.layers),
            compute_buffer=buffers[index],
            output_buffer=4 * text.n_vocab * request.rows if index == cpu else 0,
            mmproj_weights=_encoder_weights(vision, request) if vision and index == encoder else 0,
            mmproj_compute_buffer=vision_buffers[index],
            embeddings=4 * request.tiles * vision.tokens_per_tile * text.n_embd if vision and index == cpu else 0,
            work_buffer=text_work + vision_work + kept_beside(text_work, vision_work) if index == cpu else 0,
            overhead=PROCESS_BYTES + BYTES_PER_TOKEN * text.n_vocab if index == cpu else GPU_CONTEXT_BYTES,
        )
        for index, backend in enumerate(homes.backends)
    ]
    from_listing = text.from_listing or (vision is not None and vision.from_listing)
    return MemoryPlan(
        source="listing" if from_listing else "header",
        devices=(devices[-1], *devices[:-1]),
        cells=request.cells,
        kv_bytes_per_position=per_position,
        picture_positions=positions,
        picture_kv=positions * per_position,
        page_cache=_page_cache(text, homes, reorders=request.reorders),
    )


def kv_bytes_per_position(text: TextWeights, kv_type: str) -> int:
    """Return the bytes of keys and values of one position in all layers (`llama_kv_cache`'s constructor)."""
    return 2 * text.n_layers * row_bytes(kv_type, text.kv_width)


@dataclass(frozen=True)
class Homes:
    """The backend that holds each layer.

    Attributes:
        backends: all GPUs first, used or not; the CPU last.
        layers: index of each layer's backend.
        experts: index of the backend of each layer's experts, if it has any.
        output: index of the output matrix's backend.
    """

    backends: tuple[Backend, ...]
    layers: tuple[int, ...]
    experts: tuple[int, ...]
    output: int


def layer_homes(n_layers: int, request: MemoryRequest) -> Homes:
    """Return the backend that holds each layer (`get_layer_buft_list` in `llama_model_base::load_tensors`)."""
    return _homes(n_layers, request.gpu_layers(n_layers), request.host_experts(n_layers), request.gpus)


@lru_cache(maxsize=1024)
def _homes(n_layers: int, on_gpus: int, host_experts: int, shares: tuple[float, ...]) -> Homes:
    backends = (*(gpu(index) for index in range(len(shares))), CPU)
    first = n_layers + 1 - on_gpus
    ends = _split_ends(shares)
    cpu = len(backends) - 1
    homes = [cpu] * (n_layers + 1)
    for layer in range(first, n_layers + 1):
        place = _float32((layer - first) / on_gpus)
        homes[layer] = next(index for index, end in enumerate(ends) if end > place)
    layers = tuple(homes[:-1])
    return Homes(backends, layers, (cpu,) * host_experts + layers[host_experts:], homes[-1])


def _split_ends(shares: Sequence[float]) -> list[float]:
    """Return the end of each GPU's share, 0 to 1, computed in single precision as in llama.cpp."""
    ends: list[float] = []
    total = 0.0
    for share in shares:
        total = _float32(total + _float32(share))
        ends.append(total)
    return [_float32(end / total) for end in ends]


def _float32(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


@dataclass(frozen=True)
class _BufferKey:
    """Cache key of a text model's buffers: everything they depend on.

    For a model from a listing that is its shape, since every matrix counts as of one type; the bytes of its layers
    matter only if a GPU copies layers of the host. So all quants of a listed model share one entry. A model with a
    header is identified by its object.
    """

    shape: tuple[object, ...]
    request: MemoryRequest
    text: TextWeights = field(compare=False)
    homes: Homes = field(compare=False)

    @classmethod
    def of(cls, text: TextWeights, request: MemoryRequest, homes: Homes) -> _BufferKey:
        copies = request.offloads and len(homes.backends) - 1 in (*homes.layers, *homes.experts, homes.output)
        layer_bytes = (text.layer_bytes[0], text.embedding.n_bytes) if copies else ()
        shape = (*text.sizes.values(), *layer_bytes)
        fields = replace(request, pictures=0, tiles=0, tiles_per_batch=1, mmproj_gpu=None, encoder="llama.cpp")
        return cls(shape if text.from_listing else (id(text),), fields, text, homes)


@lru_cache(maxsize=256)
def _cached_buffers(key: _BufferKey) -> tuple[tuple[int, ...], int]:
    return _text_buffers(key.text, key.request, key.homes)


def _text_buffers(text: TextWeights, request: MemoryRequest, homes: Homes) -> tuple[tuple[int, ...], int]:
    """Return the compute buffer on each backend, and the CPU's work buffer, in bytes."""
    gpus = len(homes.backends) - 1
    full = request.gpu_layers(text.n_layers) > text.n_layers
    is_large = request.ubatch >= OFFLOAD_ROWS
    # Norms of queries and keys have a row for each head, which is enough for a GPU to take them over.
    offloads = request.offloads and (is_large or text.norms_heads)
    kept = _representative_layers(text, homes, keeps_host_layers=offloads)
    placement = Placement(
        layers=tuple(homes.layers[layer] for layer in kept),
        experts=tuple(homes.experts[layer] for layer in kept),
        numbers=kept,
        output=homes.output,
        cpu=gpus,
        pins_norms=full or not (gpus and is_large),
    )
    batch = TextBatch(request.ubatch, request.outputs, request.cells, request.kv_type, request.flash_attn)
    done = schedule(
        text_graph(text, batch, placement),
        homes.backends,
        offload_to=request.offload_gpu if offloads else None,
        pipeline=gpus > 1 and full and not request.n_cpu_moe,
    )
    return done.buffers, work_buffer(done.host_nodes, request.n_threads)


def _representative_layers(text: TextWeights, homes: Homes, *, keeps_host_layers: bool) -> tuple[int, ...]:
    """Return enough layers to determine the buffers: of each run of layers on one device the ends and the largest.

    The layers between them are placed in the buffer like the layer before. That does not hold for layers of the host
    that a GPU computes: their weights are copied into its buffer one after the other, and leave other holes each time,
    unless all have the same size.
    """
    sizes = text.layer_bytes
    cpu = len(homes.backends) - 1
    kept: list[int] = []
    run: list[int] = []
    places = tuple(zip(homes.layers, homes.experts, strict=True))
    for layer, place in enumerate(places):
        run.append(layer)
        if layer + 1 == text.n_layers or places[layer + 1] != place:
            largest = max(run, key=lambda each: sizes[each])
            if cpu in place and keeps_host_layers:
                has_one_size = len({sizes[each] for each in run}) == 1
                kept += sorted({*run[:2], *run[-2:]}) if has_one_size else run
            else:
                kept += sorted({*run[:2], *run[-2:], largest})
            run = []
    return tuple(kept)


def text_weights(
    text: TextWeights, layers: Sequence[str], output: str, experts: Sequence[str], *, reorders: bool
) -> dict[str, int]:
    """Return the bytes of weights on each device.

    The token embedding stays in host memory. If it serves as output matrix, too, that is a second copy when it lies on
    a GPU or is reordered (`llama_model_loader::create_tensor`, TENSOR_DUPLICATED).

    Args:
        text: the model.
        layers: the device of each layer, "CPU" for the host.
        output: the device of the output matrix.
        experts: the device of the experts of each layer, if it has any.
        reorders: see `MemoryRequest.reorders`.
    """
    sizes = {"CPU": text.embedding.n_bytes}
    ends = [weight.n_bytes for weight in (text.output_norm, text.output_bias, text.output) if weight is not None]
    if text.output is None and (output != "CPU" or (reorders and is_repacked(text.embedding))):
        ends.append(text.embedding.n_bytes)
    rest = (whole - of_experts for whole, of_experts in zip(text.layer_bytes, text.expert_bytes, strict=True))
    of_layers = (*zip(layers, rest, strict=True), *zip(experts, text.expert_bytes, strict=True))
    for home, size in ((output, sum(ends)), *of_layers):
        sizes[home] = sizes.get(home, 0) + size
    return sizes


def _page_cache(text: TextWeights, homes: Homes, *, reorders: bool) -> int:
    """Return the mapped bytes of the file that no device counts."""
    cpu = len(homes.backends) - 1
    originals = 0
    for weight in text.weights:
        if weight.name == "token_embd.weight":
            continue
        places = homes.experts if weight.is_of_experts else homes.layers
        home = homes.output if weight.layer is None else places[weight.layer]
        if home != cpu or (reorders and is_repacked(weight)):
            originals += weight.n_bytes
    return originals


def is_repacked(weight: Weight) -> bool:
    """Return whether the CPU backend reorders a matrix, provided that no GPU computes with it."""
    kinds = REPACKED_X86 if platform.machine().lower() in ("x86_64", "amd64", "i386", "i686") else _REPACKED_ARM
    return len(weight.shape) > 1 and weight.shape[1] % _REPACKED_ROWS == 0 and weight.kind in kinds


def _vision_memory(
    vision: VisionWeights | None, request: MemoryRequest, homes: Homes
) -> tuple[int, tuple[int, ...], int]:
    """Return the index of the encoder's backend, its compute buffer on each backend, and the CPU's work buffer."""
    cpu = len(homes.backends) - 1
    encoder = cpu if request.mmproj_gpu is None else request.mmproj_gpu
    sizes = [0] * (cpu + 1)
    if vision is None:
        return encoder, tuple(sizes), 0
    if _is_openvino(request):
        sizes[cpu] = openvino_activations(vision, request.tiles_per_batch, request.encoder)
        return encoder, tuple(sizes), 0
    computed = _encoding(vision, request.tiles_per_batch, request.n_threads, on_gpu=encoder != cpu)
    sizes[encoder] = computed.encoder
    if encoder != cpu:
        sizes[cpu] = computed.host
    return encoder, tuple(sizes), computed.work


def _is_openvino(request: MemoryRequest) -> bool:
    return request.mmproj_gpu is None and request.encoder != "llama.cpp"


def _encoder_weights(vision: VisionWeights, request: MemoryRequest) -> int:
    return openvino_weights(vision, request.encoder) if _is_openvino(request) else vision.weight_bytes


@dataclass(frozen=True)
class _Encoding:
    """Compute buffers of the encoder's own device and of the host beside it, and the CPU's work buffer."""

    encoder: int
    host: int
    work: int


@lru_cache(maxsize=64)
def _encoding(vision: VisionWeights, tiles: int, n_threads: int, *, on_gpu: bool) -> _Encoding:
    """Return the buffers for a batch of tiles; cached, since one encoder serves every quant of a text model."""
    graph = vision_graph(vision, tiles, min(vision.n_layers, 3))
    done = schedule(graph, (gpu(0), CPU) if on_gpu else (CPU,), offload_to=0 if on_gpu else None)
    return _Encoding(done.buffers[0], done.buffers[1] if on_gpu else 0, work_buffer(done.host_nodes, n_threads))
