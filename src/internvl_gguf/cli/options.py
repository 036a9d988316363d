"""Options that several commands share. Defaults are read from the classes that own them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Annotated, Any

import typer

from internvl_gguf.cli.output import say
from internvl_gguf.cli.parameters import VARIABLES
from internvl_gguf.cli.settings_file import wanted_model
from internvl_gguf.config import EngineConfig, PictureOptions
from internvl_gguf.models.names import DEMO
from internvl_gguf.utils.rpc_addresses import check_reach, parse_servers

MODEL_VARIABLE = f"{VARIABLES}_MODEL"


def _shared(variable: str, *names: str, **more: Any) -> Any:
    """Return an option that the variable INTERNVL_ and its name sets for every command that has it."""
    return typer.Option(*names, envvar=f"{VARIABLES}_{variable}", show_envvar=False, **more)


def given(metavar: str | None, help_text: str, panel: str | None, *names: str, **more: Any) -> Any:
    """Return an option that has no default to show, since it counts only if it is given."""
    return typer.Option(*names, metavar=metavar, help=help_text, show_default=False, rich_help_panel=panel, **more)


ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="A model's name, owner/repo:QUANT, a .gguf path or `demo`.",
        envvar=MODEL_VARIABLE,
        show_envvar=True,
    ),
]
ModelFlag = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", metavar="MODEL", help="The model, as MODEL.", show_default=False, allow_from_autoenv=False
    ),
]
MmprojOption = Annotated[
    str | None,
    _shared(
        "MMPROJ",
        metavar="FILE|PRECISION",
        help="The vision encoder's .gguf, or a precision such as BF16; the one that suits this machine if left out.",
        show_default=False,
        rich_help_panel=EngineConfig.PANEL,
    ),
]
WorkerTimeoutOption = Annotated[
    float,
    _shared(
        "WORKER_TIMEOUT",
        "--worker-timeout",
        metavar="SECONDS",
        help="Chat, --batch and serve run the model in a process of its own; one that gives no sign of life for so "
        "long is ended and started again. 0 waits for ever.",
        rich_help_panel=EngineConfig.PANEL,
    ),
]


def rpc_option(help_text: str, panel: str | None = None) -> Any:
    """Return the option that names RPC servers, with what a command does with them."""
    return _shared(
        "RPC",
        "--rpc",
        metavar="HOST:PORT[,HOST:PORT]...",
        help=help_text,
        show_default=False,
        rich_help_panel=panel,
    )


def insecure_network_option(panel: str | None = None) -> Any:
    """Return the option that lets RPC servers be of other machines."""
    return _shared(
        "RPC_INSECURE_NETWORK", "--rpc-insecure-network", help="Let --rpc name other machines.", rich_help_panel=panel
    )


RPCOption = Annotated[str | None, rpc_option("Ask llama.cpp's RPC servers, too, what they have.")]
InsecureNetworkOption = Annotated[bool, insecure_network_option()]
SystemOption = Annotated[
    str | None,
    _shared(
        "SYSTEM",
        help="System message instead of the official one, which is in Chinese; '' for none. It does not set the "
        "language of answers: name that in the question where it matters.",
        show_default=False,
    ),
]
NoCacheOption = Annotated[
    bool,
    typer.Option(
        "--no-cache",
        help="Neither read nor keep encoded pictures on disk.",
        envvar="INTERNVL_NO_CACHE",
        show_envvar=True,
        rich_help_panel=PictureOptions.PANEL,
    ),
]
JSONOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", "-vv", help="Show llama.cpp's log on stderr.")]


def rpc_servers(rpc: str | None, is_insecure_allowed: bool) -> tuple[str, ...]:
    """Return the addresses of the RPC servers that were named.

    Raises:
        InvalidRequestError: one that is none, or of another machine.
    """
    found = parse_servers("--rpc", [rpc] if rpc else [])
    check_reach(found, is_insecure_allowed=is_insecure_allowed)
    return found


def chosen_model(model: str | None, tell: Callable[[str], None] = say) -> str:
    """Return the model asked for, else INTERNVL_MODEL, else that of config.toml, else the demo model with a notice.

    Args:
        model: the one asked for.
        tell: called with that line.

    Raises:
        InvalidRequestError: config.toml cannot be used.
    """
    if model:
        return model
    named = os.environ.get(MODEL_VARIABLE) or wanted_model()
    if named:
        return named
    tell(f"No model given: using `{DEMO}`, a toy that knows shapes, colours and printed letters. {_others_here()}")
    return DEMO


def _others_here() -> str:
    """Return the hint to name another model than the demo model; it names a local one if there is one."""
    from internvl_gguf.models.suggest import cached_repos

    here = next(iter(cached_repos()), None)
    return f"Name another, or set {MODEL_VARIABLE}{f'; {here} is here' if here else ''}."


def names_model(text: str) -> bool:
    """Return whether a single argument is a model rather than a picture or a question of one word."""
    from internvl_gguf.chat.typed_line import has_picture_name
    from internvl_gguf.models.catalog import load_catalog

    if has_picture_name(text):
        return False
    if text == DEMO or text.lower().endswith(".gguf"):
        return True
    head = text.partition(":")[0]
    return head.count("/") == 1 or load_catalog().find(head) is not None
