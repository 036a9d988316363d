"""llama.cpp's own tools, found and run: llama-bench, llama-batched-bench, llama-mtmd-cli, llama-server.

For a fair comparison build them from the source that llama-cpp-python brings (`vendor/llama.cpp` of its source
distribution), with the same options: `cmake -B build -DCMAKE_BUILD_TYPE=Release && cmake --build build`; the folder is
`build/bin` then. Where a tool is not found, only our side is measured, and the output says so.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from internvl_gguf.llama.library import build
from measure import Settings

PATIENCE = 3600.0  # seconds for one run of a tool
START_PATIENCE = 600.0  # seconds until a server has loaded its model
STOP_PATIENCE = 10.0  # seconds until it has ended
LOOPBACK = "127.0.0.1"
ENCODED = re.compile(r"mtmd batch encoding done in (\d+) ms")
ENCODING = re.compile(r"encoding mtmd batch .*n_chunks = (\d+)")


@dataclass(frozen=True)
class Speed:
    """Tokens a second of reading prompts and of producing answers."""

    prefill: float
    decode: float


@dataclass(frozen=True)
class Asked:
    """An answer of a server.

    Attributes:
        first_token: seconds from the question to the first text of the answer.
        text: the answer.
        tiles_encoded: slices of pictures the vision encoder had to see for it.
    """

    first_token: float
    text: str
    tiles_encoded: int


def find_tool(name: str, arguments: argparse.Namespace) -> Path | None:
    """A tool in the folder given by --tools, or else on the PATH; None where it is not.

    Prints which it is, beside the build of ours: the comparison is fair where both are of one commit.

    Raises:
        SystemExit: a folder was given, and it has no such tool.
    """
    found = shutil.which(name, path=arguments.tools)
    if found is None and arguments.tools:
        raise SystemExit(f"{arguments.tools} has no {name}.")
    if found is None:
        print(f"{name} was not found (--tools DIR): measured without it.\n", flush=True)
        return None
    version = _output([found, "--version"], with_log=True).partition("\n")[0]
    print(f"{name}, {version}; ours is {build()}.\n", flush=True)
    return Path(found)


def bench(tool: Path, model: Path, settings: Settings, prompt: int, answer: int) -> Speed:
    """llama-bench, one repetition after its own warm-up: a prompt, and `answer` tokens that follow such a prompt."""

    def measured(*flags: str) -> float:
        command = [str(tool), "-m", str(model), *settings.tool_flags(), "-r", "1", "-o", "json", *flags]
        (found,) = json.loads(_output(command))
        return float(found["avg_ts"])

    return Speed(measured("-p", str(prompt), "-n", "0"), measured("-p", "0", "-n", str(answer), "-d", str(prompt)))


def batched_bench(
    tool: Path, model: Path, settings: Settings, sizes: Sequence[int], prompt: int, answer: int, *, shares_kv: bool
) -> dict[int, Speed]:
    """llama-batched-bench: so many sequences at once, for each of the sizes; sharing a KV cache is not its default."""
    cells = max(sizes) * (prompt + answer + -(prompt + answer) % 256)
    command = [str(tool), "-m", str(model), *settings.tool_flags(), "-c", str(cells), "--output-format", "jsonl"]
    command += ["-npp", str(prompt), "-ntg", str(answer), "-npl", ",".join(map(str, sizes))]
    command += ["--kv-unified"] if shares_kv else []
    rows = [json.loads(line) for line in _output(command).splitlines() if line.startswith("{")]
    return {row["pl"]: Speed(row["speed_pp"], row["speed_tg"]) for row in rows}


def tile_seconds(
    tool: Path, text: Path, mmproj: Path, settings: Settings, picture: Path, repetitions: int
) -> list[float]:
    """llama-mtmd-cli's own times, to the millisecond, of encoding a picture of one tile again and again.

    One more picture goes before them as a warm-up.
    """
    command = [str(tool), "-m", str(text), "--mmproj", str(mmproj), "--no-mmproj-offload", *settings.tool_flags()]
    command += ["--image", ",".join([str(picture)] * (repetitions + 1)), "-p", "What is it?", "-n", "1"]
    command += ["-c", str(settings.n_ctx), "--temp", "0"]
    found = [int(each) / 1000 for each in ENCODED.findall(_output(command, with_log=True))]
    if len(found) != repetitions + 1:
        raise SystemExit(f"{tool.name} encoded {len(found)} batches for {repetitions + 1} pictures of one tile.")
    return found[1:]


class Server:
    """A llama-server on a free port of the loopback device, for `settings.n_parallel` at a time; ended on leaving.

    Attributes:
        url: of its root.
        ready: seconds from its start until it could be asked.

    Raises:
        SystemExit: it does not start.
    """

    def __init__(self, tool: Path, text: Path, mmproj: Path, settings: Settings) -> None:
        with socket.socket() as free:
            free.bind((LOOPBACK, 0))
            self._port = free.getsockname()[1]
        self.url = f"http://{LOOPBACK}:{self._port}"
        command = [str(tool), "-m", str(text), "--mmproj", str(mmproj), "--no-mmproj-offload", *settings.tool_flags()]
        command += ["-c", str(settings.n_ctx * settings.n_parallel), "-np", str(settings.n_parallel)]
        command += ["--host", LOOPBACK, "--port", str(self._port)]
        command += ["--offline", "--no-ui", "-lv", "4"]  # at this level it says how many slices it encodes
        self._folder = tempfile.TemporaryDirectory(prefix="internvl-server-")
        self._log = Path(self._folder.name) / "log"
        started = time.perf_counter()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_environment()
            )
        try:
            self._wait_until_ready(tool.name)
        except BaseException:
            self.close()
            raise
        self.ready = time.perf_counter() - started

    def ask(self, messages: Sequence[dict[str, Any]], max_tokens: int) -> Asked:
        """Have a conversation answered greedily; every answer has `max_tokens` tokens.

        Raises:
            SystemExit: the server refuses or gives no text.
        """
        body = {"messages": messages, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True, "stream": True}
        before = self._slices_encoded()
        connection = http.client.HTTPConnection(LOOPBACK, self._port, timeout=PATIENCE)
        pieces: list[tuple[float, str]] = []
        try:
            started = time.perf_counter()
            connection.request(
                "POST", "/v1/chat/completions", json.dumps(body), headers={"Content-Type": "application/json"}
            )
            response = connection.getresponse()
            if response.status != http.HTTPStatus.OK:
                raise SystemExit(f"llama-server refused: {response.read().decode(errors='replace')}")
            for line in response:
                if piece := _content(line):
                    pieces.append((time.perf_counter() - started, piece))
        finally:
            connection.close()
        if not pieces:
            raise SystemExit("llama-server gave an answer without text.")
        text = "".join(piece for _, piece in pieces)
        return Asked(pieces[0][0], text, self._slices_encoded() - before)

    def close(self) -> None:
        """End the server; closing twice is harmless."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._folder.cleanup()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wait_until_ready(self, name: str) -> None:
        gives_up = time.perf_counter() + START_PATIENCE
        while not self._is_healthy():
            if self._process.poll() is not None or time.perf_counter() > gives_up:
                raise SystemExit(f"{name} did not start:\n{self._log_text()[-2000:]}")
            time.sleep(0.02)

    def _is_healthy(self) -> bool:
        connection = http.client.HTTPConnection(LOOPBACK, self._port, timeout=1)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == http.HTTPStatus.OK
        except OSError:
            return False
        finally:
            connection.close()

    def _slices_encoded(self) -> int:
        return sum(map(int, ENCODING.findall(self._log_text())))

    def _log_text(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")


def data_uri(jpeg: bytes) -> str:
    """A picture as OpenAI's interface takes it."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def _content(line: bytes) -> str:
    """The text of the answer in a line of an event stream."""
    data = line.removeprefix(b"data: ").strip()
    if not data.startswith(b"{"):
        return ""
    event = json.loads(data)
    if "error" in event:
        raise SystemExit(f"llama-server refused: {event['error']}")
    return "".join(choice["delta"].get("content") or "" for choice in event["choices"])


def _output(command: Sequence[str], *, with_log: bool = False) -> str:
    """What a tool prints; its log too, if asked for."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if with_log else subprocess.PIPE,
            env=_environment(),
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise SystemExit(f"{' '.join(command)} did not end within {PATIENCE:.0f} s.") from error
    output = done.stdout.decode(errors="replace")
    if done.returncode:
        log = output if with_log else done.stderr.decode(errors="replace")
        raise SystemExit(f"{' '.join(command)} ended with status {done.returncode}:\n{log[-2000:]}")
    return output


def _environment() -> dict[str, str]:
    """A failing assertion of ggml otherwise starts a debugger and can hang."""
    return {**os.environ, "GGML_NO_BACKTRACE": "1"}
