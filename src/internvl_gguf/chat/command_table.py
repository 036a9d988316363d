"""The table of slash commands: names, arguments, help and functions. /help and completion are made from it."""

from __future__ import annotations

import difflib
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from internvl_gguf.chat import commands

if TYPE_CHECKING:
    from internvl_gguf.chat.chat import Chat

Completes = Literal["", "path", "model", "setting", "conversation"]

_HELP_COLUMN = 22
_NARROW = 60


@dataclass(frozen=True)
class Command:
    """A slash command.

    Attributes:
        name: name, without the slash.
        arguments: its arguments, as /help shows them.
        help: one line of help.
        run: runs it with a chat and the text after the name; returns the text that the editor begins with next.
        completes: kind of completion for its arguments.
    """

    name: str
    arguments: str
    help: str
    run: Callable[[Chat, str], str]
    completes: Completes = ""


COMMANDS: dict[str, Command] = {
    command.name: command
    for command in (
        Command("help", "", "Show this.", lambda chat, text: show_help(chat)),
        Command("image", "PATH...", "Add pictures to the next question; dropping them into the line does it, too.",
                commands.image, "path"),
        Command("paste", "", "Add the picture in the clipboard.", commands.paste),
        Command("images", "[remove N...]", "List the pictures, or take some out.", commands.images),
        Command("tiles", "[N]", "Cut the next pictures into at most N tiles.", commands.tiles),
        Command("undo", "", "Take the last question and its answer back.", commands.undo),
        Command("regen", "[TEMPERATURE]", "Ask the last question again for another answer.", commands.regen),
        Command("edit", "", "Put the last question back into the line.", commands.edit),
        Command("clear", "", "Begin a new conversation.", commands.clear),
        Command("drop", "[N...]", "Drop questions or pictures of the conversation to make room.", commands.drop),
        Command("system", "[TEXT|none|default]", "Show or set the system message.", commands.system),
        Command("set", "[NAME VALUE]", "Show the settings, or change one.", commands.set_value, "setting"),
        Command("model", "[NAME:QUANT]", "Change the model or its quant; the conversation stays. :Q8_0 is enough.",
                commands.model, "model"),
        Command("show", "", "Show the model, where it runs, and the conversation.", commands.show),
        Command("stats", "", "Show what the last answer took.", commands.stats),
        Command("tokens", "", "Show what takes room in the context.", commands.tokens),
        Command("save", "[FILE.json]", "Write the conversation to a file that /load reads.", commands.save, "path"),
        Command("load", "[ID|FILE.json]", "List the last conversations, or go on with one.", commands.load,
                "conversation"),
        Command("export", "[FILE.md|.json]", "Write the conversation for people (.md) or programs (.json).",
                commands.export, "path"),
        Command("bye", "", "Leave; Ctrl-D does it, too.", commands.bye),
    )
}  # fmt: skip

_ALIASES = {"exit": "bye", "quit": "bye", "q": "bye", "?": "help", "retry": "regen"}
_CALL = re.compile(r"/([A-Za-z?][\w-]*)(?=\s|$)|/(\?)(?=\s|$)")


def split_command(line: str) -> tuple[str, str] | None:
    """Split a line into command name and argument, known or not; None if it is no command, such as a path."""
    found = _CALL.match(line.lstrip())
    if found is None:
        return None
    return (found[1] or found[2]).lower(), line.lstrip()[found.end() :].strip()


def find_command(name: str) -> Command | None:
    """Return the command of a name or alias; None if there is none."""
    return COMMANDS.get(_ALIASES.get(name, name))


def unknown_command(name: str) -> str:
    """Return the message about an unknown command."""
    near = difflib.get_close_matches(name, [*COMMANDS, *_ALIASES], n=1, cutoff=0.6)
    hint = f"did you mean /{near[0]}? " if near else ""
    return f"There is no command /{name}: {hint}/help lists them."


def show_help(chat: Chat) -> str:
    """Show the table of commands and the keys."""
    width = chat.screen.columns
    lines = []
    for command in COMMANDS.values():
        head = f"/{command.name} {command.arguments}".rstrip()
        lines += _entry(head, command.help, width)
    chat.screen.show_lines(
        [
            *lines,
            "",
            *_entry(
                "PATH", "A picture's path anywhere in the line adds it; drop files, quote names with spaces.", width
            ),
            *_entry('"""', "begins and ends a question of several lines.", width),
            *_entry("Alt-Enter", "A new line.", width),
            *_entry("Ctrl-C", "Stop the answer; twice leaves. Ctrl-D leaves.", width),
        ]
    )
    return ""


def _entry(head: str, text: str, width: int) -> list[str]:
    """Return the lines of one help entry: side by side, or one below the other on a narrow terminal."""
    if width < _NARROW:
        return [head, *textwrap.wrap(text, width - 1, initial_indent="  ", subsequent_indent="  ")]
    gap = " " * (_HELP_COLUMN + 2)
    lines = textwrap.wrap(text, width - 1, initial_indent=gap, subsequent_indent=gap)
    if len(head) > _HELP_COLUMN:
        return [head, *lines]
    return [head.ljust(len(gap)) + lines[0][len(gap) :], *lines[1:]]
