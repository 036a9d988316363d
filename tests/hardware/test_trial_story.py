"""The whole story on any Linux machine: kernels that end the process with SIGILL, and the model that answers anyway.

GCC 12 compiles llama.cpp's AMX kernels so that each of them is illegal; on such a machine every quantised model ended
the process. Here the kernels that multiply reordered weights are replaced by ones that trap, in the real library.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from internvl_gguf.hardware.trial.build_hint import AMX_HEADER
from internvl_gguf.models.local_files import demo_files
from internvl_gguf.quantizing import quantize_text

DEMO = demo_files()
EXAMPLE = DEMO.text.with_name("example.png")
COMPILER = shutil.which("cc")
KERNELS = [f"ggml_{form}_{kind}" for form in ("gemv", "gemm") for kind in ("q4_0_8x8_q8_0", "q4_K_8x8_q8_K")]

TILE_CONFIGURATION = """
#include <immintrin.h>
#include <cstdint>

struct tile_config_t {
    uint8_t palette_id = 0, start_row = 0, reserved[14] = {0};
    uint16_t colsb[16] = {0};
    uint8_t rows[16] = {0};
};

extern "C" void configure() {
    alignas(64) tile_config_t tc = {};
    tc.palette_id = 1;
    for (int tile = 0; tile < 8; ++tile) {
        tc.rows[tile] = tile < 2 ? 8 : 16;
        tc.colsb[tile] = tile == 2 || tile == 3 ? 32 : 64;
    }
    _tile_loadconfig(&tc);
}
"""


def reorders_q4_k() -> bool:
    """Whether this build has the kernels that are replaced, and uses them."""
    from internvl_gguf.llama.library import cpu_features

    return {"AVX2", "REPACK"} <= set(cpu_features()) and "AMX_INT8" not in cpu_features()


@pytest.mark.skipif(sys.platform != "linux" or not COMPILER or not reorders_q4_k(), reason="needs Linux, cc and AVX2")
def test_a_quantised_model_answers_though_its_kernels_are_illegal(tmp_path: Path) -> None:
    source, broken = tmp_path / "illegal.c", tmp_path / "illegal.so"
    source.write_text("".join(f"void {name}(void) {{ __builtin_trap(); }}\n" for name in KERNELS))
    subprocess.run([str(COMPILER), "-shared", "-fPIC", "-o", broken, source], check=True)
    model = quantize_text(DEMO.text, "Q4_K_M", tmp_path / "demo-Q4_K_M.gguf").path
    environment = {**os.environ, "INTERNVL_CACHE": str(tmp_path / "cache"), "LD_PRELOAD": str(broken)}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False, timeout=300)

    alone = "import sys, llama_cpp; llama_cpp.Llama(sys.argv[1], n_ctx=64, verbose=False).eval([1, 2, 3])"
    assert run(sys.executable, "-c", alone, str(model)).returncode == -4, "without a trial the process dies of SIGILL"

    internvl = (sys.executable, "-m", "internvl_gguf")
    ask = (*internvl, "ask", str(model), "What number is written?", "--mmproj", str(DEMO.mmproj), "-i", str(EXAMPLE))
    first, second = run(*ask), run(*ask)
    assert (first.returncode, first.stdout) == (0, "98\n")
    assert first.stderr.splitlines() == [
        "Reordered kernels of this llama.cpp build crash here (Q4_K weights: SIGILL); the plain ones are used. "
        "`internvl doctor` says how to build one that works."
    ]
    assert (second.returncode, second.stdout, second.stderr) == (0, "98\n", "")
    doctor = run(*internvl, "doctor")
    assert doctor.returncode == 0
    assert re.search(r"trial +CPU: 2 of \d+ checks fail: Q4_0 weights: SIGILL; Q4_K weights: SIGILL", doctor.stdout)
    assert re.search(r"CPU: all \d+ checks right without reordered weights", doctor.stdout)
    assert "pip install" in doctor.stdout
    assert doctor.stdout.endswith("Everything works, without what the trial says is left out.\n")


def has_amx_compiler() -> bool:
    """Whether there is a GCC that knows AMX."""
    if not shutil.which("g++"):
        return False
    command = ["g++", "-march=sapphirerapids", "-x", "c++", "-E", "-"]
    return subprocess.run(command, input="", capture_output=True, text=True, check=False).returncode == 0


@pytest.mark.skipif(not has_amx_compiler(), reason="needs GCC 11 or newer for x86-64")
def test_the_header_has_the_whole_tile_configuration_written(tmp_path: Path) -> None:
    """Without it GCC 12.2 writes 1 byte of 64 before ldtilecfg: the rows and columns of the tiles stay zero."""
    source = tmp_path / "tiles.cpp"
    source.write_text(TILE_CONFIGURATION)
    command = ["g++", "-O3", "-march=sapphirerapids", "-include", str(AMX_HEADER), "-S", "-o", "-", str(source)]
    assembly = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    before, _, after = assembly.partition("ldtilecfg")
    (base,) = re.findall(r"^\s+(-?\d+)\(%[re]sp\)", after.splitlines()[0])
    stores = re.findall(r"mov\w*\s+[^\n]+,\s*(-?\d+)\(%[re]sp\)", before)
    written = {int(place) - int(base) for place in stores}
    assert any(16 <= place < 48 for place in written), "bytes of the columns"
    assert any(48 <= place < 64 for place in written), "the rows"


@pytest.mark.skipif(not COMPILER, reason="needs a C compiler")
@pytest.mark.parametrize("language", ["c", "c++"])
def test_the_header_is_empty_without_amx(language: str) -> None:
    command = [
        str(COMPILER),
        "-x",
        language,
        "-include",
        str(AMX_HEADER),
        "-Wall",
        "-Wextra",
        "-Werror",
        "-E",
        "-P",
        "-",
    ]
    done = subprocess.run(command, input="int here;\n", capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["int", "here;"]
