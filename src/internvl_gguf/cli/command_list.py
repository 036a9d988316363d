"""The list of commands and the text of `internvl --help`, without the libraries of the command line."""

from __future__ import annotations

from typing import Final

COMMANDS: Final = {
    "chat": ("chat", "chat", "Talk with a model about pictures."),
    "ask": ("ask", "ask", "Ask one question, about pictures or not."),
    "serve": ("serve", "serve", "Serve a model to other programs, and a page to a browser."),
    "rpc-server": ("rpc_server", "rpc_server", "Offer this machine's devices to a model on another machine."),
    "pick": ("pick", "pick", "See which model and quant suit this machine, before a download."),
    "pull": ("pull", "pull", "Fetch a model, verified: the text model and its vision encoder."),
    "list": ("models", "list_models", "List the models that are on this machine, or in the catalogue."),
    "history": ("history", "app", "List, search and export past chats."),
    "inspect": ("inspect", "inspect", "Show how pictures are cut, and how many tokens they take."),
    "show": ("models", "show", "Show what a model is, from the headers of its files."),
    "rm": ("models", "rm", "Take a model off this machine."),
    "doctor": ("doctor", "doctor", "Check the installation and the GPU, and measure this machine."),
    "bench": ("bench", "bench", "Measure quants side by side: size, memory, speed, and what they lose."),
    "quantize": ("quantize", "quantize", "Make other quants of a model, from its BF16 or F16."),
    "cache": ("caches", "app", "Show or clear what is kept on disk beside models and chats."),
    "completion": ("completion", "completion", "Print what completes commands in bash, zsh or fish."),
}
"""Module, function (or group of commands) and help of each subcommand; what one imports, the others do not wait for."""

COMPLETE: Final = "__complete"
"""First word of what the scripts of `internvl completion` ask."""

_PURPOSE: Final = "Ask InternVL3 about pictures, on your own machine."
_START: Final = (
    ("internvl chat demo PICTURE", "talk with the small model that is inside this package"),
    ("internvl pick", "see which real model suits this machine"),
)
_OPTIONS: Final = {"-V, --version": "Print the version.", "-h, --help": "Show this message and exit."}
_WIDEST: Final = 80


def help_text() -> str:
    """Return the text of `internvl --help`, for the width of the terminal."""
    import shutil

    from internvl_gguf.utils.safe_text import broken

    # The last column stays free: some terminals break a line that fills it.
    width = max(min(shutil.get_terminal_size().columns, _WIDEST) - 1, 24)
    lines = ["Usage: internvl [OPTIONS] COMMAND [ARGS]...", "", broken(f"  {_PURPOSE}", width)]
    column = max(len(command) for command, _ in _START) + 4
    lines += ["", "Start here:"]
    lines += [broken(f"{f'  {command}':<{column}}{text}", width, " " * column) for command, text in _START]
    for title, rows in (("Options", _OPTIONS), ("Commands", {name: text for name, (_, _, text) in COMMANDS.items()})):
        column = max(map(len, rows)) + 4
        lines += ["", f"{title}:"]
        lines += [broken(f"{f'  {name}':<{column}}{text}", width, " " * column) for name, text in rows.items()]
    lines += ["", broken("internvl COMMAND --help says more of each.", width)]
    return "\n".join(lines) + "\n"
