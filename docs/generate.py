"""Write into README and these documents what the code says of itself: `make docs`. A test compares.

A table of options stands between `<!-- table: NAME -->` and `<!-- end -->`; what stands there is replaced. Outputs of
commands are those of `outputs`.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, get_args

from typer.models import OptionInfo

from internvl_gguf.cli.asking_options import asking_types
from internvl_gguf.cli.bench_options import sweep_parameters
from internvl_gguf.cli.group import function_of
from internvl_gguf.cli.settings_file import option_types
from internvl_gguf.config import EngineConfig, PictureOptions, SamplingParams
from internvl_gguf.models.catalog import load_catalog
from internvl_gguf.models.published_scores import BENCHMARKS
from internvl_gguf.server.fields import CHAT_FIELDS, MESSAGES_FIELDS, RESPONSES_FIELDS, Fields, Ignored, Refused, Used
from internvl_gguf.utils.kinds import kind_of
from internvl_gguf.utils.options import Declared, options_of
from internvl_gguf.utils.sizes import format_size

FOLDER: Final = Path(__file__).parent
_PLACE: Final = re.compile(r"(<!-- table: (?P<name>[a-z ]+) -->\n).*?(?=<!-- end -->)", re.DOTALL)
_LINK: Final = re.compile(r"docs/(\w+\.md)")


def updated(text: str) -> str:
    """A document with its tables as the code has them."""
    return _PLACE.sub(lambda found: f"{found[1]}\n{TABLES[found['name']]()}\n", text)


def _in_python(configuration: Any) -> str:
    """The options of a configuration dataclass, as arguments."""
    rows = [
        (f"`{declared.name}`", _default(declared), f"{declared.option.help} {declared.option.details}".strip())
        for declared in options_of(configuration).values()
    ]
    return _table(("argument", "default", "meaning"), rows)


def _default(declared: Declared) -> str:
    if declared.option.otherwise:
        return declared.option.otherwise
    if declared.name.endswith("_bytes"):
        return format_size(declared.default).replace(".00", "")
    return f'`"{declared.default}"`' if isinstance(declared.default, str) else f"`{declared.default!r}`"


def _of_command(name: str, wanted: Collection[str] | None = None) -> str:
    """The options of a command, or of these parameters only."""
    rows, in_file = [], option_types(function_of(name))
    for parameter, described in _described(name):
        if wanted is None or parameter.name in wanted:
            flags = ", ".join(f"`{flag}`" for flag in _flags(parameter, described))
            key = f"`{parameter.name}`" if parameter.name in in_file else ""
            rows.append((flags, key, _shown(parameter), described.help or ""))
    return _table(("option", "in config.toml", "default", "meaning"), rows)


def _described(name: str) -> Iterator[tuple[inspect.Parameter, OptionInfo]]:
    """The parameters of a command that are options, and what is declared of each for the command line."""
    for parameter in inspect.signature(function_of(name), eval_str=True).parameters.values():
        for each in get_args(parameter.annotation):
            if isinstance(each, OptionInfo) and not each.hidden:
                yield parameter, each


def _flags(parameter: inspect.Parameter, described: OptionInfo) -> tuple[str, ...]:
    """The names on the command line; in an annotation the first of them stands where Typer has the default."""
    first = (described.default,) if isinstance(described.default, str) else ()
    return (*first, *(described.param_decls or ())) or (f"--{parameter.name.replace('_', '-')}",)


def _shown(parameter: inspect.Parameter) -> str:
    """The default of a parameter as it is typed; nothing where there is none to speak of."""
    if parameter.default is None or parameter.default is False:
        return ""
    if isinstance(parameter.default, float):
        return f"{parameter.default:g}"
    return kind_of(parameter.annotation).show(parameter.default)


def _own_options(name: str) -> str:
    """The options of a command that are not those of every command that asks."""
    return _of_command(name, inspect.signature(function_of(name)).parameters.keys() - asking_types().keys())


def _shared_fields() -> Fields:
    """The fields that mean the same in all interfaces."""
    others = (RESPONSES_FIELDS, MESSAGES_FIELDS)
    return {name: field for name, field in CHAT_FIELDS.items() if all(each.get(name) == field for each in others)}


def _of_interface(fields: Fields) -> str:
    """The fields of an interface but the shared ones."""
    shared = _shared_fields()
    return _of_fields({name: field for name, field in fields.items() if name not in shared})


def _of_fields(fields: Fields) -> str:
    """Fields of requests: each that is used, and the others by the reason why they are not."""
    used = [
        (f"`{name}`", _values(field.schema), field.about) for name, field in fields.items() if isinstance(field, Used)
    ]
    ignored: dict[str, list[str]] = {}
    refused: dict[str, list[str]] = {}
    for name, field in fields.items():
        if isinstance(field, Ignored):
            ignored.setdefault(field.why, []).append(f"`{name}`")
        elif isinstance(field, Refused):
            refused.setdefault(field.why, []).append(_but_for(name, field))
    rows = [
        *used,
        *((", ".join(names), "**ignored**", why) for why, names in ignored.items()),
        *((", ".join(names), "**refused**", why) for why, names in refused.items()),
    ]
    return _table(("field", "values", "meaning, or why not"), rows)


def _but_for(name: str, field: Refused) -> str:
    neutral = " or ".join(f"`{json.dumps(value)}`" for value in field.neutral)
    return f"`{name}` (but {neutral})" if neutral else f"`{name}`"


def _values(schema: Mapping[str, Any]) -> str:
    """What values a field takes, by its JSON schema."""
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "oneOf" in schema:
        return " or ".join(map(_values, schema["oneOf"]))
    kinds = {"integer": "whole", "boolean": "true, false", "string": "text", "array": "list"}
    words = [kinds.get(schema["type"], schema["type"])]
    for key, word in (
        ("minimum", "from"),
        ("exclusiveMinimum", "above"),
        ("maximum", "to"),
        ("exclusiveMaximum", "below"),
    ):
        if key in schema:
            words.append(f"{word} {schema[key]}")
    if "maxItems" in schema:
        words.append(f"of at most {schema['maxItems']}")
    return " ".join(words)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    cells = [" | ".join(_LINK.sub(r"[\1](\1)", cell).replace("|", r"\|") for cell in line) for line in lines]
    return "".join(f"| {line} |\n" for line in cells)


def _published_scores() -> str:
    """The scores of models in the catalogue that were measured on more than one benchmark."""
    shown = [key for key in BENCHMARKS if key != "videomme_subtitles"]
    rows = [
        (spec.name, *(_score(spec.scores.figures.get(key), BENCHMARKS[key].full) for key in shown))
        for spec in load_catalog()
        if spec.scores and spec.scores.figures.keys() - {"reasoning"}
    ]
    return _table(("model", *(BENCHMARKS[key].title for key in shown)), rows)


def _score(marks: float | None, full: int) -> str:
    """A score with the digits that it was published with; a dash where none was seen."""
    return "–" if marks is None else f"{marks:.1f}" if full == 100 else f"{marks:.0f}"


TABLES: Final[dict[str, Callable[[], str]]] = {
    "engine": lambda: _in_python(EngineConfig),
    "pictures": lambda: _in_python(PictureOptions),
    "sampling": lambda: _in_python(SamplingParams),
    "chat": lambda: _of_command("chat"),
    "serve": lambda: _own_options("serve"),
    "shared fields": lambda: _of_fields(_shared_fields()),
    "chat fields": lambda: _of_interface(CHAT_FIELDS),
    "responses fields": lambda: _of_interface(RESPONSES_FIELDS),
    "messages fields": lambda: _of_interface(MESSAGES_FIELDS),
    "sweeps": lambda: _of_command("bench", {each.name for each in sweep_parameters()}),
    "published scores": _published_scores,
}
"""What makes each table, by the name that documents give it."""


if __name__ == "__main__":
    from outputs import with_outputs

    for path in (FOLDER.parent / "README.md", *sorted(FOLDER.glob("*.md"))):
        text = path.read_text(encoding="utf-8")
        if (new := with_outputs(updated(text))) != text:
            path.write_text(new, encoding="utf-8")
            print(f"{path.relative_to(FOLDER.parent)} is brought up to date.")
