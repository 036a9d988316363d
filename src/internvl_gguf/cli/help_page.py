"""The page that `--help` of a command prints: names of options are never cut, at any width of the terminal."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from typing import Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

from internvl_gguf.cli.parameters import value_sources
from internvl_gguf.utils.safe_text import broken

_WIDEST: Final = 100
_NARROW: Final = 72  # columns below which what an option does stands below its names
_COLUMN: Final = 30
_FURTHER_IN: Final = 6
_PIECE: Final = re.compile(r"[^ |]*(?:\| ?|, | / | |$)")
_VALUES: Final = {"int": "N", "int range": "N", "float": "NUMBER", "str": "TEXT", "list[str]": "TEXT", "path": "FILE"}
"""Words for the types of values, which the library names as Python does."""
_VALUE: Final = re.compile(r"<([^<>]+)>")
_BETWEEN: Final = re.compile(r"([\d.]+)<=x<=([\d.]+)(?=\])")
_FREE_TEXT: Final = frozenset(("--prompt", "--system", "--choices", "--regex"))
"""Options whose value may look like anything, also like the name of an option."""
_AT_LEAST: Final = re.compile(r"x>=(\d+)(?:\.0)?(?=\])")


class PlainCommand(TyperCommand):
    """A command with such a page. Its options know where their values came from."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Read the arguments.

        Raises:
            typer.BadParameter: a switch is turned on and off: which of both counts should not hang on their order. Or
                the value of an option is missing, so that the next option was taken for it.
        """
        self._refuse_names_as_values(ctx, args)
        for each in self.params:
            on, off = (set(args).intersection(names) for names in (each.opts, each.secondary_opts))
            # One of both may be the value of another option: the parser knows how often this one was given.
            if on and off and self.make_parser(ctx).parse_args(list(args))[2].count(each) > 1:
                raise typer.BadParameter(f"give {min(on)} or {min(off)}, not both", ctx, param_hint=min(on))
        return super().parse_args(ctx, args)

    def _refuse_names_as_values(self, ctx: Any, args: list[str]) -> None:
        """Refuse values that are names of options: of `--batch -o answers.csv` the parser takes -o for the value."""
        options = [each for each in self.get_params(ctx) if each.param_type_name == "option"]
        names = {name for each in options for name in (*each.opts, *each.secondary_opts)}
        values = {} if ctx.resilient_parsing else self.make_parser(ctx).parse_args(list(args))[0]
        for each in options:
            if not _FREE_TEXT.isdisjoint(each.opts):
                continue
            given = values.get(each.name)
            for value in given if isinstance(given, list | tuple) else [given]:
                if isinstance(value, str) and " " not in value and value.partition("=")[0] in names:
                    name = max(each.opts, key=len)
                    raise typer.BadParameter(f"its value is missing: behind it comes {value}", ctx, param_hint=name)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        sources = {name: ctx.get_parameter_source(name) for name in ctx.params}
        value_sources.set({name: source.name for name, source in sources.items() if source})
        return super().invoke(ctx)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the page."""
        formatter.write(_page(self, ctx))


class PlainGroup(TyperGroup):
    """A group of commands with such a page."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the page."""
        formatter.write(_page(self, ctx))


def _page(command: Any, ctx: Any) -> str:
    # The last column stays free: some terminals break a line that fills it.
    width = max(min(shutil.get_terminal_size().columns, _WIDEST) - 1, 24)
    lines = [broken(f"Usage: {' '.join([ctx.command_path, *_usage(command, ctx)])}", width, " " * _FURTHER_IN)]
    for paragraph in re.split(r"\n\s*\n", (command.help or "").strip()):
        lines += ["", broken(f"  {' '.join(paragraph.split())}", width)]
    for title, rows in _sections(command, ctx).items():
        lines += ["", f"{title}:", *(line for names, about in rows for line in _row(names, about, width))]
    if command.epilog:
        lines += ["", broken(command.epilog, width)]
    return "\n".join(lines)


def _usage(command: Any, ctx: Any) -> Iterator[str]:
    for piece in command.collect_usage_pieces(ctx):
        # The library writes an argument that must be there as {name}.
        name = piece.strip("{}") if "|" not in piece else piece
        yield name.upper() if name.strip("[].").isidentifier() else name


def _sections(command: Any, ctx: Any) -> dict[str, list[tuple[str, str]]]:
    """Return the rows of each part of the page: names, and what they do."""
    found: dict[str, list[tuple[str, str]]] = {}
    for each in command.get_params(ctx):
        if (record := each.get_help_record(ctx)) is not None:
            is_argument = each.param_type_name == "argument"
            panel = "Arguments" if is_argument else getattr(each, "rich_help_panel", None) or "Options"
            names = _argument(each) if is_argument else _VALUE.sub(lambda type_: _value(type_[1]), record[0])
            about = _plain_bounds(record[1].removesuffix("  [required]").replace("  [", " ["))
            found.setdefault(panel, []).append((names, about))
    for name, each in getattr(command, "commands", {}).items():
        found.setdefault("Commands", []).append((name, " ".join((each.help or "").split("\n\n")[0].split())))
    first = [title for title in ("Arguments", "Options") if title in found]
    return {title: found[title] for title in dict.fromkeys([*first, *found])}


def _plain_bounds(about: str) -> str:
    """Return what an option does with its bounds in words; the library writes them as `x>=1`."""
    return _AT_LEAST.sub(r"at least \1", _BETWEEN.sub(r"\1 to \2", about))


def _argument(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper())


def _value(type_: str) -> str:
    return _VALUES.get(type_, type_)


def _row(names: str, about: str, width: int) -> Iterator[str]:
    """Yield the lines of an option: side by side, or what it does below names that leave it no room."""
    column = _COLUMN if width >= _NARROW else _FURTHER_IN
    if len(names) + 4 <= column and about:
        yield broken(f"{f'  {names}':<{column}}{about}", width, " " * column)
        return
    yield from _broken_names(names, width)
    if about:
        yield broken(f"{' ' * column}{about}", width, " " * column)


def _broken_names(names: str, width: int) -> Iterator[str]:
    """Yield names as lines that end after a name, at a comma, or between the values to choose from."""
    line = "  "
    for piece in _PIECE.findall(names):
        if len(line) + len(piece.rstrip()) > width:
            yield line.rstrip()
            line = " " * _FURTHER_IN
        line += piece
    yield line.rstrip()
