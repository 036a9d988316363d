"""Classify the files of a GGUF repository or folder by their names alone.

Publishers agree on little: a quant may stand in the file's name or in its folder's, large files are split into parts,
Unsloth's Dynamic quants carry a `UD-` before the quant, and beside the text model lie mmproj files, importance matrices
and draft models. Names are parsed, labels of a listing are not (they drop the `UD-`).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from internvl_gguf.gguf.file_pieces import in_order, whole_name

_QUANT = r"I?Q[1-9](?:_[0-9A-Z]+)*|TQ[12]_0|MXFP4(?:_MOE)?|NVFP4|BF16|F16|F32|FP16|FP32"
_IN_NAME = re.compile(rf"(?:^|[-._])(?P<dynamic>UD[-_])?(?P<quant>{_QUANT})(?=$|[-.])", re.IGNORECASE)
_PART = re.compile(r"-(?P<index>\d{5})-of-(?P<count>\d{5})$")
_NO_MODEL = re.compile(r"imatrix|(?:^|[-._])(?:draft|vocab|eagle\d*|mtp|lora|adapter)(?:$|[-._])", re.IGNORECASE)
_MMPROJ = re.compile(r"mmproj", re.IGNORECASE)
_DYNAMIC = "UD-"


@dataclass(frozen=True)
class RepoFile:
    """One file of a repository.

    Attributes:
        path: its path inside the repository, with forward slashes.
        size: bytes; None if unknown.
        digest: the hub's digest of its content: sha256 in hexadecimal of a large file, git's sha1 of a small one.
    """

    path: str
    size: int | None = None
    digest: str | None = None


DownloadProgress = Callable[[RepoFile, int], None]
"""Called with a file and how many of its bytes are here, often."""


@dataclass(frozen=True)
class Quant:
    """A quantisation type, as it stands in file names.

    Attributes:
        label: upper-case with underscores, for example Q4_K_XL.
        dynamic: whether it is one of Unsloth's Dynamic quants (`UD-`).
    """

    label: str
    dynamic: bool = False

    def __str__(self) -> str:
        return f"{_DYNAMIC if self.dynamic else ''}{self.label}"

    @classmethod
    def parse(cls, text: str) -> Quant | None:
        """Parse the name of a quant in any case, with - or _; None if `text` is no such name."""
        upper = text.strip().upper().replace("-", "_")
        dynamic = upper.startswith("UD_")
        label = upper.removeprefix("UD_")
        if not re.fullmatch(_QUANT, label):
            return None
        return cls({"FP16": "F16", "FP32": "F32"}.get(label, label), dynamic)


@dataclass(frozen=True)
class ModelCopy:
    """One quant of a text model, or one precision of an mmproj: a file, or the parts of a split one in order.

    Attributes:
        quant: quant in its name; None if the name has none.
        parts: all its files, in order.
        is_complete: whether no part is missing, and llama.cpp reads them as they are.
    """

    quant: Quant | None
    parts: tuple[RepoFile, ...]
    is_complete: bool = True

    @property
    def first(self) -> RepoFile:
        """The file to open; llama.cpp finds the other parts by their names."""
        return self.parts[0]

    @property
    def size(self) -> int | None:
        """Bytes of all parts; None if one is unknown."""
        sizes = [part.size for part in self.parts if part.size is not None]
        return sum(sizes) if len(sizes) == len(self.parts) else None

    @property
    def name(self) -> str:
        """Name to choose it by: its quant, else its file's name."""
        return str(self.quant) if self.quant else self.first.path


@dataclass(frozen=True)
class RepoContents:
    """The model files of a repository, sorted out.

    Attributes:
        texts: text models, largest quant first where sizes are known.
        mmprojs: vision encoders.
    """

    texts: tuple[ModelCopy, ...]
    mmprojs: tuple[ModelCopy, ...]


def is_safe_path(path: str) -> bool:
    """Return whether a path from a listing stays inside the folder it is put in, on every system."""
    if not path or "\\" in path or ":" in path or not path.isprintable() or path.startswith("/"):
        return False
    return all(part not in ("", ".", "..") for part in path.split("/"))


