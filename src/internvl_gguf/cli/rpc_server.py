"""`internvl rpc-server`: offer this machine's devices to llama.cpp on another one."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from internvl_gguf.cli.output import say
from internvl_gguf.cli.parameters import Group, expand, parameters_of, taken
from internvl_gguf.cli.run import option_errors
from internvl_gguf.hardware.cpu_tuning import host_settings
from internvl_gguf.hardware.rpc.handshake import ServerReport
from internvl_gguf.hardware.rpc.protocol import installed_protocol
from internvl_gguf.hardware.rpc.server_options import RPCServerOptions
from internvl_gguf.hardware.rpc.serving import ServerSettings, free_port, running_server
from internvl_gguf.utils.records import RPC_WEIGHTS
from internvl_gguf.utils.sizes import rounded_size


def _own_options(command: Any) -> Any:
    """Decorator: replaces the parameter `serving` by the options of the server."""

    def build(values: dict[str, Any]) -> RPCServerOptions:
        with option_errors():
            found: RPCServerOptions = taken(RPCServerOptions, values)
            return found

    return expand(command, {"serving": Group(tuple(parameters_of(RPCServerOptions, are_shared=False)), build)})


@_own_options
def rpc_server(*, serving: RPCServerOptions) -> None:
    """Offer this machine's GPUs, or its CPU, to a model that runs on another machine (`internvl ask --rpc`).

    It needs a llama.cpp that was built with RPC. One client at a time; Ctrl-C ends it. Only this machine can connect:
    others come through ssh, as the line says that is printed. docs/rpc.md says what it is worth.
    """
    installed_protocol()  # before anything is said
    with option_errors():
        port = free_port(serving.address(0).host, serving.port)
    if not serving.is_local:
        say(
            f"WARNING: Host ('{serving.host}') is != '127.0.0.1'. Never expose the RPC server to an open network! This "
            "is an experimental feature and is not secure!"
        )
    settings = ServerSettings(
        address=serving.address(port),
        devices=serving.device,
        n_threads=serving.threads or host_settings().n_threads,
        cache=RPC_WEIGHTS.path if serving.cache_bytes else None,
        cache_bytes=serving.cache_bytes,
    )
    with contextlib.suppress(KeyboardInterrupt), running_server(settings) as (report, lines):
        _tell(report, settings)
        for line in lines:
            say(line)


def _tell(report: ServerReport, settings: ServerSettings) -> None:
    address = settings.address
    devices = ", ".join(
        f"a {device.remote.kind.upper()} with {rounded_size(device.free_bytes)}" for device in report.devices
    )
    say(f"The RPC server listens on {address} (version {report.protocol}) and offers {devices}. Ctrl-C ends it.")
    if settings.cache:
        say(f"Weights are kept in {settings.cache}, up to {rounded_size(settings.cache_bytes)}.")
    if address.is_here:
        name = socket.gethostname()
        say(f"From another machine: ssh -N -L {address.port}:127.0.0.1:{address.port} {name}")
        say(f"  and then, there: internvl ask MODEL PROMPT --rpc 127.0.0.1:{address.port}")
    else:
        say(f"From another machine: internvl ask MODEL PROMPT --rpc {address} --rpc-insecure-network")
