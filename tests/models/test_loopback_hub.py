"""The loopback hub against huggingface_hub's own functions, and its faults against a plain HTTP client."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.hf_api import RepoFile, RepoFolder

from tests.support.loopback_hub import Fault, LoopbackHub, Repo, Where

NAME = "owner/name"
A = os.urandom(200_000)
B = bytes(range(256)) * 4


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as running:
        yield running


@pytest.fixture
def repo(hub: LoopbackHub, tmp_path: Path) -> Repo:
    stored = tmp_path / "stored.bin"
    stored.write_bytes(B)
    return hub.add_repo(NAME, {"a.gguf": A, "sub/deep/b c.gguf": stored})


@pytest.fixture(scope="module")
def client() -> Iterator[httpx2.Client]:
    """One for all tests: to make one takes longer than to start a hub."""
    with httpx2.Client(follow_redirects=True, timeout=10, trust_env=False) as opened:
        yield opened


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """huggingface_hub's waits between its tries, written down instead of waited."""
    waits: list[float] = []
    clock = SimpleNamespace(sleep=waits.append, time=time.time)
    monkeypatch.setattr("huggingface_hub.file_download.time", clock)
    monkeypatch.setattr("huggingface_hub.utils._http.time", clock)
    return waits


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """huggingface_hub resumes after the last whole chunk, and one is 10 MiB; here 10 000 bytes."""
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 10_000)


def download(hub: LoopbackHub, folder: Path, path: str = "a.gguf", **options: Any) -> Path:
    return Path(hf_hub_download(NAME, path, endpoint=hub.url, cache_dir=folder, **{"token": False, **options}))


def file_url(hub: LoopbackHub, path: str = "a.gguf", revision: str = "main") -> str:
    return hf_hub_url(NAME, path, revision=revision, endpoint=hub.url)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def routes(hub: LoopbackHub) -> list[tuple[str, str, int | None]]:
    return [(request.where, request.method, request.status) for request in hub.requests]


def test_starts_and_stops_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    """Also with a connection kept alive, which its thread would read from for ever."""
    with httpx2.Client(trust_env=False) as kept:
        for _ in range(10):
            with LoopbackHub() as hub:
                assert kept.get(f"{hub.url}/nothing").status_code == 404
    assert not [thread for thread in threading.enumerate() if thread.name == "loopback-hub"]
    assert capfd.readouterr() == ("", "")


def test_an_error_of_the_server_is_raised_at_the_end(tmp_path: Path, client: httpx2.Client) -> None:
    path = tmp_path / "gone.gguf"
    path.write_bytes(B)

    def ask_for_a_lost_file() -> None:
        with LoopbackHub() as hub:
            hub.add_repo(NAME, {"a.gguf": path})
            path.unlink()
            with pytest.raises(httpx2.RemoteProtocolError):
                client.get(file_url(hub))

    with pytest.raises(FileNotFoundError):
        ask_for_a_lost_file()


def test_model_info(hub: LoopbackHub, repo: Repo) -> None:
    info = HfApi(endpoint=hub.url).model_info(NAME, files_metadata=True, token=False)
    assert (info.id, info.sha, info.private, info.gated) == (NAME, repo.commit, False, False)
    assert len(repo.commit) == 40
    found = {file.rfilename: file for file in info.siblings or []}
    assert set(found) == {"a.gguf", "sub/deep/b c.gguf"}
    for path, data in (("a.gguf", A), ("sub/deep/b c.gguf", B)):
        lfs = found[path].lfs
        assert lfs is not None
        assert found[path].size == lfs.size == len(data)
        assert lfs.sha256 == digest(data)
        assert 120 < lfs.pointer_size < 140
        assert len(found[path].blob_id or "") == 40
    (request,) = hub.requests
    assert request.path == f"/api/models/{NAME}?blobs=true"
    assert request.authorization is None
    bare = HfApi(endpoint=hub.url).model_info(NAME, revision=repo.commit, token=False)
    assert [(file.size, file.lfs) for file in bare.siblings or []] == [(None, None)] * 2
    assert hub.requests[-1].path == f"/api/models/{NAME}/revision/{repo.commit}"


