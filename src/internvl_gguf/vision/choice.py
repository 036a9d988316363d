"""Choose the encoder of pictures on the CPU: OpenVINO if it is installed and was measured to be faster."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from internvl_gguf.config import EncoderKind, EngineConfig
from internvl_gguf.errors import LibraryError
from internvl_gguf.hardware.encoder_precision import known_seconds, measured_seconds

if TYPE_CHECKING:
    from internvl_gguf.utils.notices import Notice

_WORTH_LOADING: Final = 50e9
"""Operations of a tile: 730e9 for InternViT-300M. A smaller encoder takes less time than OpenVINO takes to load."""
_WORTH_SWITCHING: Final = 0.9  # share of llama.cpp's time
_RELEASES: Final = "2026"  # the extra in pyproject.toml asks for the same
_FILE_TYPE: Final = "F16"
_INSTALL: Final = "pip install 'internvl-gguf[openvino]'"


def why_not() -> str:
    """Return why OpenVINO cannot be used, as a sentence that ends in what to do; "" if it can. It is not loaded."""
    try:
        version = importlib.metadata.version("openvino")
    except importlib.metadata.PackageNotFoundError:
        return f"OpenVINO is not installed: {_INSTALL} brings it."
    if version.split(".")[0] != _RELEASES:
        return f"OpenVINO {version} is installed, and this package works with {_RELEASES}: {_INSTALL} brings it."
    return ""


def choose_encoder(
    config: EngineConfig, mmproj_type: str, operations: float, *, is_cpu_alone: bool, on_notice: Notice
) -> EncoderKind:
    """Return the encoder to use for the pictures of a model that is loaded.

    Args:
        config: what the user wants.
        mmproj_type: storage type of most of the mmproj's weights, such as "F16".
        operations: floating-point operations of one tile.
        is_cpu_alone: whether nothing of the model may lie on a GPU.
        on_notice: told where the user's choice cannot be had, and before a measurement of some seconds.
    """
    if config.encoder == "llama.cpp":
        return "llama.cpp"
    is_asked_for = config.encoder == "openvino"
    if problem := why_not():
        if is_asked_for:
            on_notice(f"{problem} Meanwhile llama.cpp encodes the pictures.")
        return "llama.cpp"
    if not is_asked_for and (not is_cpu_alone or operations < _WORTH_LOADING):
        return "llama.cpp"
    try:
        kind = _in_precision(config)
    except LibraryError as error:
        if is_asked_for:
            on_notice(f"{error.message} llama.cpp encodes the pictures.")
        return "llama.cpp"
    if is_asked_for or _is_faster(kind, mmproj_type, on_notice):
        return kind
    return "llama.cpp"


def _in_precision(config: EngineConfig) -> EncoderKind:
    """Return OpenVINO in the precision that is asked for, or that suits the CPU.

    Raises:
        LibraryError: OpenVINO cannot be loaded, or cannot use this CPU.
    """
    if config.encoder_precision == "auto":
        from internvl_gguf.vision.openvino_encoder import has_bfloat16

        is_cpu = config.encoder_device == EngineConfig.encoder_device
        return "openvino bf16" if is_cpu and has_bfloat16() else "openvino f32"
    return "openvino bf16" if config.encoder_precision == "bf16" else "openvino f32"


def _is_faster(kind: EncoderKind, mmproj_type: str, on_progress: Callable[[str], None]) -> bool:
    """Return whether OpenVINO takes clearly less time than llama.cpp, measured once on this machine."""
    seconds = measured_seconds((mmproj_type, kind), on_progress)
    if kind not in seconds or mmproj_type not in seconds:
        return False
    return seconds[kind] < _WORTH_SWITCHING * seconds[mmproj_type]


def measured_choice() -> tuple[EncoderKind, str]:
    """Return what "auto" takes for a model on the CPU of this machine, and why; nothing is measured.

    It is for InternViT-300M with an mmproj in F16. The reason follows the name in a sentence.
    """
    if problem := why_not():
        return "llama.cpp", problem.removesuffix(".")
    seconds = known_seconds()
    kinds: tuple[EncoderKind, ...] = ("openvino bf16", "openvino f32")
    known = [kind for kind in kinds if kind in seconds and _FILE_TYPE in seconds]
    if not known:
        return "llama.cpp", "until `internvl doctor --measure`, or the first model, finds OpenVINO faster here"
    ratio = seconds[known[0]] / seconds[_FILE_TYPE]
    if ratio < _WORTH_SWITCHING:
        return known[0], f"measured at {ratio:.2f} times llama.cpp's time"
    return "llama.cpp", f"OpenVINO was measured at {ratio:.2f} times its time"
