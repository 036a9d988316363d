"""Run the server that a command line describes: find the models, then serve them."""

from __future__ import annotations

import contextlib
import re
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
from internvl_gguf.config import EngineConfig, SamplingParams
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.hardware.cpu_tuning import host_settings
from internvl_gguf.planning.auto_quant import machine_chooser
from internvl_gguf.server.app import ServiceSettings
from internvl_gguf.server.chat_request import AnswerDefaults
from internvl_gguf.server.guard import GuardSettings
from internvl_gguf.server.model_pool import ModelSettings
from internvl_gguf.server.pictures import PictureSources
from internvl_gguf.server.remote_pictures import FetchLimits, RemotePictures
from internvl_gguf.server.run import ListenSettings, address_of, serve
from internvl_gguf.server.serve_options import ListenOptions, ModelOptions, TakenOptions
from internvl_gguf.session.thinking import cannot_think, files_can_think

if TYPE_CHECKING:
    from internvl_gguf.models.local_files import ModelFiles

_PART: Final = re.compile(r"-00001-of-\d{5}$")
_PICTURE_BYTES: Final = 48 * 2**20


@dataclass(frozen=True)
class ServeJob:
    """The request given to `internvl serve`.

    Attributes:
        models: names of the models.
        keys: keys of which a request must bring one.
        opened: the port.
        listening, taking, keeping, asking: the options.
        shows_requests: whether each request is shown.
    """

    models: Sequence[str]
    keys: Sequence[str]
    opened: socket.socket
    listening: ListenOptions
    taking: TakenOptions
    keeping: ModelOptions
    asking: AskingOptions
    shows_requests: bool


def run_server(job: ServeJob) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Raises:
        InternVLError: a model that cannot be found or fetched, or a certificate that cannot be used.
    """
    listening, keeping, asking = job.listening, job.keeping, job.asking
    _check_certificate(listening)
    names = list(job.models) or [options.chosen_model(None)]
    chooser = machine_chooser(asking.engine, asking.pictures)
    with contextlib.ExitStack() as opening:
        opening.callback(job.opened.close)
        files = [obtain(name, asking.mmproj, chooser) for name in dict.fromkeys(names)]
        _check_thinking(files, asking.sampling)
        opening.pop_all()
    models = ModelSettings(
        config=asking.engine,
        parallel=keeping.answers_at_once(host_settings(asking.engine.n_threads).n_parallel),
        conversations=keeping.conversations,
        most_waiting=keeping.queue,
        idle_seconds=None if keeping.idle_unload is None else keeping.idle_unload * 60,
        worker_timeout=asking.worker_timeout,
        pictures=asking.pictures,
    )
    address = address_of(job.opened, listening.host, is_encrypted=listening.tls_cert is not None)
    say(f"Serving on {address} (a page for a browser; /v1 for programs). Ctrl-C ends it.")
    serve(
        _named(files),
        keeping.alias,
        models,
        _service_settings(job),
        ListenSettings(keeping.grace, listening.tls_cert, listening.tls_key),
        job.opened,
        lambda line: say(in_flags(line, EngineConfig)),
    )


def _check_thinking(files: Sequence[ModelFiles], sampling: SamplingParams) -> None:
    """Refuse to let models think if none of them can; say which cannot beside others that can.

    Raises:
        InvalidRequestError: none can.
        ModelFileError: a header that cannot be read.
    """
    if not sampling.thinks:
        return
    unable = [each.label for each in files if not files_can_think(each)]
    if len(unable) == len(files):
        raise cannot_think(" and ".join(unable))
    for name in unable:
        say(f"{name} cannot think: what is asked of it is answered without a thought.")


def _service_settings(job: ServeJob) -> ServiceSettings:
    listening, taking, asking = job.listening, job.taking, job.asking
    max_body, max_clip = taking.max_body * 2**20, taking.max_clip * 2**20
    return ServiceSettings(
        guard=GuardSettings(job.keys, listening.host, listening.allowed_host, listening.cors_origin),
        sources=PictureSources(
            most=taking.max_pictures,
            most_bytes=min(_PICTURE_BYTES, max_body),
            clip_bytes=max_clip,
            all_bytes=max(max_body, max_clip),
            remote=RemotePictures(FetchLimits(clip_bytes=max_clip)) if taking.allow_remote_images else None,
            media_root=None if taking.media_root is None else Path(taking.media_root),
        ),
        defaults=AnswerDefaults(asking.system, asking.sampling, asking.pictures),
        max_body=max_body,
        tell_request=say if job.shows_requests else None,
    )


def _named(files: Sequence[ModelFiles]) -> list[tuple[str, ModelFiles]]:
    """Return models with the names that requests call them by: a file's without its folder and ending."""
    named: dict[str, ModelFiles] = {}
    for each in files:
        found = full_name(each)
        name = _PART.sub("", each.text.stem) if Path(found).is_absolute() else found
        unique, number = name, 2
        while unique.lower() in {other.lower() for other in named}:
            unique, number = f"{name}-{number}", number + 1
        named[unique] = each
    return list(named.items())


def _check_certificate(listening: ListenOptions) -> None:
    if listening.tls_cert is None:
        return
    with option_errors():
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(listening.tls_cert, listening.tls_key)
        except (ssl.SSLError, OSError):
            raise InvalidRequestError(
                "The certificate and the key cannot be used together.", "Give both in PEM format, the key unencrypted."
            ) from None
