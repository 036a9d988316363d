"""Model files checked before the native library sees them: llama.cpp aborts on some, and lies about others.

`validate_files` does it all for a pair of files. Its parts: `validate_text_model` and `validate_mmproj` for headers,
`check_finite` for weights, `validate_pair` for whether two files belong together.
"""

from internvl_gguf.gguf.validation.checks import Identity
from internvl_gguf.gguf.validation.finite import check_finite
from internvl_gguf.gguf.validation.mmproj import MmprojFacts, validate_mmproj
from internvl_gguf.gguf.validation.pair import ModelPair, NamedModel, model_in, validate_files, validate_pair
from internvl_gguf.gguf.validation.text import TextModelFacts, read_text_headers, validate_text_model

__all__ = [
    "Identity",
    "MmprojFacts",
    "ModelPair",
    "NamedModel",
    "TextModelFacts",
    "check_finite",
    "model_in",
    "read_text_headers",
    "validate_files",
    "validate_mmproj",
    "validate_pair",
    "validate_text_model",
]
