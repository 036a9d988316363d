"""Long runs of `internvl ask --batch`: killed at random moments, and watched for memory that grows.

Method. The demo model is asked about drawn pictures (`internvl_gguf.demo.pictures`), in processes of their own, as a
user runs the command; nothing of an earlier run is in the cache of embeddings.

    kills    the command is started again and again into one file, and its whole process group killed (SIGKILL) at a
             random moment up to LONGEST seconds after its first new record, KILLS times; then it runs to its end.
             Checked: a row for each picture, each once, and how often a line has a record more than once before the
             file is put in order, which would be an answer computed twice.
    memory   one run; every second the memory of the command and of its processes is added up (the unique set size,
             which counts no page twice). Reported at 10% of the pictures, at half and at the end, and the most of all.

    python benchmarks/bulk_runs.py kills [--pictures 2000] [--kills 20] [--workers N]
    python benchmarks/bulk_runs.py memory [--pictures 20000] [--workers N]

The last line of the output is one JSON document.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

from internvl_gguf.demo.pictures import draw_pictures
from internvl_gguf.hardware.identity import processor_name

PROMPT, TOKENS, LONGEST = "How many shapes are there?", 8, 4.0
MIB = 2**20


class Run:
    """A command over a folder of pictures.

    Args:
        root: a folder for everything.
        pictures: how many are drawn.
        workers: of the command; 1 for none of their own.
    """

    def __init__(self, root: Path, pictures: int, workers: int) -> None:
        self.output = root / "answers.csv"
        self.records = root / "answers.csv.jsonl"
        draw_pictures(root / "photos", pictures)
        self.command = [
            *(sys.executable, "-m", "internvl_gguf", "ask", "demo", PROMPT, "--batch", str(root / "photos")),
            *("--output", str(self.output), "--max-tokens", str(TOKENS), "--max-tiles", "1", "--workers", str(workers)),
        ]
        self._environment = {**os.environ, "INTERNVL_CACHE": str(root / "cache")}

    def start(self) -> subprocess.Popen[bytes]:
        """Start it, in a group of its own."""
        return subprocess.Popen(
            self.command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self._environment,
            start_new_session=True,
        )

    def written(self) -> int:
        """Number of records so far."""
        return self.records.read_bytes().count(b"\n") if self.records.exists() else 0

    def rows(self) -> list[dict[str, str]]:
        """The rows of the table."""
        with self.output.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))


def kills(run: Run, count: int, seed: int) -> dict[str, Any]:
    """Kill the command `count` times, then let it end."""
    draw = random.Random(seed)
    done = twice = 0
    began = time.perf_counter()
    for _ in range(count):
        before = run.written()
        with run.start() as process:
            while process.poll() is None and run.written() == before:
                time.sleep(0.05)
            if process.poll() is None:
                time.sleep(draw.uniform(0, LONGEST))
                os.killpg(process.pid, signal.SIGKILL)
                done += 1
        whole = run.records.read_bytes().split(b"\n")[:-1]
        twice = max(twice, max(Counter(json.loads(line)["line"] for line in whole).values()) - 1)
    with run.start() as process:
        status = process.wait()
    rows = run.rows()
    return {
        "kills": done,
        "exit": status,
        "rows": len(rows),
        "lines": len({row["line"] for row in rows}),
        "answered": sum(bool(row["answer"]) for row in rows),
        "most_records_beyond_one": twice,
        "seconds": round(time.perf_counter() - began, 1),
    }


def memory(run: Run, pictures: int) -> dict[str, Any]:
    """Run the command once and watch its memory."""
    samples: list[tuple[int, float]] = []
    began = time.perf_counter()
    with run.start() as process:
        owner = psutil.Process(process.pid)
        while process.poll() is None:
            samples.append((run.written(), _unique_mib(owner)))
            time.sleep(1)
    seconds = time.perf_counter() - began
    running = [(done, size) for done, size in samples if 0 < done < pictures]
    early, half = (next(size for done, size in running if done >= pictures * part) for part in (0.1, 0.5))
    return {
        "pictures": pictures,
        "rows": len(run.rows()),
        "seconds": round(seconds, 1),
        "pictures_a_second": round(pictures / seconds, 1),
        "mib_at_a_tenth": round(early, 1),
        "mib_at_half": round(half, 1),
        "mib_at_the_end": round(running[-1][1], 1),
        "mib_most": round(max(size for _, size in samples), 1),
    }


def _unique_mib(owner: psutil.Process) -> float:
    total = 0
    try:
        for each in (owner, *owner.children(recursive=True)):
            total += each.memory_full_info().uss
    except psutil.Error:  # one has just ended
        return 0.0
    return total / MIB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("kills", "memory"))
    parser.add_argument("--pictures", type=int)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    pictures = arguments.pictures or (2000 if arguments.what == "kills" else 20_000)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), pictures, arguments.workers)
        is_killed = arguments.what == "kills"
        found = kills(run, arguments.kills, arguments.seed) if is_killed else memory(run, pictures)
    about = {"benchmark": f"bulk_runs {arguments.what}", "cpu": processor_name(), "workers": arguments.workers}
    print(json.dumps({**about, **found}))


if __name__ == "__main__":
    main()
