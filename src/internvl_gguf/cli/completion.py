"""Completion in bash, zsh and fish: the scripts, and the words that they ask for while the user types."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from internvl_gguf.cli.command_list import COMMANDS, COMPLETE
from internvl_gguf.errors import InternVLError
from internvl_gguf.utils.kinds import JudgeName, kind_of

if TYPE_CHECKING:
    from collections.abc import Mapping

Shell = Literal["bash", "zsh", "fish"]
Answer = tuple[str, str]
"""What may stand at the cursor, and what it is."""

_BASH: Final = """\
# Completion of internvl in bash: source this file, or put this line into ~/.bashrc:
#     eval "$(internvl completion bash)"
_internvl() {
    local IFS=$'\\n'
    COMPREPLY=($("${COMP_WORDS[0]}" COMPLETE bash "${COMP_LINE:0:COMP_POINT}" 2>/dev/null))
}
complete -o default -F _internvl internvl
"""
_ZSH: Final = """\
#compdef internvl
# Completion of internvl in zsh: put this line into ~/.zshrc, after compinit:
#     eval "$(internvl completion zsh)"
_internvl() {
    local word text
    local -a found
    while IFS=$'\\t' read -r word text; do
        found+=("${word//:/\\\\:}${text:+:$text}")
    done < <("${words[1]}" COMPLETE zsh "${(@)words[2,CURRENT]}" 2>/dev/null)
    (( $#found )) && _describe -V internvl found
    (( CURRENT > 2 )) && [[ $PREFIX != -* ]] && _files
}
compdef _internvl internvl
"""
_FISH: Final = """\
# Completion of internvl in fish: internvl completion fish > ~/.config/fish/completions/internvl.fish
function __internvl_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l program $words[1]
    set -e words[1]
    $program COMPLETE fish $words "$current" 2>/dev/null
end
complete -c internvl -n 'test (count (commandline -opc)) -eq 1' -f
complete -c internvl -a '(__internvl_complete)'
"""
_SCRIPTS: Final = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
_LISTED: Final = 20
_FIRST: Final = {"--help": "Show the commands and exit.", "--version": "Print the version."}


def completion(
    shell: Annotated[Shell, typer.Argument(metavar="bash|zsh|fish", help="Which shell.", show_default=False)],
) -> None:
    """Print the script that completes commands, options and models. The script says where it goes."""
    from internvl_gguf.cli.output import print_document  # only now: an answer to a shell does without

    print_document(_SCRIPTS[shell].replace("COMPLETE", COMPLETE))


def answer(arguments: Sequence[str]) -> str:
    """Return the answer to a completion script: a line for each word that may stand at the cursor.

    Args:
        arguments: the shell, and the words after the program's name, the unfinished one last; of bash the line up to
            the cursor, for bash breaks words at colons.
    """
    shell, *words = arguments or [""]
    if shell == "bash":
        words = _split("".join(words))[1:]
    if not words:
        return ""
    found: list[Answer] = []
    with contextlib.suppress(InternVLError):  # a config.toml that cannot be read: the command will say so
        found = [each for each in _answers(words) if each[0].startswith(words[-1])]
    if shell == "bash":
        done = words[-1].rfind(":") + 1  # it replaces what follows the colon
        return "".join(f"{word[done:]}\n" for word, _ in found)
    return "".join(f"{word}\t{text}\n" for word, text in found)


def _split(line: str) -> list[str]:
    """Return the words of a line, the one under the cursor last, "" if none is begun."""
    try:
        words = shlex.split(line)
    except ValueError:  # a quote is open
        words = line.split()
    return words if line and not line[-1].isspace() else [*words, ""]


def _answers(words: Sequence[str]) -> Iterator[Answer]:
    *before, current = words
    if not before:
        yield from (
            _FIRST.items() if current.startswith("-") else ((name, about) for name, (*_, about) in COMMANDS.items())
        )
        return
    if before[0] not in COMMANDS:
        return
    from internvl_gguf.cli.group import function_of, load

    command, types = load(before[0]), _types(function_of(before[0]))
    for name in before[1:]:  # `internvl cache clear`
        if name in getattr(command, "commands", {}):
            command, types = command.commands[name], {}
    if hasattr(command, "commands"):
        yield from ((name, each.help or "") for name, each in command.commands.items())
    elif current.startswith("-"):
        yield from _options(command)
    elif before[-1].startswith("-") and (option := _option(command, before[-1])) is not None and not option.is_flag:
        yield from _values(option, types, current)
    else:
        yield from _arguments(command, types, current)


def _types(function: Any) -> Mapping[str, Any]:
    """Return the types of a command's parameters; empty for a group of commands."""
    import inspect

    if not callable(function) or hasattr(function, "registered_commands"):
        return {}
    return {name: each.annotation for name, each in inspect.signature(function, eval_str=True).parameters.items()}


def _options(command: Any) -> Iterator[Answer]:
    for option in command.params:
        if getattr(option, "hidden", False):
            continue
        for name in (*option.opts, *option.secondary_opts):
            if name.startswith("--"):
                yield name, getattr(option, "help", None) or ""
    yield "--help", "Show this message and exit."


def _option(command: Any, name: str) -> Any:
    return next((each for each in command.params if name in (*each.opts, *each.secondary_opts)), None)


def _values(option: Any, types: Mapping[str, Any], current: str) -> Iterator[Answer]:
    if option.name == "model":
        yield from _models(current)
    elif option.name == "judge":
        yield from ((name, "") for name in JudgeName.choices)
        yield from _models(current)
    elif option.name == "resume":
        yield from _conversations()
    yield from ((value, "") for value in kind_of(types.get(option.name)).choices)


def _arguments(command: Any, types: Mapping[str, Any], current: str) -> Iterator[Answer]:
    """Return models or conversations if the argument is one; shells complete files by themselves."""
    for argument in command.params:
        if argument.param_type_name == "argument":
            if "MODEL" in (argument.metavar or argument.name.upper()):
                yield from _models(current)
            elif argument.metavar == "ID":
                yield from _conversations()
            yield from ((value, "") for value in kind_of(types.get(argument.name)).choices)


def _models(current: str) -> Iterator[Answer]:
    from internvl_gguf.models.suggest import suggest_models

    yield from ((name, "") for name in suggest_models(current))


def _conversations() -> Iterator[Answer]:
    """Return the last conversations, if a history exists; it is not created here."""
    from internvl_gguf.history.database import FILE
    from internvl_gguf.utils.paths import data_dir

    if (data_dir() / FILE).is_file():
        from internvl_gguf.history import History

        with History.open(on_notice=lambda line: None) as history:
            yield from ((each.id, each.title) for each in history.search(limit=_LISTED))
