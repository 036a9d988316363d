"""What the reference is asked: pictures, prompts in the official form, and the model shapes they go to.

Data only, read by the script that makes the golden outputs and by the tests that hold the runtime to them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

OFFICIAL_SYSTEM = (
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
)


@dataclass(frozen=True)
class Picture:
    """A picture that `pictures.draw` draws, and how it may be cut."""

    seed: int
    width: int
    height: int
    max_tiles: int = 12
    thumbnail: bool = True

    @property
    def name(self) -> str:
        return f"{self.seed}-{self.width}x{self.height}-{self.max_tiles}{'' if self.thumbnail else '-plain'}"


@dataclass(frozen=True)
class Turn:
    """One question.

    Attributes:
        ask: what a user of the public API types.
        prompt: the user's message as the card writes it, one `<image>` for each picture (or one
            for all, if combined).
        pictures: the pictures that come with the question.
        answer_tokens: how many tokens are generated greedily before the next turn.
    """

    ask: str
    prompt: str
    pictures: tuple[Picture, ...] = ()
    answer_tokens: int = 0


@dataclass(frozen=True)
class Case:
    """A conversation whose next-token distribution after the last question is golden."""

    name: str
    turns: tuple[Turn, ...]
    system: str = OFFICIAL_SYSTEM
    layout: Literal["separate", "combined", "frames"] = "separate"


def _one(name: str, picture: Picture, ask: str) -> Case:
    return Case(name, (Turn(ask, f"<image>\n{ask}", (picture,)),))


# Sizes that the card cuts into one to thirteen tiles of 56 pixels, in every kind of grid; two tiles want no thumbnail.
TILE_COUNTS = {
    1: Picture(1, 50, 50),
    2: Picture(2, 120, 60, thumbnail=False),
    3: Picture(3, 60, 120),
    4: Picture(4, 180, 60),
    5: Picture(5, 100, 100),
    6: Picture(6, 300, 60),
    7: Picture(7, 112, 168),
    8: Picture(8, 60, 420),
    9: Picture(9, 200, 100),
    10: Picture(10, 130, 130),
    11: Picture(11, 250, 100),
    12: Picture(12, 660, 60),
    13: Picture(13, 240, 180),
}

_QUESTIONS = (
    "What is shown here?",
    "How many circles are there?",
    "Describe the picture in one sentence.",
    "Which colour is the square on the left?",
    "Read the number 4821 aloud.",
)

SMALL_CASES = (
    Case("text only", (Turn("Who are you?", "Who are you?"),)),
    Case("text only, other system", (Turn("Who are you?", "Who are you?"),), system="You answer in one word."),
    *(_one(f"{n} tiles", picture, _QUESTIONS[n % 5]) for n, picture in TILE_COUNTS.items()),
    _one("large picture in one tile", Picture(14, 640, 480, max_tiles=1), "What is shown here?"),
    _one("large picture in six tiles", Picture(15, 500, 333, max_tiles=6), "这张图片里有什么？"),
    _one("decomposed accents", Picture(16, 90, 90), "Is this a cafe\u0301 in Malmo\u0308?"),
    _one("spaces and line ends", Picture(17, 77, 131), "One:\n\n  two,   three\tfour...\n"),
    Case(
        "two pictures",
        (
            Turn(
                "What differs between them?",
                "Image-1: <image>\nImage-2: <image>\nWhat differs between them?",
                (Picture(20, 130, 70), Picture(21, 70, 130)),
            ),
        ),
    ),
    Case(
        "three pictures",
        (
            Turn(
                "Which one has a star?",
                "Image-1: <image>\nImage-2: <image>\nImage-3: <image>\nWhich one has a star?",
                (Picture(22, 50, 50), Picture(23, 240, 180), Picture(24, 300, 60)),
            ),
        ),
    ),
    Case(
        "two pictures combined",
        (
            Turn(
                "What differs between them?",
                "<image>\nWhat differs between them?",
                (Picture(20, 130, 70), Picture(21, 70, 130)),
            ),
        ),
        layout="combined",
    ),
    Case(
        "three frames",
        (
            Turn(
                "What happens?",
                "Frame1: <image>\nFrame2: <image>\nFrame3: <image>\nWhat happens?",
                (
                    Picture(25, 160, 90, max_tiles=1),
                    Picture(26, 160, 90, max_tiles=1),
                    Picture(27, 160, 90, max_tiles=1),
                ),
            ),
        ),
        layout="frames",
    ),
    Case(
        "second turn",
        (
            Turn("What is shown here?", "<image>\nWhat is shown here?", (Picture(30, 240, 180),), answer_tokens=4),
            Turn("Are you sure?", "Are you sure?"),
        ),
    ),
    Case(
        "second turn with another picture",
        (
            Turn("Say what it is.", "<image>\nSay what it is.", (Picture(31, 180, 60),), answer_tokens=4),
            Turn("And this one?", "<image>\nAnd this one?", (Picture(32, 100, 100),)),
        ),
    ),
    Case(
        "third turn, no picture at first",
        (
            Turn("Good morning.", "Good morning.", answer_tokens=3),
            Turn("What is this?", "<image>\nWhat is this?", (Picture(33, 112, 168),), answer_tokens=3),
            Turn("What colour is it?", "What colour is it?"),
        ),
    ),
)

FULL_CASES = (
    _one("1 tile of 448", Picture(41, 448, 448), "What is shown here?"),
    _one("small picture, 7 tiles of 448", Picture(42, 300, 200), "Read the number 4821 aloud."),
    _one("13 tiles of 448", Picture(43, 1024, 768), "Describe the picture in one sentence."),
    Case(
        "two pictures of 448",
        (
            Turn(
                "What differs between them?",
                "Image-1: <image>\nImage-2: <image>\nWhat differs between them?",
                (Picture(44, 640, 360, max_tiles=2), Picture(45, 200, 260, max_tiles=1)),
            ),
        ),
    ),
    Case(
        "two pictures of 13 tiles of 448",
        (
            Turn(
                "What differs between them?",
                "Image-1: <image>\nImage-2: <image>\nWhat differs between them?",
                (Picture(47, 1024, 768), Picture(48, 800, 600)),
            ),
        ),
    ),
    Case(
        "second turn of 448",
        (
            Turn("Describe it.", "<image>\nDescribe it.", (Picture(46, 500, 1000, max_tiles=2),), answer_tokens=3),
            Turn("Are you sure?", "Are you sure?"),
        ),
    ),
)

# Of the small cases those that a text part could answer in another way: tiles, several pictures, later turns.
QWEN3_CASES = tuple(
    case
    for case in SMALL_CASES
    if case.name in ("text only", "1 tiles", "3 tiles", "7 tiles", "13 tiles", "spaces and line ends")
    or len(case.turns) > 1
    or len(case.turns[0].pictures) > 1
)
QWEN3_PICTURES = tuple(TILE_COUNTS[count] for count in (1, 3, 13))
# The same, and text that another vocabulary spells in another way.
INTERNLM_CASES = tuple(
    case
    for case in SMALL_CASES
    if case in QWEN3_CASES
    or case.name in ("text only, other system", "large picture in six tiles", "decomposed accents")
)


@dataclass(frozen=True)
class Reference:
    """One random model: its folder under `data/`, its shapes, and what it is asked.

    Attributes:
        token_stride: of the visual tokens of each tile, every which one is kept in the golden file.
        kind: architecture of the text part, as llama.cpp names it.
        head_dim: width of a head of the text part; 0 for width / heads.
        experts, experts_used, expert_ffn: of qwen3moe.
        space_prefix: of a SentencePiece vocabulary: whether it spells the beginning of a text with a space.
    """

    name: str
    seed: int
    image_size: int
    patch_size: int
    vision_width: int
    vision_layers: int
    vision_heads: int
    vision_ffn: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    ffn: int
    tied: bool
    cases: tuple[Case, ...]
    embedded: tuple[Picture, ...]
    token_stride: int = 1
    vocab: int = 448
    kind: Literal["qwen2", "qwen3", "qwen3moe", "internlm2", "llama"] = "qwen2"
    head_dim: int = 0
    experts: int = 0
    experts_used: int = 0
    expert_ffn: int = 0
    space_prefix: bool = False

    @property
    def tokens_per_tile(self) -> int:
        return (self.image_size // self.patch_size // 2) ** 2


REFERENCES = (
    Reference(
        "small",
        seed=8,
        image_size=56,
        patch_size=14,
        vision_width=96,
        vision_layers=3,
        vision_heads=3,
        vision_ffn=256,
        width=128,
        layers=3,
        heads=4,
        kv_heads=2,
        ffn=256,
        tied=False,
        cases=SMALL_CASES,
        embedded=tuple(TILE_COUNTS.values()),
    ),
    Reference(
        "full",
        seed=1,
        image_size=448,
        patch_size=14,
        vision_width=64,
        vision_layers=2,
        vision_heads=2,
        vision_ffn=128,
        width=64,
        layers=2,
        heads=4,
        kv_heads=1,
        ffn=160,
        tied=True,
        cases=FULL_CASES,
        embedded=(Picture(41, 448, 448), Picture(42, 300, 200), Picture(43, 1024, 768)),
        token_stride=7,
    ),
    Reference(
        "qwen3",
        seed=3,
        image_size=56,
        patch_size=14,
        vision_width=64,
        vision_layers=2,
        vision_heads=2,
        vision_ffn=128,
        width=64,
        layers=3,
        heads=4,
        kv_heads=2,
        ffn=160,
        tied=False,
        cases=QWEN3_CASES,
        embedded=QWEN3_PICTURES,
        kind="qwen3",
        head_dim=32,
    ),
    Reference(
        "qwen3moe",
        seed=6,
        image_size=56,
        patch_size=14,
        vision_width=64,
        vision_layers=2,
        vision_heads=2,
        vision_ffn=128,
        width=64,
        layers=3,
        heads=4,
        kv_heads=1,
        ffn=160,
        tied=False,
        cases=QWEN3_CASES,
        embedded=QWEN3_PICTURES,
        kind="qwen3moe",
        head_dim=32,
        experts=8,
        experts_used=4,
        expert_ffn=48,
    ),
    Reference(
        "internlm2",
        seed=1,
        image_size=56,
        patch_size=14,
        vision_width=64,
        vision_layers=2,
        vision_heads=2,
        vision_ffn=128,
        width=64,
        layers=3,
        heads=4,
        kv_heads=2,
        ffn=160,
        tied=False,
        cases=INTERNLM_CASES,
        embedded=QWEN3_PICTURES,
        kind="internlm2",
    ),
    Reference(
        "internlm3",
        seed=4,
        image_size=56,
        patch_size=14,
        vision_width=64,
        vision_layers=2,
        vision_heads=2,
        vision_ffn=128,
        width=64,
        layers=3,
        heads=4,
        kv_heads=1,
        ffn=160,
        tied=False,
        cases=INTERNLM_CASES,
        embedded=QWEN3_PICTURES,
        kind="llama",
        head_dim=32,
        space_prefix=True,
    ),
)
