"""The demo model in many configurations on real devices: the CPU's answers, its numbers, the planned memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.devices.conftest import Run
from tests.devices.run import MIB, Result

LAYERS = 6  # of the demo model, its output matrix counted as one
CONFIGURATIONS: list[dict[str, Any]] = [
    {},
    {"n_gpu_layers": -1},
    {"n_gpu_layers": 2},
    {"n_gpu_layers": 1},
    {"n_gpu_layers": 0},
    {"kv_type": "f32"},
    {"kv_type": "bf16"},
    {"kv_type": "q8_0"},
    {"kv_type": "q4_0"},
    {"flash_attn": False},
    {"flash_attn": True, "n_gpu_layers": 2},
    {"n_parallel": 4},
    {"n_draft": 8},
    {"n_ctx": 4096, "n_ubatch": 128},
    {"vram": "1GiB"},
    {"vram": "450MiB"},
    {"vram": "410MiB"},
    {"vram": "1MiB"},
    {"vram": "none"},
]


def divergence(reference: np.ndarray, other: np.ndarray) -> float:
    """Largest KL divergence of the next token, in nats."""
    kept = reference[: len(other)].astype(np.float64)
    return float((np.exp(kept) * (kept - other)).sum(axis=1).max())


FEW = [{}, {"n_gpu_layers": 2}, {"n_gpu_layers": 1}, {"kv_type": "q8_0"}, {"flash_attn": False}]
"""lavapipe compiles its kernels in every process anew, for half a minute to minutes."""
CASES = [("rpc", options) for options in CONFIGURATIONS] + [("vulkan", options) for options in FEW]
MEMORY = [("rpc", layers) for layers in (-1, 2, 1, 0)] + [("vulkan", layers) for layers in (-1, 2)]


def named(value: Any) -> str:
    """How a test calls a backend or options."""
    if not isinstance(value, dict):
        return str(value)
    return " ".join(f"{name}={each}" for name, each in value.items()) or "auto"


@pytest.mark.parametrize(("on_device", "options"), CASES, ids=named, indirect=["on_device"])
def test_a_configuration(on_device: Run, options: dict[str, Any], reference: Result) -> None:
    found = on_device(options)
    assert found.answers == reference.answers[: len(found.answers)]
    assert divergence(reference.logprobs, found.logprobs) < (1e-2 if options.get("kv_type") == "q4_0" else 1e-4)
    assert found.notices == []
    on_gpus = [name for name in found.layers if name != "CPU"]
    assert len(on_gpus) == found.gpu_layers
    assert set(on_gpus) <= set(found.gpus)
    if options.get("vram") in ("1MiB", "none"):
        assert found.gpus == []
    elif "n_gpu_layers" not in options and options != {"vram": "410MiB"}:  # of which 400 are for the driver
        assert found.gpu_layers == LAYERS
        assert found.encoder == (
            "CPU" if found.gpus[0].startswith("RPC") else found.gpus[0]
        )  # pictures are encoded here


@pytest.mark.parametrize("on_device", ["rpc"], indirect=True)
def test_the_numbers_of_every_kind_of_picture(on_device: Run, reference: Result) -> None:
    found = on_device({}, questions=12)
    assert found.answers == reference.answers
    assert divergence(reference.logprobs, found.logprobs) < 1e-4


@pytest.mark.parametrize(("on_device", "layers"), MEMORY, ids=named, indirect=["on_device"])
def test_planned_memory_is_what_llama_cpp_logs(on_device: Run, layers: int) -> None:
    """Never less than is taken, and little more."""
    found = on_device({"n_gpu_layers": layers})
    for device, parts in found.logged.items():
        for part in ("KV", "compute", "encoder"):
            over = (found.planned[device][part] - parts.get(part, 0)) / MIB
            assert -0.02 < over < 1.1, (device, part, over)
    for gpu in found.gpus:
        assert abs(found.planned[gpu]["model"] - found.logged.get(gpu, {}).get("model", 0)) < 0.02 * MIB
