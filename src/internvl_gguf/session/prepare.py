"""A question prepared for the engine: its pictures read and cut, its prompt laid out and known to fit the context."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from internvl_gguf.config import AskOptions, PictureOptions, SamplingParams
from internvl_gguf.engine.kv_ledger import total_length
from internvl_gguf.images.fit_context import (
    ANSWER_ALLOWANCE,
    ContextBudget,
    PictureToCut,
    check_fits,
    cut_notices,
    plan_cut,
)
from internvl_gguf.images.tile_limits import TileLimits
from internvl_gguf.judging import Judge, judge_of, vote
from internvl_gguf.session.asked import Asked, asked, form_note
from internvl_gguf.session.clips import OpenClip, longest_label, with_frames
from internvl_gguf.session.cut_pictures import DecodedPicture, cut_as_planned, read_picture, without_tiles
from internvl_gguf.session.grounding import check_can_box
from internvl_gguf.session.model_runtime import ModelRuntime
from internvl_gguf.session.prompt_spans import prompt_spans
from internvl_gguf.session.prompt_template import IMAGE_PLACE, with_system
from internvl_gguf.session.question_options import checked_options, tools_and_form
from internvl_gguf.session.thinking import ThoughtPlan, thought_plan
from internvl_gguf.session.tool_prompt import tools_text
from internvl_gguf.structured.tool_format import GROUNDING
from internvl_gguf.structured.tool_stream import CALL_BEGINS, CALL_ENDS
from internvl_gguf.types import Frames, Message, Question, ShownClip, Span, TokenSpan, ToolResult, Video
from internvl_gguf.utils import arguments
from internvl_gguf.video import open_clip

if TYPE_CHECKING:
    from internvl_gguf.structured import AnswerFormat, Tool

ONE_ANSWER: Final = "There is one answer, so its judge has nothing to choose from: best_of=8 asks for several."


@dataclass(frozen=True)
class PreparedQuestion:
    """A question ready for the engine.

    Attributes:
        messages: the question as the conversation will hold it, or what tools returned.
        spans: the whole prompt, earlier messages included.
        sampling: how tokens are chosen.
        started: time.perf_counter() when the question came.
        preprocess_seconds: time it took to read and cut the pictures.
        history_length: messages of the conversation it was prepared for.
        notices: changes made so that it fits, one line each.
        form: what the answer has to be like; None for any text.
        tools: what it may call.
        clips: its clips, with the frames that are shown.
        thought: how its answer begins.
        judge: chooses among its answers, if there are to be several.
        tells_confidence: whether its reply says how sure the model is of it.
    """

    messages: tuple[Message, ...]
    spans: list[Span]
    sampling: SamplingParams
    started: float
    preprocess_seconds: float
    history_length: int
    notices: tuple[str, ...]
    form: AnswerFormat | None = None
    tools: tuple[Tool, ...] = ()
    clips: tuple[ShownClip, ...] = ()
    thought: ThoughtPlan = field(default_factory=ThoughtPlan)
    judge: Judge = vote
    tells_confidence: bool = False

    @property
    def message(self) -> Message:
        """The last of its messages."""
        return self.messages[-1]


def prepare_question(
    runtime: ModelRuntime,
    limits: TileLimits,
    history: Sequence[Message],
    prompt: str | Sequence[ToolResult],
    images: Any,
    options: AskOptions,
    opens: OpenClip = open_clip,
) -> PreparedQuestion:
    """Read the pictures, lay out the prompt and check that it fits; the model computes nothing.

    Args:
        runtime: the model.
        limits: tile limits of pictures for which nothing else says them.
        history: the conversation before it.
        prompt: the question, or what the tools returned that the last answer called.
        images: pictures and clips of the question.
        options: of the question.
        opens: opens its clips.

    Raises:
        InvalidRequestError: options or a prompt that cannot be used.
        ContextOverflowError: prompt and pictures do not fit the context.
        PictureError: a picture that cannot be read.
        VideoError: a clip that cannot be read.
    """
    started = time.perf_counter()
    options = checked_options(options)
    tools, form = tools_and_form(options, _tokens_of_forms(runtime))
    sampling = options.get("sampling") or SamplingParams()
    thought = thought_plan(runtime, sampling, is_bound=form is not None)
    answer_tokens = _answer_tokens(sampling, thought)
    given = asked(history, prompt, images, options)

    def most() -> int:
        return _frame_room(runtime, history, given, options, tools, answer_tokens)

    n_before = sum(len(message.pictures) for message in history)
    messages, clips, clip_notices = with_frames(given, options, most, n_before, opens, runtime.vision.image_size)
    if form is not None and form.kind == "boxes":
        check_can_box(runtime, history, [image for each in messages for image in each.images])
    decoded = [[read_picture(runtime, limits, image, options) for image in each.images] for each in messages]
    preprocess = time.perf_counter() - started
    uncut = [
        replace(each.message, pictures=tuple(map(without_tiles, pictures)))
        for each, pictures in zip(messages, decoded, strict=True)
    ]
    text_tokens = total_length(prompt_spans(runtime, [*history, *uncut], tools, sampling))
    note = form_note(options) if isinstance(prompt, str) else ""
    n_frames = sum(len(clip.frames) for clip in clips)
    budget = _budget(runtime, history, options, tools, note, text_tokens, answer_tokens, n_frames)
    # Planned between decoding and cutting: the sizes are known then, and no picture is decoded twice.
    every = [picture for pictures in decoded for picture in pictures]
    to_cut = [PictureToCut(each.image.size, each.limits) for each in every if isinstance(each, DecodedPicture)]
    plan = plan_cut(to_cut, budget, fit=options.get("fit_pictures", PictureOptions.fit_pictures))
    check_fits(plan)
    cutting = time.perf_counter()
    planned = iter(plan.pictures)
    cut = [
        replace(message, pictures=tuple(cut_as_planned(runtime, picture, planned) for picture in pictures))
        for message, pictures in zip(uncut, decoded, strict=True)
    ]
    preprocess += time.perf_counter() - cutting
    spans = prompt_spans(runtime, [*history, *cut], tools, sampling)
    if thought.opening:
        spans.append(TokenSpan(thought.opening))
    judge, judge_notices = _judge(options, sampling)
    notices = (*clip_notices, *cut_notices(plan), *judge_notices)
    return PreparedQuestion(
        tuple(cut),
        spans,
        sampling,
        started,
        preprocess,
        len(history),
        notices,
        form,
        tools,
        clips,
        thought,
        judge,
        options.get("confidence", False),
    )


def _judge(options: AskOptions, sampling: SamplingParams) -> tuple[Judge, tuple[str, ...]]:
    """Return the judge of a question's answers, and the notice that it has nothing to choose from.

    Raises:
        InvalidRequestError: there is no judge of the name that the sampling has.
    """
    given: Judge | None = options.get("judge")
    if sampling.best_of > 1:
        return given or judge_of(sampling.judge), ()
    return vote, (ONE_ANSWER,) if given else ()


def _budget(
    runtime: ModelRuntime,
    history: Sequence[Message],
    options: AskOptions,
    tools: Sequence[Tool],
    note: str,
    text_tokens: int,
    answer_tokens: int,
    n_frames: int,
) -> ContextBudget:
    """Return what a question's pictures have to share the context with."""
    tokenize = runtime.engine.model.tokenize
    return ContextBudget(
        n_ctx=runtime.engine.n_ctx,
        n_ctx_train=runtime.text.n_ctx_train,
        text_tokens=text_tokens,
        answer_tokens=answer_tokens,
        tile_size=runtime.vision.image_size,
        tokens_per_tile=runtime.vision.tokens_per_tile,
        earlier_questions=sum(message.role == "user" for message in history),
        form_tokens=len(tokenize(note)),
        tool_tokens=len(tokenize(tools_text(tools))),
        frames=n_frames,
        frame_tokens=_frame_tokens(runtime, options),
    )


