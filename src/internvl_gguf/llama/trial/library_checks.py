"""The checks of the trial, and how far an answer of the library may be from the known one.

The distance of an answer is the largest root mean square of its error in one row or one column, divided by the root
mean square of the expected answer. A row is a token or a patch, a column an output, so that an error in a single one is
not averaged away. The bounds are what rounding explains, with a margin for other orders of summation:

- F32 on a CPU: sums in single precision, 1e-6 each, through a dozen matrices. GPUs may multiply with 10 bits of
  mantissa (TF32, or half precision), 1e-3 a product.
- F16: activations are rounded to 11 bits, 3e-4 a matrix. BF16: to 8 bits, 2e-3 a matrix.
- quantised weights: activations are rounded to 8 bits of the largest of 32 or 256, 0.5 to 0.7% a matrix, through six
  matrices in a row and a softmax: 2 to 5% were seen. What is wrong with a kernel (rows or blocks exchanged, another
  scale, a minimum left out, the last rows or columns left out) is 20% and more; a test holds that.
- experts: the same, through two matrices in a row; all others of these models are F32, so that the choice of experts
  does not hang on rounding: 1 to 3% were seen.
- attention: keys and values of 11 bits, or 8; flash attention on a CPU sums them in half precision. Q8_0 rounds to 8
  bits of the largest of 32, Q4_0 to 4 bits, 8%, of keys and of values.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from gguf import GGMLQuantizationType

from internvl_gguf.config import EngineConfig, KVType
from internvl_gguf.errors import LibraryError
from internvl_gguf.hardware.trial.steps import EXPERTS, HEAD_NORMS
from internvl_gguf.llama.context import Context, TokenRun
from internvl_gguf.llama.library import devices
from internvl_gguf.llama.model import TextModel
from internvl_gguf.llama.synthetic import write_vocabulary
from internvl_gguf.llama.trial import tiny_encoder
from internvl_gguf.llama.trial.tiny_encoder import TinyEncoder
from internvl_gguf.llama.trial.tiny_qwen3 import TinyQwen3, TinyQwen3Moe
from internvl_gguf.llama.trial.tiny_text import VOCABULARY, TinyText
from internvl_gguf.llama.trial.weights import KINDS
from internvl_gguf.llama.vision import VisionEncoder

if TYPE_CHECKING:
    from numpy.typing import NDArray

_EXACT: Final = {"F32": 1e-4, "F16": 5e-3, "BF16": 3e-2}
_QUANTISED: Final = 0.1
_QUANTISED_EXPERTS: Final = 0.06
_ATTENTION: Final[dict[KVType, float]] = {"f32": 1e-4, "f16": 5e-3, "bf16": 3e-2}
_FLASH: Final[dict[KVType, float]] = {"f32": 3e-2, "f16": 3e-2, "bf16": 3e-2, "q8_0": 6e-2, "q4_0": 0.35}
_ENCODER: Final = {"F32": 5e-3, "F16": 5e-3, "BF16": 3e-2, "Q8_0": 0.1}
_LEAST_ON_GPU: Final = 3e-2

# Rows of the batches one after another. A batch of 45 is one block of 32 rows for AMX and a part of one, eleven groups
# of four for the reordered kernels and one row more, and from 8 rows on K-quants are multiplied in tiles; GPUs have
# kernels of their own for up to 8 rows.
_BATCHES: Final = (45, 5, 1)
# More than 256 positions, so that the last token meets 512 cells, which the CPU shares out in chunks; from 64 rows on
# attention goes in tiles.
_ATTENTION_BATCHES: Final = (300, 1)
_OUTPUTS: Final = max(_BATCHES)
_CELLS: Final = 512
_HEADS: Final = ((4, 2), (2, 1))  # of 64 numbers as in Qwen2.5-0.5B, of 128 as in all larger ones


@dataclass(frozen=True)
class Setting:
    """Settings under which the checks run.

    Attributes:
        device: name of a GPU; "" for the CPU.
        extra_buffers: whether the CPU may store weights in layouts of its own (AMX, reordered kernels).
        flash_attn: whether flash attention is used where possible.
    """

    device: str = ""
    extra_buffers: bool = True
    flash_attn: bool = True

    @property
    def handles(self) -> tuple[int, ...]:
        """ggml's handle of the GPU, as a tuple of one; empty for the CPU.

        Raises:
            LibraryError: there is no such GPU.
        """
        if not self.device:
            return ()
        found = tuple(device.handle for device in devices() if device.name == self.device)
        if not found:
            raise LibraryError(f"llama.cpp finds no device {self.device}.", "See `internvl doctor`.")
        return found[:1]


@dataclass(frozen=True)
class Answer:
    """Distance of an answer from the known one.

    Attributes:
        distance: see the module docstring.
        bound: the largest distance that rounding explains.
        shifted: whether patches got the position row of the one before them; None for checks without patches.
    """

    distance: float
    bound: float
    shifted: bool | None = None


Check = Callable[[], Answer]
"""Runs one check."""


def checks(setting: Setting) -> Iterator[tuple[str, Check]]:
    """Yield the checks of a setting that are done together, with their names, the most common first."""
    for kind in KINDS:
        yield f"weights {kind.name}", partial(_weights, setting, kind)
    for kv_type in _ATTENTION:
        yield f"attention {kv_type}", partial(_attention, setting, kv_type, flash=False)
    if setting.flash_attn:
        for kv_type in _FLASH:
            yield f"flash attention {kv_type}", partial(_attention, setting, kv_type, flash=True)
    yield HEAD_NORMS, partial(_head_norms, setting)
    for kind in tiny_encoder.KINDS:
        yield f"encoder {kind.name}", partial(_encoder, setting, kind)


def expert_checks(setting: Setting) -> Iterator[tuple[str, Check]]:
    """Yield the checks that only models with experts need; they are done for the types that such a file holds."""
    for kind in KINDS:
        yield f"{EXPERTS}{kind.name}", partial(_experts, setting, kind)


def bound_of_weights(kind: str) -> float:
    """Return the largest distance that rounding explains on a CPU, for weights of a type."""
    return _EXACT.get(kind, _QUANTISED)


def bound_of_experts(kind: str) -> float:
    """Return the same for matrices of experts, of which there are two in a row."""
    return _EXACT.get(kind, _QUANTISED_EXPERTS)


def distance(measured: NDArray[np.floating], expected: NDArray[np.floating]) -> float:
    """Return the distance of measured values [rows, columns] from the expected ones, as the module docstring defines
    it.
    """
    squares = (measured - expected) ** 2
    largest = max(squares.mean(axis=0).max(), squares.mean(axis=1).max())
    return float(np.sqrt(largest / (expected**2).mean()))


@dataclass(frozen=True)
class _Case:
    """A model, its input in consecutive batches, and the logits that it must give."""

    tiny: TinyText
    tokens: tuple[int, ...]
    batches: tuple[int, ...]
    expected: NDArray[np.float64]


@cache
def _case(kind: GGMLQuantizationType, heads: tuple[int, int], batches: tuple[int, ...]) -> _Case:
    return _case_of(TinyText.random(kind, *heads), batches)


def _case_of(tiny: TinyText, batches: tuple[int, ...]) -> _Case:
    tokens = tuple(np.random.default_rng(5).integers(0, VOCABULARY, sum(batches)).tolist())
    return _Case(tiny, tokens, batches, tiny.logits(tokens))


def _weights(setting: Setting, kind: GGMLQuantizationType) -> Answer:
    """Check matrices of one type, with an F32 cache and without flash attention, which could hide errors."""
    measured = _text_distance(setting, _case(kind, _HEADS[0], _BATCHES), "f32", flash=False)
    return Answer(measured, _on_device(setting, bound_of_weights(kind.name)))


def _attention(setting: Setting, kv_type: KVType, *, flash: bool) -> Answer:
    """Check a KV cache of one type, with both head sizes."""
    cases = [_case(GGMLQuantizationType.F32, heads, _ATTENTION_BATCHES) for heads in _HEADS]
    distances = [_text_distance(setting, case, kv_type, flash=flash) for case in cases]
    return Answer(max(distances), _on_device(setting, (_FLASH if flash else _ATTENTION)[kv_type]))


def _head_norms(setting: Setting) -> Answer:
    """Check norms of each head's queries and keys, before positions rotate them into an F16 cache."""
    measured = _text_distance(setting, _case_of(TinyQwen3.dense(), _BATCHES), "f16", flash=False)
    return Answer(measured, _on_device(setting, _ATTENTION["f16"]))


