"""Servers that the tests of a process share: one with the demo model, one whose answers go on for ever."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from internvl_gguf.models.resolve import ModelFiles
from tests.support.served import EXAMPLE, Served, served
from tests.support.tiny_models import write_tiny_mmproj, write_tiny_text


@pytest.fixture(scope="session")
def demo(cache_folder: Path) -> Iterator[Served]:
    """A server with the demo model."""
    with served(["demo"]) as found:
        yield found


@pytest.fixture(scope="session")
def endless_files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    """Random weights with a context of 32,768: `tests.support.served.long` has them say the same for ever."""
    folder = tmp_path_factory.mktemp("endless")
    text = write_tiny_text(folder / "text.gguf", n_ctx=32_768)
    return ModelFiles("endless", text, write_tiny_mmproj(folder / "mmproj.gguf"))


@pytest.fixture(scope="session")
def endless(cache_folder: Path, endless_files: ModelFiles) -> Iterator[Served]:
    """A server with answers without end, and a queue of two."""
    options = ["--mmproj", str(endless_files.mmproj), "-c", "32768", "--queue", "2"]
    with served([str(endless_files.text)], *options) as found:
        yield found


@pytest.fixture(scope="session")
def example() -> bytes:
    """The file of the demo model's picture: a red circle, a blue square and the number 98."""
    return Path(EXAMPLE).read_bytes()
