"""The folder of the history that the fixture `history` opens."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the fixture `history` keeps its conversations; other processes may open it, too."""
    return tmp_path / "data"
