"""Make quants: `internvl quantize`, and the sets of quants that benchmarks compare.

quant_types        the supported types
source             the model to quantise, checked
output_files       names and checks of output files
matrix             importance matrices and their files
calibration_set    calibration data: texts, pictures, questions
calibration        run a model over calibration data to make an importance matrix
quantizer_process  parent side of the child process that runs llama.cpp's quantiser
quantizer          make one file
quant_ladder       make one file for each of several types
"""

from typing import TYPE_CHECKING, Any

from internvl_gguf.quantizing.matrix import ImportanceMatrix, read_matrix, write_matrix
from internvl_gguf.quantizing.quant_ladder import make_ladder
from internvl_gguf.quantizing.quant_types import TYPES, QuantType, parse_types
from internvl_gguf.quantizing.quantizer import QuantizedFile, Quantizer, quantize_mmproj, quantize_text

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
    """Import `calibration` on first use: it loads llama.cpp, which everything else here runs in a child process."""
    if name in ("Calibration", "importance_matrix"):
        from internvl_gguf.quantizing import calibration

        return getattr(calibration, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
