"""The bindings are loaded alone, and the package that they are of stays whole for others."""

from __future__ import annotations

import subprocess
import sys


def test_the_rest_of_the_package_is_loaded_by_who_wants_it() -> None:
    """Its template engine took a tenth of the time of a short command."""
    script = """
import sys
from internvl_gguf.llama import library
library.initialise()
print([name for name in ("llama_cpp", "llama_cpp.llama", "jinja2") if name in sys.modules])
import llama_cpp
import llama_cpp.mtmd_cpp
print(llama_cpp.Llama.__name__, llama_cpp.mtmd_cpp.mtmd_default_marker().decode())
print(llama_cpp.llama_cpp._lib._handle == library.llama_cpp._lib._handle)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "Llama <__media__>", "True"]


def test_a_package_that_was_imported_before_is_used_as_it_is() -> None:
    script = """
import llama_cpp
from internvl_gguf.llama import library
import sys
print(sys.modules["llama_cpp"] is llama_cpp, library.llama_cpp is llama_cpp.llama_cpp)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "True True\n"
