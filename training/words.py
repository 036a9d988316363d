"""What is printed in the pictures: numbers of one to four digits and short upper-case words."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

_WORD_LIST = """
GO NO UP ON OFF IN OUT YES STOP OPEN CLOSE EXIT ENTER HELP PUSH PULL HOT COLD LEFT RIGHT EAST WEST NORTH SOUTH
CAT DOG COW PIG HEN FOX OWL BEE ANT BAT RAT BEAR LION WOLF DEER FISH BIRD DUCK FROG GOAT HORSE MOUSE SHEEP ZEBRA
TIGER SNAKE WHALE SHARK CAR BUS VAN TAXI BIKE TRAIN PLANE SHIP BOAT TRUCK ROAD CITY TOWN HOME HOUSE DOOR ROOM
WALL ROOF DESK LAMP SOFA BED CUP MUG PAN POT FORK SPOON KNIFE PLATE BOWL TEA MILK WATER JUICE COLA BEER WINE BREAD
CAKE RICE SOUP EGG HAM PIE NUT APPLE LEMON GRAPE PEAR PEACH PLUM MANGO MELON ONION BEAN CORN PIZZA PASTA SUN MOON
STAR SKY RAIN SNOW WIND CLOUD STORM FIRE ICE ROCK SAND SEA LAKE RIVER HILL TREE LEAF ROSE GRASS PLANT SEED RED BLUE
GREEN PINK BLACK WHITE BROWN GOLD GREY ONE TWO THREE FOUR FIVE SIX SEVEN EIGHT NINE TEN ZERO HALF FULL EMPTY BIG
SMALL TALL SHORT LONG WIDE FAST SLOW NEW OLD GOOD BAD HAPPY SAD LOVE LIKE PLAY GAME BALL KITE TOY BOOK PEN PAPER
CARD BOX BAG HAT COAT SHOE SOCK SHIRT DRESS RING WATCH CLOCK TIME DAY NIGHT WEEK MONTH YEAR MAY JUNE JULY MAN BOY
GIRL WOMAN CHILD BABY KING QUEEN HAND FOOT HEAD FACE EYE EAR NOSE MOUTH ARM LEG HEART BRAIN BONE MUSIC SONG DRUM
PIANO FILM PHOTO PHONE RADIO MOUSE CODE DATA FILE DISK CHIP ROBOT LASER PIXEL TILE MODEL IMAGE QUIZ JAZZ ZOOM WAX
VASE JAR KEY LOCK BANK CASH COIN SHOP SALE FREE PRICE MENU PARK ZOO GYM SPA BAR CAFE HOTEL HELLO WORLD PEACE QUIET
DANGER STAFF ONLY KEEP WAIT SLIP TEST DEMO NEXT BACK START END LOAD SAVE COPY PASTE UNDO HI OK BYE WOW FUN JOY VOTE
"""
WORDS = tuple(sorted({word for word in _WORD_LIST.split() if 2 <= len(word) <= 5}))


def held_out(word: str) -> bool:
    """Whether the word is kept from training for the tests (about one in six)."""
    return zlib.crc32(word.encode()) % 6 == 0


TRAIN_WORDS = tuple(word for word in WORDS if not held_out(word))
TEST_WORDS = tuple(word for word in WORDS if held_out(word))


def random_number(rng: Random) -> str:
    """One to four digits, no leading zero unless it is the only digit."""
    digits = rng.choices((1, 2, 3, 4), weights=(2, 4, 4, 3))[0]
    return str(rng.randint(10 ** (digits - 1) if digits > 1 else 0, 10**digits - 1))


def random_letters(rng: Random) -> str:
    """Two to five random capitals, never a held-out word."""
    while True:
        text = "".join(rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(rng.randint(2, 5)))
        if text not in TEST_WORDS:
            return text


def random_text(rng: Random, numbers: float = 0.55) -> str:
    """A number, or else a training word or random capitals."""
    if rng.random() < numbers:
        return random_number(rng)
    return rng.choice(TRAIN_WORDS) if rng.random() < 0.5 else random_letters(rng)
