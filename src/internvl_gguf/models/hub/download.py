"""Download one file from the hub to the cache: resumable at any byte, verified, published whole."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Protocol

import httpx2
from filelock import FileLock, Timeout
from huggingface_hub.errors import HfHubHTTPError

from internvl_gguf.errors import HubError
from internvl_gguf.gguf.filenames import DownloadProgress, RepoFile
from internvl_gguf.models.hub.cache import HubCache
from internvl_gguf.models.hub.hub_client import ONLINE_HINT, HubClient, RepoListing
from internvl_gguf.models.hub.remote_file import response_extent

_CHUNK = 1024**2
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class _Digest(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


def download(
    client: HubClient,
    cache: HubCache,
    listing: RepoListing,
    file: RepoFile,
    on_progress: DownloadProgress = lambda file, done: None,
    on_wait: Callable[[str], None] = lambda line: None,
) -> Path:
    """Download a file of a repository into the cache, unless it is there.

    Bytes received before an interruption (a lost connection, Ctrl-C, a killed process, a full disk) are kept, and
    verified with the rest. A second process waits for the first one.

    Returns:
        Its path in the cache.

    Raises:
        HubError: the hub refuses or fails for long; the content is not what it announces; the disk is full.
    """
    pointer = cache.path(listing.repo, listing.commit, file)
    if pointer.exists():
        return pointer
    blob, lock = cache.blob(listing.repo, file), cache.lock(listing.repo, file)
    try:
        for folder in (blob.parent, lock.parent):
            folder.mkdir(parents=True, exist_ok=True)
        with _locked(lock, lambda: on_wait(f"Another process is fetching {file.path}; waiting for it.")):
            if not blob.exists() and not pointer.exists():
                partial = cache.partial(listing.repo, file)
                _Transfer(client, listing, file, partial, on_progress).run()
                partial.replace(blob)
            return cache.publish(listing.repo, listing.commit, file)
    except OSError as error:
        if isinstance(error, HfHubHTTPError):
            raise
        raise _disk_error(error, cache, file) from error


@contextlib.contextmanager
def _locked(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        on_wait()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


class _Transfer:
    """The transfer of one file into its partial file."""

    def __init__(
        self, client: HubClient, listing: RepoListing, file: RepoFile, partial: Path, on_progress: DownloadProgress
    ) -> None:
        if file.size is None:
            raise HubError(f"The hub does not say how large {file.path} is.", "Check HF_ENDPOINT.")
        self._client, self._listing, self._file = client, listing, file
        self._size = file.size
        self._partial = partial
        self._on_progress = on_progress
        self._position = 0
        self._digest = self._new_digest()

    def run(self) -> None:
        """Fill the partial file and verify it."""
        with self._partial.open("a+b") as stream:
            resumed = self._resume(stream)
            self._fill(stream)
            if resumed and not self._is_verified():
                # The bytes of an earlier process may be the wrong ones: once more from the start.
                self._restart(stream)
                self._fill(stream)
            os.fsync(stream.fileno())
        if not self._is_verified():
            self._partial.unlink()
            raise HubError(
                f"{self._file.path} came with another content than {self._listing.repo} announces (its hash is wrong).",
                "Pull it again; if it happens twice, something on the way changes files.",
            )

    def _new_digest(self) -> _Digest:
        """Return the hash that names the file: sha256 for large files, git's for small ones."""
        if len(self._file.digest or "") == 64:
            return hashlib.sha256()
        return hashlib.sha1(f"blob {self._size}\0".encode(), usedforsecurity=False)

    def _is_verified(self) -> bool:
        return self._digest.hexdigest() == self._file.digest

    def _resume(self, stream: IO[bytes]) -> bool:
        """Continue where an earlier process stopped; return whether it left anything."""
        stream.seek(0)
        while data := stream.read(_CHUNK):
            self._digest.update(data)
            self._position += len(data)
        if self._position > self._size:
            self._restart(stream)
        self._on_progress(self._file, self._position)
        return self._position > 0

    def _restart(self, stream: IO[bytes]) -> None:
        stream.seek(0)
        stream.truncate()
        self._position = 0
        self._digest = self._new_digest()

    def _fill(self, stream: IO[bytes]) -> None:
        retries = self._client.retry_policy()
        while self._position < self._size:
            before = self._position
            try:
                self._fetch(stream)
                if self._position < self._size:  # a good status, a body that ends early
                    raise httpx2.RemoteProtocolError(f"{self._position:,} of {self._size:,} bytes came")
            except (httpx2.HTTPError, HfHubHTTPError) as error:
                if self._position > before:
                    retries.reset()
                retries.wait(error)

    def _fetch(self, stream: IO[bytes]) -> None:
        """Request all missing bytes once."""
        with self._client.open(self._listing, self._file, self._position) as response:
            offset, total = response_extent(response)
            is_partial = response.status_code == httpx2.codes.PARTIAL_CONTENT
            if total is not None and (total > self._size or (is_partial and total != self._size)):
                raise HubError(
                    f"{self._file.path} has {total:,} bytes where {self._listing.repo} lists {self._size:,}.",
                    "Run it again; the repository may be changing.",
                )
            if offset != self._position:  # a server that ignores ranges
                self._restart(stream)
            for chunk in response.iter_bytes():  # as they come: a larger chunk would be lost with the connection
                if self._position + len(chunk) > self._size:
                    raise HubError(
                        f"{self._file.path} is longer than the {self._size:,} bytes that {self._listing.repo} lists.",
                        ONLINE_HINT,
                    )
                stream.write(chunk)
                self._digest.update(chunk)
                self._position += len(chunk)
                self._on_progress(self._file, self._position)


def _disk_error(error: OSError, cache: HubCache, file: RepoFile) -> HubError:
    if error.errno in _DISK_FULL:
        return HubError(
            f"The disk of {cache.root} is full; {file.path} is not whole.",
            "Free some space and pull again: what came is kept. Or set HF_HOME to another disk.",
        )
    return HubError(
        f"{file.path} cannot be written to {cache.root}: {error.strerror or error}.",
        "Check the folder's permissions, or set HF_HOME to another.",
    )
