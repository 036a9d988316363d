"""A server that the tests of a process share, whose answers go on for ever."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from internvl_gguf.models.resolve import ModelFiles
from tests.support.served import Served, served


@pytest.fixture(scope="session")
def endless(cache_folder: Path, endless_files: ModelFiles) -> Iterator[Served]:
    """A server with answers without end, and a queue of two."""
    options = ["--mmproj", str(endless_files.mmproj), "-c", "32768", "--queue", "2"]
    with served([str(endless_files.text)], *options) as found:
        yield found
