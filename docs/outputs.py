"""Run the commands whose output these documents show: `make docs` writes the outputs, a test compares them.

An output stands in the block after `<!-- output: COMMAND -->`, as a terminal of 80 columns shows it.
"""

from __future__ import annotations

import os
import pty
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

_PLACE: Final = re.compile(
    r"(?P<head>^<!-- output: (?P<command>[^\n]+) -->\n\n?```\n)(?P<output>.*?)(?=^```$)", re.DOTALL | re.MULTILINE
)
_COLUMNS: Final = 80
_REPOSITORY: Final = Path(__file__).parents[1]


def with_outputs(text: str) -> str:
    """Return a document with its outputs as the commands print them now."""
    return _PLACE.sub(lambda found: found["head"] + output_of(found["command"]), text)


def output_of(command: str) -> str:
    """Return what a command prints on a machine where nothing was measured or kept, folders of this machine as `…`."""
    program, *arguments = shlex.split(command)
    arguments = ["-m", "internvl_gguf", *arguments] if program == "internvl" else arguments
    with tempfile.TemporaryDirectory() as folder:
        own = {f"INTERNVL_{name}": str(Path(folder, name)) for name in ("CACHE", "CONFIG", "DATA")}
        others = {name: value for name, value in os.environ.items() if not name.startswith("INTERNVL_")}
        shown = _on_a_terminal(
            [sys.executable, *arguments],
            {**others, **own, "COLUMNS": str(_COLUMNS), "NO_COLOR": "1", "TERM": "dumb"},
        )
    command_path = os.path.relpath(Path(sys.executable).with_name("internvl"), _REPOSITORY)
    shown = shown.replace(command_path, ".venv/bin/internvl").replace(str(_REPOSITORY), "…")
    return "".join(f"{line.rstrip()}\n" for line in shown.splitlines())


def _on_a_terminal(command: list[str], environment: dict[str, str]) -> str:
    """Return what a command writes to a pseudo-terminal; OSError where it fails."""
    ours, its = pty.openpty()
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=its, stderr=its, env=environment, cwd=_REPOSITORY
    ) as process:
        os.close(its)
        written = b""
        while part := _read(ours):
            written += part
    os.close(ours)
    shown = written.decode("utf-8").replace("\r\n", "\n")
    if process.returncode:
        raise OSError(f"{shlex.join(command)} failed:\n{shown}")
    return shown


def _read(terminal: int) -> bytes:
    """Return what came; nothing where the other end is closed, which Linux says by an error."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""
