"""One sentence for a person who has so much memory: which row to take, and why not its neighbours."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from internvl_gguf.bench.report.pareto import (
    Loss,
    QualityMeasure,
    decode_speed,
    loss_of,
    measure_of,
    memory_needed,
    unbeaten,
)
from internvl_gguf.bench.report.wording import number, row_names, with_error
from internvl_gguf.bench.results import Results, Spread
from internvl_gguf.planning.ranking import NO_LOSS
from internvl_gguf.utils.sizes import format_size

_ABOUT_AS_SMALL: Final = 1.03  # by less nobody chooses
_SHARES: Final = ((0.45, 0.55, "half"), (0.31, 0.36, "a third"), (0.23, 0.27, "a quarter"), (0.18, 0.22, "a fifth"))


@dataclass(frozen=True)
class _Choice:
    """A row that can be advised.

    Attributes:
        name: as the reports call it.
        need: bytes it takes.
        loss: what it loses.
        loss_on_text: the same on text, where `loss` is with pictures; None where that was not measured.
        is_reference: whether the others are measured against it.
        decode: its speed in tokens a second.
    """

    name: str
    need: int
    loss: Loss
    loss_on_text: Loss | None
    is_reference: bool
    decode: Spread | None

    def is_as_good_as(self, other: _Choice, measure: QualityMeasure) -> bool:
        """Whether what it loses more is within the standard error, or too little for anyone to tell.

        Of right answers none is as good as more: a few hundred questions are too few to show that two rows are alike.
        """
        if measure == "accuracy":
            return self.loss.value <= other.loss.value
        pairs = [(self.loss, other.loss)]
        if self.loss_on_text and other.loss_on_text:
            pairs.append((self.loss_on_text, other.loss_on_text))
        return all(_is_alike(own, its) for own, its in pairs)


def advise(results: Results, budget: int | None = None) -> str:
    """What to run in `budget` bytes, in one sentence; None is what is free where it was measured.

    Of the rows that fit, the one that loses least; of those that nobody can tell from it, the smallest, and of those
    about as small the fastest. Where losses on text were measured beside those with pictures, both have to be alike.
    What a row takes is the planned memory of all devices, or its files where no memory was planned.
    """
    names = row_names(results)
    measured = [index for index, row in enumerate(results.rows) if row.status == "measured"]
    if not measured:
        return "Nothing was measured, so nothing can be advised."
    needs = {index: memory_needed(results.rows[index]) for index in measured}
    planned = None not in needs.values()
    files = {index: results.rows[index].configuration.bytes for index in measured}
    sizes = {index: need if planned and need is not None else files[index] for index, need in needs.items()}
    budget, room = _room(results, budget)
    fitting = [index for index in measured if budget is None or sizes[index] <= budget]
    if not fitting:
        smallest = min(measured, key=sizes.__getitem__)
        what = "takes" if planned else "has files of"
        return f"Nothing measured fits {room}: the smallest, {names[smallest]}, {what} {_size(sizes[smallest])}."
    measure = measure_of(results)
    choices: dict[int, _Choice] = {}
    for index in measured:
        loss = loss_of(results, index, measure) if measure else None
        if loss:
            speed = results.rows[index].speed
            decode = speed.decode if speed else None
            text = loss_of(results, index, "text") if measure == "pictures" else None
            choices[index] = _Choice(names[index], sizes[index], loss, text, index == results.reference, decode)
    compared = [choices[index] for index in fitting if index in choices]
    if measure is None or not compared:
        return _without_quality(results, fitting, names, room)
    sentence = _sentence(compared, list(choices.values()), measure, planned)
    return f"Within {room}, {sentence}" if room else sentence


def _room(results: Results, budget: int | None) -> tuple[int | None, str]:
    """The bytes that there are, and what they are called; empty where nobody knows."""
    budget = results.fits_bytes if budget is None else budget
    if budget is not None:
        return budget, _size(budget)
    if results.free_bytes is not None:
        return results.free_bytes, f"the {_size(results.free_bytes)} free here"
    return None, ""


def _sentence(fitting: list[_Choice], choices: list[_Choice], measure: QualityMeasure, planned: bool) -> str:
    best = min(fitting, key=lambda each: (each.loss.value, each.need))
    equals = [each for each in fitting if each.is_as_good_as(best, measure)]
    small = _ABOUT_AS_SMALL * min(each.need for each in equals)
    chosen = min(
        (each for each in equals if each.need <= small), key=lambda each: (-_rate(each), each.need, each.loss.value)
    )
    place = f"at {_size(chosen.need)}" if planned else f"with files of {_size(chosen.need)}"
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
        return f"{text}; {_why_not_larger(chosen, larger, measure, fits=larger in fitting)}."
    faster = _compared(smaller, chosen) if smaller else ""
    return f"{text}; {smaller.name} is {faster}." if smaller and faster else f"{text}."


def _beside_smaller(chosen: _Choice, smaller: _Choice, measure: QualityMeasure) -> str:
    """What is gained over the next smaller one."""
    less = smaller.loss.value - chosen.loss.value
    if less <= math.hypot(chosen.loss.error, smaller.loss.error):
        return f"where {smaller.name} {_loss(smaller, measure, short=True)}, a difference within the standard error"
    if chosen.loss.value == 0 or measure == "accuracy":
        return f"where {smaller.name} {_loss(smaller, measure, short=True)}"
    share = chosen.loss.value / smaller.loss.value
    word = next((word for low, high, word in _SHARES if low <= share <= high), None)
    return f"{word or _percent(share)} of what {smaller.name} loses"


def _why_not_larger(chosen: _Choice, larger: _Choice, measure: QualityMeasure, *, fits: bool) -> str:
    """What the next larger one would bring, and take."""
    size = _size(larger.need)
    if not fits:
        if larger.is_reference:
            return f"{larger.name}, the reference, needs {size}"
        return f"{larger.name} would {_loss(larger, measure, short=True, verb=False)} but needs {size}"
    loses = "the reference" if larger.is_reference else f"which {_loss(larger, measure, short=True)}"
    if _is_imperceptible(chosen, larger):
        return f"{larger.name}, {loses}, takes {size} for a difference too small to be seen in answers"
    return f"{larger.name}, {loses}, takes {size} for a difference within the standard error"


def _without_quality(results: Results, fitting: list[int], names: tuple[str, ...], room: str) -> str:
    def bits(index: int) -> float:
        return results.rows[index].configuration.bits_per_weight

    most = max(fitting, key=bits)
    speeds = {index: speed for index in fitting if (speed := decode_speed(results.rows[index])) is not None}
    which = f" that fits {room}" if room else ""
    text = f"Quality was not measured, so none can be called the best: of what was measured{which}, {names[most]} has"
    text += f" the most bits a weight ({number(bits(most))})"
    if speeds:
        fastest = max(speeds, key=speeds.__getitem__)
        text += (
            f" and {'it' if fastest == most else names[fastest]} is the fastest ({number(speeds[fastest])} tokens/s)"
        )
    return f"{text}."


def _loss(choice: _Choice, measure: QualityMeasure, *, short: bool = False, verb: bool = True) -> str:
    """What a row loses, as a predicate: "loses 0.0312 ±0.0004 nats with pictures"; `verb` conjugates it."""
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
    beside = f" ({number(choice.loss_on_text.value)} on text)" if choice.loss_on_text is not None else ""
    return f"lose{ending} {with_error(loss.value, loss.error)} nats {on}{beside}"


def _is_imperceptible(one: _Choice, other: _Choice) -> bool:
    """Whether both lose so little that answers do not show it; a matter of KL divergences."""
    losses = (one.loss, one.loss_on_text, other.loss, other.loss_on_text)
    return all(loss.value <= NO_LOSS for loss in losses if loss)


def _is_alike(own: Loss, other: Loss) -> bool:
    """Whether a KL divergence is no larger than another, or not by more than can be told, in answers or at all."""
    more = own.value - other.value
    return more <= 0 or max(own.value, other.value) <= NO_LOSS or more <= math.hypot(own.error, other.error)


def _compared(one: _Choice, other: _Choice) -> str:
    """How much faster one is: "2.1x as fast as Q6_K"; empty where a speed is missing."""
    if not one.decode or not other.decode or not other.decode.median > 0:
        return ""
    overlaps = one.decode.low <= other.decode.high and other.decode.low <= one.decode.high
    ratio = number(one.decode.median / other.decode.median, 2)
    return f"about as fast as {other.name}" if overlaps or ratio == "1.0" else f"{ratio}x as fast as {other.name}"


def _rate(choice: _Choice) -> float:
    return choice.decode.median if choice.decode else 0.0


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else "less than 1%"


def _size(size: int) -> str:
    """Three significant digits and a unit: "9.03 GiB"."""
    value, _, unit = format_size(size).partition(" ")
    return f"{number(float(value))} {unit}"
