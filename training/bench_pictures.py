"""The picture set of `internvl bench`: drawn documents, charts, signs and scenes, each with a few questions.

Most have one tile of 448 pixels, some two and a thumbnail. Questions with an answer score that; the others what the
reference configuration answers. The pictures ship as they were drawn once: another Pillow may draw letters otherwise.

    python -m training.bench_pictures src/internvl_gguf/bench/data/pictures
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

Asked = tuple[tuple[str, str | None], ...]
INK, GREY, PAPER = (30, 34, 40), (130, 136, 146), (252, 251, 247)
RED, BLUE, GREEN, GOLD, TEAL = (200, 48, 44), (42, 92, 190), (52, 140, 74), (236, 176, 40), (32, 140, 150)
MONTHS, WEEKDAYS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec", "Mo Tu We Th Fr Sa Su"
SERIES = (BLUE, GOLD, GREEN, RED, TEAL)
PALETTE = 64


@dataclass
class Sheet:
    """A picture that is being drawn."""

    image: Image.Image
    draw: ImageDraw.ImageDraw

    @classmethod
    def blank(cls, width: int = 448, height: int = 448, colour: tuple[int, int, int] = PAPER) -> Sheet:
        """An empty one."""
        image = Image.new("RGB", (width, height), colour)
        return cls(image, ImageDraw.Draw(image))

    def text(
        self, x: float, y: float, words: str, size: int = 20, colour: tuple[int, int, int] = INK, anchor: str = "la"
    ) -> None:
        """Print words at a place."""
        self.draw.text((x, y), words, fill=colour, font=ImageFont.load_default(size), anchor=anchor)

    def rule(self, y: float, left: float = 32, right: float | None = None) -> None:
        """A thin line across."""
        self.draw.line((left, y, self.image.width - 32 if right is None else right, y), fill=GREY, width=2)

    def rows(
        self, lines: Sequence[tuple[str, ...]], columns: tuple[int, ...], top: int, step: int, size: int = 20
    ) -> None:
        """A table: texts at the columns, the last column flush right; "" leaves a place empty."""
        for index, line in enumerate(lines):
            for place, (x, words) in enumerate(zip(columns, line, strict=True)):
                self.text(x, top + index * step, words, size, anchor="ra" if place == len(columns) - 1 else "la")


def receipt() -> tuple[Sheet, Asked]:
    sheet = Sheet.blank()
    sheet.text(224, 24, "CAFE MERIDIAN", 32, anchor="ma")
    sheet.text(224, 68, "12 Harbour Street    Table 7", 18, GREY, "ma")
    sheet.rule(104)
    lines = [("2", "Coffee", "5.60"), ("1", "Green tea", "2.90"), ("3", "Lemon cake", "11.70"), ("1", "Soup", "6.40")]
    sheet.rows(lines, (40, 90, 408), 122, 38, 24)
    sheet.rule(286)
    sheet.rows([("", "Total", "26.60"), ("", "Cash", "30.00"), ("", "Change", "3.40")], (40, 90, 408), 300, 34, 24)
    sheet.text(224, 418, "2024-10-05   18:42", 18, GREY, "ma")
    return sheet, (
        ("What is the total?", "26.60"),
        ("How many pieces of lemon cake were bought?", "3"),
        ("At what time was the receipt printed?", "18:42"),
        ("Write down everything that was bought, with its price.", None),
    )


def bars() -> tuple[Sheet, Asked]:
    sheet = Sheet.blank()
    sheet.text(224, 18, "Visitors by weekday", 26, anchor="ma")
    counts = (("Mon", 120), ("Tue", 160), ("Wed", 90), ("Thu", 210), ("Fri", 280))
    for mark in range(0, 301, 100):
        y = 390 - mark
        sheet.draw.line((62, y, 430, y), fill=(222, 222, 218), width=2)
        sheet.text(54, y, str(mark), 18, GREY, "rm")
    for index, (day, count) in enumerate(counts):
        left = 80 + index * 72
        sheet.draw.rectangle((left, 390 - count, left + 46, 390), fill=BLUE)
        sheet.text(left + 23, 384 - count, str(count), 18, INK, "mb")
        sheet.text(left + 23, 400, day, 20, INK, "ma")
    return sheet, (
        ("Which day had the most visitors?", "Friday"),
        ("How many visitors came on Wednesday?", "90"),
        ("Describe the chart in two sentences.", None),
    )


def line_chart() -> tuple[Sheet, Asked]:
    sheet = Sheet.blank(896, 448)
    sheet.text(448, 16, "Mean temperature (degrees Celsius)", 26, anchor="ma")
    series = (("Coast", (6, 6, 8, 10, 13, 16, 18, 19, 16, 13, 9, 7), BLUE),
              ("Hills", (-3, -2, 2, 7, 12, 16, 19, 18, 13, 8, 2, -2), RED))  # fmt: skip
    for degrees in range(-5, 21, 5):
        y = 310 - degrees * 12
        sheet.draw.line((80, y, 860, y), fill=(222, 222, 218), width=2)
        sheet.text(70, y, str(degrees), 18, GREY, "rm")
    for index, month in enumerate(MONTHS.split()):
        sheet.text(100 + index * 67, 396, month, 20, INK, "ma")
    for place, (name, values, colour) in enumerate(series):
        points = [(100 + index * 67, 310 - value * 12) for index, value in enumerate(values)]
        sheet.draw.line(points, fill=colour, width=4, joint="curve")
        sheet.draw.line((110 + place * 140, 70, 146 + place * 140, 70), fill=colour, width=5)
        sheet.text(154 + place * 140, 70, name, 20, INK, "lm")
    return sheet, (
        ("In which month is it warmest on the coast?", "August"),
        ("Where is it colder in January, on the coast or in the hills?", "In the hills"),
        ("What does the chart show?", None),
    )


def pie() -> tuple[Sheet, Asked]:
    sheet = Sheet.blank()
    sheet.text(224, 16, "How people come to work", 26, anchor="ma")
    parts = (("Bicycle", 40), ("Train", 30), ("Car", 20), ("On foot", 10))
    start = -90.0
    for index, (name, percent) in enumerate(parts):
        end = start + 3.6 * percent
        sheet.draw.pieslice((24, 92, 284, 352), start, end, fill=SERIES[index], outline=PAPER, width=3)
        middle = math.radians((start + end) / 2)
        sheet.text(154 + 82 * math.cos(middle), 222 + 82 * math.sin(middle), f"{percent}%", 20, (255, 255, 255), "mm")
        sheet.draw.rectangle((306, 140 + index * 44, 328, 162 + index * 44), fill=SERIES[index])
        sheet.text(338, 151 + index * 44, name, 22, INK, "lm")
        start = end
    return sheet, (
        ("What share comes by train?", "30%"),
        ("What is the most common way to come to work?", "Bicycle"),
        ("Which colour stands for the car?", "Green"),
    )


def timetable() -> tuple[Sheet, Asked]:
    sheet = Sheet.blank(896, 448)
    sheet.draw.rectangle((0, 0, 896, 70), fill=BLUE)
    sheet.text(40, 18, "Departures", 34, (255, 255, 255))
    sheet.text(856, 18, "09:27", 34, (255, 255, 255), "ra")
    head = [("Time", "Line", "Destination", "Platform")]
    lines = [("09:31", "S2", "Brackwater", "4"), ("09:35", "R10", "Dunstan Hill", "1"),
             ("09:42", "S1", "Airport", "2"), ("09:58", "R7", "Cold Ferry (cancelled)", "3")]  # fmt: skip
    sheet.rows(head, (40, 190, 330, 856), 92, 50, 24)
    sheet.rule(136, 40, 856)
    sheet.rows(lines, (40, 190, 330, 856), 158, 68, 30)
    return sheet, (
        ("From which platform does the train to the airport leave?", "2"),
        ("Which train is cancelled?", "The R7 to Cold Ferry at 09:58"),
        ("List all departures.", None),
    )


def warning() -> tuple[Sheet, Asked]:
    sheet = Sheet.blank(colour=(236, 239, 240))
    sheet.draw.polygon(((224, 40), (384, 300), (64, 300)), fill=GOLD, outline=INK, width=10)
    sheet.draw.line((224, 120, 224, 216), fill=INK, width=22)
    sheet.draw.ellipse((210, 236, 238, 264), fill=INK)
    sheet.text(224, 324, "WET FLOOR", 48, INK, "ma")
    sheet.text(224, 388, "Please use the left stairs", 24, INK, "ma")
    return sheet, (
        ("What does the sign warn of?", "A wet floor"),
        ("Which stairs should be used?", "The left stairs"),
        ("What shape and colour is the sign?", None),
    )


def road() -> tuple[Sheet, Asked]:
    sheet = Sheet.blank(colour=(178, 208, 232))
    sheet.draw.rectangle((70, 60, 378, 300), fill=GREEN, outline=(255, 255, 255), width=8)
    for index, (place, distance) in enumerate((("Aldmoor", "4"), ("Fenn", "18"), ("Easterly", "52"))):
        sheet.text(98, 88 + index * 68, place, 38, (255, 255, 255))
        sheet.text(350, 88 + index * 68, distance, 38, (255, 255, 255), "ra")
    for left in (120, 304):
        sheet.draw.rectangle((left, 304, left + 24, 448), fill=GREY)
    return sheet, (
        ("How far is it to Fenn?", "18"),
        ("Which place is farthest away?", "Easterly"),
        ("What is written on the sign?", None),
    )


def clock() -> tuple[Sheet, Asked]:
    sheet = Sheet.blank()
    sheet.draw.ellipse((44, 44, 404, 404), fill=(255, 255, 255), outline=INK, width=10)
    for hour in range(1, 13):
        angle = math.radians(30 * hour - 90)
        sheet.text(224 + 142 * math.cos(angle), 224 + 142 * math.sin(angle), str(hour), 32, INK, "mm")
    for reach, turn, width in ((86, 30 * (3 + 40 / 60), 14), (124, 6 * 40, 8)):
        angle = math.radians(turn - 90)
        end = (224 + reach * math.cos(angle), 224 + reach * math.sin(angle))
        sheet.draw.line((224, 224, *end), fill=INK, width=width)
    sheet.draw.ellipse((212, 212, 236, 236), fill=RED)
    return sheet, (
        ("What time does the clock show?", "3:40"),
        ("To which number does the long hand point?", "8"),
    )


def floor_plan() -> tuple[Sheet, Asked]:
    sheet = Sheet.blank(896, 448)
    rooms = (("Kitchen", "12 m2", (40, 40, 320, 230)), ("Bath", "6 m2", (40, 230, 320, 408)),
             ("Living room", "28 m2", (320, 40, 640, 408)), ("Bedroom", "15 m2", (640, 40, 856, 260)),
             ("Study", "9 m2", (640, 260, 856, 408)))  # fmt: skip
    for name, area, box in rooms:
        sheet.draw.rectangle(box, outline=INK, width=6)
        middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        sheet.text(middle[0], middle[1] - 16, name, 28, INK, "mm")
        sheet.text(middle[0], middle[1] + 20, area, 22, GREY, "mm")
    return sheet, (
        ("How large is the bedroom?", "15 m2"),
        ("Which room is the largest?", "The living room"),
        ("How many rooms are there?", "5"),
        ("Describe the floor plan.", None),
    )


def form() -> tuple[Sheet, Asked]:
    sheet = Sheet.blank()
    sheet.text(32, 24, "Membership form", 32)
    fields = (("Name", "Ines Carvalho"), ("Town", "Porto"), ("Born", "3 June 1987"))
    for index, (name, value) in enumerate(fields):
        sheet.text(32, 88 + index * 56, name, 20, GREY)
        sheet.text(130, 84 + index * 56, value, 26, BLUE)
        sheet.rule(118 + index * 56, 130, 416)
    for index, (name, checked) in enumerate(
        (("Adult", True), ("Student", False), ("Family", False), ("Newsletter", True))
    ):
        top = 268 + index * 42
        sheet.draw.rectangle((34, top, 62, top + 28), outline=INK, width=3)
        if checked:
            sheet.draw.line(((39, top + 14), (47, top + 22), (58, top + 6)), fill=BLUE, width=5)
        sheet.text(78, top + 14, name, 24, INK, "lm")
    return sheet, (
        ("In which town does the person live?", "Porto"),
        ("Which boxes are ticked?", "Adult and Newsletter"),
        ("When was the person born?", "3 June 1987"),
    )


def calendar() -> tuple[Sheet, Asked]:
    sheet = Sheet.blank()
    sheet.text(224, 20, "May 2024", 36, RED, "ma")
    for column, day in enumerate(WEEKDAYS.split()):
        sheet.text(58 + column * 55, 84, day, 20, GREY, "ma")
    for date in range(1, 32):
        row, column = divmod(date + 1, 7)  # the first is a Wednesday
        x, y = 58 + column * 55, 142 + row * 60
        if date == 17:
            sheet.draw.ellipse((x - 24, y - 24, x + 24, y + 24), outline=RED, width=4)
        sheet.text(x, y, str(date), 26, INK if column < 5 else BLUE, "mm")
    return sheet, (
        ("Which day is marked with a circle?", "17"),
        ("On which weekday does the month begin?", "Wednesday"),
        ("How many Thursdays does the month have?", "5"),
    )


def landscape() -> tuple[Sheet, Asked]:
    sheet = Sheet.blank(colour=(170, 208, 240))
    sheet.draw.rectangle((0, 320, 448, 448), fill=(104, 168, 84))
    sheet.draw.ellipse((340, 30, 420, 110), fill=(255, 214, 60))
    sheet.draw.rectangle((70, 210, 230, 350), fill=(224, 196, 160))
    sheet.draw.polygon(((52, 212), (150, 130), (248, 212)), fill=RED)
    sheet.draw.rectangle((132, 276, 172, 350), fill=(110, 70, 40))
    for left in (84, 184):
        sheet.draw.rectangle((left, 232, left + 34, 262), fill=(120, 190, 230), outline=(255, 255, 255), width=3)
    for x in (300, 380):
        sheet.draw.rectangle((x - 8, 290, x + 8, 350), fill=(110, 70, 40))
        sheet.draw.ellipse((x - 36, 220, x + 36, 304), fill=(40, 120, 60))
    return sheet, (
        ("What colour is the roof of the house?", "Red"),
        ("How many trees are there?", "Two"),
        ("Where is the sun?", "At the top right"),
        ("Describe the picture.", None),
    )


def shapes() -> tuple[Sheet, Asked]:
    sheet = Sheet.blank(colour=(255, 255, 255))
    sheet.draw.ellipse((40, 40, 160, 160), fill=RED)
    sheet.draw.rectangle((290, 50, 400, 160), fill=BLUE)
    sheet.draw.polygon(((100, 280), (170, 400), (30, 400)), fill=GREEN)
    sheet.draw.ellipse((300, 300, 400, 400), fill=GOLD)
    sheet.text(224, 224, "47", 80, INK, "mm")
    return sheet, (
        ("What number is written?", "47"),
        ("How many circles are there?", "Two"),
        ("What shape is at the bottom left?", "A triangle"),
        ("Describe the picture.", None),
    )


def code() -> tuple[Sheet, Asked]:
    sheet = Sheet.blank(colour=(36, 40, 52))
    lines = ("def area(width, height):", "    if width < 0:", "        return None", "    return width * height", "",
             "print(area(6, 7))")  # fmt: skip
    for index, line in enumerate(lines):
        sheet.text(24, 60 + index * 52, str(index + 1), 22, GREY)
        indent = (len(line) - len(line.lstrip())) * 12
        sheet.text(64 + indent, 60 + index * 52, line.strip(), 26, (228, 232, 238))
    return sheet, (
        ("What does this program print?", "42"),
        ("What is the name of the function?", "area"),
        ("Write down the program.", None),
    )


def poster() -> tuple[Sheet, Asked]:
    sheet = Sheet.blank(448, 896, (24, 44, 84))
    sheet.draw.ellipse((124, 120, 324, 320), fill=(244, 240, 214))
    sheet.draw.ellipse((164, 100, 344, 280), fill=(24, 44, 84))
    for x, y in ((60, 90), (390, 60), (380, 380), (70, 360), (220, 60)):
        sheet.draw.polygon([(x + r * math.cos(a), y + r * math.sin(a)) for r, a in
                            ((12 if k % 2 == 0 else 4, k * math.pi / 4) for k in range(8))], fill=GOLD)  # fmt: skip
    for y, words, size in (
        (430, "Night of", 54),
        (490, "the Stars", 54),
        (600, "Open air concert", 34),
        (660, "Saturday 20 July", 34),
        (720, "8 pm, City Park", 34),
        (820, "Free entry", 30),
    ):
        sheet.text(224, y, words, size, (255, 255, 255) if y < 800 else GOLD, "ma")
    return sheet, (
        ("Where does the concert take place?", "In the City Park"),
        ("When does it begin?", "On Saturday 20 July at 8 pm"),
        ("What does it cost?", "Nothing, entry is free"),
        ("What is the poster about?", None),
    )


def label() -> tuple[Sheet, Asked]:
    sheet = Sheet.blank()
    sheet.draw.rectangle((28, 28, 420, 420), outline=INK, width=5)
    sheet.text(224, 44, "Nutrition facts", 34, anchor="ma")
    sheet.text(224, 92, "per 100 g", 22, GREY, "ma")
    lines = [("Energy", "1520 kJ"), ("Fat", "4.5 g"), ("Carbohydrates", "68 g"), ("  of which sugars", "21 g"),
             ("Fibre", "9.2 g"), ("Protein", "8.7 g"), ("Salt", "0.35 g")]  # fmt: skip
    sheet.rows(lines, (50, 400), 136, 39, 25)
    return sheet, (
        ("How much protein is in 100 g?", "8.7 g"),
        ("How much sugar is in 100 g?", "21 g"),
        ("Read all the values.", None),
    )


PICTURES: tuple[Callable[[], tuple[Sheet, Asked]], ...] = (
    receipt, bars, line_chart, pie, timetable, warning, road, clock, floor_plan, form, calendar, landscape, shapes,
    code, poster, label,
)  # fmt: skip


def main() -> None:
    """Draw the pictures and write the questions beside them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for draw in PICTURES:
        sheet, asked = draw()
        name = f"{draw.__name__.replace('_', '-')}.png"
        sheet.image.quantize(PALETTE, dither=Image.Dither.NONE).save(folder / name, optimize=True)
        for prompt, answer in asked:
            fields = {"image": name, "prompt": prompt}
            lines.append(json.dumps(fields if answer is None else {**fields, "answer": answer}))
    (folder / "questions.jsonl").write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
