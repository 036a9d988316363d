"""Tab completion: commands, paths, models, settings with their values, conversations."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from internvl_gguf.chat.command_table import COMMANDS, find_command
from internvl_gguf.chat.settings import setting_names, setting_values
from internvl_gguf.chat.typed_line import expanded, has_picture_name
from internvl_gguf.models.suggest import suggest_models

_MOST_PATHS = 200
_SPECIAL = re.compile(r"([\s'\"\\()&;])")
_WORD = re.compile(r"(?:\\.|[^\s\\])*\Z", re.DOTALL)
_PATH_LIKE = re.compile(r"[~.]?[\w.-]*/|~|\.")


@dataclass(frozen=True)
class Suggestion:
    """One completion.

    Attributes:
        text: text to insert.
        replaces: number of characters before the cursor that it replaces.
        about: description in a few words.
    """

    text: str
    replaces: int
    about: str = ""


@dataclass(frozen=True)
class Sources:
    """Functions that return names known to the chat only.

    Attributes:
        conversations: returns id and title of the last conversations.
        model: returns the name of the current model.
        models: returns the models that the chat can change to, where they are a short list.
    """

    conversations: Callable[[], list[tuple[str, str]]] = list
    model: Callable[[], str] = str
    models: Callable[[], Sequence[str]] | None = None


def suggestions(before: str, sources: Sources) -> Iterator[Suggestion]:
    """Yield completions.

    Args:
        before: the line up to the cursor.
        sources: names known to the chat only.
    """
    line = before.lstrip()
    name, space, argument = line.partition(" ")
    if not line.startswith("/") or (command := find_command(name[1:])) is None or not space:
        is_name = line.startswith("/") and not space and "/" not in line[1:]
        found = list(_commands(line, len(line))) if is_name else []
        yield from found or _paths_in_text(before)  # folders of the root only where no command begins so
        return
    argument = argument.lstrip()
    if command.completes == "path":
        yield from _paths(_last_word(argument))
    elif command.completes == "model" and sources.models is not None:
        yield from (Suggestion(name, len(argument)) for name in sources.models() if name.startswith(argument))
    elif command.completes == "model":
        yield from _models(argument, sources.model())
        yield from _paths(_last_word(argument))
    elif command.completes == "setting":
        yield from _settings(argument)
    elif command.completes == "command":
        yield from _commands(f"/{argument.removeprefix('/')}", len(argument))
    elif command.completes == "conversation":
        yield from (
            Suggestion(found, len(argument), title)
            for found, title in sources.conversations()
            if found.startswith(argument)
        )
        yield from _paths(_last_word(argument))


def _commands(line: str, replaces: int) -> Iterator[Suggestion]:
    for command in COMMANDS.values():
        if f"/{command.name}".startswith(line.lower()):
            yield Suggestion(f"/{command.name}", replaces, command.help)


def _settings(argument: str) -> Iterator[Suggestion]:
    name, space, value = argument.partition(" ")
    if not space:
        yield from (Suggestion(each, len(name)) for each in setting_names() if each.startswith(name.lower()))
        return
    value = value.lstrip()
    yield from (Suggestion(each, len(value)) for each in setting_values(name) if each.startswith(value.lower()))


def _models(argument: str, current: str) -> Iterator[Suggestion]:
    if argument.startswith(":"):
        base = current.partition(":")[0]
        for name in suggest_models(base + argument):
            yield Suggestion(name.removeprefix(base), len(argument))
        return
    yield from (Suggestion(name, len(argument)) for name in suggest_models(argument))


def _paths_in_text(before: str) -> Iterator[Suggestion]:
    """Complete the last word of a question: to any path if it begins like one, else to folders and pictures here."""
    word = _last_word(before)
    if word and _PATH_LIKE.match(word):
        yield from _paths(word)
    elif word:
        yield from (found for found in _paths(word) if _is_folder_or_picture(found.text))


def _is_folder_or_picture(text: str) -> bool:
    return text.endswith("/") or has_picture_name(text.rstrip("'\""))


def _last_word(text: str) -> str:
    """Return the last word, which may contain escaped spaces or begin with an open quote."""
    quote = re.search(r"(?:^|\s)(['\"][^'\"]*)\Z", text)
    if quote:
        return quote[1]
    found = _WORD.search(text)
    return found[0] if found else ""


def _paths(word: str) -> Iterator[Suggestion]:
    """Yield files and folders that begin with a word, escaped or quoted as the word is."""
    quote = word[:1] if word[:1] in ("'", '"') else ""
    typed = word[1:] if quote else re.sub(r"\\(.)", r"\1", word)
    folder, slash, name = typed.rpartition("/")
    base = expanded(folder + slash) if slash else Path()
    if base is None or typed == "~":
        return
    try:
        entries = sorted(base.iterdir(), key=lambda path: path.name.lower())
    except OSError:
        return
    shown = [
        each for each in entries if each.name.startswith(name) and each.name.startswith(".") == name.startswith(".")
    ]
    for entry in shown[:_MOST_PATHS]:
        text = f"{folder}{slash}{entry.name}"
        is_folder = entry.is_dir()
        text = f"{quote}{text}" if quote else _SPECIAL.sub(r"\\\1", text)
        yield Suggestion(text + ("/" if is_folder else quote), len(word), "folder" if is_folder else "")
