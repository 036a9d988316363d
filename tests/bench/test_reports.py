"""What `internvl bench` says: formats that are read back, the unbeaten rows, the advice, the table of a terminal."""

from __future__ import annotations

import copy
import csv
import io
import json
import math
import random
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from internvl_gguf.bench.best_of.tables import HEAD, best_of_tables
from internvl_gguf.bench.best_of.wording import is_best_of_alone
from internvl_gguf.bench.report.advice import advise, recommend
from internvl_gguf.bench.report.columns import columns_of
from internvl_gguf.bench.report.formats import render, results_from_json, results_to_csv, results_to_json
from internvl_gguf.bench.report.legend import common_settings, legend, not_run
from internvl_gguf.bench.report.pareto import best_rows, unbeaten
from internvl_gguf.bench.report.wording import number, row_names, spread, with_error
from internvl_gguf.bench.results import (
    ORACLE,
    AccuracyResult,
    BestOfResult,
    Configuration,
    Divergence,
    JudgedAnswers,
    MemoryResult,
    QualityResult,
    Results,
    Row,
    SpeedResult,
    Spread,
)
from internvl_gguf.cli.bench_report import print_report
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.utils.safe_text import safe_line, shortened
from tests.support.bench_samples import GIB, HOSTILE, LADDER, MIB, failed_row, hostile, ladder_row, results_of, samples

SAMPLES = samples()

numbers = st.floats(allow_nan=False)
counts = st.integers(0, 2**53)
texts = st.text(max_size=12)
values = st.recursive(
    st.none() | st.booleans() | counts | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=3,
)
spreads = st.builds(Spread, numbers, numbers, numbers, counts)
divergences = st.builds(Divergence, counts, *[numbers] * 8, st.lists(numbers, max_size=3).map(tuple))
judged = st.builds(
    JudgedAnswers,
    texts | st.just(ORACLE),
    st.sampled_from([1, 2, 8]) | counts,
    *[numbers] * 6,
    st.none() | spreads,
)
several = st.builds(
    BestOfResult,
    texts,
    counts,
    st.lists(counts, min_size=1, max_size=3).map(tuple),
    counts,
    st.booleans(),
    *[numbers] * 5,
    counts,
    st.lists(numbers, max_size=3).map(tuple),
    st.lists(judged, max_size=4).map(tuple),
    counts,
)
rows = st.builds(
    Row,
    st.builds(Configuration, *[texts] * 4, counts, counts, numbers, st.dictionaries(texts, values, max_size=2)),
    st.sampled_from(["measured", "out of memory", "failed", "not run"]),
    texts,
    st.none() | st.builds(SpeedResult, *[spreads] * 5, st.none() | spreads, *[counts] * 4),
    st.none() | st.builds(MemoryResult, *[st.dictionaries(texts, counts, max_size=2)] * 2),
    st.none() | st.builds(QualityResult, *[st.none() | divergences] * 4, counts),
    st.lists(st.builds(AccuracyResult, texts, *[counts] * 3, numbers, numbers, counts), max_size=2).map(tuple),
    st.lists(several, max_size=2).map(tuple),
)
benchmarks = st.builds(
    Results,
    *[texts] * 5,
    st.none(),
    st.lists(rows, max_size=3).map(tuple),
    texts,
    st.lists(texts, max_size=2).map(tuple),
).flatmap(
    lambda results: st.sampled_from([None, *range(len(results.rows))]).map(
        lambda index: replace(results, reference=index)
    )
)
unhurried = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])


# Formats


@unhurried
@given(benchmarks)
def test_what_was_written_is_read_back(results: Results) -> None:
    document = json.loads(render(results, "json"))
    assert document["format"] == 1
    assert results_from_json(document) == results


@unhurried
@given(benchmarks)
def test_every_format_and_the_advice_stand_any_results(results: Results) -> None:
    lines = list(csv.reader(io.StringIO(results_to_csv(results), newline=""), strict=True))
    assert len(lines) == 1 + len(results.rows)
    assert len({len(line) for line in lines}) == 1
    assert render(results, "md")
    assert advise(results, 2**30).endswith(".")


