"""Embeddings on disk: exact, shared by processes, bounded by bytes, and never in the way of an answer."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from internvl_gguf import Question, Reply, SamplingParams, Session
from internvl_gguf.engine import embedding_store
from internvl_gguf.engine.embedding_cache import EmbeddingCache
from internvl_gguf.engine.embedding_store import EmbeddingStore
from internvl_gguf.models.resolve import ModelFiles
from internvl_gguf.session import in_process_runtime, open_encoder
from internvl_gguf.utils.records import RECORDS
from tests.cli.test_commands import FAST, run
from tests.support.known_embeddings import assert_same_bits, key, values
from tests.support.pictures import noise
from tests.support.tiny_models import write_tiny_mmproj, write_tiny_text

BLOCK = 4096
HEADER_BYTES = 32
SHORT = SamplingParams(max_tokens=4)
AMPLE = 1 << 30
CHILD = """
    import sys
    from pathlib import Path
    from internvl_gguf.engine import embedding_store
    from internvl_gguf.engine.embedding_store import EmbeddingStore
    from tests.support.known_embeddings import assert_same_bits, key, values
"""


def used_bytes(folder: Path) -> int:
    """Whole blocks of all entries and parts in a folder."""
    total = 0
    for path in folder.iterdir():
        if path.suffix == ".tile" or path.name == ".partial":
            try:
                total += -(-path.stat().st_size // BLOCK) * BLOCK
            except FileNotFoundError:
                continue
    return total


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    """Start another process with a store; it reads and writes lines."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CHILD) + textwrap.dedent(script), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


