"""Faults between the hub and the cache: each is survived, or becomes a two-line error, and no bytes are lost."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import hf_hub_download, scan_cache_dir

from internvl_gguf.errors import HubError
from internvl_gguf.gguf.filenames import RepoFile
from internvl_gguf.gguf.header import read_header
from internvl_gguf.models.hub import HubCache, HubClient, RemoteFile, RepoListing, download
from tests.support.loopback_hub import Fault, LoopbackHub, Repo
from tests.support.tiny_models import write_tiny_mmproj

NAME = "owner/name"
FILE = "model.gguf"
SIZE = 3 * 2**20 + 12_345
CONTENT = bytes(hashlib.shake_256(b"content").digest(SIZE))
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Rig:
    """A hub, a client of it that waits for nothing, and a cache."""

    def __init__(self, hub: LoopbackHub, root: Path) -> None:
        self.hub = hub
        self.repo: Repo = hub.add_repo(NAME, {FILE: CONTENT})
        self.waits: list[float] = []
        self.lines: list[str] = []
        self.client = HubClient(hub.url, token=False, on_wait=self.lines.append, sleep=self.waits.append)
        self.cache = HubCache(root)

    def listing(self) -> RepoListing:
        return self.client.listing(NAME, None)

    def pull(self, listing: RepoListing | None = None) -> Path:
        listing = listing or self.listing()
        return download(self.client, self.cache, listing, listing.files[0], on_wait=self.lines.append)

    def partial(self) -> Path:
        return self.cache.partial(NAME, RepoFile(FILE, SIZE, DIGEST))

    def leave_partial(self, data: bytes) -> None:
        self.partial().parent.mkdir(parents=True)
        self.partial().write_bytes(data)

    def ranges(self) -> list[str | None]:
        return [request.range for request in self.hub.requests if request.where == "cdn"]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with LoopbackHub() as hub:
        yield Rig(hub, tmp_path / "cache")


def test_a_file_arrives_where_the_hubs_own_client_finds_it(rig: Rig) -> None:
    path = rig.pull()
    assert path.read_bytes() == CONTENT
    rig.cache.remember_revision(NAME, None, rig.repo.commit)
    theirs = hf_hub_download(NAME, FILE, cache_dir=rig.cache.root, endpoint=rig.hub.url, local_files_only=True)
    assert Path(theirs).samefile(path)
    (repo,) = scan_cache_dir(rig.cache.root).repos
    assert (repo.repo_id, repo.size_on_disk) == (NAME, SIZE)
    assert not rig.partial().exists()


def test_a_file_that_their_client_fetched_is_not_fetched_again(rig: Rig) -> None:
    hf_hub_download(NAME, FILE, cache_dir=rig.cache.root, endpoint=rig.hub.url, token=False)
    sent = rig.hub.body_bytes
    assert rig.pull().read_bytes() == CONTENT
    assert rig.hub.body_bytes == sent


@pytest.mark.parametrize("at", [0, 1, 1000, 2**20 - 1, 2**20, 2**20 + 1, SIZE - 1])
def test_a_connection_dropped_at_any_byte_is_resumed(rig: Rig, at: int) -> None:
    rig.hub.faults.append(Fault("cdn", drop_after=at))
    assert rig.pull().read_bytes() == CONTENT
    assert rig.ranges() == [None, f"bytes={at}-" if at else None]
    assert rig.hub.body_bytes == SIZE
    assert "trying again" in rig.lines[0]


def test_a_connection_that_drops_again_and_again_gets_there_while_it_makes_progress(rig: Rig) -> None:
    rig.hub.faults += [Fault("cdn", drop_after=100_000) for _ in range(20)]
    assert rig.pull().read_bytes() == CONTENT
    assert rig.hub.body_bytes == SIZE


@pytest.mark.parametrize("at", [1, 12_345, 2**20, SIZE - 1])
def test_the_next_process_goes_on_where_this_one_gave_up(rig: Rig, at: int) -> None:
    rig.hub.faults.append(Fault("cdn", drop_after=at))
    rig.hub.faults.append(Fault("cdn", status=503, times=6))
    with pytest.raises(HubError, match="several times in a row") as failure:
        rig.pull()
    assert "goes on where it stopped" in failure.value.hint
    assert rig.partial().read_bytes() == CONTENT[:at]
    rig.hub.faults.clear()
    assert rig.pull().read_bytes() == CONTENT
    assert rig.ranges()[-1] == f"bytes={at}-"


def test_a_server_that_ignores_ranges_is_read_from_the_start(rig: Rig) -> None:
    rig.leave_partial(CONTENT[:777])
    rig.hub.faults.append(Fault("cdn", ignore_range=True))
    assert rig.pull().read_bytes() == CONTENT


@pytest.mark.parametrize("listed", [SIZE - 1, SIZE + 1, 10 * SIZE])
def test_a_file_of_another_size_than_listed_is_refused(rig: Rig, listed: int) -> None:
    rig.repo.listed_as(FILE, size=listed)
    with pytest.raises(HubError, match=r"bytes where|longer than|shorter than"):
        rig.pull()
    assert not rig.cache.files(NAME, rig.repo.commit)


def test_a_file_of_another_content_than_announced_is_refused_and_forgotten(rig: Rig) -> None:
    rig.repo.listed_as(FILE, sha256="ab" * 32)
    with pytest.raises(HubError, match="its hash is wrong"):
        rig.pull()
    assert not list(rig.cache.root.rglob("*.internvl-partial"))
    assert not rig.cache.files(NAME, rig.repo.commit)


def test_a_byte_changed_on_the_way_is_noticed(rig: Rig) -> None:
    rig.hub.faults.append(Fault("cdn", corrupt_at=SIZE // 2))
    with pytest.raises(HubError, match="its hash is wrong"):
        rig.pull()
    assert rig.pull().read_bytes() == CONTENT


def test_a_damaged_partial_of_an_earlier_process_costs_one_more_download_and_no_error(rig: Rig) -> None:
    rig.leave_partial(bytes(2000))
    assert rig.pull().read_bytes() == CONTENT


@pytest.mark.parametrize("left", [CONTENT, CONTENT + b"more", b""])
def test_a_partial_that_is_whole_or_too_long_or_empty(rig: Rig, left: bytes) -> None:
    rig.leave_partial(left)
    assert rig.pull().read_bytes() == CONTENT


@pytest.mark.parametrize("sent", [0, 1, 2**20, SIZE - 1])
def test_a_body_that_ends_early_with_a_good_status_is_resumed(rig: Rig, sent: int) -> None:
    rig.hub.faults.append(Fault("cdn", short_body=sent))
    assert rig.pull().read_bytes() == CONTENT


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.parametrize("where", ["api", "resolve", "cdn"])
def test_a_hub_in_trouble_is_waited_for(rig: Rig, where: str, status: int) -> None:
    rig.hub.faults.append(Fault(where, status=status, times=3))  # type: ignore[arg-type]
    assert rig.pull().read_bytes() == CONTENT
    assert len(rig.waits) == 3
    assert rig.waits[0] <= 1 <= rig.waits[2] <= 4


def test_the_wait_that_the_hub_asks_for_is_kept(rig: Rig) -> None:
    rig.hub.faults.append(Fault("resolve", status=429, retry_after=17))
    rig.pull()
    assert rig.waits == [17]


@pytest.mark.parametrize("where", ["api", "resolve"])
def test_trouble_that_lasts_is_told(rig: Rig, where: str) -> None:
    rig.hub.faults.append(Fault(where, status=500, times=100))  # type: ignore[arg-type]
    with pytest.raises(HubError, match="status 500, several times in a row"):
        rig.pull()
    assert len(rig.waits) == 5


def test_a_gated_repository_says_how_to_get_in(rig: Rig) -> None:
    rig.hub.add_repo("owner/gated", {FILE: CONTENT}, gated=True, token="secret")
    client = HubClient(rig.hub.url, token=False)
    listing = client.listing("owner/gated", None)
    with pytest.raises(HubError, match="gated") as failure:
        download(client, rig.cache, listing, listing.files[0])
    assert "HF_TOKEN" in failure.value.hint
    allowed = HubClient(rig.hub.url, token="secret")
    assert download(allowed, rig.cache, listing, listing.files[0]).read_bytes() == CONTENT


def test_the_token_goes_to_the_hub_and_not_to_where_it_sends_us(rig: Rig) -> None:
    rig.hub.add_repo("owner/private", {FILE: CONTENT}, token="secret")
    client = HubClient(rig.hub.url, token="secret")
    listing = client.listing("owner/private", None)
    download(client, rig.cache, listing, listing.files[0])
    for request in rig.hub.requests:
        assert (request.authorization is None) == (request.where == "cdn")


@pytest.mark.parametrize(
    ("repo", "revision", "message"),
    [
        ("owner/none", None, "no repository owner/none"),
        (NAME, "gone", "no revision gone"),
        (NAME, "0" * 40, "no revision"),
        ("no name at all", None, "no name of a repository"),
    ],
)
def test_what_is_not_there_is_told(rig: Rig, repo: str, revision: str | None, message: str) -> None:
    with pytest.raises(HubError, match=message):
        rig.client.listing(repo, revision)


@pytest.mark.parametrize(("status", "word"), [(401, "HF_TOKEN"), (403, "Ask its owner"), (410, "HF_ENDPOINT")])
def test_other_refusals_are_told(rig: Rig, status: int, word: str) -> None:
    rig.hub.faults.append(Fault("api", status=status))
    with pytest.raises(HubError) as failure:
        rig.listing()
    assert word in failure.value.hint


def test_a_file_that_was_listed_and_is_gone(rig: Rig) -> None:
    listing = rig.listing()
    missing = RepoFile("other.gguf", 5, "cd" * 32)
    with pytest.raises(HubError, match="listed but not there"):
        download(rig.client, rig.cache, listing, missing)


def test_nobody_listens(rig: Rig, tmp_path: Path) -> None:
    with LoopbackHub() as gone:
        url = gone.url
    client = HubClient(url, token=False, sleep=rig.waits.append)
    with pytest.raises(HubError, match=r"connection to 127\.0\.0\.1 failed"):
        client.listing(NAME, None)
    assert len(rig.waits) == 2


def test_a_hub_that_never_answers(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.05)
    rig.hub.faults.append(Fault("api", stall=True, times=100))
    with pytest.raises(HubError, match="did not answer in time, several times"):
        rig.listing()


def test_a_full_disk_keeps_what_came(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The write fails in the middle, as it does when another program fills the disk after the check."""
    listing, written = rig.listing(), 0
    genuine = Path.open

    def small_disk(self: Path, *arguments: Any, **options: Any) -> object:
        stream = genuine(self, *arguments, **options)
        if self != rig.partial():
            return stream
        write = stream.write

        class Full:
            def __getattr__(self, name: str) -> object:
                return getattr(stream, name)

            def __enter__(self) -> Full:
                return self

            def __exit__(self, *error: object) -> None:
                stream.close()

            def write(self, data: bytes) -> int:
                nonlocal written
                if written + len(data) > 2**20:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                written += len(data)
                accepted: int = write(data)
                return accepted

        return Full()

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", small_disk)
        with pytest.raises(HubError, match="is full") as failure:
            rig.pull(listing)
    assert "what came is kept" in failure.value.hint
    assert rig.partial().stat().st_size == written > 0
    assert rig.pull(listing).read_bytes() == CONTENT
    assert rig.hub.body_bytes < 2 * SIZE