def test_numbers_that_json_has_no_form_for() -> None:
    row = ladder_row("IQ1_S")
    assert row.quality is not None
    assert row.quality.text is not None
    broken = replace(row.quality.text, mean=math.nan, perplexity=math.inf, maximum=-math.inf)
    text = render(results_of([replace(row, quality=replace(row.quality, text=broken))], None), "json")
    quality = results_from_json(json.loads(text, parse_constant=pytest.fail)).rows[0].quality
    assert quality is not None
    assert quality.text is not None
    assert math.isnan(quality.text.mean)
    assert (quality.text.perplexity, quality.text.maximum) == (math.inf, -math.inf)


def test_a_field_of_a_later_version_is_left_out() -> None:
    document = results_to_json(SAMPLES["two"])
    document["weather"] = "fair"
    document["rows"][0]["speed"]["rain"] = 1
    assert results_from_json(document) == SAMPLES["two"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.pop("format"), "there is no 'format'"),
        (lambda d: d.update(format=2), "in format 2, and this version reads 1"),
        (lambda d: d.pop("rows"), "rows is missing"),
        (lambda d: d.update(rows=None), "rows is None"),
        (lambda d: d.update(reference=9), "reference is 9, and there are 2 rows"),
        (lambda d: d["rows"].append(7), "rows[2] is 7"),
        (lambda d: d["rows"][1].update(status="fine"), "rows[1].status is 'fine'"),
        (lambda d: d["rows"][1]["speed"]["decode"].update(median="fast"), "rows[1].speed.decode.median is 'fast'"),
        (lambda d: d["rows"][1]["speed"]["decode"].update(median=True), "rows[1].speed.decode.median is True"),
        (lambda d: d["rows"][1]["speed"]["load"].update(low=10**400), "rows[1].speed.load.low is 1000"),
        (lambda d: d["rows"][0]["memory"]["peak"].update(CPU=1.5), "rows[0].memory.peak['CPU'] is 1.5"),
    ],
)
def test_a_damaged_document_is_refused(change: Any, said: str) -> None:
    document = results_to_json(SAMPLES["two"])
    change(document)
    with pytest.raises(InvalidRequestError, match=re.escape(said)) as caught:
        results_from_json(document)
    assert caught.value.hint


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from leaves(value[key], (*path, key))


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_no_damage_is_more_than_an_error_of_ours(data: st.DataObject) -> None:
    document = copy.deepcopy(results_to_json(SAMPLES["errors"]))
    path = data.draw(st.sampled_from([path for path in leaves(document) if path]))
    place: Any = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = data.draw(values)
    try:
        found = results_from_json(document)
    except InvalidRequestError:
        return
    written = results_to_json(found)
    assert results_to_json(results_from_json(written)) == written, "what was accepted can be kept"


def test_a_table_for_spreadsheets() -> None:
    text = results_to_csv(SAMPLES["errors"])
    assert text.count("\r\n") == text.count("\n") == 7
    lines = list(csv.DictReader(io.StringIO(text, newline="")))
    assert len(set(lines[0])) == len(next(csv.reader([text.splitlines()[0]])))
    first, failed, third = lines[:3]
    speed = SAMPLES["errors"].rows[2].speed
    assert speed is not None
    assert float(third["decode_tokens_per_second_median"]) == speed.decode.median
    assert (third["quant"], third["is_reference"], third["best_by_size"]) == ("Q4_K_M", "false", "true")
    assert (first["is_reference"], first["setting_kv_type"]) == ("true", "f16")
    assert (failed["status"], failed["decode_tokens_per_second_median"]) == ("out of memory", "")
    assert "needs 29.9 GiB, and" in failed["error"]  # a comma, in quotes
    assert float(third["pictures_kld_percentile_50_nats"]) == float(third["pictures_kld_median_nats"])


def test_columns_keep_their_order_whichever_row_has_them_first() -> None:
    """A row that failed has no speed; its columns came behind those of the machine when it was the first."""
    results = SAMPLES["errors"]
    turned = replace(results, rows=results.rows[1:] + results.rows[:1], reference=len(results.rows) - 1)
    assert results_to_csv(turned).splitlines()[0] == results_to_csv(results).splitlines()[0]


