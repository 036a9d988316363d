"""The table of slash commands: names, arguments, help and functions. /help and completion are made from it."""

from __future__ import annotations

import difflib
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from internvl_gguf.chat import box_command, clip_commands, commands, thinking_commands
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.utils.safe_text import safe_name

if TYPE_CHECKING:
    from internvl_gguf.chat.chat import Chat

Completes = Literal["", "path", "model", "setting", "conversation", "command"]

_HELP_COLUMN = 24
_NARROW = 60
_NO_BREAK = "\u00a0"  # textwrap breaks lines at plain spaces only


@dataclass(frozen=True)
class Command:
    """A slash command.

    Attributes:
        topic: what it is about, for the overview of /help.
        name: name, without the slash.
        arguments: its arguments, as /help shows them.
        help: one line of help.
        run: runs it with a chat and the text after the name; returns the text that the editor begins with next.
        completes: kind of completion for its arguments.
    """

    topic: str
    name: str
    arguments: str
    help: str
    run: Callable[[Chat, str], str]
    completes: Completes = ""

    @property
    def usage(self) -> str:
        """Name and arguments as they are typed."""
        return f"/{self.name} {self.arguments}".rstrip()


COMMANDS: dict[str, Command] = {
    command.name: command
    for command in (
        Command("Pictures", "image", "PATH...", "Add pictures to the next question, also ones that the "
                "conversation has already; a path in the line adds new ones only.", commands.image, "path"),
        Command("Pictures", "video", "PATH...", "Add clips, also animations; --frames N, --fps RATE, --start TIME and "
                "--end TIME say which of their frames are shown.", clip_commands.video, "path"),
        Command("Pictures", "paste", "", "Add the picture in the clipboard.", commands.paste),
        Command("Pictures", "frames", "[N|auto]", "Show N frames of the next clips, or as many as fit.",
                clip_commands.frames),
        Command("Pictures", "images", "[remove N...]", "List the pictures, or take some out.", commands.images),
        Command("Last question", "undo", "", "Take the last question and its answer back.", commands.undo),
        Command("Last question", "edit", "", "Put the last question back into the line.", commands.edit),
        Command("Last question", "regen", "[TEMPERATURE]", "Ask the last question again for another answer.",
                commands.regen),
        Command("Conversation", "clear", "", "Begin a new conversation.", commands.clear),
        Command("Conversation", "load", "[ID|FILE.json]", "List the last conversations, or go on with one.",
                commands.load, "conversation"),
        Command("Conversation", "save", "[FILE.json]", "Write the conversation to a file that /load reads.",
                commands.save, "path"),
        Command("Conversation", "export", "[FILE.md|.json]",
                "Write the conversation for people (.md) or programs (.json).", commands.export, "path"),
        Command("Room", "tokens", "", "Show what takes room in the context.", commands.tokens),
        Command("Room", "drop", "[N...]", "Drop questions or pictures of the conversation to make room.",
                commands.drop),
        Command("Room", "tiles", "[N]", "Cut the next pictures into at most N tiles, not counting the thumbnail.",
                commands.tiles),
        Command("Model", "model", "[NAME:QUANT]",
                "Change the model or its quant; the conversation stays. :Q8_0 is enough.", commands.model, "model"),
        Command("Model", "show", "", "Show the model, where it runs, and the conversation.", commands.show),
        Command("Model", "stats", "", "Show what the last answer took.", commands.stats),
        Command("Answers", "boxes", "[FILE]", "List the boxes of the last answer, or write them: over the picture "
                "(.png, .jpg, .webp) or in COCO's format (.json).", box_command.boxes, "path"),
        Command("Answers", "think", "[on|off|N]", "Let the model think before it answers, at most N tokens, or not; "
                "auto leaves it to the model, drop takes earlier thoughts out of the prompt, keep leaves them.",
                thinking_commands.think),
        Command("Answers", "set", "[NAME VALUE]", "Show the settings, or change one, as best_of 8.",
                commands.set_value, "setting"),
        Command("Answers", "thought", "", "Show the thought before the last answer.", thinking_commands.thought),
        Command("Answers", "system", "[TEXT|none|default]", "Show or set the system message.", commands.system),
        Command("Other", "help", "[COMMAND|all]", "Show an overview, one command or all of them.",
                lambda chat, text: show_help(chat, text), "command"),
        Command("Other", "bye", "", "Leave; exit, quit and Ctrl-D do it, too.", commands.bye),
    )
}  # fmt: skip

