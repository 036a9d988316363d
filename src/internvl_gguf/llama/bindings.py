"""The ctypes bindings of llama-cpp-python, without the rest of that package.

`import llama_cpp` also loads its chat formats with a template engine, which takes longer than the bindings and is not
used here. So the modules of the bindings are imported without running the package's own `__init__`, and forgotten by
Python's import system: whoever imports `llama_cpp` gets all of it, with the same native library.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Final

_PACKAGE: Final = "llama_cpp"


@contextmanager
def _without_init(name: str) -> Iterator[None]:
    """Let modules of a package be imported without its `__init__`, unless that has run already; forget them then.

    Raises:
        ImportError: there is no such package.
    """
    if name in sys.modules:
        yield
        return
    spec = importlib.util.find_spec(name)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    package = ModuleType(name)
    package.__path__ = spec.submodule_search_locations
    sys.modules[name] = package
    try:
        yield
    finally:
        for loaded in [each for each in sys.modules if each == name or each.startswith(f"{name}.")]:
            del sys.modules[loaded]


with _without_init(_PACKAGE):
    from llama_cpp import llama_cpp, mtmd_cpp

__all__ = ["llama_cpp", "mtmd_cpp"]
