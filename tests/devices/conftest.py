"""Devices for these tests: an RPC server over the CPU, and Vulkan on Mesa's lavapipe."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from typing import Any, Protocol

import pytest

from tests.devices.run import Result, run
from tests.devices.servers import rpc_server

LAVAPIPE = "0"
"""Number of lavapipe among the Vulkan devices: the only one on a machine without a GPU. Unless named it is not used."""


class Run(Protocol):
    """`run`, on a device that is settled."""

    def __call__(self, options: dict[str, Any], *, questions: int = 1) -> Result: ...


@pytest.fixture(scope="session", autouse=True)
def backends() -> None:
    """The library must have been built for this."""
    from internvl_gguf.llama.library import llama_cpp

    folder = os.path.join(os.path.dirname(llama_cpp.__file__), "lib")  # noqa: PTH118, PTH120
    missing = [name for name in ("rpc", "vulkan") if not os.path.exists(f"{folder}/libggml-{name}.so")]  # noqa: PTH110
    if missing:
        pytest.exit(f"This llama.cpp has no backend {' and '.join(missing)}: run `make test-devices`.", returncode=2)


@pytest.fixture(scope="session")
def reference() -> Result:
    """The demo model on the CPU alone."""
    return run({"vram": "none"}, questions=12)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """An RPC server with all the memory it wants."""
    with rpc_server() as found:
        yield found.endpoint


@pytest.fixture(scope="module")
def on_device(request: pytest.FixtureRequest) -> Run:
    """Runs the demo model with a device of a backend."""
    if request.param == "rpc":
        return partial(run, servers=[request.getfixturevalue("server")])
    return partial(run, vulkan=LAVAPIPE)