def frame_room(runtime: ModelRuntime, history: Sequence[Message], prompt: str, images: Any, options: AskOptions) -> int:
    """Return how many frames of one tile the context has room for, beside a conversation, a question and its pictures.

    Raises:
        InvalidRequestError: options or a prompt that cannot be used.
    """
    options = checked_options(options)
    tools, form = tools_and_form(options, _tokens_of_forms(runtime))
    sampling = options.get("sampling") or SamplingParams()
    thought = thought_plan(runtime, sampling, is_bound=form is not None)
    given = asked(history, prompt, images, options)
    return _frame_room(runtime, history, given, options, tools, _answer_tokens(sampling, thought))


def _answer_tokens(sampling: SamplingParams, thought: ThoughtPlan) -> int:
    """Return the positions that are kept free for the answer, with what its prompt has of it already."""
    return min(sampling.effective_max_tokens, ANSWER_ALLOWANCE) + len(thought.opening)


def _frame_room(
    runtime: ModelRuntime,
    history: Sequence[Message],
    messages: Sequence[Asked],
    options: AskOptions,
    tools: Sequence[Tool],
    answer_tokens: int,
) -> int:
    bare = [replace(each.message, text=each.message.text.replace(IMAGE_PLACE, "")) for each in messages]
    taken = total_length(prompt_spans(runtime, [*history, *bare], tools, options.get("sampling")))
    pictures = 0
    for image in (image for each in messages for image in each.images):
        if not isinstance(image, Video):
            pictures += len(image.pictures) if isinstance(image, Frames) else 1
    room = runtime.engine.n_ctx - taken - answer_tokens
    return room // (runtime.vision.tokens_per_tile + _frame_tokens(runtime, options)) - pictures


def _frame_tokens(runtime: ModelRuntime, options: AskOptions) -> int:
    """Return the positions that the label of a frame and the marks around it take, at most."""
    return len(runtime.engine.model.tokenize(f"{longest_label(options)}\n")) + 2  # <img> and </img>


def _tokens_of_forms(runtime: ModelRuntime) -> list[str]:
    """Return the tags that a grammar may name and that are single tokens of the vocabulary."""
    tokenize = runtime.engine.model.tokenize
    tags = [tag for tag in (CALL_BEGINS, CALL_ENDS) if len(tokenize(tag)) == 1]
    return [*tags, *(tag for tag in GROUNDING if tag in dict(runtime.text.grounding))]


def prepare_batch_question(
    runtime: ModelRuntime, limits: TileLimits, history: Sequence[Message], question: Question, shared: AskOptions
) -> PreparedQuestion:
    """Prepare one question of a batch; its own options and system message replace those of the batch.

    Args:
        shared: options of the whole batch.

    Raises:
        InvalidRequestError: it is not a `Question`.
        As `prepare_question`.
    """
    if not isinstance(question, Question):
        raise arguments.wrong("A question", question, "Give a Question or its text.")
    if question.system is not None:
        history = with_system(history, arguments.text("system", question.system))
    options = checked_options(question.options, shared)
    return prepare_question(runtime, limits, history, question.prompt, question.images, options)
