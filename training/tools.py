"""Tool calls in Qwen2.5's Hermes form: the system text that offers tools, calls, results, and answers that use them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from training.questions import Question, name_of, random_question, unique
from training.scenes import COLOURS, SHAPES, Scene
from training.words import TRAIN_WORDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

_BEFORE = (
    "\n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>"
)
_AFTER = (
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
    "<tool_call></tool_call> XML tags:\n<tool_call>\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
)


@dataclass(frozen=True)
class Tool:
    """A function that the model may call.

    Attributes:
        names: what it may be called; the first is the most usual.
        description: what it does, in several wordings.
        parameters: names of each parameter, in several wordings, and its JSON type.
    """

    names: tuple[str, ...]
    description: tuple[str, ...]
    parameters: tuple[tuple[tuple[str, ...], str], ...]


@dataclass(frozen=True)
class Offer:
    """A tool as one conversation offers it: with one name and wording."""

    tool: Tool
    name: str
    description: str
    parameters: tuple[tuple[str, str], ...]

    def signature(self) -> dict[str, Any]:
        """The JSON object that the system text shows."""
        properties = {name: {"type": kind} for name, kind in self.parameters}
        function = {
            "name": self.name, "description": self.description,
            "parameters": {"type": "object", "properties": properties, "required": list(properties)},
        }  # fmt: skip
        return {"type": "function", "function": function}

    def call(self, *values: Any) -> str:
        """The call with these arguments, as the model writes it."""
        arguments = {name: value for (name, _), value in zip(self.parameters, values, strict=True)}
        return f"<tool_call>\n{json.dumps({'name': self.name, 'arguments': arguments})}\n</tool_call>"


PRICE = Tool(
    ("price_of", "get_price", "price", "cost_of"),
    ("The price of a thing.", "Get the price of a thing.", "Look up what a thing costs."),
    ((("name", "thing", "item"), "string"),),
)
STOCK = Tool(
    ("in_stock", "stock", "count_stock", "stock_of"),
    ("How many of a thing are in stock.", "Get the stock of a thing."),
    ((("name", "thing", "item"), "string"),),
)
LOOKUP = Tool(
    ("lookup", "look_up", "find_number", "lookup_number"),
    ("Look up a number.", "Find what a number stands for."),
    ((("number", "n", "code"), "integer"),),
)
SEARCH = Tool(
    ("search", "web_search", "search_web"),
    ("Search the web.", "Search for a text."),
    ((("query", "text", "q"), "string"),),
)
TRANSLATE = Tool(
    ("translate", "translate_word", "translation_of"),
    ("Translate a word.", "Get the translation of a word."),
    ((("word", "text"), "string"),),
)
ADD = Tool(
    ("add", "sum", "add_numbers"),
    ("Add two numbers.", "The sum of two numbers."),
    ((("a", "x", "first"), "integer"), (("b", "y", "second"), "integer")),
)
MULTIPLY = Tool(
    ("multiply", "times", "product"),
    ("Multiply two numbers.", "The product of two numbers."),
    ((("a", "x", "first"), "integer"), (("b", "y", "second"), "integer")),
)
TOOLS = (PRICE, STOCK, LOOKUP, SEARCH, TRANSLATE, ADD, MULTIPLY)
RESPONSE_WORDS = (
    "rouge", "vert", "bleu", "haus", "hund", "gato", "casa", "a small town", "a blue bird", "the old market",
    "an open door", "a red car", "the end", "not found", "yes", "no", "bonjour", "stern", "kreis", "quadrat", "chat",
    "pain", "lait",
)  # fmt: skip


def offer(tool: Tool, rng: Random) -> Offer:
    """The tool with one of its names and wordings."""
    usual = rng.random() < 0.5
    parameters: list[tuple[str, str]] = []
    for names, kind in tool.parameters:
        free = [name for name in names if all(name != taken for taken, _ in parameters)]
        parameters.append((free[0] if usual else rng.choice(free), kind))
    name = tool.names[0] if usual else rng.choice(tool.names)
    return Offer(tool, name, rng.choice(tool.description), tuple(parameters))


def with_tools(system: str, offers: list[Offer]) -> str:
    """The system text with the tools behind it, as Qwen2.5's chat template writes it."""
    return system + _BEFORE + "".join("\n" + json.dumps(o.signature()) for o in offers) + _AFTER


def responses(results: list[str]) -> str:
    """The user's turn that brings results back."""
    return "\n".join(f"<tool_response>\n{result}\n</tool_response>" for result in results)


@dataclass(frozen=True)
class _Use:
    """What is asked, the arguments of each call, and the answer with `{}` for each result."""

    text: str
    arguments: tuple[tuple[Any, ...], ...]
    answer: str
    numbers: bool


