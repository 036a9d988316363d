"""Search the best way to run one quant within a memory budget: layers, KV type, encoder and its device, batch."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final

from internvl_gguf.config import DEFAULT_N_UBATCH, KV_BLOCK, KVType, is_quantised
from internvl_gguf.hardware.device_speed import Range, Roofline
from internvl_gguf.memory import (
    MemoryPlan,
    MemoryRequest,
    ModelShape,
    TextWeights,
    kv_bytes_per_position,
    predict_memory,
)
from internvl_gguf.memory.plan import layer_homes, text_weights
from internvl_gguf.planning.candidates import Candidate, Encoder
from internvl_gguf.planning.cpu_kernels import plain_is_faster
from internvl_gguf.planning.speed_estimate import SpeedEstimate, estimate_speed
from internvl_gguf.planning.workload import MARGIN, MemoryBudget, Workload

# Mean KL divergence that a quantised KV cache adds: Qwen2.5-0.5B Q4_K_M over 1,024 tokens, against an F32 cache
# (docs/picking.md). Qwen2.5's keys have large biases, so it is not as little as for other models.
KV_LOSS: Final[dict[KVType, float]] = {"f32": 0.0, "f16": 0.0, "bf16": 0.0, "q8_0": 0.02, "q4_0": 2.9}
TILES_PER_GPU_BATCH: Final = 4
_SMALL_UBATCH: Final = 128
_STEPS: Final = 6  # most layers below what arithmetic says
_ANSWER_TOKENS: Final = 200
_QUESTION_TOKENS: Final = 100


@dataclass(frozen=True)
class Configuration:
    """One quant and how to run it.

    Attributes:
        candidate: the quant.
        encoder: its vision encoder.
        workload: the work to be done.
        budget: memory that it was fitted into.
        request: settings that it is run with.
        speed: expected speed.
    """

    candidate: Candidate = field(repr=False)
    encoder: Encoder = field(repr=False)
    workload: Workload
    budget: MemoryBudget
    request: MemoryRequest
    speed: SpeedEstimate

    @cached_property
    def plan(self) -> MemoryPlan:
        """Predicted memory by device and part; computed when first asked for."""
        return predict_memory(self.candidate.shape(self.encoder), self.request)

    @property
    def n_layers(self) -> int:
        """Number of layers, the output matrix counted as one."""
        return self.candidate.text.n_layers + 1

    @property
    def gpu_layers(self) -> int:
        """Number of layers on GPUs, the output matrix counted as one."""
        return self.request.gpu_layers(self.candidate.text.n_layers)

    @property
    def host_experts(self) -> int:
        """Number of layers whose experts stay in host memory although the rest of them lies on a GPU."""
        n_layers = self.candidate.text.n_layers
        return max(self.request.host_experts(n_layers) - max(self.n_layers - self.gpu_layers, 0), 0)

    @property
    def is_full(self) -> bool:
        """Whether everything computes where it is fastest: on GPUs if there are any; pictures on this machine's."""
        if not self.budget.has_gpus:
            return True
        is_encoder_placed = self.request.mmproj_on_gpu or not self.budget.has_local_gpus
        return self.gpu_layers == self.n_layers and is_encoder_placed and not self.host_experts

    @property
    def headroom(self) -> tuple[int, ...]:
        """Bytes left of each device's budget, the host first; below 0 if it does not fit."""
        limits = (self.budget.host, *self.budget.gpus)
        return tuple(limit - device.total for limit, device in zip(limits, self.plan.devices, strict=True))

    @property
    def shortage(self) -> int:
        """Bytes missing on all devices together; 0 if it fits."""
        limits = (self.budget.host, *(int(gpu * (1 - MARGIN)) for gpu in self.budget.gpus))
        return sum(max(device.total - limit, 0) for limit, device in zip(limits, self.plan.devices, strict=True))

    @property
    def fits(self) -> bool:
        """Whether every device has memory for it, the GPUs with a margin."""
        return fits(self.plan, self.budget)

    @property
    def loss(self) -> float:
        """Expected mean KL divergence from the published weights, in nats: of quant and KV cache."""
        return self.candidate.loss + KV_LOSS[self.request.kv_type]

    @cached_property
    def answer_seconds(self) -> Range:
        """Seconds for a question about the pictures and an answer of 200 tokens, with empty caches."""
        picture = self.speed.picture_seconds
        pictures = picture.times(self.workload.pictures) if picture else Range(0, 0)
        words = self.speed.prefill.amount_over(_QUESTION_TOKENS) + self.speed.decode.amount_over(_ANSWER_TOKENS)
        return pictures + words


