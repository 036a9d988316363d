"""Pairs of files to measure, checked by their headers before anything is fetched or loaded."""

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
"""Downloads both files; called with the callback for progress, and the callback for a line about a wait."""


@dataclass(frozen=True)
class TextHalf:
    """A checked text model.

    Attributes:
        label: its quant, else its file's name.
        file: name of the file; of the first part if it is split.
        n_bytes: size of all parts.
        headers: headers of all parts.
        vocabulary: identity of its tokens and their order.
    """

    label: str
    file: str
    n_bytes: int
    headers: Sequence[GGUFHeader] = field(repr=False)
    vocabulary: str

    @classmethod
    def of(cls, path: str, n_bytes: int, headers: Sequence[GGUFHeader]) -> TextHalf:
        """Check a text model, given its path and the headers of all parts.

        Raises:
            ModelFileError: it is no text model of an InternVL, or damaged.
        """
        validate_text_model(headers[0], headers[1:])
        tokens = headers[0].array("tokenizer.ggml.tokens", GGUFValueType.STRING).raw_strings()
        digest = hashlib.blake2b(b"\n".join(tokens), digest_size=16).hexdigest()
        return cls(_label(path), PurePath(path).name, n_bytes, headers, digest)

    @classmethod
    def here(cls, path: Path) -> TextHalf:
        """Read and check a local file; raises the errors of `of`."""
        headers = read_text_headers(path)
        return cls.of(str(path), sum(Path(header.label).stat().st_size for header in headers), headers)


@dataclass(frozen=True)
class VisionHalf:
    """A checked mmproj; attributes as those of `TextHalf`."""

    label: str
    file: str
    n_bytes: int
    header: GGUFHeader = field(repr=False)

    @classmethod
    def of(cls, path: str, n_bytes: int, header: GGUFHeader) -> VisionHalf:
        """Check an mmproj, given its path and its header.

        Raises:
            ModelFileError: it is no mmproj of an InternVL, or damaged.
        """
        validate_mmproj(header)
        return cls(_label(path), PurePath(path).name, n_bytes, header)

    @classmethod
    def here(cls, path: Path) -> VisionHalf:
        """Read and check a local file; raises the errors of `of`."""
        header = read_header(path)
        return cls.of(str(path), path.stat().st_size, header)


@dataclass(frozen=True)
class FilePair:
    """A text model with a matching vision encoder.

    Attributes:
        text, vision: the two files.
        shape: sizes and tensors of both, from which memory is predicted.
        n_ctx_train: positions the text model was trained for.
        fetch: downloads them.
        is_here: whether both are on this machine already.
    """

    text: TextHalf
    vision: VisionHalf
    shape: ModelShape = field(repr=False)
    n_ctx_train: int
    fetch: Fetch = field(repr=False, compare=False)
    is_here: bool

    @classmethod
    def of(cls, text: TextHalf, vision: VisionHalf, fetch: Fetch, *, is_here: bool) -> FilePair:
        """Join two halves that belong together.

        Raises:
            ModelPairError: they do not belong together.
        """
        facts = validate_text_model(text.headers[0], text.headers[1:])
        validate_pair(facts, validate_mmproj(vision.header))
        return cls(text, vision, shape_from_headers(text.headers, vision.header), facts.n_ctx_train, fetch, is_here)

    @property
    def bits_per_weight(self) -> float:
        """Size of the text model's files in bits, divided by its number of weights."""
        return 8 * self.text.n_bytes / self.shape.text.parameters


def fetch_here(files: ModelFiles) -> Fetch:
    """Return the `Fetch` of local files, which checks that they still exist."""

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
    """Return the quant or precision in the name of a file or of its folder; else the file's name."""
    pure = PurePath(path)
    contents = sort_out([RepoFile(f"{pure.parent.name}/{pure.name}" if pure.parent.name else pure.name)])
    found: ModelCopy | None = next(iter((*contents.texts, *contents.mmprojs)), None)
    return str(found.quant) if found and found.quant else pure.stem