def test_tree(hub: LoopbackHub, repo: Repo) -> None:
    api = HfApi(endpoint=hub.url)

    def paths(**options: Any) -> list[str]:
        return [item.path for item in api.list_repo_tree(NAME, token=False, **options)]

    found = list(api.list_repo_tree(NAME, recursive=True, revision=repo.commit, token=False))
    assert [item.path for item in found] == ["a.gguf", "sub", "sub/deep", "sub/deep/b c.gguf"]
    assert [type(item) for item in found] == [RepoFile, RepoFolder, RepoFolder, RepoFile]
    assert isinstance(found[-1], RepoFile)
    assert found[-1].lfs is not None
    assert (found[-1].size, found[-1].lfs.sha256) == (len(B), digest(B))
    assert paths() == ["a.gguf", "sub"]
    assert paths(path_in_repo="sub/deep") == ["sub/deep/b c.gguf"]
    assert paths(path_in_repo="sub", recursive=True) == ["sub/deep", "sub/deep/b c.gguf"]
    with pytest.raises(RemoteEntryNotFoundError):
        paths(path_in_repo="su")
    with pytest.raises(RevisionNotFoundError):
        paths(revision="nowhere")


def test_file_metadata(hub: LoopbackHub, repo: Repo) -> None:
    metadata = get_hf_file_metadata(file_url(hub, "sub/deep/b c.gguf"), token=False)
    assert (metadata.commit_hash, metadata.etag, metadata.size) == (repo.commit, digest(B), len(B))
    assert metadata.location.startswith(f"{hub.cdn_url}/cdn/{digest(B)}?filename=sub/deep/b%20c.gguf")
    assert metadata.xet_file_data is None
    assert routes(hub) == [("resolve", "HEAD", 302)]
    assert hub.requests[0].headers["accept-encoding"] == "identity"


def test_download(hub: LoopbackHub, repo: Repo, tmp_path: Path) -> None:
    path = download(hub, tmp_path)
    assert path.read_bytes() == A
    assert path.parent.name == repo.commit
    assert path.resolve().name == digest(A)
    assert routes(hub) == [("resolve", "HEAD", 302), ("cdn", "GET", 200)]
    assert hub.body_bytes == len(A)
    assert download(hub, tmp_path, "sub/deep/b c.gguf").read_bytes() == B
    assert hub.body_bytes == len(A) + len(B)
    before = len(hub.requests)
    assert download(hub, tmp_path, revision=repo.commit) == path
    assert len(hub.requests) == before


def test_the_token_stays_on_its_origin(hub: LoopbackHub, tmp_path: Path, client: httpx2.Client) -> None:
    hub.add_repo(NAME, {"a.gguf": A}, token="hf_secret")
    assert download(hub, tmp_path, token="hf_secret").read_bytes() == A
    headers = {"Authorization": "Bearer hf_secret", "Range": "bytes=0-9"}
    assert client.get(file_url(hub), headers=headers).content == A[:10]
    sent = {request.where: request.authorization for request in hub.requests}
    assert sent == {"resolve": "Bearer hf_secret", "cdn": None}
    assert [request.range for request in hub.requests[-2:]] == ["bytes=0-9"] * 2


