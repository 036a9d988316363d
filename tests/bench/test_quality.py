"""Quality: the divergence is the textbook's, the file keeps it, and what is scored is what llama.cpp computes."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from internvl_gguf import BenchmarkError, InvalidRequestError, Session
from internvl_gguf.bench.quality import reference_logits
from internvl_gguf.bench.quality.divergence import DivergenceSum, kl_divergence, log_softmax
from internvl_gguf.bench.quality.measure_quality import QualityJob, measure_quality, scored_model_of
from internvl_gguf.bench.quality.packed_rows import PackedRow, row_bytes
from internvl_gguf.bench.quality.reference_logits import (
    ReferenceHead,
    ReferenceReader,
    ReferenceWriter,
    vocabulary_digest,
)
from internvl_gguf.bench.quality.scoring import Passage, score, text_passages
from internvl_gguf.bench.quality.sets import LANGUAGE, check_sets, read_pictures, read_task, read_text
from internvl_gguf.bench.results import Divergence, QualityResult
from internvl_gguf.config import KVType
from internvl_gguf.llama.vision import VisionEncoder
from internvl_gguf.models.resolve import ModelFiles, resolve_model
from internvl_gguf.session.prepare import prepare_question
from internvl_gguf.types import TokenSpan
from tests.support.pictures import noise
from tests.support.sessions import engine_of
from tests.support.tiny_models import write_tiny_text

LOGITS = hnp.arrays(np.float32, st.integers(2, 40), elements=st.floats(-80, 80, width=32))
PAIRS = st.integers(2, 40).flatmap(
    lambda n: st.tuples(*[hnp.arrays(np.float32, n, elements=st.floats(-30, 30, width=32))] * 2)
)
HEAD = ReferenceHead({"text": "a.gguf"}, 7, "vocabulary", "a text", "set")
FAST: dict[str, Any] = {"n_threads": 1, "n_ctx": 256, "kv_type": "f32", "flash_attn": False}


def normal(seed: int, n: int = 7) -> np.ndarray:
    return log_softmax(np.random.default_rng(seed).normal(0, 3, n).astype(np.float32))


# Divergence


@given(PAIRS)
def test_the_divergence_is_that_of_the_textbook(pair: tuple[np.ndarray, np.ndarray]) -> None:
    p, q = ([float(value) for value in logits] for logits in pair)

    def log_probs(logits: list[float]) -> list[float]:
        total = math.log(math.fsum(math.exp(value - max(logits)) for value in logits))
        return [value - max(logits) - total for value in logits]

    expected = math.fsum(math.exp(a) * (a - b) for a, b in zip(log_probs(p), log_probs(q), strict=True))
    assert kl_divergence(log_softmax(pair[0]), log_softmax(pair[1])) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert kl_divergence(log_softmax(pair[0]), log_softmax(pair[1])) >= 0


@given(LOGITS)
def test_what_is_equal_has_no_divergence(logits: np.ndarray) -> None:
    sums = DivergenceSum()
    log_probs = log_softmax(logits)
    sums.add(log_probs, int(log_probs.argmax()), log_probs.copy(), 0)
    found = sums.result()
    assert (found.mean, found.maximum, found.mean_error, found.top1) == (0.0, 0.0, 0.0, 1.0)
    assert found.perplexity == found.reference_perplexity
    assert set(found.quantiles) == {0.0}
    assert len(found.quantiles) == 21


def test_logits_far_apart_do_not_overflow() -> None:
    log_probs = log_softmax(np.array([-3e38, 3e38, 0], np.float32))
    assert np.isfinite(log_probs).all()
    assert log_probs[1] == 0


def summary(rows: list[tuple[np.ndarray, np.ndarray, int]]) -> Divergence:
    sums = DivergenceSum()
    for reference, other, token in rows:
        sums.add(reference, int(reference.argmax()), other, token)
    return sums.result()


def test_the_order_of_the_tokens_does_not_matter() -> None:
    rows = [(normal(seed), normal(1000 + seed), seed % 7) for seed in range(300)]
    shuffled = random.Random(1).sample(rows, len(rows))
    assert summary(rows) == summary(shuffled)


def test_the_summary_of_known_numbers() -> None:
    rows = [(normal(seed), normal(seed + 50), seed % 7) for seed in range(40)]
    values = sorted(kl_divergence(reference, other) for reference, other, _ in rows)
    found = summary(rows)
    assert found.tokens == 40
    assert found.mean == pytest.approx(np.mean(values))
    assert found.mean_error == pytest.approx(np.std(values, ddof=1) / math.sqrt(40))
    assert found.median == pytest.approx(np.median(values))
    assert found.p99 == pytest.approx(np.percentile(values, 99))
    assert (found.quantiles[0], found.quantiles[-1], found.maximum) == (values[0], values[-1], values[-1])
    assert found.top1 == np.mean([a.argmax() == b.argmax() for a, b, _ in rows])
    assert found.perplexity == pytest.approx(np.exp(-np.mean([b[token] for _, b, token in rows])))
    assert found.reference_perplexity == pytest.approx(np.exp(-np.mean([a[token] for a, _, token in rows])))


def test_a_hopeless_model_has_a_perplexity_and_no_overflow() -> None:
    reference, other = log_softmax(np.array([0, 0], np.float32)), log_softmax(np.array([0, 5000], np.float32))
    found = summary([(reference, other, 0)])
    assert found.perplexity == math.inf
    assert found.mean == pytest.approx(2500, rel=1e-3)


# Rows


def passed_through(log_probs: np.ndarray) -> tuple[PackedRow, np.ndarray]:
    parts: list[bytes] = []
    row = PackedRow.of(log_probs)
    row.write(lambda part: parts.append(bytes(part)), b"key", 5)
    data = b"".join(parts)
    assert len(data) == row_bytes(len(log_probs))
    read = PackedRow.read(memoryview(data), b"key", 5)
    assert (read.minimum, read.step, read.top) == (row.minimum, row.step, row.top)
    return read, read.unpacked().log_probs


@given(LOGITS)
def test_a_row_is_half_a_step_off_at_most(logits: np.ndarray) -> None:
    log_probs = log_softmax(logits)
    row, _ = passed_through(log_probs)
    half = np.ptp(log_probs) / 65535 / 2
    kept = row.minimum + row.step * row.steps.astype(np.float64)
    # Minimum and step are float32, which is where the rest comes from.
    assert np.abs(kept - log_probs).max() <= half * (1 + 1e-3) + np.abs(log_probs).max() * 2**-24


@given(LOGITS)
def test_the_floor_of_the_format_is_what_it_says(logits: np.ndarray) -> None:
    log_probs = log_softmax(logits)
    row, found = passed_through(log_probs)
    assert kl_divergence(found, log_probs) <= (1.01 * row.step / 2) ** 2 / 2 + 1e-13
    assert row.top == log_probs.argmax()


def test_the_floor_for_a_vocabulary_as_large_as_qwens() -> None:
    logits = np.random.default_rng(3).normal(0, 3.5, 151_936).astype(np.float32)
    log_probs = log_softmax(logits)
    _, found = passed_through(log_probs)
    assert np.ptp(log_probs) > 25
    assert 0 < kl_divergence(found, log_probs) < 5e-8
    assert abs(np.exp(found).sum() - 1) < 1e-12


def test_tokens_that_are_all_as_likely() -> None:
    for logits in (np.zeros(5, np.float32), np.zeros(4, np.float32)):
        _, found = passed_through(log_softmax(logits))
        assert np.allclose(np.exp(found), 1 / len(logits))


# The file


def write(path: Path, head: ReferenceHead = HEAD) -> list[np.ndarray]:
    """Two items of three and two tokens, and one that was skipped; returns the rows."""
    rows = [normal(seed) for seed in range(5)]
    with ReferenceWriter(path, head, len(rows)) as writer:
        writer.begin(0, 10, (1, 2, 3))
        for row in rows[:3]:
            writer.exchange(row)
        writer.skip(1, "It is no picture.")
        writer.begin(2, 20, (4, 5))
        for row in rows[3:]:
            writer.exchange(row)
    return rows


def read(path: Path, head: ReferenceHead = HEAD) -> list[np.ndarray]:
    found = []
    with ReferenceReader(path, head) as reader:
        for number, item in reader.items.items():
            if not item.skipped:
                reader.begin(number, item.positions, item.tokens)
                found += [reader.exchange(np.zeros(7)).log_probs for _ in item.tokens]
    return found


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "text.reference"
    rows = write(path)
    found = read(path)
    assert len(found) == 5
    assert all(np.abs(a - b).max() < 2e-4 for a, b in zip(rows, found, strict=True))
    with ReferenceReader(path, HEAD) as reader:
        assert [item.tokens for item in reader.items.values()] == [(1, 2, 3), (), (4, 5)]
        assert reader.items[1].skipped == "It is no picture."
        assert reader.items[2].first_row == 3
        reader.begin(2, 20, (4, 5))  # in any order
        assert np.array_equal(reader.exchange(np.zeros(7)).log_probs, found[3])
    assert [path.name for path in path.parent.iterdir()] == ["text.reference"]


def test_the_writer_sees_what_readers_will(tmp_path: Path) -> None:
    path = tmp_path / "r"
    with ReferenceWriter(path, HEAD, 1) as writer:
        writer.begin(0, 1, (1,))
        given_back = writer.exchange(normal(1))
    assert np.array_equal(read(path)[0], given_back.log_probs)


def test_every_byte_counts(tmp_path: Path) -> None:
    path = tmp_path / "r"
    write(path)
    data = path.read_bytes()
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ (1 << place % 8)]) + data[place + 1 :])
        with pytest.raises(BenchmarkError) as caught:
            read(path)
        assert "\n" not in caught.value.message


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 2000), more=st.binary(max_size=20))
def test_a_file_of_another_length(tmp_path: Path, cut: int, more: bytes) -> None:
    path = tmp_path / "r"
    write(path)
    data = path.read_bytes()
    changed = data[: len(data) - cut % len(data)] + more
    if changed == data:
        return
    path.write_bytes(changed)
    with pytest.raises(BenchmarkError):
        read(path)


def test_rows_that_changed_places_are_damage(tmp_path: Path) -> None:
    """Each row is whole by itself; only its checksum knows where it belongs."""
    path = tmp_path / "r"
    write(path)
    data = bytearray(path.read_bytes())
    size = row_bytes(7)
    start = bytes(data).index(b'[{"number"') - 5 * size
    first, second = data[start : start + size], data[start + size : start + 2 * size]
    data[start : start + 2 * size] = second + first
    path.write_bytes(data)
    with pytest.raises(BenchmarkError, match="row 0"):
        read(path)


def test_a_reference_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "r"
    write(path)
    for other in (replace(HEAD, vocabulary="another", model={"text": "b.gguf"}), replace(HEAD, n_vocab=8)):
        with pytest.raises(BenchmarkError, match="another vocabulary"):
            read(path, other)
    with pytest.raises(BenchmarkError, match=r"are of a text, not of a book as it is now"):
        read(path, replace(HEAD, set_name="a book", set_digest="another"))
    with ReferenceReader(path, HEAD) as reader:
        for changed in ((0, 10, (1, 2)), (0, 11, (1, 2, 3)), (1, 10, (1, 2, 3)), (7, 10, (1,))):
            with pytest.raises(BenchmarkError, match="other tokens or tiles"):
                reader.begin(*changed)
    with pytest.raises(BenchmarkError, match="Measure the reference configuration first"):
        read(tmp_path / "missing")
    path.write_bytes(b"something else" * 20)
    with pytest.raises(BenchmarkError, match="holds no reference logits"):
        read(path)


def one_of_two_rows(path: Path, then: BaseException | None) -> None:
    with ReferenceWriter(path, HEAD, 2) as writer:
        writer.begin(0, 1, (1, 2))
        writer.exchange(normal(9))
        if then:
            raise then


def test_a_run_that_ends_early_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "r"
    with pytest.raises(KeyboardInterrupt):
        one_of_two_rows(path, KeyboardInterrupt())
    assert list(tmp_path.iterdir()) == []
    before = write(path)
    with pytest.raises(ValueError, match="1 rows were written"):
        one_of_two_rows(path, None)
    assert np.abs(read(path)[0] - before[0]).max() < 2e-4  # the old one is still there


def test_what_a_killed_run_left_is_no_reference(tmp_path: Path) -> None:
    write(tmp_path / "r")
    (tmp_path / "r").rename(tmp_path / "r.part")
    with pytest.raises(BenchmarkError):
        read(tmp_path / "r")
    write(tmp_path / "r")
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


def test_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference_logits, "free_bytes", lambda path: 100 * 1024**2)
    head = replace(HEAD, n_vocab=151_936)
    with pytest.raises(BenchmarkError, match=r"take 579.64 MiB; .* has room for 100.00 MiB"):
        ReferenceWriter(tmp_path / "r", head, 2000)
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchmarkError, match="cannot be written"):
        ReferenceWriter(tmp_path / "file" / "r", HEAD, 1)


# What is scored


@given(st.integers(8, 40), st.integers(0, 200))
def test_a_text_is_cut_as_llama_perplexity_cuts_it(n_ctx: int, length: int) -> None:
    """perplexity.cpp: `first = n_ctx/2`; row `first + i` of a chunk is held against token `first + i + 1`."""
    tokens = list(range(length))
    passages = text_passages(tokens, n_ctx)
    assert len(passages) == length // n_ctx
    for chunk, passage in enumerate(passages):
        assert len(passage.tokens) == n_ctx - 1 - n_ctx // 2
        assert list(passage.tokens) == tokens[chunk * n_ctx + n_ctx // 2 + 1 : (chunk + 1) * n_ctx]
        (before,) = passage.prompt
        assert isinstance(before, TokenSpan)
        assert list(before.ids) == tokens[chunk * n_ctx : chunk * n_ctx + n_ctx // 2 + 1]
        assert passage.length == n_ctx - 1


class _Noted:
    """References that remember what they were given."""

    def __init__(self) -> None:
        self.rows: list[np.ndarray] = []

    def begin(self, number: int, positions: int, tokens: Any) -> None:
        pass

    def exchange(self, log_probs: np.ndarray) -> Any:
        self.rows.append(log_probs)
        return PackedRow.of(log_probs).unpacked()


@pytest.mark.parametrize("pictures", [0, 2])
def test_a_token_is_scored_as_it_would_come(session: Session, pictures: int) -> None:
    """Row by row the logits of the same prompt, asked for one at a time."""
    images = [noise(seed) for seed in range(pictures)]
    request = prepare_question(session.runtime, session.limits, session.messages, "What is it?", images, {})
    tokens = (5, 17, 3, 200, 11)
    engine = engine_of(session)
    noted = _Noted()
    score(engine, 0, Passage(tuple(request.spans), tokens), noted, DivergenceSum())
    for index, row in enumerate(noted.rows):
        engine.forget()
        prompt = [*request.spans, TokenSpan(tokens[:index])] if index else request.spans
        expected = log_softmax(engine.submit_logits(prompt).result())
        assert np.abs(row - expected).max() < 1e-4
    assert len(noted.rows) == 5


# The whole, on real models


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """Pictures with and without answers, one damaged, and a line that is none."""
    for number in range(3):
        noise(number).save(tmp_path / f"{number}.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "0.png").read_bytes()[:60])
    lines = [
        {"image": "0.png", "prompt": "What is it?", "answer": "the ring"},
        {"image": "1.png", "prompt": "What is it?", "max_tokens": 5},
        {"image": "broken.png", "prompt": "What is it?"},
        {"images": ["2.png", "0.png"], "prompt": "And these?", "answers": ["in", "on"], "max_tiles": 1},
        {"image": "gone.png", "prompt": "What is it?"},
        {"prompt": "What is it?"},
    ]
    path = tmp_path / "asked.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), "utf-8")
    return path


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A text model with the same vocabulary and other weights, as a bad quant is."""
    return write_tiny_text(tmp_path / "other.gguf", n_ctx=2048, seed=77)


