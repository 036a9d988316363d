"""A Hugging Face Hub on 127.0.0.1, so that downloads are tested over real sockets and can be made to fail at will.

It speaks what huggingface_hub asks for to list and download models whose files are all kept in LFS. Files come from a
second origin (`cdn_url`, another port), as the hub's do: huggingface_hub follows a redirect that stays on one origin
and then finds the metadata of the first answer lost, and it sends the token to one origin only.
"""

from __future__ import annotations

import hashlib
import json
import re
import selectors
import socket
import struct
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path, PurePosixPath
from socketserver import TCPServer
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import parse_qs, quote, unquote, urlsplit

Where = Literal["api", "resolve", "cdn"]

_HOST = "127.0.0.1"
_CHUNK = 1 << 16
_DATE = "2025-01-01T00:00:00.000Z"
_API = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)(?:/(?P<kind>revision|tree)/(?P<revision>[^/]+)(?P<path>/.*)?)?")
_RESOLVE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
_CDN = re.compile(r"/cdn/(?P<sha256>[0-9a-f]{64})")
_RANGE = re.compile(r"bytes=(?P<first>\d*)-(?P<last>\d*)")


@dataclass(frozen=True)
class Request:
    """One request as it came in.

    Attributes:
        method: GET or HEAD.
        path: as sent, with its query.
        range: the Range header.
        authorization: the Authorization header.
        status: how it was answered; None where it never was (`Fault.stall`).
        where: which part of the hub it went to.
        headers: all of them, by lower-case name.
    """

    method: str
    path: str
    range: str | None
    authorization: str | None
    status: int | None
    where: Where
    headers: Mapping[str, str] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Fault:
    """What goes wrong with the next requests it matches.

    A fault of the body (`drop_after`, `short_body`, `corrupt_at`) waits for a GET whose body it can spoil, and
    `ignore_range` for a GET with a Range, so that none is used up unseen. Several may be combined.

    Attributes:
        where: the part of the hub.
        method: None for both.
        path_contains: found in the unquoted path and query; those of the CDN end in `?filename=` and the file's path.
        times: how many requests.
        drop_after: send the headers of the whole answer, then this many bytes of its body, then close the connection.
        reset: `drop_after` ends in a TCP reset, which may overtake bytes that the client has not read yet; without it
            the connection ends in good order after exactly that many bytes.
        short_body: send this many bytes of the body, with a Content-Length that says so.
        status: answer this instead.
        retry_after: seconds in the Retry-After header of `status`.
        error_code: the X-Error-Code header of `status`.
        ignore_range: 200 and the whole file.
        stall: never answer; the connection closes with the hub.
        corrupt_at: the byte of the file (or of the answer of the API) that is sent inverted.
    """

    where: Where
    _: KW_ONLY
    method: Literal["GET", "HEAD"] | None = None
    path_contains: str | None = None
    times: int = 1
    drop_after: int | None = None
    reset: bool = False
    short_body: int | None = None
    status: int | None = None
    retry_after: float | None = None
    error_code: str | None = None
    ignore_range: bool = False
    stall: bool = False
    corrupt_at: int | None = None

    def __post_init__(self) -> None:
        """Refuse a fault in which nothing happens."""
        if not (self.stall or self.status is not None or self.ignore_range or self.spoils_body):
            raise ValueError(f"nothing goes wrong in {self}")

    @property
    def spoils_body(self) -> bool:
        """Whether it needs a body to show."""
        return any(value is not None for value in (self.drop_after, self.short_body, self.corrupt_at))

    def matches(self, where: Where, method: str, path: str, has_range: bool, answer: _Answer) -> bool:
        """Whether it happens to a request that would be answered so."""
        if where != self.where or self.method not in (None, method) or (self.path_contains or "") not in unquote(path):
            return False
        if self.stall or self.status is not None:
            return True
        if self.ignore_range:
            return method == "GET" and has_range
        within = self.corrupt_at is None or answer.start <= self.corrupt_at < answer.stop
        return method == "GET" and answer.stop > answer.start and within


