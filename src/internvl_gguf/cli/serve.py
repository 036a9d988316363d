"""`internvl serve`: a model for other programs, by OpenAI's and Anthropic's interfaces, and a page for a browser."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from internvl_gguf.cli import options
from internvl_gguf.cli.asking_options import AskingOptions, takes_asking_options
from internvl_gguf.cli.judges import with_named_judge
from internvl_gguf.cli.output import say, show_library_log
from internvl_gguf.cli.parameters import VARIABLES, Group, expand, parameters_of, taken
from internvl_gguf.cli.run import option_errors
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.server.serve_options import ListenOptions, ModelOptions, TakenOptions

_LIBRARIES: Final = ("llguidance>=1.9,<2", "prometheus-client>=0.22", "starlette>=1.0,<2", "uvicorn>=0.54,<0.55")
"""The requirements of the extra `serve`; a test compares them with pyproject.toml."""


def _own_options(command: Any) -> Any:
    """Decorator: replaces the parameters `listening`, `taking` and `models_kept` by the options of the server."""

    def group(configuration: Any) -> Group:
        def build(values: dict[str, Any]) -> Any:
            with option_errors():
                return taken(configuration, values)

        return Group(tuple(parameters_of(configuration, are_shared=False)), build)

    groups = {"listening": ListenOptions, "taking": TakenOptions, "keeping": ModelOptions}
    return expand(command, {name: group(configuration) for name, configuration in groups.items()})


@takes_asking_options
@_own_options
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
    *,
    listening: ListenOptions,
    taking: TakenOptions,
    keeping: ModelOptions,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show a line for each request, without what it says.")
    ] = False,
    log: Annotated[bool, typer.Option("--log", "-vv", help="Show that and llama.cpp's log.")] = False,
    asking: AskingOptions,
) -> None:
    """Serve models to other programs by OpenAI's and Anthropic's interfaces, and a page to a browser.

    `internvl serve demo` and a browser at http://127.0.0.1:8080 show what it does. Options of pictures and answers
    are for requests that say nothing else. Ctrl-C ends it; docs/server.md says what each interface takes.
    """
    if log:
        show_library_log()
    with option_errors():
        keys, sampling = _keys(listening), with_named_judge(asking.sampling)
        _check_library()
        from internvl_gguf.server.guard import is_loopback
        from internvl_gguf.server.run import listen

        is_local = is_loopback(listening.host)
        opened = listen(listening.host, listening.port)
        if not keys and not is_local:
            opened.close()
            raise InvalidRequestError(
                f"{listening.host} can be reached from other machines, and no key is set.",
                f"Set {VARIABLES}_API_KEY or --api-key-file, or leave --host out.",
            )
        _check_files(listening.tls_cert, listening.tls_key)
        _check_folder(taking.media_root)
    if keys and not is_local and listening.tls_cert is None:
        say("Keys and pictures travel in clear text; --tls-cert and --tls-key, or a proxy before it, encrypt them.")
    from internvl_gguf.cli.serve_job import ServeJob, run_server  # only now: it brings all that a model needs

    asking = replace(asking, sampling=sampling)
    run_server(ServeJob(models or [], keys, opened, listening, taking, keeping, asking, shows_requests=verbose or log))


def _check_library() -> None:
    try:
        import prometheus_client
        import starlette
        import uvicorn
    except ImportError as error:
        raise InvalidRequestError(
            f"The server needs {error.name}, which is not installed.",
            f"Run {sys.executable} -m pip install {' '.join(map(shlex.quote, _LIBRARIES))}.",
        ) from None
    del prometheus_client, starlette, uvicorn


def _keys(listening: ListenOptions) -> list[str]:
    keys = [key.strip() for key in listening.api_key]
    if listening.api_key_file is not None:
        try:
            lines = Path(listening.api_key_file).read_text("utf-8").splitlines()
            keys += [line.strip() for line in lines if line.strip()]
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise InvalidRequestError(f"--api-key-file cannot be read: {reason}.", "Name a file of keys.") from None
        if not keys:
            raise InvalidRequestError("--api-key-file has no key.", "Write one a line.")
    if not all(keys):
        raise InvalidRequestError("A key is empty.", "Give a long random text, as `openssl rand -hex 32` makes one.")
    return keys


def _check_files(*files: str | None) -> None:
    for file in files:
        if file is not None and not os.access(file, os.R_OK):
            raise InvalidRequestError(f"{file} cannot be read.", "Name a file in PEM format.")


def _check_folder(folder: str | None) -> None:
    if folder is not None and not Path(folder).is_dir():
        raise InvalidRequestError(f"--media-root {folder} is no folder.", "Name a folder of pictures.")
