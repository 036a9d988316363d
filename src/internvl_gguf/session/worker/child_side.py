"""What every child process of this package that talks through a `Channel` begins with."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable

from internvl_gguf.session.worker.channel import Channel

Send = Callable[[object], None]


def channel_to_parent() -> Channel:
    """Return the channel to the parent, on private descriptors: libraries print to stderr, children read nothing.

    Who stops a service signals all its processes: the parent decides what is still finished, and ends this one. So
    SIGTERM is ignored from here on.
    """
    reader, writer = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return Channel(reader, writer)


def sender(channel: Channel) -> Send:
    """Return what sends messages to the parent; where that has ended, this process ends, too."""

    def send(message: object) -> None:
        try:
            channel.send(message)
        except OSError:
            os._exit(0)

    return send


def log_to_parent(send: Send, level: int, message: Callable[[str, int, str], object]) -> None:
    """Send log records of this package to the parent, where the user has configured logging.

    Args:
        send: sends to the parent.
        level: lowest level that is sent.
        message: makes the message of a record: its logger, level and text.
    """

    class ToParent(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            send(message(record.name, record.levelno, record.getMessage()))

    logger = logging.getLogger("internvl_gguf")
    logger.setLevel(level)
    logger.propagate = False
    logger.addHandler(ToParent())
