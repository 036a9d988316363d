"""A feed of questions: it has some now and others later, and may want back what has not begun."""

from __future__ import annotations

from collections.abc import Sequence

from internvl_gguf import Question, Reply, SamplingParams, Session
from internvl_gguf.session.feed import Absent, Feed, feed_of

PROMPTS = ["One?", "Two?", "Three?", "Four?", "Five?"]
SHORT = SamplingParams(max_tokens=4)


class OneAtATime(Feed[str]):
    """Has the next question only when the last one is answered."""

    def __init__(self) -> None:
        self.prompts = list(PROMPTS)
        self.may_give = 1
        self.n_not_now = 0

    def take(self, *, waits: bool) -> str | Absent:
        if not self.prompts:
            return Absent.NO_MORE
        if not self.may_give:
            assert not waits, "an answer is running"
            self.n_not_now += 1
            return Absent.NOT_NOW
        self.may_give -= 1
        return self.prompts.pop(0)

    @property
    def is_ready(self) -> bool:
        return bool(self.may_give)


def test_answers_go_on_while_a_source_has_nothing(session: Session) -> None:
    feed = OneAtATime()
    found: dict[str, str] = {}
    for question, outcome in session.each(feed, sampling=SHORT):
        assert isinstance(outcome, Reply)
        found[question] = outcome.text
        feed.may_give += 1
    assert feed.n_not_now >= len(PROMPTS) - 1
    replies = session.batch(PROMPTS, sampling=SHORT)
    assert list(found.values()) == [reply.text for reply in replies if isinstance(reply, Reply)]
    assert list(found) == PROMPTS


class Recalling(Feed[Question]):
    """Wants everything back that has not begun when the first question is answered."""

    def __init__(self) -> None:
        self.left = [Question(prompt) for prompt in PROMPTS]
        self.withdrawn: list[Question] = []
        self._recalls = False

    def recall(self) -> None:
        self._recalls = True

    def take(self, *, waits: bool) -> Question | Absent:
        return self.left.pop(0) if self.left else Absent.NO_MORE

    @property
    def is_ready(self) -> bool:
        return True

    @property
    def is_recalling(self) -> bool:
        return self._recalls

    def withdraw(self, unbegun: Sequence[Question]) -> frozenset[int]:
        self._recalls = False
        self.withdrawn = list(unbegun)
        return frozenset(range(len(unbegun)))


def test_what_is_wanted_back_is_not_asked(session: Session) -> None:
    feed = Recalling()
    answered = []
    for question, _ in session.each(feed, sampling=SHORT):
        answered.append(question)
        if len(answered) == 1:
            feed.recall()
    assert feed.withdrawn
    assert sorted(each.prompt for each in (*answered, *feed.withdrawn)) == sorted(PROMPTS)


def test_a_list_is_a_source() -> None:
    feed = feed_of(iter("ab"))
    assert [feed.take(waits=False) for _ in range(3)] == ["a", "b", Absent.NO_MORE]
    assert not feed.is_ready
    assert not feed.is_recalling
    assert feed.withdraw(["a"]) == frozenset()
    assert feed_of(feed) is feed
