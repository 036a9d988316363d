"""The model architectures, one file each; used by validation, memory, planning and quantising.

base       classes for the sizes of models, their keys and their tensors
qwen2      text models: Qwen2.5
internvit  the vision encoder with its projector

A new text architecture is a file here with its keys and tensors, a line in `TEXT_ARCHITECTURES`, and a graph in
`memory.text_graph`.
"""

from collections.abc import Mapping
from typing import Final

from internvl_gguf.gguf.arch.base import TextArchitecture
from internvl_gguf.gguf.arch.qwen2 import QWEN2

TEXT_ARCHITECTURES: Final[Mapping[str, TextArchitecture]] = {each.name: each for each in (QWEN2,)}
"""The text models that run here, by `general.architecture`."""

KNOWN_ARCHITECTURES: Final = " or ".join(f'"{name}"' for name in TEXT_ARCHITECTURES)
"""Their names for error messages."""
