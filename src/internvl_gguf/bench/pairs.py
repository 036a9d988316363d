"""Pairs of files to be measured, read by their headers: what is checked before anything is fetched or loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from gguf import GGUFValueType

from internvl_gguf.errors import ModelFileError
from internvl_gguf.gguf.filenames import DownloadProgress, ModelCopy, RepoFile, sort_out
from internvl_gguf.gguf.header import GGUFHeader, read_header
from internvl_gguf.gguf.validation import read_text_headers, validate_mmproj, validate_pair, validate_text_model
from internvl_gguf.memory import ModelShape, shape_from_headers
from internvl_gguf.models.local_files import ModelFiles

Fetch = Callable[[DownloadProgress, Callable[[str], None]], ModelFiles]
"""Brings both files here; told how far each file is, and given what waits are told to in one line."""


@dataclass(frozen=True)
class TextHalf:
    """A text model, checked.

    Attributes:
        label: its quant, else its file's name.
        file: the name of the file, of a split one that of the first part.
        n_bytes: size of all parts.
        headers: of all parts.
        vocabulary: identity of its tokens and their order.
    """

    label: str
    file: str
    n_bytes: int
    headers: Sequence[GGUFHeader] = field(repr=False)
    vocabulary: str

    @classmethod
    def of(cls, path: str, n_bytes: int, headers: Sequence[GGUFHeader]) -> TextHalf:
        """By its path and the headers of all parts.

        Raises:
            ModelFileError: it is no text model of an InternVL, or damaged.
        """
        validate_text_model(headers[0], headers[1:])
        tokens = headers[0].array("tokenizer.ggml.tokens", GGUFValueType.STRING).raw_strings()
        digest = hashlib.blake2b(b"\n".join(tokens), digest_size=16).hexdigest()
        return cls(_label(path), PurePath(path).name, n_bytes, headers, digest)

    @classmethod
    def here(cls, path: Path) -> TextHalf:
        """A file of this machine. Raises as `of`."""
        headers = read_text_headers(path)
        return cls.of(str(path), sum(Path(header.label).stat().st_size for header in headers), headers)


@dataclass(frozen=True)
class VisionHalf:
    """An mmproj, checked; attributes as those of `TextHalf`."""

    label: str
    file: str
    n_bytes: int
    header: GGUFHeader = field(repr=False)

    @classmethod
    def of(cls, path: str, n_bytes: int, header: GGUFHeader) -> VisionHalf:
        """By its path and its header.

        Raises:
            ModelFileError: it is no mmproj of an InternVL, or damaged.
        """
        validate_mmproj(header)
        return cls(_label(path), PurePath(path).name, n_bytes, header)

    @classmethod
    def here(cls, path: Path) -> VisionHalf:
        """A file of this machine. Raises as `of`."""
        header = read_header(path)
        return cls.of(str(path), path.stat().st_size, header)


@dataclass(frozen=True)
class Pair:
    """A text model with a vision encoder that it can be run with.

    Attributes:
        text, vision: the two.
        shape: what their memory follows from.
        n_ctx_train: positions the text model was trained for.
        fetch: brings them here.
        is_here: whether there is nothing to bring.
    """

    text: TextHalf
    vision: VisionHalf
    shape: ModelShape = field(repr=False)
    n_ctx_train: int
    fetch: Fetch = field(repr=False, compare=False)
    is_here: bool

    @classmethod
    def of(cls, text: TextHalf, vision: VisionHalf, fetch: Fetch, *, is_here: bool) -> Pair:
        """Two halves that belong together.

        Raises:
            ModelPairError: they do not.
        """
        facts = validate_text_model(text.headers[0], text.headers[1:])
        validate_pair(facts, validate_mmproj(vision.header))
        return cls(text, vision, shape_from_headers(text.headers, vision.header), facts.n_ctx_train, fetch, is_here)

    @property
    def bits_per_weight(self) -> float:
        """Bits of the text model's files by its weights."""
        return 8 * self.text.n_bytes / self.shape.text.parameters


def fetch_here(files: ModelFiles) -> Fetch:
    """The `Fetch` of files that are here; it looks whether they still are."""

    def fetch(on_progress: DownloadProgress, on_wait: Callable[[str], None]) -> ModelFiles:
        for path in (files.text, files.mmproj):
            if not path.is_file():
                raise ModelFileError(
                    f"{path} is gone since this run began.",
                    "Put it back and run the same command again: what was measured is kept.",
                )
        return files

    return fetch


def _label(path: str) -> str:
    """The quant or precision that a file is named after, by its name or its folder's; else its name."""
    pure = PurePath(path)
    contents = sort_out([RepoFile(f"{pure.parent.name}/{pure.name}" if pure.parent.name else pure.name)])
    found: ModelCopy | None = next(iter((*contents.texts, *contents.mmprojs)), None)
    return str(found.quant) if found and found.quant else pure.stem
