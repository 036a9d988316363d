"""The main loop of the chat: reads lines, runs commands, asks questions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from internvl_gguf.chat.command_table import find_command, split_command, unknown_command
from internvl_gguf.chat.commands import LeaveChat, chosen_parts
from internvl_gguf.chat.formatting import in_commands, part_line, waiting_pictures
from internvl_gguf.chat.reader import without_quotes
from internvl_gguf.chat.show_answer import LeaveChatAtOnce
from internvl_gguf.chat.typed_line import PathKind, TypedLine, parse_line, path_kind, typed_path
from internvl_gguf.errors import ContextOverflowError, InternVLError, InvalidRequestError, PictureError
from internvl_gguf.utils.safe_text import safe_name

if TYPE_CHECKING:
    from internvl_gguf.chat.attachments import Attachment
    from internvl_gguf.chat.chat import Chat
    from internvl_gguf.chat.reader import Reader

_OFFERED = 20
"""Most parts of a conversation that are offered to be dropped; the oldest come first."""
_NOTHING_ASKED = "Stopped before there was an answer: nothing was asked."
_NOTHING_ADDED = "Stopped: nothing was added."


class Loop:
    """Reads and executes lines until the user leaves or the input ends.

    Args:
        chat: the chat.
        reader: reads the lines.

    Attributes:
        failures: number of lines that failed.
    """

    def __init__(self, chat: Chat, reader: Reader) -> None:
        self._chat = chat
        self._reader = reader
        self.failures = 0

    def run(self, text: str = "") -> None:
        """Run until the user leaves or the script ends.

        Args:
            text: initial text of the first line.

        Raises:
            LeaveChatAtOnce: Ctrl-C was pressed twice during an answer.
            KeyboardInterrupt: Ctrl-C ended an answer of a script.
            InvalidRequestError: the script is not text.
        """
        interrupts = 0
        while True:
            try:
                line = self._reader.read(text, len(self._chat.pending))
            except EOFError:
                return
            except KeyboardInterrupt:
                interrupts += 1
                if interrupts > 1 or self._chat.was_stopped:
                    return
                text = ""
                self._chat.screen.say("Ctrl-C again or Ctrl-D leaves; /help lists the commands.")
                continue
            interrupts = 0
            self._chat.was_stopped = False
            try:
                text = self.take(line)
            except LeaveChat:
                return
            if self._reader.is_script and self._chat.was_stopped:
                raise KeyboardInterrupt

    def take(self, line: str) -> str:
        """Execute one line.

        Returns:
            The text that the editor begins with next: a question that the user has to correct. A command that failed
            is left to the Up key: the next line is seldom the same command.

        Raises:
            LeaveChat: the line is /bye.
            LeaveChatAtOnce: Ctrl-C was pressed twice.
        """
        chat = self._chat
        if not line.strip():
            return ""
        waiting = list(chat.pending)
        command = split_command(line)
        if command is not None and find_command(command[0]) is None and _is_picture(line):
            command = None
        if self._reader.is_script:
            chat.screen.say(f"> {line}")  # beside the answers, to tell which is whose
        try:
            if command is not None:
                return self._command(*command)
            return self._question(without_quotes(line), line, waiting)
        except InternVLError as error:
            chat.screen.progress()
            chat.screen.fail(in_commands(error, has_parts=chat.has_parts, has_clip=chat.has_clip))
            self.failures += 1
            if self._reader.is_script and command is None:  # nobody mends the line; its pictures were "Added"
                self._say_waiting(len(chat.pending) - len(waiting))
                return ""
        except KeyboardInterrupt:  # for example, while a model was loaded
            if self._reader.is_script:
                raise
            if chat.was_stopped:  # a second time, after the answer that the first one ended
                raise LeaveChatAtOnce from None
            chat.screen.progress()
            if command is None:
                self._say_stopped(_NOTHING_ASKED)
            else:
                chat.screen.say("Stopped.")
        chat.pending = waiting
        return "" if self._reader.is_script or command is not None else line

    def _command(self, name: str, argument: str) -> str:
        command = find_command(name)
        if command is None:
            self._chat.screen.say(unknown_command(name))
            self.failures += 1
            return ""
        if argument and not command.arguments:
            raise InvalidRequestError(f"/{command.name} takes nothing after it.", f"Type /{command.name} alone.")
        text = command.run(self._chat, argument)
        if text and self._chat.was_stopped:
            self._say_stopped(_NOTHING_ASKED)
        return text

    def _question(self, text: str, line: str, waiting: list[Attachment]) -> str:
        """Ask a question with the pictures named in it; pictures alone are added to the next question."""
        chat = self._chat
        is_checked = text == line  # text between triple quotes is not checked for typing errors
        typed = parse_line(text, chat.known_pictures, missing_is_text=not is_checked)
        _refuse_folder(typed.prompt)
        if is_checked:
            _refuse_nothing(typed.prompt)
        try:
            if is_checked:
                typed.refuse_addresses()
            for hint in typed.hints:
                chat.screen.show_lines([f"  ({hint})"])
            prompt = typed.question(*chat.add_named(typed.pictures))
        except PictureError as error:
            raise PictureError(error.message, error.hint + _as_text(typed)) from None
        except KeyboardInterrupt:
            if typed.prompt or self._reader.is_script:
                raise
            chat.screen.progress()
            stopped = _NOTHING_ADDED
        else:
            if not prompt or self._ask(prompt):
                return ""
            stopped = _NOTHING_ASKED
        chat.pending = waiting
        self._say_stopped(stopped)
        return "" if self._reader.is_script else line

    def _say_waiting(self, added: int) -> None:
        """Say that pictures that a question had added wait for the next one."""
        if added:
            self._chat.screen.say(f"{waiting_pictures(added)}; /images remove takes out what is not wanted.")

    def _say_stopped(self, what: str) -> None:
        """Say that Ctrl-C stopped a line, and that the editor begins with it: people type the next one behind it."""
        self._chat.screen.say(what if self._reader.is_script else f"{what} It is in the line again.")

    def _ask(self, prompt: str) -> bool:
        while True:
            try:
                return self._chat.ask(prompt)
            except ContextOverflowError as error:
                if not self._made_room(error):
                    raise

    def _made_room(self, error: ContextOverflowError) -> bool:
        """Ask the user which parts of the conversation to drop; return whether some were dropped."""
        chat = self._chat
        found = chat.droppable_parts()
        if self._reader.is_script or not found:
            return False
        chat.screen.progress()
        chat.screen.say(f"{error.message} {error.needed - error.available:,} tokens are missing.")
        chat.screen.show_lines([part_line(at + 1, part) for at, part in enumerate(found[:_OFFERED])])
        while answer := self._reader.choose("What to drop (numbers, or Enter for nothing)?").strip():
            try:
                chat.drop(chosen_parts(found[:_OFFERED], answer))
                return True
            except InvalidRequestError as refused:
                chat.screen.fail(refused)
        return False


def _is_picture(line: str) -> bool:
    """Return whether a line that looks like a command begins with a picture's path."""
    return path_kind(typed_path(line.split()[0])) is PathKind.PICTURE


def _as_text(typed: TypedLine) -> str:
    """Return the advice for a line whose pictures cannot be had but may be meant as text; else ""."""
    is_missing = any(path_kind(path) is PathKind.NOTHING for path in typed.pictures)
    what = "an address" if typed.addresses else "a name" if is_missing else ""
    return f' Between """ and """ {what} stays text.' if what else ""


def _refuse_folder(prompt: str) -> None:
    """Refuse a line that is only a folder."""
    if any(slash in prompt for slash in "/\\") and path_kind(typed_path(prompt)) is PathKind.FOLDER:
        raise PictureError(f"{safe_name(prompt)} is a folder.", "Name the pictures in it, such as FOLDER/*.jpg.")


def _refuse_nothing(prompt: str) -> None:
    """Refuse a line that begins like a command or a path and is neither, a typing error such as "/tokns/undo"."""
    first = prompt.split(maxsplit=1)[0] if prompt else ""
    if first.startswith("/") and first.strip("/") and path_kind(typed_path(first)) is PathKind.NOTHING:
        raise InvalidRequestError(f"There is no command and no file {safe_name(first)}.", "/help lists the commands.")
