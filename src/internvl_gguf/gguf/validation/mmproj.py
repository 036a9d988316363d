"""Validate the header of an mmproj: an InternViT with pixel unshuffle and projector.

The checks cover everything that llama.cpp's loader and graph (`tools/mtmd/clip.cpp`, `models/internvl.cpp` at the
revision in llama-cpp-python 0.3.36) assert, dereference or accept silently. The loader treats most tensors as optional
and ignores unknown ones, so that a renamed bias gives wrong answers and no error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gguf import GGUFValueType

from internvl_gguf.gguf.arch.base import Key, MmprojShape
from internvl_gguf.gguf.arch.internvit import (
    FILE_KEYS,
    INTERNVIT,
    PROJECTOR,
    SIZE_KEYS,
    encoder_keys,
    read_mmproj_shape,
    release_of,
)
from internvl_gguf.gguf.file_kind import refuse_matrix
from internvl_gguf.gguf.validation.checks import (
    GENERAL_KEYS,
    Identity,
    check_all_known,
    check_key_types,
    check_keys,
    check_tensors,
    read_identity,
)

if TYPE_CHECKING:
    from internvl_gguf.gguf.header import GGUFHeader

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)

_OTHER_MMPROJ_HINT: Final = "Use the mmproj that comes with the InternVL3 model."
_TILES_HINT: Final = "Take an mmproj that was converted with the limits of its model card: 1 and 12."
_LEAST_TILES: Final = "clip.vision.preproc_min_tiles"
_MOST_TILES: Final = "clip.vision.preproc_max_tiles"
_MAX_TILES: Final = 64  # as many as `tiling` cuts a picture into
_CARD_TILES: Final = (1, 12)  # what llama.cpp takes for limits that the file does not have
_KEYS: Final = {**GENERAL_KEYS, "general.description": Key("STRING"), **FILE_KEYS, **SIZE_KEYS}

# Tensors that InternViT does not have, but clip.cpp's shared code would use.
_FOREIGN: Final = re.compile(r"v\.(pre_ln|post_ln|norm_embd|deepstack)\..*|v\.patch_embd\.weight\.1")


@dataclass(frozen=True, kw_only=True)
class MmprojFacts(MmprojShape):
    """Checked facts in the header of an mmproj: its sizes, and the following.

    Attributes:
        label: what error messages call the file.
        eps: epsilon of its norms.
        qk_norm: whether queries and keys are normalised (InternViT-6B).
        projector: always "internvl".
        file_type: `general.file_type`, llama.cpp's number of the storage type; None where the file does not say.
        min_tiles, max_tiles: fewest and most tiles of a picture, the thumbnail not counted; None where the file does
            not say.
        identity: names in the metadata.
        weight_bytes: bytes of all tensors.
    """

    label: str
    eps: float
    qk_norm: bool
    projector: str
    file_type: int | None
    min_tiles: int | None
    max_tiles: int | None
    identity: Identity
    weight_bytes: int

    @property
    def name(self) -> str:
        """`general.name`; empty where the file has none."""
        return self.identity.name


def validate_mmproj(header: GGUFHeader) -> MmprojFacts:
    """Check that a header is that of an InternVL mmproj which llama.cpp loads and computes correctly.

    Raises:
        ModelFileError: it is damaged, or another kind of model.
    """
    _check_kind(header)
    check_key_types(header, _KEYS)
    shape = read_mmproj_shape(header)
    release = release_of(shape.n_layers, shape.n_embd)
    if release and shape.n_head != release.n_head:
        raise header.error(
            f"an InternViT of {shape.n_layers} layers {shape.n_embd} wide does not have {shape.n_head} heads"
        )
    check_keys(header, encoder_keys(shape))
    _check_preprocessing(header)
    expected = check_tensors(header, header.tensors, INTERNVIT.tensors(shape, header.tensors))
    used = (name for name in header.tensors if name.startswith(INTERNVIT.block) or _FOREIGN.fullmatch(name))
    check_all_known(header, used, expected, INTERNVIT.title)
    return MmprojFacts(
        **shape.sizes,
        label=header.label,
        eps=header.number("clip.vision.attention.layer_norm_epsilon"),
        qk_norm="v.blk.0.attn_q_norm.weight" in header.tensors,
        projector=PROJECTOR,
        file_type=_integer_if_given(header, "general.file_type"),
        min_tiles=_integer_if_given(header, _LEAST_TILES),
        max_tiles=_integer_if_given(header, _MOST_TILES),
        identity=read_identity(header),
        weight_bytes=header.weight_bytes,
    )


def most_tiles_of(header: GGUFHeader) -> int | None:
    """Return the most tiles of a picture that an mmproj says, the thumbnail not counted; None if it does not say.

    Raises:
        ModelFileError: limits that contradict each other.
    """
    _check_tile_limits(header)
    return _integer_if_given(header, _MOST_TILES)


def _check_kind(header: GGUFHeader) -> None:
    refuse_matrix(header)
    architecture = header.text("general.architecture")
    if architecture != "clip":
        raise header.error(
            f'it is a text model of architecture "{architecture}", no mmproj',
            "Name it as the model, and pass the file with mmproj in its name as --mmproj.",
        )
    projector = header.text("clip.projector_type", "") or header.text("clip.vision.projector_type", "")
    if projector != PROJECTOR:
        raise header.error(f'it is the mmproj of another model: its projector is "{projector}"', _OTHER_MMPROJ_HINT)
    if not header.boolean("clip.has_vision_encoder", False):
        raise header.error("it has no vision encoder", _OTHER_MMPROJ_HINT)
    if header.boolean("clip.has_audio_encoder", False) or header.boolean("clip.has_gen_audio_encoder", False):
        raise header.error("it has an audio encoder, which no InternVL has", _OTHER_MMPROJ_HINT)


def _check_preprocessing(header: GGUFHeader) -> None:
    """Check activation, pixel statistics and tile limits, which are the same in every InternVL."""
    if header.boolean("clip.use_gelu", False) == header.boolean("clip.use_silu", False):
        raise header.error("it does not say which activation its feed-forward layers have, gelu or silu")
    for key, expected in (("image_mean", IMAGENET_MEAN), ("image_std", IMAGENET_STD)):
        found = header.array(f"clip.vision.{key}", GGUFValueType.FLOAT32).numbers()
        if len(found) != 3 or not all(abs(a - b) < 0.005 for a, b in zip(found, expected, strict=True)):
            shown = ", ".join(f"{value:g}" for value in found[:4])
            raise header.error(f"its {key} is [{shown}], not ImageNet's, which every InternVL is trained with")
    _check_tile_limits(header)
    for key in ("feature_layer", "image_grid_pinpoints"):
        if f"clip.vision.{key}" in header and header.array(f"clip.vision.{key}", GGUFValueType.INT32).count:
            raise header.error(f"it has {key}, which no InternVL has", _OTHER_MMPROJ_HINT)


def _check_tile_limits(header: GGUFHeader) -> None:
    """Check the tile limits that a file may have. Where they leave no grid, llama.cpp ends the process."""
    least, most = header.integer(_LEAST_TILES, _CARD_TILES[0]), header.integer(_MOST_TILES, _CARD_TILES[1])
    said = f"it says that a picture is cut into at least {least} and at most {most} tiles"
    if least < 1 or most < least:
        raise header.error(f"{said}, which no picture can be", _TILES_HINT)
    if most > _MAX_TILES:
        raise header.error(f"{said}, and {_MAX_TILES} are the most here", _TILES_HINT)
    if most < least**2:
        raise header.error(f"{said}; llama.cpp wants {least} along each side and finds no grid", _TILES_HINT)


def _integer_if_given(header: GGUFHeader, key: str) -> int | None:
    return header.integer(key) if key in header else None
