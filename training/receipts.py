"""Receipts: a shop's name, one to four lines of a short word and a price, and the total.

python -m training.receipts src/internvl_gguf/demo/receipt.png
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from training.fonts import EMBEDDED, faces, sized
from training.forms import Leaf, Member, form_question, read_leaf
from training.questions import Question
from training.scenes import Line, Scene, print_line, random_face, spelling, target_of
from training.words import TRAIN_WORDS, random_letters

if TYPE_CHECKING:
    from training.fonts import Face

# Aspect ratios that the tiling cuts into 2 and 6 tiles, or shows in one.
CANVASES = ((300, 600), (360, 720), (400, 600), (480, 720), (480, 480), (400, 500), (480, 640))
MOST_LINES = 4
_FOODS = (
    "BREAD", "MILK", "APPLE", "TEA", "EGG", "RICE", "CAKE", "SOUP", "JUICE", "LEMON", "PEAR", "PLUM", "HAM", "CORN",
    "PIZZA", "COLA", "WATER", "PASTA", "NUT", "PIE",
)  # fmt: skip
_SHOPS = ("SHOP", "MARKET", "CAFE", "STORE", "BAR", "HOTEL", "KITE", "SUN", "MOON", "STAR", "HOME", "CITY")


@dataclass(frozen=True)
class Receipt:
    """What is printed: prices and the total in cents."""

    scene: Scene
    shop: str
    items: tuple[tuple[str, int], ...]

    @property
    def total(self) -> int:
        """The sum of the prices, in cents."""
        return sum(cents for _, cents in self.items)


def money(cents: int) -> str:
    """As it is printed, for example 350 as "3.50"."""
    return f"{cents // 100}.{cents % 100:02}"


def random_price(rng: Random) -> int:
    """Cents: mostly under ten, round ones more often."""
    whole = rng.randint(0, 9) if rng.random() < 0.8 else rng.randint(10, 24)
    return max(5, 100 * whole + rng.choice((0, 50, 25, 75, 95, 99, *(rng.randint(0, 99) for _ in range(6)))))


def draw_receipt(
    rng: Random, size: tuple[int, int], shop: str, items: tuple[tuple[str, int], ...], face: Face
) -> Receipt | None:
    """Print a receipt on a white or pale canvas, as large as it fits; None where a line does not fit."""
    paper = rng.choice((255, 255, rng.randint(225, 250)))
    scene = Scene(Image.new("RGB", size, (paper, paper, paper)), "white")
    receipt = Receipt(scene, shop, items)
    width, height = size
    rows = [*((name, money(cents)) for name, cents in items), ("TOTAL", money(receipt.total))]
    margin, ink = rng.uniform(0.03, 0.07) * width, (rng.randint(0, 40),) * 3
    pitch = height / (len(rows) + rng.uniform(1.2, 2.2))
    font = sized(face.path, 100)
    longest = max(font.getlength(f"{name}--{price}") for name, price in rows)
    per_pixel = min((width - 2 * margin) / longest, rng.uniform(0.6, 0.72) * pitch / (100 * face.cap_ratio))
    points = int(100 * per_pixel)
    cap = points * face.cap_ratio
    top = (height - pitch * (len(rows) + 1)) / 2 + (pitch - cap) / 2

    def put(text: str, left: float, row: float) -> bool:
        return print_line(scene, text, face, points, round(left), round(top + row * pitch), ink) is not None

    long = sized(face.path, points).getlength(shop)
    good = put(shop, (width - long) / 2 if rng.random() < 0.7 else margin, 0)
    for row, (name, price) in enumerate(rows, 1):
        long = sized(face.path, points).getlength(price)
        good = good and put(name, margin, row) and put(price, width - margin - long, row)
    if rng.random() < 0.7:
        y = top + len(rows) * pitch - (pitch - cap) / 2
        ImageDraw.Draw(scene.image).line((margin, y, width - margin, y), ink, max(1, points // 18))
    return receipt if good else None


def random_receipt(rng: Random, names: tuple[str, ...] = TRAIN_WORDS, most: int = MOST_LINES) -> Receipt:
    """A receipt of words from `names` and of random letters."""
    while True:
        words = [rng.choice(names) if rng.random() < 0.7 else random_letters(rng) for _ in range(most + 1)]
        count = rng.randint(1, most)
        if "TOTAL" in words or len(set(words)) <= count:
            continue
        items = tuple((word, random_price(rng)) for word in words[1 : count + 1])
        face = faces()[0] if rng.random() < 0.5 else random_face(rng)
        receipt = draw_receipt(rng, rng.choice(CANVASES), words[0], items, face)
        if receipt is not None:
            return receipt


def ask_receipt_form(receipt: Receipt, rng: Random) -> Question:
    """The receipt read into JSON: the shop, the lines and the total, under keys of several names."""
    name, price = rng.choice(("name", "name", "item", "product")), rng.choice(("price", "price", "amount", "cost"))
    notes = rng.random() < 0.3
    line = [
        Member(name, "string", note="what was bought" if notes else ""),
        Member(price, "number", note="what it cost" if notes and rng.random() < 0.5 else ""),
    ]
    if rng.random() < 0.15:
        line.reverse()
    scene = receipt.scene
    printed = scene.lines[1:-2]
    values = [
        {name: read_leaf(scene, words, word), price: _amount(scene, amount, cents)}
        for (word, cents), words, amount in zip(receipt.items, printed[::2], printed[1::2], strict=True)
    ]
    listed = [{member.key: value[member.key] for member in line} for value in values]
    members = [
        Member(
            rng.choice(("shop", "shop", "merchant", "merchant", "store")),
            "string",
            read_leaf(scene, scene.lines[0], receipt.shop),
        ),
        Member(rng.choice(("items", "items", "lines", "products")), tuple(line), listed, listed=True),
        Member(
            rng.choice(("total", "total", "sum")),
            "number",
            _amount(scene, scene.lines[-1], receipt.total),
            optional=rng.random() < 0.1,
        ),
    ]
    if rng.random() < 0.2:
        members.append(Member(rng.choice(("count", "how_many")), "integer", len(receipt.items)))
    draw = rng.random()
    if draw < 0.3:
        members = rng.sample(members, rng.randint(1, len(members)))
    elif draw < 0.4:
        rng.shuffle(members)
    asked = rng.choice(("Read the receipt.", "Read the receipt.", "What does the receipt say?", "What was bought?"))
    return form_question("receipts", asked, tuple(members))


def _amount(scene: Scene, line: Line, cents: int) -> Leaf:
    """An amount, which JSON is to show with two decimals, as it is printed."""
    return read_leaf(scene, line, cents / 100, money(cents))


def ask_receipt(receipt: Receipt, rng: Random) -> Question:
    """The shop, the total, or what one thing costs."""
    draw = rng.random()
    if draw < 0.25:
        text = rng.choice(("What is the total?", "How much is it in all?"))
        return _reading(receipt, text, -1)
    if draw < 0.5:
        text = rng.choice(("Which shop is it?", "What is the shop called?"))
        return _reading(receipt, text, 0)
    number = rng.randrange(len(receipt.items))
    word, _ = receipt.items[number]
    if draw < 0.9:
        text = rng.choice((f"What does {word} cost?", f"What is the price of {word}?"))
        return _reading(receipt, text, 2 + 2 * number)
    counts = ("One.", "Two.", "Three.", "Four.")
    return Question("receipt questions", "How many things were bought?", counts[len(receipt.items) - 1])


def _reading(receipt: Receipt, text: str, at: int) -> Question:
    """A question whose answer is a printed line, of this index."""
    scene, line = receipt.scene, receipt.scene.lines[at]
    return Question("receipt questions", text, line.text, target=target_of(scene, line), marks=spelling(scene, line))


def example_receipt(seed: int) -> Receipt | None:
    """A receipt of two or three things to eat in Pillow's own face, as the one that the demo model comes with."""
    rng = Random(seed)
    names = rng.sample(_FOODS, rng.choice((2, 2, 3)))
    items = tuple((name, 100 * rng.randint(1, 9) + rng.choice((0, 50, 25, 20, 75))) for name in names)
    size, shop = rng.choice(((400, 600), (300, 600), (480, 720))), rng.choice(_SHOPS)
    return draw_receipt(rng, size, shop, items, next(face for face in faces() if face.path == EMBEDDED))


def main() -> None:
    """Draw the receipt that the demo model comes with: of the seeds tried one that it reads right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--seed", type=int, default=36)
    args = parser.parse_args()
    receipt = example_receipt(args.seed)
    assert receipt is not None
    receipt.scene.image.save(args.picture, optimize=True)


if __name__ == "__main__":
    main()
