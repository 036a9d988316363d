"""The lines of a run of `internvl ask --batch`, and their records; of equal questions one is asked."""

from __future__ import annotations

import contextlib
import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from internvl_gguf.bulk.answer_file import AnswerFile
from internvl_gguf.bulk.answerer import Answered, PlacedLine
from internvl_gguf.bulk.common import Common
from internvl_gguf.bulk.lines import Line
from internvl_gguf.bulk.records import RecordWriter, as_line, copied, record_of
from internvl_gguf.bulk.same_questions import SameQuestions
from internvl_gguf.cli.batch_report import LOOKED_AT, BatchProgress, Tally
from internvl_gguf.cli.batch_words import in_fields
from internvl_gguf.cli.output import is_terminal
from internvl_gguf.config import AskOptions
from internvl_gguf.errors import InternVLError, InvalidRequestError
from internvl_gguf.session.feed import Absent, Feed
from internvl_gguf.types import Question


@dataclass(frozen=True)
class Work:
    """The lines of a run.

    Attributes:
        lines: gives all lines from the beginning, as often as it is called.
        common: what they have in common.
        answered: numbers of those that an earlier run answered.
        chosen: numbers of those that this run is about; None for all.
        count: how many of them are to be answered.
        cut_off: how many of them an earlier run answered up to a limit, before the form of the answer was complete.
        answers: gets the answers; None for stdout.
    """

    lines: Callable[[], Iterator[Line]]
    common: Common
    answered: frozenset[int]
    chosen: frozenset[int] | None
    count: int
    cut_off: int
    answers: AnswerFile | None

    def pending(self) -> Iterator[Line]:
        """Return the lines of this run that are not answered yet."""
        return (line for line in self.lines() if line.number not in self.answered and self.has(line))

    @property
    def is_shown(self) -> bool:
        """Whether this run is a sample that is looked at on a terminal, and kept nowhere."""
        return self.chosen is not None and self.answers is None and is_terminal()

    def looked_at(self, records: Mapping[int, dict[str, Any]]) -> Iterator[str]:
        """Yield a line for the user for each answer of this run's sample, those of earlier runs included.

        Args:
            records: those of this run, by the numbers of their lines.
        """
        for line in self.lines():
            if not self.has(line):
                continue
            if self.answers is not None and line.number in self.answered:
                record = self.answers.record_at(self.answers.offset(line.number))
            elif line.number in records:
                record = records[line.number]
            else:
                continue
            images = record.get("images") or [f"line {line.number:,}"]
            yield f"{images if isinstance(images, str) else images[0]}: {record.get('text', record.get('error'))}"

    def has(self, line: Line) -> bool:
        """Return whether this run is about a line."""
        return self.chosen is None or line.number in self.chosen

    def sample(self, asked: AskOptions) -> Iterator[Question]:
        """Return some of the pending questions, from all over the file; `asked` are the options of all of them."""
        places = {count * self.count // LOOKED_AT for count in range(LOOKED_AT)}
        for place, line in enumerate(self.pending()):
            if place in places:
                with contextlib.suppress(InvalidRequestError):
                    question = self.common.question_of(line)
                    yield replace(question, options={**asked, **question.options})


class Records:
    """Turns the outcomes of lines into records; of equal questions one is asked.

    Args:
        work: the lines.
        write: gets each record.
        progress: is told of each.
        tally: counts them.
        in_order: whether records on stdout wait for those of earlier lines. A file is put in order in the end.

    Attributes:
        shown: the records of a sample, by the numbers of their lines; empty where all lines are asked.
    """

    def __init__(
        self,
        work: Work,
        write: Callable[[bytes], None],
        progress: BatchProgress,
        tally: Tally,
        *,
        in_order: bool,
    ) -> None:
        self._work = work
        self._writer = RecordWriter(write, in_order=in_order and work.answers is None)
        self._progress = progress
        self._tally = tally
        self._same = SameQuestions((line for line in work.lines() if work.has(line)), work.common)
        self._answers = _KnownAnswers(work.answers)
        self._find_earlier_answers()
        self._keys: dict[int, bytes] = {}  # of lines that are asked, by place
        self._waiting: dict[bytes, list[PlacedLine]] = {}
        self._left: deque[PlacedLine] = deque()
        self.shown: dict[int, dict[str, Any]] = {}

    def lines(self) -> Feed[PlacedLine]:
        """Return the lines that are to be asked: of equal ones the first, and the others where that one fails."""
        return _LinesToAsk(self._firsts(), self._left, lambda: any(self._waiting.values()))

    def answered(self, answered: Answered) -> None:
        """Record the outcome of a line, and of those that waited for it."""
        place = self._answers.next_place
        record = self._put(answered)
        key = self._keys.pop(answered.place, None)
        if key is None:
            return
        waiting = self._waiting.pop(key)
        if isinstance(answered.outcome, InternVLError):
            self._left += waiting
            return
        self._answers.add(key, record, place)
        for each in waiting:
            self._put_copy(*each, record)

    def close(self) -> None:
        """Write the records that are left."""
        self._writer.close()

    def _find_earlier_answers(self) -> None:
        """Find the answers of earlier runs whose questions this run may ask once more."""
        answers, answered = self._work.answers, self._work.answered
        if answers is None or not answered:
            return
        for line in self._work.lines():
            if line.number in answered and self._work.has(line) and (key := self._same.key(line)) is not None:
                self._answers.add_earlier(key, answers.offset(line.number))

    def _firsts(self) -> Iterator[PlacedLine]:
        """Yield the lines whose questions were not asked before."""
        for place, line in enumerate(self._work.pending()):
            key = self._same.key(line)
            if key is not None and (record := self._answers.get(key)) is not None:
                self._put_copy(place, line, record)
            elif key is not None and key in self._waiting:
                self._waiting[key].append(PlacedLine(place, line))
            else:
                if key is not None:
                    self._waiting[key] = []
                    self._keys[place] = key
                yield PlacedLine(place, line)

    def _put(self, answered: Answered) -> dict[str, Any]:
        line, outcome = answered.line, answered.outcome
        record = record_of(line, outcome, self._work.common, in_fields)
        self._write(answered.place, line, record)
        self._tally.add(line.number, outcome, is_bound=answered.is_bound)
        self._progress.advance()
        return record

    def _put_copy(self, place: int, line: Line, record: dict[str, Any]) -> None:
        self._write(place, line, copied(record, line, self._work.common))
        self._tally.add_copy()
        self._progress.advance()

    def _write(self, place: int, line: Line, record: dict[str, Any]) -> None:
        self._writer.put(place, record)
        if self._work.chosen is not None:
            self.shown[line.number] = record


class _KnownAnswers:
    """The records of questions that may be asked once more, by what the equal ones have in common.

    Of those in a file only the place is kept in memory: of many pictures many are of as many bytes as another.

    Args:
        answers: the file that they are in; None where there is none, which keeps them in memory.
    """

    def __init__(self, answers: AnswerFile | None) -> None:
        self._answers = answers
        self._offsets: dict[bytes, int] = {}
        self._records: dict[bytes, bytes] = {}

    @property
    def next_place(self) -> int:
        """Where the next record will begin in the file; 0 where there is none."""
        return self._answers.size if self._answers else 0

    def add(self, key: bytes, record: dict[str, Any], place: int) -> None:
        """Add a record that was written where `next_place` was."""
        if self._answers:
            self._offsets[key] = place
        else:
            self._records[key] = as_line(record)

    def add_earlier(self, key: bytes, offset: int) -> None:
        """Add a record that an earlier run wrote into the file."""
        self._offsets[key] = offset

    def get(self, key: bytes) -> dict[str, Any] | None:
        """Return the record of equal questions; None if there is none yet."""
        if self._answers and (offset := self._offsets.get(key)) is not None:
            return self._answers.record_at(offset)
        data = self._records.get(key)
        return None if data is None else cast("dict[str, Any]", json.loads(data))


class _LinesToAsk(Feed[PlacedLine]):
    """The lines whose questions were not asked before, then those whose equal ones failed.

    Args:
        firsts: the former.
        left: gets the latter while the run goes on.
        may_get_more: returns whether it still may.
    """

    def __init__(self, firsts: Iterator[PlacedLine], left: deque[PlacedLine], may_get_more: Callable[[], bool]) -> None:
        self._firsts = firsts
        self._left = left
        self._may_get_more = may_get_more

    def take(self, *, waits: bool) -> PlacedLine | Absent:
        """See `Feed.take`; nothing has to be waited for where no line is under way."""
        line = next(self._firsts, None)
        if line is None and self._left:
            line = self._left.popleft()
        if line is not None:
            return line
        return Absent.NOT_NOW if self._may_get_more() else Absent.NO_MORE

    @property
    def is_ready(self) -> bool:
        """See `Feed.is_ready`."""
        return bool(self._left)