def _thing_uses(scene: Scene, rng: Random, stock: bool) -> _Use | None:
    """The price or the stock of a shape that is named or seen, or of two."""
    names = [name_of(shape) for shape in unique(scene, name_of)]
    ask = rng.choice(("How many {}s are in stock?", "What is the stock of the {}?")) if stock else rng.choice(
        ("What does the {} cost?", "What is the price of the {}?", "How much is the {}?"))  # fmt: skip
    told = "There are {} in stock." if stock else "The {name} costs {}."
    draw = rng.random()
    if len(names) > 1 and draw < 0.25 and not stock:
        first, second = rng.sample(names, 2)
        text = f"What do the {first} and the {second} cost?"
        return _Use(text, ((first,), (second,)), f"The {first} costs {{}} and the {second} {{}}.", True)
    if len(scene.shapes) == 1 and draw < 0.6:
        name, noun = names[0], "shape"
    elif names and draw < 0.85:
        name = noun = rng.choice(names)
        kinds = unique(scene, lambda shape: shape.kind)
        if kinds and rng.random() < 0.5:
            name, noun = name_of(kinds[0]), kinds[0].kind
    else:
        name = noun = f"{rng.choice(COLOURS)} {rng.choice(SHAPES)}"
    return _Use(ask.format(noun), ((name,),), told.replace("{name}", name), True)


def _number_uses(scene: Scene, rng: Random) -> _Use | None:
    """Look up the number that is printed, or one that is named."""
    printed = [line.text for line in scene.lines if line.text.isdigit()]
    if printed and rng.random() < 0.8:
        text = rng.choice(
            ("Look up the number.", "Look up the number in the picture.", "What does the number stand for?")
        )
        return _Use(text, ((int(printed[0]),),), "The number stands for {}.", False)
    number = rng.randint(1, 999)
    return _Use(rng.choice(("Look up {}.", "Look up the number {}.")).format(number), ((number,),),
                "The number stands for {}.", False)  # fmt: skip


def _word_uses(scene: Scene, rng: Random, search: bool) -> _Use | None:
    """Search for, or translate, the word that is printed, or one that is named."""
    printed = [line.text for line in scene.lines if search or not line.text.isdigit()]
    told = "I found {}." if search else "The translation is {}."
    verb = rng.choice(("Search for", "Search the web for")) if search else "Translate"
    if printed and rng.random() < 0.75:
        noun = rng.choice(("number" if printed[0].isdigit() else "word", "text"))
        return _Use(f"{verb} the {noun}{rng.choice(('', ' in the picture'))}.", ((printed[0],),), told, False)
    if search and scene.shapes and rng.random() < 0.4 and len(scene.shapes) == 1:
        return _Use(f"{verb} the shape in the picture.", ((name_of(scene.shapes[0]),),), told, False)
    word = rng.choice(TRAIN_WORDS)
    if rng.random() < 0.5:
        word = word.lower()
    return _Use(f"{verb} {word}.", ((word,),), told, False)


def _sum_uses(scene: Scene, rng: Random, times: bool) -> _Use | None:
    """Add to, or multiply, the number that is printed, or two that are named."""
    printed = [int(line.text) for line in scene.lines if line.text.isdigit()]
    other = rng.randint(2, 99)
    if printed and rng.random() < 0.7:
        text = f"Multiply the number by {other}." if times else rng.choice(
            (f"Add {other} to the number.", f"What is the number plus {other}?"))  # fmt: skip
        return _Use(text, ((printed[0], other),), "The result is {}.", True)
    one = rng.randint(2, 999)
    text = rng.choice((f"What is {one} times {other}?", f"Multiply {one} by {other}.")) if times else rng.choice(
        (f"What is {one} plus {other}?", f"Add {one} and {other}."))  # fmt: skip
    return _Use(text, ((one, other),), "The result is {}.", True)


_USES: dict[int, Callable[[Scene, Random], _Use | None]] = {
    id(PRICE): lambda scene, rng: _thing_uses(scene, rng, False),
    id(STOCK): lambda scene, rng: _thing_uses(scene, rng, True),
    id(LOOKUP): _number_uses,
    id(SEARCH): lambda scene, rng: _word_uses(scene, rng, True),
    id(TRANSLATE): lambda scene, rng: _word_uses(scene, rng, False),
    id(ADD): lambda scene, rng: _sum_uses(scene, rng, False),
    id(MULTIPLY): lambda scene, rng: _sum_uses(scene, rng, True),
}


def _result(number: bool, rng: Random) -> tuple[str, str]:
    """A result as it comes back, plain or in JSON, and what the answer says of it."""
    if number:
        value: Any = rng.randint(1, 2000) if rng.random() < 0.85 else rng.randint(1, 999) / 10
    else:
        value = rng.choice(RESPONSE_WORDS) if rng.random() < 0.7 else rng.choice(TRAIN_WORDS)
    if rng.random() < 0.6:
        return str(value), str(value)
    return json.dumps({rng.choice(("result", "value", "answer", "price" if number else "text")): value}), str(value)


def random_offers(rng: Random) -> list[Offer]:
    """One to three tools, as a conversation offers them."""
    return [offer(tool, rng) for tool in rng.sample(TOOLS, rng.choice((1, 2, 2, 3)))]


def ask_tools(scene: Scene, offers: list[Offer], rng: Random) -> list[Question]:
    """A conversation in which a tool is called and its result used; or one that needs none."""
    if rng.random() < 0.22:
        question = random_question(scene, rng)
        return [Question("no tool", question.text, question.answer)]
    chosen = rng.choice(offers)
    use = None
    while use is None:
        use = _USES[id(chosen.tool)](scene, rng)
    calls = "\n".join(chosen.call(*arguments) for arguments in use.arguments)
    results = [_result(use.numbers, rng) for _ in use.arguments]
    turns = [Question("tool call", use.text, calls)]
    if rng.random() < 0.7:
        answer = use.answer.format(*(told for _, told in results))
        turns.append(Question("tool result", responses([came for came, _ in results]), answer))
    return turns
