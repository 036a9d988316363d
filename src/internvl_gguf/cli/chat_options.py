"""The options that `internvl chat` alone has."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from internvl_gguf.cli.options import MODEL_VARIABLE
from internvl_gguf.cli.parameters import VARIABLES

_SERVER: Final = "A model elsewhere"
_CONVERSATION: Final = "Conversations"
_TERMINAL: Final = "The terminal"
_KEY_VARIABLE: Final = f"{VARIABLES}_API_KEY"

WordsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="MODEL|PICTURE",
        help="The model (a name with :QUANT, owner/repo:QUANT, a .gguf path or `demo`; "
        f"{MODEL_VARIABLE} if left out), and pictures and clips for the first question; - is one on stdin.",
        show_default=False,
    ),
]
ImageOption = Annotated[
    list[str] | None,
    typer.Option(
        "--image",
        "-i",
        metavar="FILE",
        help="A picture or a clip for the first question, as PICTURE; may be repeated.",
        show_default=False,
        allow_from_autoenv=False,
    ),
]
QuestionOption = Annotated[
    str | None, typer.Option("--prompt", "-p", hidden=True, show_default=False, allow_from_autoenv=False)
]
URLOption = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Talk with a model of this OpenAI-compatible server, as `internvl serve` is one: http://HOST:PORT. "
        "MODEL is then one that it lists; its first if left out.",
        show_default=False,
        rich_help_panel=_SERVER,
    ),
]
KeyOption = Annotated[
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
]
ContinueOption = Annotated[
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
]
ResumeOption = Annotated[
    str | None,
    typer.Option(
        metavar="ID",
        help="Go on with one that `internvl history` lists.",
        show_default=False,
        allow_from_autoenv=False,
        rich_help_panel=_CONVERSATION,
    ),
]
HistoryOption = Annotated[
    bool, typer.Option("--history/--no-history", help="Keep the conversation.", rich_help_panel=_CONVERSATION)
]
PlainOption = Annotated[
    bool,
    typer.Option(
        "--plain",
        help="Redraw nothing, and say words for symbols: for screen readers.",
        rich_help_panel=_TERMINAL,
    ),
]
PreviewOption = Annotated[
    bool, typer.Option("--preview/--no-preview", help="Show pictures in small.", rich_help_panel=_TERMINAL)
]
