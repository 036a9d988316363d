"""Shared fixtures: a cache folder of the test's own, tiny models that llama.cpp really loads, and a server."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from internvl_gguf import Session
from internvl_gguf.history import History
from internvl_gguf.models.resolve import ModelFiles
from tests.support.exact import EXACT
from tests.support.kept_trial import keep_trial
from tests.support.pictures import noise
from tests.support.served import EXAMPLE, Served, served
from tests.support.tiny_models import write_tiny_mmproj, write_tiny_text

# Native threads collapse when test processes share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell starts background jobs with Ctrl-C ignored, and children inherit that: tests of Ctrl-C need it back.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Caches, conversations and settings are of this test process, never the user's."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("INTERNVL_")]:
            patch.delenv(name)
        patch.setenv("INTERNVL_CACHE", str(folder))
        patch.setenv("INTERNVL_CONFIG", str(tmp_path_factory.mktemp("config")))
        patch.setenv("INTERNVL_DATA", str(tmp_path_factory.mktemp("data")))
        keep_trial(tmp_path_factory)
        yield folder


@pytest.fixture(autouse=True)
def ctrl_c_raises() -> None:
    """Whatever an earlier test left: the system's own handler would end the test process without a word."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def no_picture_was_seen_before(cache_folder: Path) -> None:
    """What an earlier test encoded is encoded again."""
    shutil.rmtree(cache_folder / "embeddings", ignore_errors=True)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    """A random model with 32-pixel tiles of 4 visual tokens and a context of 2048."""
    folder = tmp_path_factory.mktemp("tiny")
    return ModelFiles(
        "tiny",
        write_tiny_text(folder / "text.gguf", n_ctx=2048),
        write_tiny_mmproj(folder / "mmproj.gguf"),
    )


@pytest.fixture(scope="session")
def demo(cache_folder: Path) -> Iterator[Served]:
    """A server with the demo model."""
    with served(["demo"]) as found:
        yield found


@pytest.fixture(scope="session")
def example() -> bytes:
    """The file of the demo model's picture: a red circle, a blue square and the number 98."""
    return Path(EXAMPLE).read_bytes()


@pytest.fixture(scope="session")
def endless_files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    """Random weights with a context of 32,768: `tests.support.served.long` has them say the same for ever."""
    folder = tmp_path_factory.mktemp("endless")
    text = write_tiny_text(folder / "text.gguf", n_ctx=32_768)
    return ModelFiles("endless", text, write_tiny_mmproj(folder / "mmproj.gguf"))


@pytest.fixture
def session(tiny: ModelFiles) -> Iterator[Session]:
    """A conversation with the tiny model, exact arithmetic, a short system message; nothing comes from the disk."""
    with Session.open(
        tiny.text,
        tiny.mmproj,
        system="Be brief.",
        n_ctx=1024,
        **EXACT,
    ) as opened:
        yield opened


@pytest.fixture
def notices() -> list[str]:
    """The lines that users were told, where a test hands on `notices.append`."""
    return []


@pytest.fixture
def history(tmp_path: Path, notices: list[str]) -> Iterator[History]:
    """An empty history."""
    with History.open(tmp_path / "data", on_notice=notices.append) as opened:
        yield opened


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """The file of a picture, with a space in its name."""
    path = tmp_path / "a photo.png"
    noise(1).save(path)
    return path
