"""The chat from the first line to the last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from internvl_gguf.chat.command_table import find_command, split_command, unknown_command
from internvl_gguf.chat.commands import Leaving, chosen_parts
from internvl_gguf.chat.reader import without_quotes
from internvl_gguf.chat.typed_line import Kind, kind_of, parse_line, typed_path
from internvl_gguf.chat.wording import in_commands, part_line
from internvl_gguf.errors import ContextOverflowError, InternVLError, InvalidRequestError, PictureError
from internvl_gguf.utils.safe_text import safe_name

if TYPE_CHECKING:
    from internvl_gguf.chat.attachments import Attachment
    from internvl_gguf.chat.chat import Chat
    from internvl_gguf.chat.reader import Reader

_OFFERED = 20
"""Parts of a conversation that are offered at once; the oldest come first."""


class Loop:
    """Takes lines until there are none.

    Args:
        chat: what they are for.
        reader: where they come from.

    Attributes:
        failures: lines that could not be done.
    """

    def __init__(self, chat: Chat, reader: Reader) -> None:
        self._chat = chat
        self._reader = reader
        self.failures = 0

    def run(self, text: str = "") -> None:
        """Talk until the person leaves or the script ends.

        Args:
            text: what stands in the line at first.

        Raises:
            LeavingAtOnce: Ctrl-C came twice while an answer was under way.
            KeyboardInterrupt: Ctrl-C ended an answer of a script.
            InvalidRequestError: a script that is not text.
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
            except Leaving:
                return
            if self._reader.is_script and self._chat.was_stopped:
                raise KeyboardInterrupt

    def take(self, line: str) -> str:
        """Do what a line says.

        Returns:
            What the editor begins with next: the line where it is to be corrected.

        Raises:
            Leaving: it says so.
            LeavingAtOnce: Ctrl-C came twice.
        """
        chat = self._chat
        if not line.strip():
            return ""
        waiting = list(chat.pending)
        try:
            command = split_command(line)
            if command is not None and (find_command(command[0]) or not _is_picture(line)):
                return self._command(*command)
            return self._question(without_quotes(line), line, waiting)
        except InternVLError as error:
            chat.screen.progress()
            chat.screen.fail(in_commands(error, has_parts=chat.has_parts))
            self.failures += 1
        except KeyboardInterrupt:  # while a model was loaded, say
            if self._reader.is_script:
                raise
            chat.screen.progress()
            chat.screen.say("Stopped.")
        chat.pending = waiting
        return "" if self._reader.is_script else line

    def _command(self, name: str, argument: str) -> str:
        command = find_command(name)
        if command is None:
            self._chat.screen.say(unknown_command(name))
            self.failures += 1
            return ""
        if argument and not command.arguments:
            raise InvalidRequestError(f"/{command.name} takes nothing after it.", f"Type /{command.name} alone.")
        return command.run(self._chat, argument)

    def _question(self, text: str, line: str, waiting: list[Attachment]) -> str:
        """A question with the pictures named in it; pictures alone wait for one."""
        chat = self._chat
        typed = parse_line(text)
        _refuse_folder(typed.prompt)
        if text == line:  # what stands between triple quotes is meant as it is
            _refuse_nothing(typed.prompt)
        for hint in typed.hints:
            chat.screen.say(f"({hint})")
        chat.add(typed.pictures)
        if not typed.prompt or self._ask(typed.prompt):
            return ""
        chat.pending = waiting
        chat.screen.say("Stopped before there was an answer: nothing was asked.")
        return "" if self._reader.is_script else line

    def _ask(self, prompt: str) -> bool:
        while True:
            try:
                return self._chat.ask(prompt)
            except ContextOverflowError as error:
                if not self._made_room(error):
                    raise

    def _made_room(self, error: ContextOverflowError) -> bool:
        """Offer what to drop of the conversation; whether something was."""
        chat = self._chat
        found = chat.parts()
        if self._reader.is_script or not found:
            return False
        chat.screen.progress()
        chat.screen.say(f"{error.message} {error.needed - error.available:,} positions are missing.")
        chat.screen.show_lines([part_line(at + 1, part) for at, part in enumerate(found[:_OFFERED])])
        while answer := self._reader.choose("What to drop (numbers, or Enter for nothing)?").strip():
            try:
                chat.drop(chosen_parts(found[:_OFFERED], answer))
                return True
            except InvalidRequestError as refused:
                chat.screen.fail(refused)
        return False


def _is_picture(line: str) -> bool:
    """Whether a line that looks like a command begins with a picture's path."""
    return kind_of(typed_path(line.split()[0])) is Kind.PICTURE


def _refuse_folder(prompt: str) -> None:
    """A folder that was dropped alone is no question."""
    if any(slash in prompt for slash in "/\\") and kind_of(typed_path(prompt)) is Kind.FOLDER:
        raise PictureError(f"{safe_name(prompt)} is a folder.", "Name the pictures in it, such as FOLDER/*.jpg.")


def _refuse_nothing(prompt: str) -> None:
    """A line that begins like a command or a path and is neither was mistyped: "/tokns/undo"."""
    first = prompt.split(maxsplit=1)[0] if prompt else ""
    if first.startswith("/") and first.strip("/") and kind_of(typed_path(first)) is Kind.NOTHING:
        raise InvalidRequestError(f"There is no command and no file {safe_name(first)}.", "/help lists the commands.")
