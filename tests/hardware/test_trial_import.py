"""A library that cannot be imported is a two-line error of every command, never a traceback or a signal."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from internvl_gguf import LibraryError
from internvl_gguf.hardware.identity import cpu_flags
from internvl_gguf.hardware.trial import first_import
from internvl_gguf.hardware.trial import record as records
from internvl_gguf.hardware.trial.build_hint import INSTRUCTION_SETS, missing_instruction_sets

COMPILER = shutil.which("cc")

Machine = Callable[[str], dict[str, str]]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Makes the environment of a machine on which `llama_cpp` is a package of some lines of Python."""

    def installed(code: str) -> dict[str, str]:
        package = tmp_path / "site" / "llama_cpp"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(code)
        known = {name: value for name, value in os.environ.items() if name != "_INTERNVL_IMPORT_TRIED"}
        path = os.pathsep.join([str(package.parent), *sys.path])
        return {**known, "INTERNVL_CACHE": str(tmp_path / "cache"), "PYTHONPATH": path}

    return installed


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "internvl_gguf", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


DIES = "import os, signal\nos.kill(os.getpid(), signal.{})\nsignal.pause()\n"


@pytest.mark.parametrize("name", ["SIGILL", "SIGSEGV", "SIGBUS", "SIGABRT", "SIGKILL"])
def test_a_library_that_ends_the_process_is_two_lines(machine: Machine, name: str) -> None:
    """A wheel built on one CPU and run on another: llama-cpp-python's most reported fault, and never a word."""
    done = run(machine(DIES.format(name)), "ask", "demo", "What is it?")
    assert done.returncode == 1
    first, second = done.stderr.splitlines()
    assert first.startswith("Error: The installed llama.cpp cannot be loaded: the process that tried it was killed by ")
    assert name in first
    assert second.startswith("  Build it for this machine (a few minutes; a C++ compiler is needed): ")
    assert second.endswith("-m pip install --force-reinstall --no-deps --no-cache-dir llama-cpp-python==0.3.36")


