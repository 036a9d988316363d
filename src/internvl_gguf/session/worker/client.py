"""This side of the line: requests under way, who waits for them, and one process after another."""

from __future__ import annotations

import itertools
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from internvl_gguf.config import EngineConfig
from internvl_gguf.engine.tile_run import Report, TileProgress
from internvl_gguf.errors import SessionStateError, WorkerDiedError
from internvl_gguf.models.local_files import ModelFiles
from internvl_gguf.session.worker import messages
from internvl_gguf.session.worker.process import WorkerProcess
from internvl_gguf.types import FinishReason, Span, Tile, TileSpan
from internvl_gguf.utils.notices import Notice
from internvl_gguf.utils.owned import inherited

_TICK: Final = 0.2  # seconds; how late a process that hangs is noticed
_STARTING_SECONDS: Final = 120.0  # for Python and the libraries to be read from a slow disk, whatever the bound is
_CLOSING_SECONDS: Final = 30.0  # for embeddings that are still to be written
_AFTER: Final = "Nothing that was answered is lost: ask again. "
_HINTS: Final = {
    "SIGKILL": "If it happens again, take a smaller quant or a smaller context (-c).",
    "sign of life": "A slow machine may need a longer --worker-timeout (worker_timeout).",
}
_OTHERWISE: Final = "If it happens again, `internvl doctor` says how the library does here."


class FarRequest:
    """A request under way in the process; a handle reads it. The attributes are those of `engine.handle`'s states.

    Args:
        spans: the prompt, or nothing.
        tiles: what else may be encoded for it.
        on_tiles: told how far its tiles are encoded, in the thread that reads from the process.

    Attributes:
        result: logits, embeddings, or what a call gave.
    """

    def __init__(
        self, spans: Iterable[Span] = (), tiles: Iterable[Tile] = (), on_tiles: TileProgress | None = None
    ) -> None:
        self.report = Report()
        self.is_cancelled = False
        self.ending: FinishReason | Exception | None = None
        self.tokens: list[int] = []
        self.times: list[float] = []
        self.handed_out = 0
        self.result: Any = None
        self.tiles = {tile.key: tile for tile in (*tiles, *(each.tile for each in spans if isinstance(each, TileSpan)))}
        self.on_tiles = on_tiles

    @property
    def logits(self) -> Any:
        """What a request for logits gave, float32 [n_vocab]; None before."""
        return self.result

    def has_news(self) -> bool:
        """Whether the reader of an answer would not have to wait."""
        return self.handed_out < len(self.tokens) or self.ending is not None or self.is_cancelled


