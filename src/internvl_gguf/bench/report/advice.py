"""Which row to take in so much memory, and one sentence that says so, and why not its neighbours.

Two runs over the same files give the same advice. Losses do not change from run to run, and decide; speeds do, and
count only where rows are alike in loss and size and one is faster by more than its spread and more than 10%.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from internvl_gguf.bench.best_of.wording import advice_of, is_best_of_alone
from internvl_gguf.bench.report.pareto import (
    Loss,
    QualityMeasure,
    loss_of,
    measure_of,
    memory_needed,
    unbeaten,
)
from internvl_gguf.bench.report.wording import number, row_names, with_error
from internvl_gguf.bench.results import Results, Spread
from internvl_gguf.planning.loss_scale import CLEAR_LOSS, NO_LOSS, seen_in_answers
from internvl_gguf.utils.sizes import format_size

TEXT_SHARE: Final = 0.2
"""How much a loss on running text counts beside one in answers about pictures, which are what the model is for."""

_Name = TypeVar("_Name", int, str)
_ABOUT_AS_SMALL: Final = 1.03  # by less nobody chooses
_ABOUT_AS_FAST: Final = 1.1  # medians of the same files differ by as much from one run to the next
_SEVERAL_TIMES: Final = (
    2.0  # from where on a speed is told as a multiple, and files that are smaller do not outweigh it
)
_SHARES: Final = ((0.45, 0.55, "half"), (0.31, 0.36, "a third"), (0.23, 0.27, "a quarter"), (0.18, 0.22, "a fifth"))


@dataclass(frozen=True)
class _Choice:
    """A row that can be advised.

    Attributes:
        index: of the row.
        name: as the reports call it.
        need: bytes it takes.
        files: bytes of its files.
        loss: what it loses.
        loss_on_text: the same on text, where `loss` is with pictures; None where that was not measured.
        is_reference: whether the others are measured against it.
        decode: its speed in tokens a second.
    """

    index: int
    name: str
    need: int
    files: int
    loss: Loss
    loss_on_text: Loss | None
    is_reference: bool
    decode: Spread | None

    @property
    def felt(self) -> float:
        """Its loss as a user meets it: with pictures, or a share of that on text where it is more."""
        return max(self.loss.value, TEXT_SHARE * self.loss_on_text.value if self.loss_on_text else 0.0)

    def is_as_good_as(self, other: _Choice, measure: QualityMeasure) -> bool:
        """Whether what it loses more is within the standard error, or too little for anyone to tell.

        Of right answers none is as good as more: a few hundred questions are too few to show that two rows are alike.
        """
        if measure == "accuracy":
            return self.loss.value <= other.loss.value
        if max(self.felt, other.felt) <= NO_LOSS:
            return True
        pairs = [(self.loss, other.loss)]
        if self.loss_on_text and other.loss_on_text:
            pairs.append((self.loss_on_text, other.loss_on_text))
        return all(one.value - two.value <= math.hypot(one.error, two.error) for one, two in pairs)


@dataclass(frozen=True)
class _Comparison:
    """The rows to choose from, and the measure of their loss.

    Attributes:
        measure: by what quality is compared; None where none was measured.
        planned: whether `needs` are planned memory; else they are the sizes of files.
        needs: bytes that each measured row takes, by its index.
        fitting: indices of those that fit.
        choices: those of them and of the others whose loss is known.
    """

    measure: QualityMeasure | None
    planned: bool
    needs: dict[int, int]
    fitting: tuple[int, ...]
    choices: tuple[_Choice, ...]

    @property
    def within(self) -> tuple[_Choice, ...]:
        """The choices that fit."""
        return tuple(each for each in self.choices if each.index in self.fitting)


def recommend(results: Results, budget: int | None = None) -> int | None:
    """The row to take in `budget` bytes, by its index; None where nothing fits or quality was not measured.

    Of the rows that fit, the one that loses least; of those that nobody can tell from it, the smallest, and of those
    about as small one that is clearly faster; one of larger files that take no more memory where it is twice as fast.
    The reference is left out of it as long as a smaller row is near, which is one whose loss does not show clearly.
    Losses on text count `TEXT_SHARE` of those with pictures. What a row takes is the planned memory of all devices, or
    its files where no memory was planned; `budget` None is what is free where it was measured.
    """
    found = _compare(results, _room(results, budget)[0])
    if found.measure is None or not found.within:
        return None
    return _chosen(found.within, found.measure)[0].index


def advise(results: Results, budget: int | None = None) -> str:
    """Advise in one sentence what to run in `budget` bytes: the row of `recommend` beside its neighbours.

    Where several answers were compared, sentences on these follow; alone, where nothing else was measured.
    """
    several = advice_of(results)
    if several and is_best_of_alone(results):
        return several
    return f"{_advise(results, budget)} {several}".strip()


def _advise(results: Results, budget: int | None) -> str:
    names = row_names(results)
    budget, room = _room(results, budget)
    found = _compare(results, budget)
    if not found.needs:
        return "Nothing was measured, so nothing can be advised."
    if not found.fitting:
        smallest = min(found.needs, key=found.needs.__getitem__)
        what = "takes" if found.planned else "has files of"
        return f"Nothing measured fits {room}: the smallest, {names[smallest]}, {what} {_size(found.needs[smallest])}."
    if found.measure is None or not found.within:
        return _without_quality(results, found.fitting, names, room)
    sentence = _sentence(found, found.measure)
    return f"Within {room}, {sentence}" if room else sentence


def _compare(results: Results, budget: int | None) -> _Comparison:
    """Collect the measured rows, those that fit `budget` bytes, and the loss of each."""
    names = row_names(results)
    measured = [index for index, row in enumerate(results.rows) if row.status == "measured"]
    planned = {index: need for index in measured if (need := memory_needed(results.rows[index])) is not None}
    files = {index: results.rows[index].configuration.bytes for index in measured}
    needs = planned if len(planned) == len(files) else files
    measure = measure_of(results)
    choices = []
    for index in measured:
        loss = loss_of(results, index, measure) if measure else None
        if loss:
            speed = results.rows[index].speed
            choices.append(
                _Choice(
                    index=index,
                    name=names[index],
                    need=needs[index],
                    files=files[index],
                    loss=loss,
                    loss_on_text=loss_of(results, index, "text") if measure == "pictures" else None,
                    is_reference=index == results.reference,
                    decode=speed.decode if speed else None,
                )
            )
    fitting = tuple(index for index in measured if budget is None or needs[index] <= budget)
    return _Comparison(measure, needs is planned, needs, fitting, tuple(choices))


def _chosen(fitting: Sequence[_Choice], measure: QualityMeasure) -> tuple[_Choice, _Choice]:
    """The row to take, and the one that loses least of those it was chosen from."""
    reference = next((each for each in fitting if each.is_reference), None)
    near = [each for each in fitting if reference and each.felt < CLEAR_LOSS and each.files < reference.files]
    compared = near or fitting
    best = min(compared, key=lambda each: (each.felt, each.loss.value, each.files, each.need))
    equals = [each for each in compared if each.is_as_good_as(best, measure)]
    smallest = min(equals, key=lambda each: (each.files, each.need, each.felt))
    chosen = smallest
    for each in equals:
        least = _ABOUT_AS_FAST if each.files <= _ABOUT_AS_SMALL * smallest.files else _SEVERAL_TIMES
        if _takes_as_much(each, smallest) and _is_faster(each.decode, chosen.decode, least):
            chosen = each
    return chosen, best


def _room(results: Results, budget: int | None) -> tuple[int | None, str]:
    """The bytes that there are, and what they are called; empty where nobody knows."""
    budget = results.fits_bytes if budget is None else budget
    if budget is not None:
        return budget, _size(budget)
    if results.free_bytes is not None:
        return results.free_bytes, f"the {_size(results.free_bytes)} free here"
    return None, ""


def _sentence(found: _Comparison, measure: QualityMeasure) -> str:
    chosen, best = _chosen(found.within, measure)
    choices = found.choices
    place = f"at {_size(chosen.need)}" if found.planned else f"with files of {_size(chosen.need)}"
    if len(choices) == 1 and chosen.is_reference:
        return f"{chosen.name}, {place}, is all that was measured, so there is nothing to compare it with."
    kept = unbeaten({index: (each.need, each.loss.value) for index, each in enumerate(choices)})
    others = [choices[index] for index in sorted(kept) if choices[index] is not chosen]
    smaller = max((each for each in others if each.need < chosen.need), key=lambda each: each.need, default=None)
    above = [each for each in others if each.need > chosen.need]
    # What one might have taken instead goes before what comes next.
    larger = best if best.need > chosen.need else min(above, key=lambda each: each.need, default=None)
    text = f"{chosen.name}: {place} it {_loss(chosen, measure)}"
    if smaller:
        text += f", {_beside_smaller(chosen, smaller, measure)}"
    if larger:
        faster = _compared(chosen, larger)
        text += f", and is {faster}" if faster else ""
        return f"{text}; {_why_not_larger(chosen, larger, measure, fits=larger in found.within)}."
    faster = _compared(smaller, chosen) if smaller else ""
    return f"{text}; {smaller.name} is {faster}." if smaller and faster else f"{text}."


def _beside_smaller(chosen: _Choice, smaller: _Choice, measure: QualityMeasure) -> str:
    """Say what the row gains over the next smaller one."""
    less = smaller.loss.value - chosen.loss.value
    if less <= math.hypot(chosen.loss.error, smaller.loss.error):
        return f"where {smaller.name} {_loss(smaller, measure, short=True)}, a difference within the standard error"
    if chosen.loss.value == 0 or measure == "accuracy":
        return f"where {smaller.name} {_loss(smaller, measure, short=True)}"
    share = chosen.loss.value / smaller.loss.value
    word = next((word for low, high, word in _SHARES if low <= share <= high), None)
    return f"{word or _percent(share)} of what {smaller.name} loses"


def _why_not_larger(chosen: _Choice, larger: _Choice, measure: QualityMeasure, *, fits: bool) -> str:
    """Say what the next larger row would gain, and the memory it needs."""
    size = _size(larger.need)
    if not fits:
        if larger.is_reference:
            return f"{larger.name}, the reference, needs {size}"
        return f"{larger.name} would {_loss(larger, measure, short=True, verb=False)} but needs {size}"
    loses = "the reference" if larger.is_reference else f"which {_loss(larger, measure, short=True)}"
    if measure != "accuracy" and max(chosen.felt, larger.felt) <= NO_LOSS:
        difference = "too small to be seen in answers"
    elif measure == "accuracy" or chosen.is_as_good_as(larger, measure):
        difference = "within the standard error"
    else:
        difference = f"that {seen_in_answers(chosen.loss.value)} in answers"
    takes = f"about as much memory, and files of {_size(larger.files)}" if _takes_as_much(larger, chosen) else size
    return f"{larger.name}, {loses}, takes {takes} for a difference {difference}"


def _without_quality(results: Results, fitting: Sequence[int], names: tuple[str, ...], room: str) -> str:
    def bits(index: int) -> float:
        return results.rows[index].configuration.bits_per_weight

    speeds = {index: speed.decode for index in fitting if (speed := results.rows[index].speed)}
    if len(fitting) > 1 and len({results.rows[index].configuration.text for index in fitting}) == 1:
        return _fastest_setting(results, fitting, names)
    which = f" that fits {room}" if room else ""
    most = max(fitting, key=bits)
    text = f"Quality was not measured, so none can be called the best: of what was measured{which}, {names[most]} has"
    text += f" the most bits a weight ({number(bits(most))})"
    fastest = _clearly_first(speeds)
    if fastest is not None:
        who = "it" if fastest == most else names[fastest]
        text += f" and {who} is the fastest ({number(speeds[fastest].median)} tokens/s)"
    return f"{text}."


def _fastest_setting(results: Results, measured: Sequence[int], names: tuple[str, ...]) -> str:
    """Say which settings of one quant are the fastest, all else being equal."""
    speeds = {index: speed for index in measured if (speed := results.rows[index].speed)}
    told = [
        f"{fastest} {what} fastest ({number(found[fastest].median)} tokens/s)"
        for what, found in (
            ("decodes", _by_setting({index: speed.decode for index, speed in speeds.items()}, names, "n_prompt")),
            ("reads", _by_setting({index: speed.prefill for index, speed in speeds.items()}, names, "n_gen")),
        )
        if (fastest := _clearly_first(found)) is not None
    ]
    if told:
        return f"{' and '.join(told)}."
    return "No setting is clearly the fastest." if speeds else "Nothing was measured that one setting could be best in."


def _by_setting(speeds: Mapping[int, Spread], names: tuple[str, ...], without: str) -> dict[str, Spread]:
    """Return the best speed under each setting; empty where rows differ only in `without`, which does not matter."""
    best: dict[str, Spread] = {}
    for index, speed in sorted(speeds.items(), key=lambda each: each[1].median):
        name = " ".join(part for part in names[index].split() if not part.startswith(f"{without}="))
        if name:
            best[name] = speed
    return best if len(best) > 1 else {}


def _clearly_first(speeds: Mapping[_Name, Spread]) -> _Name | None:
    """Return the one that is clearly faster than all others; None if none is, or one row alone is known."""
    known = {name: speed for name, speed in speeds.items() if not speed.is_disturbed}
    ranked = sorted(known, key=lambda name: -known[name].median)
    if not ranked or (len(ranked) > 1 and not _is_faster(known[ranked[0]], known[ranked[1]])):
        return None
    return ranked[0]


def _loss(choice: _Choice, measure: QualityMeasure, *, short: bool = False, verb: bool = True) -> str:
    """Return the loss of a row as a predicate: "loses 0.0312 ±0.0004 nats with pictures"; `verb` conjugates it."""
    loss = choice.loss
    ending = "s" if verb else ""
    if measure == "accuracy":
        right = 100 * (1 - loss.value)
        error = 100 * loss.error
        is_near_an_end = right + error > 100 or right < error  # where the interval is no such one
        return f"answer{ending} {number(right) if short or is_near_an_end else with_error(right, error)}% right"
    if choice.is_reference:
        return f"lose{ending} nothing, being the reference"
    if short:
        return f"lose{ending} {number(loss.value)} nats"
    on = "with pictures" if measure == "pictures" else "on text"
    return f"lose{ending} {with_error(loss.value, loss.error)} nats {on} ({_shows(choice)})"


def _shows(choice: _Choice) -> str:
    """Say how a loss shows, with that on text beside it: "0.0167 on text; that rarely shows"."""
    seen, on_text = f"that {seen_in_answers(choice.loss.value)}", choice.loss_on_text
    if on_text is None:
        return seen
    seen_on_text = f"that {seen_in_answers(on_text.value)}"
    if seen_on_text == seen:
        return f"{number(on_text.value)} on text; {seen}"
    return f"{seen}; {number(on_text.value)} on text, {seen_on_text}"


def _compared(one: _Choice, other: _Choice) -> str:
    """How much faster one is: "40% faster than Q6_K"; empty where a speed is missing or was disturbed."""
    if not one.decode or not other.decode or not one.decode.median > 0 or not other.decode.median > 0:
        return ""
    if one.decode.is_disturbed or other.decode.is_disturbed:
        return ""
    if not _is_faster(one.decode, other.decode) and not _is_faster(other.decode, one.decode):
        return f"about as fast as {other.name}"
    times = one.decode.median / other.decode.median
    if times >= _SEVERAL_TIMES:
        return f"{number(times, 2)} times as fast as {other.name}"
    if times > 1:
        return f"{times - 1:.0%} faster than {other.name}"
    slower = f"{number(1 / times, 2)} times" if times < 1 / _SEVERAL_TIMES else f"{1 - times:.0%}"
    return f"{slower} slower than {other.name}"


def _takes_as_much(one: _Choice, other: _Choice) -> bool:
    """Whether nobody would choose one for its memory."""
    return one.need <= _ABOUT_AS_SMALL * other.need


def _is_faster(one: Spread | None, other: Spread | None, least: float = _ABOUT_AS_FAST) -> bool:
    """Whether a speed is higher by more than both spreads, from quartile to quartile, and `least` times the other.

    Nobody knows of a speed that was disturbed.
    """
    if one is None or other is None or one.is_disturbed or other.is_disturbed:
        return False
    return one.quartiles[0] > other.quartiles[1] and one.median > least * other.median


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else "less than 1%"


def _size(size: int) -> str:
    """Three significant digits and a unit: "9.03 GiB"."""
    value, _, unit = format_size(size).partition(" ")
    return f"{number(float(value))} {unit}"
