"""Connections that say nothing, too slowly or too many: they are closed, and others are answered meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.responses import PlainTextResponse

from internvl_gguf.server.connections import BoundedProtocol, raise_descriptor_limit

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Quick(BoundedProtocol):
    """The bounds of a test: a fifth of a second, five connections."""

    header_seconds = 0.2
    most = 5


class Connection:
    """A client's end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def answer(self) -> bytes:
        head = await self._reader.readuntil(b"\r\n\r\n")
        assert b"content-length: 2" in head
        return await self._reader.readexactly(2)

    async def is_closed_by_the_server(self) -> bool:
        try:
            async with asyncio.timeout(30):
                return await self._reader.read() == b""
        except ConnectionError:
            return True

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()


Connect = Callable[[], Awaitable[Connection]]


@asynccontextmanager
async def server(protocol: type[BoundedProtocol] = Quick, keep_alive: int = 60) -> AsyncIterator[Connect]:
    config = uvicorn.Config(
        PlainTextResponse("ok"), port=0, http=protocol, lifespan="off", log_config=None, timeout_keep_alive=keep_alive
    )
    config.load()
    state = uvicorn.server.ServerState()
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: protocol(config, state, {}), "127.0.0.1", 0)
    clients: list[Connection] = []

    async def connect() -> Connection:
        clients.append(Connection(*await asyncio.open_connection(*listening.sockets[0].getsockname())))
        return clients[-1]

    try:
        yield connect
    finally:
        for client in clients:
            await client.close()
        listening.close()
        for connection in list(state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: local"])
def test_headers_have_to_come_in_time(sent: bytes) -> None:
    async def run() -> None:
        async with server() as connect:
            slow, good = await connect(), await connect()
            await slow.send(sent)
            await good.send(REQUEST)
            assert await good.answer() == b"ok"
            assert await slow.is_closed_by_the_server()

    asyncio.run(run())


def test_headers_that_drip_gain_no_time() -> None:
    async def run() -> None:
        async with server() as connect:
            slow = await connect()
            closed = asyncio.create_task(slow.is_closed_by_the_server())
            for byte in REQUEST[:-1]:
                if closed.done():
                    break
                try:
                    await slow.send(bytes([byte]))
                except ConnectionError:
                    break
                await asyncio.wait({closed}, timeout=0.02)
            assert await closed

    asyncio.run(run())


def test_a_second_request_has_to_come_in_time_too() -> None:
    async def run() -> None:
        async with server(keep_alive=0) as connect:
            connection = await connect()
            await connection.send(REQUEST)
            assert await connection.answer() == b"ok"
            assert await connection.is_closed_by_the_server()

    asyncio.run(run())


def test_a_connection_that_is_used_stays() -> None:
    async def run() -> None:
        async with server(keep_alive=60) as connect:
            connection = await connect()
            for _ in range(3):
                await connection.send(REQUEST)
                assert await connection.answer() == b"ok"
            await connection.send(REQUEST + REQUEST)  # two at once
            assert [await connection.answer(), await connection.answer()] == [b"ok", b"ok"]

    asyncio.run(run())


def test_beyond_the_bound_the_oldest_that_says_nothing_gives_way() -> None:
    class Few(Quick):
        header_seconds = 60.0

    async def run() -> None:
        async with server(Few) as connect:
            idle = [await connect() for _ in range(5)]
            used = idle[0]
            await used.send(REQUEST)
            assert await used.answer() == b"ok"
            new = await connect()
            await new.send(REQUEST)
            assert await new.answer() == b"ok"
            assert await idle[1].is_closed_by_the_server()
            await used.send(REQUEST)
            assert await used.answer() == b"ok"

    asyncio.run(run())


def test_the_bound_keeps_within_the_open_files_that_the_system_allows() -> None:
    resource = pytest.importorskip("resource")
    most = raise_descriptor_limit()
    assert 16 <= most < resource.getrlimit(resource.RLIMIT_NOFILE)[0]
