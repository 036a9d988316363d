"""The model architectures, one file each; used by validation, memory, planning and quantising.

base               classes for the sizes of models, their keys and their tensors
text_architecture  the class of text architectures
decoder            parts that several text models have in common
qwen2              text models: Qwen2.5
qwen3              Qwen3
qwen3moe           Qwen3-MoE
internlm2          InternLM2.5
internlm3          InternLM3, whose files are of the architecture "llama"
internvit          the vision encoder with its projector

A new text architecture is a file here with its keys and tensors, a line in `TEXT_ARCHITECTURES`, and a graph in
`memory.text_graph`.
"""

from collections.abc import Mapping
from typing import Final

from internvl_gguf.gguf.arch.internlm2 import INTERNLM2
from internvl_gguf.gguf.arch.internlm3 import INTERNLM3
from internvl_gguf.gguf.arch.qwen2 import QWEN2
from internvl_gguf.gguf.arch.qwen3 import QWEN3
from internvl_gguf.gguf.arch.qwen3moe import QWEN3MOE
from internvl_gguf.gguf.arch.text_architecture import TextArchitecture

_KNOWN: Final = (QWEN2, QWEN3, QWEN3MOE, INTERNLM2, INTERNLM3)

TEXT_ARCHITECTURES: Final[Mapping[str, TextArchitecture]] = {each.name: each for each in _KNOWN}
"""The text models that run here, by `general.architecture`."""

*_FIRST, _LAST = (f'"{name}"' for name in TEXT_ARCHITECTURES)

KNOWN_ARCHITECTURES: Final = f"{', '.join(_FIRST)} or {_LAST}"
"""Their names for error messages."""