@dataclass(frozen=True)
class _Blob:
    """The content of a file, with the names that git and LFS give it."""

    source: bytes | Path = field(repr=False)
    size: int
    sha256: str

    @classmethod
    def of(cls, source: bytes | Path) -> _Blob:
        if isinstance(source, bytes):
            return cls(source, len(source), hashlib.sha256(source).hexdigest())
        with source.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            return cls(source, stream.tell(), digest)

    @property
    def etag(self) -> str:
        return f'"{self.sha256}"'

    @property
    def pointer(self) -> bytes:
        """What git keeps of it."""
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {self.size}\n".encode()


@dataclass(frozen=True)
class _Entry:
    """A file as the hub speaks of it; `blob` is what it really serves."""

    path: str
    size: int
    sha256: str
    blob: _Blob

    @property
    def blob_id(self) -> str:
        return _git_id("blob", self.blob.pointer)

    def as_sibling(self, with_blobs: bool) -> dict[str, Any]:
        if not with_blobs:
            return {"rfilename": self.path}
        lfs = {"sha256": self.sha256, "size": self.size, "pointerSize": len(self.blob.pointer)}
        return {"rfilename": self.path, "size": self.size, "blobId": self.blob_id, "lfs": lfs}

    def as_tree_item(self) -> dict[str, Any]:
        lfs = {"oid": self.sha256, "size": self.size, "pointerSize": len(self.blob.pointer)}
        return {"type": "file", "path": self.path, "size": self.size, "oid": self.blob_id, "lfs": lfs}


@dataclass(frozen=True)
class _Answer:
    """A status, headers, and the bytes `start` to `stop` of a source as the body."""

    status: int
    headers: dict[str, str]
    source: bytes | Path = field(repr=False)
    start: int
    stop: int

    @classmethod
    def whole(cls, status: int, content_type: str, body: bytes, headers: dict[str, str] | None = None) -> _Answer:
        return cls(status, {"Content-Type": content_type, **(headers or {})}, body, 0, len(body))

    @classmethod
    def json(cls, status: int, value: object, headers: dict[str, str] | None = None) -> _Answer:
        return cls.whole(status, "application/json; charset=utf-8", json.dumps(value).encode(), headers)

    @classmethod
    def refusal(cls, status: int, message: str, code: str | None = None, **headers: str) -> _Answer:
        """An error as the hub words it: huggingface_hub goes by the X-Error headers, not by the status."""
        named = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {}), **headers}
        return cls.json(status, {"error": message}, named)


