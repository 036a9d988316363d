"""Devices as the package sees them, and the end of a process that llama.cpp would abort."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from internvl_gguf import Session
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.hardware.remote_device import UNKNOWN_REMOTE
from internvl_gguf.llama import library
from internvl_gguf.llama.library import Device, gpus
from internvl_gguf.models.resolve import ModelFiles
from internvl_gguf.planning.machine_memory import machine_budget

GIB = 2**30


def device(name: str, kind: str = "gpu", identifier: str = "", free: int = 8 * GIB, total: int = 8 * GIB) -> Device:
    return Device(name, f"{name} of a test", kind, free, total, identifier=identifier)


def machine_of(*found: Device) -> pytest.MonkeyPatch:
    """A machine with these devices, until undone."""
    patch = pytest.MonkeyPatch()
    patch.setattr(library, "devices", lambda: list(found))
    return patch


# --- Which devices there are -----------------------------------------------------------------------------------------


def test_a_card_that_two_backends_see_counts_once() -> None:
    """CUDA0 and Vulkan0 of one card made a budget of two cards."""
    cuda, vulkan = device("CUDA0", identifier="0000:01:00.0"), device("Vulkan0", identifier="0000:01:00.0")
    other = device("Vulkan1", identifier="0000:02:00.0")
    assert gpus([cuda, vulkan, other]) == [cuda, other]
    unknown = [device("A"), device("B")]
    assert gpus(unknown) == unknown  # what tells no identifier is a card of its own


def test_servers_come_first_and_leave_an_integrated_gpu_in_use() -> None:
    """As `llama_prepare_model_devices` orders them; it takes an integrated GPU where the only others are remote."""
    remote, igpu, cuda = replace(device("RPC0"), remote=UNKNOWN_REMOTE), device("Vulkan0", "igpu"), device("CUDA0")
    assert gpus([cuda, igpu, remote]) == [remote, cuda]
    assert gpus([igpu, remote]) == [remote, igpu]
    assert gpus([remote]) == [remote]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_one_copy_of_ggml_is_loaded() -> None:
    """The bindings load libggml.so, libllama libggml.so.0: two registries, and devices in one are not in the other."""
    script = """