def sort_out(files: Iterable[RepoFile]) -> RepoContents:
    """Sort files into text models, mmproj files and others; files with unsafe paths count as others."""
    texts: dict[tuple[str, str], list[tuple[int, int, RepoFile]]] = {}
    mmprojs: dict[tuple[str, str], list[tuple[int, int, RepoFile]]] = {}
    for file in files:
        whole = whole_name(file.path)
        path = PurePosixPath(whole or file.path)
        if path.suffix.lower() != ".gguf" or not is_safe_path(file.path) or _NO_MODEL.search(path.stem):
            continue
        part = _PART.search(path.stem)
        # Pieces stand for themselves: the file that they are pieces of may lie beside them.
        # The names of parts may differ in case: 38B in one, 38b in the next.
        stem = path.name if whole else path.stem[: part.start()].lower() if part else path.stem
        index, count = (int(part["index"]), int(part["count"])) if part else (1, 1)
        group = mmprojs if _MMPROJ.search(path.name) else texts
        group.setdefault((str(path.parent), stem), []).append((index, count, file))
    return RepoContents(_copies(texts), _copies(mmprojs))


def _copies(groups: dict[tuple[str, str], list[tuple[int, int, RepoFile]]]) -> tuple[ModelCopy, ...]:
    copies = []
    for (folder, stem), parts in groups.items():
        parts.sort(key=lambda part: part[0])
        count = parts[0][1]
        is_complete = [index for index, _, _ in parts] == list(range(1, count + 1))
        files = {file.path: file for _, _, file in parts}
        if any(map(whole_name, files)):
            files, is_complete = {path: files[path] for path in in_order(files)}, False
        copies.append(ModelCopy(_quant_of(folder, stem), tuple(files.values()), is_complete))
    return tuple(sorted(copies, key=lambda copy: (-(copy.size or 0), copy.first.path)))


def _quant_of(folder: str, stem: str) -> Quant | None:
    """Return the last quant in the file's name, else in its folder's."""
    for text in (stem, PurePosixPath(folder).name):
        found = list(_IN_NAME.finditer(text))
        if found:
            return Quant.parse(f"{_DYNAMIC if found[-1]['dynamic'] else ''}{found[-1]['quant']}")
    return None


def renamed(stem: str, label: str) -> str:
    """Return the file name of another quant of a model: `name-BF16-00001-of-00002` and Q4_K_M give `name-Q4_K_M`.

    Args:
        stem: a file's name without its suffix.
        label: of the other quant.
    """
    stem = _PART.sub("", stem)
    found = list(_IN_NAME.finditer(stem))
    if found:
        stem = stem[: found[-1].start()] + stem[found[-1].end() :]
    return f"{stem}-{label}" if stem else label


def find_copy(copies: tuple[ModelCopy, ...], wanted: str) -> ModelCopy | None:
    """Return the copy that `wanted` names: a quant in any spelling, or a file's name or path.

    `Q4_K_M` means the plain file if a repository has both a plain and a Dynamic one, and the Dynamic one if it
    is the only one; `UD-Q4_K_M` never means a plain one.
    """
    by_file = [
        copy
        for copy in copies
        if any(wanted.lower() in (part.path.lower(), PurePosixPath(part.path).name.lower()) for part in copy.parts)
        or wanted.lower() == PurePosixPath(copy.first.path).stem.lower()
    ]
    if by_file:
        return by_file[0]
    quant = Quant.parse(wanted)
    if quant is None:
        return None
    exact = sorted((copy for copy in copies if copy.quant == quant), key=lambda copy: not copy.is_complete)
    if exact or quant.dynamic:
        return exact[0] if exact else None
    return next((copy for copy in copies if copy.quant == Quant(quant.label, dynamic=True)), None)


def nearest_names(copies: tuple[ModelCopy, ...], wanted: str) -> list[str]:
    """Return up to three names of copies that look like `wanted`."""
    names = [copy.name for copy in copies]
    plain = {name.upper().removeprefix(_DYNAMIC): name for name in names}
    spelled = wanted.upper().replace("-", "_").removeprefix("UD_")
    found = difflib.get_close_matches(spelled, plain, n=3, cutoff=0.5)
    return [plain[name] for name in found]
