"""The commands there are, and what `internvl --help` says of them, without the libraries of the command line."""

from __future__ import annotations

from typing import Final

COMMANDS: Final = {
    "ask": ("ask", "ask", "Ask one question, about pictures or not."),
    "history": ("history", "app", "Show the conversations that were held, find them, write them to files."),
    "chat": ("chat", "chat", "Talk with a model about pictures."),
    "inspect": ("inspect", "inspect", "Show how pictures are cut, and what they take of the context."),
    "pick": ("pick", "pick", "Rank what fits the memory there is, before a download."),
    "bench": ("bench", "bench", "Measure quants side by side: size, memory, speed, and what they lose."),
    "pull": ("pull", "pull", "Fetch a model, verified: the text model and its vision encoder."),
    "list": ("models", "list_models", "List the models that are on this machine, or in the catalogue."),
    "show": ("models", "show", "Show what a model is, from the headers of its files."),
    "rm": ("models", "rm", "Take a model out of the cache."),
    "quantize": ("quantize", "quantize", "Make other quants of a model, from its BF16 or F16."),
    "cache": ("caches", "app", "Show or clear what is kept on disk."),
    "completion": ("completion", "completion", "Print what completes commands in bash, zsh or fish."),
    "doctor": ("doctor", "doctor", "Check what is installed, and measure this machine."),
}
"""Module, function (or group of commands) and help of each subcommand; what one imports, the others do not wait for."""

COMPLETE: Final = "__complete"
"""First word of what the scripts of `internvl completion` ask."""

_PURPOSE: Final = "Ask InternVL3 about pictures, on your own machine."
_OPTIONS: Final = {"--version": "Print the version.", "-h, --help": "Show this message and exit."}
_WIDEST: Final = 80


def help_text() -> str:
    """What `internvl --help` says, for the width of the terminal."""
    import shutil

    from internvl_gguf.utils.safe_text import broken

    # The last column stays free: some terminals break a line that fills it.
    width = max(min(shutil.get_terminal_size().columns, _WIDEST) - 1, 24)
    lines = ["Usage: internvl [OPTIONS] COMMAND [ARGS]...", "", broken(f"  {_PURPOSE}", width)]
    for title, rows in (("Options", _OPTIONS), ("Commands", {name: text for name, (_, _, text) in COMMANDS.items()})):
        column = max(map(len, rows)) + 4
        lines += ["", f"{title}:"]
        lines += [broken(f"{f'  {name}':<{column}}{text}", width, " " * column) for name, text in rows.items()]
    lines += ["", broken("internvl COMMAND --help says more of each.", width)]
    return "\n".join(lines) + "\n"
