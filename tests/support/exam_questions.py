"""Questions of the exam that comes with the package, in a file of a test's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import internvl_gguf.bench

EXAM = Path(internvl_gguf.bench.__file__).with_name("data") / "exam"


def some_of_the_exam(path: Path, step: int, *more: dict[str, Any]) -> str:
    """Write every so many-th question, those of small print aside, and more lines; return the path."""
    lines = [json.loads(line) for line in (EXAM / "questions.jsonl").read_text("utf-8").splitlines()]
    chosen = [{**line, "image": str(EXAM / line["image"])} for line in lines if line["id"] != "small print"][::step]
    path.write_text("\n".join(json.dumps(line) for line in (*chosen, *more)), "utf-8")
    return str(path)
