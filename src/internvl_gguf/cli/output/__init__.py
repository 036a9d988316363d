"""Write the output of commands: the answer to stdout, all else to stderr. No file of cli/ outside this folder writes.

lines       lines, broken at words where a terminal is narrower; errors in two lines; questions
tables      tables and facts that fit the terminal; a styled report
documents   JSON, files' content, answers as they come
progress    bars and lines that tell what takes time
"""

from __future__ import annotations

from internvl_gguf.cli.output.documents import (
    StreamedAnswer,
    answer_stream,
    can_print,
    print_document,
    print_json,
    print_json_text,
)
from internvl_gguf.cli.output.lines import (
    bold,
    columns,
    confirm,
    dim,
    flush,
    is_terminal,
    print_lines,
    print_styled,
    say,
    say_dim,
    say_error,
    show_library_log,
)
from internvl_gguf.cli.output.progress import (
    Figure,
    ProgressBars,
    StatusLine,
    progress_bars,
    replaced_line,
    status_line,
)
from internvl_gguf.cli.output.tables import Report, narrowed, print_fact, print_table

__all__ = [
    "Figure",
    "ProgressBars",
    "Report",
    "StatusLine",
    "StreamedAnswer",
    "answer_stream",
    "bold",
    "can_print",
    "columns",
    "confirm",
    "dim",
    "flush",
    "is_terminal",
    "narrowed",
    "print_document",
    "print_fact",
    "print_json",
    "print_json_text",
    "print_lines",
    "print_styled",
    "print_table",
    "progress_bars",
    "replaced_line",
    "say",
    "say_dim",
    "say_error",
    "show_library_log",
    "status_line",
]