from internvl_gguf.llama import library
library.devices()
lines = open("/proc/self/maps").read().splitlines()
print(len({line.split()[-1] for line in lines if "/libggml.so" in line}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


def test_a_device_that_does_not_tell_its_memory_is_left_alone_and_named() -> None:
    """A budget of 0 without a word: the model went to the CPU, and nobody knew why."""
    patch = machine_of(device("OpenCL0", free=0, total=0), device("CUDA0"))
    try:
        machine = machine_budget()
        assert machine.budget.gpus == (0, 8 * GIB)
        (notice,) = machine.notices
        assert notice.startswith("OpenCL0 (OpenCL0 of a test) does not tell how much memory it has")
        assert "--vram" in notice
        limited = machine_budget((4 * GIB, 2 * GIB))
        assert limited.budget.gpus == (4 * GIB, 2 * GIB)
        assert limited.notices == ()
    finally:
        patch.undo()


def test_a_device_that_is_full_is_no_device_that_does_not_tell() -> None:
    patch = machine_of(device("CUDA0", free=0))
    try:
        assert machine_budget().notices == ()
        assert machine_budget((GIB,)).budget.gpus == (0,)
    finally:
        patch.undo()


def test_memory_that_cuda_manages_is_the_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    patch = machine_of(device("CUDA0"))
    try:
        assert not machine_budget().budget.is_unified
        monkeypatch.setenv("GGML_CUDA_ENABLE_UNIFIED_MEMORY", "1")
        assert machine_budget().budget.is_unified
    finally:
        patch.undo()


def test_budgets_for_more_devices_than_there_are_name_those_there_are() -> None:
    patch = machine_of(device("CUDA0"))
    try:
        with pytest.raises(InvalidRequestError, match="this machine has 1: CUDA0 of a test"):
            machine_budget((GIB, GIB))
    finally:
        patch.undo()


def test_the_notice_reaches_whoever_opens_a_session(tiny: ModelFiles) -> None:
    patch = machine_of(device("OpenCL0", free=0, total=0))
    notices: list[str] = []
    try:
        with Session.open(tiny.text, tiny.mmproj, n_threads=1, on_notice=notices.append) as session:
            assert session.runtime.configuration.request.gpus == ()
    finally:
        patch.undo()
    assert [line.split(" ")[0] for line in notices] == ["OpenCL0"]


# --- What llama.cpp says ---------------------------------------------------------------------------------------------


def test_the_reason_is_the_line_about_the_allocation(caplog: pytest.LogCaptureFixture) -> None:
    """ "failed to load model" was all that people were told."""
    sink = library._LogSink()
    with caplog.at_level(logging.CRITICAL, logger="internvl_gguf.llama"):
        sink(4, b"llama_model_load: error loading model: unable to allocate CUDA0 buffer\n", None)
        sink(4, b"llama_model_load_from_file_impl: failed to load model\n", None)
        assert library.last_error() == " (llama_model_load: error loading model: unable to allocate CUDA0 buffer)"
        sink(4, b"an older matter\n", None)
        library.forget_errors()
        assert library.last_error() == ""


ABORT = """
import ctypes, sys, threading
from internvl_gguf.llama import library
library.initialise()
print("an answer that nobody flushed", end="")
get = library.ggml_function("ggml_backend_dev_get", ctypes.c_void_p, ctypes.c_size_t)
def beyond(): get(10**6)  # GGML_ASSERT(index < ggml_backend_dev_count())
if sys.argv[1] == "thread":
    thread = threading.Thread(target=beyond)
    thread.start()
    thread.join()
else:
    beyond()
print("still here")
"""


@pytest.mark.parametrize("where", ["main", "thread"])
def test_an_abort_is_two_lines_and_exit_code_1(where: str) -> None:
    """A lost device, a failed check: the process died of SIGABRT with a line of C, and lost what it had printed."""
    done = subprocess.run([sys.executable, "-c", ABORT, where], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == "an answer that nobody flushed"
    what, todo = done.stderr.splitlines()
    assert what.startswith("Error: llama.cpp gave up: GGML_ASSERT(index < ggml_backend_dev_count()) failed [")
    assert str(Path.home()) not in what
    assert "internvl doctor" in todo


TAKES_THE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv("/bin/sh", ["sh", "-c", '"$0" -c "$1"; echo status $?; stty -a', sys.executable, sys.argv[1]])
"""


def on_a_terminal(script: str) -> str:
    """What a shell shows that runs a script in Python and then says its status and the state of the terminal.

    No process is forked from this one, as pexpect would: what other tests left in it counts for nothing here.
    """
    import pty

    ours, its = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", TAKES_THE_TERMINAL, script], stdin=its, stdout=its, stderr=its, start_new_session=True
    ):
        os.close(its)
        shown = b""
        while part := read_terminal(ours):
            shown += part
    os.close(ours)
    return shown.decode()


def read_terminal(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # the other end is closed
        return b""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_is_left_as_it_should_be() -> None:
    """Keys do not echo while an answer is shown, and a progress bar hides the cursor: both for the dead process too."""
    script = f"""
import sys, termios
modes = termios.tcgetattr(0)
modes[3] &= ~(termios.ECHO | termios.ICANON)
termios.tcsetattr(0, termios.TCSANOW, modes)
sys.argv = ["-c", "main"]
{ABORT}
"""
    said = on_a_terminal(script)
    assert "status 1\r\n" in said
    assert "\x1b[?25h" in said
    assert {"echo", "icanon", "icrnl"} <= set(said.partition("status 1")[2].replace(";", " ").split())


def test_the_words_of_a_driver_are_in_what_is_told() -> None:
    """CUDA's own line is logged before the abort, whose message is no more than "CUDA error"."""
    script = """
from internvl_gguf.llama import library
library.initialise()
library.recent_errors.append("CUDA error: out of memory")
library._on_abort(b"/tmp/build-x/ggml-cuda.cu:106: CUDA error")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(
        "Error: llama.cpp gave up: CUDA error [ggml-cuda.cu:106] (CUDA error: out of memory).\n"
    )
