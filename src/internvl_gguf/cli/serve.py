"""`internvl serve`: a model for other programs, by OpenAI's and Anthropic's interfaces, and a page for a browser."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Final

import typer

from internvl_gguf.cli import options
from internvl_gguf.cli.asking_options import AskingOptions, takes_asking_options
from internvl_gguf.cli.output import say, show_library_log
from internvl_gguf.cli.parameters import VARIABLES
from internvl_gguf.cli.run import option_errors
from internvl_gguf.config import MAX_SEQUENCES
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.hardware.cpu_tuning import host_settings

_LISTENING: Final = "Who may ask"
_REQUESTS: Final = "What is taken"
_MODELS: Final = "The models"
_MIB: Final = 2**20


@takes_asking_options
def serve(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL",
            help="The models (names with :QUANT, owner/repo:QUANT, .gguf paths or `demo`; "
            f"{options.MODEL_VARIABLE} if left out). The first is loaded at once, each other when it is asked for.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Listen on this address. Others than this machine's own need a key.",
            rich_help_panel=_LISTENING,
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option("--port", "-p", min=0, max=65535, help="Port; 0 takes a free one.", rich_help_panel=_LISTENING),
    ] = 8080,
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            "--api-key",
            metavar="KEY",
            help="Answer only requests that bring this key; may be repeated. Other users of the machine can see a key "
            f"on the command line: better set {VARIABLES}_API_KEY.",
            envvar=f"{VARIABLES}_API_KEY",
            show_default=False,
            rich_help_panel=_LISTENING,
        ),
    ] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Read keys from a file, one a line.", show_default=False, rich_help_panel=_LISTENING
        ),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A further name that the server may be called by, as a proxy before it passes on; may be repeated.",
            show_default=False,
            rich_help_panel=_LISTENING,
        ),
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN",
            help="Let pages of this origin ask, such as https://chat.example.org; may be repeated.",
            show_default=False,
            rich_help_panel=_LISTENING,
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Certificate for HTTPS.", show_default=False, rich_help_panel=_LISTENING),
    ] = None,
    tls_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Private key of --tls-cert.", show_default=False, rich_help_panel=_LISTENING),
    ] = None,
    allow_remote_images: Annotated[
        bool,
        typer.Option(
            "--allow-remote-images",
            help="Fetch pictures whose address a request names, from public addresses only.",
            rich_help_panel=_REQUESTS,
        ),
    ] = False,
    media_root: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Let requests name files in this folder by file://.",
            show_default=False,
            rich_help_panel=_REQUESTS,
        ),
    ] = None,
    max_body: Annotated[
        int, typer.Option(metavar="MIB", min=1, max=4096, help="Most MiB of a request.", rich_help_panel=_REQUESTS)
    ] = 64,
    max_pictures: Annotated[
        int, typer.Option(metavar="N", min=1, max=4096, help="Most pictures of a request.", rich_help_panel=_REQUESTS)
    ] = 64,
    parallel: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            max=MAX_SEQUENCES - 1,
            help="Requests answered at once by a model, each with a KV cache; the others wait in turn. Left out, it is "
            "as `internvl doctor --measure` found best, or 1.",
            show_default=False,
            rich_help_panel=_MODELS,
        ),
    ] = None,
    conversations: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            max=MAX_SEQUENCES,
            help="Conversations whose KV cache is kept; one more than --parallel if left out and there is memory.",
            show_default=False,
            rich_help_panel=_MODELS,
        ),
    ] = None,
    queue: Annotated[
        int,
        typer.Option(metavar="N", min=0, help="Requests that may wait for a model.", rich_help_panel=_MODELS),
    ] = 64,
    idle_unload: Annotated[
        float | None,
        typer.Option(
            metavar="MINUTES",
            min=0.0,
            help="Unload a model that was not asked for so long; the next request loads it again.",
            show_default=False,
            rich_help_panel=_MODELS,
        ),
    ] = None,
    alias: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A further name of the first model, for programs that ask for a fixed one; may be repeated.",
            show_default=False,
            rich_help_panel=_MODELS,
        ),
    ] = None,
    grace: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            min=0.0,
            help="What requests under way have to finish when the server is stopped.",
            rich_help_panel=_MODELS,
        ),
    ] = 30.0,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show a line for each request, without what it says.")
    ] = False,
    log: Annotated[bool, typer.Option("--log", "-vv", help="Show that and llama.cpp's log.")] = False,
    *,
    asking: AskingOptions,
) -> None:
    """Serve models to other programs by OpenAI's and Anthropic's interfaces, and a page to a browser.

    Ctrl-C ends it. docs/server.md says what each interface takes.
    """
    if log:
        show_library_log()
    with option_errors():
        keys = _keys(api_key, api_key_file)
        _check_library()
        from internvl_gguf.server.guard import is_loopback
        from internvl_gguf.server.run import ListenSettings, listen

        if not keys and not is_loopback(host):
            raise InvalidRequestError(
                f"{host} can be reached from other machines, and no key is set.",
                f"Set {VARIABLES}_API_KEY or --api-key-file, or leave --host out.",
            )
        if (tls_cert is None) != (tls_key is None):
            raise InvalidRequestError("A certificate needs its key, and a key its certificate.", "Give both or none.")
        _check_files(tls_cert, tls_key)
        _check_folder(media_root)
        origins = [_origin(each) for each in cors_origin or []]
        measured = host_settings(asking.engine.n_threads).n_parallel
        parallel = parallel or min(measured, conversations or measured)
        if conversations is not None and conversations < parallel:
            raise InvalidRequestError(
                f"--conversations {conversations} is less than --parallel {parallel}.", "Each answer needs a KV cache."
            )
        listening = ListenSettings(
            host, port, grace, str(tls_cert) if tls_cert else None, str(tls_key) if tls_key else None
        )
        opened = listen(listening)
    if keys and not is_loopback(host) and tls_cert is None:
        say("Keys and pictures travel in clear text; --tls-cert and --tls-key, or a proxy before it, encrypt them.")
    from internvl_gguf.cli.serve_job import ServeJob, run_server  # only now: it brings all that a model needs

    job = ServeJob(
        models=models or [],
        keys=keys,
        listening=listening,
        opened=opened,
        allowed_hosts=allowed_host or [],
        cors_origins=origins,
        allow_remote_images=allow_remote_images,
        media_root=media_root,
        max_body=max_body * _MIB,
        max_pictures=max_pictures,
        parallel=parallel,
        conversations=conversations,
        queue=queue,
        idle_seconds=None if idle_unload is None else idle_unload * 60,
        aliases=alias or [],
        shows_requests=verbose or log,
        asking=asking,
    )
    run_server(job)


def _check_library() -> None:
    try:
        import prometheus_client
        import starlette
        import uvicorn
    except ImportError as error:
        raise InvalidRequestError(
            f"The server needs {error.name}, which is not installed.", "Run pip install 'internvl-gguf[serve]'."
        ) from None
    del prometheus_client, starlette, uvicorn


def _keys(given: list[str] | None, file: Path | None) -> list[str]:
    keys = [key.strip() for key in given or []]
    if file is not None:
        try:
            keys += [line.strip() for line in file.read_text("utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise InvalidRequestError(f"--api-key-file cannot be read: {reason}.", "Name a file of keys.") from None
        if not keys:
            raise InvalidRequestError("--api-key-file has no key.", "Write one a line.")
    if not all(keys):
        raise InvalidRequestError("A key is empty.", "Give a long random text, as `openssl rand -hex 32` makes one.")
    return keys


def _origin(text: str) -> str:
    scheme, separator, rest = text.partition("://")
    if text == "*" or not separator or scheme not in ("http", "https") or not rest or "/" in rest.rstrip("/"):
        raise InvalidRequestError(
            f"--cors-origin {text} is no origin.", "Write the scheme, the name and the port: https://chat.example.org."
        )
    return text.rstrip("/")


def _check_files(*files: Path | None) -> None:
    for file in files:
        if file is not None and not os.access(file, os.R_OK):
            raise InvalidRequestError(f"{file} cannot be read.", "Name a file in PEM format.")


def _check_folder(folder: Path | None) -> None:
    if folder is not None and not folder.is_dir():
        raise InvalidRequestError(f"--media-root {folder} is no folder.", "Name a folder of pictures.")
