"""One question of `internvl ask`: it is asked, and its answer shown."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from internvl_gguf.cli.ask_progress import AskProgress, ask_progress
from internvl_gguf.cli.asking_options import pictures_of
from internvl_gguf.cli.judges import find_judge, is_critic
from internvl_gguf.cli.output import StreamedAnswer, say
from internvl_gguf.cli.several_answers import interrupts_keep_the_best, say_choice, unfinished
from internvl_gguf.config import AskOptions, EngineConfig, SamplingParams
from internvl_gguf.types import Picture, Video
from internvl_gguf.utils.sizes import counted

if TYPE_CHECKING:
    from internvl_gguf.session import Session
    from internvl_gguf.session.cascade import CascadeReply
    from internvl_gguf.types import Reply

_FEWEST_MEASURED: Final = 10
"""Tokens of an answer below which its speed says nothing."""


@dataclass(frozen=True)
class AskJob:
    """One question as the command line asks it.

    Attributes:
        model: the model's name.
        prompt: the question.
        pictures: its pictures and clips.
        config: how the model is run.
        opening: arguments of `Session.open`, and `mmproj`.
        asked: options of the question.
        quiet: whether the answer is not shown, as it is part of a document.
        in_full: whether of several answers all are listed.
    """

    model: str
    prompt: str
    pictures: list[Picture | Video]
    config: EngineConfig
    opening: dict[str, Any]
    asked: AskOptions
    quiet: bool
    in_full: bool

    def progress(self) -> contextlib.AbstractContextManager[AskProgress]:
        """Show what takes time."""
        return ask_progress("picture" if any(isinstance(each, Picture) for each in self.pictures) else "clip")


def ask_model(job: AskJob) -> tuple[Reply, bool]:
    """Ask a model; return its answer, and whether Ctrl-C chose it before all of several had ended."""
    from internvl_gguf.cli.downloads import obtain
    from internvl_gguf.planning.auto_quant import machine_chooser
    from internvl_gguf.session import Session
    from internvl_gguf.session.thinking import refuse_without_thoughts

    opening = {name: value for name, value in job.opening.items() if name != "mmproj"}
    files = obtain(job.model, job.opening["mmproj"], machine_chooser(job.config, pictures_of(opening)))
    sampling = job.asked["sampling"] or SamplingParams()
    refuse_without_thoughts(files, sampling)
    critic = find_judge(sampling.judge, job.config) if sampling.best_of > 1 and is_critic(sampling.judge) else None
    with (
        job.progress() as progress,
        Session.open(files.text, files.mmproj, **opening, on_load=progress.load, on_notice=progress.notice) as session,
        critic.open(progress.load_judge, progress.notice) if critic else contextlib.nullcontext() as judge,
    ):
        session.on_tiles(progress.tiles)
        if sampling.best_of == 1:
            return _answer(session, job, progress), False
        return _best_answer(session, job, cast("AskOptions", {**job.asked, "judge": judge}), progress)


def ask_models(job: AskJob, others: str, threshold: str | None) -> CascadeReply:
    """Ask a model, and those of --escalate where it is not sure; return the answer, and who gave it."""
    from internvl_gguf.cli.escalation import ask_cascade, cascade_models

    models, thresholds = cascade_models(job.model, others, threshold)
    with job.progress() as progress:
        answer = ask_cascade(
            models, thresholds, job.prompt, job.pictures, job.opening, job.asked, quiet=job.quiet, progress=progress
        )
    _say_if_cut(answer.reply)
    say_choice(answer.reply, is_stopped=False, in_full=job.in_full)
    return answer


def _answer(session: Session, job: AskJob, progress: AskProgress) -> Reply:
    answer, reply = StreamedAnswer(), None
    for chunk in session.stream(job.prompt, job.pictures, **job.asked):
        if chunk.thinking:
            progress.think(chunk.thinking)
        if chunk.text and not job.quiet:
            progress.line.stop()
            progress.is_answering = True
            answer.write(chunk.text)
        reply = chunk.reply or reply
    if not job.quiet:
        progress.line.stop()
        answer.end()
        progress.answered()
    if reply is None:
        raise AssertionError("a stream ends with its reply")
    _say_if_cut(reply)
    return reply


def _say_if_cut(reply: Reply) -> None:
    if reply.finish_reason == "length" and (reply.text or not reply.thinking):  # else a notice says more
        say("The answer was cut at its limit; raise it with --max-tokens, or the context with --n-ctx.")


def _best_answer(session: Session, job: AskJob, asked: AskOptions, progress: AskProgress) -> tuple[Reply, bool]:
    """Ask for several answers and show the best; Ctrl-C takes the best of those that are there.

    Returns:
        The best, and whether it was taken before all had ended.

    Raises:
        KeyboardInterrupt: none was there yet, or Ctrl-C came twice.
    """
    session.on_candidates(progress.candidates)
    with interrupts_keep_the_best(session) as interrupts:
        reply = session.best_of(job.prompt, job.pictures, n=asked["sampling"].best_of, **asked).reply
    progress.line.stop()
    if interrupts.count and reply.finish_reason == "aborted":
        raise KeyboardInterrupt
    if not job.quiet:
        answer = StreamedAnswer()
        answer.write(reply.text)
        answer.end()
    is_stopped = interrupts.count > 0 and unfinished(reply) > 0
    say_choice(reply, is_stopped=is_stopped, in_full=job.in_full)
    return reply, is_stopped


def as_json(job: AskJob, reply: Reply) -> dict[str, Any]:
    """Return the document of `--json`; `images` has a name for each frame of a clip, so that boxes count in it."""
    from internvl_gguf.session.clips import frame_name

    images: list[str] = []
    clips = iter(reply.clips)
    for picture in job.pictures:
        if isinstance(picture, Video):
            clip = next(clips)
            images += [frame_name(clip.name, frame.time or 0.0) for frame in clip.frames]
        else:
            images.append(str(picture.source) if picture.name is None else picture.name)
    return {"model": job.model, "prompt": job.prompt, "images": images, **reply.to_dict()}


def say_statistics(reply: Reply) -> None:
    """Say what the answer took, and what the model thought."""
    if reply.thinking:
        say(f"Thought: {reply.thinking}")
    usage, timings = reply.usage, reply.timings
    frames = sum(len(clip.frames) for clip in reply.clips)
    shown = f"pictures {usage.images - frames}, frames {frames}" if frames else f"pictures {usage.images}"
    guesses = f", {usage.accepted_tokens} of {usage.drafted_tokens} guesses right" if usage.drafted_tokens else ""
    is_measured = usage.completion_tokens >= _FEWEST_MEASURED
    speed = f" at {timings.decode_tokens_per_second:.1f}/s" if is_measured else ""
    say(
        f"{shown}, tiles {usage.tiles} ({usage.tiles_encoded} encoded in {timings.encode:.2f} s); "
        f"{usage.prompt_tokens} prompt tokens ({usage.cached_tokens} cached, prefill {timings.prefill:.2f} s); "
        f"first token after {timings.time_to_first_token:.2f} s; "
        f"{counted(usage.completion_tokens, 'token')}{speed}{guesses}"
    )
