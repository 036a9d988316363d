"""Estimate the speed of a configuration from the model's shape and the machine's roofline, before any download.

A token of an answer takes as long as reading every weight once, of experts those that it goes through; a prompt as
long as multiplying these weights with each of its tokens; a tile as long as the encoder's operations.
docs/speed-estimates.md has method and measured errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Final

from internvl_gguf.config import EncoderKind
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.gguf.arch.internvit import tile_operations
from internvl_gguf.gguf.model_weights import UNKNOWN_KIND, Matrices, ModelShape, TextWeights, VisionWeights
from internvl_gguf.hardware.device_speed import DeviceSpeed, Range, Roofline, attention_kind, rate_of
from internvl_gguf.hardware.remote_device import RemoteDevice
from internvl_gguf.hardware.typical_devices import completed
from internvl_gguf.memory.ggml_scheduler import OFFLOAD_ROWS
from internvl_gguf.memory.memory_request import CELL_STEP, MemoryRequest
from internvl_gguf.memory.plan import kv_bytes_per_position, layer_homes
from internvl_gguf.planning.network_share import network_seconds, visits

__all__ = ["Range", "SpeedEstimate", "estimate_speed"]

# Operations of a layer that are no views (`llm_build_qwen2`, `build_attn` in llama.cpp): each is handed out on its own.
_NODES_PER_LAYER: Final = 24
_NODES_OF_EXPERTS: Final = 7  # choosing and weighing them (`build_moe_ffn`), besides an addition for each
_MEASURED_SHARING: Final = 7  # query heads to each key in the attention of `llama.measure.rates`
# Measured time divided by computed time, of the fastest and the slowest real run (docs/speed-estimates.md).
_DECODE_ERROR: Final = (0.95, 1.4)
_PREFILL_ERROR: Final = (0.95, 1.25)
_ENCODE_ERROR: Final = (0.68, 1.05)
_NOTHING: Final = Range(0, 0)


@dataclass(frozen=True)
class SpeedEstimate:
    """Expected speed of a configuration.

    Attributes:
        decode: tokens/s of an answer at the depth asked for.
        prefill: tokens/s at which the first `depth` positions are read, at least one `n_ubatch` of them.
        tile_seconds: seconds to encode a tile; None without a vision half.
        picture_seconds: seconds until a picture at the beginning is encoded and read; None without one.
        measured: whether every device involved was measured.
        assumed: the assumptions about other devices.
    """

    decode: Range
    prefill: Range
    tile_seconds: Range | None
    picture_seconds: Range | None
    measured: bool
    assumed: tuple[str, ...]


def estimate_speed(
    shape: ModelShape,
    request: MemoryRequest,
    roofline: Roofline | None,
    *,
    tiles_per_picture: int,
    depth: int,
    remote: Sequence[RemoteDevice | None] = (),
) -> SpeedEstimate:
    """Estimate how fast a model runs in a configuration.

    The CPU counts with the threads it was measured with, whatever `request.n_threads` says.

    Args:
        shape: the model, from a header or a listing.
        request: how it is run.
        roofline: roofline of the machine; None assumes a typical one. GPUs that it lacks are assumed.
        tiles_per_picture: tiles of a picture, the thumbnail included; 0 for no pictures.
        depth: positions in the context while an answer is produced.
        remote: what is known of each GPU that belongs to another machine, None for each of this one; empty for none.

    Raises:
        InvalidRequestError: a configuration this model cannot be run in, or a depth outside the context.
    """
    request.check(shape)
    if not 0 <= depth <= request.n_ctx:
        raise InvalidRequestError(f"A depth of {depth} is outside the context.", f"Use 0 to {request.n_ctx}.")
    if tiles_per_picture < 0:
        raise InvalidRequestError(f"tiles_per_picture is {tiles_per_picture}.", "Use 0 for no pictures, or more.")
    machine = completed(roofline, len(request.gpus), remote)
    if not request.extra_buffers:
        machine = replace(machine, host=machine.host.plain)
    text = _Text(shape.text, request, machine, remote)
    used = text.devices
    prompt = max(depth, min(request.ubatch, request.n_ctx))
    tile = picture = None
    if shape.vision is not None:
        encoder = machine.host if request.mmproj_gpu is None else machine.gpus[request.mmproj_gpu]
        used = (*used, encoder)
        kind = request.encoder if request.mmproj_gpu is None else "llama.cpp"
        tile = _tile_seconds(shape.vision, encoder, kind)
        if tiles_per_picture:
            positions = tiles_per_picture * shape.vision.tokens_per_tile + 2
            picture = tile.times(tiles_per_picture) + text.prefill_seconds(positions)
    unmeasured = (device.description for device in used if not device.measured)
    assumed = tuple(dict.fromkeys((*unmeasured, *text.guesses)))
    return SpeedEstimate(
        decode=text.decode_seconds(depth).amount_over(1),
        prefill=text.prefill_seconds(prompt).amount_over(prompt),
        tile_seconds=tile,
        picture_seconds=picture,
        measured=not assumed,
        assumed=assumed,
    )


@dataclass(frozen=True)
class _Share:
    """The layers of a text model on one device.

    Attributes:
        device: the device.
        is_host: whether it is the CPU.
        n_layers: number of layers; 0 where it has only experts of other devices' layers.
        matrices: the matrices of these layers and experts, by type.
        unread: matrices that most tokens of a prompt skip: after the last attention only tokens whose logits are wanted
            continue (`inp_out_ids` in `llm_build_qwen2`).
    """

    device: DeviceSpeed
    is_host: bool
    n_layers: int
    matrices: tuple[Matrices, ...]
    unread: tuple[Matrices, ...]

    @cached_property
    def multiplied(self) -> tuple[Matrices, ...]:
        """The matrices that every token of a prompt is multiplied with."""
        left = {(each.kind, each.used): each for each in self.matrices}
        for each in self.unread:
            whole = left[each.kind, each.used]
            left[each.kind, each.used] = replace(
                whole, n_bytes=whole.n_bytes - each.n_bytes, elements=whole.elements - each.elements
            )
        return tuple(each for each in left.values() if each.elements)


class _Text:
    """The text model, laid out on the devices."""

    def __init__(
        self,
        text: TextWeights,
        request: MemoryRequest,
        machine: Roofline,
        remote: Sequence[RemoteDevice | None],
    ) -> None:
        self._text = text
        homes = layer_homes(text.n_layers, request)
        devices = (*machine.gpus, machine.host)
        cpu = len(devices) - 1
        layers: list[list[tuple[Matrices, ...]]] = [[] for _ in devices]
        for home, place, matrices in zip(homes.layers, homes.experts, text.layer_matrices, strict=True):
            if home == place:
                layers[home].append(matrices)
            else:
                layers[home].append(tuple(each for each in matrices if each.used == 1.0))
                layers[place].append(tuple(each for each in matrices if each.used != 1.0))
        last = [each for each in text.weights if each.layer == text.n_layers - 1 and ".ffn_" in each.name]
        unread: list[tuple[Matrices, ...]] = [() for _ in devices]
        for home, of_experts in ((homes.layers[-1], False), (homes.experts[-1], True)):
            matrices = Matrices.among((each for each in last if each.is_of_experts is of_experts), text.used_experts)
            unread[home] = (*unread[home], *matrices)
        self._shares = [
            _Share(
                device,
                is_host=index == cpu,
                n_layers=homes.layers.count(index),
                matrices=Matrices.joined(chain.from_iterable(layers[index])),
                unread=unread[index],
            )
            for index, device in enumerate(devices)
            if layers[index]
        ]
        self._visits = visits(homes, remote)
        self._output = Matrices.among([text.output or text.embedding])
        self._output_device = devices[homes.output]
        # From so many rows on a GPU computes with weights that lie on the host.
        offload_gpu = request.offload_gpu if request.offloads else None
        self._helper = None if offload_gpu is None else machine.gpus[offload_gpu]
        self._to_helper = machine.host_to_gpu
        self._ubatch = request.ubatch
        self._cells = request.cells
        self._flash_attn = request.flash_attn
        self._attention = attention_kind(request.kv_type, flash_attn=request.flash_attn)
        self._kv_bytes = kv_bytes_per_position(text, request.kv_type) // text.n_layers
        self._sharing = text.n_head // text.n_head_kv
        self._nodes = _NODES_PER_LAYER + (_NODES_OF_EXPERTS + text.n_expert_used if text.n_expert else 0)
        self._attention_flops = 4 * text.n_head * text.head_dim  # of a token with a position in a layer: QK and PV

    @property
    def devices(self) -> tuple[DeviceSpeed, ...]:
        """Every device that computes."""
        helper = (self._helper,) if self._helper and any(share.is_host for share in self._shares) else ()
        return (*(share.device for share in self._shares), self._output_device, *helper)

    @property
    def guesses(self) -> Iterator[str]:
        """Assumptions for types that were not measured on a measured device."""
        shares = [(share.device, share.matrices) for share in self._shares]
        for device, matrices in (*shares, (self._output_device, self._output)):
            if not device.measured:
                continue
            kinds = {each.kind for each in matrices if each.kind != UNKNOWN_KIND}
            for kind in sorted(kinds - (device.bandwidth.keys() & device.matrix_rate.keys())):
                yield f"{kind} as fast on {device.name} as the type nearest in size"
            if self._attention not in device.attention_bandwidth.keys() & device.attention_rate.keys():
                yield f"attention over {self._attention} as fast on {device.name} as some other kind"

    def decode_seconds(self, depth: int) -> Range:
        """Return seconds for one token of an answer."""
        positions = self._attended(depth)
        seconds = _read(self._output, self._output_device)
        for share in self._shares:
            keys_and_values = share.n_layers * self._kv_bytes * positions
            seconds += _read(share.matrices, share.device)
            seconds += self._attention_bandwidth(share.device).amount_over(keys_and_values)
            seconds += share.device.node_seconds.times(share.n_layers * self._nodes)
        return seconds.times(*_DECODE_ERROR) + self._network_seconds(1, positions, is_new_graph=False)

    def prefill_seconds(self, tokens: int) -> Range:
        """Return seconds to read `tokens` tokens into an empty context, and to compute the logits of the last."""
        batches = [min(self._ubatch, tokens - start) for start in range(0, tokens, self._ubatch)]
        ends = [self._attended(min(start + self._ubatch, tokens)) for start in range(0, tokens, self._ubatch)]
        pairs = sum(count * end for count, end in zip(batches, ends, strict=True))
        seconds = _read(self._output, self._output_device)
        for share in self._shares:
            device = share.device
            moved = _NOTHING
            if share.is_host and self._helper and tokens >= OFFLOAD_ROWS:
                device = self._helper
                weights = sum(each.n_bytes * sum(map(each.read_share, batches)) for each in share.multiplied)
                cache = sum(ends) * self._kv_bytes * share.n_layers
                moved = self._to_helper.amount_over(weights + cache)
            computed = _multiplied(share.multiplied, device, batches) + _read(share.unread, device)
            rate = _attention_rate(device.attention_rate, self._attention)
            computed += rate.amount_over(self._attention_flops * pairs * share.n_layers)
            computed += device.node_seconds.times(len(batches) * share.n_layers * self._nodes)
            seconds += _slower(moved, computed)
        seconds = seconds.times(*_PREFILL_ERROR)
        for count, end in zip(batches, ends, strict=True):
            seconds += self._network_seconds(count, end, is_new_graph=True)
        return seconds

    def _network_seconds(self, tokens: int, attended: int, *, is_new_graph: bool) -> Range:
        return network_seconds(
            self._visits,
            self._text,
            tokens=tokens,
            attended=attended,
            flash_attn=self._flash_attn,
            is_new_graph=is_new_graph,
        )

    def _attended(self, positions: int) -> int:
        """Return the cells that attention runs over: llama.cpp takes them in steps (`llama_kv_cache::get_n_kv`)."""
        return min(self._cells, max(CELL_STEP, positions + -positions % CELL_STEP))

    def _attention_bandwidth(self, device: DeviceSpeed) -> Range:
        """Return bytes/s of keys and values; a CPU is slower the more query heads share a key, a GPU is not."""
        rate = _attention_rate(device.attention_bandwidth, self._attention)
        sharing = _MEASURED_SHARING / self._sharing
        return rate.times(min(1, sharing), max(1, sharing))


def _attention_rate(table: Mapping[str, Range], kind: str) -> Range:
    """Return the rate of a kind of attention; if not measured, the range over all measured kinds."""
    known = table.get(kind)
    if known is not None:
        return known
    return Range(min(rate.low for rate in table.values()), max(rate.high for rate in table.values()))


def _rate(table: Mapping[str, Range], matrices: Matrices) -> Range:
    return rate_of(table, matrices.kind, 8 * matrices.n_bytes / matrices.elements)


def _read(matrices: Iterable[Matrices], device: DeviceSpeed) -> Range:
    """Return seconds to multiply one token with each matrix that it uses."""
    seconds = _NOTHING
    for each in matrices:
        seconds += _rate(device.bandwidth, each).amount_over(each.n_bytes * each.used)
    return seconds


def _multiplied(matrices: Iterable[Matrices], device: DeviceSpeed, batches: Sequence[int]) -> Range:
    """Return seconds to multiply batches of tokens with each matrix, which is read once a batch."""
    seconds = _NOTHING
    for each in matrices:
        read = each.n_bytes * sum(map(each.read_share, batches))
        multiplied = _rate(device.matrix_rate, each).amount_over(2 * each.elements * each.used * sum(batches))
        seconds += _slower(multiplied, _rate(device.bandwidth, each).amount_over(read))
    return seconds


def _slower(first: Range, second: Range) -> Range:
    return Range(max(first.low, second.low), max(first.high, second.high))


def _tile_seconds(vision: VisionWeights, device: DeviceSpeed, kind: EncoderKind) -> Range:
    """Return seconds to encode one tile: its operations at the rate of the encoder or the main type of its weights."""
    main = max(vision.block_matrices, key=lambda each: each.elements)
    rate = device.encoder_rate.get(kind) or _rate(device.encoder_rate, main)
    return rate.amount_over(tile_operations(vision)).times(*_ENCODE_ERROR)