def markdown_cells(text: str) -> tuple[list[list[str]], list[str]]:
    """Cells of the table and the other paragraphs as a reader of Markdown with tables sees them."""
    from markdown_it import MarkdownIt

    table: list[list[str]] = []
    others: list[str] = []
    inside = False
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        inside = inside or token.type == "table_open"
        inside = inside and token.type != "table_close"
        if token.type == "tr_open":
            table.append([])
        elif token.type == "inline":
            shown = "".join(child.content for child in token.children or [])
            assert {child.type for child in token.children or []} <= {
                "text",
                "text_special",
                "strong_open",
                "strong_close",
            }
            (table[-1] if inside else others).append(shown)
    return table, others


@pytest.mark.parametrize("name", SAMPLES)
def test_markdown_is_a_table_where_github_shows_it(name: str) -> None:
    results = SAMPLES[name]
    table, others = markdown_cells(render(results, "md", 12 * GIB))
    measured = [row for row in results.rows if row.status == "measured"]
    several = best_of_tables(results)
    lines = 0 if is_best_of_alone(results) else len(measured) + bool(measured)
    assert len(table) == lines + sum(1 + len(each.labels) for each in several)
    assert table[:1] == [["Quant", *(column.title for column in columns_of(results))]] * bool(measured) or not lines
    assert table[lines : lines + 1] == [[HEAD, *(column.title for column in each.columns)] for each in several][:1]
    assert advise(results, 12 * GIB) in "".join(others)


def test_names_do_not_become_markup_in_markdown() -> None:
    results = hostile()
    table, others = markdown_cells(render(results, "md"))
    shown = [row[0].removeprefix("→ ") for row in table[1:]]
    assert shown == [name.strip() for name in row_names(results)[:2]]
    assert others[0].startswith(f"{safe_line(HOSTILE)}: 2 quants compared by ")
    assert any(line.startswith(row_names(results)[2].strip()) for line in others)  # the one that failed


# The unbeaten rows and the advice


@given(st.dictionaries(st.integers(0, 30), st.tuples(*[st.integers(0, 6)] * 3), max_size=20))
def test_unbeaten_is_what_no_other_beats(costs: dict[int, tuple[int, ...]]) -> None:
    best = unbeaten(costs)

    def beats(one: int, other: int) -> bool:
        pairs = list(zip(costs[one], costs[other], strict=True))
        return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)

    assert not any(beats(one, other) for one in costs for other in best)
    assert all(any(beats(one, other) for one in best) for other in costs.keys() - best)


def test_the_unbeaten_rows_of_a_ladder() -> None:
    results = SAMPLES["ladder"]
    best = best_rows(results)
    names = row_names(results)
    assert {"BF16", "Q8_K_XL", "Q6_K", "IQ1_S"} <= {names[index] for index in best.by_size}
    assert "Q4_1" not in {names[index] for index in best.by_size | best.by_speed}  # larger and worse than Q4_K_S
    assert best.by_size < best.by_speed  # Q3_K_S is beaten by IQ3_XXS, but faster
    assert best_rows(SAMPLES["no quality"]).by_size == frozenset()


def test_of_the_same_files_the_ones_that_take_less_memory_are_unbeaten_too() -> None:
    """A quantised cache loses something and saves memory; by the files alone it would be worse and no smaller."""
    results = SAMPLES["sweep"]
    best = {row_names(results)[index] for index in best_rows(results).by_size}
    assert {"Q4_K_M+Q8_0 kv_type=f16", "Q4_K_M+Q8_0 kv_type=q8_0"} <= best


def test_the_advice_says_what_it_gives_up_and_gains() -> None:
    results = SAMPLES["ladder"]
    assert advise(results, 12 * GIB) == (
        "Within 12.0 GiB, Q5_K_S: at 11.9 GiB it loses 0.0205 ±0.0013 nats with pictures (0.0167 on text; that "
        "rarely shows), half of what Q4_K_S loses, and is about as fast as Q5_K_M; Q5_K_M would lose 0.0130 nats but "
        "needs 12.2 GiB."
    )
    assert advise(SAMPLES["gpu"], 12 * GIB) == (
        "Within 12.0 GiB, Q4_K_M: at 11.5 GiB it loses 0.0530 ±0.0033 nats with pictures (that shows now and then; "
        "0.0369 on text, that rarely shows), 12% of what IQ2_M loses, and is 28% faster than Q6_K; Q6_K would lose "
        "0.00694 nats but needs 14.4 GiB."
    )
    assert advise(SAMPLES["no speed"], 12 * GIB).startswith("Within 12.0 GiB, Q6_K: with files of 11.9 GiB")
    assert "nats on text" in advise(SAMPLES["text only"], 12 * GIB)


