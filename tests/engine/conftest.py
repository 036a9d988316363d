"""What several tests of the engine need."""

from __future__ import annotations

from typing import Any

import pytest

from internvl_gguf.llama.context import Context


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the native calls that decode tokens, each as it is made."""
    calls: list[str] = []
    for name in ("decode_many", "decode_token"):
        native = getattr(Context, name)

        def counted(*arguments: Any, native: Any = native, name: str = name) -> Any:
            calls.append(name)
            return native(*arguments)

        monkeypatch.setattr(Context, name, counted)
    return calls