@pytest.fixture
def store(tmp_path: Path) -> EmbeddingStore:
    return EmbeddingStore(tmp_path / "embeddings", AMPLE)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of this test alone."""
    monkeypatch.setenv("INTERNVL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


# The store: what comes out


@given(
    rows=st.integers(1, 5),
    columns=st.integers(1, 5),
    bits=st.lists(st.integers(0, 2**32 - 1), min_size=25, max_size=25),
    name=st.binary(min_size=16, max_size=16),
)
@settings(max_examples=50, deadline=None)
def test_what_is_read_is_what_was_written_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, rows: int, columns: int, bits: list[int], name: bytes
) -> None:
    """Whatever the bits mean: not-a-number, infinities, minus zero, denormals."""
    store = EmbeddingStore(tmp_path_factory.mktemp("store"), AMPLE)
    embeddings = np.array(bits[: rows * columns], np.uint32).view(np.float32).reshape(rows, columns)
    assert store.get(name) is None
    store.put(name, embeddings)
    assert_same_bits(store.get(name), embeddings)


@given(mask=st.integers(1, 255))
@settings(max_examples=5, deadline=None)
def test_a_byte_changed_anywhere_is_a_miss(tmp_path_factory: pytest.TempPathFactory, mask: int) -> None:
    store = EmbeddingStore(tmp_path_factory.mktemp("store"), AMPLE)
    store.put(key(0), values(0, (2, 3)))
    (path,) = store.folder.glob("*.tile")
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ mask]) + whole[place + 1 :])
        assert store.get(key(0)) is None, place
        assert not path.exists(), "what is damaged is removed"
    store.put(key(0), values(0, (2, 3)))
    assert_same_bits(store.get(key(0)), values(0, (2, 3)))


def test_another_length_or_name_is_a_miss(store: EmbeddingStore) -> None:
    store.put(key(0), values(0, (2, 3)))
    (path,) = store.folder.glob("*.tile")
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert store.get(key(0)) is None, length
    path.write_bytes(whole + b"\0")
    assert store.get(key(0)) is None
    path.with_name(f"{key(1).hex()}.tile").write_bytes(whole)
    assert store.get(key(1)) is None, "embeddings of one tile under the name of another"
    assert not list(store.folder.glob("*.tile"))


def test_nothing_on_disk_is_unpickled() -> None:
    script = "from internvl_gguf.engine import embedding_store; import sys; print('diskcache' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout.strip() == "False"
    assert "pickle" not in Path(embedding_store.__file__).read_text()


# The store: what is kept


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path, 8 * 2 * BLOCK)
    for number in range(8):
        store.put(key(number), values(number))
        os.utime(next(tmp_path.glob(f"{key(number).hex()}*")), ns=(number, number))
    assert_same_bits(store.get(key(0)), values(0))  # makes it the newest
    store.put(key(8), values(8))
    assert store.get(key(1)) is None
    for number in (0, 8):
        assert_same_bits(store.get(key(number)), values(number))
    assert used_bytes(tmp_path) <= store.max_bytes


@given(numbers=st.lists(st.integers(0, 9), max_size=40), blocks=st.integers(0, 12))
@settings(max_examples=30, deadline=None)
def test_the_bound_holds_at_every_moment(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[int], blocks: int
) -> None:
    """Entries of one to four blocks; one that fits the bound is there after it was put."""
    store = EmbeddingStore(tmp_path_factory.mktemp("store"), blocks * BLOCK)
    for number in numbers:
        embeddings = values(number, (1 + number % 4, 1000))
        store.put(key(number), embeddings)
        assert used_bytes(store.folder) <= store.max_bytes
        if embeddings.shape[0] <= blocks:
            assert_same_bits(store.get(key(number)), embeddings)
        else:
            assert store.get(key(number)) is None


@given(
    puts=st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=40),
    blocks=st.integers(0, 12),
)
@settings(max_examples=30, deadline=None)
def test_what_does_not_evict_drives_nothing_out(
    tmp_path_factory: pytest.TempPathFactory, puts: list[tuple[int, bool]], blocks: int
) -> None:
    """Whatever was there stays while a batch writes, the bound holds, and `put` says what is there."""
    store = EmbeddingStore(tmp_path_factory.mktemp("store"), blocks * BLOCK)
    for number, evicts in puts:
        before = {file.path for file in store.files()}
        is_stored = store.put(key(number), values(number, (1 + number % 4, 1000)), evicts=evicts)
        after = {file.path for file in store.files()}
        assert used_bytes(store.folder) <= store.max_bytes
        assert is_stored == (store.folder / f"{key(number).hex()}.tile" in after)
        if not evicts:
            assert before <= after


def test_what_a_batch_wrote_is_the_first_to_go_unless_it_was_read(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path, 8 * 2 * BLOCK)
    for number in range(5):
        store.put(key(number), values(number))
    for number in range(5, 20):
        assert store.put(key(number), values(number), evicts=False) == (number < 8)
    assert_same_bits(store.get(key(6)), values(6))
    for number in (20, 21):
        store.put(key(number), values(number))
    there = [number for number in range(22) if store.get(key(number)) is not None]
    assert there == [0, 1, 2, 3, 4, 6, 20, 21]


def test_a_smaller_bound_holds_for_what_is_there(store: EmbeddingStore) -> None:
    for number in range(10):
        store.put(key(number), values(number))
    smaller = EmbeddingStore(store.folder, 4 * 2 * BLOCK)
    smaller.put(key(10), values(10))
    assert used_bytes(store.folder) <= smaller.max_bytes
    assert_same_bits(store.get(key(10)), values(10))


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path, 2 * 2 * BLOCK)
    letter = tmp_path / "letter.txt"
    letter.write_text("mine")
    for number in range(5):
        store.put(key(number), values(number))
    assert store.clear() > 0
    assert letter.read_text() == "mine"
    assert not list(tmp_path.glob("*.tile"))


# The store: several processes, and their deaths


def test_the_bound_holds_under_several_writers(tmp_path: Path) -> None:
    bound = 12 * 2 * BLOCK
    script = """
        store = EmbeddingStore(Path(sys.argv[1]), int(sys.argv[2]))
        for number in range(int(sys.argv[3]), int(sys.argv[3]) + 40):
            store.put(key(number), values(number))
            found = store.get(key(number))  # another may have thrown it out already
            if found is not None:
                assert_same_bits(found, values(number))
    """
    writers = [start(script, tmp_path, bound, first) for first in (0, 20, 40)]
    while any(writer.poll() is None for writer in writers):
        assert used_bytes(tmp_path) <= bound
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert 0 < used_bytes(tmp_path) <= bound
    store = EmbeddingStore(tmp_path, bound)
    left = [number for number in range(80) if store.get(key(number)) is not None]
    assert len(left) == len(list(tmp_path.glob("*.tile"))) > 0
    for number in left:
        assert_same_bits(store.get(key(number)), values(number))


@pytest.mark.parametrize("written", [0, 7, HEADER_BYTES, HEADER_BYTES + 4001, HEADER_BYTES + 8000])
def test_a_writer_killed_in_the_middle_leaves_nothing_wrong(tmp_path: Path, written: int) -> None:
    """kill -9 with so many bytes of an entry on disk, the lock held; the last case lacks only the new name."""
    bound = 3 * 2 * BLOCK
    store = EmbeddingStore(tmp_path, bound)
    store.put(key(0), values(0))
    script = """
        def stop_half_way(file, name, embeddings):
            other = Path(sys.argv[1]) / "whole"
            with other.open("wb", buffering=0) as whole:
                write(whole, name, embeddings)
            file.write(other.read_bytes()[: int(sys.argv[3])])
            other.unlink()
            print("ready", flush=True)
            sys.stdin.read()

        write = embedding_store._write
        embedding_store._write = stop_half_way
        EmbeddingStore(Path(sys.argv[1]), int(sys.argv[2])).put(key(1), values(1))
    """
    writer = start(script, tmp_path, bound, written)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    writer.kill()
    writer.communicate()
    assert store.get(key(1)) is None
    assert_same_bits(store.get(key(0)), values(0))
    assert used_bytes(tmp_path) <= bound
    for number in (1, 2, 3):  # the lock is free, the part is overwritten, the bound holds
        store.put(key(number), values(number))
        assert used_bytes(tmp_path) <= bound
        assert_same_bits(store.get(key(number)), values(number))
    assert not (tmp_path / ".partial").exists()


def test_clearing_while_another_process_reads(store: EmbeddingStore) -> None:
    """The reader gets an entry whole or not at all, whatever happens to it meanwhile."""
    for number in range(5):
        store.put(key(number), values(number, (40, 1000)))
    script = """
        store = EmbeddingStore(Path(sys.argv[1]), 1 << 30)
        print("ready", flush=True)
        for turn in range(400):
            found = store.get(key(turn % 5))
            if found is not None:
                assert_same_bits(found, values(turn % 5, (40, 1000)))
        print("done", flush=True)
    """
    with start(script, store.folder) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
        while reader.poll() is None:
            store.clear()
            for number in range(5):
                store.put(key(number), values(number, (40, 1000)))
        assert reader.stdout.read() == "done\n"
        assert reader.returncode == 0


def test_another_process_that_holds_the_lock_is_not_waited_for_long(
    store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(key(0), values(0))
    script = """
        from filelock import FileLock
        with FileLock(Path(sys.argv[1]) / ".lock"):
            print("ready", flush=True)
            sys.stdin.read()
    """
    holder = start(script, store.folder)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "ready\n"
    monkeypatch.setattr(embedding_store, "_LOCK_SECONDS", 0.01)
    impatient = EmbeddingStore(store.folder, AMPLE)
    with pytest.raises(OSError):
        impatient.put(key(1), values(1))
    assert_same_bits(impatient.get(key(0)), values(0))
    holder.kill()
    holder.communicate()
    impatient.put(key(1), values(1))


# The cache: memory, then disk


def test_what_was_put_is_on_disk_when_the_cache_is_closed(store: EmbeddingStore) -> None:
    cache = EmbeddingCache(0, store)
    for number in range(20):
        cache.put(key(number), values(number))
    cache.close()
    cache.close()
    assert len(cache) == 0
    for number in range(20):
        assert_same_bits(store.get(key(number)), values(number))
        assert_same_bits(cache.get(key(number)), values(number))


def test_memory_comes_before_the_disk(store: EmbeddingStore) -> None:
    cache = EmbeddingCache(AMPLE, store)
    cache.put(key(0), values(0))
    cache.close()
    store.clear()
    assert_same_bits(cache.get(key(0)), values(0))
    store.put(key(1), values(1))
    assert_same_bits(cache.get(key(1)), values(1))
    store.clear()
    assert_same_bits(cache.get(key(1)), values(1))  # remembered when it was read
    found = cache.get(key(1))
    assert found is not None
    with pytest.raises(ValueError):
        found[0, 0] = 1.0


@pytest.mark.parametrize("memory", [0, AMPLE])
def test_a_tile_of_a_batch_gets_room_when_it_occurs_again(tmp_path: Path, memory: int) -> None:
    """Once it comes from memory, or is encoded again where memory had no room either."""
    store = EmbeddingStore(tmp_path, 4 * 2 * BLOCK)
    for number in range(4):
        store.put(key(number), values(number))
    cache = EmbeddingCache(memory, store)
    for number in range(4, 30):
        cache.put(key(number), values(number), evicts=False)
    cache.close()
    assert all(store.get(key(number)) is not None for number in range(4))
    cache = EmbeddingCache(memory, store)
    cache.put(key(7), values(7), evicts=False)
    _wait_for_writes(cache)
    if cache.get(key(7)) is None:
        cache.put(key(7), values(7), evicts=False)
    cache.close()
    assert_same_bits(store.get(key(7)), values(7))


def _wait_for_writes(cache: EmbeddingCache) -> None:
    for written, _ in list(cache._writes):
        written.result()


class _SlowStore(EmbeddingStore):
    """A store whose writes wait until the test lets them go on."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, AMPLE)
        self.go_on = threading.Event()

    def put(self, key: bytes, embeddings: np.ndarray, *, evicts: bool = True) -> bool:
        self.go_on.wait()
        return super().put(key, embeddings, evicts=evicts)


