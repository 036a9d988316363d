"""JSON Schema's own test suite through the constraint: what it accepts and refuses, and what is refused by name.

    python benchmarks/json_schema_suite.py FOLDER [--draft draft2020-12] [--optional] [--wrong]

FOLDER is the suite, with `tests/draft2020-12` in it: the sdist of the package jsonschema has it as `json`, and
https://github.com/json-schema-org/JSON-Schema-Test-Suite is where it is kept.

An instance is accepted if the constraint lets a model write it in some order of its keys: answers have the order of the
schema. Schemas are tried as they stand, and once more closed, as answers are bound to them (`closed`).
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.structured.constraint import check_schema, matches, schema_grammar
from internvl_gguf.structured.schema_checks import check_schema_tree
from internvl_gguf.structured.schema_rewrite import closed, rewritten
from internvl_gguf.structured.schema_source import schema_source

MOST_SPELLINGS = 200


def spellings(value: Any) -> Iterator[str]:
    """Yield a value as JSON in all orders of its keys, whole numbers with and without ".0"."""
    if isinstance(value, dict):
        for order in itertools.permutations(value):
            for parts in itertools.product(*(list(spellings(value[key])) for key in order)):
                texts = (
                    f"{json.dumps(key, ensure_ascii=False)}: {part}" for key, part in zip(order, parts, strict=True)
                )
                yield "{" + ", ".join(texts) + "}"
    elif isinstance(value, list):
        for parts in itertools.product(*(list(spellings(each)) for each in value)):
            yield "[" + ", ".join(parts) + "]"
    else:
        yield json.dumps(value, ensure_ascii=False)
        if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
            yield str(int(value))


def is_accepted(grammar: str, value: Any) -> bool:
    """Return whether a model could write a value."""
    return any(matches(grammar, text) for text in itertools.islice(spellings(value), MOST_SPELLINGS))


def grammar_of(schema: Any, *, is_closed: bool) -> str:
    """Return the grammar of a schema of the suite.

    Raises:
        InvalidRequestError: it is refused by name.
    """
    plain = schema_source(schema).schema
    plain = rewritten(plain)
    check_schema_tree(plain)
    plain = closed(plain) if is_closed else plain
    grammar = schema_grammar(plain)
    check_schema(grammar, plain)
    return grammar


def run(files: list[Path], *, is_closed: bool, shows_wrong: bool) -> tuple[Counter[str], Counter[str]]:
    """Return counts of schemas and instances, and of the reasons for refused schemas."""
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for file in files:
        for case in json.loads(file.read_text(encoding="utf-8")):
            counts["schemas"] += 1
            try:
                grammar = grammar_of(case["schema"], is_closed=is_closed)
            except InvalidRequestError as error:
                counts["schemas refused by name"] += 1
                reasons[error.message] += 1
                continue
            for test in case["tests"]:
                accepted = is_accepted(grammar, test["data"])
                verdict = "valid" if test["valid"] else "invalid"
                counts[f"{verdict} {'accepted' if accepted else 'refused'}"] += 1
                if shows_wrong and accepted != test["valid"]:
                    print(f"  {file.name}: {case['description']}: {test['description']} ({verdict})")
                    print(f"    {json.dumps(case['schema'])[:200]}  {json.dumps(test['data'])[:80]}")
    return counts, reasons


def main() -> None:
    """Run the suite and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--draft", action="append", choices=["draft2020-12", "draft2019-09", "draft7", "draft6"])
    parser.add_argument("--optional", action="store_true", help="the optional tests of formats, too")
    parser.add_argument("--wrong", action="store_true", help="show each instance that is judged otherwise")
    given = parser.parse_args()
    for draft in given.draft or ["draft2020-12", "draft7"]:
        folder = given.folder / "tests" / draft
        files = sorted(folder.glob("*.json")) + (
            sorted(folder.glob("optional/format/*.json")) if given.optional else []
        )
        for is_closed in (False, True):
            counts, reasons = run(files, is_closed=is_closed, shows_wrong=given.wrong)
            print(f"{draft}, schemas {'closed' if is_closed else 'as they stand'}:")
            for name in ("schemas", "schemas refused by name"):
                print(f"  {counts[name]:5} {name}")
            for name in ("valid accepted", "invalid refused", "valid refused", "invalid accepted"):
                print(f"  {counts[name]:5} {name}")
        for reason, count in reasons.most_common() if given.wrong else []:
            print(f"  {count:5} {reason}")


if __name__ == "__main__":
    main()
