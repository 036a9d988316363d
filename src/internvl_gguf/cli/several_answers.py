"""`internvl ask --best-of`: what Ctrl-C means while several answers are written, and what is told of them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Final

from internvl_gguf.cli.output import say, say_dim
from internvl_gguf.utils.safe_text import safe_name

if TYPE_CHECKING:
    from internvl_gguf.session import Session
    from internvl_gguf.types import Reply, SelectedFrom, Selection

_SHOWN: Final = 400  # characters of a candidate in the list
_AGAIN: Final = 0.05  # seconds between two tries to end the answers
_ENDS: Final = {"stop": "", "length": ", cut off", "aborted": ", unfinished"}


class Interrupts:
    """How often Ctrl-C was pressed."""

    count = 0


@contextmanager
def interrupts_keep_the_best(session: Session) -> Iterator[Interrupts]:
    """Have the first Ctrl-C end the answers under way, so that the best of those that are there is chosen.

    The second raises KeyboardInterrupt, as each does elsewhere.
    """
    previous = signal.getsignal(signal.SIGINT)
    interrupts = Interrupts()
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        yield interrupts
        return

    is_over = threading.Event()

    def abort() -> None:
        while not is_over.wait(_AGAIN):
            session.abort()  # each time: the question may not have been under way yet

    def interrupt(number: int, frame: FrameType | None) -> None:
        interrupts.count += 1
        if interrupts.count > 1:
            raise KeyboardInterrupt
        # In a thread of its own: this one may hold a lock of the engine, which abort() takes.
        threading.Thread(target=abort, name="internvl-abort", daemon=True).start()

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupts
    finally:
        is_over.set()
        signal.signal(signal.SIGINT, previous)


def unfinished(reply: Reply) -> int:
    """Return how many of the answers to a question had not ended when one was chosen."""
    candidates = reply.selection.candidates if reply.selection else ()
    return sum(each.finish_reason == "aborted" for each in candidates)


def say_choice(reply: Reply, *, is_stopped: bool, in_full: bool) -> None:
    """Say on stderr why an answer was chosen.

    Args:
        reply: the answer.
        is_stopped: whether Ctrl-C ended others.
        in_full: whether all candidates are listed.
    """
    selection = reply.selection
    if selection is None:
        return
    if is_stopped:
        count = len(selection.candidates)
        say(f"Stopped: this is the best of the {count - unfinished(reply)} of {count} answers that had ended.")
    if in_full:
        first: dict[str, int] = {}
        for number, each in enumerate(selection.candidates):
            same = first.setdefault(each.text, number)
            shown = safe_name(each.text, _SHOWN) if same == number else f"the text of {same + 1}"
            say(f"{_candidate_line(selection, number, each)}: {shown}", hang=4)
    say_dim(selection.reason)


def _candidate_line(selection: Selection, number: int, each: SelectedFrom) -> str:
    mark = "*" if number == selection.best else " "
    seed = "greedy" if each.seed is None else f"seed {each.seed}"
    agreeing = "" if each.agreeing is None else f", {each.agreeing} agree" if each.agreeing > 1 else ", alone"
    told = f"score {each.score:.3g}, {seed}{agreeing}{_ENDS[each.finish_reason]}"
    return f"{mark} {number + 1:>3}  {told}"
