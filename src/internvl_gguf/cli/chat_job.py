"""Start a chat from a command line: open the model, the history and the terminal, and close them at the end."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

from internvl_gguf.chat.background_thread import BackgroundThread
from internvl_gguf.chat.chat import Chat
from internvl_gguf.chat.chat_model import FoundModel, Models
from internvl_gguf.chat.commands import show_resumed
from internvl_gguf.chat.local_model import LocalModel
from internvl_gguf.chat.loop import Loop
from internvl_gguf.chat.settings import Settings
from internvl_gguf.chat.show_answer import LeaveChatAtOnce, NoticeLine
from internvl_gguf.chat.suggestions import Sources
from internvl_gguf.cli import options
from internvl_gguf.cli.asking_options import AskingOptions
from internvl_gguf.cli.downloads import full_name, obtain
from internvl_gguf.cli.judges import LoadedJudge, check_judge, find_judge
from internvl_gguf.cli.output import flush
from internvl_gguf.cli.parameters import in_flags, value_sources
from internvl_gguf.cli.run import FAILED, INTERRUPTED
from internvl_gguf.cli.stdin import STDIN
from internvl_gguf.config import EngineConfig, PictureOptions, SamplingParams
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.history import History
from internvl_gguf.session.thinking import cannot_think, refuse_without_thoughts
from internvl_gguf.utils.paths import data_dir
from internvl_gguf.utils.safe_text import safe_name
from internvl_gguf.video.clip_wishes import ClipWishes

if TYPE_CHECKING:
    from internvl_gguf.chat.chat_model import ChatModel
    from internvl_gguf.chat.terminal.screen import Screen
    from internvl_gguf.cli.chat_terminal import Terminal
    from internvl_gguf.critics import Critic
    from internvl_gguf.history import Conversation
    from internvl_gguf.models.local_files import ModelFiles
    from internvl_gguf.types import Picture, Video
    from internvl_gguf.utils.notices import Notice

_LISTED = 20
_CLIP_ON_STDIN = "the clip on stdin"
_GIVEN = ("COMMANDLINE", "ENVIRONMENT", "DEFAULT_MAP")
"""Where a value of an option comes from that is not its default."""


@dataclass(frozen=True)
class Server:
    """A server that has the model of a chat.

    Attributes:
        url: its address.
        api_key: the key that it asks for, if any.
    """

    url: str
    api_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class ChatJob:
    """The request given to `internvl chat`.

    Attributes:
        model: the model's name; None where none was given.
        pictures: of the first question, clips among them; "-" for stdin.
        videos: clips of the first question, animations among them; "-" for stdin.
        wishes: which frames of these clips are shown.
        go_on: whether to go on with the last conversation.
        resume: the conversation to go on with, by its id.
        is_kept: whether the conversation is kept.
        asking: how the model is loaded and asked.
        server: the server that has the model; None for a model on this machine.
    """

    model: str | None
    pictures: list[str]
    videos: list[str]
    wishes: ClipWishes
    go_on: bool
    resume: str | None
    is_kept: bool
    asking: AskingOptions
    server: Server | None = None


def run_chat(job: ChatJob, terminal: Terminal) -> int:
    """Hold the conversation; returns the exit code."""
    try:
        with terminal.without_echo():
            return _hold(job, terminal)
    except LeaveChatAtOnce:
        terminal.screen.say()
        flush()
        # A native call may be under way in the worker, and nothing may be freed beneath it. What was said is kept.
        os._exit(INTERRUPTED)
    except BaseException:
        with contextlib.suppress(OSError):  # the reader of stdout has left, say
            terminal.screen.progress()
        raise


def _hold(job: ChatJob, terminal: Terminal) -> int:
    worker, screen = BackgroundThread(), terminal.screen

    def notice(line: str) -> None:
        line = in_flags(line, EngineConfig)  # what cuts pictures is called as /set does
        if not worker.post(NoticeLine(line)):
            screen.say(line)

    pictures = _first_pictures(job, terminal)  # before a model of gigabytes is fetched for nothing
    history = History.open_or_forget(on_notice=notice) if job.is_kept else History.forgetful(on_notice=notice)
    conversation = _wanted(job, history)
    judges = LoadedJudge(lambda name: _load_critic(job, name, screen, notice))
    if job.server:
        models, found = _served(job, conversation, screen, notice)
    else:
        models, found = _local(job, conversation, screen, notice, judges)
    current = found.open()
    screen.progress()
    if job.asking.sampling.thinks and current.can_think is False:  # of a server; one here was asked before it loaded
        current.session.close()
        raise cannot_think(found.name)
    resumed = conversation is not None
    if conversation is None:
        conversation = history.begin(found.name, job.asking.system)
        conversation.continue_in(current.session)
    chat = Chat(models, found, current, history, conversation, _settings(job), worker, screen)
    sources = Sources(
        lambda: [(each.id, safe_name(each.title)) for each in history.search(limit=_LISTED)],
        lambda: chat.model,
        models.known,
    )
    try:
        loop = Loop(chat, terminal.reader(sources, data_dir() if history.is_kept else None))
        code = _talk(job, terminal, chat, loop, pictures, resumed=resumed)
    except LeaveChatAtOnce:
        raise
    except BaseException:
        chat.close()
        judges.close()
        raise
    judges.close()
    return code


def _first_pictures(job: ChatJob, terminal: Terminal) -> list[Picture | Video]:
    """Return the pictures and clips of the first question.

    Raises:
        PictureError: one that cannot be read.
    """
    from internvl_gguf.chat.clips import clip_of
    from internvl_gguf.cli.given_pictures import GivenPictures, check_clip
    from internvl_gguf.images.load import take_source
    from internvl_gguf.types import Video

    wished = job.wishes.video
    found: list[Picture | Video] = []
    for name in job.pictures:
        if name == STDIN:
            data = terminal.stdin or b""
            is_one = clip_of(data, None) is not None
            found.append(wished(data, _CLIP_ON_STDIN) if is_one else take_source(data, "the picture on stdin"))
        else:
            found.append(wished(Path(name)) if clip_of(name, None) else take_source(name))
    given = GivenPictures(job.wishes)
    for name in job.videos:
        found.append(wished(terminal.stdin or b"", _CLIP_ON_STDIN) if name == STDIN else given.video(name))
    for clip in found:
        if isinstance(clip, Video):
            check_clip(clip)
    return found


def _talk(
    job: ChatJob, terminal: Terminal, chat: Chat, loop: Loop, pictures: Sequence[Picture | Video], *, resumed: bool
) -> int:
    """Run the chat from the first line to the last."""
    is_script = terminal.kind == "script"
    if not is_script:
        place = f" at {chat.current.place}" if chat.current.place else ""
        context = f", a context of {chat.n_ctx:,}" if chat.n_ctx else ""
        chat.screen.say(
            f"{chat.short_model}{place}{context}. Drop a picture into the line and ask; /help lists the rest."
        )
    text = ""
    if resumed:
        chat.resume(chat.conversation)
        if job.asking.system is not None:
            chat.conversation.set_system(chat.session, job.asking.system)
        text = "" if is_script else show_resumed(chat)
    chat.add_named(pictures)
    loop.run(text)
    chat.keep_state()
    chat.history.forget(())  # the pictures of questions that were taken back
    if not is_script and chat.history.is_kept and chat.conversation.entries:
        chat.screen.say(f"Kept: internvl chat --resume {chat.conversation.id} goes on with it.")
    chat.close()
    return FAILED if is_script and (loop.failures or chat.broken_answers) else 0


def _wanted(job: ChatJob, history: History) -> Conversation | None:
    """Return the conversation to go on with."""
    if job.resume is not None:
        return history.find(job.resume)
    if not job.go_on:
        return None
    latest = history.latest()
    if latest is None:
        raise InvalidRequestError("There is no conversation to go on with.", "Begin one without --continue.")
    return latest


def _settings(job: ChatJob) -> Settings:
    """Return the settings of the chat, and which of them somebody gave."""
    given = {name for name, source in value_sources.get().items() if source in _GIVEN}
    known = {each.name for configuration in (SamplingParams, PictureOptions) for each in fields(configuration)}
    return Settings(job.asking.sampling, job.asking.pictures, frozenset(given & known))


def _served(
    job: ChatJob, conversation: Conversation | None, screen: Screen, notice: Notice
) -> tuple[Models, FoundModel]:
    """Return the models of a server, and the one to begin with: the one named, else the conversation's, else the first.

    Raises:
        ServerError: it cannot be reached, or has no such model.
    """
    from internvl_gguf.chat.remote.served_models import ServedModels

    assert job.server is not None
    screen.progress("Asking the server for its models", at_once=True)
    served = ServedModels.of(job.server.url, job.server.api_key, notice)
    models = Models(served.find, served.listed, served.known)
    preferred = conversation.model if conversation else None
    return models, served.find(job.model) if job.model else served.first(preferred)


def _local(
    job: ChatJob, conversation: Conversation | None, screen: Screen, notice: Notice, judges: LoadedJudge
) -> tuple[Models, FoundModel]:
    """Return the models of this machine, and the one to begin with."""

    def fetched(name: str) -> ModelFiles:
        from internvl_gguf.planning.auto_quant import machine_chooser

        screen.progress()  # the bars of a download take its place
        return obtain(name, job.asking.mmproj, machine_chooser(job.asking.engine, job.asking.pictures))

    def found(files: ModelFiles) -> FoundModel:
        return FoundModel(full_name(files), lambda: _load(job, files, screen, notice, judges))

    if job.asking.sampling.best_of > 1 or value_sources.get().get("judge") == "COMMANDLINE":
        check_judge(job.asking.sampling.judge)  # before a model of gigabytes is fetched for nothing
    name = job.model or (conversation.model if conversation else options.chosen_model(None, screen.say))
    files = fetched(name)
    refuse_without_thoughts(files, job.asking.sampling)
    return Models(lambda name: found(fetched(name))), found(files)


def _load_critic(job: ChatJob, name: str, screen: Screen, notice: Notice) -> Critic:
    """Load the critic that a setting names."""
    screen.progress()  # the bars of a download take its place
    found = find_judge(name, job.asking.engine)
    screen.progress("Loading the critic", at_once=True)
    try:
        return found.open(
            lambda done: screen.progress("Loading the critic", f"{done:.0%}", at_once=True), notice, in_worker=True
        )
    finally:
        screen.progress()


def _load(job: ChatJob, files: ModelFiles, screen: Screen, notice: Notice, judges: LoadedJudge) -> ChatModel:
    from internvl_gguf.session import Session

    screen.progress("Loading the model", at_once=True)
    try:
        session = Session.open(
            files.text,
            files.mmproj,
            **job.asking.opening,
            **job.asking.engine.options,
            on_load=lambda done: screen.progress("Loading the model", f"{done:.0%}", at_once=True),
            on_notice=notice,
            worker=True,
        )
    finally:
        screen.progress()
    return LocalModel(session, files, full_name(files), judges.named, check_judge)