def test_a_cache_that_cannot_be_written(rig: Rig) -> None:
    rig.cache.root.parent.mkdir(exist_ok=True)
    rig.cache.root.write_bytes(b"a file where the folder belongs")
    with pytest.raises(HubError, match="cannot be written"):
        rig.pull()


def test_two_processes_pull_one_file_once(rig: Rig) -> None:
    """Two pullers at once, on two connections: the second waits for the first."""
    listing = rig.listing()
    paths: list[Path] = []
    begin = threading.Barrier(2)

    def pull() -> None:
        client = HubClient(rig.hub.url, token=False)
        begin.wait()
        paths.append(download(client, rig.cache, listing, listing.files[0]))

    threads = [threading.Thread(target=pull) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert paths[0] == paths[1]
    assert paths[0].read_bytes() == CONTENT
    assert rig.hub.body_bytes == SIZE


PULL = """
import sys
from pathlib import Path
from internvl_gguf.models.hub import HubCache, HubClient, download
client, cache = HubClient(sys.argv[1], token=False), HubCache(Path(sys.argv[2]))
listing = client.listing("owner/name", None)
def tell(file, done):
    print(done, flush=True)
    if done and len(sys.argv) > 3:
        sys.stdin.read()  # until it is killed
download(client, cache, listing, listing.files[0], tell)
"""


@pytest.mark.skipif(os.name == "nt", reason="kill -9")
def test_a_killed_process_loses_nothing_that_came(rig: Rig) -> None:
    command = [sys.executable, "-c", PULL, rig.hub.url, str(rig.cache.root)]
    with subprocess.Popen([*command, "wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"0\n"
        reached = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    kept = rig.partial().stat().st_size
    assert 0 < kept < SIZE
    assert abs(kept - reached) <= 2**20
    sent = rig.hub.body_bytes
    finished = subprocess.run(command, check=True, capture_output=True)
    assert int(finished.stdout.split()[0]) == kept
    assert rig.hub.body_bytes - sent == SIZE - kept
    assert rig.pull().read_bytes() == CONTENT


@pytest.mark.parametrize(
    "evil",
    [
        "../evil.gguf",
        "a/../../evil.gguf",
        "/etc/evil.gguf",
        "..\\evil.gguf",
        "C:\\evil.gguf",
        "c:evil.gguf",
        "a//b.gguf",
    ],
)
def test_a_name_that_tries_to_leave_the_folder_is_not_listed_and_not_written(rig: Rig, evil: str) -> None:
    rig.repo.listed_as(FILE, name=evil)
    listing = rig.listing()
    assert not listing.files
    with pytest.raises(HubError, match="leave its folder"):
        download(rig.client, rig.cache, listing, RepoFile(evil, SIZE, DIGEST))
    assert not rig.cache.root.exists()


def test_a_revision_that_moves_between_header_and_body_changes_nothing(rig: Rig, tmp_path: Path) -> None:
    """Everything after the listing asks for its commit, so that header and body are of one file."""
    mmproj = write_tiny_mmproj(tmp_path / "mmproj.gguf")
    rig.repo.push({FILE: mmproj})
    listing = rig.listing()
    header = read_header(RemoteFile(rig.client, listing, listing.files[0]))
    rig.repo.push({FILE: CONTENT})
    path = rig.pull(listing)
    assert read_header(path).key_values == header.key_values
    assert path.read_bytes() == mmproj.read_bytes()


def test_a_revision_that_was_taken_back_is_told(rig: Rig) -> None:
    listing = rig.listing()
    rig.repo.push({FILE: b"other"}, forget_old=True)
    with pytest.raises(HubError, match="may have moved"):
        rig.pull(listing)


def test_a_header_is_read_by_ranges_and_once(rig: Rig, tmp_path: Path) -> None:
    """Of a file of 300 MB that the hub claims to hold, a megabyte is asked for; the second reader asks nothing."""
    mmproj = write_tiny_mmproj(tmp_path / "mmproj.gguf")
    rig.repo.push({FILE: mmproj})
    listing = rig.listing()
    remote = RemoteFile(rig.client, listing, listing.files[0])
    header = read_header(remote)
    assert header.key_values == read_header(mmproj).key_values
    asked = len(rig.hub.requests)
    assert read_header(RemoteFile(rig.client, listing, listing.files[0])).tensors == header.tensors
    assert len(rig.hub.requests) == asked


@pytest.mark.parametrize("fault", [{"ignore_range": True}, {"drop_after": 100}, {"short_body": 50}, {"status": 503}])
def test_header_reads_survive_faults(rig: Rig, fault: dict[str, int]) -> None:
    rig.hub.faults.append(Fault("cdn", **fault))  # type: ignore[arg-type]
    listing = rig.listing()
    remote = RemoteFile(rig.client, listing, listing.files[0])
    assert remote.read_prefix(5000) == CONTENT[:5000]
    assert remote.read_prefix(9000) == CONTENT[:9000]


def test_a_header_of_a_file_of_another_size_is_refused(rig: Rig) -> None:
    rig.repo.listed_as(FILE, size=SIZE + 5)
    listing = rig.listing()
    with pytest.raises(HubError, match="where the hub lists"):
        RemoteFile(rig.client, listing, listing.files[0]).read_prefix(100)


def test_removing_a_file_frees_its_content_unless_another_commit_has_it(rig: Rig) -> None:
    path = rig.pull()
    rig.cache.remember_revision(NAME, None, rig.repo.commit)
    file = rig.cache.files(NAME, rig.repo.commit)[0]
    assert file == RepoFile(FILE, SIZE, DIGEST)
    assert rig.cache.remove(NAME, file) == SIZE
    assert not path.exists()
    assert not list(rig.cache.repos())
    rig.repo.push({"copy.gguf": CONTENT})
    listing = rig.listing()
    for listed in listing.files:
        download(rig.client, rig.cache, listing, listed)
    by_name = {file.path: file for file in rig.cache.files(NAME, listing.commit)}
    assert rig.cache.remove(NAME, by_name[FILE]) == 0
    assert rig.cache.path(NAME, listing.commit, by_name["copy.gguf"]).read_bytes() == CONTENT


def test_the_cache_lists_every_commit_once_and_what_is_unfinished(rig: Rig) -> None:
    first = rig.listing()
    rig.pull(first)
    rig.repo.push({"second.gguf": b"second"})
    second = rig.listing()
    for file in second.files:
        download(rig.client, rig.cache, second, file)
    rig.hub.add_repo("owner/later", {FILE: b"x" * 1000})
    rig.hub.faults += [Fault("cdn", drop_after=400), Fault("cdn", status=500, times=9)]
    later = rig.client.listing("owner/later", None)
    with pytest.raises(HubError):
        download(rig.client, rig.cache, later, later.files[0])
    found = list(rig.cache.repos())
    assert sorted(file.path for repo in found for file in repo.files) == [FILE, "second.gguf"]
    assert {repo.repo: repo.partial_bytes for repo in found} == {NAME: 0, "owner/later": 400}