def test_the_advice_never_exceeds_the_budget() -> None:
    results = SAMPLES["ladder"]
    needs = {
        name: sum(row.memory.planned.values()) for name, row in zip(LADDER, results.rows, strict=True) if row.memory
    }
    for budget in range(6 * GIB, 32 * GIB, GIB // 3):
        said = re.fullmatch(r"Within [\d.]+ GiB, (\S+): .*", advise(results, budget))
        assert said
        assert needs[said[1]] <= budget


def test_without_a_budget_the_advice_is_for_what_there_is() -> None:
    """People read that BF16 loses nothing, which was true, and had no room for it."""
    results = SAMPLES["ladder"]
    asked = advise(results, 12 * GIB)
    assert advise(replace(results, free_bytes=12 * GIB)) == asked.replace("12.0 GiB,", "the 12.0 GiB free here,", 1)
    assert advise(replace(results, free_bytes=99 * GIB, fits_bytes=12 * GIB)) == asked
    assert advise(replace(results, free_bytes=99 * GIB, fits_bytes=99 * GIB), 12 * GIB) == asked


def test_a_difference_that_nobody_could_see_is_not_paid_for() -> None:
    text = advise(SAMPLES["ladder"])
    assert text.startswith("Q8_K_XL: at 19.6 GiB it loses 0.00100 ±0.00006 nats with pictures")
    assert text.endswith("BF16, the reference, takes 29.9 GiB for a difference too small to be seen in answers.")


def with_other_speeds(results: Results, seed: int) -> Results:
    """The same files in another run: losses as they were, speeds as a busy machine gives them."""
    dice = random.Random(seed)
    rows = []
    for row in results.rows:
        assert row.speed
        decode = row.speed.decode.median * dice.gauss(1, 0.05)
        values = [decode * dice.gauss(1, 0.03) for _ in range(4)]
        speed = replace(row.speed, decode=Spread.of([*values, decode * dice.uniform(0.1, 1)]))
        rows.append(replace(row, speed=speed))
    return replace(results, rows=tuple(rows))


@pytest.mark.parametrize("budget", [None, 12 * GIB, 8 * GIB])
def test_two_runs_of_the_same_files_recommend_the_same(budget: int | None) -> None:
    """One run said Q8_0 and the next BF16: which it was depended on which was faster by chance."""
    results = SAMPLES["ladder"]
    assert {recommend(with_other_speeds(results, seed), budget) for seed in range(30)} == {recommend(results, budget)}


def test_the_reference_is_recommended_only_where_nothing_else_is_near() -> None:
    """Of BF16 and Q4_K_M the advice was BF16, which nobody measures quants for."""
    results = results_of([ladder_row("BF16"), ladder_row("Q4_K_M")])
    assert recommend(results) == 1
    assert advise(results).endswith(
        "BF16, the reference, takes 29.9 GiB for a difference that shows now and then in answers."
    )
    assert recommend(results_of([ladder_row("BF16"), ladder_row("IQ1_S")])) == 0


def test_one_disturbed_run_changes_neither_quartiles_nor_spread() -> None:
    """A whisker from 85 to 2,515 tokens a second made nine tenths of a chart empty."""
    disturbed = Spread.of([2480.0, 85.0, 2500.0, 2515.0, 2460.0])
    assert disturbed.quartiles == (2460, 2500)
    assert disturbed.outliers == (85,)
    assert spread(disturbed) == "2,480 ±20"
    assert Spread.of([1.0, 2.0]).quartiles == (1, 2)


def test_rows_that_were_not_run_take_one_line() -> None:
    """After Ctrl-C 21 rows of dashes buried the 8 that were measured."""
    rows = [ladder_row("BF16"), *(failed_row(quant, "not run") for quant in list(LADDER)[1:])]
    assert not_run(results_of(rows)) == (
        "Not measured (interrupted): Q8_K_XL, Q6_K_XL, Q6_K, ... 20 more. Run it again to go on."
    )
    assert not_run(results_of(rows[:3])) == "Not measured (interrupted): Q8_K_XL, Q6_K_XL. Run it again to go on."
    assert len(markdown_cells(render(results_of(rows), "md"))[0]) == 2


def with_losses(results: Results, index: int, pictures: float, text: float) -> Results:
    """The results with other losses of one row."""
    row = results.rows[index]
    assert row.quality
    assert row.quality.pictures
    assert row.quality.text
    quality = replace(
        row.quality,
        pictures=replace(row.quality.pictures, mean=pictures, mean_error=pictures / 10),
        text=replace(row.quality.text, mean=text, mean_error=text / 100),
    )
    rows = (*results.rows[:index], replace(row, quality=quality), *results.rows[index + 1 :])
    return replace(results, rows=rows)


def test_what_is_lost_on_text_counts_where_pictures_show_nothing() -> None:
    """A quant was advised that loses next to nothing in answers about pictures, and 0.9 nats on text."""
    results = results_of([ladder_row("BF16"), ladder_row("Q4_K_M")])
    assert advise(with_losses(results, 1, 0.0015, 0.0015)).startswith("Q4_K_M: ")
    assert advise(with_losses(results, 1, 0.0015, 0.888)).startswith("BF16: ")


def test_of_rows_that_are_alike_and_about_as_small_the_fastest_is_advised() -> None:
    """For one MiB in two hundred the slowest was."""
    base = ladder_row("Q6_K")
    assert base.memory
    planned = {"CPU": 200 * MIB}
    small = replace(ladder_row("IQ3_XXS"), memory=replace(base.memory, planned=planned))
    fast = replace(base, memory=replace(base.memory, planned={"CPU": 201 * MIB}))
    small = replace(small, configuration=replace(small.configuration, text_bytes=fast.configuration.text_bytes - MIB))
    large = replace(ladder_row("BF16"), memory=replace(base.memory, planned={"CPU": 400 * MIB}))
    assert fast.speed
    slow = replace(fast.speed, decode=Spread(1.0, 1.0, 1.0, 5))
    results = results_of([large, replace(small, speed=slow), fast])
    for index in (1, 2):
        results = with_losses(results, index, 0.001, 0.001)
    assert advise(results).startswith("Q6_K: ")


def with_decode(row: Row, *values: float) -> Row:
    assert row.speed
    return replace(row, speed=replace(row.speed, decode=Spread.of(values)))


def in_the_same_memory(*quants: str) -> list[Row]:
    """Quants of a model whose buffers are all its memory: each takes 214 MiB."""
    memory = MemoryResult({"CPU": 214 * MIB}, {"CPU": 210 * MIB})
    return [replace(ladder_row(quant, scale=1 / 4096), memory=memory) for quant in quants]


def test_the_advice_calls_each_loss_by_the_scale() -> None:
    """It said "9.5e-4 with pictures (0.111 on text; that rarely shows)", where 0.111 shows clearly by the scale."""
    text = advise(with_losses(results_of([ladder_row("BF16"), ladder_row("Q4_K_M")]), 1, 0.00095, 0.111))
    assert "loses 9.50e-4 ±1e-4 nats with pictures (that nobody sees; 0.111 on text, that shows clearly)" in text


def test_a_quant_that_saves_no_memory_is_not_advised_for_it() -> None:
    """Both took 214 MiB, and the one advised was twenty times slower as measured."""
    whole, larger, smaller = in_the_same_memory("BF16", "Q6_K", "Q4_K_M")
    rows = [whole, with_decode(larger, 2000, 2010, 1990, 2000), with_decode(smaller, 100, 101, 99, 100)]
    results = with_losses(with_losses(results_of(rows), 1, 0.0008, 0.002), 2, 0.0008, 0.002)
    assert advise(results).startswith("Q6_K: at 214 MiB")
    two = replace(results, rows=(results.rows[0], results.rows[2]))
    small = replace(two.rows[0], memory=MemoryResult({"CPU": 215 * MIB}, {}))
    assert "takes about as much memory, and files of" in advise(replace(two, rows=(small, two.rows[1])))


def test_a_disturbed_speed_is_marked_and_no_reason() -> None:
    """A decode speed of 555 ±1996 stood in the advice, and without its ± looked like any other."""
    results = results_of([ladder_row("BF16"), with_decode(ladder_row("Q4_K_M"), 555, 10, 4000, 600, 3000, 20, 500)])
    decode = next(column for column in columns_of(results) if column.short_title == "decode")
    assert decode.bare[1] == "~555"
    assert any("measure again" in line for line in legend(results))
    assert "fast" not in advise(results)
    assert not any("measure again" in line for line in legend(SAMPLES["ladder"]))


@pytest.mark.parametrize(("speed", "said"), [(61.0, "39% slower than"), (5.0, "20 times slower than")])
def test_a_slower_quant_is_called_slower(speed: float, said: str) -> None:
    """It was "0.61x as fast"."""
    larger, smaller = with_decode(ladder_row("Q6_K"), 100), with_decode(ladder_row("Q4_K_M"), speed)
    assert said in advise(results_of([ladder_row("BF16"), larger, smaller]), 11 * GIB)


def test_a_reference_that_is_quantised_is_called_so() -> None:
    quantised = legend(results_of([ladder_row("Q8_K_XL"), ladder_row("Q4_K_M")]))
    assert any("The reference is quantised itself" in line for line in quantised)
    assert not any("quantised itself" in line for line in legend(SAMPLES["ladder"]))


def swept(n_prompt: int, prefill: float, n_gen: int = 32) -> Row:
    row = with_decode(ladder_row("Q8_K_XL"), *(50.0 + each for each in range(4)))
    assert row.speed
    row = replace(row, speed=replace(row.speed, prefill=Spread.of([prefill + each for each in range(4)])))
    settings = {**row.configuration.settings, "n_prompt": n_prompt, "n_gen": n_gen}
    return replace(row, quality=None, accuracy=(), configuration=replace(row.configuration, settings=settings))


def test_the_advice_after_a_sweep_of_one_quant_is_the_fastest_setting() -> None:
    """It "has the most bits a weight (8.64)", of equal bits; and its names were cut where they differ."""
    results = results_of([swept(128, 50), swept(512, 80)], reference=None)
    assert row_names(results) == ("n_prompt=128", "n_prompt=512")
    assert advise(results) == "n_prompt=512 reads fastest (81.5 tokens/s)."
    four = results_of([swept(length, 90 - length / 10, n_gen) for length in (128, 512) for n_gen in (32, 64)], None)
    assert row_names(four)[0] == "n_prompt=128 n_gen=32"
    assert advise(four) == "n_prompt=128 reads fastest (78.7 tokens/s)."
    assert advise(results_of([swept(128, 50), swept(512, 50)], None)) == "No setting is clearly the fastest."
    assert "Q8_K_XL" in common_settings(results)


def test_two_lengths_of_answers_are_told_as_two() -> None:
    """It was "32 to 64 tokens decoded"."""
    rows = [
        replace(row, speed=row.speed and replace(row.speed, answer_tokens=tokens))
        for row, tokens in ((swept(128, 50), 32), (swept(512, 80), 64))
    ]
    assert any("32 or 64 tokens decoded" in line for line in legend(results_of(rows, reference=None)))


def test_a_share_of_right_answers_never_exceeds_all() -> None:
    """Four right of four were 100 ±12%."""
    right = AccuracyResult("mine", 4, 4, 4, 0.51, 1.0)
    rows = [replace(ladder_row(quant), quality=None, accuracy=(right,)) for quant in ("Q6_K", "Q4_K_M")]
    assert "answers 100% right" in advise(results_of(rows, reference=None))


def test_a_difference_within_the_standard_error_is_called_one() -> None:
    text = advise(SAMPLES["sweep"], 12 * GIB)
    assert text.startswith("Within 12.0 GiB, Q4_K_M+Q8_0 kv_type=f16: at 10.4 GiB")
    assert text.endswith("takes 11.4 GiB for a difference within the standard error.")
    assert "IQ4_NL answers 83.0% right, a difference within the standard error" in advise(SAMPLES["accuracy only"])


@pytest.mark.parametrize(
    ("name", "budget", "said"),
    [
        ("nothing", None, "Nothing was measured, so nothing can be advised."),
        ("empty", GIB, "Nothing was measured, so nothing can be advised."),
        ("ladder", GIB, "Nothing measured fits 1.00 GiB: the smallest, IQ1_S, takes 5.93 GiB."),
        ("one", None, "Q4_K_M, at 10.8 GiB, is all that was measured, so there is nothing to compare it with."),
        ("no quality", 12 * GIB, "Quality was not measured, so none can be called the best"),
    ],
)
def test_the_advice_does_not_claim_what_was_not_measured(name: str, budget: int | None, said: str) -> None:
    assert advise(SAMPLES[name], budget).startswith(said)


# Words and numbers


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0, "0"),
        (0.0312, "0.0312"),
        (11.249, "11.2"),
        (0.00099999, "0.00100"),
        (3.1249e-5, "3.12e-5"),
        (1234.5, "1,234"),
        (9.996, "10.0"),
        (99.96, "100"),
        (1.23e9, "1.23e9"),
        (sys.float_info.max, "1.80e308"),
        (-0.5, "-0.500"),
        (math.inf, "inf"),
        (math.nan, "nan"),
    ],
)
def test_numbers_have_three_digits(value: float, written: str) -> None:
    assert number(value) == written


