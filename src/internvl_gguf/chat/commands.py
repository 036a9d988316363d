"""The functions of the slash commands. Each takes the chat and the text after its name.

Each returns the text that the editor begins with next.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from internvl_gguf.chat.attachments import grid_text
from internvl_gguf.chat.context_usage import ConversationPart
from internvl_gguf.chat.formatting import columns, in_commands, part_line, summary_row, waiting_pictures
from internvl_gguf.chat.settings import setting_key
from internvl_gguf.chat.shown_pictures import label_of
from internvl_gguf.chat.terminal.clipboard import read_clipboard
from internvl_gguf.chat.typed_line import parse_line, typed_path
from internvl_gguf.errors import InternVLError, InvalidRequestError, PictureError
from internvl_gguf.tiling import has_thumbnail
from internvl_gguf.utils.safe_text import safe_name, safe_text
from internvl_gguf.utils.sizes import counted

if TYPE_CHECKING:
    from internvl_gguf.chat.chat import Chat
    from internvl_gguf.history import Conversation, Entry
    from internvl_gguf.types import MessagePicture

_REGEN_TEMPERATURE = 0.8  # of the model card's sampled examples
_LISTED = 10
_NAMED = 4  # pictures of a resumed conversation; two lines


class LeaveChat(Exception):  # noqa: N818  (nothing went wrong)
    """The user leaves the chat."""


def image(chat: Chat, text: str) -> str:
    """Add pictures by their paths."""
    if not text:
        raise InvalidRequestError("/image needs a path.", "Write /image photo.jpg, or drop the file into the line.")
    typed = parse_line(text)
    typed.refuse_addresses()
    if typed.pictures and typed.prompt:
        raise PictureError(f"{safe_name(typed.prompt)} is no picture.", "Give paths only; quote those with spaces.")
    chat.add(typed.pictures or [typed_path(text)])  # raises an error that says what is wrong with it
    return ""


def paste(chat: Chat, text: str) -> str:
    """Add the picture in the clipboard."""
    chat.add([read_clipboard()], "the picture from the clipboard")
    return ""


def images(chat: Chat, text: str) -> str:
    """List the pictures of the conversation and of the next question, or remove some by number."""
    asked = [part for part in chat.droppable_parts() if part.picture is not None]
    if text:
        numbers = _numbers(text.removeprefix("remove"), len(asked) + len(chat.pending))
        chat.pending = [each for at, each in enumerate(chat.pending) if len(asked) + at + 1 not in numbers]
        chosen = [part for at, part in enumerate(asked) if at + 1 in numbers]
        if chosen:
            chat.drop(chosen)
        chat.screen.say(_with_room(f"{counted(len(numbers), 'picture')} removed", chat))
        return ""
    if not asked and not chat.pending:
        chat.screen.say("No pictures yet: type a path, or drop a file into the line.")
        return ""
    shown = [picture for message in chat.session.messages for picture in message.pictures]
    words = chat.screen.for_screen_reader
    listed = enumerate(zip(asked, shown, strict=True), 1)
    lines = [f"{at:>3}  {_shown_picture(picture, part.tokens, in_words=words)}" for at, (part, picture) in listed]
    lines += [f"{len(asked) + at + 1:>3}  {each.label}: waits for a question" for at, each in enumerate(chat.pending)]
    chat.screen.show_lines(lines)
    return ""


def tiles(chat: Chat, text: str) -> str:
    """Show or set the most tiles of the next pictures."""
    if text:
        chat.settings = chat.settings.changed("max_tiles", text)
    limits = chat.settings.limits(chat.current.tile_range)
    besides = ", not counting the thumbnail" if limits.thumbnail and has_thumbnail(limits.max_tiles) else ""
    which = "The next pictures" if not chat.current.place else "All pictures"  # a server is told with each question
    chat.screen.say(f"{which} are cut into at most {counted(limits.max_tiles, 'tile')}{besides}.")
    for line in chat.describe_pending():
        chat.screen.say(line)
    return ""


def undo(chat: Chat, text: str) -> str:
    """Remove the last question and its answer."""
    asked = chat.undo()
    if asked is None:
        return _nothing_asked(chat)
    waiting = f" {waiting_pictures(len(chat.pending))}." if chat.pending else ""
    chat.screen.say(f"Took back: {safe_name(asked.text)}{waiting}")
    return ""


def regen(chat: Chat, text: str) -> str:
    """Ask the last question again, sampled anew: without sampling the answer would be the same."""
    temperature, usual = None, chat.settings.sampling
    if text:
        temperature = chat.settings.changed("temperature", text).sampling.temperature
    elif usual.best_of == 1 and usual.effective_temperature == 0:
        temperature = _REGEN_TEMPERATURE
    asked = chat.undo()
    if asked is None:
        return _nothing_asked(chat)
    sampling = replace(usual, seed=None)  # another answer is wanted
    if temperature is not None:
        sampling = replace(sampling, temperature=temperature)
        if not text:
            chat.screen.say(f"Asked at temperature {temperature:g}: at 0 the answer would be the same.")
    elif usual.best_of > 1 and usual.temperature is None:
        chat.screen.say(f"Asked with new seeds for the {usual.best_of} answers, at the usual temperatures.")
    pictures = replace(chat.settings.pictures, layout=asked.layout)
    try:
        is_answered = chat.ask(asked.text, replace(chat.settings, sampling=sampling, pictures=pictures))
    except InternVLError as error:
        chat.screen.fail(in_commands(error, has_parts=chat.has_parts))
        is_answered = False
    return "" if is_answered else asked.text


def edit(chat: Chat, text: str) -> str:
    """Put the last question back into the line, and its pictures back to the next question."""
    asked = chat.undo()
    return _nothing_asked(chat) if asked is None else asked.text


def clear(chat: Chat, text: str) -> str:
    """Begin a new conversation."""
    kept = f" The old one is kept: /load {chat.conversation.id}." if _is_kept(chat) else ""
    chat.clear()
    chat.screen.say(f"A new conversation.{kept}")
    return ""


def drop(chat: Chat, text: str) -> str:
    """Drop parts of the conversation by number, or list them."""
    found = chat.droppable_parts()
    if not found:
        chat.screen.say("There are no messages yet.")
    elif text:
        chat.drop(chosen_parts(found, text))
        chat.screen.say(f"{_with_room('Dropped', chat)} The history keeps it.")
    else:
        chat.screen.show_lines([part_line(at + 1, part) for at, part in enumerate(found)])
        chat.screen.say("/drop with numbers, such as /drop 1 3, takes them out of what the model reads.")
    return ""


def chosen_parts(found: Sequence[ConversationPart], text: str) -> list[ConversationPart]:
    """Return parts by their numbers in the list.

    Raises:
        InvalidRequestError: a number that is not in the list.
    """
    numbers = _numbers(text, len(found))
    return [part for at, part in enumerate(found) if at + 1 in numbers]


def system(chat: Chat, text: str) -> str:
    """Show or set the system message."""
    if text:
        known = {"none": "", "default": None}
        chat.conversation.set_system(chat.session, known.get(text.lower(), text))
    chat.screen.say(chat.current.system_line(chat.conversation.system))
    return ""


def set_value(chat: Chat, text: str) -> str:
    """Show the settings, or change one."""
    name, _, value = text.partition(" ")
    if not name:
        chat.screen.show_lines(columns(_setting_rows(chat)))
        return ""
    if value.strip():
        chat.change_settings(chat.settings.changed(name, value))
    key = setting_key(name)
    shown = dict(_setting_rows(chat)).get(key)
    if shown is None:
        chat.settings.changed(name, "")  # raises: there is no such setting
    chat.screen.say(f"{key} is {shown}.")
    return ""


def _setting_rows(chat: Chat) -> list[tuple[str, str]]:
    return chat.settings.rows(chat.current.tile_range, is_elsewhere=bool(chat.current.place))


def model(chat: Chat, text: str) -> str:
    """Change the model or its quant; the conversation stays. Alone, list the models where they are a short list."""
    if text:
        chat.change_model(full_name(chat.model, text))
    elif chat.models.listed is not None:
        chat.screen.show_lines([f"{'*' if name == chat.model else ' '} {name}" for name in chat.models.listed()])
    chat.screen.say(_with_room(f"The model is {chat.short_model}", chat))
    return ""


def full_name(current: str, text: str) -> str:
    """Return the full name of the model that is meant; ":Q8_0" is another quant of the current one."""
    if not text.startswith(":"):
        return text
    if current.lower().endswith(".gguf"):
        return f"{Path(current).parent}{text}"
    return current.partition(":")[0] + text


def show(chat: Chat, text: str) -> str:
    """Show the model, where it runs, and the conversation."""
    conversation = chat.conversation
    rows = [
        *chat.current.facts(),
        ("conversation", conversation.id if chat.history.is_kept else "not kept"),
        ("questions", str(sum(entry.role == "user" for entry in conversation.entries))),
    ]
    if room := _room(chat):
        rows.append(("room", room))
    chat.screen.show_lines(columns([(name, safe_text(value)) for name, value in rows]))
    return ""


def stats(chat: Chat, text: str) -> str:
    """Show the statistics of the last answer."""
    if chat.last_reply is None:
        chat.screen.say("No answer yet.")
    else:
        chat.screen.show_lines(columns(chat.current.statistics(chat.last_reply)))
    return ""


def tokens(chat: Chat, text: str) -> str:
    """Show how the context is used."""
    found = chat.droppable_parts()
    used = chat.current.used((), chat.settings)
    questions = [part.tokens for part in found if part.picture is None]
    known = [tokens for tokens in questions if tokens is not None]
    lines = [part_line(at + 1, part) for at, part in enumerate(found)]
    if used and len(known) == len(questions):  # a server counts nothing before there is a question
        lines.insert(0, f"     system message and template: {counted(used - sum(known), 'token')}")
    chat.screen.show_lines([*lines, *(f"     {each.label} waits for a question" for each in chat.pending)])
    room = _room(chat)
    chat.screen.say(room.capitalize() or "The server does not say how much room there is in the context.")
    return ""


def save(chat: Chat, text: str) -> str:
    """Write the conversation to a file that /load reads."""
    return _write(chat, text, ".json")


def export(chat: Chat, text: str) -> str:
    """Write the conversation for people or programs."""
    return _write(chat, text, ".md")


def load(chat: Chat, text: str) -> str:
    """List the last conversations, or continue one."""
    if not text:
        found = [each for each in chat.history.search(limit=_LISTED) if each.id != chat.conversation.id]
        chat.screen.show_lines(columns([summary_row(each) for each in found]))
        chat.screen.say("/load ID goes on with one." if found else _no_others(chat))
        return ""
    path = typed_path(text)
    is_file = path.suffix == ".json" or path.is_file()
    chat.resume(chat.history.load(path) if is_file else chat.history.find(text))
    return show_resumed(chat)


def bye(chat: Chat, text: str) -> str:
    """Leave."""
    raise LeaveChat


def show_resumed(chat: Chat) -> str:
    """Show the title, size, pictures and last turn of a resumed conversation.

    Returns:
        Its last question if that was never answered, else "".
    """
    conversation = chat.conversation
    asked_so_far = sum(entry.role == "user" for entry in conversation.entries)
    title = safe_name(conversation.title)
    chat.screen.say(f"Going on with {conversation.id}: {title} ({counted(asked_so_far, 'question')}).")
    names = [label_of(picture) for message in chat.session.messages for picture in message.pictures]
    if names:
        chat.screen.say(f"Its pictures: {_listed_names(names)}.")
    for entry in _last_turn(conversation):
        chat.screen.quote(entry.role, entry.text)
    asked = conversation.unanswered
    if asked is None:
        return ""
    chat.add(asked.pictures)
    chat.screen.say("Its last question was never answered; it is in the line again.")
    return asked.text


def _listed_names(names: Sequence[str]) -> str:
    """Return names in a line or two: the first ones, and how many there are besides."""
    shown = ", ".join(safe_name(name, 30) for name in names[:_NAMED])
    return f"{shown} and {len(names) - _NAMED} more; /images lists them" if len(names) > _NAMED else shown


def _last_turn(conversation: Conversation) -> Sequence[Entry]:
    ends = [at for at, entry in enumerate(conversation.entries) if entry.role == "assistant"]
    return conversation.entries[ends[-1] - 1 : ends[-1] + 1] if ends else ()


def _write(chat: Chat, text: str, suffix: str) -> str:
    if not chat.conversation.entries:
        chat.screen.say("There are no messages yet.")
        return ""
    path = typed_path(text) if text else Path(f"chat-{chat.conversation.id}")
    path = path if path.suffix else path.with_name(path.name + suffix)
    written = chat.conversation.export(path)
    folder = chat.conversation.picture_folder(written)
    pictures = f", its pictures to {safe_text(str(folder))}" if folder else ""
    chat.screen.say(f"Written to {safe_text(str(written))}{pictures}.")
    return ""


def _numbers(text: str, most: int) -> set[int]:
    """Parse numbers such as "1 3" or "2-4".

    Raises:
        InvalidRequestError: other words, or numbers that are not in the list.
    """
    found: set[int] = set()
    for word in text.replace(",", " ").split():
        span = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", word)
        numbers = range(int(span[1]), int(span[2] or span[1]) + 1) if span else range(0)
        if not numbers or numbers[0] < 1 or numbers[-1] > most:
            raise InvalidRequestError(f"{safe_name(word)} is not in the list.", f"Give numbers from 1 to {most}.")
        found.update(numbers)
    if not found:
        raise InvalidRequestError("No number was given.", f"Give numbers from 1 to {most}.")
    return found


def _room(chat: Chat) -> str:
    """Return the sentence about the room in the context; "" where a server does not say it."""
    left, n_ctx = chat.left, chat.n_ctx
    return "" if left is None or n_ctx is None else f"{max(left, 0):,} of {counted(n_ctx, 'token')} are free."


def _with_room(text: str, chat: Chat) -> str:
    room = _room(chat)
    return f"{text}; {room}" if room else f"{text}."


def _shown_picture(picture: MessagePicture, tokens: int | None, *, in_words: bool) -> str:
    """Return what /images says about a picture of the conversation: its tiles, or its size where a server cuts it."""
    if not picture.n_tiles or tokens is None:
        width, height = picture.source_size
        return f"{label_of(picture)}: {width} {'by' if in_words else 'x'} {height} pixels"
    cut = grid_text(*picture.grid, has_thumbnail=picture.has_thumbnail, in_words=in_words)
    return f"{label_of(picture)}: {cut}, {counted(tokens, 'token')}"


def _no_others(chat: Chat) -> str:
    return "This is the only conversation so far." if chat.history.is_kept else "This chat keeps no conversations."


def _is_kept(chat: Chat) -> bool:
    return chat.history.is_kept and bool(chat.conversation.entries)


def _nothing_asked(chat: Chat) -> str:
    chat.screen.say("Nothing was asked yet.")
    return ""
