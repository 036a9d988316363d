"""Run the server that a command line describes: find the models, then serve them."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from internvl_gguf.cli import options
from internvl_gguf.cli.asking_options import AskingOptions
from internvl_gguf.cli.downloads import full_name, obtain
from internvl_gguf.cli.output import say
from internvl_gguf.cli.parameters import in_flags
from internvl_gguf.cli.run import option_errors
from internvl_gguf.config import EngineConfig
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.planning.auto_quant import machine_chooser
from internvl_gguf.server.app import ServiceSettings
from internvl_gguf.server.chat_request import AnswerDefaults
from internvl_gguf.server.guard import GuardSettings
from internvl_gguf.server.model_pool import ModelSettings
from internvl_gguf.server.pictures import PictureSources
from internvl_gguf.server.remote_pictures import RemotePictures
from internvl_gguf.server.run import ListenSettings, address_of, serve

if TYPE_CHECKING:
    from internvl_gguf.models.local_files import ModelFiles

_PICTURE_BYTES: Final = 48 * 2**20


@dataclass(frozen=True)
class ServeJob:
    """The request given to `internvl serve`; its attributes are the options of the command."""

    models: Sequence[str]
    keys: Sequence[str]
    listening: ListenSettings
    opened: socket.socket
    allowed_hosts: Sequence[str]
    cors_origins: Sequence[str]
    allow_remote_images: bool
    media_root: Path | None
    max_body: int
    max_pictures: int
    parallel: int
    conversations: int | None
    queue: int
    idle_seconds: float | None
    aliases: Sequence[str]
    shows_requests: bool
    asking: AskingOptions


def run_server(job: ServeJob) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Raises:
        InternVLError: a model that cannot be found or fetched, or a certificate that cannot be used.
    """
    _check_certificate(job.listening)
    asking = job.asking
    names = list(job.models) or [options.chosen_model(None)]
    chooser = machine_chooser(asking.engine)
    files = [obtain(name, asking.mmproj, chooser) for name in dict.fromkeys(names)]
    sources = PictureSources(
        most=job.max_pictures,
        most_bytes=min(_PICTURE_BYTES, job.max_body),
        all_bytes=job.max_body,
        remote=RemotePictures() if job.allow_remote_images else None,
        media_root=job.media_root,
    )
    service = ServiceSettings(
        guard=GuardSettings(job.keys, job.listening.host, job.allowed_hosts, job.cors_origins),
        sources=sources,
        defaults=AnswerDefaults(asking.system, asking.sampling, asking.pictures),
        max_body=job.max_body,
        tell_request=say if job.shows_requests else None,
    )
    models = ModelSettings(
        config=asking.engine,
        parallel=job.parallel,
        conversations=job.conversations,
        most_waiting=job.queue,
        idle_seconds=job.idle_seconds,
        worker_timeout=asking.worker_timeout,
    )
    say(f"Serving on {address_of(job.opened, job.listening)} (a page for a browser; /v1 for programs). Ctrl-C ends it.")
    serve(
        _named(files),
        job.aliases,
        models,
        service,
        job.listening,
        job.opened,
        lambda line: say(in_flags(line, EngineConfig)),
    )


def _named(files: Sequence[ModelFiles]) -> list[tuple[str, ModelFiles]]:
    """Return models with the names that requests call them by: a file's without its folder and ending."""
    named: dict[str, ModelFiles] = {}
    for each in files:
        found = full_name(each)
        name = each.text.stem if Path(found).is_absolute() else found
        unique, number = name, 2
        while unique.lower() in {other.lower() for other in named}:
            unique, number = f"{name}-{number}", number + 1
        named[unique] = each
    return list(named.items())


def _check_certificate(listening: ListenSettings) -> None:
    if listening.certificate is None:
        return
    with option_errors():
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
                listening.certificate, listening.private_key
            )
        except (ssl.SSLError, OSError):
            raise InvalidRequestError(
                "The certificate and the key cannot be used together.", "Give both in PEM format, the key unencrypted."
            ) from None
