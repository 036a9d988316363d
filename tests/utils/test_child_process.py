"""A child process that runs native code: its lines, its last words, and that it never outlives its block."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from internvl_gguf.utils.child_process import child_process, python_module


def python(script: str) -> list[str]:
    return [sys.executable, "-c", script]


def test_objects_come_as_they_are_printed_and_the_rest_is_left_out() -> None:
    script = "print(input()); print('a library talks'); print('[1]'); print('{\"b\": 2}'); print('{\"cut', end='')"
    with child_process(python(script), '{"a": 1}') as child:
        assert list(child.objects()) == [{"a": 1}, {"b": 2}]
        assert child.wait() == 0
        assert child.last_error_line() == ""


def test_its_last_words_are_kept() -> None:
    with child_process(python("import sys; sys.exit('Error: no such kernel')")) as child:
        assert list(child.objects()) == []
        assert child.wait() == 1
        assert child.last_error_line() == "Error: no such kernel"


@pytest.mark.parametrize("request_line", ["", "x" * 2**20])
def test_a_process_that_reads_nothing_is_no_error(request_line: str) -> None:
    with child_process(python("import os; os.close(0)"), request_line) as child:
        assert child.wait() == 0


def test_what_takes_too_long_is_ended() -> None:
    with child_process(python("import time; time.sleep(600)"), timeout=0.0, keeps_errors=False) as child:
        assert list(child.objects()) == []
        assert child.wait() != 0
        assert child.timed_out


def test_it_ends_with_its_block() -> None:
    with child_process(python("print('{}', flush=True); input(); input()")) as child:
        next(child.objects())
        pid = child.process.pid
        assert psutil.pid_exists(pid)
    assert not psutil.pid_exists(pid)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_is_not_for_the_child() -> None:
    """The terminal sends it to the whole group; a child that dies of it would look like a fault of the library."""
    with child_process(python("import sys; print('{}', flush=True); sys.stdin.read(); print('{}')"), "") as child:
        next(child.objects())
        os.kill(child.process.pid, signal.SIGINT)
        assert child.wait() == 0


def test_modules_in_the_current_folder_are_not_run(tmp_path: Path) -> None:
    """A folder of downloads may hold a file of any name."""
    for name in ("json", "numpy", "internvl_gguf"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('this was run')")
    command = python_module("internvl_gguf.structured.grammar_trial")
    ran = subprocess.run(command, input=b'start: "a"', cwd=tmp_path, capture_output=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert b"this was run" not in ran.stderr