def _experts(setting: Setting, kind: GGMLQuantizationType) -> Answer:
    """Check the choice of experts, and products with the chosen ones' matrices of one type."""
    measured = _text_distance(setting, _case_of(TinyQwen3Moe.of_experts(kind), _BATCHES), "f32", flash=False)
    return Answer(measured, _on_device(setting, bound_of_experts(kind.name)))


def _text_distance(setting: Setting, case: _Case, kv_type: KVType, *, flash: bool) -> float:
    """Return the distance of the logits of the last tokens of each batch, over all batches together."""
    config = EngineConfig(n_batch=_CELLS, n_ubatch=_CELLS, n_draft=_OUTPUTS - 1, kv_type=kv_type, flash_attn=flash)
    measured, expected, end = [], [], 0
    with ExitStack() as opened:
        path = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="internvl-trial-")), "text.gguf")
        case.tiny.write(path)
        model = TextModel(
            path,
            n_gpu_layers=-1 if setting.device else 0,
            devices=setting.handles,
            use_extra_bufts=setting.extra_buffers,
        )
        opened.callback(model.close)
        context = opened.enter_context(Context(model, config, n_ctx=_CELLS, n_threads=1))
        for count in case.batches:
            outputs = min(count, _OUTPUTS)
            context.decode_many([TokenRun(case.tokens[end : end + count], end, 0, outputs)])
            end += count
            measured += [context.logits(row).copy() for row in range(count - outputs, count)]
            expected += list(case.expected[end - outputs : end])
    return distance(np.stack(measured), np.stack(expected))


