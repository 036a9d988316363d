"""What it costs to bind an answer to a JSON schema: masks of allowed tokens here, llama.cpp's grammar sampler there.

Two measurements, all sides of each in turn within one process.

Masks, without any model: the tokens of a given answer (a receipt in JSON, as each side writes it) are followed, and at
each token the time is taken that a decoding loop would spend on the grammar. Ours: which tokens have to follow, and
where none has to, the mask of the allowed ones and their list (`engine.constraint`). llama.cpp: its grammar sampler
applied to all candidates, and told the token, as llama-cpp-python's `Llama` does. Tokens that have to follow cost ours
one call for all of them; llama.cpp judges each.

Answers: tokens a second of our engine and of `Llama` on the same weights, with and without the schema, greedily, after
a prompt of some tokens. What the model says is of no interest; its answer never ends by itself, and the schema does not
let it end either before so many tokens.

    python benchmarks/constrained.py [--model TEXT.gguf] [--vocabulary VOCAB.gguf] [--rounds N] [--quick]

Without --model the demo model answers. --vocabulary names a GGUF whose tokens the masks are for, such as
ggml-vocab-qwen2.gguf in llama.cpp's sources; else the model's are used. The last line of the output is one JSON
document.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
from llama_cpp.llama_grammar import LlamaGrammar, json_schema_to_gbnf

import measure
from internvl_gguf.config import SamplingParams
from internvl_gguf.engine.constraint import Constraint
from internvl_gguf.llama.grammar_tokenizer import grammar_tokenizer
from internvl_gguf.llama.model import TextModel
from internvl_gguf.structured import format_of
from internvl_gguf.types import TokenSpan
from measure import Settings
from ours import EndlessModel, open_engine

RECEIPT = {
    "type": "object",
    "properties": {
        "merchant": {"type": "string"},
        "items": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "price": {"type": "number"}},
                "required": ["name", "price"],
                "additionalProperties": False,
            },
        },
        "total": {"type": "number"},
        "date": {"type": "string", "format": "date"},
        "paid": {"enum": ["cash", "card"]},
    },
    "required": ["merchant", "items", "total", "date", "paid"],
    "additionalProperties": False,
}
ANSWER = {
    "merchant": "Café Meridian & Söhne, Hamburg",
    "items": [{"name": "Coffee, black", "price": 5.6}, {"name": "Lemon cake with sugar icing", "price": 11.7}],
    "total": 17.3,
    "date": "2024-05-10",
    "paid": "card",
}
ENDLESS = {"type": "array", "items": {"type": "string", "minLength": 4, "maxLength": 12}, "minItems": 1000}
PROMPT, LENGTH, QUICK_LENGTH, N_CTX = 64, 128, 16, 1024
_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


def our_masks(model: TextModel, tokenizer: Any, grammar: str, _turn: int) -> list[float]:
    """Seconds for each token that is sampled."""
    from llguidance import LLMatcher

    tokens = model.tokenize(json.dumps(ANSWER, ensure_ascii=False))
    constraint = Constraint(LLMatcher(tokenizer, grammar), model.n_vocab)
    logits = np.zeros(model.n_vocab, np.float32)
    place, seconds = 0, []
    while place < len(tokens):
        started = time.perf_counter()
        forced = constraint.forced()
        if not forced:
            allowed = constraint.allowed()
            logits[allowed.tokens].argmax()
        place += len(forced) or 1
        constraint.follow(tokens[:place])
        seconds.append(time.perf_counter() - started)
    return seconds


def their_masks(model: TextModel, gbnf: str, _turn: int) -> list[float]:
    """Seconds for each token."""
    tokens = model.tokenize(json.dumps(ANSWER, ensure_ascii=False))
    sampler = llama_cpp.llama_sampler_init_grammar(model.vocab, gbnf.encode(), b"root")
    seconds = []
    try:
        for token in tokens:
            candidates = np.zeros(model.n_vocab, _CANDIDATE)
            candidates["id"] = np.arange(model.n_vocab)
            data = candidates.ctypes.data_as(llama_cpp.llama_token_data_p)
            array = llama_cpp.llama_token_data_array(data, len(candidates), -1, False)
            started = time.perf_counter()
            llama_cpp.llama_sampler_apply(sampler, ctypes.byref(array))
            llama_cpp.llama_sampler_accept(sampler, token)
            seconds.append(time.perf_counter() - started)
    finally:
        llama_cpp.llama_sampler_free(sampler)
    return seconds


def measure_masks(path: Path, rounds: int) -> dict[str, Any]:
    """Both sides over the same answer; microseconds a token."""
    model = TextModel(path, vocab_only=True)
    started = time.perf_counter()
    tokenizer = grammar_tokenizer(model)
    building = time.perf_counter() - started
    started = time.perf_counter()
    form = format_of(schema=RECEIPT)
    assert form is not None
    compiling = time.perf_counter() - started
    gbnf = json_schema_to_gbnf(json.dumps(RECEIPT))
    sides: dict[str, Callable[[int], list[float]]] = {
        "ours": partial(our_masks, model, tokenizer, form.grammar),
        "llama.cpp": partial(their_masks, model, gbnf),
    }
    found = measure.interleaved(sides, rounds)
    rows, result = [], {}
    for name, runs in found.items():
        every = sorted(1e6 * seconds for run in runs for seconds in run)
        figures = {
            "steps": len(runs[0]),
            "median": statistics.median(every),
            "p99": every[int(0.99 * (len(every) - 1))],
            "worst": every[-1],
            "whole answer": statistics.median(1e6 * sum(run) for run in runs),
        }
        result[name] = figures
        rows.append([name, *(measure.number(figure) for figure in figures.values())])
    tokens = len(model.tokenize(json.dumps(ANSWER, ensure_ascii=False)))
    print(
        f"\nMasks for {model.n_vocab:,} tokens, an answer of {tokens}; microseconds. Made once: the tokenizer "
        f"{building:.2f} s; the schema, checked, {1e3 * compiling:.1f} ms.\n"
    )
    print(measure.table(["side", "steps", "median", "p99", "worst", "whole answer"], rows))
    model.close()
    return {**result, "tokenizer_seconds": building, "schema_seconds": compiling, "n_vocab": model.n_vocab}


class Ours:
    """The engine of this package, without a vision encoder."""

    def __init__(self, path: Path, settings: Settings, owned: ExitStack, grammar: str | None) -> None:
        # Free text goes on for ever; bound text may not end, and its grammar has to know what ends an answer.
        model = EndlessModel(path) if grammar is None else TextModel(path)
        owned.callback(model.close)
        self.n_vocab = model.n_vocab
        self._grammar = grammar
        self._engine = open_engine(model, settings, owned)

    def run(self, prompt: Sequence[int], length: int) -> float:
        self._engine.forget()
        sampling = SamplingParams(max_tokens=length)
        handle = self._engine.submit([TokenSpan(tuple(prompt))], sampling, grammar=self._grammar)
        handle.result()
        times = handle.times
        return (len(times) - 1) / (times[-1] - times[0])


class Peer:
    """llama-cpp-python's `Llama` with the same settings."""

    def __init__(self, path: Path, settings: Settings, owned: ExitStack, schema: dict[str, Any] | None) -> None:
        self._llama = llama_cpp.Llama(str(path), **settings.llama_options(), verbose=False)
        owned.callback(self._llama.close)
        self._schema = json.dumps(schema) if schema else None

    def run(self, prompt: Sequence[int], length: int) -> float:
        self._llama.reset()
        grammar = LlamaGrammar.from_json_schema(self._schema, verbose=False) if self._schema else None
        times = []
        for _ in self._llama.generate(list(prompt), temp=0.0, repeat_penalty=1.0, grammar=grammar):
            times.append(time.perf_counter())
            if len(times) == length:
                break
        return (len(times) - 1) / (times[-1] - times[0])