@pytest.mark.parametrize(
    "arguments",
    [
        ("ask", "demo", "-"),
        ("ask", "demo", "--batch", "questions.jsonl"),
        ("chat", "demo"),
        ("bench", "demo:BF16"),
        ("quantize", "demo", "Q8_0"),
        ("pick", "InternVL3-8B-Instruct"),
        ("inspect", "photo.png"),
        ("cache",),
        ("list",),
        ("history",),
        ("doctor", "--json"),
    ],
    ids=lambda arguments: arguments[0] + "-batch" * ("--batch" in arguments),
)
def test_no_command_dies_with_it(machine: Machine, photo: Path, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    shutil.copy(photo, tmp_path / "photo.png")
    (tmp_path / "questions.jsonl").write_text('{"prompt": "Hello?"}\n')
    environment = {**machine(DIES.format("SIGILL")), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    command = [sys.executable, "-m", "internvl_gguf", *arguments]
    done = subprocess.run(
        command,
        env=environment,
        cwd=tmp_path,
        input="Hello\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode in (0, 1, 2), done.stderr
    assert "Traceback" not in done.stderr
    output = done.stdout + done.stderr
    if arguments[0] in ("ask", "chat", "bench", "quantize", "doctor"):
        assert done.returncode == 1
        assert "SIGILL" in output
        assert "pip install" in output


def test_the_doctor_runs_without_it_and_says_it(machine: Machine) -> None:
    environment = machine(DIES.format("SIGILL"))
    done = run(environment, "doctor")
    assert done.returncode == 1
    assert "llama.cpp      not loaded" in done.stdout
    assert "problem        The installed llama.cpp cannot be loaded" in done.stdout
    (problem,) = json.loads(run(environment, "doctor", "--json").stdout)["library"]["problems"]
    assert "SIGILL" in problem


def test_from_python_it_is_an_error(machine: Machine) -> None:
    script = (
        "from internvl_gguf import LibraryError, Session\n"
        "for _ in range(2):\n"
        "    try:\n"
        "        Session.open('demo')\n"
        "    except LibraryError as error:\n"
        "        print(error.message)\n"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=machine(DIES.format("SIGSEGV")), capture_output=True, text=True, check=True)
    assert done.stdout.count("was killed by SIGSEGV") == 2


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (
            "libcudart.so.12: cannot open shared object file: No such file or directory",
            ("libcudart.so.12 is not on this machine", "Install libcudart.so.12. Or build it for this machine"),
        ),
        (
            "Failed to load shared library '/x/libllama.so': libcuda.so.1: cannot open shared object file: No such",
            ("libcuda.so.1, which the NVIDIA driver brings, is not on this machine", "Install the NVIDIA driver. Or"),
        ),
        ("/lib/libc.so.6: version `GLIBC_2.38' not found", ("GLIBC_2.38' not found", "Build it for this machine")),
    ],
)
def test_what_is_missing_is_named(machine: Machine, reason: str, expected: tuple[str, str]) -> None:
    done = run(machine(f"raise OSError({reason!r})\n"), "ask", "demo", "Hello?")
    assert done.returncode == 1
    first, second = done.stderr.splitlines()
    assert expected[0] in first
    assert expected[1] in second


def test_a_library_that_is_not_installed(machine: Machine) -> None:
    done = run(machine("raise ModuleNotFoundError(\"No module named 'llama_cpp'\")\n"), "ask", "demo", "Hello?")
    assert "llama-cpp-python cannot be loaded: No module named 'llama_cpp'." in done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_an_import_that_hangs_is_ended(machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A driver that waits for a device that is gone."""
    monkeypatch.setattr(first_import, "_TIMEOUT", 4.0)
    monkeypatch.setattr(first_import, "COMMAND", (sys.executable, "-S", "-c", "import signal; signal.pause()"))
    monkeypatch.setattr(first_import, "_failed", {})
    monkeypatch.delenv("_INTERNVL_IMPORT_TRIED", raising=False)
    monkeypatch.setenv("INTERNVL_CACHE", str(tmp_path))
    monkeypatch.setattr(records, "_in_this_process", {})
    with pytest.raises(LibraryError, match="the process that tried it gave no answer in 4 seconds"):
        first_import.ensure_importable()


def test_it_is_tried_once(machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where a record says that it can be imported, no process is started for that; nor in children without a record."""
    monkeypatch.setenv("INTERNVL_CACHE", str(tmp_path))
    monkeypatch.setattr(records, "_in_this_process", {})
    monkeypatch.delenv("_INTERNVL_IMPORT_TRIED", raising=False)
    first_import.ensure_importable()
    assert (tmp_path / "trial.json").exists()
    monkeypatch.setattr(first_import, "COMMAND", (sys.executable, "-c", "raise SystemExit('started again')"))
    monkeypatch.setattr(records, "_in_this_process", {})
    with monkeypatch.context() as elsewhere:
        elsewhere.delenv("_INTERNVL_IMPORT_TRIED")
        first_import.ensure_importable()
    (tmp_path / "trial.json").unlink()
    first_import.ensure_importable()
    monkeypatch.delenv("_INTERNVL_IMPORT_TRIED")
    with pytest.raises(LibraryError, match="started again"):
        first_import.ensure_importable()


@pytest.mark.skipif(not COMPILER or not cpu_flags(), reason="needs a C compiler, and Linux's list of the CPU's flags")
def test_the_instruction_sets_that_the_cpu_lacks_are_named(machine: Machine, tmp_path: Path) -> None:
    lacking = next(name for name in INSTRUCTION_SETS if missing_instruction_sets([name]))
    environment = machine(DIES.format("SIGILL"))
    answers = "".join(
        f"int ggml_cpu_has_{name}(void) {{ return {int(name == lacking)}; }}\n" for name in INSTRUCTION_SETS
    )
    (tmp_path / "features.c").write_text(answers)
    folder = tmp_path / "site" / "llama_cpp" / "lib"
    folder.mkdir()
    library = folder / "libggml-cpu.so"
    subprocess.run([str(COMPILER), "-shared", "-fPIC", "-o", library, tmp_path / "features.c"], check=True)
    done = run(environment, "ask", "demo", "Hello?")
    first, second = done.stderr.splitlines()
    assert f"was built for another CPU: it uses {lacking.upper()}, which this one (" in first
    assert "was killed by SIGILL" in first
    assert "pip install" in second
