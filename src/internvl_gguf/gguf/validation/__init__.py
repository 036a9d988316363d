"""Checks of model files before llama.cpp sees them: it aborts on some faults, and gives wrong answers on others.

`validate_files` checks a pair of files completely. Its parts: `validate_text_model` and `validate_mmproj` for headers,
`check_finite` for weights, `validate_pair` for whether two files belong together.
"""

from internvl_gguf.gguf.validation.checks import Identity
from internvl_gguf.gguf.validation.finite import check_finite
from internvl_gguf.gguf.validation.mmproj import MmprojFacts, most_tiles_of, validate_mmproj
from internvl_gguf.gguf.validation.pair import ModelPair, model_in, validate_files, validate_pair
from internvl_gguf.gguf.validation.text import (
    TextModelFacts,
    has_thinking_tokens,
    read_text_headers,
    validate_text_model,
)

__all__ = [
    "Identity",
    "MmprojFacts",
    "ModelPair",
    "TextModelFacts",
    "check_finite",
    "has_thinking_tokens",
    "model_in",
    "most_tiles_of",
    "read_text_headers",
    "validate_files",
    "validate_mmproj",
    "validate_pair",
    "validate_text_model",
]
