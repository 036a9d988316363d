"""How many answers to each question are compared, how they are sampled, and who chooses among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Self

from internvl_gguf.bench.best_of.critic_files import CriticFiles
from internvl_gguf.config import MAX_BEST_OF, MAX_SEED, SamplingParams
from internvl_gguf.errors import InvalidRequestError

DEFAULT_SEED: Final = 0
"""Of bench, whose results have to be the same when it is run again."""
DEFAULT_JUDGES: Final = ("vote", "certainty")


@dataclass(frozen=True)
class BestOfSettings:
    """The numbers of answers to compare, and how they are made and judged.

    Attributes:
        counts: numbers of answers in ascending order; the first is 1, the single answer that the others are compared
            with.
        judges: names of the judges.
        critics: the files of those among them that are models.
        seed: seed from which those of all answers are counted on.
        temperature: of all answers; None for the published best-of-8, whose first answer is greedy and whose others are
            sampled (`session.candidate_answers`).
    """

    counts: tuple[int, ...]
    judges: tuple[str, ...] = DEFAULT_JUDGES
    seed: int = DEFAULT_SEED
    temperature: float | None = None
    critics: tuple[CriticFiles, ...] = ()

    @property
    def most(self) -> int:
        """Answers that are written to each question."""
        return self.counts[-1]

    @property
    def first_is_greedy(self) -> bool:
        """Whether the first answer is made in another way than the others, so that it is one of any number of them."""
        return self.temperature is None

    @classmethod
    def parse(
        cls, counts: str, judges: tuple[str, ...] = (), seed: int | None = None, temperature: float | None = None
    ) -> Self:
        """Read the numbers of answers, as "2,4,8"; 1 is added where it is missing.

        Args:
            counts: numbers with commas between them.
            judges: names; those that need no other model if empty.
            seed, temperature: as the attributes.

        Raises:
            InvalidRequestError: what is no number or out of range, a number or a judge given twice, no number above 1,
                or a temperature at which all answers would be equal.
        """
        numbers = [_count(part.strip(), counts) for part in counts.split(",")]
        _once("--best-of", [str(number) for number in numbers])
        _once("--judge", judges)
        ordered = tuple(sorted({1, *numbers}))
        if len(ordered) == 1:
            raise InvalidRequestError(
                f"--best-of is {counts}: of one answer there is nothing to choose.",
                "Add larger numbers, as in 1,2,4,8.",
            )
        SamplingParams(best_of=ordered[-1], temperature=temperature, seed=seed)  # checks them
        return cls(ordered, judges or DEFAULT_JUDGES, DEFAULT_SEED if seed is None else seed, temperature)

    def with_critics(self, found: Mapping[str, CriticFiles]) -> Self:
        """Return them with the files of critics, by the judges' names; the reports call these judges by their labels.

        Raises:
            InvalidRequestError: two have one label.
        """
        judges = tuple(found[name].label if name in found else name for name in self.judges)
        _once("--judge", judges)
        return replace(self, judges=judges, critics=tuple(found[name] for name in self.judges if name in found))

    def sampling(self, question: int, max_tokens: int) -> SamplingParams:
        """Return how the answers to a question are sampled.

        Every question has seeds of its own. Those of its first answers do not depend on how many there are, so that
        `ask --best-of N --seed ...` writes the same ones.

        Args:
            question: its number.
            max_tokens: most tokens of an answer.
        """
        seed = (self.seed + MAX_BEST_OF * question) % (MAX_SEED + 1)
        return SamplingParams(max_tokens=max_tokens, seed=seed, temperature=self.temperature)


def _count(text: str, counts: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise InvalidRequestError(
            f"--best-of is {counts!r}, and {text!r} is no whole number.", "Write numbers with commas, as in 1,2,4,8."
        ) from None
    if not 1 <= number <= MAX_BEST_OF:
        raise InvalidRequestError(f"--best-of has {number}.", f"Use 1 to {MAX_BEST_OF} answers.")
    return number


def _once(flag: str, values: list[str] | tuple[str, ...]) -> None:
    twice = next((value for value in values if values.count(value) > 1), None)
    if twice is not None:
        raise InvalidRequestError(f"{flag} has {twice} twice.", "Give each once.")
