"""Main module of the worker process. It ends when its parent does, even in the middle of a native call."""

from __future__ import annotations

import os
import threading
from typing import Final

from internvl_gguf.errors import InternVLError
from internvl_gguf.session.worker import messages
from internvl_gguf.session.worker.channel import Channel
from internvl_gguf.session.worker.child_side import Send, channel_to_parent, log_to_parent, sender
from internvl_gguf.session.worker.serving import Server

_HEARTBEAT_SECONDS: Final = 1.0


def main() -> None:
    """Load the model that the first message names, and serve it until the parent closes it."""
    parent = os.getppid()
    channel = channel_to_parent()
    send = sender(channel)
    load: messages.Load = channel.receive()
    log_to_parent(send, load.log_level, messages.LogLine)
    loaded = threading.Event()
    servers: list[Server] = []
    threading.Thread(target=_read, args=(channel, servers, loaded), daemon=True).start()
    threading.Thread(target=_send_heartbeats, args=(send, servers, parent), daemon=True).start()
    try:
        from internvl_gguf.session.in_process_runtime import InProcessRuntime

        runtime = InProcessRuntime(
            load.files,
            load.config,
            lambda done: send(messages.Loading(done)),
            lambda line: send(messages.NoticeLine(line)),
            load.pictures,
        )
    except InternVLError as error:
        send(messages.NotLoaded(error))
        os._exit(0)
    server = Server(runtime, send)
    servers.append(server)
    loaded.set()
    send(
        messages.Loaded(
            messages.ModelFacts(
                text=runtime.text,
                vision=runtime.vision,
                control_tokens=dict(runtime.control_tokens),
                configuration=runtime.configuration,
                host=runtime.host,
                encoder_identity=runtime.encoder_identity,
                n_ctx=runtime.engine.n_ctx,
                n_parallel=runtime.engine.n_parallel,
                n_candidates=runtime.engine.n_candidates,
                n_vocab=runtime.engine.model.n_vocab,
            )
        )
    )
    server.run()
    runtime.release()
    os._exit(0)  # without waiting for the threads that read and write


def _read(channel: Channel, servers: list[Server], loaded: threading.Event) -> None:
    """Pass on received messages; end the process when the parent does, even in the middle of a native call."""
    try:
        while True:
            message = channel.receive()
            loaded.wait()
            servers[0].take(message)
    except EOFError:
        os._exit(0)


def _send_heartbeats(send: Send, servers: list[Server], parent: int) -> None:
    """Send a heartbeat each second in which work went on; end with the parent, though a sibling holds the pipe open."""
    last = 0
    never = threading.Event()
    while not never.wait(_HEARTBEAT_SECONDS):
        if os.getppid() != parent:
            os._exit(0)
        progress = servers[0].progress if servers else last
        if progress != last:
            last = progress
            send(messages.Heartbeat())


if __name__ == "__main__":
    main()
