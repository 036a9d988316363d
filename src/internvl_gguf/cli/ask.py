"""`internvl ask`: ask one question and print its answer to stdout."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import typer

from internvl_gguf.cli import ask_options, form_options, options
from internvl_gguf.cli.ask_progress import AskProgress, ask_progress
from internvl_gguf.cli.asking_options import AskingOptions, pictures_of, takes_asking_options
from internvl_gguf.cli.batch_options import BATCH_EMBEDDING_BYTES, BATCH_PARALLEL, BatchOptions, takes_batch_options
from internvl_gguf.cli.boxes_output import box_files, is_cut_off, write_boxes
from internvl_gguf.cli.clip_options import VideoOption, refuse_wishes_without_clip, takes_clip_options
from internvl_gguf.cli.judges import find_judge, is_critic
from internvl_gguf.cli.output import StreamedAnswer, print_json, say, show_library_log
from internvl_gguf.cli.parameters import value_sources
from internvl_gguf.cli.run import FAILED, INTERRUPTED, option_errors
from internvl_gguf.cli.several_answers import interrupts_keep_the_best, say_choice, unfinished
from internvl_gguf.cli.streams import require_stdout
from internvl_gguf.config import AskOptions, EngineConfig, SamplingParams
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.types import Picture, Video
from internvl_gguf.utils.kinds import JudgeName
from internvl_gguf.video.clip_wishes import ClipWishes

if TYPE_CHECKING:
    from internvl_gguf.session import Session
    from internvl_gguf.session.cascade import CascadeReply
    from internvl_gguf.types import Reply

_FEWEST_MEASURED = 10  # tokens of an answer below which its speed says nothing


@takes_batch_options
@takes_clip_options
@takes_asking_options
def ask(
    model_and_prompt: ask_options.WordsArgument = None,
    image: ask_options.ImageOption = None,
    video: VideoOption = None,
    model_option: options.ModelFlag = None,
    prompt_option: ask_options.PromptOption = None,
    prompt_pictures: ask_options.PromptPicturesOption = True,
    schema: form_options.SchemaOption = None,
    choices: form_options.ChoicesOption = None,
    regex: form_options.RegexOption = None,
    grammar: form_options.GrammarOption = None,
    format_in_prompt: form_options.FormatInPromptOption = True,
    boxes: ask_options.BoxesOption = None,
    escalate: ask_options.EscalateOption = None,
    threshold: ask_options.ThresholdOption = None,
    json_output: options.JSONOption = False,
    verbose: ask_options.TimingsOption = False,
    log: ask_options.LogOption = False,
    *,
    many: BatchOptions,
    wishes: ClipWishes,
    asking: AskingOptions,
) -> None:
    """Ask one question, about pictures, clips or neither. The answer goes to stdout, everything else to stderr."""
    words, image, video = model_and_prompt or [], image or [], video or []
    if threshold is not None and escalate is None:
        raise typer.BadParameter("goes with --escalate only", param_hint="--threshold")
    if many.batch is None:
        words, found = _without_pictures(words)
        image = [*image, *found]
        model, prompt = _split_arguments(words, model_option, prompt_option)
    else:
        _refuse_with_batch(json_output, verbose, boxes is not None, escalate)
        model, prompt = _arguments_of_batch(words, image, video, model_option, prompt_option)
    _refuse_stdin_twice(prompt if many.batch is None else str(many.batch), [*image, *video], schema, grammar)
    config = asking.engine
    if many.batch is not None:
        with option_errors():
            config = replace(
                config,
                n_parallel=BATCH_PARALLEL if many.parallel is None else many.parallel,
                embedding_cache_bytes=min(config.embedding_cache_bytes, BATCH_EMBEDDING_BYTES),
            )
    if many.output is None:
        require_stdout()
    if log:
        show_library_log()
    opening = {**asking.opening, "mmproj": asking.mmproj, **config.options}
    form = form_options.given_form(schema, choices, regex, grammar, draws=boxes is not None)
    asked = cast("AskOptions", {**asking.asked, **form, "format_in_prompt": format_in_prompt})
    if many.batch is not None:
        from internvl_gguf.cli.batch import BatchJob, run_batch

        name = options.chosen_model(model)
        run_batch(BatchJob(many, name, config, opening, asked, form, prompt, wishes))
        return
    _refuse_critic_of_several(asking, escalate)
    _say_of_idle_judge(asking)
    question, pictures = _question(prompt, image, video, wishes, finds_pictures=prompt_pictures)
    _check_clips(pictures, wishes, asking)
    stills = [picture for picture in pictures if isinstance(picture, Picture)]
    if boxes and len(stills) < len(pictures):
        raise typer.BadParameter("boxes are drawn on pictures; those of frames are in --json", param_hint="--boxes")
    files = box_files(boxes, stills) if boxes else []
    name = options.chosen_model(model)
    told: dict[str, Any] = {}
    is_stopped, in_full = False, verbose or log
    if escalate is None:
        reply, is_stopped = _ask_once(
            name, question, pictures, config, opening, asked, quiet=json_output, in_full=in_full
        )
    else:
        answer = _ask_several(name, escalate, threshold, question, pictures, opening, asked, quiet=json_output)
        reply, told = answer.reply, answer.to_dict()
        say_choice(reply, is_stopped=False, in_full=in_full)
    if files:
        told["saved"] = list(map(str, write_boxes(files, stills, reply.boxes)))
    if json_output:
        print_json({**_as_json(name, question, pictures, reply), **told})
    elif in_full:
        _say_statistics(reply)
    if is_stopped:
        raise typer.Exit(INTERRUPTED)
    if (form and reply.parsed is None and reply.text != "null") or (files and is_cut_off(reply)):
        raise typer.Exit(FAILED)


def _question(
    prompt: str | None, images: list[str], videos: list[str], wishes: ClipWishes, *, finds_pictures: bool
) -> tuple[str, list[Picture | Video]]:
    """Return the question with its pictures and clips, checked before a large model is downloaded.

    Args:
        prompt: what was typed; None where the question comes on stdin. Pictures are looked for in what was typed only:
            what comes through a pipe may be anybody's text.
        images: names of pictures.
        videos: names of clips.
        wishes: which frames of clips are shown.
        finds_pictures: whether pictures are looked for.

    Raises:
        typer.BadParameter: there is no question.
        InvalidRequestError: it is no text.
        PictureError: a picture that cannot be read.
    """
    from internvl_gguf.cli.given_pictures import GivenPictures
    from internvl_gguf.cli.prompt_pictures import FoundPictures, find_pictures, take_found
    from internvl_gguf.cli.stdin import read_question

    question = read_question() if prompt is None else prompt
    is_searched = finds_pictures and prompt is not None
    found = find_pictures(question, images, videos) if is_searched else FoundPictures(question)
    if not found.question.strip():
        about = f"; ask something about {found.paths[0]}" if found.paths else ""
        raise typer.BadParameter(f"the question is empty{about}", param_hint="PROMPT")
    given = GivenPictures(wishes)
    taken = [*map(given.picture, images), *map(given.video, videos)]
    return found.question, taken + take_found(found, question, wishes)


def _check_clips(pictures: list[Picture | Video], wishes: ClipWishes, asking: AskingOptions) -> None:
    """Refuse clips that cannot be shown, and options of clips where there is none.

    Raises:
        typer.BadParameter: there is none.
        typer.Exit: the layout has no place for a clip; the user was told.
        VideoError: a clip that cannot be read, or has not the frames that are wanted.
    """
    clips = [picture for picture in pictures if isinstance(picture, Video)]
    from internvl_gguf.cli.given_pictures import check_clip, first_animation, say_animations

    if not clips:
        refuse_wishes_without_clip(wishes, first_animation(pictures))
    say_animations(pictures)
    if not clips:
        return
    from internvl_gguf.session.clips import check_layout

    with option_errors():
        check_layout(asking.pictures.layout)
    for clip in clips:
        check_clip(clip)


def _ask_once(
    model: str,
    prompt: str,
    pictures: list[Picture | Video],
    config: EngineConfig,
    opening: dict[str, Any],
    asked: AskOptions,
    *,
    quiet: bool,
    in_full: bool,
) -> tuple[Reply, bool]:
    """Ask a model; return its answer, and whether Ctrl-C chose it before all of several had ended."""
    from internvl_gguf.cli.downloads import obtain
    from internvl_gguf.planning.auto_quant import machine_chooser
    from internvl_gguf.session import Session
    from internvl_gguf.session.thinking import refuse_without_thoughts

    files = obtain(model, opening.pop("mmproj"), machine_chooser(config, pictures_of(opening)))
    sampling = asked["sampling"] or SamplingParams()
    refuse_without_thoughts(files, sampling)
    critic = find_judge(sampling.judge, config) if sampling.best_of > 1 and is_critic(sampling.judge) else None
    with (
        ask_progress("picture" if any(isinstance(each, Picture) for each in pictures) else "clip") as progress,
        Session.open(files.text, files.mmproj, **opening, on_load=progress.load, on_notice=progress.notice) as session,
        critic.open(progress.load_judge, progress.notice) if critic else contextlib.nullcontext() as judge,
    ):
        session.on_tiles(progress.tiles)
        if sampling.best_of == 1:
            return _answer(session, prompt, pictures, asked, quiet=quiet, progress=progress), False
        judged = cast("AskOptions", {**asked, "judge": judge})
        return _best_answer(session, prompt, pictures, judged, quiet=quiet, in_full=in_full, progress=progress)


def _ask_several(
    model: str,
    others: str,
    threshold: str | None,
    prompt: str,
    pictures: list[Picture | Video],
    opening: dict[str, Any],
    asked: AskOptions,
    *,
    quiet: bool,
) -> CascadeReply:
    from internvl_gguf.cli.escalation import ask_cascade, cascade_models

    models, thresholds = cascade_models(model, others, threshold)
    with ask_progress("picture" if any(isinstance(each, Picture) for each in pictures) else "clip") as progress:
        answer = ask_cascade(models, thresholds, prompt, pictures, opening, asked, quiet=quiet, progress=progress)
    _say_if_cut(answer.reply)
    return answer


def _say_of_idle_judge(asking: AskingOptions) -> None:
    if value_sources.get().get("judge") == "COMMANDLINE" and asking.sampling.best_of == 1:
        say("There is one answer, so --judge has nothing to choose from; --best-of 8 asks for several.")


def _refuse_critic_of_several(asking: AskingOptions, escalate: str | None) -> None:
    if escalate is not None and asking.sampling.best_of > 1 and is_critic(asking.sampling.judge):
        raise typer.BadParameter(
            f"a critic judges the answers of one model; with --escalate use {' or '.join(JudgeName.choices)}",
            param_hint="--judge",
        )


def _refuse_with_batch(json_output: bool, verbose: bool, draws: bool, escalate: str | None) -> None:
    if escalate is not None:
        raise typer.BadParameter("the questions of --batch are asked of one model", param_hint="--escalate")
    if draws:
        raise typer.BadParameter("the records of --batch have the boxes of each answer", param_hint="--boxes")
    if json_output:
        raise typer.BadParameter("the answers of --batch are JSON as they are", param_hint="--json")
    if verbose:
        raise typer.BadParameter(
            "the records of --batch have usage and timings; -vv is the log", param_hint="--verbose"
        )


def _arguments_of_batch(
    words: list[str], images: list[str], videos: list[str], model: str | None, prompt: str | None
) -> tuple[str | None, str | None]:
    """Return MODEL and PROMPT of the command line where the pictures come from elsewhere; None for one that is missing.

    A single word without a space is the model, as a question of one word is rarer than a batch of questions.
    """
    if any(map(_is_picture_file, words)):
        raise typer.BadParameter(
            "the shell made several names of it: put the glob in quotes, or name the folder", param_hint="--batch"
        )
    if images:
        raise typer.BadParameter("the pictures are those that --batch names", param_hint="--image")
    if videos:
        raise typer.BadParameter(
            'the clips are those that --batch names, each line its own: "videos": [...]', param_hint="--video"
        )
    if len(words) == 1 and model is None and " " not in words[0]:
        return words[0], prompt
    return _split_arguments(words, model, prompt)


def _is_picture_file(word: str) -> bool:
    from internvl_gguf.chat.typed_line import has_picture_name

    return has_picture_name(word) and Path(word).is_file()


def _without_pictures(words: list[str]) -> tuple[list[str], list[str]]:
    """Return the words of the command line that are no files of pictures or clips, and those files."""

    pictures = [word for word in words if _is_picture_file(word)]
    for picture in pictures:
        say(f"Attached {picture}, as with -i.")
    return [word for word in words if word not in pictures], pictures


def _refuse_stdin_twice(prompt: str | None, images: list[str], schema: str | None, grammar: str | None) -> None:
    """Refuse two things on stdin.

    Args:
        prompt: the question, or the file of questions; None and "-" for stdin.
        images, schema, grammar: as they were given.

    Raises:
        typer.BadParameter: there are two.
    """
    from internvl_gguf.cli.stdin import is_stdin

    on_stdin = {
        "the question": prompt is None or prompt == "-",
        "a picture": any(map(is_stdin, images)),
        "the schema": form_options.reads_stdin(schema),
        "the grammar": form_options.reads_stdin(grammar),
    }
    names = [name for name, is_there in on_stdin.items() if is_there]
    if len(names) > 1:
        raise typer.BadParameter(
            f"{names[0]} and {names[1]} cannot both come on stdin: write one out, or name its file",
            param_hint="PROMPT" if prompt is None else "--batch" if prompt == "-" else f"--{names[1].split()[1]}",
        )


def _split_arguments(
    words: list[str], model: str | None = None, prompt: str | None = None
) -> tuple[str | None, str | None]:
    """Return MODEL and PROMPT of the command line; None for one that is missing.

    A single word is the question, unless it names a model and the question comes through a pipe.

    Args:
        words: the arguments.
        model: of --model.
        prompt: of --prompt.
    """
    from internvl_gguf.chat.typed_line import has_picture_name

    missing = (model is None) + (prompt is None)
    if len(words) > missing:
        question = words[1:] if model is None and options.names_model(words[0]) else words
        with option_errors():
            raise InvalidRequestError(
                f"The question came as {len(question)} words.", f'Put the question in quotes: "{" ".join(question)}"'
            )
    if len(words) == 2 and has_picture_name(words[0]):
        raise typer.BadParameter(f"there is no file {words[0]}; pictures are given with -i", param_hint="MODEL")
    if len(words) == 2:
        model, prompt = words
    elif words and model is not None:
        (prompt,) = words
    elif words and (prompt is not None or (" " not in words[0] and options.names_model(words[0]))):
        (model,) = words
    elif words:
        (prompt,) = words
    return model, None if prompt == "-" else prompt


def _answer(
    session: Session,
    prompt: str,
    pictures: list[Picture | Video],
    asked: AskOptions,
    *,
    quiet: bool,
    progress: AskProgress,
) -> Reply:
    answer, reply = StreamedAnswer(), None
    for chunk in session.stream(prompt, pictures, **asked):
        if chunk.thinking:
            progress.think(chunk.thinking)
        if chunk.text and not quiet:
            progress.line.stop()
            progress.is_answering = True
            answer.write(chunk.text)
        reply = chunk.reply or reply
    if not quiet:
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


def _best_answer(
    session: Session,
    prompt: str,
    pictures: list[Picture | Video],
    asked: AskOptions,
    *,
    quiet: bool,
    in_full: bool,
    progress: AskProgress,
) -> tuple[Reply, bool]:
    """Ask for several answers and show the best; Ctrl-C takes the best of those that are there.

    Returns:
        The best, and whether it was taken before all had ended.

    Raises:
        KeyboardInterrupt: none was there yet, or Ctrl-C came twice.
    """
    session.on_candidates(progress.candidates)
    with interrupts_keep_the_best(session) as interrupts:
        reply = session.best_of(prompt, pictures, n=asked["sampling"].best_of, **asked).reply
    progress.line.stop()
    if interrupts.count and reply.finish_reason == "aborted":
        raise KeyboardInterrupt
    if not quiet:
        answer = StreamedAnswer()
        answer.write(reply.text)
        answer.end()
    is_stopped = interrupts.count > 0 and unfinished(reply) > 0
    say_choice(reply, is_stopped=is_stopped, in_full=in_full)
    return reply, is_stopped


def _as_json(model: str, prompt: str, pictures: list[Picture | Video], reply: Reply) -> dict[str, Any]:
    """Return the document of `--json`; `images` has a name for each frame of a clip, so that boxes count in it."""
    from internvl_gguf.session.clips import frame_name

    images: list[str] = []
    clips = iter(reply.clips)
    for picture in pictures:
        if isinstance(picture, Video):
            clip = next(clips)
            images += [frame_name(clip.name, frame.time or 0.0) for frame in clip.frames]
        else:
            images.append(str(picture.source) if picture.name is None else picture.name)
    return {"model": model, "prompt": prompt, "images": images, **reply.to_dict()}


def _say_statistics(reply: Reply) -> None:
    from internvl_gguf.chat.formatting import count

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
        f"{count(usage.completion_tokens, 'token')}{speed}{guesses}"
    )