def test_a_private_repository(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.add_repo(NAME, {"a.gguf": A}, token="hf_secret")
    api = HfApi(endpoint=hub.url)
    assert api.model_info(NAME, token="hf_secret").private
    for call in (lambda: api.model_info(NAME, token=False), lambda: download(hub, tmp_path)):
        with pytest.raises(RepositoryNotFoundError) as unnamed:
            call()
        assert unnamed.value.response.status_code == 401
    for call in (lambda: api.model_info(NAME, token="hf_other"), lambda: download(hub, tmp_path, token="hf_other")):
        with pytest.raises(HfHubHTTPError, match="Invalid credentials in Authorization header") as wrong:
            call()
        assert type(wrong.value) is HfHubHTTPError
        assert wrong.value.response.status_code == 401


def test_a_gated_repository_shows_its_listing_only(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.add_repo(NAME, {"a.gguf": A}, gated=True, token="hf_secret")
    info = HfApi(endpoint=hub.url).model_info(NAME, files_metadata=True, token=False)
    assert (info.gated, info.private, len(info.siblings or [])) == ("manual", False, 1)
    for token, status in ((False, 401), ("hf_other", 403)):
        with pytest.raises(GatedRepoError) as refused:
            download(hub, tmp_path, token=token)
        assert refused.value.response.status_code == status
    assert download(hub, tmp_path, token="hf_secret").read_bytes() == A


def test_what_does_not_exist(hub: LoopbackHub, repo: Repo, tmp_path: Path) -> None:
    api = HfApi(endpoint=hub.url)
    for token, status in ((False, 401), ("hf_any", 404)):
        for call in (api.model_info, api.list_repo_files):
            with pytest.raises(RepositoryNotFoundError) as missing:
                call("owner/other", token=token)
            assert missing.value.response.status_code == status
    with pytest.raises(RevisionNotFoundError):
        api.model_info(NAME, revision="0" * 40, token=False)
    with pytest.raises(RevisionNotFoundError):
        download(hub, tmp_path, revision="v2/x")
    with pytest.raises(RemoteEntryNotFoundError) as absent:
        download(hub, tmp_path, "c.gguf")
    assert absent.value.response.headers["X-Repo-Commit"] == repo.commit


def test_push_moves_main(hub: LoopbackHub, repo: Repo, tmp_path: Path) -> None:
    api = HfApi(endpoint=hub.url)
    old = repo.commit
    repo.branches["release/1"] = old
    new = repo.push({"a.gguf": b"new", "c.gguf": b"more", "sub/deep/b c.gguf": None})
    assert new == repo.commit != old
    assert repo.push({}) != new, "a commit knows its parent"
    assert api.list_repo_files(NAME, token=False) == ["a.gguf", "c.gguf"]
    assert download(hub, tmp_path).read_bytes() == b"new"
    for revision in (old, "release/1"):
        assert download(hub, tmp_path, revision=revision).read_bytes() == A
        assert api.model_info(NAME, revision=revision, token=False).sha == old
    repo.push({"a.gguf": b"newer"}, forget_old=True)
    for revision in (old, new, "release/1"):
        with pytest.raises(RevisionNotFoundError):
            api.model_info(NAME, revision=revision, token=False)
        with pytest.raises(RevisionNotFoundError):
            get_hf_file_metadata(file_url(hub, revision=revision), token=False)
    assert download(hub, tmp_path).read_bytes() == b"newer"


def test_lies_in_the_listing(hub: LoopbackHub, repo: Repo, client: httpx2.Client) -> None:
    repo.listed_as("a.gguf", size=7, sha256="0" * 64, name="../evil.gguf")
    info = HfApi(endpoint=hub.url).model_info(NAME, files_metadata=True, token=False)
    (lie,) = (file for file in info.siblings or [] if file.size == 7)
    assert lie.rfilename == "../evil.gguf"
    assert lie.lfs is not None
    assert (lie.lfs.sha256, lie.lfs.size) == ("0" * 64, 7)
    metadata = get_hf_file_metadata(file_url(hub), token=False)
    assert (metadata.etag, metadata.size) == ("0" * 64, 7)
    assert client.get(metadata.location).content == A
    raw = client.get(f"{hub.url}/{NAME}/resolve/main/%2E%2E%2Fevil.gguf")
    assert (raw.status_code, raw.content) == (200, A)
    repo.listed_as("a.gguf")
    assert get_hf_file_metadata(file_url(hub), token=False).size == len(A)


def test_a_wrong_size_fails_the_download(hub: LoopbackHub, repo: Repo, tmp_path: Path) -> None:
    repo.listed_as("a.gguf", size=len(A) + 1)
    with pytest.raises(OSError, match="Consistency check failed"):
        download(hub, tmp_path)


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-", 100, len(B)),
        ("bytes=100-199", 100, 200),
        ("bytes=-24", len(B) - 24, len(B)),
        ("bytes=-9999", 0, len(B)),
        ("bytes=1000-9999", 1000, len(B)),
    ],
)
def test_ranges(hub: LoopbackHub, repo: Repo, client: httpx2.Client, asked: str, start: int, stop: int) -> None:
    answer = client.get(file_url(hub, "sub/deep/b c.gguf"), headers={"Range": asked})
    assert (answer.status_code, answer.content) == (206, B[start:stop])
    assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(B)}"
    assert hub.body_bytes == stop - start


