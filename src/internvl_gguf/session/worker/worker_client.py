"""The parent's connection to the worker: requests under way, threads that wait for them, restarts of the process."""

from __future__ import annotations

import itertools
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from internvl_gguf.config import USUAL_PICTURES, EngineConfig, PictureOptions
from internvl_gguf.engine.tile_run import RequestReport, TileProgress
from internvl_gguf.errors import SessionStateError, WorkerDiedError
from internvl_gguf.hardware.rpc.lost import lost_servers
from internvl_gguf.models.local_files import ModelFiles
from internvl_gguf.session.worker import messages
from internvl_gguf.session.worker.worker_process import WorkerProcess
from internvl_gguf.types import FinishReason, Span, Tile, TileSpan, TokenLogprobs
from internvl_gguf.utils.notices import Notice
from internvl_gguf.utils.owned import inherited
from internvl_gguf.utils.sizes import in_seconds

_TICK: Final = 0.2  # seconds; how late a process that hangs is noticed
_STARTING_SECONDS: Final = 120.0  # least time-out while loading: a slow disk has to read Python and the libraries
_CLOSING_SECONDS: Final = 30.0  # for embeddings that are still to be written
_AFTER: Final = "Nothing that was answered is lost: ask again. "
_HINTS: Final = {
    "SIGKILL": "If it happens again, take a smaller quant or a smaller context (-c).",
    "sign of life": "A slow machine may need a longer --worker-timeout (worker_timeout).",
}
_OTHER_HINT: Final = "If it happens again, `internvl doctor` says how the library does here."


class RemoteRequest:
    """State of a request in the worker; a handle reads it. The attributes are those of the states in `engine.handle`.

    Args:
        spans: the prompt, or nothing.
        tiles: other tiles that may be encoded for it.
        on_tiles: called with the progress of encoding its tiles, in the thread that reads from the process.

    Attributes:
        result: logits, embeddings, or the return value of a call.
    """

    def __init__(
        self, spans: Iterable[Span] = (), tiles: Iterable[Tile] = (), on_tiles: TileProgress | None = None
    ) -> None:
        self.report = RequestReport()
        self.is_cancelled = False
        self.ending: FinishReason | Exception | None = None
        self.tokens: list[int] = []
        self.times: list[float] = []
        self.logprobs: list[TokenLogprobs] = []
        self.n_delivered = 0
        self.result: Any = None
        self.tiles = {tile.key: tile for tile in (*tiles, *(each.tile for each in spans if isinstance(each, TileSpan)))}
        self.on_tiles = on_tiles

    @property
    def logits(self) -> Any:
        """Result of a request for logits, float32 [n_vocab]; None before."""
        return self.result

    def is_readable(self) -> bool:
        """Return whether the reader of an answer would not have to wait."""
        return self.n_delivered < len(self.tokens) or self.ending is not None or self.is_cancelled


