"""`internvl history`: list, search, show, export and remove past chats."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from internvl_gguf.cli import options
from internvl_gguf.cli.help_page import PlainCommand, PlainGroup
from internvl_gguf.cli.options import given
from internvl_gguf.cli.output import bold, columns, confirm, dim, is_terminal, print_json, print_styled, say
from internvl_gguf.errors import HistoryError
from internvl_gguf.history.database import FILE
from internvl_gguf.utils.paths import data_dir
from internvl_gguf.utils.safe_text import broken, cells, clipped, safe_name, safe_text
from internvl_gguf.utils.sizes import format_size

if TYPE_CHECKING:
    from internvl_gguf.history import Conversation, Entry, History, HistoryPicture, Summary

_LIST: Final = "list"
_SHOWN: Final = 20  # conversations of a list that people read
_NARROW: Final = 72  # columns below which a conversation takes two lines
_MODEL: Final = 24

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The conversation's id, or how that begins.")]


class _HistoryGroup(PlainGroup):
    """A group of commands that lists conversations if its first word is not one of its commands."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = [_LIST, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_HistoryGroup,
    add_completion=False,
    subcommand_metavar="[SEARCH]... | COMMAND [ARGS]...",
    help="List past chats; with words, those in which all of them occur.",
)


@app.command(_LIST, cls=PlainCommand)
def list_conversations(
    search: Annotated[
        list[str] | None,
        typer.Argument(metavar="SEARCH", help="Words that occur in it, or in a picture's name.", show_default=False),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            "-n",
            min=1,
            help=f"Most conversations; {_SHOWN} if left out, all with --json.",
            show_default=False,
        ),
    ] = None,
    json_output: options.JSONOption = False,
) -> None:
    """List conversations, the newest first. This is what `internvl history` does by itself."""  # fmt: skip
    text = " ".join(search or ())
    with _open() as history:
        found = history.search(text)
        shown = found[: limit or (len(found) if json_output else _SHOWN)]
        if json_output:
            print_json([_as_json(summary) for summary in shown])
            return
        for line in _table(shown, text.split(), max(columns() - 1, 20)):
            print_styled(line)
        say(_footer(history, text, len(found), len(shown)))


@app.command(cls=PlainCommand)
def show(conversation: IdArgument, json_output: options.JSONOption = False) -> None:
    """Show what was said in a conversation."""
    from internvl_gguf.history.json_export import conversation_as_json

    with _open() as history:
        found = history.find(conversation)
    if json_output:
        print_json(conversation_as_json(found.heading, found.entries))
        return
    print_styled("\n\n".join(_told(found)))


@app.command(cls=PlainCommand)
def export(
    conversation: IdArgument,
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="Markdown (.md), or JSON (.json) for /load of a chat.", show_default=False),
    ] = None,
    to: Annotated[Path | None, given("FILE", "The same as FILE behind the id.", None, "--output", "-o")] = None,
    copy_pictures: Annotated[
        bool,
        typer.Option(
            "--pictures/--no-pictures",
            help="Put the pictures beside the .md, or into the .json; else the .md links to where they were.",
        ),
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is something else.")] = False,
) -> None:
    """Write a conversation to a file."""
    named = {each for each in (file, to) if each is not None}
    if len(named) != 1:
        raise typer.BadParameter("name one file, such as talk.md", param_hint="FILE")
    with _open() as history:
        found = history.find(conversation)
        written = found.export(named.pop(), copy_pictures=copy_pictures, overwrite=force)
        folder = found.picture_folder(written) if copy_pictures else None
        say(f"Wrote {written}{f', its pictures to {folder}' if folder else ''}.")


