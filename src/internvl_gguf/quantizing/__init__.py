"""Making quants: `internvl quantize`, and the ladders that benchmarks begin with.

quant_types      the types there are
source           what is quantised, checked
output           where the file goes
matrix           importance matrices and their files
calibration_set  what a model reads for one: texts, pictures, questions
calibration      having it read
process          llama.cpp's quantiser, in a process of its own
making           one file
ladder           many
"""

from typing import TYPE_CHECKING, Any

from internvl_gguf.quantizing.ladder import make_ladder
from internvl_gguf.quantizing.making import QuantizedFile, Quantizer, quantize_mmproj, quantize_text
from internvl_gguf.quantizing.matrix import ImportanceMatrix, read_matrix, write_matrix
from internvl_gguf.quantizing.quant_types import TYPES, QuantType, parse_types

if TYPE_CHECKING:
    from internvl_gguf.quantizing.calibration import Calibration, importance_matrix

__all__ = [
    "TYPES",
    "Calibration",
    "ImportanceMatrix",
    "QuantType",
    "QuantizedFile",
    "Quantizer",
    "importance_matrix",
    "make_ladder",
    "parse_types",
    "quantize_mmproj",
    "quantize_text",
    "read_matrix",
    "write_matrix",
]


def __getattr__(name: str) -> Any:
    """What loads llama.cpp into this process, which everything else here leaves to another."""
    if name in ("Calibration", "importance_matrix"):
        from internvl_gguf.quantizing import calibration

        return getattr(calibration, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