def test_ranges_that_are_not_served(hub: LoopbackHub, repo: Repo, client: httpx2.Client) -> None:
    url = file_url(hub, "sub/deep/b c.gguf")
    for asked in ("bytes=9-3", "bytes=-", "bytes=0-1,4-5", "lines=1-2"):
        assert client.get(url, headers={"Range": asked}).status_code == 200
    for asked in (f"bytes={len(B)}-", "bytes=-0"):
        answer = client.get(url, headers={"Range": asked})
        assert (answer.status_code, answer.headers["Content-Range"]) == (416, f"bytes */{len(B)}")
    etag = client.head(url).headers["ETag"]
    assert etag == f'"{digest(B)}"'
    for condition, status in ((etag, 206), ('"other"', 200)):
        headers = {"Range": "bytes=1-2", "If-Range": condition}
        assert client.get(url, headers=headers).status_code == status
    head = client.head(url)
    assert (head.status_code, head.headers["Content-Length"], head.content) == (200, str(len(B)), b"")
    assert head.headers["Accept-Ranges"] == "bytes"


def test_huggingface_hub_resumes_after_a_drop(
    hub: LoopbackHub, repo: Repo, tmp_path: Path, no_waiting: list[float], small_chunks: None
) -> None:
    hub.faults += [Fault("cdn", drop_after=70_000), Fault("cdn", drop_after=50_000)]
    assert download(hub, tmp_path).read_bytes() == A
    assert [request.range for request in hub.requests if request.where == "cdn"] == [
        None,
        "bytes=70000-",
        "bytes=120000-",
    ]
    assert hub.body_bytes == len(A)
    assert no_waiting == [1, 1]
    assert hub.faults == []


def test_huggingface_hub_starts_over_where_the_range_is_ignored(
    hub: LoopbackHub, repo: Repo, tmp_path: Path, no_waiting: list[float], small_chunks: None
) -> None:
    hub.faults += [Fault("cdn", ignore_range=True), Fault("cdn", drop_after=75_000)]
    target = tmp_path / "target"
    with target.open("wb") as stream:
        http_get(get_hf_file_metadata(file_url(hub), token=False).location, stream)
    assert target.read_bytes() == A
    assert [(request.range, request.status) for request in hub.requests[1:]] == [(None, 200), ("bytes=70000-", 200)]


def test_huggingface_hub_retries_files_and_not_listings(
    hub: LoopbackHub, repo: Repo, tmp_path: Path, no_waiting: list[float]
) -> None:
    hub.faults.append(Fault("api", status=503, retry_after=3))
    with pytest.raises(HfHubHTTPError) as failed:
        HfApi(endpoint=hub.url).model_info(NAME, token=False)
    assert failed.value.response.headers["Retry-After"] == "3"
    assert no_waiting == []
    hub.faults += [Fault("resolve", status=503, retry_after=3, times=2), Fault("cdn", status=429, retry_after=0.5)]
    assert download(hub, tmp_path).read_bytes() == A
    assert no_waiting == [4, 1]
    assert [status for _, _, status in routes(hub)] == [503, 503, 503, 302, 429, 200]


@pytest.mark.parametrize("reset", [False, True])
def test_a_drop(hub: LoopbackHub, repo: Repo, client: httpx2.Client, reset: bool) -> None:
    hub.faults.append(Fault("cdn", drop_after=1000, reset=reset))
    chunks: list[bytes] = []
    with client.stream("GET", file_url(hub), headers={"Range": "bytes=50-"}) as answer:
        assert (answer.status_code, answer.headers["Content-Length"]) == (206, str(len(A) - 50))
        with pytest.raises(httpx2.ReadError if reset else httpx2.RemoteProtocolError):
            chunks.extend(answer.iter_raw())
    received = b"".join(chunks)
    assert A[50:1050].startswith(received)
    assert reset or len(received) == 1000
    assert hub.body_bytes == 1000
    assert client.get(file_url(hub)).content == A


def test_a_drop_of_a_listing(hub: LoopbackHub, repo: Repo) -> None:
    hub.faults.append(Fault("api", drop_after=20))
    with pytest.raises(httpx2.RemoteProtocolError):
        HfApi(endpoint=hub.url).model_info(NAME, token=False)


