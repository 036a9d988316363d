"""Hostile schemas, choices, grammars, regular expressions and tools: each is refused in two lines or usable, in time.

    python benchmarks/format_attacks.py [--count 500] [--seconds 2] [--slowest 10]

They are made from a fixed seed: nesting, lists, repeats and numbers beyond all measure, expressions that explode,
references in circles, texts that UTF-8 does not have, malformed schemas, and damaged versions of usable ones. Each is
tried in a child process, with its first mask where it is taken. What counts is printed: deaths, errors without
their two lines, what took longer than `--seconds`, and the most memory.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from format_attack_inputs import Attack, attacks
from internvl_gguf.errors import InternVLError
from internvl_gguf.structured import format_of
from internvl_gguf.structured.constraint import byte_tokenizer, new_matcher
from internvl_gguf.structured.tool_format import tool_format
from internvl_gguf.structured.tools import tools_of

STEPS = 64  # tokens that are generated where an input is taken


@dataclass(frozen=True)
class Outcome:
    """What came of an attack: "taken", "refused", or what went wrong; seconds, and MiB that it took at most."""

    name: str
    verdict: str
    seconds: float
    mib: float


def verdict_of(attack: Attack) -> str:
    """Return what comes of an attack: "taken", "refused", or what is wrong with the error."""
    try:
        if "tools" in attack.arguments:
            made = tool_format(tools_of(attack.arguments["tools"]), "required")
        else:
            made = format_of(**attack.arguments)
        if made is None:
            return "taken"
        made.parse_partial("{")
        matcher = new_matcher(byte_tokenizer(), made.grammar)
        _generate(matcher)
    except InternVLError as error:
        lines = (error.message, error.hint)
        if any("\n" in line or not line or len(line) > 600 for line in lines) or "backtrace" in error.message.lower():
            return f"an error that is not two lines: {error.message[:80]!r}"
        return "refused"
    except RecursionError:
        return "RecursionError"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:80]}"
    return "taken"


def _generate(matcher: Any) -> None:
    """Write a few tokens, the last allowed one each time, as an answer would be."""
    for _ in range(STEPS):
        mask = matcher.compute_bitmask() if not matcher.is_stopped() else b""
        if matcher.is_error() or not any(mask):
            return
        bits = int.from_bytes(mask, "little")
        matcher.consume_token(bits.bit_length() - 1 if bits.bit_length() <= 257 else (bits & -bits).bit_length() - 1)


def _child(numbers: list[int], count: int, results: Any) -> None:
    every = attacks(count)
    byte_tokenizer()
    for number in numbers:
        results.send((number, "begins", 0.0, 0.0))
        before = _memory("VmRSS")
        begins = time.perf_counter()
        verdict = verdict_of(every[number])
        seconds = time.perf_counter() - begins
        results.send((number, verdict, seconds, _memory("VmHWM") - before))
    results.send((-1, "ends", 0.0, 0.0))


def _memory(kind: str) -> float:
    """Return MiB of this process, on Linux: those it has now (VmRSS), or most since the last call for these (VmHWM)."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0.0
    if kind == "VmRSS":
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # begin to count the most anew
    line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith(kind))
    return int(line.split()[1]) / 1024


def outcomes(count: int, hang: float = 60.0) -> Iterator[Outcome]:
    """Yield what came of each attack; a child that dies or hangs is replaced."""
    every = attacks(count)
    context = multiprocessing.get_context("spawn")
    left = list(range(len(every)))
    while left:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_child, args=(left, count, sender))
        process.start()
        sender.close()
        running = -1
        while True:
            try:
                number, verdict, seconds, mib = (
                    receiver.recv() if receiver.poll(hang) else (running, "hangs", hang, 0.0)
                )
            except EOFError:
                number, verdict, seconds, mib = running, "dies", 0.0, 0.0
            if verdict == "begins":
                running = number
                continue
            if verdict == "ends":
                left = []
            else:
                left = [each for each in left if each != number]
                yield Outcome(every[number].name if number >= 0 else "the start", verdict, seconds, mib)
            if verdict in ("dies", "hangs", "ends"):
                break
        process.kill()
        process.join()


def main() -> int:
    """Try all attacks and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--slowest", type=int, default=10)
    given = parser.parse_args()
    found = list(outcomes(given.count))
    verdicts = Counter(each.verdict for each in found)
    for verdict, number in verdicts.most_common():
        print(f"{number:6} {verdict}")
    slow = [each for each in found if each.seconds > given.seconds]
    print(f"{len(slow):6} longer than {given.seconds} s; most memory {max(each.mib for each in found):.0f} MiB")
    for each in sorted(found, key=lambda each: -each.seconds)[: given.slowest]:
        print(f"  {each.seconds:6.2f} s  {each.mib:6.0f} MiB  {each.verdict[:40]:10}  {each.name}")
    for each in found:
        if each.verdict not in ("taken", "refused"):
            print(f"  {each.verdict}: {each.name}")
    return int(bool(slow) or set(verdicts) - {"taken", "refused"} != set())


if __name__ == "__main__":
    sys.exit(main())
