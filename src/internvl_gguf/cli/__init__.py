"""The `internvl` command. Each subcommand is a thin user of the package, imported when it is run."""

from __future__ import annotations

import atexit
import os
import sys
from typing import NoReturn


def main() -> None:
    """Run the command line: exit codes are 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    from internvl_gguf.cli.command_list import COMPLETE, help_text
    from internvl_gguf.cli.streams import is_stdout_closed, mend_streams, replaced_line

    mend_streams()
    # The libraries of the command line take longer to import than this takes to say.
    if sys.argv[1:] in (["-h"], ["--help"]) and not is_stdout_closed():
        sys.stdout.write(help_text())
        return
    if not sys.argv[1:]:
        sys.stderr.write(help_text())
        sys.exit(2)
    if sys.argv[1] == COMPLETE:
        from internvl_gguf.cli.completion import answer

        if not is_stdout_closed():
            sys.stdout.write(answer(sys.argv[2:]))
        return
    try:
        from internvl_gguf.cli.group import app
        from internvl_gguf.cli.output import say
        from internvl_gguf.cli.run import run
    except KeyboardInterrupt:  # before there is anything that could be interrupted
        sys.exit(130)

    code = run(app)
    if line := replaced_line():
        say(line)
    sys.exit(code)


def start() -> NoReturn:
    """Run `main` as a process of its own, and end that process.

    What was registered for its end is done, but Python and its libraries are not taken apart: that takes a tenth of a
    second, for memory that the system takes back anyway.
    """
    code: str | int | None = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code
    if not isinstance(code, int | None):
        sys.exit(code)
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):  # full, closed or missing: Python has its own way of telling
        sys.exit(code)
    atexit._run_exitfuncs()
    os._exit(code or 0)
