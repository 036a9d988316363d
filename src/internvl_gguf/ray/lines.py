"""The lines of `internvl ask --batch --ray`, answered by the machines of a cluster."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil

from internvl_gguf.bulk.answerer import Answered, Answering, PlacedLine, PlacedLines, open_answerer
from internvl_gguf.errors import InternVLError, InvalidRequestError, LibraryError, ModelFileError
from internvl_gguf.ray.cluster import actors_of, library
from internvl_gguf.ray.dataset import BATCH_SIZE
from internvl_gguf.session.feed import Absent, feed_of

if TYPE_CHECKING:
    import numpy as np

    from internvl_gguf.models.local_files import ModelFiles

LOCAL: Final = "local"
_HERE: Final = "auto"
_CLIENT: Final = "ray://"
_SECONDS: Final = 5.0
"""How long an address may take to answer: Ray itself tries for half a minute."""
_SETTINGS_OF_RAY: Final = {
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # what is wrong is raised, and told in two lines
    "RAY_USAGE_STATS_ENABLED": "0",  # a cluster that the command starts reports to nobody
    # Its handler in native code takes SIGTERM for a crash: it prints a dump and aborts, whatever Python's handler is.
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",
}
_PATIENCE: Final = {
    "RAY_py_gcs_connect_timeout_s": f"{_SECONDS:.0f}",
    "RAY_CLIENT_INITIAL_CONNECTION_TIMEOUT_S": "2",  # of ray://, three times
    "RAY_CLIENT_MAX_CONNECTION_TIMEOUT_S": "2",
}
"""How long Ray itself waits, in seconds, where something answers as its servers do, but no cluster: a proxy does."""
_FRAME_HEADER, _SETTINGS = 9, 4
_HTTP2_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, _SETTINGS, 0, 0, 0, 0, 0))
"""A client of HTTP/2 begins with this: the preface and an empty SETTINGS frame. A server answers with its own SETTINGS
(RFC 9113, section 3.4)."""
_ANSWERED: Final = "answered"
_START: Final = "Start it with `ray start --head`, and name what that prints; or `--ray local` for this machine."


@contextlib.contextmanager
def cluster(address: str) -> Iterator[None]:
    """Connect to a cluster, or start one on this machine, until the block ends; `sys.stdout` is for nobody in it.

    Args:
        address: "local"; "auto" for the one that runs here; host:port of its head; or ray://host:port.

    Raises:
        InvalidRequestError: no cluster can be used there.
    """
    ray = _configured_library(address)
    # Ray prints on stdout, among the answers, what becomes of its actors: what matters of that is raised.
    with Path(os.devnull).open("w") as nothing, contextlib.redirect_stdout(nothing):
        try:
            _connect(ray, address)
            context = ray.data.DataContext.get_current()
            context.enable_progress_bars = False
            logging.getLogger("ray.data").setLevel(logging.ERROR)
            yield
        finally:
            ray.shutdown()


def _configured_library(address: str) -> Any:
    """Return the module `ray` as the command needs it: Ray reads these variables when it is imported, and never again.

    Raises:
        InvalidRequestError: it is not installed.
    """
    for name, value in _SETTINGS_OF_RAY.items():
        os.environ.setdefault(name, value)
    if address not in (LOCAL, _HERE):
        for name, value in _PATIENCE.items():
            os.environ.setdefault(name, value)
    return library()


def _connect(ray: Any, address: str) -> None:
    """Connect to a cluster, or start one.

    Raises:
        InvalidRequestError: no cluster can be used there.
    """
    try:
        with _kept_sigterm(), _nothing_left(), _silent_stderr():  # its own library says there how much it will say
            ray.init(
                address=address,  # "local" is a cluster of its own, whatever else runs here
                logging_level="ERROR",
                log_to_driver=False,
                include_dashboard=False if address == LOCAL else None,
            )
    except Exception as error:  # a start that times out is a plain Exception
        first = str(error).strip().partition("\n")[0]
        raise InvalidRequestError(f"No cluster of Ray can be used at {address}: {first}", _START) from error


@contextlib.contextmanager
def _kept_sigterm() -> Iterator[None]:
    """Keep this process's own handler of SIGTERM: `ray.init` puts one in its place that ends with status 15."""
    own = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as ended:
        if ended.code == signal.SIGTERM and callable(own):
            own(signal.SIGTERM, None)
        raise
    finally:
        signal.signal(signal.SIGTERM, own)


