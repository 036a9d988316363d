"""A request on its way: its model, its prompt, its place in the queue, and the events of its answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeVar

from internvl_gguf.config import MAX_SEED, SamplingParams
from internvl_gguf.engine.kv_ledger import total_length
from internvl_gguf.server.answer_events import (
    Answering,
    CallDelta,
    Delta,
    Encoding,
    Event,
    Failed,
    Finished,
    Reading,
    ThoughtDelta,
)
from internvl_gguf.server.chat_request import AnswerDefaults, ChatRequest
from internvl_gguf.server.checked_wishes import NO_WISHES, CheckedWishes, checked
from internvl_gguf.server.clips import AT_ONCE, opener
from internvl_gguf.server.metrics import Metrics
from internvl_gguf.server.model_pool import ModelPool, ServedModel
from internvl_gguf.server.pictures import PictureSources
from internvl_gguf.server.turns import PreparedConversation
from internvl_gguf.session.prompt_template import OFFICIAL_SYSTEM
from internvl_gguf.session.thinking import can_think
from internvl_gguf.video.stop import ClipStop

_CHECKING_THREADS: Final = 2  # of forms and tools: one that takes long keeps back no request without
_PREPARING_THREADS: Final = 2  # a picture of 128 megapixels takes up to 1.2 GiB while it is decoded
_ASK_SECONDS: Final = 0.5  # how often a waiting request tells its place

Result = TypeVar("Result")
Phase = Literal["loading", "queued", "encoding", "reading", "answering"]


@dataclass(frozen=True)
class Progress:
    """How far a request is before its answer begins.

    Attributes:
        phase: what it waits for.
        done, total: percent for loading, requests before it for queued, tiles for encoding, tokens for reading, answers
            of which the best is given for answering.
    """

    phase: Phase
    done: int
    total: int


@dataclass(frozen=True)
class Begun:
    """The request was given to the model.

    Attributes:
        prompt_tokens: positions of its prompt.
    """

    prompt_tokens: int


AnswerEvent = Progress | Begun | ThoughtDelta | Delta | CallDelta | Finished


@dataclass(frozen=True)
class Asking:
    """A request whose interface was understood.

    Attributes:
        request: the request.
        client: who asks; requests of one client wait for each other before those of others do.
    """

    request: ChatRequest
    client: Hashable


class Answerer:
    """Answers requests with the models of a pool. Used in the thread of the event loop only.

    Args:
        pool: the models.
        sources: gets the bytes of pictures.
        defaults: what the owner chose for fields that a request leaves out.
        metrics: counts.
    """

    def __init__(self, pool: ModelPool, sources: PictureSources, defaults: AnswerDefaults, metrics: Metrics) -> None:
        self.pool = pool
        self.defaults = defaults
        self._sources = sources
        self._metrics = metrics
        self._threads = ThreadPoolExecutor(_PREPARING_THREADS, "internvl-pictures")
        self._clip_threads = ThreadPoolExecutor(AT_ONCE, "internvl-clips")
        self._checking_threads = ThreadPoolExecutor(_CHECKING_THREADS, "internvl-forms")
        self._preparing = 0

    def close(self) -> None:
        """End the threads that prepare."""
        for threads in (self._threads, self._clip_threads, self._checking_threads):
            threads.shutdown(wait=False, cancel_futures=True)

    async def events(self, asking: Asking) -> AsyncGenerator[AnswerEvent]:
        """Yield the progress of a request, pieces of its answers, and the end of each. Closing it ends the answers.

        Raises:
            InternVLError: what the request cannot be answered for.
        """
        model = self.pool.find(asking.request.model)
        model.admission.check_room(self._preparing)
        wishes = await self._checked(asking.request)
        request = replace(asking.request, turns=await self._sources.with_bytes(asking.request.turns))
        async with aclosing(self._leased(model)) as waiting:
            async for progress in waiting:
                yield progress
        try:
            request = _as_able(model, request)
            prepared = await self._prepared(model, request, wishes)
            async with aclosing(self._answered(model, request, prepared, wishes, asking.client)) as events:
                async for event in events:
                    yield event
        finally:
            model.release()

    async def count(self, request: ChatRequest) -> tuple[PreparedConversation, ServedModel]:
        """Return the prompt of a request, which is not answered.

        Raises:
            InternVLError: as `events`.
        """
        model = self.pool.find(request.model)
        wishes = await self._checked(request)
        request = replace(request, turns=await self._sources.with_bytes(request.turns))
        await self.pool.lease(model)
        try:
            return await self._prepared(model, _as_able(model, request), wishes), model
        finally:
            model.release()

    def _leased(self, model: ServedModel) -> AsyncGenerator[Progress]:
        return _while_waiting(
            self.pool.lease(model), lambda: Progress("loading", round(100 * model.loaded_part), 100), model.release
        )

    async def _prepared(self, model: ServedModel, request: ChatRequest, wishes: CheckedWishes) -> PreparedConversation:
        system = OFFICIAL_SYSTEM if self.defaults.system is None else self.defaults.system
        threads = self._clip_threads if request.has_clips else self._threads
        stop = ClipStop()
        try:
            return await self._in_thread(
                threads, model.turns.prepare, model.runtime, request, system, wishes, opener(stop)
            )
        finally:
            stop.set()  # the thread of a request that was cancelled would go on

    async def _checked(self, request: ChatRequest) -> CheckedWishes:
        """Check what an answer is to be like before a model is waited for: meanwhile a stream may begin."""
        wishes = request.wishes
        if not (wishes.form or wishes.tools):
            return NO_WISHES
        return await self._in_thread(self._checking_threads, checked, wishes)

    async def _in_thread(self, threads: ThreadPoolExecutor, work: Callable[..., Result], *arguments: Any) -> Result:
        self._preparing += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(threads, work, *arguments)
        finally:
            self._preparing -= 1

    async def _answered(
        self,
        model: ServedModel,
        request: ChatRequest,
        prepared: PreparedConversation,
        wishes: CheckedWishes,
        client: Hashable,
    ) -> AsyncGenerator[AnswerEvent]:
        place = model.admission.enter(client)
        try:
            queued = _while_waiting(
                place.has_begun.wait(), lambda: Progress("queued", place.waiting_before, model.admission.waiting)
            )
            async with aclosing(queued) as waiting:
                async for progress in waiting:
                    yield progress
            if place.refusal is not None:
                raise place.refusal
            if model.has_died or model.state != "ready":  # meanwhile; its encoder may be another now
                async with aclosing(self._leased(model)) as waiting:
                    async for progress in waiting:
                        yield progress
                model.release()  # this request was counted before
            if model.runtime.encoder_identity != prepared.encoder_identity:
                prepared = await self._prepared(model, request, wishes)
            events: asyncio.Queue[Event] = asyncio.Queue()
            loop = asyncio.get_running_loop()
            unfinished = request.n

            def deliver(event: Event) -> None:
                nonlocal unfinished
                if isinstance(event, Finished):
                    unfinished -= 1
                if isinstance(event, Failed) or not unfinished:
                    place.release()  # though the client may be slow to read the rest
                events.put_nowait(event)

            cancel = model.pump.begin(
                prepared.question,
                prepared.history,
                _samplings(request),
                request.top_logprobs,
                lambda event: _call(loop, deliver, event),
                n=request.n,
                keeps_tags=request.keeps_tags,
            )
            try:
                yield Begun(total_length(prepared.question.spans))
                left = request.n
                while left:
                    event = await events.get()
                    if isinstance(event, Failed):
                        raise event.error
                    if isinstance(event, Encoding):
                        yield Progress("encoding", event.done, event.total)
                    elif isinstance(event, Reading):
                        yield Progress("reading", event.done, event.total)
                    elif isinstance(event, Answering):
                        yield Progress("answering", event.done, event.total)
                    else:
                        if isinstance(event, Finished):
                            left -= 1
                            self._finished(model, prepared, event)
                        yield event
            finally:
                cancel()
        finally:
            place.release()

    def _finished(self, model: ServedModel, prepared: PreparedConversation, event: Finished) -> None:
        model.turns.remember(prepared, event.message, event.reply)
        self._metrics.answered(event.reply, is_first=event.choice == 0)


def _as_able(model: ServedModel, request: ChatRequest) -> ChatRequest:
    """Return a request without its wish for a thought, where the model cannot think or has begun its answer."""
    is_begun = request.turns[-1].role == "assistant"
    if request.must_think or not request.sampling.thinks or (can_think(model.runtime) and not is_begun):
        return request
    return replace(request, sampling=replace(request.sampling, thinking=None, thinking_budget=None))


def _samplings(request: ChatRequest) -> list[SamplingParams]:
    """Return the sampling of each answer; choice number i takes the seed + i. Those that are judged have one."""
    seed = request.sampling.seed
    if request.sampling.best_of > 1:
        return [request.sampling]
    if seed is None:
        return [request.sampling] * request.n
    return [replace(request.sampling, seed=(seed + choice) % (MAX_SEED + 1)) for choice in range(request.n)]


def _call(loop: asyncio.AbstractEventLoop, deliver: Callable[[Event], None], event: Event) -> None:
    """Pass an event to the loop, from a thread of the model."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(deliver, event)


async def _while_waiting(
    work: Awaitable[object], progress: Callable[[], Progress], undo: Callable[[], None] = lambda: None
) -> AsyncGenerator[Progress]:
    """Wait for something, and yield the progress now and then, whenever it has changed.

    Args:
        work: what is waited for.
        progress: tells how far it is.
        undo: called if the work was done and nobody waits for it any more.

    Raises:
        What the work raises.
    """
    task = asyncio.ensure_future(work)
    last: Progress | None = None
    is_wanted = False

    def ended(task: asyncio.Future[object]) -> None:
        if not (is_wanted or task.cancelled() or task.exception()):
            undo()

    try:
        await asyncio.wait({task}, timeout=0.02)  # what takes no time is not worth telling
        while not task.done():
            now = progress()
            if now != last:
                last = now
                yield now
            await asyncio.wait({task}, timeout=_ASK_SECONDS)
        task.result()
        is_wanted = True
    finally:
        task.cancel()
        task.add_done_callback(ended)
