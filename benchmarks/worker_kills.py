"""Kill the process of the model at random moments of chats, and count what that costs.

Method. Chats run one after the other as `internvl chat demo` with a script of LINES questions on its stdin, the first
one about a picture. Meanwhile whatever process the model runs in is killed (SIGKILL) again and again, each time at a
random moment up to LONGEST seconds after it was seen: while it starts, loads, encodes, reads, answers, or is idle. A
line whose answer is lost is told on stderr, and the chat goes on with the next one. Checked after each chat:

- lost: questions that were neither told to have failed nor kept with their answer in the history
- hangs: chats that did not end within PATIENCE seconds
- orphans: processes of a model that are still there when the chat is not

    python benchmarks/worker_kills.py [--kills N] [--seed N]

The last line of the output is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

import psutil

from internvl_gguf.history import History
from internvl_gguf.models.local_files import demo_files

LINES, LONGEST, PATIENCE = 24, 2.0, 300
WORKER = "internvl_gguf.session.worker.child_main"
EXAMPLE = demo_files().text.with_name("example.png")
QUESTIONS = ("What number is written?", "What colour is the circle?", "How many shapes are there?", "Is it red?")


@dataclass
class Count:
    """What happened so far."""

    chats: int = 0
    kills: int = 0
    asked: int = 0
    failed: int = 0
    answered: int = 0
    lost: int = 0
    hangs: int = 0
    orphans: int = 0


def workers(owner: psutil.Process) -> list[psutil.Process]:
    """Processes of a model that a chat has at this moment."""
    try:
        return [child for child in owner.children() if WORKER in child.cmdline()]
    except psutil.Error:
        return []


def kill_now_and_then(owner: psutil.Process, draw: random.Random, over: threading.Event, found: set[int]) -> None:
    """Kill each process of a model that comes, until the chat is over; their numbers go into `found`."""
    while not over.is_set():
        for worker in workers(owner):
            over.wait(draw.uniform(0, LONGEST))
            if worker.is_running() and not over.is_set():
                worker.kill()
                found.add(worker.pid)
        over.wait(0.01)


def hold_chat(count: Count, draw: random.Random, folder: Path) -> None:
    """One chat, and what came of it."""
    lines = [f"{QUESTIONS[0]} {EXAMPLE}", *(draw.choice(QUESTIONS) for _ in range(LINES - 1))]
    command = [sys.executable, "-m", "internvl_gguf", "chat", "demo"]
    environment = {**os.environ, "INTERNVL_DATA": str(folder)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as chat:
        owner, over, killed = psutil.Process(chat.pid), threading.Event(), set[int]()
        killer = threading.Thread(target=kill_now_and_then, args=(owner, draw, over, killed))
        killer.start()
        try:
            _, errors = chat.communicate("".join(f"{line}\n" for line in lines), timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            count.hangs += 1
            chat.kill()
            _, errors = chat.communicate()
        finally:
            over.set()
            killer.join()
    with History.open(folder) as history:
        latest = history.latest()
        entries = latest.entries if latest else ()
    answered = sum(entry.role == "assistant" for entry in entries)
    failed = errors.count("Error:")
    was_loaded = "while the model was loaded" not in errors or answered
    count.chats += 1
    count.kills += len(killed)
    count.asked += LINES if was_loaded else 0
    count.answered += answered
    count.failed += failed if was_loaded else 0
    count.lost += max(0, LINES - answered - failed) if was_loaded else 0
    count.orphans += sum(WORKER in (process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"]))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--kills", type=int, default=200)
    arguments.add_argument("--seed", type=int, default=1)
    given = arguments.parse_args()
    draw, count = random.Random(given.seed), Count()
    while count.kills < given.kills:
        with tempfile.TemporaryDirectory() as folder:
            hold_chat(count, draw, Path(folder))
        print(json.dumps(vars(count)), file=sys.stderr, flush=True)
    print(json.dumps({"benchmark": "worker_kills", **vars(count)}))


if __name__ == "__main__":
    main()