def test_a_short_body(hub: LoopbackHub, repo: Repo, client: httpx2.Client) -> None:
    hub.faults += [Fault("cdn", short_body=1000), Fault("cdn", short_body=10)]
    whole = client.get(file_url(hub))
    assert (whole.status_code, whole.headers["Content-Length"], whole.content) == (200, "1000", A[:1000])
    part = client.get(file_url(hub), headers={"Range": "bytes=5-99"})
    assert (part.status_code, part.headers["Content-Length"], part.content) == (206, "10", A[5:15])
    assert part.headers["Content-Range"] == f"bytes 5-99/{len(A)}"


def test_a_status(hub: LoopbackHub, repo: Repo, client: httpx2.Client) -> None:
    hub.faults += [
        Fault("cdn", status=403),
        Fault("resolve", method="HEAD", status=429, retry_after=0.25),
        Fault("resolve", status=404, error_code="EntryNotFound", path_contains="b c.gguf", times=2),
    ]
    assert client.get(file_url(hub)).status_code == 403
    limited = client.head(file_url(hub))
    assert (limited.status_code, limited.headers["Retry-After"], limited.content) == (429, "0.25", b"")
    for _ in range(2):
        assert client.get(file_url(hub)).status_code == 200
        with pytest.raises(RemoteEntryNotFoundError):
            get_hf_file_metadata(file_url(hub, "sub/deep/b c.gguf"), token=False)
    assert client.get(file_url(hub, "sub/deep/b c.gguf")).content == B


def test_a_fault_of_the_body_waits_for_one(hub: LoopbackHub, repo: Repo, client: httpx2.Client) -> None:
    hub.faults += [Fault("cdn", corrupt_at=150_000), Fault("cdn", ignore_range=True)]
    assert client.head(file_url(hub)).status_code == 200
    assert len(hub.faults) == 2
    first = client.get(file_url(hub), headers={"Range": "bytes=0-99"})
    assert (first.status_code, first.content) == (200, A)
    rest = client.get(file_url(hub), headers={"Range": "bytes=100-"}).content
    assert [index for index, pair in enumerate(zip(A[100:], rest, strict=True)) if pair[0] != pair[1]] == [149_900]
    assert rest[149_900] == A[150_000] ^ 0xFF
    assert client.get(file_url(hub)).content == A


def test_a_fault_by_the_name_of_a_file(hub: LoopbackHub, repo: Repo, client: httpx2.Client) -> None:
    hub.faults.append(Fault("cdn", status=500, path_contains="b c.gguf"))
    assert client.get(file_url(hub)).status_code == 200
    assert client.get(file_url(hub, "sub/deep/b c.gguf")).status_code == 500


@pytest.mark.parametrize("where", ["api", "resolve", "cdn"])
def test_a_stall(client: httpx2.Client, where: Where) -> None:
    """The client's time runs out, or it does not and the hub closes; either way the hub ends at once."""
    with LoopbackHub() as hub:
        hub.add_repo(NAME, {"a.gguf": A})
        hub.faults.append(Fault(where, stall=True, times=2))
        cdn = f"{hub.cdn_url}/cdn/{digest(A)}"
        url = {"api": f"{hub.url}/api/models/{NAME}", "resolve": file_url(hub), "cdn": cdn}[where]
        with pytest.raises(httpx2.ReadTimeout):
            client.get(url, timeout=httpx2.Timeout(10, read=0.05))
        errors: list[Exception] = []

        def wait() -> None:
            try:
                client.get(url)
            except httpx2.TransportError as error:
                errors.append(error)

        waiting = threading.Thread(target=wait)
        waiting.start()
        hub.wait_for_requests(2)
        assert waiting.is_alive()
    waiting.join()
    assert not [thread for thread in threading.enumerate() if thread.name == "loopback-hub"]
    assert len(errors) == 1
    assert [(request.where, request.status) for request in hub.requests] == [(where, None)] * 2


def test_a_fault_says_what_goes_wrong() -> None:
    with pytest.raises(ValueError, match="nothing goes wrong"):
        Fault("cdn", times=3)


def test_many_clients_at_once(hub: LoopbackHub, repo: Repo, client: httpx2.Client) -> None:
    hub.faults.append(Fault("cdn", short_body=1, times=5))
    sizes: list[int] = []

    def get() -> None:
        for _ in range(5):
            sizes.append(len(client.get(file_url(hub)).content))

    threads = [threading.Thread(target=get) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(sizes) == [1] * 5 + [len(A)] * 35
    assert hub.body_bytes == sum(sizes)
    assert len(hub.requests) == 80