class _RefusedError(Exception):
    def __init__(self, answer: _Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


class Repo:
    """A model repository. Every push makes a commit; `branches` may be given more names for commits.

    Attributes:
        name: owner/name.
        gated: whether its files (not its listing) are closed to all but the owner of `token`.
        token: who may see it; without `gated` it makes the whole repository private.
        branches: branch or tag to commit.
    """

    def __init__(self, hub: LoopbackHub, name: str, gated: bool, token: str | None) -> None:
        self.name = name
        self.gated = gated
        self.token = token
        self.branches: dict[str, str] = {}
        self._hub = hub
        self._commits: dict[str, dict[str, _Blob]] = {}
        self._lies: dict[str, tuple[int | None, str | None, str | None]] = {}

    @property
    def commit(self) -> str:
        """The commit of main."""
        return self.branches["main"]

    @property
    def private(self) -> bool:
        """Whether its existence is hidden."""
        return self.token is not None and not self.gated

    def push(self, files: Mapping[str, bytes | Path | None], *, forget_old: bool = False) -> str:
        """Change files on main, None deletes one; `forget_old` makes all commits before unknown. Returns the commit."""
        blobs = {path: None if source is None else _Blob.of(source) for path, source in files.items()}
        with self._hub._lock:
            parent = self.branches.get("main", "")
            merged: dict[str, _Blob | None] = {**self._commits.get(parent, {}), **blobs}
            kept = {path: blob for path, blob in sorted(merged.items()) if blob is not None}
            lines = [self.name, parent, *(f"{blob.sha256} {path}" for path, blob in kept.items())]
            commit = _git_id("commit", "\n".join(lines).encode())
            if forget_old:
                self._commits.clear()
                self.branches.clear()
            self._commits[commit] = kept
            self.branches["main"] = commit
            self._hub._blobs.update((blob.sha256, blob) for blob in kept.values())
        return commit

    def listed_as(
        self, path: str, *, size: int | None = None, sha256: str | None = None, name: str | None = None
    ) -> None:
        """Lie about a file, at every commit, in listings and in the headers of resolve; with nothing, stop lying.

        The file is served under both names then, and with its true content.
        """
        with self._hub._lock:
            assert any(path in files for files in self._commits.values()), path
            self._lies[path] = (size, sha256, name)

    def _entries(self, commit: str) -> list[_Entry]:
        entries = []
        for path, blob in self._commits[commit].items():
            size, sha256, name = self._lies.get(path, (None, None, None))
            entries.append(_Entry(name or path, blob.size if size is None else size, sha256 or blob.sha256, blob))
        return entries

    def _find(self, commit: str, path: str) -> _Entry | None:
        entries = self._entries(commit)
        by_path = dict(zip(self._commits[commit], entries, strict=True))
        return next((entry for entry in entries if entry.path == path), by_path.get(path))


class LoopbackHub:
    """The server; it runs inside `with`.

    Attributes:
        faults: what is still to go wrong; the first that matches a request happens, and goes when it is used up.
    """

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self._lock = threading.Condition(threading.RLock())
        self._closing = threading.Event()
        self._repos: dict[str, Repo] = {}
        self._blobs: dict[str, _Blob] = {}
        self._requests: list[Request] = []
        self._body_bytes = 0
        self._bugs: list[BaseException] = []
        self._listeners = (_Listener(self, is_cdn=False), _Listener(self, is_cdn=True))
        self._waker, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._accept, name="loopback-hub", daemon=True)

    def __enter__(self) -> Self:
        """Start to answer."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close every connection and wait for every thread; an error in the server's own code is raised here."""
        self._closing.set()
        self._waker.close()
        self._thread.join()
        self._woken.close()
        for listener in self._listeners:
            listener.stop()
        if self._bugs and error is None:
            raise self._bugs[0]

    @property
    def url(self) -> str:
        """What HF_ENDPOINT is set to."""
        return self._listeners[0].url

    @property
    def cdn_url(self) -> str:
        """Where resolve redirects to."""
        return self._listeners[1].url

    @property
    def requests(self) -> list[Request]:
        """All requests until now, in order; one is on the list before its answer is."""
        with self._lock:
            return list(self._requests)

    def wait_for_requests(self, count: int) -> None:
        """Return when `count` requests are on the list."""
        with self._lock:
            self._lock.wait_for(lambda: len(self._requests) >= count)

    @property
    def body_bytes(self) -> int:
        """How many bytes of files were sent; those given to a client that hung up count."""
        with self._lock:
            return self._body_bytes

    def add_repo(
        self, name: str, files: Mapping[str, bytes | Path], *, gated: bool = False, token: str | None = None
    ) -> Repo:
        """Publish a repository; files given as a path are read when they are asked for."""
        repo = Repo(self, name, gated, token)
        repo.push(files)
        with self._lock:
            assert name not in self._repos, name
            self._repos[name] = repo
        return repo

    def _accept(self) -> None:
        """Hand out connections until woken; `serve_forever` would stop only at its next poll."""
        with selectors.DefaultSelector() as selector:
            for listener in self._listeners:
                selector.register(listener, selectors.EVENT_READ, listener)
            selector.register(self._woken, selectors.EVENT_READ)
            while not self._closing.is_set():
                for key, _ in selector.select():
                    if isinstance(key.data, _Listener):
                        key.data.handle_request()

    def _answer(self, where: Where, method: str, path: str, headers: Mapping[str, str]) -> _Answer:
        """What an honest hub answers."""
        url = urlsplit(path)
        with self._lock:
            try:
                if where == "cdn":
                    return self._cdn(url.path, method, headers)
                if where == "api":
                    return self._api(url.path, parse_qs(url.query), headers.get("authorization"))
                return self._resolve(url.path, headers.get("authorization"))
            except _RefusedError as refused:
                return refused.answer

    def _take_fault(self, where: Where, method: str, path: str, has_range: bool, answer: _Answer) -> Fault | None:
        with self._lock:
            for index, fault in enumerate(self.faults):
                if fault.matches(where, method, path, has_range, answer):
                    self.faults[index : index + 1] = [replace(fault, times=fault.times - 1)] if fault.times > 1 else []
                    return fault
        return None

    def _api(self, path: str, query: dict[str, list[str]], authorization: str | None) -> _Answer:
        match = _API.fullmatch(path)
        if match is None:
            raise _RefusedError(_Answer.refusal(404, "Sorry, we can't find the page you are looking for."))
        repo = self._visible(match["repo"], authorization)
        commit = self._commit(repo, unquote(match["revision"] or "main"))
        if match["kind"] == "tree":
            folder = unquote(match["path"] or "").strip("/")
            return _Answer.json(200, _tree(repo._entries(commit), folder, _flag(query, "recursive")))
        info = {
            "_id": commit[:24],
            "id": repo.name,
            "modelId": repo.name,
            "author": repo.name.split("/")[0],
            "sha": commit,
            "createdAt": _DATE,
            "lastModified": _DATE,
            "private": repo.private,
            "gated": "manual" if repo.gated else False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": ["gguf"],
            "siblings": [entry.as_sibling(_flag(query, "blobs")) for entry in repo._entries(commit)],
        }
        return _Answer.json(200, info)

    def _resolve(self, path: str, authorization: str | None) -> _Answer:
        match = _RESOLVE.fullmatch(path)
        if match is None:
            raise _RefusedError(_Answer.refusal(404, "Sorry, we can't find the page you are looking for."))
        repo = self._visible(match["repo"], authorization)
        if repo.gated and authorization is None:
            text = f"Access to model {repo.name} is restricted. You must have access to it and be authenticated to"
            raise _RefusedError(_Answer.refusal(401, f"{text} access it. Please log in.", "GatedRepo"))
        if repo.gated and not _is_bearer(authorization, repo.token):
            text = f"Access to model {repo.name} is restricted and you are not in the authorized list."
            raise _RefusedError(_Answer.refusal(403, text, "GatedRepo"))
        commit = self._commit(repo, unquote(match["revision"]))
        entry = repo._find(commit, unquote(match["path"]))
        if entry is None:
            raise _RefusedError(
                _Answer.refusal(404, "Entry not found", "EntryNotFound", **{"X-Repo-Commit": commit}),
            )
        location = f"{self.cdn_url}/cdn/{entry.blob.sha256}?filename={quote(entry.path)}"
        linked = f'"{entry.sha256}"'
        headers = {
            "Location": location,
            "X-Repo-Commit": commit,
            "X-Linked-Size": str(entry.size),
            "X-Linked-ETag": linked,
            "ETag": linked,
            "Accept-Ranges": "bytes",
        }
        body = f"Found. Redirecting to {location}".encode()
        return _Answer.whole(302, "text/plain; charset=utf-8", body, headers)

    def _cdn(self, path: str, method: str, headers: Mapping[str, str]) -> _Answer:
        match = _CDN.fullmatch(path)
        blob = self._blobs.get(match["sha256"]) if match else None
        if blob is None:
            raise _RefusedError(_Answer.whole(404, "application/xml", b"<Error><Code>NoSuchKey</Code></Error>"))
        common = {"Content-Type": "application/octet-stream", "ETag": blob.etag, "Accept-Ranges": "bytes"}
        asked = headers.get("range") if method == "GET" and headers.get("if-range") in (None, blob.etag) else None
        span = _span(asked, blob.size)
        if span is None:
            return _Answer(200, common, blob.source, 0, blob.size)
        start, stop = span
        if start >= stop:
            return _Answer.whole(416, "application/xml", b"", {"Content-Range": f"bytes */{blob.size}"})
        common["Content-Range"] = f"bytes {start}-{stop - 1}/{blob.size}"
        return _Answer(206, common, blob.source, start, stop)

    def _visible(self, name: str, authorization: str | None) -> Repo:
        """The repository; the hub tells a stranger neither that one exists nor that it does not."""
        repo = self._repos.get(unquote(name))
        if repo is not None and (not repo.private or _is_bearer(authorization, repo.token)):
            return repo
        if authorization is None:
            raise _RefusedError(_Answer.refusal(401, "Invalid username or password.", "RepoNotFound"))
        if repo is None:
            raise _RefusedError(_Answer.refusal(404, "Repository not found", "RepoNotFound"))
        raise _RefusedError(_Answer.refusal(401, "Invalid credentials in Authorization header"))

    @staticmethod
    def _commit(repo: Repo, revision: str) -> str:
        commit = repo.branches.get(revision, revision)
        if commit not in repo._commits:
            raise _RefusedError(_Answer.refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound"))
        return commit


class _Listener(ThreadingHTTPServer):
    """One origin of the hub. It keeps its connections, so that it can end those that wait."""

    request_queue_size = 64
    timeout = 0

    def __init__(self, hub: LoopbackHub, *, is_cdn: bool) -> None:
        self.hub = hub
        self.is_cdn = is_cdn
        self._connections: set[socket.socket] = set()
        self._threads_begun: list[threading.Thread] = []
        super().__init__((_HOST, 0), _Handler)
        self.url = f"http://{_HOST}:{self.server_address[1]}"

    def server_bind(self) -> None:
        """Bind without looking up a name for the address, which may ask a slow name server."""
        TCPServer.server_bind(self)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        with self.hub._lock:
            self._connections.add(connection)
        return connection, address

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread that `stop` waits for and that does not keep a failed test process alive."""
        thread = threading.Thread(
            target=self.process_request_thread, args=(request, client_address), name="loopback-hub", daemon=True
        )
        self._threads_begun.append(thread)
        thread.start()

    def shutdown_request(self, request: Any) -> None:
        """Close at once: a FIN sent before would hide the reset of `Fault.reset`."""
        with self.hub._lock:
            self._connections.discard(request)
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet about clients that hang up; anything else is a bug that `__exit__` raises."""
        error = _current_error()
        if not isinstance(error, (ConnectionError, TimeoutError)):
            with self.hub._lock:
                self.hub._bugs.append(error)

    def stop(self) -> None:
        """End all connections and wait for their threads; nothing may be accepted any more."""
        with self.hub._lock:
            for connection in self._connections:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue
        for thread in self._threads_begun:
            thread.join()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    """Puts answers, and what is to go wrong with them, on the wire."""

    server: _Listener
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        hub = self.server.hub
        headers = {name.lower(): value for name, value in self.headers.items()}
        where: Where = "cdn" if self.server.is_cdn else "api" if self.path.startswith("/api/") else "resolve"
        answer = hub._answer(where, self.command, self.path, headers)
        fault = hub._take_fault(where, self.command, self.path, "range" in headers, answer)
        if fault is not None and fault.status is not None:
            answer = _failed(fault.status, fault)
        elif fault is not None and fault.ignore_range:
            unranged = {name: value for name, value in headers.items() if name != "range"}
            answer = hub._answer(where, self.command, self.path, unranged)
        stalls = fault is not None and fault.stall
        seen = (headers.get("range"), headers.get("authorization"), None if stalls else answer.status, where, headers)
        with hub._lock:
            hub._requests.append(Request(self.command, self.path, *seen))
            hub._lock.notify_all()
        if stalls:
            self.close_connection = True
            hub._closing.wait()
        else:
            self._send(answer, fault, is_file=where == "cdn")

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _send(self, answer: _Answer, fault: Fault | None, is_file: bool) -> None:
        length = answer.stop - answer.start
        if fault is not None and fault.short_body is not None:
            length = min(length, fault.short_body)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command == "HEAD":
            return
        drops = fault is not None and fault.drop_after is not None
        stop = answer.start + (min(length, fault.drop_after) if fault and fault.drop_after is not None else length)
        for chunk in _read(answer.source, answer.start, stop, fault.corrupt_at if fault else None):
            if is_file:
                with self.server.hub._lock:
                    self.server.hub._body_bytes += len(chunk)
            self.wfile.write(chunk)
        if drops:
            self.close_connection = True
            if fault is not None and fault.reset:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _failed(status: int, fault: Fault) -> _Answer:
    headers = {} if fault.retry_after is None else {"Retry-After": f"{fault.retry_after:g}"}
    return _Answer.refusal(status, HTTPStatus(status).phrase, fault.error_code, **headers)


def _read(source: bytes | Path, start: int, stop: int, corrupt_at: int | None) -> Iterator[bytes]:
    """The bytes `start` to `stop` in chunks, one of them inverted on request."""
    with BytesIO(source) if isinstance(source, bytes) else source.open("rb") as stream:
        stream.seek(start)
        while start < stop and (chunk := stream.read(min(_CHUNK, stop - start))):
            if corrupt_at is not None and start <= corrupt_at < start + len(chunk):
                at = corrupt_at - start
                chunk = chunk[:at] + bytes([chunk[at] ^ 0xFF]) + chunk[at + 1 :]
            yield chunk
            start += len(chunk)


def _span(asked: str | None, size: int) -> tuple[int, int] | None:
    """The bytes that a Range asks for: None for all (as without, or with one that is not understood), empty for 416."""
    match = _RANGE.fullmatch(asked.strip()) if asked else None
    if match is None or not (match["first"] or match["last"]):
        return None
    if not match["first"]:
        return max(0, size - int(match["last"])), size
    first = int(match["first"])
    last = int(match["last"]) if match["last"] else size - 1
    if match["last"] and last < first:
        return None
    return first, min(last + 1, size)


def _tree(entries: list[_Entry], folder: str, recursive: bool) -> list[dict[str, Any]]:
    """The files and folders below `folder`, or only those right in it."""
    items: dict[str, dict[str, Any]] = {}
    below = [entry for entry in entries if not folder or entry.path.startswith(f"{folder}/")]
    if folder and not below:
        raise _RefusedError(_Answer.refusal(404, f"{folder} does not exist", "EntryNotFound"))
    for entry in below:
        for parent in reversed(PurePosixPath(entry.path).parents):
            path = str(parent)
            if path not in (".", "/", folder) and (not folder or path.startswith(f"{folder}/")):
                oid = _git_id("tree", path.encode())
                items.setdefault(path, {"type": "directory", "path": path, "size": 0, "oid": oid})
        items[entry.path] = entry.as_tree_item()
    depth = folder.count("/") + 1 if folder else 0
    return [item for path, item in items.items() if recursive or path.count("/") == depth]


def _git_id(kind: str, data: bytes) -> str:
    return hashlib.sha1(f"{kind} {len(data)}\0".encode() + data).hexdigest()


def _is_bearer(authorization: str | None, token: str | None) -> bool:
    return token is not None and authorization == f"Bearer {token}"


def _flag(query: dict[str, list[str]], name: str) -> bool:
    return query.get(name, ["false"])[-1].lower() in ("true", "1")


def _current_error() -> BaseException:
    error = sys.exception()
    assert error is not None
    return error
