"""What `internvl serve` endures: many requests, clients that go, a model that is killed, and clients that mean no good.

Method. Each part starts a server with the demo model and default options (two requests at once where clients go and
where the model is killed), in a process of its own, and asks it over HTTP from this one.

memory       REQUESTS short questions from four clients, every fifth about a picture of one tile, after a fifth as many
             that do not count. There are 400 questions and 50 pictures, so what the server keeps on purpose, it has
             before the count begins. Memory (RSS) of the server and of its model's process at the start, in the middle
             and at the end.
disconnects  Requests of all kinds (short, long, pictures of 1 and 13 tiles, streamed or not) from eight clients, each
             of which closes its connection at a random moment of the time that such a request usually takes, or
             with a random event of its stream, until DISCONNECTS were cut off. Counted by what the server was doing as
             far as the client knew. Then: seconds until /metrics counts no request running or
             waiting, and the time of the next answer.
kills        Four clients ask without a pause; KILLS times the process of the model is killed (SIGKILL) at a random
             moment within a second after service came back, or, one time in four, after the last kill: while it
             starts and loads. Each request has to be answered whole or to fail in words (a status of 5xx with a
             message, or an `error` event); everything else is counted as LOST or HUNG. Seconds from a kill until a
             question that is asked again and again is answered.
hostile      A good client asks one short question after the other for SECONDS, every second one over a new connection:
             first alone, then beside each attack of `server_attackers.py`, which run in one more process. Its median
             and worst times, the most memory of server and model together, and what the attackers were answered:
             numbers of each status, of connections that the server closed, and of those held to the end.

    python benchmarks/server_faults.py [--only memory|disconnects|kills|hostile] [--requests N] [--disconnects N]
                                       [--kills N] [--seconds N] [--seed N] [--quick]

--quick is a short run of everything, to see that it runs. The last line of the output is one JSON document.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import measure
from internvl_gguf.hardware.identity import processor_name
from internvl_gguf.llama.library import build
from server_fault_parts import Found, disconnects, hostile, kills, memory

PARTS: dict[str, tuple[Callable[[int, random.Random, Path], Coroutine[Any, Any, Found]], str, int, int]] = {
    "memory": (memory, "requests", 10_000, 40),
    "disconnects": (disconnects, "disconnects", 1000, 16),
    "kills": (kills, "kills", 200, 2),
    "hostile": (hostile, "seconds", 30, 1),
}
"""By name: the part, its argument, how much of it is usual, and how little is quick."""
HOSTILE_HEADER = ["beside the good client", "it waits, median", "most memory", "answers to the others"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, action="append", help="this part; may be repeated")
    for _, argument, usual, _ in PARTS.values():
        parser.add_argument(f"--{argument}", type=measure.positive, help=f"{usual:,} if left out")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="little of everything, to see that it runs")
    arguments = parser.parse_args()
    result: dict[str, Any] = {}
    print(f"{processor_name()}; {build()}\n")
    with tempfile.TemporaryDirectory(prefix="internvl-faults-", ignore_cleanup_errors=True) as cache:
        for name in arguments.only or PARTS:
            part, argument, usual, quick = PARTS[name]
            count = getattr(arguments, argument) or (quick if arguments.quick else usual)
            rows, result[name] = asyncio.run(part(count, random.Random(arguments.seed), Path(cache)))
            header = HOSTILE_HEADER if name == "hostile" else [name, ""]
            print(measure.table(header, rows) + "\n", flush=True)
    print(json.dumps({"benchmark": "server_faults", "cpu": processor_name(), "build": build(), **result}))


if __name__ == "__main__":
    main()