@app.command(cls=PlainCommand)
def rm(
    conversations: Annotated[
        list[str] | None, typer.Argument(metavar="ID", help="Their ids, or how those begin.", show_default=False)
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All conversations, and the lines typed.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove conversations, with the pictures that no other one shows."""
    if everything == bool(conversations):
        raise typer.BadParameter("name conversations, or give --all", param_hint="ID")
    with _open() as history:
        if everything:
            doomed = {summary.id: safe_name(summary.title) for summary in history.search()}
        else:
            found = [history.find(each) for each in conversations or ()]
            doomed = {each.id: safe_name(each.title) for each in found}
        if not doomed:
            history.forget(())  # pictures of questions that were taken back
            say("There are no conversations.")
            return
        if not yes:
            (first, title), *rest = doomed.items()
            what = f"all {_count(len(doomed), 'conversation')}" if everything else ", ".join(doomed)
            what = what if rest else f"{first} ({title})"
            confirm(f"Remove {what}?")
        removed = history.forget(list(doomed))
    typed = _forget_typed_lines() if everything else ""
    say(f"Removed {_count(removed, 'conversation')}{typed}.")


def _forget_typed_lines() -> str:
    """Remove the lines that the chat's editor remembers, and return the message about it."""
    from internvl_gguf.chat.editor import HISTORY_FILE

    file = data_dir() / HISTORY_FILE
    if not file.exists():
        return ""
    try:
        file.unlink()
    except OSError as error:
        raise HistoryError(
            f"{file} cannot be removed: {error.strerror or error}.", "Check whose the folder is."
        ) from error
    return " and the lines that were typed"


def _open() -> History:
    """Open the history; if there is none yet, none is created."""
    from internvl_gguf.history import History

    if (data_dir() / FILE).exists():
        return History.open(on_notice=say)
    return History.forgetful()


def _as_json(summary: Summary) -> dict[str, Any]:
    from internvl_gguf.history.json_export import utc

    found = {
        "id": summary.id,
        "title": summary.title,
        "model": summary.model,
        "created": utc(summary.created),
        "updated": utc(summary.updated),
        "questions": summary.questions,
        "pictures": summary.pictures,
    }
    return found | ({"excerpt": summary.excerpt} if summary.excerpt else {})


def _table(summaries: list[Summary], words: list[str], width: int) -> Iterator[str]:
    """Return conversations as lines of at most `width` cells, with the text found if it is not in the title."""
    if not summaries:
        return
    names = {summary.model: clipped(_model_name(summary.model), _MODEL) for summary in summaries}
    column = max(cells(name) for name in (*names.values(), "MODEL"))
    if width >= _NARROW:
        head = f"{'ID':<6}  {'LAST':<16}  {'MODEL':<{column}}  ASKED  TITLE"
        yield bold(head)
    for summary in summaries:
        when, title = _local(summary.updated), safe_text(summary.title)
        if width >= _NARROW:
            name = names[summary.model]
            start = f"{summary.id:<6}  {when}  {name}{' ' * (column - cells(name))}  {summary.questions:>5}  "
            yield start + clipped(title, width - cells(start))
        else:
            about = f"{summary.id:<6}  {when}  {names[summary.model]}, {_count(summary.questions, 'question')}"
            yield clipped(about, width)
            yield f"  {clipped(title, width - 2)}"
        if summary.excerpt and not all(word.casefold() in title.casefold() for word in words):
            yield dim(clipped(safe_text(f"  {summary.excerpt}"), width))


def _footer(history: History, text: str, found: int, shown: int) -> str:
    if not found:
        return (
            f"No conversation has {safe_name(text)!r}." if text else "No conversations yet: `internvl chat` begins one."
        )
    n_pictures, picture_bytes = history.pictures.size()
    n_states, state_bytes = history.states.size()
    parts = [
        f"{shown:,} of {_count(found, 'conversation')} (--limit)" if shown < found else _count(found, "conversation")
    ]
    if n_pictures:
        parts.append(f"{_count(n_pictures, 'picture')} ({format_size(picture_bytes)})")
    if n_states:
        parts.append(f"{_count(n_states, 'saved state')} ({format_size(state_bytes)})")
    return f"{', '.join(parts)} in {history.folder}"


def _told(conversation: Conversation) -> Iterator[str]:
    """Return a conversation as paragraphs."""

    def heading(text: str) -> str:
        return bold(safe_name(text))

    yield f"{heading(conversation.title)}\n{conversation.id}, {_local(conversation.created)}"
    if conversation.system:
        yield f"{heading('System')}\n{safe_text(conversation.system)}"
    for entry in conversation.entries:
        name = "You" if entry.role == "user" else _model_name(entry.model or conversation.model)
        yield "\n".join([heading(name), *map(_picture_line, entry.pictures), *_said(entry)])
    if conversation.unanswered:
        yield "(There is no answer: the chat ended before.)"


def _said(entry: Entry) -> list[str]:
    # In a pipe a line has room for whole paragraphs, as they were said.
    lines = safe_text(entry.text).split("\n") if entry.text else []
    return [broken(line, columns()) if is_terminal() else line for line in lines]


def _picture_line(picture: HistoryPicture) -> str:
    tiles = f": {_count(picture.cut.tiles, 'tile')}" if picture.cut else ""
    return f"[{safe_name(picture.name)}{tiles}]"


def _model_name(model: str) -> str:
    """Return a model's name as lists show it: the last part of a path."""
    return safe_name(Path(model).name if model.lower().endswith(".gguf") else model)


def _count(number: int, one: str) -> str:
    return f"{number:,} {one}{'' if number == 1 else 's'}"


def _local(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")
