"""What several answers are worth, in sentences and names."""

from __future__ import annotations

from internvl_gguf.bench.report.wording import number, row_names
from internvl_gguf.bench.results import ORACLE, BestOfResult, JudgedAnswers, Results, Row
from internvl_gguf.utils.safe_text import safe_line
from internvl_gguf.utils.sizes import counted


def judge_name(judge: str) -> str:
    """Return the name of a judge as the reports show it."""
    return "any right" if judge == ORACLE else safe_line(judge)


def is_best_of_alone(results: Results) -> bool:
    """Return whether several answers were compared and nothing else was measured, so that other tables have nothing."""
    return any(row.best_of for row in results.rows) and not any(
        row.speed or row.memory or row.quality or row.accuracy for row in results.rows
    )


def advice_of(results: Results) -> str:
    """Say in a sentence for each row and task what several answers are worth; empty where that was not measured."""
    measured = [(name, found) for name, row in _named(results) for found in row.best_of]
    has_rows = len({name for name, _ in measured}) > 1
    has_tasks = len({found.task for _, found in measured}) > 1
    sentences = []
    for name, found in measured:
        about = [part for part, is_told in ((name, has_rows), (safe_line(found.task), has_tasks)) if is_told]
        sentence = _sentence(found)
        sentences.append(f"{', '.join(about)}: {sentence}" if about else f"{sentence[0].upper()}{sentence[1:]}")
    return " ".join(sentences)


def single_answer(found: BestOfResult) -> str:
    """Return what the several answers are compared with."""
    return "one answer" if found.first_is_greedy else "one sampled answer"


def how_made(found: BestOfResult) -> str:
    """Say how the answers were made: "the first is greedy, the others are sampled (temperature 0.7, top-p 0.95)"."""
    sampled = f"sampled (temperature {found.temperature:g}, top-p {found.top_p:g})"
    return f"the first is greedy, the others are {sampled}" if found.first_is_greedy else f"all are {sampled}"


def meanings(found: BestOfResult) -> tuple[str, ...]:
    """Explain the numbers of a table, a short paragraph each."""
    pass1 = f"{percent(found.pass1)}% ({100 * found.pass1_low:.0f}–{100 * found.pass1_high:.0f})"
    mixed = f"{counted(found.mixed, 'question')} {'has' if found.mixed == 1 else 'have'}"
    lines = [
        f"{found.questions:,} questions with {found.counts[-1]} answers each; {how_made(found)}, seeds from "
        f"{found.seed}. Fewer answers are estimated from these.",
        f"Of the sampled answers alone {pass1} are right (pass@1). {mixed} right and wrong answers: only "
        "there a judge matters.",
        f"Right: % of the questions, with the 95% interval. Gain: points more than {single_answer(found)}, compared "
        f"question by question. {judge_name(ORACLE).capitalize()}: a right answer is among them (pass@N), which no "
        "judge exceeds.",
    ]
    if any(each.seconds for each in found.judged):
        timed = max(each.seconds.repetitions for each in found.judged if each.seconds)
        lines.append(
            f"Seconds: a question from its pictures to the chosen answer, median of {timed}; a vote ends as soon as it "
            "is decided. Tokens: of all answers to a question."
        )
    return tuple(lines)


def percent(fraction: float) -> str:
    """Return a fraction in percent, without its sign."""
    return number(100 * fraction)


def points(fraction: float) -> str:
    """Return a difference of fractions in points of percent, with its sign: "+1.3", "-0.4"."""
    return f"{100 * fraction:+.1f}"


def _named(results: Results) -> list[tuple[str, Row]]:
    rows = zip(row_names(results), results.rows, strict=True)
    return [(name, row) for name, row in rows if row.status == "measured"]


def _sentence(found: BestOfResult) -> str:
    single = found.of(ORACLE, 1)
    choices = [each for each in found.judged if each.judge != ORACLE and each.count > 1]
    if single is None or not choices:
        return f"of {safe_line(found.task)} nothing was compared."
    surely = [each for each in choices if each.gain_low > 0]
    best = max(surely or choices, key=lambda each: (each.right, -each.count))
    one, several = percent(found.fraction(single)), percent(found.fraction(best))
    if surely:
        text = (
            f"{judge_name(best.judge)} over {best.count} is right for {several}%, {single_answer(found)} for {one}% "
            f"({_gain(best)})"
        )
    else:
        text = (
            f"no judge is surely better than {single_answer(found)}, which is right for {one}%: at best "
            f"{judge_name(best.judge)} over {best.count} is for {several}% ({_gain(best)})"
        )
    times = _times(found, best)
    oracle = found.of(ORACLE, best.count)
    room = f"; among {best.count} there is a right one for {percent(found.fraction(oracle))}%" if oracle else ""
    return f"{text}{times}{room}."


def _gain(judged: JudgedAnswers) -> str:
    return f"{points(judged.gain)} points, 95%: {points(judged.gain_low)} to {points(judged.gain_high)}"


def _times(found: BestOfResult, judged: JudgedAnswers) -> str:
    one = found.of(judged.judge, 1)
    if not judged.seconds or not one or not one.seconds or not one.seconds.median > 0:
        return ""
    return f", in {number(judged.seconds.median / one.seconds.median, 2)} times the time"
