"""The hub's cache on this machine: list it, locate files in it, remove files from it.

The layout is documented by huggingface_hub ("Understand caching"): `models--OWNER--NAME/` holds `blobs/DIGEST`,
`snapshots/COMMIT/PATH` (a link to a blob) and `refs/REVISION` (a commit).
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name

from internvl_gguf.errors import HubError
from internvl_gguf.gguf.filenames import RepoFile, is_safe_path
from internvl_gguf.utils.atomic_write import write_atomically

_COMMIT = re.compile(r"[0-9a-f]{40}")
_PARTIAL = ".internvl-partial"
_MAIN = "main"


@dataclass(frozen=True)
class CachedRepo:
    """The cached part of a repository at one commit.

    Attributes:
        repo: owner/name.
        commit: the commit the files belong to; "" if there are none.
        files: the complete files, with sizes.
        partial_bytes: bytes of the repository's unfinished downloads; given with its first entry only.
    """

    repo: str
    commit: str
    files: tuple[RepoFile, ...]
    partial_bytes: int


class HubCache:
    """The cache folder that all programs with the hub's client share.

    Args:
        root: the cache folder; None takes HF_HUB_CACHE.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or Path(constants.HF_HUB_CACHE)

    def commit(self, repo: str, revision: str | None) -> str | None:
        """Return the commit of a revision when it was last fetched; None if it never was."""
        with contextlib.suppress(OSError, UnicodeDecodeError):
            commit = (self._folder(repo) / "refs" / (revision or _MAIN)).read_text("ascii").strip()
            return commit if _COMMIT.fullmatch(commit) else None
        return revision if revision and _COMMIT.fullmatch(revision) else None

    def files(self, repo: str, commit: str) -> tuple[RepoFile, ...]:
        """Return the files of a commit that are complete here."""
        snapshot = self._folder(repo) / "snapshots" / commit
        found = []
        for path in sorted(snapshot.rglob("*")) if snapshot.is_dir() else ():
            with contextlib.suppress(OSError):  # a link whose blob is gone
                if path.is_file():
                    name = path.relative_to(snapshot).as_posix()
                    found.append(RepoFile(name, path.stat().st_size, path.resolve(strict=True).name))
        return tuple(found)

    def path(self, repo: str, commit: str, file: RepoFile) -> Path:
        """Return the path of a file of a commit, whether it is there or not.

        Raises:
            HubError: its name would leave the folder.
        """
        if not is_safe_path(file.path):
            raise HubError(f"{repo} lists a file {file.path!r}, which would leave its folder.", "Do not use it.")
        return self._folder(repo) / "snapshots" / commit / file.path

    def blob(self, repo: str, file: RepoFile) -> Path:
        """Return the path of a file's content, whether it is there or not."""
        if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", file.digest or ""):
            raise HubError(f"The hub gives {file.path} of {repo} no usable digest.", "Check HF_ENDPOINT.")
        return self._folder(repo) / "blobs" / str(file.digest)

    def partial(self, repo: str, file: RepoFile) -> Path:
        """Return the path of the unfinished download of a file, which the next process continues."""
        blob = self.blob(repo, file)
        return blob.with_name(blob.name + _PARTIAL)

    def lock(self, repo: str, file: RepoFile) -> Path:
        """Return the path of the lock for this content, which the hub's client takes, too."""
        folder = self._folder(repo)
        return self.root / ".locks" / folder.name / f"{self.blob(repo, file).name}.lock"

    def publish(self, repo: str, commit: str, file: RepoFile) -> Path:
        """Make a blob appear as a file of a commit.

        Raises:
            OSError: the cache cannot be written.
        """
        blob, pointer = self.blob(repo, file), self.path(repo, commit, file)
        pointer.parent.mkdir(parents=True, exist_ok=True)
        if pointer.is_symlink() and not pointer.exists():
            pointer.unlink()
        with contextlib.suppress(FileExistsError):
            try:
                pointer.symlink_to(os.path.relpath(blob, pointer.parent))
            except FileExistsError:
                raise
            except OSError:  # no links on this system: the hub's client moves the content here, too
                blob.replace(pointer)
        return pointer

    def remember_revision(self, repo: str, revision: str | None, commit: str) -> None:
        """Record which commit a branch or tag meant.

        Raises:
            OSError: the cache cannot be written.
        """
        if revision != commit:
            write_atomically(self._folder(repo) / "refs" / (revision or _MAIN), commit.encode())

    def repos(self) -> Iterator[CachedRepo]:
        """Yield every repository with GGUF files or an unfinished download, sorted by name; one entry a commit.

        A file that several commits share is listed with the newest of them only.
        """
        for folder in sorted(self.root.glob("models--*--*")) if self.root.is_dir() else ():
            repo = folder.name.removeprefix("models--").replace("--", "/", 1)
            partial = sum(path.stat().st_size for path in folder.glob(f"blobs/*{_PARTIAL}"))
            seen: set[RepoFile] = set()
            snapshots = [path for path in folder.glob("snapshots/*") if path.is_dir()]
            for snapshot in sorted(snapshots, key=lambda path: path.stat().st_mtime, reverse=True):
                files = tuple(file for file in self.files(repo, snapshot.name) if file not in seen)
                seen.update(files)
                if any(file.path.lower().endswith(".gguf") for file in files):
                    yield CachedRepo(repo, snapshot.name, files, partial)
                    partial = 0
            if partial:
                yield CachedRepo(repo, "", (), partial)

    def remove(self, repo: str, file: RepoFile) -> int:
        """Remove a file: its link in every commit, its content, and an unfinished download of it.

        Returns:
            The bytes freed.

        Raises:
            OSError: the cache cannot be written.
        """
        folder = self._folder(repo)
        blobs = {folder / "blobs" / digest for digest in (file.digest,) if digest}
        for pointer in folder.glob(f"snapshots/*/{_escaped(file.path)}"):
            blobs.add(pointer.resolve())
            pointer.unlink()
        freed = 0
        still_used = {path.resolve() for path in folder.glob("snapshots/**/*") if path.is_symlink()}
        for blob in blobs - still_used:
            for path in (blob, blob.with_name(blob.name + _PARTIAL)):
                with contextlib.suppress(FileNotFoundError):
                    freed += path.stat().st_size
                    path.unlink()
        return freed

    def remove_partials(self, repo: str) -> int:
        """Remove the unfinished downloads of a repository; return the bytes freed."""
        freed = 0
        for path in self._folder(repo).glob(f"blobs/*{_PARTIAL}"):
            freed += path.stat().st_size
            path.unlink(missing_ok=True)
        return freed

    def _folder(self, repo: str) -> Path:
        return self.root / repo_folder_name(repo_id=repo, repo_type="model")


def _escaped(path: str) -> str:
    return re.sub(r"([*?\[\]])", r"[\1]", path)
