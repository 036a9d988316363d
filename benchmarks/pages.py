"""Tables written into a page of the documentation."""

from __future__ import annotations

from pathlib import Path

END = "<!-- end -->"


def write_between_markers(path: Path, benchmark: str, lines: list[str]) -> None:
    """Replace what stands between the markers of a benchmark in a page."""
    begin = f"<!-- written by benchmarks/{benchmark}.py -->"
    before, found, rest = path.read_text(encoding="utf-8").partition(begin)
    _, ends, after = rest.partition(END)
    if not found or not ends:
        raise SystemExit(f"{path} has no place for the tables of {benchmark}: {begin} and {END}")
    path.write_text(f"{before}{begin}\n\n" + "\n".join(lines) + f"\n{END}{after}", encoding="utf-8")
