"""The models of a server: loaded when asked for, unloaded when idle or in the way, found back when they die."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Literal, TypeVar

from internvl_gguf.config import DEFAULT_WORKER_TIMEOUT, USUAL_PICTURES, EngineConfig, PictureOptions
from internvl_gguf.errors import InsufficientMemoryError, InternVLError
from internvl_gguf.memory.memory_request import context_length
from internvl_gguf.models.local_files import ModelFiles
from internvl_gguf.planning.workload import MemoryBudget
from internvl_gguf.server.admission import Admission
from internvl_gguf.server.answer_pump import AnswerPump
from internvl_gguf.server.api_errors import RefusedRequestError
from internvl_gguf.server.turns import Turns
from internvl_gguf.session.memory_room import fits_beside
from internvl_gguf.session.thinking import files_can_think
from internvl_gguf.session.worker.worker_runtime import WorkerRuntime
from internvl_gguf.utils.notices import Notice

logger: Final = logging.getLogger("internvl_gguf.server")

Result = TypeVar("Result")
State = Literal["unloaded", "loading", "ready", "failed"]
_WATCH_SECONDS: Final = 0.25


@dataclass(frozen=True)
class ModelSettings:
    """How the models of a server are loaded and asked.

    Attributes:
        config: how they are loaded and run.
        parallel: requests that one answers at once.
        conversations: conversations whose KV is kept; None for one more than `parallel`.
        most_waiting: requests that may wait for one.
        idle_seconds: seconds without a request after which one is unloaded; None for never.
        worker_timeout: as in `Session.open`.
        pictures: how pictures are cut where a request says nothing else.
    """

    config: EngineConfig
    parallel: int = 1
    conversations: int | None = None
    most_waiting: int = 64
    idle_seconds: float | None = None
    worker_timeout: float = DEFAULT_WORKER_TIMEOUT
    pictures: PictureOptions = USUAL_PICTURES


class ServedModel:
    """One model of a server. Used in the thread of the event loop only.

    Attributes:
        name: its id.
        files: its files.
        state: whether it can answer.
        error: why it could not be loaded; None otherwise.
        loaded_part: fraction of the text model that is loaded.
        turns: conversations prepared before.
        admission: places for its requests.
        n_ctx: positions of its context; None before it was loaded once.
        tile_size: pixels of the side of its tiles; None before it was loaded once.
        restarts: number of processes that were started in place of dead ones.
        created: Unix time at which the server began to offer it.
        users: number of its requests that are not answered yet.
        idle: set while it has none.
        stays: cleared while it is to be unloaded: new requests wait for that, and then for it to be loaded again.
    """

    def __init__(self, name: str, files: ModelFiles, settings: ModelSettings) -> None:
        self.name = name
        self.files = files
        self.state: State = "unloaded"
        self.error: InternVLError | None = None
        self.loaded_part = 0.0
        self.turns = Turns()
        self.admission = Admission(settings.parallel, settings.most_waiting)
        self.n_ctx: int | None = None
        self.tile_size: int | None = None
        self.restarts = 0
        self._can_think: bool | None = None
        self.created = int(time.time())
        self.last_used = time.monotonic()
        self.users = 0
        self.stays = asyncio.Event()
        self.stays.set()
        self.idle = asyncio.Event()
        self.idle.set()
        self._runtime: WorkerRuntime | None = None
        self._pump: AnswerPump | None = None

    def can_think(self) -> bool | None:
        """Return whether it can think, by its header, which is read once: that takes a moment. None if it cannot be."""
        if self._can_think is None:
            with contextlib.suppress(InternVLError):  # it is told where the model is loaded
                self._can_think = files_can_think(self.files)
        return self._can_think

    @property
    def runtime(self) -> WorkerRuntime:
        """The loaded model.

        Raises:
            RefusedRequestError: it is not loaded at this moment.
        """
        if self._runtime is None:
            raise _unavailable(self)
        return self._runtime

    @property
    def pump(self) -> AnswerPump:
        """Passes on its answers. Raises as `runtime`."""
        if self._pump is None:
            raise _unavailable(self)
        return self._pump

    @property
    def is_loaded(self) -> bool:
        """Whether it has memory."""
        return self._runtime is not None

    @property
    def has_died(self) -> bool:
        """Whether its process has ended and was not replaced yet."""
        return self._runtime is not None and not self._runtime.is_alive

    def take(self, runtime: WorkerRuntime) -> None:
        """Take a loaded model."""
        self._runtime, self._pump = runtime, AnswerPump(runtime)
        self.n_ctx, self.tile_size = runtime.engine.n_ctx, runtime.vision.image_size
        self.state, self.error, self.loaded_part = "ready", None, 1.0
        self.last_used = time.monotonic()

    def give_up(self) -> Callable[[], None]:
        """Drop the loaded model; return the function that frees it, which takes its time."""
        runtime, pump = self._runtime, self._pump
        self._runtime = self._pump = None
        self.state, self.loaded_part = "unloaded", 0.0

        def free() -> None:
            if pump:
                pump.close()
            if runtime:
                runtime.release()

        return free

    def use(self) -> None:
        """Count one more request."""
        self.users += 1
        self.idle.clear()

    def release(self) -> None:
        """Count one request less."""
        self.users -= 1
        self.last_used = time.monotonic()
        if not self.users:
            self.idle.set()


class ModelPool:
    """All models of a server, in its event loop.

    Args:
        models: the models; the first is loaded at the start, and is meant where a request names none.
        aliases: other names of the first model.
        settings: how they are loaded.
        tell: tells the owner of the server something, in one line.

    Attributes:
        models, aliases: as given.
        is_stopping: whether nothing is loaded any more.
    """

    def __init__(
        self, models: Sequence[ServedModel], aliases: Sequence[str], settings: ModelSettings, tell: Notice
    ) -> None:
        self.models = list(models)
        self.aliases = tuple(aliases)
        self._settings = settings
        self._tell = tell
        self._loads: dict[str, asyncio.Task[None]] = {}
        self._changing = asyncio.Lock()
        self._whole: MemoryBudget | None = None
        self._threads = ThreadPoolExecutor(4, "internvl-models")
        self._watching: asyncio.Task[None] | None = None
        self.is_stopping = False

    def start(self) -> None:
        """Begin to load the first model, and to watch all."""
        self._begin_load(self.models[0])
        self._watching = asyncio.create_task(self._watch())

    def end_requests(self) -> None:
        """End all requests, waiting and running, with an error that says that the server is stopping."""
        self.is_stopping = True
        ended = stopping_error("The server was stopped before the answer ended.")
        for model in self.models:
            model.admission.refuse_waiting(ended)
            if model.is_loaded:
                model.pump.fail_all(ended)

    async def close(self) -> None:
        """Unload everything."""
        self.is_stopping = True
        tasks = [each for each in (self._watching, *self._loads.values()) if each]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for model in self.models:
            await self._in_thread(model.give_up())
        self._threads.shutdown(wait=False, cancel_futures=True)

    def find(self, name: str | None) -> ServedModel:
        """Return the model of a name, in any case, or of the only one that begins with the name and a colon.

        Raises:
            RefusedRequestError: there is none.
        """
        if name is None:
            return self.models[0]
        wanted = name.lower()
        if wanted in (alias.lower() for alias in self.aliases):
            return self.models[0]
        exact = [model for model in self.models if model.name.lower() == wanted]
        loose = [model for model in self.models if model.name.lower().startswith(f"{wanted}:")]
        if exact or len(loose) == 1:
            return (exact or loose)[0]
        shown = name if len(name) <= 80 and name.isprintable() else "of that name"
        raise RefusedRequestError(
            f"There is no model {shown} here.",
            f"Use {', '.join(model.name for model in self.models)}.",
            status=404,
            code="model_not_found",
            param="model",
        )

    async def lease(self, model: ServedModel) -> None:
        """Load a model unless it is loaded, and count one user of it; `ServedModel.release` counts one less.

        Raises:
            RefusedRequestError: it cannot be loaded, or the server is stopping.
        """
        while model.state != "ready" or model.has_died or not model.stays.is_set():
            if self.is_stopping:
                raise stopping_error()
            await model.stays.wait()
            await asyncio.shield(self._begin_load(model))
            if model.state == "failed":
                raise _unavailable(model)
        model.use()

    def _begin_load(self, model: ServedModel) -> asyncio.Task[None]:
        """Return the task that loads a model, or finds it back; it raises nothing."""
        task = self._loads.get(model.name)
        if task is None or task.done():
            task = self._loads[model.name] = asyncio.create_task(self._load(model))
        return task

    async def _load(self, model: ServedModel) -> None:
        model.state, model.loaded_part = "loading", 0.0
        try:
            if model.is_loaded:
                await self._revive(model)
            else:
                async with self._changing:
                    await self._make_room(model)
                    await self._open(model)
        except InternVLError as error:
            await self._in_thread(model.give_up())
            model.state, model.error = "failed", error
            self._tell(f"{model.name} cannot be loaded: {error}")
        except asyncio.CancelledError:
            model.state = "unloaded"
            raise
        except Exception:
            await self._in_thread(model.give_up())
            model.state = "failed"
            logger.exception("%s cannot be loaded", model.name)

    async def _revive(self, model: ServedModel) -> None:
        runtime = model.runtime
        model.restarts += model.has_died
        await self._in_thread(runtime.revive)
        if model.is_loaded:  # and was not unloaded meanwhile
            model.n_ctx, model.tile_size = runtime.engine.n_ctx, runtime.vision.image_size
            model.state, model.loaded_part = "ready", 1.0

    async def _open(self, model: ServedModel) -> None:
        """Load a model; if there is no memory beside the others, without them."""
        started = time.monotonic()
        while True:
            try:
                runtime = await self._in_thread(lambda: self._opened(model))
                break
            except InsufficientMemoryError:
                if not await self._unload_one_but(model):
                    raise
        if not any(other.is_loaded for other in self.models):
            self._whole = runtime.configuration.budget
        model.take(runtime)
        self._tell(f"{model.name} is loaded ({time.monotonic() - started:.1f} s): {_facts(model)}.")

    def _opened(self, model: ServedModel) -> WorkerRuntime:
        """Load a model, with fewer conversations kept where more would take from its context."""

        def progress(done: float) -> None:
            model.loaded_part = done

        settings = self._settings
        kept = max(settings.conversations or settings.parallel + 1, settings.parallel)
        for n_parallel in sorted({kept, settings.parallel}, reverse=True):
            config = replace(settings.config, n_parallel=n_parallel)
            is_last = n_parallel == settings.parallel
            try:
                runtime = WorkerRuntime(
                    model.files,
                    config,
                    progress,
                    self._tell,
                    timeout=settings.worker_timeout,
                    pictures=settings.pictures,
                )
            except InsufficientMemoryError:
                if is_last:
                    raise
                continue
            if is_last or runtime.engine.n_ctx >= context_length(config.n_ctx, runtime.text.n_ctx_train):
                return runtime
            runtime.release()
        raise AssertionError("the last way to load a model returns or raises")

    async def _make_room(self, model: ServedModel) -> None:
        """Unload models, those not used for longest first, until one more is loaded as well as it would be alone.

        An RPC server has one client at a time: beside a model on it there is no other.
        """
        while self._settings.config.servers and await self._unload_one_but(model):
            pass
        while True:
            loaded = [other for other in self.models if other.is_loaded]
            if not loaded or self._whole is None:
                return
            configurations = [other.runtime.configuration for other in loaded]
            config = replace(self._settings.config, n_parallel=self._settings.parallel)  # as few as it can be
            if await self._in_thread(
                partial(fits_beside, model.files, config, self._whole, configurations, self._settings.pictures)
            ):
                return
            await self._unload_one_but(model)

    async def _unload_one_but(self, model: ServedModel) -> bool:
        """Unload the model that was not used for longest, once its requests have ended; return whether one was."""
        others = [other for other in self.models if other.is_loaded and other is not model]
        if not others:
            return False
        oldest = min(others, key=lambda other: (other.users > 0, other.last_used))
        oldest.stays.clear()
        try:
            await oldest.idle.wait()
            await self._unload(oldest, f"makes room for {model.name}")
        finally:
            oldest.stays.set()
        return True

    async def _unload(self, model: ServedModel, why: str) -> None:
        await self._in_thread(model.give_up())
        self._tell(f"{model.name} is unloaded: it {why}.")

    async def _watch(self) -> None:
        """Find dead models back, and unload idle ones."""
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            for model in self.models:
                if model.state == "ready" and model.has_died:
                    self._begin_load(model)
                elif self._is_idle(model):
                    async with self._changing:
                        if self._is_idle(model):
                            await self._unload(model, "was not asked for so long")

    def _is_idle(self, model: ServedModel) -> bool:
        bound = self._settings.idle_seconds
        is_unused = model.state == "ready" and model.idle.is_set()
        return bound is not None and is_unused and time.monotonic() - model.last_used > bound

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def stopping_error(what: str = "The server is stopping.") -> RefusedRequestError:
    """Return the error of a request that comes while the server stops, or is ended by that."""
    return RefusedRequestError(what, "Ask again when it is back.", status=503, code="stopping", retry_after=10)


def _unavailable(model: ServedModel) -> RefusedRequestError:
    """Return the error of a model that cannot be used; why, stands in the log: it may name files of this machine."""
    if isinstance(model.error, InsufficientMemoryError):
        what = f"{model.name} does not fit the memory of this machine."
    elif model.state == "failed":
        what = f"{model.name} cannot be loaded."
    else:
        what = f"{model.name} is being loaded."
    return RefusedRequestError(
        what, "The server's log says more; ask again later.", status=503, code="model_unavailable", retry_after=5
    )


def _facts(model: ServedModel) -> str:
    runtime, admission = model.runtime, model.admission
    kept = runtime.engine.n_parallel
    at_once = f"{admission.parallel} at once" if admission.parallel > 1 else "one request at a time"
    return f"a context of {runtime.engine.n_ctx:,}, {at_once}, the KV of {kept} conversation{'s'[: kept > 1]} kept"