def _encoder(setting: Setting, kind: GGMLQuantizationType) -> Answer:
    """Check a tile through a vision encoder; either rule for position rows counts as right."""
    tiny = TinyEncoder.random(kind)
    shape = tiny_encoder.SHAPE
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="internvl-trial-")))
        write_vocabulary(folder / "text.gguf", shape.projection_dim)
        tiny.write(folder / "mmproj.gguf")
        model = opened.enter_context(TextModel(folder / "text.gguf", vocab_only=True))
        encoder = opened.enter_context(
            VisionEncoder(
                folder / "mmproj.gguf",
                model,
                tile_size=shape.image_size,
                tokens_per_tile=shape.tokens_per_tile,
                n_embd=shape.projection_dim,
                use_gpu=bool(setting.device),
                n_threads=1,
                flash_attn=setting.flash_attn,
                device=next(iter(setting.handles), None),
            )
        )
        measured = encoder.encode([tiny.pixels.tobytes()])[0]
    distances = {shifted: distance(measured, tiny.embeddings(shifted=shifted)) for shifted in (False, True)}
    nearest = min(distances, key=lambda shifted: distances[shifted])
    return Answer(distances[nearest], _on_device(setting, _ENCODER[kind.name]), shifted=nearest)


def _on_device(setting: Setting, bound: float) -> float:
    """Return a bound for the CPU, or the larger bound for a GPU."""
    return max(bound, _LEAST_ON_GPU) if setting.device else bound