def test_an_error_has_the_digits_of_its_number() -> None:
    assert with_error(0.0312, 0.0004) == "0.0312 ±0.0004"
    assert with_error(3.12e-5, 4.4e-6) == "3.12e-5 ±4e-6"
    assert with_error(118, 0.04) == "118 ±0.04"  # not ±0, which would be a claim
    assert with_error(5, 0) == "5.00"


def test_rows_are_told_apart_by_what_differs() -> None:
    assert row_names(SAMPLES["two"]) == ("BF16", "Q4_K_M")
    assert row_names(SAMPLES["sweep"])[1] == "Q8_K_XL+F32 kv_type=q8_0"
    plain, weighted = ladder_row("Q4_K_M"), ladder_row("Q4_K_M")
    weighted = replace(weighted, configuration=replace(weighted.configuration, text="with-matrix-Q4_K_M.gguf"))
    assert row_names(results_of([plain, weighted])) == ("InternVL3-14B-Instruct-Q4_K_M", "with-matrix-Q4_K_M")


@given(st.text(), st.integers(2, 20))
def test_a_shortened_text_fits_and_keeps_its_ends(text: str, longest: int) -> None:
    short = shortened(text, longest)
    assert len(short) <= longest
    assert short == text or (text.startswith(short.partition("…")[0]) and text.endswith(short.rpartition("…")[2]))


