"""llama.cpp where damaged files may end it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.native_child import NativeChild
from tests.support.tiny_models import write_tiny_text


@pytest.fixture(scope="session")
def native_child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NativeChild]:
    """llama.cpp in a process of its own, over the tiny text model, for files that may end it."""
    with NativeChild(write_tiny_text(tmp_path_factory.mktemp("child") / "text.gguf")) as process:
        yield process
