"""Read and keep the first bytes of a file on the hub: a header of 6 MB instead of a file of 8 GB."""

from __future__ import annotations

import contextlib

import httpx2

from internvl_gguf.errors import HubError
from internvl_gguf.gguf.filenames import RepoFile
from internvl_gguf.models.hub.hub_client import HubClient, RepoListing
from internvl_gguf.utils.atomic_write import write_atomically
from internvl_gguf.utils.records import HEADERS


class RemoteFile:
    """A file of a repository as a `gguf.header.ByteSource`.

    Args:
        client: asks the hub.
        listing: the state of the repository.
        file: a file of the listing.

    Raises:
        HubError: the listing does not say how large the file is.
    """

    first_window = 1024**2  # an mmproj's header fits; a text model's takes three more requests, each twice as long

    def __init__(self, client: HubClient, listing: RepoListing, file: RepoFile) -> None:
        if file.size is None or file.digest is None:
            raise HubError(f"The hub does not say how large {file.path} is.", "Check HF_ENDPOINT.")
        self.label = f"{listing.repo}/{file.path}"
        self.size = file.size
        self._client, self._listing, self._file = client, listing, file
        # By content: a file that changes gets another digest, and one in two repositories is read once.
        self._kept = HEADERS.path / f"{file.digest}.{file.size}"
        self._data = b""

    def read_prefix(self, length: int) -> bytes:
        """Return the first `length` bytes, from the cache as far as they are there.

        Raises:
            HubError: the hub refuses, fails for long, or has a file of another size than it lists.
        """
        if len(self._data) < length:
            with contextlib.suppress(OSError):
                self._data = max(self._data, self._kept.read_bytes(), key=len)
        if len(self._data) < length:
            self._data += self._client.with_retries(lambda: self._fetch(len(self._data), length))
            with contextlib.suppress(OSError):  # a cache that cannot be written costs the next reader a request
                write_atomically(self._kept, self._data)
        return self._data[:length]

    def _fetch(self, start: int, end: int) -> bytes:
        with self._client.open(self._listing, self._file, start, end) as response:
            offset, total = response_extent(response)
            if total not in (None, self.size):
                raise HubError(
                    f"{self.label} has {total:,} bytes where the hub lists {self.size:,}.",
                    "Run it again; the repository may be changing.",
                )
            data = bytearray()
            for chunk in response.iter_bytes():
                data += chunk
                if offset + len(data) >= end:  # a server that ignores ranges would send the whole file
                    break
            got = bytes(data[start - offset : end - offset])
        if len(got) < end - start:
            raise httpx2.RemoteProtocolError(f"{len(got):,} of {end - start:,} bytes came")
        return got


def response_extent(response: httpx2.Response) -> tuple[int, int | None]:
    """Return where the bytes of an answer begin in the file, and the length of the file, if given."""
    if response.status_code != httpx2.codes.PARTIAL_CONTENT:
        length = response.headers.get("Content-Length", "")
        return 0, int(length) if length.isdigit() else None
    unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
    extent, _, total = rest.partition("/")
    start = extent.partition("-")[0]
    if unit != "bytes" or not start.isdigit():
        raise httpx2.RemoteProtocolError("a partial answer that does not say which part")
    return int(start), int(total) if total.isdigit() else None
