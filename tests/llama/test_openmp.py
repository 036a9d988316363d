"""The spin time of OpenMP threads, as libgomp itself reports it when it is loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from internvl_gguf.llama import library
from internvl_gguf.llama.openmp import SPIN_COUNT, spin_settings

pytestmark = pytest.mark.skipif(
    "OPENMP" not in library.cpu_features() or not any(name.startswith("libgomp") for name in spin_settings().runtimes),
    reason="llama.cpp computes without libgomp here",
)

REPORT = """
import dataclasses, json, os
before = dict(os.environ)
from internvl_gguf.llama import library
from internvl_gguf.llama.openmp import spin_settings
changed = {name for name in before.keys() ^ os.environ.keys() if "OMP" in name}
print(json.dumps(dataclasses.asdict(spin_settings()) | {"changed": sorted(changed)}))
"""


def loaded(script: str = "", **environment: str) -> tuple[dict[str, Any], str]:
    """What a process that imports llama.cpp says of itself, and libgomp's spin count by libgomp."""
    kept = {name: value for name, value in os.environ.items() if "OMP_" not in name}
    done = subprocess.run(
        [sys.executable, "-c", script + REPORT],
        env={**kept, "OMP_DISPLAY_ENV": "verbose", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    (line,) = [line for line in done.stderr.splitlines() if "GOMP_SPINCOUNT" in line]
    return json.loads(done.stdout), line.split("'")[1]


def test_threads_spin_shortly_where_nobody_says_otherwise() -> None:
    said, spins = loaded()
    assert spins == str(SPIN_COUNT)
    assert (said["set_by"], said["settings"]) == ("internvl-gguf", [f"GOMP_SPINCOUNT={SPIN_COUNT}"])
    assert said["loaded_before"] == []


def test_the_environment_is_as_it_was_when_llama_cpp_is_loaded() -> None:
    """Programs that this one starts, and libraries that it loads later, are not to wait as llama.cpp does."""
    assert loaded()[0]["changed"] == []


@pytest.mark.parametrize(
    ("name", "value", "spins"), [("GOMP_SPINCOUNT", "77", "77"), ("OMP_WAIT_POLICY", "passive", "0")]
)
def test_what_a_person_has_set_stays(name: str, value: str, spins: str) -> None:
    said, found = loaded(**{name: value})
    assert found == spins
    assert (said["set_by"], said["settings"]) == ("environment", [f"{name}={value}"])


def test_a_runtime_that_was_loaded_before_is_named() -> None:
    """PyTorch or scikit-learn imported first: what is set now reaches libgomp no more."""
    said, spins = loaded("import ctypes; ctypes.CDLL('libgomp.so.1')\n")
    assert spins != str(SPIN_COUNT)
    assert said["loaded_before"] == said["runtimes"]
