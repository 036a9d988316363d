"""Load OpenVINO, the extra `internvl-gguf[openvino]`, without the telemetry that its package starts when imported.

`import openvino` sends an event to Intel where the package openvino-telemetry is installed, which it depends on.
Nothing about a user leaves the machine from here, so that package cannot be found while OpenVINO is imported; OpenVINO
then uses the stub that it brings for the case. Nothing else in this package imports OpenVINO.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from internvl_gguf.errors import LibraryError

_TELEMETRY: Final = "openvino_telemetry"


@contextmanager
def _unfindable(name: str) -> Iterator[None]:
    """Make imports of a package fail, unless it is loaded already."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # the documented way to make an import fail
    try:
        yield
    finally:
        del sys.modules[name]


try:
    with _unfindable(_TELEMETRY):
        import openvino as ov
        from openvino import opset13 as ops
except (ImportError, OSError, RuntimeError) as error:
    raise LibraryError(
        f"OpenVINO cannot be loaded: {error}.", "Install it again: pip install 'internvl-gguf[openvino]'."
    ) from error

__all__ = ["ops", "ov"]
