"""The main module of a model's process. It ends when its parent does, whatever it is in the middle of."""

from __future__ import annotations

import logging
import os
import threading
from typing import Final

from internvl_gguf.errors import InternVLError
from internvl_gguf.session.worker import messages
from internvl_gguf.session.worker.channel import Channel
from internvl_gguf.session.worker.serving import Send, Server

_PULSE_SECONDS: Final = 1.0


class _LogToParent(logging.Handler):
    """Hands this package's log to the parent, where people have set up theirs."""

    def __init__(self, send: Send) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        self._send(messages.Logged(record.name, record.levelno, record.getMessage()))


def main() -> None:
    """Load the model that the first message names, and serve it."""
    parent = os.getppid()
    channel = _own_pipes()

    def send(message: object) -> None:
        try:
            channel.send(message)
        except OSError:  # nobody is there any more
            os._exit(0)

    load: messages.Load = channel.receive()
    logger = logging.getLogger("internvl_gguf")
    logger.setLevel(load.log_level)
    logger.propagate = False
    logger.addHandler(_LogToParent(send))
    loaded = threading.Event()
    servers: list[Server] = []
    threading.Thread(target=_read, args=(channel, servers, loaded), daemon=True).start()
    threading.Thread(target=_pulse, args=(send, servers, parent), daemon=True).start()
    try:
        from internvl_gguf.session.runtime import Runtime

        runtime = Runtime(
            load.files,
            load.config,
            lambda done: send(messages.Loading(done)),
            lambda line: send(messages.Noted(line)),
        )
    except InternVLError as error:
        send(messages.NotLoaded(error))
        os._exit(0)
    server = Server(runtime, send)
    servers.append(server)
    loaded.set()
    send(
        messages.Loaded(
            messages.Facts(
                text=runtime.text,
                vision=runtime.vision,
                control_tokens=dict(runtime.control_tokens),
                configuration=runtime.configuration,
                host=runtime.host,
                encoder_identity=runtime.encoder_identity,
                n_ctx=runtime.engine.n_ctx,
                n_parallel=runtime.engine.n_parallel,
                tokens_in_all=runtime.engine.model.n_vocab,
            )
        )
    )
    server.run()
    runtime.release()
    os._exit(0)  # threads that read and write are left as they are


def _own_pipes() -> Channel:
    """The line to the parent, out of reach of others: libraries print to stderr instead, and children read nothing."""
    reader, writer = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return Channel(reader, writer)


def _read(channel: Channel, servers: list[Server], loaded: threading.Event) -> None:
    """Hand on what comes; end the process with the other side, in the middle of a native call if need be."""
    try:
        while True:
            message = channel.receive()
            loaded.wait()
            servers[0].take(message)
    except EOFError:
        os._exit(0)


def _pulse(send: Send, servers: list[Server], parent: int) -> None:
    """Tell now and then that work goes on; end with the parent, though another child of its may hold the pipe open."""
    told = 0
    never = threading.Event()
    while not never.wait(_PULSE_SECONDS):
        if os.getppid() != parent:
            os._exit(0)
        progress = servers[0].progress if servers else told
        if progress != told:
            told = progress
            send(messages.Alive())


if __name__ == "__main__":
    main()
