"""Sessions dropped without `close()` are freed when they are collected, in the right order, also at exit."""

from __future__ import annotations

import copy
import gc
import pickle
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from internvl_gguf import InvalidRequestError, SamplingParams, Session
from internvl_gguf.config import EngineConfig
from internvl_gguf.llama import library
from internvl_gguf.models.resolve import ModelFiles
from internvl_gguf.session.in_process_runtime import InProcessRuntime
from internvl_gguf.types import TokenSpan
from tests.support.exact import EXACT, EXACT_WITH_DISK_CACHE
from tests.support.kept import SHORT
from tests.support.pictures import noise

ORDER = {"llama_sampler_free": 0, "llama_free": 1, "mtmd_free": 2, "llama_model_free": 3}
SAMPLED = SamplingParams(max_tokens=20, temperature=1.0, seed=1)


@pytest.fixture
def freed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of the library's functions that freed something, as they are called; collecting is by count alone."""
    names: list[str] = []

    def watched(name: str, free: Callable[[int], None]) -> Callable[[int], None]:
        def call(handle: int) -> None:
            names.append(name)
            free(handle)

        return call

    gc.collect()
    for module, name in [(library.mtmd_cpp, "mtmd_free")] + [(library.llama_cpp, each) for each in ORDER]:
        if hasattr(module, name):
            monkeypatch.setattr(module, name, watched(name, getattr(module, name)))
    gc.disable()
    yield names
    gc.enable()


def opened(tiny: ModelFiles) -> Session:
    return Session.open(tiny.text, tiny.mmproj, n_ctx=1024, **EXACT)


def test_a_dropped_session_is_freed_at_once_before_its_model(tiny: ModelFiles, freed: list[str]) -> None:
    """Eight sessions that were opened and dropped kept 227 MiB of the demo, and as many models of gigabytes."""
    session = opened(tiny)
    freed.clear()  # the probe's
    session.ask("Hello?", sampling=SAMPLED)
    assert freed == ["llama_sampler_free"]
    del session
    assert sorted(freed) == sorted(ORDER)
    assert freed[-1] == "llama_model_free"


def test_the_last_of_forks_that_are_dropped_or_closed_frees_the_model(tiny: ModelFiles, freed: list[str]) -> None:
    session = opened(tiny)
    branch, third = session.fork(), session.fork()
    freed.clear()
    del session
    third.close()
    assert not freed
    assert branch.ask("Hello?", sampling=SHORT)
    branch.close()
    assert freed[-1] == "llama_model_free"


def test_a_runtime_that_is_dropped_without_release_is_freed(tiny: ModelFiles, freed: list[str]) -> None:
    runtime = InProcessRuntime(tiny, EngineConfig(n_ctx=1024, **EXACT))
    freed.clear()
    del runtime
    assert freed[-1] == "llama_model_free"


def test_a_session_in_a_cycle_of_its_owner_is_freed_in_order_by_the_collector(
    tiny: ModelFiles, freed: list[str]
) -> None:
    """A program's object that holds the session and is told its notices: nothing of ours keeps it alive."""

    class Program:
        def __init__(self) -> None:
            self.session = Session.open(tiny.text, tiny.mmproj, on_notice=self.tell, n_ctx=1024, **EXACT)
            self.session.on_tiles(lambda done, total: self.tell(""))
            self.stream = self.session.stream("Hello?", sampling=SAMPLED)
            next(self.stream)

        def tell(self, line: str) -> None:
            pass

    program = Program()
    freed.clear()
    del program
    assert not freed
    gc.collect()
    assert sorted(freed) == sorted(ORDER)
    assert freed[-1] == "llama_model_free"


def test_a_stream_keeps_its_session_alive(tiny: ModelFiles, freed: list[str]) -> None:
    session = opened(tiny)
    whole = session.fork().ask("Hello?", sampling=SHORT).text
    stream = session.stream("Hello?", sampling=SHORT)
    first = next(stream).text
    freed.clear()
    del session
    assert not freed
    assert first + "".join(chunk.text for chunk in stream) == whole
    del stream
    assert freed[-1] == "llama_model_free"


def test_an_engine_and_a_handle_keep_what_they_need(tiny: ModelFiles, freed: list[str]) -> None:
    engine = opened(tiny).runtime.engine
    handle = engine.submit([TokenSpan((5, 6, 7))], SAMPLED)
    freed.clear()
    del engine
    assert handle.result()
    del handle
    assert freed[-1] == "llama_model_free"