# The terminal


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
@pytest.mark.parametrize("name", [*SAMPLES, "hostile"])
def test_the_report_fits_the_window(name: str, width: int, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.cells import cell_len

    results = SAMPLES.get(name) or hostile()
    print_report(results, 12 * GIB, width=width)
    shown = capsys.readouterr().out
    assert all(cell_len(line) <= width for line in shown.splitlines())
    assert "\x1b" not in shown
    words = " ".join(shown.split())
    for row_name in row_names(results):
        assert all(part in words for part in row_name.split() if name != "hostile")
    if name != "hostile":
        assert advise(results, 12 * GIB) in words


def table_head(shown: str) -> str:
    return shown.partition("──")[0].rpartition("\n\n")[2]


def test_what_matters_most_stays_in_a_narrow_window(capsys: pytest.CaptureFixture[str]) -> None:
    columns = {}
    for width in (40, 80, 120, 200):
        print_report(SAMPLES["ladder"], width=width)
        shown = capsys.readouterr().out
        columns[width] = len(re.findall(r"\S+", table_head(shown).splitlines()[-1]))
        assert {"files", "KLD", "pictures", "decode", "GiB", "nats", "tok/s"} <= set(table_head(shown).split())
    assert columns[40] < columns[80] <= columns[120] < columns[200]
    assert "±" in shown  # wide enough for the spread


def test_marks_and_reasons_do_not_depend_on_colour(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    print_report(SAMPLES["errors"], width=80)
    assert "\x1b[1;32m" in capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    print_report(SAMPLES["errors"], width=80)
    shown = capsys.readouterr().out
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]", shown)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert "→  Q4_K_M " in plain
    assert "✗ Q6_K, out of memory: Q6_K needs 29.9 GiB" in plain


def test_a_terminal_with_ascii_only(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    print_report(SAMPLES["errors"], 12 * GIB, width=100)
    out.flush()
    shown = out.buffer.getvalue().decode("ascii")
    assert "-> Q4_K_M" in shown
    assert "0.0530 +-0.0033" in shown
    assert max(map(len, shown.splitlines())) <= 100