def job(folder: Path, role: Any, questions: Path | None = None, text: Path | None = None, **others: Any) -> QualityJob:
    chosen: Any = {"text": str(text) if text else "off", "pictures": str(questions) if questions else "off"}
    return QualityJob(str(folder), role, **chosen, **others)


def test_a_reference_and_another(
    tiny: ModelFiles, other: Path, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the thing in the ring " * 30, "utf-8")
    folder, notices, told = tmp_path / "reference", list[str](), list[tuple[str, float]]()
    with Session.open(tiny.text, tiny.mmproj, n_draft=7, **FAST) as session:
        own = measure_quality(
            session,
            job(folder, "write", questions, text, n_ctx=64),
            lambda what, done: told.append((what, done)),
            notices.append,
        )
    assert own.text
    assert own.pictures
    # the whole chunks' second halves; "the ring", five tokens, "in", each with its end where it came to one
    assert own.text.tokens % 31 == 0
    assert own.text.mean < 1e-8
    assert own.pictures.top1 == own.text.top1 == 1
    assert own.skipped == 3
    assert len(notices) == 1
    assert notices[0].startswith("asked.jsonl, line 3: ")
    assert {what for what, _ in told} == {"text", "answers", "pictures"}
    assert all(a[1] < b[1] for a, b in pairwise(told) if a[0] == b[0])
    assert [done for _, done in told].count(1.0) == 3

    def encode(self: VisionEncoder, tiles: Any) -> Any:
        raise AssertionError("a tile was encoded again")

    monkeypatch.setattr(VisionEncoder, "encode", encode)
    with Session.open(tiny.text, tiny.mmproj, n_draft=2, **FAST) as session:  # other batches, the same distributions
        same = measure_quality(session, job(folder, "read", questions, text, n_ctx=64))
    with Session.open(other, tiny.mmproj, n_draft=7, **FAST) as session:
        worse = measure_quality(session, job(folder, "read", questions, text, n_ctx=64))
    for kind in ("text", "pictures"):
        ours, equal, far = getattr(own, kind), getattr(same, kind), getattr(worse, kind)
        assert ours.tokens == equal.tokens == far.tokens
        assert equal.maximum < 1e-6
        assert far.mean > 100 * equal.mean
        assert far.reference_perplexity == equal.reference_perplexity == ours.reference_perplexity
        assert ours.perplexity == pytest.approx(ours.reference_perplexity, rel=1e-4)
    assert (same.skipped, worse.skipped) == (3, 3)


def test_a_picture_that_changed_is_another_set(tiny: ModelFiles, questions: Path, tmp_path: Path) -> None:
    folder = tmp_path / "reference"
    with Session.open(tiny.text, tiny.mmproj, **FAST) as session:
        measure_quality(session, job(folder, "write", questions))
        noise(9).save(questions.parent / "0.png")
        with pytest.raises(BenchmarkError, match="as it is now"):
            measure_quality(session, job(folder, "read", questions))


def test_other_chunks_are_another_set(tiny: ModelFiles, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the thing in the ring " * 30, "utf-8")
    with Session.open(tiny.text, tiny.mmproj, **FAST) as session:
        measure_quality(session, job(tmp_path, "write", None, text, n_ctx=64))
        for others in ({"n_ctx": 32}, {"n_ctx": 64, "n_chunks": 2}):
            with pytest.raises(BenchmarkError, match="chunks of"):
                measure_quality(session, job(tmp_path, "read", None, text, **others))


def test_another_vocabulary_is_refused(tiny: ModelFiles, tmp_path: Path) -> None:
    demo = resolve_model("demo")
    text = tmp_path / "text.txt"
    text.write_text("a longer text than that " * 30, "utf-8")
    assert vocabulary_digest(demo.text) != vocabulary_digest(tiny.text)
    with Session.open(tiny.text, tiny.mmproj, **FAST) as session:
        measure_quality(session, job(tmp_path, "write", None, text, n_ctx=64))
    with (
        Session.open("demo", **FAST) as session,
        pytest.raises(BenchmarkError, match=r"text\.gguf has another vocabulary than demo"),
    ):
        measure_quality(session, job(tmp_path, "read", None, text, n_ctx=64))


def test_a_text_too_short(tiny: ModelFiles, tmp_path: Path) -> None:
    text = tmp_path / "short.txt"
    text.write_text("x" * 100, "utf-8")
    with Session.open(tiny.text, tiny.mmproj, **FAST) as session:
        with pytest.raises(InvalidRequestError, match=r"short.txt comes to 100 tokens, too few for one chunk of 256"):
            measure_quality(session, job(tmp_path, "write", None, text))  # the context is shorter than a chunk of 512
        assert measure_quality(session, job(tmp_path, "write", None, text, n_ctx=50)).text.tokens == 2 * 24
    with pytest.raises(InvalidRequestError, match="100 bytes, too few"):
        check_sets(str(text), "off", n_ctx=512)


def test_prompts_too_long_for_the_context_are_left_out(tiny: ModelFiles, questions: Path, tmp_path: Path) -> None:
    lines = questions.read_text().splitlines()
    lines += [
        json.dumps({"image": "0.png", "prompt": "What? " * 200}),
        json.dumps({"image": "0.png", "prompt": "?", "answer": "x" * 250}),
        json.dumps({"image": "0.png", "prompt": "?"}),  # its own answer ends where the context does
    ]
    questions.write_text("\n".join(lines), "utf-8")
    notices = list[str]()
    with Session.open(tiny.text, tiny.mmproj, **FAST) as session:
        found = measure_quality(session, job(tmp_path, "write", questions), on_notice=notices.append)
    assert found.skipped == 5
    assert [line.split(":")[0] for line in notices] == [f"asked.jsonl, line {n}" for n in (3, 7, 8)]


def test_an_answer_of_the_reference_is_scored_with_its_end(tmp_path: Path) -> None:
    """The demo says "98" and stops; that it stops is part of the answer."""
    from internvl_gguf.demo.__main__ import EXAMPLE

    asked = tmp_path / "asked.jsonl"
    line = {"image": str(EXAMPLE), "prompt": "What number is written?"}
    asked.write_text(f"{json.dumps(line)}\n{json.dumps({**line, 'answer': '98'})}\n", "utf-8")
    with Session.open("demo", n_threads=1) as session:
        model, end = session.runtime.engine.model, session.runtime.control_tokens["<|im_end|>"]
        measure_quality(session, job(tmp_path, "write", asked))
        expected = (*model.tokenize("98"), end)
        head = scored_model_of(session).head("", read_pictures(str(asked)).digest)
    with ReferenceReader(tmp_path / "pictures.reference", head) as reader:
        assert [item.tokens for item in reader.items.values()] == [expected, expected]


def test_fewer_bits_lose_more(tmp_path: Path) -> None:
    """A cache of fewer bits stands for a quant of fewer: on text and pictures of the demo's own."""
    lines = [json.loads(line) for line in (data() / "exam" / "questions.jsonl").read_text().splitlines()]
    asked = tmp_path / "asked.jsonl"
    asked.write_text(
        "\n".join(json.dumps({**line, "image": str(data() / "exam" / line["image"])}) for line in lines[:60:5])
    )
    found: dict[KVType, QualityResult] = {}
    kv_types: tuple[KVType, ...] = ("f16", "q8_0", "q4_0")
    for kv_type in kv_types:
        with Session.open("demo", n_threads=1, kv_type=kv_type, flash_attn=True, n_draft=31) as session:
            wanted = QualityJob(str(tmp_path), "read" if found else "write", None, str(asked), n_chunks=3)
            found[kv_type] = measure_quality(session, wanted)
    for kind in ("text", "pictures"):
        losses = [getattr(found[kv_type], kind).mean for kv_type in found]
        assert losses[0] < 1e-7 < losses[1] < losses[2]
    assert found["q8_0"].pictures.top1 > 0.98
    assert found["f16"].pictures.perplexity < 2


# Sets


def data() -> Path:
    import internvl_gguf.bench

    return Path(internvl_gguf.bench.__file__).with_name("data")


def test_the_sets_that_ship() -> None:
    assert sum(path.stat().st_size for path in data().rglob("*") if path.is_file()) < 1_500_000
    assert check_sets(tasks=[None]) == []
    for name in ("exam", "pictures"):
        asked = read_pictures(str(data() / name))
        named = {path.name for item in asked.items for path in item.images}
        assert named == {path.name for path in (data() / name).glob("*.png")}
    assert len(read_task(None).items) >= 200
    assert read_pictures(None, LANGUAGE - 1).items == read_task(None).items[::2]
    assert any(not item.answers for item in read_pictures(None).items)
    words = read_text(None).text.split()
    assert len(words) > 2500


def test_a_folder_of_pictures(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", ".hidden.png"):
        noise(1).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("")
    asked = read_pictures(str(tmp_path))
    assert [item.images[0].name for item in asked.items] == ["a.JPG", "b.png"]
    assert {item.prompt for item in asked.items} == {"Describe the picture."}
    (tmp_path / "questions.jsonl").write_text('{"image": "b.png", "prompt": "?"}')
    (item,) = read_pictures(str(tmp_path)).items
    assert (item.images, item.prompt, item.line) == ((tmp_path / "b.png",), "?", 1)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("nonsense", "It is not JSON"),
        ("[" * 100_000, "It is not JSON"),
        ("[1]", "It is no JSON object"),
        ('{"image": "a.png", "prompt": "?", "colour": 1}', "no field 'colour'"),
        ('{"image": "a.png"}', "a picture and a prompt"),
        ('{"image": 5, "prompt": "?"}', r"image is \[5\]"),
        ('{"images": "a.png", "prompt": "?"}', 'images is "a.png"'),
        ('{"image": "a.png", "images": [], "prompt": "?"}', "both image and images"),
        ('{"image": "a.png", "prompt": ["?"]}', "a picture and a prompt"),
        ('{"image": "a.png", "prompt": "?", "answer": ""}', "answer is"),
        ('{"image": "a.png", "prompt": "?", "answer": "\\ud800"}', "answer is"),
        ('{"image": "a.png", "prompt": "\\ud800"}', "a picture and a prompt"),
        ('{"image": "a.png", "prompt": "?", "max_tokens": 0}', "max_tokens is 0"),
        ('{"image": "a.png", "prompt": "?", "max_tiles": true}', "max_tiles is true"),
        ('{"image": "a.png", "prompt": "?", "tolerance": -1}', "tolerance is -1"),
        ('{"image": "a.png", "prompt": "?", "tolerance": NaN}', "tolerance is NaN"),
        ('{"image": "missing.png", "prompt": "?"}', "missing.png"),
        ('{"image": ".", "prompt": "?"}', "folder"),
        ('{"image": "a\\u0000.png", "prompt": "?"}', "a"),
    ],
)
def test_a_line_that_cannot_be_used(tmp_path: Path, line: str, reason: str) -> None:
    noise(1).save(tmp_path / "a.png")
    path = tmp_path / "asked.jsonl"
    path.write_text(f'\ufeff{{"image": "a.png", "prompt": "?"}}\n\n{line}\n', "utf-8")
    asked = read_pictures(str(path))
    assert len(asked.items) == 1
    (problem,) = asked.problems
    assert problem.startswith("asked.jsonl, line 3: ")
    assert "\n" not in problem
    path.write_text(line, "utf-8")
    with pytest.raises(InvalidRequestError, match=reason):
        read_pictures(str(path))


def test_sets_that_cannot_be_used_at_all(tmp_path: Path) -> None:
    bad = {
        "missing.jsonl": None,
        "empty.jsonl": b"",
        "blank.jsonl": b"\n\n",
        "latin.jsonl": b'{"image": "\xe9"}',
    }
    for name, content in bad.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(InvalidRequestError):
            read_pictures(str(tmp_path / name))
    (tmp_path / "folder").mkdir()
    with pytest.raises(InvalidRequestError, match="There is no picture in"):
        read_pictures(str(tmp_path / "folder"))
    for content, reason in ((b"", "is empty"), (b"\n", "is empty"), (b"abc\xff", "is not UTF-8: byte 3")):
        (tmp_path / "text").write_bytes(content)
        with pytest.raises(InvalidRequestError, match=reason):
            read_text(str(tmp_path / "text"))
    with pytest.raises(InvalidRequestError, match="cannot be read"):
        read_text(str(tmp_path))


def test_pictures_that_do_not_decode_are_told_of_beforehand(questions: Path) -> None:
    told = check_sets("off", str(questions))
    assert [line.split(":")[0] for line in told] == [f"asked.jsonl, line {n}" for n in (5, 6, 3)]
    only = questions.with_name("only.jsonl")
    only.write_text('{"image": "broken.png", "prompt": "?"}', "utf-8")
    with pytest.raises(InvalidRequestError, match=r"No picture of only\.jsonl can be read"):
        check_sets("off", str(only))


@pytest.mark.parametrize("wrong", [{"n_ctx": 7}, {"n_ctx": -1}, {"n_chunks": 0}])
def test_a_job_that_scores_nothing(wrong: dict[str, int]) -> None:
    with pytest.raises(InvalidRequestError):
        QualityJob("x", "write", **wrong)  # type: ignore[arg-type]