_KEYS = (
    ("PATH", "A path in the line adds a new picture; drop files, quote names with spaces."),
    ("Alt-Enter", 'A new line; so is Enter between """ and """.'),
    ("Tab", "Completes names; after /, lists commands."),
    ("Ctrl-C", "Stops the answer; twice leaves, as Ctrl-D."),
)
"""Other things that can be typed, each with its help."""
_ALIASES = {"exit": "bye", "quit": "bye", "q": "bye", "?": "help", "retry": "regen"}
_BARE = frozenset({"help", "exit", "quit"})
"""Words that are commands without the slash, too, where nothing else is in the line."""
_CALL = re.compile(r"/([A-Za-z?][\w-]*)(?=\s|$)|/(\?)(?=\s|$)")


def split_command(line: str) -> tuple[str, str] | None:
    """Split a line into command name and argument, known or not; None if it is no command, such as a path."""
    if (word := line.strip().lower()) in _BARE:
        return word, ""
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


def show_help(chat: Chat, text: str) -> str:
    """Show all commands where they fit the window, else an overview by topic; or one command, or all.

    Raises:
        InvalidRequestError: there is no such command.
    """
    width = chat.screen.columns
    name = text.lower().removeprefix("/")
    whole = [line for command in COMMANDS.values() for line in _entry(command.usage, command.help, width)]
    keys = [line for key, meaning in _KEYS for line in _entry(key, meaning, width)]
    if name and name != "all":
        command = find_command(name)
        if command is None:
            raise InvalidRequestError(f"There is no command {safe_name(text)}.", "/help lists them.")
        chat.screen.show_lines(_entry(command.usage, command.help, width))
    elif name or len(whole) + len(keys) < chat.screen.rows - 2:  # the line that was typed, and the next
        chat.screen.show_lines([*whole, "", *keys])
    else:
        chat.screen.show_lines([*_overview(width), "/help COMMAND explains one, /help all explains all."])
    return ""


def _overview(width: int) -> list[str]:
    """Return the commands by topic, with their arguments, and the keys."""
    topics: dict[str, list[str]] = {}
    for command in COMMANDS.values():
        topics.setdefault(command.topic, []).append(command.usage.replace(" ", _NO_BREAK))
    rows = [*((topic, "  ".join(usages)) for topic, usages in topics.items()), *_KEYS]
    column = max(map(len, topics)) + 2
    return [line.replace(_NO_BREAK, " ") for head, text in rows for line in _side_by_side(head, text, width, column)]


def _entry(head: str, text: str, width: int) -> list[str]:
    """Return the lines of one help entry: side by side, or one below the other on a narrow terminal."""
    if width < _NARROW:
        return [head, *textwrap.wrap(text, width - 1, initial_indent="  ", subsequent_indent="  ")]
    return _side_by_side(head, text, width, _HELP_COLUMN)


def _side_by_side(head: str, text: str, width: int, column: int) -> list[str]:
    """Return lines with the text from a column on; a head that reaches it stands on its own line."""
    gap = " " * column
    lines = textwrap.wrap(text, width - 1, initial_indent=gap, subsequent_indent=gap, break_long_words=False)
    if len(head) > column - 2:
        return [head, *lines]
    return [head.ljust(column) + lines[0][column:], *lines[1:]]
