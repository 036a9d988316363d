"""Time to the first token of questions about a picture of 13 tiles: the first, the second, and after a restart.

Method. One picture, a JPEG that is 12 tiles and a thumbnail here and 13 slices in llama.cpp, and these questions, each
answered greedily with 8 tokens:

- first: in a process that has just loaded the model, about a picture never seen;
- second: in the same conversation;
- new conversation: about the same picture, in the same process;
- restart: the first question again in a new process; ours finds the embeddings in its disk cache;
- saved session: ours alone, the next question of the conversation restored from its file in a new process; compared
  with the others' restart.

Ours is a `Session`. llama-server keeps its prompt cache, as it does by default, and is asked over HTTP with the picture
in each request. `MTMDChatHandler` is llama-cpp-python's handler for any model with an mmproj; a restart of it would be
its first question again. Each is a process of its own, with the same threads, context, batch sizes and KV type, with
flash attention on. Time is from the question to the first text in the caller's hands; ours is to the first token.
"Ready" is the time from the beginning of loading until it can be asked: without Python's imports, with the server's
own warm-up, and with the handler's mmproj, which it loads with its first question. A round is each side once, in an
order that changes, with an empty cache on disk; the first round is a warm-up.

    python benchmarks/second_question.py [--model TEXT.gguf] [--mmproj MMPROJ.gguf] [--tools DIR] [--threads N]
                                         [--rounds N] [--quick]

Without --model the embedded demo model is measured; --quick is one round without a warm-up. Run with nothing else on
the machine. The last line of the output is one JSON document.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import measure
import peers
from internvl_gguf.models.resolve import ModelFiles
from measure import Settings
from ours import TILES, picture_of_tiles
from second_question_children import ANSWER, ASKED, FIRST, N_CTX, NEW, SECOND, Found, conversation

CHILDREN = Path(__file__).with_name("second_question_children.py")
SITUATIONS = {
    "ready": "ready",
    "first": "first",
    "second": "second",
    "new conversation": "new conversation",
    "restart": "restart",
    "saved session ready": "ready",
    "saved session": "restart",
}
"""What is compared: a situation of ours, and which of the others' it stands against."""


class Sides:
    """One model and one picture, asked on each side.

    Args:
        folder: for the picture, our caches and the saved session.
        files: the model.
        settings: the same for all.
    """

    def __init__(self, folder: Path, files: ModelFiles, settings: Settings) -> None:
        self._folder, self._files, self._settings = folder, files, settings
        self._picture = picture_of_tiles(files.mmproj)
        (folder / "picture.jpg").write_bytes(self._picture)
        self.saved = folder / "saved.session"

    def ours(self, _turn: int) -> Found:
        """Three processes of this package."""
        shutil.rmtree(self._folder / "cache" / "embeddings", ignore_errors=True)
        found: Found = {}
        for mode in ("first", "restart", "restored"):
            found |= self._child(mode)[0]
        return found

    def server(self, tool: Path, _turn: int) -> Found:
        """Two llama-servers, one after the other."""
        with peers.Server(tool, self._files.text, self._files.mmproj, self._settings) as server:
            found: Found = {"ready": {"seconds": server.ready}}
            first = server.ask(conversation(self._picture, FIRST), ANSWER)
            second = server.ask(conversation(self._picture, FIRST, (first.text, SECOND)), ANSWER)
            new = server.ask(conversation(self._picture, NEW), ANSWER)
        with peers.Server(tool, self._files.text, self._files.mmproj, self._settings) as server:
            again = server.ask(conversation(self._picture, FIRST), ANSWER)
        answers = {"first": first, "second": second, "new conversation": new, "restart": again}
        return found | {
            name: {"seconds": asked.first_token, "tiles": asked.tiles_encoded} for name, asked in answers.items()
        }

    def handler(self, _turn: int) -> Found:
        """A process of llama-cpp-python; its log says what was encoded for each question."""
        found, log = self._child("handler")
        for name, part in zip(found, log.split(ASKED), strict=False):
            if name != "ready":
                found[name]["tiles"] = part.count("slice encoded in")
        return found

    def _child(self, mode: str) -> tuple[Found, str]:
        """What a process found, and its log."""
        request = {
            "text": str(self._files.text),
            "mmproj": str(self._files.mmproj),
            "picture": str(self._folder / "picture.jpg"),
            "saved": str(self.saved),
            "threads": self._settings.threads,
        }
        done = subprocess.run(
            [sys.executable, str(CHILDREN), mode],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ, "INTERNVL_CACHE": str(self._folder / "cache")},
            timeout=peers.PATIENCE,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{CHILDREN.name} {mode} ended with status {done.returncode}:\n{done.stderr[-2000:]}")
        return json.loads(done.stdout.splitlines()[-1]), done.stderr


def report(found: Mapping[str, Sequence[Found]]) -> tuple[list[list[str]], dict[str, Any]]:
    """Rows of the table, and the same for the last line: situation, side, and what was found."""
    rows: list[list[str]] = []
    result: dict[str, Any] = {}
    for ours, theirs in SITUATIONS.items():
        runs = {
            side: [run[ours if side == "ours" else theirs] for run in several]
            for side, several in found.items()
            if side == "ours" or theirs in several[0]
        }
        some, result[ours] = measure.comparison({side: [run["seconds"] for run in runs[side]] for side in runs}, ours)
        for side, row in zip(runs, some, strict=True):
            tiles = [run["tiles"] for run in runs[side] if "tiles" in run]
            row.insert(3, f"{statistics.median(tiles):.0f}" if tiles else "")
            result[ours][side] |= {"tiles_encoded": statistics.median(tiles)} if tiles else {}
        rows += some
    return rows, result


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that no server is left behind
    arguments = measure.parser(__doc__, rounds=3, mmproj=True, tools=True).parse_args()
    files = measure.model_files(arguments)
    tool = peers.find_tool("llama-server", arguments)
    with tempfile.TemporaryDirectory(prefix="internvl-question-") as name:
        asked = Sides(Path(name), files, Settings(arguments.threads, N_CTX))
        sides: dict[str, Callable[[int], Found]] = {"ours": asked.ours}
        if tool:
            sides["llama-server"] = partial(asked.server, tool)
        sides["MTMDChatHandler"] = asked.handler
        rounds, warm_up = measure.rounds_of(arguments), not arguments.quick
        found = measure.interleaved(sides, rounds, warm_up=int(warm_up))
        saved_bytes = asked.saved.stat().st_size
    rows, result = report(found)
    saving = statistics.median(run["save"]["seconds"] for run in found["ours"])
    print(f"Seconds to the first token, a picture of {TILES} tiles, {arguments.threads} threads.\n")
    print(measure.table(["", "side", "s, median (range)", "tiles encoded", "ours/other"], rows))
    print(f"\nThe saved session: {saved_bytes / 2**20:.1f} MiB, written in {measure.number(saving)} s.")
    about = {"tiles": TILES, "saved_session_bytes": saved_bytes, "save_seconds": saving}
    measure.last_line("second_question", arguments, files.text, {**about, **result})


if __name__ == "__main__":
    main()
