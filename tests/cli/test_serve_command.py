"""`internvl serve` with what it cannot use: two lines each, and no server."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from internvl_gguf.cli.serve import _LIBRARIES
from tests.cli.test_commands import assert_two_lines

_COMMAND = ("-m", "internvl_gguf")


def serve(folder: Path, *arguments: str, program: tuple[str, ...] = _COMMAND) -> subprocess.CompletedProcess[str]:
    """What a command line leaves that must fail; a server that started in spite of it would outlast the time."""
    return subprocess.run(
        [sys.executable, *program, "serve", *arguments],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name != "INTERNVL_API_KEY"},
        timeout=60,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file that is neither a folder nor a certificate, and a file of no keys."""
    (tmp_path / "note.txt").write_text("neither a folder nor a certificate")
    (tmp_path / "empty.keys").write_text("\n \n")
    return tmp_path


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--host 0.0.0.0", "0.0.0.0 can be reached from other machines, and no key is set."),
        ("--host nowhere.invalid --api-key k", "The host nowhere.invalid is not known."),
        ("--cors-origin *", "--cors-origin is '*'."),
        ("--cors-origin https://x/y", "--cors-origin is 'https://x/y'."),
        ("--tls-cert note.txt", "A certificate needs its key"),
        ("--tls-key note.txt", "A certificate needs its key"),
        ("--tls-cert missing.pem --tls-key note.txt", "missing.pem cannot be read."),
        ("--tls-cert note.txt --tls-key note.txt", "The certificate and the key cannot be used together."),
        ("--media-root note.txt", "--media-root note.txt is no folder."),
        ("--media-root missing", "--media-root missing is no folder."),
        ("--api-key-file missing.keys", "--api-key-file cannot be read"),
        ("--api-key-file empty.keys", "--api-key-file has no key."),
        ("--api-key=", "A key is empty."),
        ("--parallel 3 --conversations 2", "--conversations 2 is less than --parallel 3."),
        ("--port 70000", "--port"),
    ],
)
def test_an_option_that_cannot_be_used_is_wrong_usage(folder: Path, options: str, said: str) -> None:
    arguments = ["demo", *options.split()]
    done = serve(folder, *arguments, *([] if "--port" in arguments else ["--port", "0"]))
    assert_two_lines(done, code=2)
    assert done.stderr.startswith(f"Error: {said}")


def test_a_port_that_another_program_has(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = serve(folder, "demo", "--port", str(port))
    assert_two_lines(done, code=2)
    assert done.stderr.startswith(f"Error: Another program listens on 127.0.0.1:{port} already.")


@pytest.mark.parametrize("model", ["no-such-model", "./missing.gguf"])
def test_a_model_that_is_not_there_is_told_before_anything_is_served(folder: Path, model: str) -> None:
    done = serve(folder, model, "--port", "0")
    assert_two_lines(done, code=1)
    assert "Serving on" not in done.stderr


@pytest.mark.parametrize("library", ["starlette", "uvicorn", "prometheus_client"])
def test_a_library_that_is_missing_is_named_with_what_installs_it(folder: Path, library: str) -> None:
    """They are an extra: `pip install internvl-gguf` alone has none of them."""
    program = f"import sys; sys.modules[{library!r}] = None; from internvl_gguf.cli import main; sys.exit(main())"
    done = serve(folder, "demo", "--port", "0", program=("-c", program))
    assert_two_lines(done, code=2)
    first, second = done.stderr.splitlines()
    assert first == f"Error: The server needs {library}, which is not installed."
    assert second.strip().startswith(f"Run {sys.executable} -m pip install ")


def test_what_the_hint_installs_is_what_the_extra_has() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert tuple(project["project"]["optional-dependencies"]["serve"]) == _LIBRARIES
