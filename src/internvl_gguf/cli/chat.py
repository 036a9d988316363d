"""`internvl chat`: a conversation at the terminal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import typer

from internvl_gguf.chat.typed_line import has_picture_name
from internvl_gguf.cli import chat_options, options
from internvl_gguf.cli.asking_options import AskingOptions, takes_asking_options
from internvl_gguf.cli.clip_options import VideoOption, refuse_wishes_without_clip, takes_clip_options
from internvl_gguf.cli.judges import with_named_judge
from internvl_gguf.cli.output import show_library_log
from internvl_gguf.cli.parameters import value_sources
from internvl_gguf.cli.run import option_errors
from internvl_gguf.cli.stdin import STDIN
from internvl_gguf.cli.streams import require_stdout
from internvl_gguf.config import EngineConfig
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.utils.options import options_of
from internvl_gguf.utils.safe_text import safe_name
from internvl_gguf.video.clip_wishes import ClipWishes

_OF_THIS_MACHINE = ("mmproj", "no_cache", "worker_timeout")
"""Options beside those of `EngineConfig` that say how a model is loaded here."""


@takes_clip_options
@takes_asking_options
def chat(
    model_and_pictures: chat_options.WordsArgument = None,
    image: chat_options.ImageOption = None,
    video: VideoOption = None,
    model_option: options.ModelFlag = None,
    prompt_option: chat_options.QuestionOption = None,
    url: chat_options.URLOption = None,
    api_key: chat_options.KeyOption = None,
    go_on: chat_options.ContinueOption = False,
    resume: chat_options.ResumeOption = None,
    history: chat_options.HistoryOption = True,
    plain: chat_options.PlainOption = False,
    preview: chat_options.PreviewOption = True,
    verbose: options.VerboseOption = False,
    *,
    wishes: ClipWishes,
    asking: AskingOptions,
) -> None:
    """Talk with a model about pictures and clips. /help lists what can be typed beside questions.

    From a pipe each line is a question, and only the answers go to stdout.
    """
    if go_on and resume is not None:
        raise typer.BadParameter("names another conversation than --continue", param_hint="--resume")
    if prompt_option is not None:
        _refuse_question(prompt_option)
    _check_server_options(url)
    if url:
        with option_errors():
            asking = replace(asking, sampling=with_named_judge(asking.sampling))
    require_stdout()
    words = model_and_pictures or []
    model, pictures = (model_option, words) if model_option else _split_arguments(words)
    for word in pictures:
        if word != STDIN and not Path(word).exists() and not has_picture_name(word):
            _refuse_question(word)
    pictures, videos = [*pictures, *(image or [])], video or []
    _refuse_wishes(wishes, pictures, videos)
    if verbose:
        show_library_log()
    from internvl_gguf.cli.chat_terminal import Terminal  # only now: it brings rich with it

    terminal = Terminal.found(STDIN in [*pictures, *videos], plain=plain, preview=preview)
    terminal.screen.progress("Starting", at_once=True)
    try:
        from internvl_gguf.cli.chat_job import (
            ChatJob,
            Server,
            run_chat,
        )  # only now: all that a model needs comes with it
    except KeyboardInterrupt:
        terminal.screen.progress()  # its line would stand before the shell's
        raise
    job = ChatJob(
        model, pictures, videos, wishes, go_on, resume, history, asking, Server(url, api_key) if url else None
    )
    raise typer.Exit(run_chat(job, terminal))


def _refuse_wishes(wishes: ClipWishes, pictures: list[str], videos: list[str]) -> None:
    """Refuse options that say which frames of a clip are shown where none is given; stdin may be one."""
    if not wishes.given or videos or STDIN in pictures:
        return
    from internvl_gguf.video.clip_wishes import is_clip_source

    if not any(map(is_clip_source, pictures)):
        refuse_wishes_without_clip(wishes)


def _check_server_options(url: str | None) -> None:
    """Refuse options of the command line that mean nothing with --url, or without it."""
    typed = [name for name, source in value_sources.get().items() if source == "COMMANDLINE"]
    with option_errors():
        if not url and "api_key" in typed:
            raise InvalidRequestError("--api-key is for a server, and there is no --url.", "Give both, or neither.")
        flags = {declared.key: declared.flag for declared in options_of(EngineConfig).values()}
        flags |= {name: f"--{name.replace('_', '-')}" for name in _OF_THIS_MACHINE}
        for name in typed:
            if url and name in flags:
                raise InvalidRequestError(
                    f"{flags[name]} says how a model is loaded here, and with --url it is loaded elsewhere.",
                    "Leave it out, and give it where the server is started.",
                )


def _refuse_question(question: str) -> None:
    with option_errors():
        raise InvalidRequestError(
            f"chat takes no question on the command line: {safe_name(question)}",
            "Type it at the prompt, or use ask.",
        )


def _split_arguments(arguments: list[str]) -> tuple[str | None, list[str]]:
    """Return MODEL and PICTUREs; a first argument that is a file or pipe, but no GGUF, is a picture."""
    if not arguments or arguments[0] == STDIN:
        return None, arguments
    first = Path(arguments[0])
    is_file = first.exists() and not first.is_dir() and first.suffix.lower() != ".gguf"
    if is_file or (has_picture_name(arguments[0]) and not options.names_model(arguments[0])):
        return None, arguments
    if " " in arguments[0] and not first.exists():
        _refuse_question(arguments[0])
    return arguments[0], arguments[1:]
