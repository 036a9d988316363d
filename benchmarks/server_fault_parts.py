"""The parts of `server_faults.py`: each asks a server of its own in a way that goes wrong, and says what came of it.

Each takes how much of it is wanted, what decides on random choices, and the folder of what the servers compute.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import httpx2
import psutil

from ours import GRID, jpeg, noise
from peers import data_uri
from server_attackers import ABOUT
from server_runs import CHAT, OurServer, Served, ask, client_of, question, text_of

TILE: Final = 448
SETTLE_SECONDS: Final = 30.0  # within which a server has nothing left to do
HANG_SECONDS: Final = 60.0  # after which an answer counts as hanging
CLIENTS: Final = 4
PROBE_SECONDS: Final = 0.02
ATTACKERS: Final = Path(__file__).with_name("server_attackers.py")
ENDED: Final = "ended before"
KINDS: Final = ("short", "long", "1 tile", "13 tiles")
KNOWN_PICTURES, KNOWN_NUMBERS = 50, 100
EVENTS: Final = {"short": 3, "long": 12, "1 tile": 6, "13 tiles": 20}
"""Events of a stream with which a client may go."""
TEXTS: Final = ("How many shapes are there?", "Is it red?", "What number is written?", "What can you do?")

Row = list[str]
Found = tuple[list[Row], dict[str, Any]]
"""Rows of the table (what, value), and the same for the last line."""


class Questions:
    """Draws requests: short texts, long answers, pictures of one tile and of thirteen.

    Args:
        draw: decides.
    """

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw
        self._large = [data_uri(jpeg(noise(*GRID, TILE, seed))) for seed in range(4)]
        self._small = [data_uri(jpeg(noise(1, 1, 64, seed))) for seed in range(KNOWN_PICTURES)]

    def short(self) -> dict[str, Any]:
        """A question that is answered in a few words, of many."""
        return question(f"{self._draw.choice(TEXTS)} {self._draw.randrange(KNOWN_NUMBERS)}", max_tokens=4)

    def long(self) -> dict[str, Any]:
        """A question with a long answer, which is nonsense: the demo model says little that is longer."""
        return {**self.short(), "max_tokens": 400, "temperature": 2.0, "top_p": 1.0, "top_k": 0}

    def small_picture(self) -> dict[str, Any]:
        """A question about a picture of one tile, of `KNOWN_PICTURES`."""
        return question("What is it?", self._draw.choice(self._small), max_tokens=4)

    def large_picture(self) -> dict[str, Any]:
        """A question about 13 tiles, some of which were seen before."""
        return question("What is it?", self._draw.choice(self._large), max_tokens=40, temperature=1.0)

    def kind(self) -> str:
        """One of `KINDS`."""
        return self._draw.choices(KINDS, (4, 2, 2, 2))[0]

    def of(self, kind: str) -> dict[str, Any]:
        """A question of a kind."""
        return {"short": self.short, "long": self.long, "1 tile": self.small_picture, "13 tiles": self.large_picture}[
            kind
        ]()


def say(line: str) -> None:
    """Progress, on stderr."""
    print(line, file=sys.stderr, flush=True)


def seconds_text(value: float) -> str:
    """Seconds for people."""
    return f"{value:.3f} s" if value < 10 else f"{value:.1f} s"


# Memory


async def memory(count: int, draw: random.Random, cache: Path) -> Found:
    """Many requests, one in five about a picture, from several clients; memory at three moments.

    Questions and pictures come again and again, so that nothing new is kept after the first requests, on purpose.
    """
    questions, done, wrong = Questions(draw), 0, Counter[str]()
    marks: dict[str, tuple[float, float]] = {}
    with OurServer("demo", cache=cache) as server:
        warm_up = max(1, count // 5)

        async def work() -> None:
            nonlocal done
            async with client_of(server.url) as client:
                while done < count + warm_up:
                    done += 1
                    if done == warm_up:
                        marks["start"] = server.memory()
                    if done == warm_up + count // 2:
                        marks["middle"] = server.memory()
                    if done % max(1, count // 10) == 0:
                        say(f"memory: {done:,} of {count:,} requests")
                    found = await ask(client, questions.small_picture() if done % 5 == 0 else questions.short())
                    if not found.is_whole:
                        wrong[found.error] += 1

        started = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(CLIENTS)))
        seconds = time.perf_counter() - started
        marks["end"] = server.memory()
    rows = [
        ["requests", f"{count:,}, {(count + warm_up) / seconds:.0f} a second"],
        ["not answered", f"{wrong.total()}"],
        *(
            [f"memory at the {when}", f"{own:.0f} MiB, and its model {model:.0f} MiB"]
            for when, (own, model) in marks.items()
        ),
    ]
    megabytes = {when: {"server": own, "worker": model} for when, (own, model) in marks.items()}
    return rows, {"requests": count, "wrong": wrong, "mib": megabytes}


# Disconnects


async def disconnects(count: int, draw: random.Random, cache: Path) -> Found:
    """Clients that go at a random moment of their request; afterwards nothing may be left of them."""
    questions, phases = Questions(draw), Counter[str]()
    with OurServer("demo", "--parallel", "2", cache=cache) as server:
        usual = await _usual_seconds(server.url, questions)

        async def work() -> None:
            while phases.total() - phases[ENDED] < count:
                kind = questions.kind()
                moment, events = draw.uniform(0, usual[kind]), 0
                if draw.random() < 0.5:
                    moment, events = HANG_SECONDS, draw.randint(1, EVENTS[kind])
                phases[await _leave(server.url, questions.of(kind), moment, events, draw.random() < 0.7)] += 1
                if phases.total() % max(1, count // 10) == 0:
                    say(f"disconnects: {phases.total():,} requests, {dict(phases)}")

        undisturbed = await _answer(server.url, questions)
        await asyncio.gather(*(work() for _ in range(2 * CLIENTS)))
        settled = await _settle(server)
        after = await _answer(server.url, questions)
        cancelled = server.gauge("internvl_requests_cancelled_total")
        left_over = _left(server)
    rows = [
        ["requests by the moment their client left", _counts(phases)],
        ["requests left 30 s later" if left_over else "no request left after", seconds_text(settled)],
        ["next answer", f"{seconds_text(after.seconds)} (before: {seconds_text(undisturbed.seconds)})"],
    ]
    return rows, {
        "disconnects": phases.total() - phases[ENDED],
        "phases": phases,
        "left": left_over,
        "settled_seconds": settled,
        "next_answer": vars(after),
        "before": undisturbed.seconds,
        "cancelled": cancelled,
    }


async def _usual_seconds(url: str, questions: Questions) -> dict[str, float]:
    """Seconds that a request of each kind takes when several ask."""
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}

    async def work() -> None:
        async with client_of(url) as client:
            for kind in KINDS:
                found[kind].append((await ask(client, questions.of(kind))).seconds)

    await asyncio.gather(*(work() for _ in range(2 * CLIENTS)))
    return {kind: statistics.median(seconds) for kind, seconds in found.items()}


async def _leave(url: str, body: dict[str, Any], seconds: float, events: int, is_streamed: bool) -> str:
    """Ask, and go after so many seconds, or with an event of the stream; the phase that the request was in."""
    phase, seen, enough = "sent or queued", 0, asyncio.Event()

    def saw(event: dict[str, Any]) -> None:
        nonlocal phase, seen
        phase = event.get("progress", {}).get("phase") or ("decoding" if text_of(event) else phase)
        seen += bool(event)
        if seen == events:
            enough.set()

    async with client_of(url) as client:
        if events or is_streamed:
            asking: Any = asyncio.create_task(ask(client, {**body, "return_progress": True}, saw=saw))
        else:
            phase, asking = "not streamed", asyncio.create_task(client.post(CHAT, json=body))
        leaving = asyncio.create_task(enough.wait())
        await asyncio.wait((asking, leaving), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        has_ended = asking.done()
        for task in (asking, leaving):
            task.cancel()
        await asyncio.gather(asking, leaving, return_exceptions=True)
    return ENDED if has_ended else phase


def _counts(found: Counter[str]) -> str:
    return ", ".join(f"{number:,} {what}" for what, number in found.most_common())


def _left(server: OurServer) -> float:
    """Requests that run or wait."""
    return server.gauge("internvl_requests_running") + server.gauge("internvl_requests_waiting")


async def _settle(server: OurServer) -> float:
    """Seconds until no request runs or waits; `SETTLE_SECONDS` if some stay."""
    started = time.perf_counter()
    while _left(server) and time.perf_counter() - started < SETTLE_SECONDS:
        await asyncio.sleep(0.01)
    return time.perf_counter() - started


async def _answer(url: str, questions: Questions) -> Served:
    """One good question."""
    async with client_of(url) as client:
        return await ask(client, questions.short(), HANG_SECONDS)


# Kills


async def kills(count: int, draw: random.Random, cache: Path) -> Found:
    """Kill the process of the model under load; each request ends whole or in words, and service comes back."""
    questions, killed, back, outcomes = Questions(draw), 0, list[float](), Counter[str]()
    with OurServer("demo", "--parallel", "2", cache=cache) as server:
        is_over = False

        async def work() -> None:
            async with client_of(server.url) as client:
                while not is_over:
                    outcomes[_outcome(await ask(client, questions.of(questions.kind()), HANG_SECONDS))] += 1

        load = [asyncio.create_task(work()) for _ in range(CLIENTS)]
        while killed < count:
            await asyncio.sleep(draw.uniform(0, 1.0))
            for worker in server.workers():
                with contextlib.suppress(psutil.Error):
                    worker.kill()
                    killed += 1
                    is_last = killed == count or draw.random() < 0.75
                    back += [await _until_back(server.url, questions)] if is_last else []
                if killed % max(1, count // 10) == 0:
                    say(f"kills: {killed} of {count}; {dict(outcomes)}")
        is_over = True
        await asyncio.gather(*load)
        restarts, settled = server.gauge("internvl_model_restarts"), await _settle(server)
        left_over, children = _left(server), server.process.children(recursive=True)
    orphans = sum(child.is_running() for child in children)
    rows = [
        ["kills of the model's process", f"{killed}; {restarts:.0f} times it was started again"],
        ["requests meanwhile", _counts(outcomes)],
        ["seconds until the next answer", f"median {statistics.median(back):.2f}, at most {max(back):.2f}"],
        ["requests left, processes left", f"{left_over:.0f}, {orphans}"],
    ]
    return rows, {
        "kills": killed,
        "restarts": restarts,
        "outcomes": outcomes,
        "back": {"median": statistics.median(back), "worst": max(back)},
        "left": left_over,
        "settled_seconds": settled,
        "orphans": orphans,
    }


def _outcome(found: Served) -> str:
    """What became of a request, in a word or two."""
    if found.is_whole:
        return "answered"
    if found.is_in_words:
        return "failed in words" if found.status == 200 or found.status >= 500 else f"refused ({found.status})"
    if found.seconds >= HANG_SECONDS:
        return "HUNG"
    return f"LOST ({found.status}: {found.error[:80] or 'ended without a word'})"


async def _until_back(url: str, questions: Questions) -> float:
    """Seconds until a question that is asked again and again is answered."""
    started = time.perf_counter()
    while not (await _answer(url, questions)).is_whole:
        await asyncio.sleep(PROBE_SECONDS)
        if time.perf_counter() - started > HANG_SECONDS:
            return math.inf
    return time.perf_counter() - started


# Hostile clients


async def hostile(seconds: int, draw: random.Random, cache: Path) -> Found:
    """Attack after attack, and a good client that asks every moment meanwhile."""
    questions = Questions(draw)
    with OurServer("demo", cache=cache) as server:
        await _good_answers(server, questions, min(seconds, 5))  # a warm-up
        quiet = await _good_answers(server, questions, seconds)
        rows = [["nobody else", _good_text(quiet), f"{quiet['memory']:.0f} MiB", ""]]
        result: dict[str, Any] = {"nobody else": quiet}
        for name, about in ABOUT.items():
            command = [sys.executable, str(ATTACKERS), name, server.url, str(seconds + 1)]
            attack = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
            assert attack.stdout is not None
            await attack.stdout.readline()  # it begins
            found = await _good_answers(server, questions, seconds)
            output, _ = await attack.communicate()
            answers = json.loads(output) if attack.returncode == 0 else {"failed": 1}
            result[name] = {**found, "answers": answers, "settled_seconds": await _settle(server)}
            said = _counts(Counter(answers))
            rows.append([about, _good_text(found), f"{found['memory']:.0f} MiB", said])
            say(f"hostile: {about}: {_good_text(found)}; {said}")
    return rows, result


def _good_text(found: dict[str, Any]) -> str:
    failed = f"; {found['failed']} FAILED" if found["failed"] else ""
    return f"{found['median'] * 1000:.0f} ms, at most {found['worst'] * 1000:.0f} ms{failed}"


async def _good_answers(server: OurServer, questions: Questions, seconds: float) -> dict[str, Any]:
    """Seconds that a client waits which asks one short question after the other, and the most memory meanwhile.

    Every second question comes over a connection of its own.
    """
    times, failed, memory, end = list[float](), 0, 0.0, time.perf_counter() + seconds
    async with client_of(server.url) as client:
        while time.perf_counter() < end:
            async for each in _one_each(server.url, client):
                found = await ask(each, questions.short(), HANG_SECONDS)
                times.append(found.seconds)
                failed += not found.is_whole
            memory = max(memory, sum(server.memory()))
            await asyncio.sleep(PROBE_SECONDS)
    return {
        "answers": len(times),
        "failed": failed,
        "median": statistics.median(times),
        "worst": max(times),
        "memory": memory,
    }


async def _one_each(url: str, kept: httpx2.AsyncClient) -> AsyncIterator[httpx2.AsyncClient]:
    """A client with a connection, and one without."""
    yield kept
    async with client_of(url) as fresh:
        yield fresh
