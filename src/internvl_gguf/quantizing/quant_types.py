"""The types a model can be quantised to, by the names in file names."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.gguf.filenames import Quant

Kind = Literal["text", "mmproj"]


@dataclass(frozen=True)
class QuantType:
    """A file type that llama.cpp makes.

    Attributes:
        label: the name in file names, for example Q4_K_M.
        for_mmproj: whether a vision encoder may be stored in it.
    """

    label: str
    for_mmproj: bool = False


# Not here: MXFP4_MOE, which is Q8_0 for a model without experts; NVFP4, which the library does not make; Q2_0, which
# the `gguf` package cannot read. Mixtures such as Q4_K_M follow rules made for text models, so an mmproj has none.
TYPES: Final = (
    QuantType("F32", for_mmproj=True),
    QuantType("BF16", for_mmproj=True),
    QuantType("F16", for_mmproj=True),
    QuantType("Q8_0", for_mmproj=True),
    QuantType("Q6_K", for_mmproj=True),
    QuantType("Q5_1", for_mmproj=True),
    QuantType("Q5_K_M"),
    QuantType("Q5_K_S", for_mmproj=True),
    QuantType("Q5_0", for_mmproj=True),
    QuantType("Q4_1", for_mmproj=True),
    QuantType("Q4_K_M"),
    QuantType("Q4_K_S", for_mmproj=True),
    QuantType("Q4_0", for_mmproj=True),
    QuantType("IQ4_NL", for_mmproj=True),
    QuantType("IQ4_XS", for_mmproj=True),
    QuantType("Q3_K_L"),
    QuantType("Q3_K_M"),
    QuantType("IQ3_M"),
    QuantType("Q3_K_S", for_mmproj=True),
    QuantType("IQ3_S", for_mmproj=True),
    QuantType("IQ3_XS"),
    QuantType("IQ3_XXS"),
    QuantType("Q2_K", for_mmproj=True),
    QuantType("Q2_K_S"),
    QuantType("IQ2_M"),
    QuantType("IQ2_S"),
    QuantType("IQ2_XS"),
    QuantType("IQ2_XXS"),
    QuantType("TQ2_0"),
    QuantType("IQ1_M"),
    QuantType("TQ1_0"),
    QuantType("IQ1_S"),
    QuantType("Q1_0"),
)
"""All types that can be made, the largest first. TQ2_0, TQ1_0 and Q1_0 suit models that were trained in them only."""

_ALIASES: Final = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}  # as in llama-quantize


def parse_types(text: str) -> tuple[QuantType, ...]:
    """Parse comma-separated types, in any case; repeated ones count once.

    Raises:
        InvalidRequestError: a name that is no type, with the nearest ones.
    """
    found = [_parse(name) for name in text.split(",")]
    return tuple(dict.fromkeys(found))


def _parse(name: str) -> QuantType:
    quant = Quant.parse(name)
    label = str(quant) if quant else name.strip().upper().replace("-", "_")
    label = _ALIASES.get(label, label)
    known = {kind.label: kind for kind in TYPES}
    if label in known:
        return known[label]
    near = difflib.get_close_matches(label.removeprefix("UD-").removeprefix("UD_"), known, n=3, cutoff=0.4)
    hint = f"Did you mean {', '.join(near)}? " if near else ""
    hint += "Dynamic quants are Unsloth's own." if quant and quant.dynamic else f"There are {', '.join(known)}."
    raise InvalidRequestError(f"There is no type {name.strip()!r} to quantise to.", hint)


def check_kind(kind: Kind, types: Sequence[QuantType]) -> None:
    """Refuse types that a vision encoder cannot be stored in.

    Raises:
        InvalidRequestError: `kind` is mmproj, and one of them is for text models only.
    """
    wrong = [each.label for each in types if kind == "mmproj" and not each.for_mmproj]
    if wrong:
        fitting = ", ".join(each.label for each in TYPES if each.for_mmproj)
        raise InvalidRequestError(
            f"{', '.join(wrong)} {'is' if len(wrong) == 1 else 'are'} for text models, not for an mmproj.",
            f"A vision encoder can be {fitting}.",
        )
