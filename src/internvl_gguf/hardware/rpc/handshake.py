"""Ask an RPC server what it is: version of the protocol, devices with their memory, and the network to it."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from internvl_gguf.errors import RPCServerError
from internvl_gguf.hardware.remote_device import UNKNOWN_REMOTE, RemoteDevice
from internvl_gguf.hardware.rpc.connection import Command, Connection
from internvl_gguf.hardware.rpc.protocol import ProtocolVersion
from internvl_gguf.utils.rpc_addresses import RPCAddress

SECONDS: Final = 5.0
"""Time limit for everything that a server is asked."""
_CAPABILITIES: Final = bytes(24)  # of the transport: none, which is TCP
_MOST_DEVICES: Final = 16
_ROUND_TRIPS: Final = 5
_TRANSFER: Final = 2**20
_LEAST_SECONDS: Final = 1e-4  # a transfer that is faster is not measured better than that
_NUMBER, _LONG, _LONGS = struct.Struct("<I"), struct.Struct("<Q"), struct.Struct("<QQ")
_ALLOCATION: Final = struct.Struct("<IQ")
# `rpc_tensor`: id, type, buffer, 4 extents, 4 strides, operation, its parameters, flags, 10 sources, view, offset,
# data, name, uses.
_TENSOR: Final = struct.Struct("<QIQ4I4II64si10QQQQ64si")
_FLOAT32: Final = 4  # bytes


@dataclass(frozen=True)
class DeviceReport:
    """A device that a server offers.

    Attributes:
        free_bytes, total_bytes: its memory, as the server says. A CPU calls all memory of its machine free.
        remote: its kind, and the network to it.
    """

    free_bytes: int
    total_bytes: int
    remote: RemoteDevice


@dataclass(frozen=True)
class ServerReport:
    """The answers of a server.

    Attributes:
        address: as it was typed.
        endpoint: the numeric address that it was reached at.
        protocol: the version that it speaks.
        devices: what it offers.
    """

    address: RPCAddress
    endpoint: str
    protocol: ProtocolVersion
    devices: tuple[DeviceReport, ...]


def ask_servers(servers: Sequence[str], ours: ProtocolVersion | None, seconds: float = SECONDS) -> list[ServerReport]:
    """Ask servers, one after another; each connection is closed before the next begins.

    Args:
        servers: their addresses.
        ours: the version that the installed library speaks; None accepts any that the handshake can read.
        seconds: time limit for each.

    Raises:
        RPCServerError: one cannot be reached, gives no answer in time, or speaks another version.
    """
    found: list[ServerReport] = []
    for server in servers:
        report = ask_server(RPCAddress.of(server), ours, seconds)
        same = next((other for other in found if other.endpoint == report.endpoint), None)
        if same:
            raise RPCServerError(
                f"{same.address} and {report.address} are the same RPC server.",
                "Name each server once: it serves one client at a time.",
            )
        found.append(report)
    return found


def ask_server(address: RPCAddress, ours: ProtocolVersion | None, seconds: float = SECONDS) -> ServerReport:
    """Ask one server; see `ask_servers`."""
    with Connection(address, seconds) as connection:
        theirs = _hello(connection, address, ours)
        count = _number(connection.ask(Command.DEVICE_COUNT), address)
        if not 1 <= count <= _MOST_DEVICES:
            raise _unreadable(address)
        round_trip = min(_round_trips(connection))
        devices = tuple(_devices(connection, address, count, round_trip))
        return ServerReport(address, connection.endpoint, theirs, devices)


def _hello(connection: Connection, address: RPCAddress, ours: ProtocolVersion | None) -> ProtocolVersion:
    answer = connection.ask(Command.HELLO, _CAPABILITIES)
    if len(answer) < 3:
        raise _unreadable(address)
    theirs = ProtocolVersion(*answer[:3])
    if ours is not None and not ours.understands(theirs):
        raise RPCServerError(
            f"The RPC server {address} speaks version {theirs} of the protocol, and the installed llama.cpp {ours}.",
            "Use the same version of llama.cpp on both sides.",
        )
    return theirs


def _devices(connection: Connection, address: RPCAddress, count: int, round_trip: float) -> Iterator[DeviceReport]:
    bandwidth: float | None = None
    for number in range(count):
        answer = connection.ask(Command.GET_DEVICE_MEMORY, _NUMBER.pack(number))
        if len(answer) != _LONGS.size:
            raise _unreadable(address)
        free, total = _LONGS.unpack(answer)
        if bandwidth is None:  # the network is the same to all of them
            bandwidth = _bandwidth(connection, number, round_trip)
        # A GPU that serves has a context in its memory; ggml calls all memory of a CPU free.
        kind: Literal["cpu", "gpu"] = "cpu" if free == total else "gpu"
        yield DeviceReport(free, total, RemoteDevice(kind, round_trip, bandwidth))


def _round_trips(connection: Connection) -> Iterator[float]:
    for _ in range(_ROUND_TRIPS):
        started = time.perf_counter()
        connection.ask(Command.DEVICE_COUNT)
        yield time.perf_counter() - started


def _bandwidth(connection: Connection, device: int, round_trip: float) -> float:
    """Return bytes/s of a mebibyte that is sent to a device and fetched back; an assumption if it has no room."""
    allocated = connection.ask(Command.ALLOC_BUFFER, _ALLOCATION.pack(device, _TRANSFER))
    buffer = _LONGS.unpack(allocated)[0] if len(allocated) == _LONGS.size else 0
    if not buffer:
        return UNKNOWN_REMOTE.bandwidth
    (base,) = _LONG.unpack(connection.ask(Command.BUFFER_GET_BASE, _LONG.pack(buffer)))
    tensor = _tensor(buffer, base, _TRANSFER)
    started = time.perf_counter()
    connection.tell(Command.SET_TENSOR, tensor + bytes([0]) + _LONG.pack(0) + bytes(_TRANSFER))
    connection.ask(Command.GET_TENSOR, tensor + _LONGS.pack(0, _TRANSFER), longest=_TRANSFER)
    taken = time.perf_counter() - started - round_trip
    connection.tell(Command.FREE_BUFFER, _LONG.pack(buffer))
    return 2 * _TRANSFER / max(taken, _LEAST_SECONDS)


def _tensor(buffer: int, base: int, n_bytes: int) -> bytes:
    """Return a vector of float32 at the beginning of a buffer, as a server reads it."""
    extents, strides = (n_bytes // _FLOAT32, 1, 1, 1), (_FLOAT32, n_bytes, n_bytes, n_bytes)
    return _TENSOR.pack(1, 0, buffer, *extents, *strides, 0, b"", 0, *(0,) * 10, 0, 0, base, b"", 0)


def _number(answer: bytes, address: RPCAddress) -> int:
    if len(answer) != _NUMBER.size:
        raise _unreadable(address)
    return int(_NUMBER.unpack(answer)[0])


def _unreadable(address: RPCAddress) -> RPCServerError:
    return RPCServerError(
        f"The RPC server {address} gave an answer that is none of this version.",
        "Use the same version of llama.cpp on both sides.",
    )
