"""`make demo`: ask the demo model about its example picture, and show the paths of both."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

from internvl_gguf.session import Session

EXAMPLE = Path(__file__).with_name("example.png")
QUESTIONS = ("What number is written?", "What colour is the circle?", "How many shapes are there?")


def main() -> None:
    """Ask a few questions about the example picture and print question and answer."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # the folder may have a name that the terminal cannot show
    print(f"The picture: {EXAMPLE}")
    with Session.open("demo") as session:
        for question in QUESTIONS:
            reply = session.ask(question, images=[EXAMPLE])
            print(f"\n  {question}\n  {reply.text}")
            session.clear()
    command = Path(os.path.relpath(sys.executable)).with_name("internvl")
    print(f"\nYour turn:   {command} ask demo 'What number is written?' -i PICTURE")


if __name__ == "__main__":
    main()