def _run(runner: Ours | Peer, prompt: Sequence[int], length: int, _turn: int) -> float:
    return runner.run(prompt, length)


def measure_answers(path: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Tokens a second of both sides with and without a schema."""
    settings = Settings(arguments.threads, N_CTX)
    length = QUICK_LENGTH if arguments.quick else LENGTH
    form = format_of(schema=ENDLESS)
    assert form is not None
    with ExitStack() as owned:
        runners: dict[str, Ours | Peer] = {
            "ours, free": Ours(path, settings, owned, None),
            "ours, schema": Ours(path, settings, owned, form.grammar),
            "Llama, free": Peer(path, settings, owned, None),
            "Llama, schema": Peer(path, settings, owned, ENDLESS),
        }
        prompt = list(range(40, 40 + PROMPT))
        sides = {
            name: partial(lambda runner, _turn: runner.run(prompt, length), each) for name, each in runners.items()
        }
        found = measure.interleaved(sides, measure.rounds_of(arguments))
    rows, result = measure.comparison(found, "decode", ours="ours, schema")
    print(f"\nTokens a second, {length} tokens of an answer; each side divided into ours with the schema.\n")
    print(measure.table(["", "side", "tokens/s, median (range)", "ours with schema/other"], rows))
    return result


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument(
        "--vocabulary", type=Path, help="a GGUF whose tokens the masks are for; the model's if left out"
    )
    arguments = parser.parse_args()
    path = measure.text_file(arguments)
    masks = measure_masks(arguments.vocabulary or path, measure.rounds_of(arguments))
    answers = measure_answers(path, arguments)
    measure.last_line("constrained", arguments, path, {"masks": masks, "answers": answers})


if __name__ == "__main__":
    main()