def geometric_mean(value: Range) -> float:
    """Return the geometric mean of the ends of a range, as one number for it."""
    return math.sqrt(value.low * value.high)


def fits(plan: MemoryPlan, budget: MemoryBudget) -> bool:
    """Return whether a plan stays within a budget on every device."""
    limits = (budget.host, *(gpu * (1 - MARGIN) for gpu in budget.gpus))
    of_this_machine = plan.host.total + sum(plan.gpus[index].total for index in budget.local_gpus)
    if budget.is_unified and of_this_machine > budget.host:
        return False
    return all(device.total <= limit for device, limit in zip(plan.devices, limits, strict=True))


Cost = Callable[[Configuration], tuple[float, ...]]
"""Cost of a configuration; the configuration of the lowest cost is the best."""


class Planner:
    """Fits quants into one budget. Results that quants of one shape share are computed once.

    Args:
        budget: bytes that may be taken.
        workload: the work to be done.
        roofline: how fast the devices are; None assumes typical ones.
        cost: compares ways to run a quant.
    """

    def __init__(self, budget: MemoryBudget, workload: Workload, roofline: Roofline | None, cost: Cost) -> None:
        self._budget, self._workload, self._roofline, self._cost = budget, workload, roofline, cost
        self._overheads: dict[tuple[object, ...], tuple[int, ...]] = {}
        self._plain: dict[tuple[object, ...], bool] = {}

    def best(self, candidate: Candidate) -> Configuration | None:
        """Return the best way to run a quant; None if no way fits.

        Layers on several GPUs compute one after the other, and each GPU takes memory of its own: so the model goes to
        the fewest GPUs that hold it whole. If they do not, leaving some or all of them alone may be better.
        """
        fewest_first = [*reversed(self._with_fewer_gpus[:-1]), self]
        for ubatch in dict.fromkeys((self._fastest_ubatch, self._ubatches[0])):
            for planner in fewest_first:
                if whole := planner._whole(candidate, ubatch):
                    return whole
        found = self._best(candidate)
        if found and found.is_full:
            return found
        others = [other for planner in self._with_fewer_gpus if (other := planner._best(candidate))]
        return min([*([found] if found else []), *others], key=self._cost, default=None)

    @cached_property
    def _with_fewer_gpus(self) -> list[Planner]:
        return [Planner(budget, self._workload, self._roofline, self._cost) for budget in self._budget.smaller()]

    def _whole(self, candidate: Candidate, ubatch: int) -> Configuration | None:
        """Return everything where it is fastest, without a compromise; None if there is no memory for that."""
        on_gpu = self._budget.encoder_gpu is not None
        plain = self._draft(candidate, candidate.encoders[0], self._kv_types[0], on_gpu, ubatch)
        return plain if plain and plain.is_full and plain.fits else None

    def _best(self, candidate: Candidate) -> Configuration | None:
        """Return the best compromise that uses all GPUs of the budget; None if none fits."""
        for ubatch in self._ubatches:
            drafts = [draft for draft in self._alternatives(candidate, ubatch) if draft]
            for draft in sorted(drafts, key=self._cost):
                if fitted := self._fitted(draft):
                    return fitted
        return None

    def with_layers(self, candidate: Candidate, layers: int, *, mmproj_on_gpu: bool) -> Configuration:
        """Return a quant with `layers` layers on the GPUs, whether it fits or not."""
        encoder = candidate.encoders[0]
        request = self._request(candidate.shape(encoder), self._kv_types[0], layers, mmproj_on_gpu, self._ubatches[0])
        return self._configure(candidate, encoder, request)

    def smallest(self, candidate: Candidate) -> Configuration:
        """Return the way to run a quant that misses the least memory: whole on the GPUs, or without them."""
        encoder = min(candidate.encoders, key=lambda each: each.size)

        def least(planner: Planner, layers: int, host_experts: int = 0) -> Configuration:
            shape = candidate.shape(encoder)
            on_gpu = layers > 0 and planner._budget.encoder_gpu is not None
            request = planner._request(shape, planner._kv_types[-1], layers, on_gpu, planner._ubatches[-1])
            return planner._configure(candidate, encoder, planner._with_host_experts(request, host_experts))

        alone = least(self._with_fewer_gpus[-1] if self._with_fewer_gpus else self, 0)
        if not self._budget.gpus:
            return alone
        whole = candidate.text.n_layers + 1
        ways = [alone, least(self, whole), *([least(self, whole, -1)] if candidate.text.n_expert else [])]
        return min(ways, key=lambda found: found.shortage)

    def _configure(self, candidate: Candidate, encoder: Encoder, request: MemoryRequest) -> Configuration:
        shape = candidate.shape(encoder)
        speed = estimate_speed(
            shape,
            request,
            self._roofline,
            tiles_per_picture=self._workload.tiles_per_picture,
            depth=min(request.n_ctx - 1, self._used_positions(shape)),
            remote=self._budget.remote or (),
        )
        return Configuration(candidate, encoder, self._workload, self._budget, request, speed)

    @property
    def _kv_types(self) -> tuple[KVType, ...]:
        return (self._workload.kv_type,) if self._workload.kv_type else ("f16", "q8_0")

    @property
    def _fastest_ubatch(self) -> int:
        """The ubatch to take if nothing else has to give way for it: memory grows with it."""
        workload = self._workload
        usual = DEFAULT_N_UBATCH if self._budget.gpus else workload.host_ubatch
        return workload.n_ubatch or min(usual, workload.n_batch)

    @property
    def _ubatches(self) -> tuple[int, ...]:
        """The usual ubatch, and a smaller one that takes less memory."""
        if self._workload.n_ubatch:
            return (self._workload.n_ubatch,)
        usual = min(self._fastest_ubatch, DEFAULT_N_UBATCH)
        return tuple(dict.fromkeys((usual, min(usual, _SMALL_UBATCH))))

    def _used_positions(self, shape: ModelShape) -> int:
        tokens = shape.vision.tokens_per_tile if shape.vision else 0
        return self._workload.picture_positions(tokens) + _QUESTION_TOKENS

    def _alternatives(self, candidate: Candidate, ubatch: int) -> Iterator[Configuration | None]:
        """Yield compromises: a quantised cache, a smaller encoder, one on the CPU, fewer layers or experts on GPUs."""
        smallest = min(candidate.encoders, key=lambda encoder: encoder.size)
        for kv_type in self._kv_types:
            for on_gpu in (True, False) if self._budget.encoder_gpu is not None else (False,):
                for encoder in dict.fromkeys((candidate.encoders[0], smallest)):
                    yield self._draft(candidate, encoder, kv_type, on_gpu, ubatch)
                    if self._budget.gpus and candidate.text.n_expert and self._workload.n_cpu_moe is None:
                        yield self._draft_without_experts(candidate, encoder, kv_type, on_gpu, ubatch)

    def _draft(
        self, candidate: Candidate, encoder: Encoder, kv_type: KVType, mmproj_on_gpu: bool, ubatch: int
    ) -> Configuration | None:
        """Return a configuration with as many layers on the GPUs as arithmetic allows; None if it allows none."""
        text = candidate.text
        if is_quantised(kv_type) and text.head_dim % KV_BLOCK:
            return None
        shape = candidate.shape(encoder)

        def request(layers: int) -> MemoryRequest:
            return self._request(shape, kv_type, layers, mmproj_on_gpu, ubatch)

        def is_too_much(layers: int) -> bool:
            return not self._layers_fit_gpus(shape, request(layers))

        most = text.n_layers + 1 if self._budget.gpus else 0
        if not is_too_much(most):
            return self._configure(candidate, encoder, request(most))
        too_many = bisect.bisect_left(range(most), True, key=is_too_much)
        return self._configure(candidate, encoder, request(too_many - 1)) if too_many else None

    def _draft_without_experts(
        self, candidate: Candidate, encoder: Encoder, kv_type: KVType, mmproj_on_gpu: bool, ubatch: int
    ) -> Configuration | None:
        """Return all layers on the GPUs, as few experts in host memory as arithmetic allows; None if it allows none."""
        text, shape = candidate.text, candidate.shape(encoder)
        if is_quantised(kv_type) and text.head_dim % KV_BLOCK:
            return None
        whole = self._request(shape, kv_type, text.n_layers + 1, mmproj_on_gpu, ubatch)

        def fits_gpus(count: int) -> bool:
            return self._layers_fit_gpus(shape, self._with_host_experts(whole, count))

        count = bisect.bisect_left(range(text.n_layers + 1), True, lo=1, key=fits_gpus)
        if count > text.n_layers:
            return None
        return self._configure(candidate, encoder, self._with_host_experts(whole, count))

    def _with_host_experts(self, request: MemoryRequest, count: int) -> MemoryRequest:
        """Return a request with the experts of so many layers in host memory, unless the workload says how many."""
        return request if self._workload.n_cpu_moe is not None else replace(request, n_cpu_moe=count)

    def _fitted(self, draft: Configuration) -> Configuration | None:
        """Return a draft with as much on the GPUs as the plan allows; None if arithmetic was far off."""
        asked = draft.request
        if asked.n_cpu_moe > 0 and self._workload.n_cpu_moe is None:
            return self._fitted_by_experts(draft)
        for layers in range(draft.gpu_layers, max(-1, draft.gpu_layers - _STEPS), -1):
            shape = draft.candidate.shape(draft.encoder)
            request = self._request(shape, asked.kv_type, layers, asked.mmproj_on_gpu, asked.n_ubatch)
            fitted = draft if layers == draft.gpu_layers else self._configure(draft.candidate, draft.encoder, request)
            if fitted.fits:
                return fitted
            if fitted.headroom[0] < 0:  # fewer on the GPUs are more on the host
                return None
        return None

    def _fitted_by_experts(self, draft: Configuration) -> Configuration | None:
        """Return a draft with as few experts in host memory as the plan allows; None if arithmetic was far off."""
        first = draft.request.n_cpu_moe
        for count in range(first, min(first + _STEPS, draft.candidate.text.n_layers + 1)):
            request = replace(draft.request, n_cpu_moe=count)
            fitted = draft if count == first else self._configure(draft.candidate, draft.encoder, request)
            if fitted.fits:
                return fitted
            if fitted.headroom[0] < 0:  # more in host memory does not help
                return None
        return None

    def _request(
        self, shape: ModelShape, kv_type: KVType, layers: int, mmproj_on_gpu: bool, ubatch: int
    ) -> MemoryRequest:
        workload = self._workload
        # The last layer is the output matrix: with that alone on a GPU, the CPU computes all attention.
        needs_flash = layers > 1 or is_quantised(kv_type)
        request = MemoryRequest(
            n_ctx=workload.n_ctx,
            n_parallel=workload.n_parallel,
            n_candidates=workload.n_candidates,
            n_batch=workload.n_batch,
            n_ubatch=ubatch,
            n_draft=workload.n_draft,
            kv_type=kv_type,
            flash_attn=needs_flash if workload.flash_attn == "auto" else workload.flash_attn,
            gpus=tuple(1.0 for _ in self._budget.gpus),
            n_gpu_layers=layers,
            n_cpu_moe=workload.n_cpu_moe or 0,
            offload_gpu=self._budget.offload_gpu,
            mmproj_gpu=self._budget.encoder_gpu if mmproj_on_gpu else None,
            encoder=workload.encoder,
            tiles_per_batch=TILES_PER_GPU_BATCH if mmproj_on_gpu else 1,
            pictures=workload.pictures,
            tiles=workload.tiles,
            n_threads=workload.n_threads,
            extra_buffers=self._budget.extra_buffers and not self._plain_is_faster(shape),
        )
        if len(request.gpus) < 2:
            return request
        # Share the layers by the memory that each GPU has left beside its overhead.
        room = [
            max(gpu * (1 - MARGIN) - taken, 1.0)
            for gpu, taken in zip(self._budget.gpus, self._overhead(shape, request)[1:], strict=True)
        ]
        return replace(request, gpus=tuple(share / sum(room) for share in room))

    def _plain_is_faster(self, shape: ModelShape) -> bool:
        """Return whether the CPU is faster with the weights as they lie in the file; computed once for each quant."""
        key = tuple(shape.text.sizes.values()), shape.text.layer_matrices
        if key not in self._plain:
            host = self._roofline.host if self._roofline else None
            prompt = self._used_positions(shape)
            self._plain[key] = plain_is_faster(shape.text, host, n_prompt=prompt, n_answer=_ANSWER_TOKENS)
        return self._plain[key]

    def _layers_fit_gpus(self, shape: ModelShape, request: MemoryRequest) -> bool:
        """Return whether the GPUs have memory by arithmetic: weights and cache of each layer, and the overhead."""
        overhead = self._overhead(shape, request)[1:]
        layers = layers_by_device(shape.text, request)[1:]
        return all(
            taken + more <= gpu * (1 - MARGIN)
            for taken, more, gpu in zip(overhead, layers, self._budget.gpus, strict=True)
        )

    def _overhead(self, shape: ModelShape, request: MemoryRequest) -> tuple[int, ...]:
        """Return the bytes on each device beside layers and their cache, the host first: similar for every quant."""
        text, vision = shape.text, shape.vision
        full = request.gpu_layers(text.n_layers) > text.n_layers
        some = -1 if full else min(request.n_gpu_layers, text.n_layers // 2)
        experts = 1 if request.n_cpu_moe else 0  # one layer's copies take as much of a buffer as those of several
        usual = replace(request, gpus=tuple(1.0 for _ in request.gpus), n_gpu_layers=some, n_cpu_moe=experts)
        sizes = tuple(text.sizes.values())
        key = (sizes, vision.weight_bytes if vision else 0, replace(usual, n_gpu_layers=min(some, 1)))
        if key not in self._overheads:
            plan = predict_memory(shape, usual)
            self._overheads[key] = tuple(device.total - device.weights - device.kv_cache for device in plan.devices)
        return self._overheads[key]


def layers_by_device(text: TextWeights, request: MemoryRequest) -> tuple[int, ...]:
    """Return the bytes of weights and KV cache on each device, the host first."""
    homes = layer_homes(text.n_layers, request)
    names = [backend.name for backend in homes.backends]
    layers = [names[home] for home in homes.layers]
    experts = [names[home] for home in homes.experts]
    weights = text_weights(text, layers, names[homes.output], experts, reorders=request.reorders)
    per_layer = kv_bytes_per_position(text, request.kv_type) // text.n_layers * request.cells
    totals = [weights.get(name, 0) for name in names]
    for home in homes.layers:
        totals[home] += per_layer
    return (totals[-1], *totals[:-1])
