"""`internvl ask`: ask one question and print its answer to stdout."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import typer

from internvl_gguf.cli import ask_options, form_options, options
from internvl_gguf.cli.ask_answer import AskJob, as_json, ask_model, ask_models, say_statistics
from internvl_gguf.cli.ask_words import arguments_of_batch, refuse_stdin_twice, split_arguments, without_pictures
from internvl_gguf.cli.asking_options import AskingOptions, takes_asking_options
from internvl_gguf.cli.batch_options import BATCH_EMBEDDING_BYTES, BATCH_PARALLEL, BatchOptions, takes_batch_options
from internvl_gguf.cli.boxes_output import box_files, is_cut_off, write_boxes
from internvl_gguf.cli.clip_options import VideoOption, refuse_wishes_without_clip, takes_clip_options
from internvl_gguf.cli.judges import is_critic
from internvl_gguf.cli.output import print_json, say, show_library_log
from internvl_gguf.cli.parameters import value_sources
from internvl_gguf.cli.run import FAILED, INTERRUPTED, option_errors
from internvl_gguf.cli.streams import require_stdout
from internvl_gguf.config import AskOptions, EngineConfig
from internvl_gguf.types import Picture, Video
from internvl_gguf.utils.kinds import JudgeName
from internvl_gguf.video.clip_wishes import ClipWishes


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
        words, found = without_pictures(words)
        image = [*image, *found]
        model, prompt = split_arguments(words, model_option, prompt_option)
    else:
        _refuse_with_batch(json_output, verbose, boxes is not None, escalate)
        model, prompt = arguments_of_batch(words, image, video, model_option, prompt_option)
    refuse_stdin_twice(prompt if many.batch is None else str(many.batch), [*image, *video], schema, grammar)
    if many.output is None:
        require_stdout()
    if log:
        show_library_log()
    form = form_options.given_form(schema, choices, regex, grammar, draws=boxes is not None)
    asked = cast("AskOptions", {**asking.asked, **form, "format_in_prompt": format_in_prompt})
    if many.batch is not None:
        _ask_many(many, options.chosen_model(model), prompt, asking, form, asked, wishes)
        return
    _refuse_critic_of_several(asking, escalate)
    _say_of_idle_judge(asking)
    question, pictures = _question(prompt, image, video, wishes, finds_pictures=prompt_pictures)
    _check_clips(pictures, wishes, asking)
    stills = [picture for picture in pictures if isinstance(picture, Picture)]
    if boxes and len(stills) < len(pictures):
        raise typer.BadParameter("boxes are drawn on pictures; those of frames are in --json", param_hint="--boxes")
    files = box_files(boxes, stills) if boxes else []
    job = AskJob(
        options.chosen_model(model),
        question,
        pictures,
        asking.engine,
        _opening(asking, asking.engine),
        asked,
        quiet=json_output,
        in_full=verbose or log,
    )
    told: dict[str, Any] = {}
    is_stopped = False
    if escalate is None:
        reply, is_stopped = ask_model(job)
    else:
        answer = ask_models(job, escalate, threshold)
        reply, told = answer.reply, answer.to_dict()
    if files:
        told["saved"] = list(map(str, write_boxes(files, stills, reply.boxes)))
    if json_output:
        print_json({**as_json(job, reply), **told})
    elif job.in_full:
        say_statistics(reply)
    if is_stopped:
        raise typer.Exit(INTERRUPTED)
    if (form and reply.parsed is None and reply.text != "null") or (files and is_cut_off(reply)):
        raise typer.Exit(FAILED)


def _opening(asking: AskingOptions, config: EngineConfig) -> dict[str, Any]:
    """Return the arguments of `Session.open`, and `mmproj`."""
    return {**asking.opening, "mmproj": asking.mmproj, **config.options}


def _ask_many(
    many: BatchOptions,
    model: str,
    prompt: str | None,
    asking: AskingOptions,
    form: dict[str, Any],
    asked: AskOptions,
    wishes: ClipWishes,
) -> None:
    from internvl_gguf.cli.batch import BatchJob, run_batch

    with option_errors():
        config = replace(
            asking.engine,
            n_parallel=BATCH_PARALLEL if many.parallel is None else many.parallel,
            embedding_cache_bytes=min(asking.engine.embedding_cache_bytes, BATCH_EMBEDDING_BYTES),
        )
    run_batch(BatchJob(many, model, config, _opening(asking, config), asked, form, prompt, wishes))


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
