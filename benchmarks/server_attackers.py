"""Clients that mean no good, in a process of their own; `server_faults.py` starts them.

    python benchmarks/server_attackers.py NAME URL SECONDS

Each attack says when it begins and goes on for so many seconds, as fast as the server answers. The last line says what
it answered, as JSON: numbers of answers by their status; "closed" where the server ended the connection without one,
and "held" for connections that were still open at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import sys
import time
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Final
from urllib.parse import urlsplit

from peers import data_uri
from server_runs import CHAT, question

HEADERS: Final = f"POST {CHAT} HTTP/1.1\r\nHost: {{host}}\r\nContent-Type: application/json\r\n"
DRIPPING, IDLE, FLOODING, STALLING, ASKING = 200, 1000, 2, 20, 4  # connections at once
DRIP_SECONDS: Final = 0.5
PIECE: Final = b"10000\r\n" + b" " * 2**16 + b"\r\n"
HALF: Final = 32 * 2**20
"""Bytes of a body of twice as many that come before it stalls."""
DEEP: Final = 10_000
WIDE, LONG, MESSAGES = 16, 4, 1000  # MiB of empty lists, MiB of text, messages of a conversation
SIDE: Final = 40_000
"""Pixels on a side of the picture that says so; the other one says 8."""


class Attack:
    """One kind of attack on a server until its time is over.

    Attributes:
        answers: how often each answer came.
    """

    def __init__(self, url: str, seconds: float) -> None:
        self._host, self._port = str(urlsplit(url).hostname), urlsplit(url).port
        self._seconds, self._end = seconds, 0.0
        self.answers: Counter[str] = Counter()
        self._headers = HEADERS.format(host=urlsplit(url).netloc)

    @property
    def is_over(self) -> bool:
        """Whether its time is."""
        return time.monotonic() >= self._end

    async def slow_headers(self) -> None:
        """Headers that come one byte after the other."""
        await self._repeat(DRIPPING, self._drip)

    async def idle(self) -> None:
        """Connections on which nothing is ever said."""
        await self._repeat(IDLE, self._wait)

    async def endless_body(self) -> None:
        """A body without an end, in chunks."""
        await self._repeat(FLOODING, self._flood)

    async def half_bodies(self) -> None:
        """Bodies of which one half comes, and then a byte now and then."""
        await self._repeat(STALLING, self._stall)

    async def deep_json(self) -> None:
        """Lists in lists, `DEEP` of them: as the body, and as the content of a message."""
        deep = b"[" * DEEP + b"]" * DEEP
        bodies = (deep, b'{"messages": [{"role": "user", "content": ' + deep + b"}]}", b'{"a": ' * DEEP)
        await self._repeat(ASKING, lambda: self._ask(bodies))

    async def wide_json(self) -> None:
        """Millions of empty lists, which take far more memory than their text."""
        await self._repeat(1, lambda: self._ask((b'{"messages": [' + b"[]," * (WIDE * 2**20 // 3) + b"[]]}",)))

    async def long_text(self) -> None:
        """A text far longer than any context, of few and of many words."""
        bodies = tuple(json.dumps(question(text * (LONG * 2**20 // len(text)))).encode() for text in ("a", "word "))
        await self._repeat(1, lambda: self._ask(bodies))

    async def many_messages(self) -> None:
        """A conversation of many short messages, all different."""
        body = question("And now?", max_tokens=1)
        body["messages"] = [{"role": "system", "content": f"{n}"} for n in range(MESSAGES)] + body["messages"]
        await self._repeat(1, lambda: self._ask((json.dumps(body).encode(),)))

    async def bombs(self) -> None:
        """Pictures that decode to far more than they are: a huge one, and one with far more rows than it says."""
        bodies = [
            json.dumps(question("What is it?", data_uri(png).replace("jpeg", "png"), max_tokens=1)).encode()
            for png in (bomb(SIDE, 2**26), bomb(8, 2**28))
        ]
        await self._repeat(ASKING, lambda: self._ask(bodies))

    async def _repeat(self, count: int, attack: Callable[[], Coroutine[Any, Any, None]]) -> None:
        print("begins", flush=True)
        self._end = time.monotonic() + self._seconds

        async def again() -> None:
            while not self.is_over:
                await attack()

        await asyncio.gather(*(again() for _ in range(count)))

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection(self._host, self._port)
        try:
            yield reader, writer
        finally:
            writer.close()

    async def _drip(self) -> None:
        await self._held(self._headers.encode() + b"X: " + b"y" * 10_000, DRIP_SECONDS)

    async def _wait(self) -> None:
        await self._held(b"", 1.0)

    async def _stall(self) -> None:
        begin = f"{self._headers}Content-Length: {2 * HALF}\r\n\r\n".encode() + b" " * HALF
        await self._held(b" " * 10_000, DRIP_SECONDS, begin)

    async def _held(self, said: bytes, pause: float, begin: bytes = b"") -> None:
        """Say something byte by byte, until the server answers or ends it, or the time is over."""
        try:
            async with self._connection() as (reader, writer):
                writer.write(begin)
                await writer.drain()
                answer = asyncio.ensure_future(reader.readline())
                position = 0
                while not self.is_over and not answer.done():
                    writer.write(said[position : position + 1])
                    position += 1
                    await asyncio.wait([answer], timeout=min(pause, max(self._end - time.monotonic(), 0)))
                if answer.done():
                    self._note(answer.result())
                else:
                    answer.cancel()
                    self.answers["held"] += 1
        except OSError:
            self.answers["closed"] += 1
            await asyncio.sleep(DRIP_SECONDS)

    async def _flood(self) -> None:
        try:
            async with self._connection() as (reader, writer):
                writer.write(self._headers.encode() + b"Transfer-Encoding: chunked\r\n\r\n")
                answer = asyncio.ensure_future(reader.readline())
                while not self.is_over and not answer.done():
                    writer.write(PIECE)
                    await writer.drain()
                    await asyncio.sleep(0)
                await asyncio.wait([answer], timeout=0 if self.is_over else None)
                if answer.done():
                    self._note(answer.result())
                else:
                    answer.cancel()
                    self.answers["held"] += 1
        except OSError:
            self.answers["closed"] += 1

    async def _ask(self, bodies: tuple[bytes, ...] | list[bytes]) -> None:
        for body in bodies:
            try:
                async with self._connection() as (reader, writer):
                    writer.write(f"{self._headers}Content-Length: {len(body)}\r\n\r\n".encode() + body)
                    self._note(await reader.readline())
            except OSError:
                self.answers["closed"] += 1

    def _note(self, line: bytes) -> None:
        parts = line.split()
        self.answers[parts[1].decode() if len(parts) > 1 else "closed"] += 1


ATTACKS: Final[dict[str, Callable[[Attack], Coroutine[Any, Any, None]]]] = {
    "slow headers": Attack.slow_headers,
    "endless body": Attack.endless_body,
    "half bodies": Attack.half_bodies,
    "deep JSON": Attack.deep_json,
    "wide JSON": Attack.wide_json,
    "long text": Attack.long_text,
    "many messages": Attack.many_messages,
    "picture bombs": Attack.bombs,
    "idle connections": Attack.idle,
}
ABOUT: Final = {
    "slow headers": f"{DRIPPING} connections whose headers come byte by byte",
    "endless body": f"{FLOODING} connections with bodies without an end",
    "half bodies": f"{STALLING} connections that stall after half of a body of {2 * HALF >> 20} MiB",
    "deep JSON": f"{ASKING} connections with JSON {DEEP:,} deep",
    "wide JSON": f"1 connection with {WIDE} MiB of empty lists",
    "long text": f"1 connection with {LONG} MiB of text",
    "many messages": f"1 connection with {MESSAGES:,} messages",
    "picture bombs": f"{ASKING} connections with decompression bombs",
    "idle connections": f"{IDLE:,} connections that say nothing",
}


def bomb(side: int, size: int) -> bytes:
    """A PNG that says it is a square of so many grey pixels, with so many bytes of zeros in it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"".join(zeros(size))) + chunk(b"IEND", b"")


def zeros(size: int) -> Iterator[bytes]:
    """So many zeros, compressed."""
    packer, piece = zlib.compressobj(9), bytes(2**20)
    for _ in range(size // len(piece)):
        yield packer.compress(piece)
    yield packer.flush()


def allow_connections() -> None:
    """As many open files as the system lets this process have."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource  # not on Windows

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> None:
    name, url, seconds = sys.argv[1:]
    allow_connections()
    attack = Attack(url, float(seconds))
    asyncio.run(ATTACKS[name](attack))
    print(json.dumps(attack.answers))


if __name__ == "__main__":
    main()