class WorkerClient:
    """The connection to the worker process of one model; a process that died is replaced by `revive`.

    Args:
        files, config, pictures: as in `InProcessRuntime`.
        timeout: seconds without a sign of life after which a process that has work is ended; 0 waits for ever.
        on_notice: called with notices for the user.

    Attributes:
        facts: facts about the model as the current process loaded it.
        pieces: UTF-8 bytes of tokens, cached from answers.
    """

    facts: messages.ModelFacts

    def __init__(
        self,
        files: ModelFiles,
        config: EngineConfig,
        timeout: float,
        on_notice: Notice,
        pictures: PictureOptions = USUAL_PICTURES,
    ) -> None:
        self._load = messages.Load(files, config, pictures, logging.getLogger("internvl_gguf").getEffectiveLevel())
        self._timeout = timeout
        self._on_notice = on_notice
        self._numbers = itertools.count(1)
        self._requests: dict[int, tuple[RemoteRequest, WorkerProcess]] = {}
        self._waiters: dict[queue.SimpleQueue[None], None] = {}
        self._loading: queue.SimpleQueue[object] | None = None
        self._process: WorkerProcess | None = None
        self._starting = threading.Lock()
        self._sign_of_life = 0.0
        self._owner = os.getpid()
        self.pieces: dict[int, bytes] = {}

    @property
    def pid(self) -> int | None:
        """Process id of the current process; None before the first."""
        return self._process.pid if self._process else None

    @property
    def is_alive(self) -> bool:
        """Whether the process runs, as far as is known."""
        return self._process is not None and not self._process.ending

    def start(self, on_load: Callable[[float], None]) -> None:
        """Start a process and wait until the model is loaded.

        Raises:
            WorkerDiedError: it died on the way.
            InternVLError: the model cannot be loaded.
        """
        self._check_owner()
        loading: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._loading = loading
        process = self._process = WorkerProcess(self._take, self._ended)
        if process.ending:  # it died before it was known here, so that `_ended` took it for another
            loading.put(process)
        self._sign_of_life = time.monotonic()
        process.send(self._load)
        try:
            while not isinstance(message := self._next(loading), messages.Loaded):
                if isinstance(message, messages.Loading):
                    on_load(message.done)
                elif isinstance(message, messages.NoticeLine):
                    self._on_notice(message.line)
                elif isinstance(message, messages.NotLoaded):
                    raise message.error
                elif message is process:  # and not the one before it
                    raise self._death_error(process, " while the model was loaded")
        except BaseException:
            process.kill("was stopped")
            raise
        finally:
            self._loading = None
        self.facts = message.facts

    def _next(self, loading: queue.SimpleQueue[object]) -> object:
        """Wait for the next message while a model is loaded."""
        while True:
            try:
                return loading.get(timeout=_TICK)
            except queue.Empty:
                self._check_life()

    def revive(self) -> bool:
        """Start a process if none runs, and say so in a notice.

        Returns:
            Whether a process was started.

        Raises:
            As `start`.
        """
        self._check_owner()
        with self._starting:
            if self.is_alive:
                try:
                    self.call("ping")
                    return False
                except WorkerDiedError:
                    pass
            ending = self._process.ending if self._process else "was closed"
            self._on_notice(f"The model is loaded again: its process {ending}.")
            self.start(lambda done: None)
            return True

    def submit(self, request: RemoteRequest, make: Callable[[int], object]) -> int:
        """Send a request to the process.

        Args:
            make: makes the message from the number of the request.

        Returns:
            The number of the request.
        """
        self._check_owner()
        number = next(self._numbers)
        process = self._process
        if process is None:
            raise SessionStateError("The session is closed.", "Open a new one with Session.open().")
        if not self._requests:
            self._sign_of_life = time.monotonic()
        self._requests[number] = request, process
        process.send(make(number))
        if process.ending:  # checked last: if the process ends later, `_ended` finds the request
            self._end(number, self._death_error(process))
        return number

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method in the process and return its result; see `messages.Call`.

        Raises:
            WorkerDiedError: the process has ended.
            Exception: the error that the method raised.
        """
        request = RemoteRequest()
        self.submit(request, lambda number: messages.Call(number, method, arguments))
        self.work_until(lambda: request.ending is not None)
        if isinstance(request.ending, Exception):
            raise request.ending
        return request.result

    def cancel(self, number: int) -> None:
        """Cancel a request; callable from any thread."""
        if number in self._requests:
            request, process = self._requests[number]
            request.is_cancelled = True
            process.send(messages.Cancel(number))
            self._wake_waiters()

    def work_until(self, is_done: Callable[[], bool]) -> None:
        """Wait until `is_done` is true; it is checked after each message of the process."""
        self._check_owner()
        waiter: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._waiters[waiter] = None
        try:
            while not is_done():
                try:
                    waiter.get(timeout=_TICK)
                except queue.Empty:
                    self._check_life()
        finally:
            self._waiters.pop(waiter, None)

    def close(self) -> None:
        """End the process and all requests. Closing twice is harmless; in a forked child nothing happens."""
        if os.getpid() != self._owner:
            return
        process = self._process
        if process and not process.ending:
            process.close(_CLOSING_SECONDS)

    def kill(self) -> None:
        """End the process at once, for a session that was dropped without `close`."""
        if os.getpid() == self._owner and self._process:
            self._process.kill("was stopped")

    def _take(self, process: WorkerProcess, message: object) -> None:
        """Handle one message of the process, in the thread that reads from it."""
        self._sign_of_life = time.monotonic()
        if isinstance(message, messages.RequestUpdate):
            self._update(message)
        elif isinstance(message, messages.TilesEncoded):
            self._report_tiles(message)
        elif isinstance(message, messages.PixelsWanted):
            self._send_pixels(process, message.keys)
        elif isinstance(message, messages.LogLine):
            logging.getLogger(message.logger).log(message.level, "%s", message.line)
        elif self._loading is not None:
            self._loading.put(message)
        elif isinstance(message, messages.NoticeLine):
            self._on_notice(message.line)
        self._wake_waiters()

    def _update(self, update: messages.RequestUpdate) -> None:
        if update.request not in self._requests:
            return
        request, _ = self._requests[update.request]
        request.report = update.report or request.report
        self.pieces.update(zip(update.tokens, update.pieces, strict=True))
        request.times += update.times
        request.logprobs += update.logprobs
        request.tokens += update.tokens
        if update.ending is not None:
            request.result = update.result
            self._end(update.request, update.ending)

    def _report_tiles(self, message: messages.TilesEncoded) -> None:
        request, _ = self._requests.get(message.request, (None, None))
        if request is None or request.on_tiles is None:
            return
        try:
            request.on_tiles(message.done, message.total)
        except Exception as error:  # as in an engine of this process: the error of this request alone
            self.cancel(message.request)
            self._end(message.request, error)

    def _send_pixels(self, process: WorkerProcess, keys: Sequence[bytes]) -> None:
        for key in keys:
            tiles = (request.tiles.get(key) for request, _ in list(self._requests.values()))
            tile = next((each for each in tiles if each is not None), None)
            process.send(messages.TilePixels(key, None if tile is None else tile.pixels))

    def _end(self, number: int, ending: FinishReason | Exception) -> None:
        request, _ = self._requests.pop(number, (None, None))
        if request is not None and request.ending is None:
            request.ending = ending

    def _ended(self, process: WorkerProcess) -> None:
        """End the requests of a process that has ended, in the thread that read from it."""
        under_way = [number for number, (_, asked) in list(self._requests.items()) if asked is process]
        if under_way:
            error = self._death_error(process)
            for number in under_way:
                self._end(number, type(error)(error.message, error.hint))
        if process is self._process and self._loading is not None:
            self._loading.put(process)
        self._wake_waiters()

    def _death_error(self, process: WorkerProcess, when: str = "") -> WorkerDiedError:
        """Return the error of what was under way when a process ended, because of a lost server or by itself."""
        lost = lost_servers(self._load.config.servers, process.ending)
        return WorkerDiedError(lost.message, lost.hint) if lost else death_error(process, when)

    def _check_life(self) -> None:
        """End the process if it has work and was silent for too long."""
        is_starting = self._loading is not None
        bound = max(self._timeout, _STARTING_SECONDS) if is_starting else self._timeout
        silence = time.monotonic() - self._sign_of_life
        if self._timeout and (self._requests or is_starting) and silence > bound and self._process:
            self._process.kill(f"gave no sign of life for {in_seconds(bound)} and was ended")

    def _check_owner(self) -> None:
        if os.getpid() != self._owner:
            raise inherited()

    def _wake_waiters(self) -> None:
        for waiter in list(self._waiters):
            waiter.put(None)


def death_error(process: WorkerProcess, when: str = "") -> WorkerDiedError:
    """Return the error of the requests that were under way when a process ended."""
    hint = next((hint for word, hint in _HINTS.items() if word in process.ending), _OTHER_HINT)
    return WorkerDiedError(f"The process of the model {process.ending}{when}.", _AFTER + hint)