def test_a_slow_disk_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("internvl_gguf.engine.embedding_cache._MAX_WAITING_BYTES", 5 * values(0).nbytes)
    store = _SlowStore(tmp_path)
    cache = EmbeddingCache(0, store)
    for number in range(20):
        cache.put(key(number), values(number))
    store.go_on.set()
    cache.close()
    assert [store.get(key(number)) is not None for number in range(20)] == [True] * 5 + [False] * 15


def full_disk(file: Any, key: bytes, embeddings: np.ndarray) -> None:
    file.write(b"some of it")
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_told_once_and_what_is_there_is_read(
    store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(key(0), values(0))
    told: list[str] = []
    cache = EmbeddingCache(0, store, told.append)
    monkeypatch.setattr(embedding_store, "_write", full_disk)
    for number in range(1, 30):
        cache.put(key(number), values(number))
    cache.close()
    (line,) = told
    assert "No space left on device" in line
    assert "--no-cache" in line
    assert "\n" not in line
    assert not (store.folder / ".partial").exists()
    assert_same_bits(cache.get(key(0)), values(0))


def test_a_folder_that_cannot_be_written_is_read(store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put(key(0), values(0))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    assert_same_bits(store.get(key(0)), values(0))
    (path,) = store.folder.glob("*.tile")
    path.write_bytes(b"damaged")
    assert store.get(key(0)) is None


# A session


def seen(files: ModelFiles, picture: int = 1, **options: Any) -> tuple[Reply, np.ndarray]:
    """A question about a picture of seven tiles in a session of its own, and the picture's embeddings."""
    with Session.open(files.text, files.mmproj, system="", n_ctx=512, n_threads=1, **options) as session:
        reply = session.ask("What is it?", [noise(picture)], sampling=SHORT, max_tiles=6)
        return reply, session.embed_image(noise(picture), max_tiles=6)


def test_a_picture_seen_before_is_not_encoded(tiny: ModelFiles, own_cache: Path) -> None:
    first, embedded = seen(tiny)
    assert first.usage.tiles_encoded == first.usage.tiles == 7
    assert first.timings.encode > 0
    again, from_disk = seen(tiny)
    assert again.usage.tiles_encoded == 0
    assert again.usage.tiles_cached == 7
    assert again.timings.encode == 0
    assert again.timings.time_to_first_token > again.timings.prefill > 0
    assert again.text == first.text
    fresh, computed = seen(tiny, embedding_disk_bytes=0)
    assert fresh.usage.tiles_encoded == 7
    assert from_disk.tobytes() == embedded.tobytes() == computed.tobytes()


@pytest.mark.parametrize("worker", [False, True])
def test_a_batch_of_pictures_that_occur_once_leaves_the_disk_to_others(
    tiny: ModelFiles, own_cache: Path, worker: bool
) -> None:
    """50,000 pictures wrote terabytes through a cache of 4 GiB, and nothing of the chats before was left in it."""
    disk = 8 * BLOCK  # a picture has seven tiles, of a block each
    seen(tiny, embedding_disk_bytes=disk)
    kept = {path.name for path in own_cache.glob("embeddings/*.tile")}
    with Session.open(
        tiny.text, tiny.mmproj, system="", n_ctx=512, n_threads=1, worker=worker, embedding_disk_bytes=disk
    ) as session:
        questions = [Question("What is it?", noise(number)) for number in range(2, 6)]
        assert len(session.batch(questions, sampling=SHORT, max_tiles=6)) == 4
    after = {path.name for path in own_cache.glob("embeddings/*.tile")}
    assert kept < after
    assert len(after) == 8
    reply, _ = seen(tiny, embedding_disk_bytes=disk)
    assert reply.usage.tiles_encoded == 0


def test_all_quants_of_a_model_share_what_one_mmproj_saw(tiny: ModelFiles, own_cache: Path, tmp_path: Path) -> None:
    seen(tiny)
    other = ModelFiles("other", write_tiny_text(tmp_path / "other.gguf", n_ctx=2048, seed=7), tiny.mmproj)
    assert seen(other)[0].usage.tiles_encoded == 0
    assert seen(tiny, picture=2)[0].usage.tiles_encoded == 7


def test_another_mmproj_does_not_hit(tiny: ModelFiles, own_cache: Path, tmp_path: Path) -> None:
    seen(tiny)
    other = ModelFiles("other", tiny.text, write_tiny_mmproj(tmp_path / "mmproj.gguf", seed=7))
    assert seen(other)[0].usage.tiles_encoded == 7
    assert seen(tiny)[0].usage.tiles_encoded == 0


@pytest.mark.parametrize("part", ["find_usable_settings", "encoder_arithmetic"])
def test_another_correction_build_or_device_does_not_hit(
    tiny: ModelFiles, own_cache: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    seen(tiny)
    module = open_encoder if part == "encoder_arithmetic" else in_process_runtime
    original: Callable[..., Any] = getattr(module, part)
    answers: dict[str, Callable[..., Any]] = {
        "find_usable_settings": lambda *asked: replace(original(*asked), positions_are_shifted=False),
        "encoder_arithmetic": lambda device, **asked: "another machine",
    }
    with monkeypatch.context() as patch:
        patch.setattr(module, part, answers[part])
        assert seen(tiny)[0].usage.tiles_encoded == 7
    assert seen(tiny)[0].usage.tiles_encoded == 0


def test_threads_do_not_change_an_embedding(tiny: ModelFiles, own_cache: Path) -> None:
    """The number of threads is not part of the key."""
    embeddings = []
    for threads in (1, 2, 3):
        with Session.open("demo", n_threads=threads, n_ctx=512, embedding_disk_bytes=0) as session:
            embeddings.append(session.embed_image(noise(1), max_tiles=1).tobytes())
    assert len(set(embeddings)) == 1


def test_turned_off_nothing_is_read_or_written(tiny: ModelFiles, own_cache: Path) -> None:
    assert seen(tiny, embedding_disk_bytes=0)[0].usage.tiles_encoded == 7
    assert not (own_cache / "embeddings").exists()
    seen(tiny)
    assert seen(tiny, embedding_disk_bytes=0)[0].usage.tiles_encoded == 7


def test_a_folder_that_cannot_be_made_is_no_error(tiny: ModelFiles, own_cache: Path) -> None:
    own_cache.mkdir()
    (own_cache / "embeddings").write_text("a file in the way, which not even root can write into")
    told: list[str] = []
    reply, _ = seen(tiny, on_notice=told.append)
    assert reply.usage.tiles_encoded == 7
    assert len(told) == 1
    assert "not kept on disk" in told[0]


def test_a_full_disk_is_no_error(tiny: ModelFiles, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen(tiny)  # what else is kept is there
    monkeypatch.setattr(embedding_store, "_write", full_disk)
    told: list[str] = []
    reply, _ = seen(tiny, picture=2, on_notice=told.append)
    assert reply.usage.tiles_encoded == 7
    assert len(told) == 1
    assert "No space left" in told[0]


def test_damage_on_disk_costs_an_encoding_and_no_more(tiny: ModelFiles, own_cache: Path) -> None:
    _, embedded = seen(tiny)
    for number, path in enumerate(sorted((own_cache / "embeddings").glob("*.tile"))[:3]):
        data = bytearray(path.read_bytes())
        data[-1 - number] ^= 1
        path.write_bytes(data)
    reply, again = seen(tiny)
    assert reply.usage.tiles_encoded == 3
    assert again.tobytes() == embedded.tobytes()
    assert seen(tiny)[0].usage.tiles_encoded == 0


# The command line


def test_a_second_process_does_not_encode(own_cache: Path, tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    noise(1, 600, 400).save(picture)
    question = ("ask", "demo", "What is it?", "-i", picture, "--max-tiles", "2", "--json", *FAST)
    first = json.loads(run(*question).stdout)
    again = json.loads(run(*question).stdout)
    assert first["usage"]["tiles_encoded"] == first["usage"]["tiles"] == 3
    assert again["usage"]["tiles_encoded"] == 0
    assert again["usage"]["tiles_cached"] == 3
    assert again["timings"]["encode"] == 0
    assert again["text"] == first["text"]
    assert json.loads(run(*question, "--no-cache").stdout)["usage"]["tiles_encoded"] == 3
    assert json.loads(run(*question, INTERNVL_NO_CACHE="1").stdout)["usage"]["tiles_encoded"] == 3


def test_cache_shows_what_is_kept_and_clears_it(tiny: ModelFiles, own_cache: Path) -> None:
    """`tuning.json` was written and not in the list: it was neither shown nor cleared."""
    seen(tiny)
    (own_cache / "headers").mkdir()
    (own_cache / "headers" / "abc.123").write_bytes(bytes(1000))
    for record in RECORDS:
        assert record.put("this machine", {"of": record.purpose}) is None
    (own_cache / ".tuning.json.a1b2c3").write_text("of a process that was killed")
    (own_cache / "letter.txt").write_text("not ours")
    shown = json.loads(run("cache", "--json").stdout)
    caches = {cache["name"]: cache for cache in shown["caches"]}
    assert caches.keys() == {"embeddings", "mmproj", "openvino", "headers", "bench", "rpc", "measured"}
    assert caches["embeddings"]["entries"] == 7
    assert caches["embeddings"]["bytes"] == used_bytes(own_cache / "embeddings")
    assert caches["embeddings"]["max_bytes"] == 4 * 2**30
    assert caches["mmproj"]["entries"] == 1
    assert caches["headers"]["bytes"] == 1000
    kept = {path for path in own_cache.rglob("*") if path.is_file() and path.name not in (".lock", ".total")}
    assert sum(cache["entries"] for cache in caches.values()) == len(kept) - 1, "every file but the letter is shown"
    assert [record["name"] for record in caches["measured"]["records"]] == [record.name for record in RECORDS]

    refused = run("cache", "clear", stdin=b"n\n")
    assert refused.returncode == 1
    assert "Remove embeddings" in refused.stderr
    assert run("cache", "clear", stdin=b"y\n").returncode == 0
    assert json.loads(run("cache", "--json").stdout)["caches"][0]["entries"] == 0
    assert caches["mmproj"]["entries"] == 1
    cleared = json.loads(run("cache", "clear", "--all", "--yes", "--json").stdout)
    assert cleared["bytes"] > 1000
    assert {path.name for path in own_cache.rglob("*") if path.is_file()} == {"letter.txt", ".lock"}
    assert seen(tiny)[0].usage.tiles_encoded == 7


def test_an_empty_cache_is_shown_and_cleared_without_a_question(own_cache: Path) -> None:
    assert "4.00 GiB" in run("cache").stdout
    assert run("cache", "clear", stdin=None).returncode == 0
    assert not own_cache.exists()


def test_a_cache_that_cannot_be_cleared_says_so(own_cache: Path) -> None:
    (own_cache / "embeddings" / ".lock").mkdir(parents=True)
    (own_cache / "embeddings" / f"{key(0).hex()}.tile").write_bytes(bytes(10))
    done = run("cache", "clear", "--yes")
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 2