@contextlib.contextmanager
def _nothing_left() -> Iterator[None]:
    """End the processes that Ray started, if its start fails or is interrupted.

    Some of them know nothing of the others yet, and wait for them for a minute or more.
    """
    this = psutil.Process()
    others = this.children(recursive=True)
    try:
        yield
    except BaseException:
        started = [process for process in this.children(recursive=True) if process not in others]
        for process in started:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(started, _SECONDS)
        raise


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Keep native code from writing to stderr."""
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def check_address(address: str) -> None:
    """Refuse an address where nothing answers, before anything is fetched or read.

    Raises:
        InvalidRequestError: Ray is not installed, or no cluster answers there.
    """
    ray = _configured_library(address)
    if address in (LOCAL, _HERE):
        return
    host, _, port = address.removeprefix(_CLIENT).rpartition(":")
    if not host or not port.isdecimal():
        raise InvalidRequestError(f"{address} is no address of a cluster.", "Give local, auto, HOST:PORT or ray://...")
    try:
        is_grpc = _speaks_grpc(host, int(port))
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InvalidRequestError(f"No cluster answers at {address}: {reason}.", _START) from error
    if not is_grpc or not (address.startswith(_CLIENT) or _is_cluster(ray, address)):
        raise InvalidRequestError(f"What listens at {address} is no cluster of Ray.", _START)


def _speaks_grpc(host: str, port: int) -> bool:
    """Return whether a server begins a connection as gRPC's do, which Ray's are; Ray waits for others without end.

    Raises:
        OSError: nothing listens there, or it says nothing in `_SECONDS`.
        OverflowError: no such port.
    """
    places = {found[4] for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    with socket.create_connection((host, port), _SECONDS / len(places)) as connection:  # it tries one after the other
        connection.settimeout(_SECONDS)
        if os.environ.get("RAY_USE_TLS", "0") != "0":
            return True  # it is Ray that has the keys
        connection.sendall(_HTTP2_PREFACE)
        began = b""
        while len(began) < _FRAME_HEADER and (more := connection.recv(_FRAME_HEADER - len(began))):
            began += more
        return len(began) == _FRAME_HEADER and began[3] == _SETTINGS


def _is_cluster(ray: Any, address: str) -> bool:
    """Return whether a cluster answers at the address of a head, in `_SECONDS`: `ray.init` asks twenty times."""
    with _silent_stderr():
        try:
            ray._raylet.GcsClient(address=address)
        except Exception:  # Ray's own, of several kinds
            return False
    return True


def answer_lines(
    answering: Answering, lines: PlacedLines, on_answered: Callable[[Answered], None], count: int | None = None
) -> None:
    """Answer lines on the cluster that Ray is connected to, and tell each outcome when its batch is there.

    A machine that is lost has its lines asked elsewhere. What was told is not asked again.

    Args:
        answering: how they are answered. Of a model that was given by paths every machine must have the files there;
            one given by its name is fetched once on each.
        lines: the lines.
        on_answered: called with the outcome of each, in the order in which they end.
        count: how many models answer; None for one for each GPU, else one for each machine.

    Raises:
        InternVLError: the model cannot be loaded on a machine, or the cluster is lost.
    """
    ray = library()
    feed = feed_of(lines)
    actors = actors_of(count)
    while rows := list(_available(feed)):
        each = _rows_each(len(rows), actors.count)
        parts = [{"lines": pickle.dumps(rows[first : first + each])} for first in range(0, len(rows), each)]
        dataset = ray.data.from_items(parts, override_num_blocks=len(parts)).map_batches(
            LineAnswerer,
            fn_constructor_args=(answering, str(Path.cwd())),
            batch_size=1,
            batch_format="numpy",
            **actors.options,
        )
        try:
            for row in dataset.iter_rows():
                answered = pickle.loads(row[_ANSWERED])
                if isinstance(answered, InternVLError):
                    raise answered
                for each in answered:
                    on_answered(each)
        except ray.exceptions.RayError as error:
            raise _lost(error) from error


def _available(feed: Any) -> Iterator[PlacedLine]:
    while not isinstance(taken := feed.take(waits=False), Absent):
        yield taken


def _rows_each(count: int, actors: int) -> int:
    """Return how many lines a batch has: no actor is to be idle for long while another has many."""
    return max(1, min(BATCH_SIZE, count // (4 * actors)))


def _lost(error: Exception) -> InternVLError:
    """Return what ended a run, in words."""
    first = str(error).strip().partition("\n")[0]
    return LibraryError(f"The cluster ended the run: {first}", "The same command goes on with the rest.")


class LineAnswerer:
    """The class of Ray's actors: a loaded model that answers lines.

    Args:
        answering: how they are answered.
        folder: where relative paths of pictures start, if it is there.
    """

    def __init__(self, answering: Answering, folder: str) -> None:
        self._opened = contextlib.ExitStack()
        with contextlib.suppress(OSError):
            os.chdir(folder)
        try:
            local = replace(answering, files=_files_here(answering.files))
            opened = open_answerer(local, lambda done: None, lambda line: None)
            self._answerer = self._opened.enter_context(opened)
        except InternVLError as error:  # told in place of answers: Ray would wrap one that is raised here
            self._error: InternVLError | None = error
        else:
            self._error = None

    def __call__(self, batch: dict[str, np.ndarray[Any, Any]]) -> dict[str, list[bytes]]:
        """Answer the lines of a batch: pickled `PlacedLine`s in, pickled `Answered` out, or the error of loading."""
        if self._error is not None:
            return {_ANSWERED: [pickle.dumps(self._error)]}
        outcomes: list[bytes] = []
        for pickled in batch["lines"]:
            answered: list[Answered] = []
            self._answerer.answer(list(pickle.loads(pickled)), answered.append)
            outcomes.append(pickle.dumps(answered))
        return {_ANSWERED: outcomes}


def _files_here(files: ModelFiles) -> ModelFiles:
    """Return the files of a model on this machine: those of the same paths, else fetched by its name.

    Raises:
        ModelFileError: there are none, or another quant was chosen for this machine.
        HubError: they cannot be fetched.
    """
    if Path(files.text).is_file() and Path(files.mmproj).is_file():
        return files
    from internvl_gguf.models.resolve import resolve_model

    here = socket.gethostname()
    found = resolve_model(files.name)
    if (found.text.name, found.mmproj.name) != (files.text.name, files.mmproj.name):
        raise ModelFileError(
            f"{here} would answer with {found.text.name}, not with {files.text.name}.",
            "Name the quant, as in InternVL3-8B-Instruct:Q4_K_M.",
        )
    return found
