"""Open the vision encoder of a model: in llama.cpp, its position rows corrected if need be, or in OpenVINO."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import weakref
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from internvl_gguf.errors import LibraryError
from internvl_gguf.llama.library import Device
from internvl_gguf.llama.model import TextModel
from internvl_gguf.llama.position_fix import corrected_copy, write_corrected
from internvl_gguf.llama.vision import EncoderMemory, VisionEncoder, encoder_arithmetic
from internvl_gguf.utils.notices import Notice
from internvl_gguf.utils.paths import cache_dir

if TYPE_CHECKING:
    from internvl_gguf.config import EncoderKind
    from internvl_gguf.gguf.header import GGUFHeader
    from internvl_gguf.gguf.validation import MmprojFacts
    from internvl_gguf.vision.contract import TileEncoder


@dataclass(frozen=True)
class EncoderPlace:
    """Where and how an encoder runs.

    Attributes:
        kind: what encodes.
        gpu: the GPU; None for the CPU.
        memory: memory that it takes there, as planned.
        n_threads: CPU threads.
        flash_attn: whether llama.cpp's flash attention is used.
        device: OpenVINO's device.
    """

    kind: EncoderKind
    gpu: Device | None
    memory: EncoderMemory
    n_threads: int
    flash_attn: bool
    device: str


class EncoderFile:
    """An mmproj and how this machine's libraries read it.

    Args:
        path: the published file.
        header: its header.
        facts: what its validation found.
        fingerprint: identity of its content.
        is_shifted: whether llama.cpp gives each patch its neighbour's position here.
        on_notice: told where nothing can be kept on disk.

    Attributes:
        is_cache_unwritable: whether the cache folder turned out not to be writable.
    """

    def __init__(
        self,
        path: Path,
        header: GGUFHeader,
        facts: MmprojFacts,
        fingerprint: str,
        *,
        is_shifted: bool,
        on_notice: Notice,
    ) -> None:
        self._path = path
        self._header = header
        self._facts = facts
        self._fingerprint = fingerprint
        self._is_shifted = is_shifted
        self._on_notice = on_notice
        self._temporary: weakref.finalize[..., EncoderFile] | None = None
        self.is_cache_unwritable = False

    def open(self, model: TextModel, place: EncoderPlace) -> TileEncoder:
        """Load the encoder; the caller closes it before the text model.

        Raises:
            ModelFileError, LibraryError: a library refused, or has no memory for it.
        """
        if place.gpu is None and place.kind != "llama.cpp":
            from internvl_gguf.vision.openvino_encoder import OpenVINOEncoder

            precision: Literal["f32", "bf16"] = "bf16" if place.kind == "openvino bf16" else "f32"
            return OpenVINOEncoder(
                self._path,
                self._header,
                self._facts,
                precision=precision,
                n_threads=place.n_threads,
                device=place.device,
            )
        return VisionEncoder(
            self._file_of_llama_cpp,
            model,
            tile_size=self._facts.image_size,
            tokens_per_tile=self._facts.tokens_per_tile,
            n_embd=self._facts.projection_dim,
            use_gpu=place.gpu is not None,
            n_threads=place.n_threads,
            flash_attn=place.flash_attn,
            device=place.gpu.handle if place.gpu else None,
            room=place.memory,
        )

    @property
    def identity(self) -> bytes:
        """Digest of what decides the embeddings, but for the rounding of a library or device."""
        return hashlib.blake2b(self._identity_text.encode()).digest()

    def identity_in(self, place: EncoderPlace) -> bytes:
        """Digest of all that decides the embeddings: the key under which they are kept."""
        if place.gpu is None and place.kind != "llama.cpp":
            from internvl_gguf.vision.openvino_encoder import openvino_arithmetic

            arithmetic = openvino_arithmetic(place.kind, place.device)
        else:
            arithmetic = encoder_arithmetic(place.gpu, flash_attn=place.flash_attn)
        return hashlib.blake2b(f"{self._identity_text}|{arithmetic}".encode()).digest()

    @property
    def _identity_text(self) -> str:
        return f"{self._fingerprint}|{self._is_shifted}"

    def discard_temporary(self) -> None:
        """Remove a corrected copy that could not be kept in the cache folder."""
        if self._temporary:
            self._temporary()

    def disown_temporary(self) -> None:
        """Leave that copy to the process that made it."""
        if self._temporary:
            self._temporary.detach()

    @cached_property
    def _file_of_llama_cpp(self) -> Path:
        """The file with its position rows corrected if need be: kept, or temporary if nothing can be kept."""
        if not self._is_shifted:
            return self._path
        try:
            return corrected_copy(self._path, self._header, self._fingerprint)
        except LibraryError as error:
            try:
                folder = Path(tempfile.mkdtemp(prefix="internvl-"))
                self._temporary = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
                copy = write_corrected(self._path, self._header, folder / self._path.name)
            except OSError:
                raise error from None
        self._on_notice(
            f"{cache_dir()} cannot be written: nothing is kept for the next time, and the corrected vision encoder "
            f"lies in {folder} meanwhile. INTERNVL_CACHE names another folder."
        )
        self.is_cache_unwritable = True
        return copy