def test_a_vocabulary_keeps_its_model_alone(tiny: ModelFiles, freed: list[str]) -> None:
    model = opened(tiny).runtime.engine.model
    assert set(freed) >= {"llama_free", "mtmd_free"}
    freed.clear()
    assert model.tokenize("Hello?")
    assert not freed
    del model
    assert freed == ["llama_model_free"]


def test_what_a_dropped_session_saw_is_kept_all_the_same(tiny: ModelFiles) -> None:
    """Closing waits for the embeddings that are still to be written; dropping leaves them to their thread."""
    session = Session.open(tiny.text, tiny.mmproj, n_ctx=1024, **EXACT_WITH_DISK_CACHE)
    reply = session.ask("What is it?", [noise(5)], sampling=SHORT)
    del session
    for thread in threading.enumerate():
        if thread.name.startswith("internvl-embeddings"):
            thread.join()
    with Session.open(tiny.text, tiny.mmproj, n_ctx=1024, **EXACT_WITH_DISK_CACHE) as again:
        found = again.ask("What is it?", [noise(5)], sampling=SHORT)
    assert (found.usage.tiles_encoded, found.text) == (0, reply.text)


def test_a_session_that_was_closed_is_freed_once(tiny: ModelFiles, freed: list[str]) -> None:
    with opened(tiny) as session:
        freed.clear()
    session.close()
    del session
    gc.collect()
    assert sorted(freed) == ["llama_free", "llama_model_free", "mtmd_free"]


@pytest.mark.parametrize("copying", [pickle.dumps, copy.copy, copy.deepcopy])
@pytest.mark.parametrize("part", ["", "runtime", "runtime.engine", "runtime.engine.model", "runtime.engine.context"])
def test_nothing_with_an_owner_is_copied(tiny: ModelFiles, copying: Callable[[Any], Any], part: str) -> None:
    """A copy of a native object would be freed twice."""
    with opened(tiny) as session:
        what: Any = session
        for name in filter(None, part.split(".")):
            what = getattr(what, name)
        with pytest.raises(InvalidRequestError, match=f"A {type(what).__name__} can be neither copied nor sent"):
            copying(what)
        assert session.ask("Hello?", sampling=SHORT)


def run(script: str) -> str:
    """What a script prints in a process of its own that ends well."""
    result = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def test_memory_comes_back() -> None:
    """Measured by the system: eight sessions take no more than three, the allocator's leftovers included."""
    shown = run("""
        import psutil
        from internvl_gguf import Session

        sizes = []
        for number in range(8):
            session = Session.open("demo", n_threads=1)
            branch = session.fork()
            branch.ask("Hello?")
            if not number:
                first = psutil.Process().memory_info().rss
            del session, branch
            sizes.append(psutil.Process().memory_info().rss)
        print(first - sizes[0], max(sizes[2:]) - sizes[0], sizes)
    """)
    of_one, grown, *_ = shown.split(maxsplit=2)
    assert int(grown) < 3 * int(of_one), shown


def test_the_end_of_the_interpreter_frees_in_order_what_is_still_open() -> None:
    shown = run("""
        from internvl_gguf import Session
        from internvl_gguf.llama import library

        def tell(module, name):
            free = getattr(module, name)
            setattr(module, name, lambda handle: (print(name), free(handle)))

        session = Session.open("demo", n_threads=1)
        stream = session.stream("Hello?")
        next(stream)
        tell(library.mtmd_cpp, "mtmd_free")
        for name in ("llama_free", "llama_model_free"):
            tell(library.llama_cpp, name)
    """)
    assert shown.split() == ["llama_free", "mtmd_free", "llama_model_free"]


def test_the_end_of_the_interpreter_takes_nothing_from_a_thread_that_computes() -> None:
    """A daemon thread is in the library when the main thread ends; freeing what it works with would crash."""
    shown = run("""
        import threading
        from internvl_gguf import Session
        from internvl_gguf.llama import library
        from internvl_gguf.types import Tile

        session = Session.open("demo", n_threads=1, embedding_disk_bytes=0)
        engine = session.runtime.engine
        computing = threading.Event()
        size = session.runtime.vision.image_size
        tiles = [Tile(bytes([number]) * 16, bytes(3 * size * size)) for number in range(200)]

        def tell(done, total):
            computing.set()
            if done == 1:
                told.wait()  # in the middle of the work, for as long as the process lives

        told = threading.Event()
        threading.Thread(target=engine.embed, args=(tiles, tell), daemon=True).start()
        computing.wait()
        freed = lambda handle: print("freed")
        library.llama_cpp.llama_free = library.llama_cpp.llama_model_free = library.mtmd_cpp.mtmd_free = freed
    """)
    assert shown == ""