class Client:
    """One worker process after another for one model.

    Args:
        files, config: as `session.runtime.Runtime`.
        timeout: seconds without a sign of life after which a process that has work is ended; 0 waits for ever.
        on_notice: told what people should know.

    Attributes:
        facts: the model as the newest process loaded it.
        pieces: UTF-8 bytes of the tokens that answers had.
    """

    facts: messages.Facts

    def __init__(self, files: ModelFiles, config: EngineConfig, timeout: float, on_notice: Notice) -> None:
        self._load = messages.Load(files, config, logging.getLogger("internvl_gguf").getEffectiveLevel())
        self._timeout = timeout
        self._on_notice = on_notice
        self._numbers = itertools.count(1)
        self._requests: dict[int, tuple[FarRequest, WorkerProcess]] = {}
        self._bells: dict[queue.SimpleQueue[None], None] = {}
        self._loading: queue.SimpleQueue[object] | None = None
        self._process: WorkerProcess | None = None
        self._starting = threading.Lock()
        self._sign_of_life = 0.0
        self._owner = os.getpid()
        self.pieces: dict[int, bytes] = {}

    @property
    def pid(self) -> int | None:
        """Number of the newest process; None before the first."""
        return self._process.pid if self._process else None

    @property
    def is_alive(self) -> bool:
        """Whether there is a process, as far as is known."""
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
        self._sign_of_life = time.monotonic()
        process.send(self._load)
        try:
            while not isinstance(message := self._next(loading), messages.Loaded):
                if isinstance(message, messages.Loading):
                    on_load(message.done)
                elif isinstance(message, messages.Noted):
                    self._on_notice(message.line)
                elif isinstance(message, messages.NotLoaded):
                    raise message.error
                elif message is process:  # and not the one before it
                    raise died(process, " while the model was loaded")
        except BaseException:
            process.kill("was stopped")
            raise
        finally:
            self._loading = None
        self.facts = message.facts

    def _next(self, loading: queue.SimpleQueue[object]) -> object:
        """What comes next while a model is loaded."""
        while True:
            try:
                return loading.get(timeout=_TICK)
            except queue.Empty:
                self._check_life()

    def revive(self) -> bool:
        """Start a process again if there is none, and tell it in a notice.

        Returns:
            Whether that was needed.

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

    def submit(self, request: FarRequest, make: Callable[[int], object]) -> int:
        """Put a request on its way.

        Args:
            make: the message, by the request's number.

        Returns:
            Its number.
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
        if process.ending:  # looked at last: an end that comes later finds the request
            self._end(number, died(process))
        return number

    def call(self, method: str, *arguments: Any) -> Any:
        """What a method of the other side returns; see `messages.Call`.

        Raises:
            WorkerDiedError: the process has ended.
            Exception: what it raised.
        """
        request = FarRequest()
        self.submit(request, lambda number: messages.Call(number, method, arguments))
        self.work_until(lambda: request.ending is not None)
        if isinstance(request.ending, Exception):
            raise request.ending
        return request.result

    def cancel(self, number: int) -> None:
        """Nobody wants a request any more; from any thread."""
        if number in self._requests:
            request, process = self._requests[number]
            request.is_cancelled = True
            process.send(messages.Cancel(number))
            self._ring()

    def work_until(self, is_done: Callable[[], bool]) -> None:
        """Wait until `is_done`, which is asked whenever something came from the process, and now and then."""
        self._check_owner()
        bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._bells[bell] = None
        try:
            while not is_done():
                try:
                    bell.get(timeout=_TICK)
                except queue.Empty:
                    self._check_life()
        finally:
            self._bells.pop(bell, None)

    def close(self) -> None:
        """End the process, and what is under way. Closing twice is harmless; in a forked child nothing happens."""
        if os.getpid() != self._owner:
            return
        process = self._process
        if process and not process.ending:
            process.close(_CLOSING_SECONDS)

    def kill(self) -> None:
        """End the process at once: of a session that was dropped without `close`."""
        if os.getpid() == self._owner and self._process:
            self._process.kill("was stopped")

    def _take(self, process: WorkerProcess, message: object) -> None:
        """One message of the process; in the thread that reads them."""
        self._sign_of_life = time.monotonic()
        if isinstance(message, messages.News):
            self._tell(message)
        elif isinstance(message, messages.TilesDone):
            self._tell_tiles(message)
        elif isinstance(message, messages.WantPixels):
            self._send_pixels(process, message.keys)
        elif isinstance(message, messages.Logged):
            logging.getLogger(message.logger).log(message.level, "%s", message.line)
        elif self._loading is not None:
            self._loading.put(message)
        elif isinstance(message, messages.Noted):
            self._on_notice(message.line)
        self._ring()

    def _tell(self, news: messages.News) -> None:
        if news.request not in self._requests:
            return
        request, _ = self._requests[news.request]
        request.report = news.report or request.report
        self.pieces.update(zip(news.tokens, news.pieces, strict=True))
        request.times += news.times
        request.tokens += news.tokens
        if news.ending is not None:
            request.result = news.result
            self._end(news.request, news.ending)

    def _tell_tiles(self, message: messages.TilesDone) -> None:
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
            process.send(messages.Pixels(key, None if tile is None else tile.pixels))

    def _end(self, number: int, ending: FinishReason | Exception) -> None:
        request, _ = self._requests.pop(number, (None, None))
        if request is not None and request.ending is None:
            request.ending = ending

    def _ended(self, process: WorkerProcess) -> None:
        """A process has ended; in the thread that read from it."""
        for number, (_, asked) in list(self._requests.items()):
            if asked is process:
                self._end(number, died(process))
        if process is self._process and self._loading is not None:
            self._loading.put(process)
        self._ring()

    def _check_life(self) -> None:
        """End the process if it should work and is silent for too long."""
        is_starting = self._loading is not None
        bound = max(self._timeout, _STARTING_SECONDS) if is_starting else self._timeout
        silence = time.monotonic() - self._sign_of_life
        if self._timeout and (self._requests or is_starting) and silence > bound and self._process:
            self._process.kill(f"gave no sign of life for {bound:g} seconds and was ended")

    def _check_owner(self) -> None:
        if os.getpid() != self._owner:
            raise inherited()

    def _ring(self) -> None:
        for bell in list(self._bells):
            bell.put(None)


def died(process: WorkerProcess, when: str = "") -> WorkerDiedError:
    """The error of what was under way when a process ended."""
    hint = next((hint for word, hint in _HINTS.items() if word in process.ending), _OTHERWISE)
    return WorkerDiedError(f"The process of the model {process.ending}{when}.", _AFTER + hint)
