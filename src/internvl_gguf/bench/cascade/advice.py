"""What to take of several ways of answering, in a sentence."""

from __future__ import annotations

from collections.abc import Sequence

from internvl_gguf.bench.cascade.results import CascadeRow


def recommend(rows: Sequence[CascadeRow], n_models: int) -> int:
    """Return the row to take.

    Of the cascades that certainly take less time than the last model alone (the whole interval), the one with most
    right answers, and of equal ones the fastest. Where there is none, or a model alone has as many right answers in
    less time, that model.

    Args:
        rows: of a report, each model alone first.
        n_models: number of models.
    """
    faster = [place for place, row in enumerate(rows) if row.saved is not None and row.saved.low > 0]
    alone = range(n_models)
    best_alone = min(alone, key=lambda place: (-rows[place].right, rows[place].seconds))
    if not faster:
        return best_alone
    best = min(faster, key=lambda place: (-rows[place].fraction, rows[place].seconds))
    beats = [
        place
        for place in alone
        if rows[place].fraction >= rows[best].fraction and rows[place].seconds <= rows[best].seconds
    ]
    return min(beats, key=lambda place: rows[place].seconds) if beats else best


def advise(rows: Sequence[CascadeRow], models: Sequence[str]) -> str:
    """Return the sentence about the row to take."""
    row = rows[recommend(rows, len(models))]
    if row.saved is None or row.gained is None:
        return _alone(row, rows, models)
    others, votes = ",".join(models[1:]), f" --best-of {row.best_of}" if row.best_of > 1 else ""
    thresholds = ",".join(f"{threshold:g}" for threshold in row.thresholds)
    lost = -100 * row.gained.value
    right = (
        f"{abs(lost):.1f} {'fewer' if lost > 0 else 'more'} of 100 answers are right" if lost else "as many are right"
    )
    return (
        f"Take {models[0]} with --escalate {others} --threshold {thresholds}{votes}: it takes "
        f"{100 * row.saved.value:.0f}% less time than {models[-1]} alone (95% interval {100 * row.saved.low:.0f} to "
        f"{100 * row.saved.high:.0f}), and {right} (95% interval {100 * row.gained.low:+.1f} to "
        f"{100 * row.gained.high:+.1f}), on questions that the threshold was not fitted to."
    )


def _alone(row: CascadeRow, rows: Sequence[CascadeRow], models: Sequence[str]) -> str:
    cascades = [each for each in rows if each.kind == "cascade"]
    reason = (
        f"no cascade certainly takes less time than {models[-1]} alone"
        if all(each.saved is None or each.saved.low <= 0 for each in cascades)
        else "no cascade has more right answers in its time"
    )
    return f"Ask {row.name} alone: on these {row.questions:,} questions {reason}."
