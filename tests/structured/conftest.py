"""These tests need the packages of the extra `structured`, which `make test` installs."""

from __future__ import annotations

import pytest

pytest.importorskip("llguidance")
pytest.importorskip("pydantic")
