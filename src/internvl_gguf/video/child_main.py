"""Decode the frames of one clip: the child process of `internvl_gguf.video.reader`.

    python -P -m internvl_gguf.video.child_main '{"demuxer": "mov", "size": 12345, ...}'

Decoders of clips are large and read what strangers made. This process gets the bytes of the file from its parent, can
open nothing itself, and may die: the parent then refuses the clip. Messages are those of `wire`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from dataclasses import asdict
from typing import IO, Any

from internvl_gguf.video.confinement import confine
from internvl_gguf.video.decoder import ClipRefusedError, Decoder
from internvl_gguf.video.served_file import ServedFile
from internvl_gguf.video.wire import WireError, receive, send

_MOST_THREADS = 4
_NO_PAYLOAD = 0


def _open_decoder(order: dict[str, Any], file: ServedFile) -> Decoder:
    """Import the decoder of a clip, give up the rights of this process, and open the clip.

    Raises:
        ClipRefusedError: it cannot be used.
    """
    threads = min(_MOST_THREADS, os.cpu_count() or 1)
    if order["demuxer"]:
        from internvl_gguf.video import containers
        from internvl_gguf.video.decoder_log import StderrLog

        confine(order["memory"], order["seconds"] * threads)
        return containers.open_container(file, order["demuxer"], order, threads, StderrLog())
    from internvl_gguf.video import animations

    confine(order["memory"], order["seconds"])
    return animations.open_animation(file, order["size"], order["pixels"])


def _serve(order: dict[str, Any], requests: IO[bytes], answers: IO[bytes]) -> None:
    """Open the clip, then send the frames of each request, until there are no more."""
    file = ServedFile(answers, requests, order["size"])
    try:
        decoder = _open_decoder(order, file)
        send(answers, {"info": decoder.facts()})
        while True:
            wanted, _ = receive(requests, _NO_PAYLOAD)
            for frame in decoder.frames(wanted["frames"]):
                shown = {name: value for name, value in asdict(frame).items() if name != "pixels"}
                send(answers, {"frame": shown}, frame.pixels)
            send(answers, {"done": True, "found_damage": decoder.found_damage})
    except ClipRefusedError as refusal:
        send(answers, {"refused": refusal.reason, "hint": refusal.hint})
    except MemoryError:
        send(answers, {"refused": "its decoding takes more memory than the limit", "hint": "Scale it down first."})


def main() -> None:
    """Serve the parent until it is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    with contextlib.suppress(WireError):
        _serve(json.loads(sys.argv[1]), sys.stdin.buffer, sys.stdout.buffer)
    sys.stdout = sys.stderr  # the pipe may be closed, which Python would say at its end


if __name__ == "__main__":
    main()
