"""Settings under which a tiny model computes the same however a prompt is cut into batches."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from internvl_gguf.config import EncoderLibrary, EncoderPrecision, FlashAttention, KVType


class ExactArithmetic(TypedDict):
    """The options of `Session.open` that decide how attention and the vision encoder round."""

    kv_type: KVType
    flash_attn: FlashAttention
    encoder: NotRequired[EncoderLibrary]
    encoder_precision: NotRequired[EncoderPrecision]


class ExactOptions(ExactArithmetic):
    """The options of `Session.open` that `EXACT` sets."""

    n_threads: int
    embedding_disk_bytes: int


EXACT_ARITHMETIC: ExactArithmetic = {"kv_type": "f32", "flash_attn": False}
# What is compared is computed, and does not come from the disk cache of an earlier test.
EXACT: ExactOptions = {**EXACT_ARITHMETIC, "n_threads": 1, "embedding_disk_bytes": 0}
EXACT_WITH_DISK_CACHE: ExactOptions = {**EXACT, "embedding_disk_bytes": 2**30}
