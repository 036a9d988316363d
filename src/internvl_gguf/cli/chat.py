"""`internvl chat`: a conversation at the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from internvl_gguf.chat.typed_line import has_picture_name
from internvl_gguf.cli import options
from internvl_gguf.cli.asking_options import AskingOptions, takes_asking_options
from internvl_gguf.cli.output import show_library_log
from internvl_gguf.cli.parameters import VARIABLES, value_sources
from internvl_gguf.cli.run import option_errors
from internvl_gguf.cli.stdin import STDIN
from internvl_gguf.cli.streams import require_stdout
from internvl_gguf.config import EngineConfig
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.utils.options import options_of
from internvl_gguf.utils.safe_text import safe_name

_SERVER = "A model elsewhere"
_CONVERSATION = "Conversations"
_TERMINAL = "The terminal"
_KEY_VARIABLE = f"{VARIABLES}_API_KEY"
_OF_THIS_MACHINE = ("mmproj", "no_cache", "worker_timeout")
"""Options beside those of `EngineConfig` that say how a model is loaded here."""


@takes_asking_options
def chat(
    model_and_pictures: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL|PICTURE",
            help="The model (a name with :QUANT, owner/repo:QUANT, a .gguf path or `demo`; "
            f"{options.MODEL_VARIABLE} if left out), and pictures for the first question; - is one on stdin.",
            show_default=False,
        ),
    ] = None,
    image: Annotated[
        list[str] | None,
        typer.Option(
            "--image",
            "-i",
            metavar="FILE",
            help="A picture for the first question, as PICTURE; may be repeated.",
            show_default=False,
            allow_from_autoenv=False,
        ),
    ] = None,
    model_option: options.ModelFlag = None,
    prompt_option: Annotated[
        str | None, typer.Option("--prompt", "-p", hidden=True, show_default=False, allow_from_autoenv=False)
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Talk with a model of this OpenAI-compatible server, as `internvl serve` is one: http://HOST:PORT. "
            "MODEL is then one that it lists; its first if left out.",
            show_default=False,
            rich_help_panel=_SERVER,
        ),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help=f"The key that the server asks for; {_KEY_VARIABLE} keeps it out of the list of processes.",
            envvar=_KEY_VARIABLE,
            show_envvar=False,
            show_default=False,
            allow_from_autoenv=False,
            rich_help_panel=_SERVER,
        ),
    ] = None,
    go_on: Annotated[
        bool,
        typer.Option(
            "--continue",
            "-C",
            help="Go on with the last conversation.",
            envvar=f"{VARIABLES}_CHAT_CONTINUE",
            show_envvar=False,
            allow_from_autoenv=False,
            rich_help_panel=_CONVERSATION,
        ),
    ] = False,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="Go on with one that `internvl history` lists.",
            show_default=False,
            allow_from_autoenv=False,
            rich_help_panel=_CONVERSATION,
        ),
    ] = None,
    history: Annotated[
        bool, typer.Option("--history/--no-history", help="Keep the conversation.", rich_help_panel=_CONVERSATION)
    ] = True,
    plain: Annotated[
        bool,
        typer.Option(
            "--plain",
            help="Redraw nothing, and say words for symbols: for screen readers.",
            rich_help_panel=_TERMINAL,
        ),
    ] = False,
    preview: Annotated[
        bool, typer.Option("--preview/--no-preview", help="Show pictures in small.", rich_help_panel=_TERMINAL)
    ] = True,
    verbose: options.VerboseOption = False,
    *,
    asking: AskingOptions,
) -> None:
    """Talk with a model about pictures. /help lists what can be typed beside questions.

    From a pipe each line is a question, and only the answers go to stdout.
    """
    if go_on and resume is not None:
        raise typer.BadParameter("names another conversation than --continue", param_hint="--resume")
    if prompt_option is not None:
        _refuse_question(prompt_option)
    _check_server_options(url)
    require_stdout()
    words = model_and_pictures or []
    model, pictures = (model_option, words) if model_option else _split_arguments(words)
    for word in pictures:
        if word != STDIN and not Path(word).exists() and not has_picture_name(word):
            _refuse_question(word)
    pictures = [*pictures, *(image or [])]
    if verbose:
        show_library_log()
    from internvl_gguf.cli.chat_terminal import Terminal  # only now: it brings rich with it

    terminal = Terminal.found(STDIN in pictures, plain=plain, preview=preview)
    terminal.screen.progress("Starting", at_once=True)
    try:
        from internvl_gguf.cli.chat_job import (
            ChatJob,
            Server,
            run_chat,
        )  # only now: all that a model needs comes with it
    except KeyboardInterrupt:
        terminal.screen.progress()  # its line would stand before the shell's
        raise
    job = ChatJob(model, pictures, go_on, resume, history, asking, Server(url, api_key) if url else None)
    raise typer.Exit(run_chat(job, terminal))


def _check_server_options(url: str | None) -> None:
    """Refuse options of the command line that mean nothing with --url, or without it."""
    typed = [name for name, source in value_sources.get().items() if source == "COMMANDLINE"]
    with option_errors():
        if not url and "api_key" in typed:
            raise InvalidRequestError("--api-key is for a server, and there is no --url.", "Give both, or neither.")
        flags = {declared.key: declared.flag for declared in options_of(EngineConfig).values()}
        flags |= {name: f"--{name.replace('_', '-')}" for name in _OF_THIS_MACHINE}
        for name in typed:
            if url and name in flags:
                raise InvalidRequestError(
                    f"{flags[name]} says how a model is loaded here, and with --url it is loaded elsewhere.",
                    "Leave it out, and give it where the server is started.",
                )


def _refuse_question(question: str) -> None:
    with option_errors():
        raise InvalidRequestError(
            f"chat takes no question on the command line: {safe_name(question)}",
            "Type it at the prompt, or use ask.",
        )


def _split_arguments(arguments: list[str]) -> tuple[str | None, list[str]]:
    """Return MODEL and PICTUREs; a first argument that is a file or pipe, but no GGUF, is a picture."""
    if not arguments or arguments[0] == STDIN:
        return None, arguments
    first = Path(arguments[0])
    is_file = first.exists() and not first.is_dir() and first.suffix.lower() != ".gguf"
    if is_file or (has_picture_name(arguments[0]) and not options.names_model(arguments[0])):
        return None, arguments
    if " " in arguments[0] and not first.exists():
        _refuse_question(arguments[0])
    return arguments[0], arguments[1:]
