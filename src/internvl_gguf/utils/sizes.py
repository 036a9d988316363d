"""Parse and format sizes in bytes, such as "12GiB"."""

from __future__ import annotations

import re
from decimal import Decimal

from internvl_gguf.errors import InvalidRequestError

_BINARY = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40, "p": 2**50}
_DECIMAL = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "p": 10**15}
# A bare letter is binary, as in other tools for memory sizes (docker, systemd, du).
_UNITS = (
    {"b": 1}
    | {f"{letter}ib": factor for letter, factor in _BINARY.items()}
    | {f"{letter}b": factor for letter, factor in _DECIMAL.items()}
    | _BINARY
)
# Fifteen digits are more than any size has, and keep a line of nines from becoming a number of a thousand bits.
_SIZE = re.compile(r"\s*(?P<number>[0-9]{1,15}(?:\.[0-9]{1,15})?)\s*(?P<unit>[A-Za-z]*)\s*")
_FORM = 'Write a number above 0 with its unit, for example "12GiB", "500 MiB" or "12GB" (decimal).'
_MEMORY_FORM = 'Write a number above 0 with its unit, for example "12GiB" or "500MiB"; of memory "12GB" is the same.'
_GPUS_FORM = 'Write one size for each GPU, for example "12GiB", "24GiB,12GiB" or "2x24GiB".'
_OF_MEMORY = re.compile(r"\s*[0-9.]+\s*[mg]b\s*", re.IGNORECASE)
_SEVERAL = re.compile(r"\s*(?P<number>[1-9][0-9]?)\s*[x×]\s*(?P<size>[0-9].*)", re.IGNORECASE)


def parse_size(text: str, default_unit: str | None = None) -> int:
    """Parse a size; return bytes, rounded to the nearest one.

    Args:
        text: a number and a unit in any case, with or without a space: KiB to PiB are powers of 1024, KB to PB are
            powers of 1000, a bare K to P counts as KiB to PiB, B are bytes.
        default_unit: the unit of a number without one, for example "GiB"; None refuses such a number.

    Raises:
        InvalidRequestError: the text is no size, or less than one byte.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise InvalidRequestError(f"{text!r} is not a size.", _FORM)
    unit = match["unit"] or default_unit
    if unit is None:
        number = match["number"]
        raise InvalidRequestError(
            f"The size {text!r} has no unit.",
            f'Add one: "{number}GiB", "{number}MiB", or "{number}GB" for powers of 1000.',
        )
    factor = _UNITS.get(unit.lower())
    if factor is None:
        raise InvalidRequestError(f"{unit!r} in {text!r} is not a unit of size.", _FORM)
    size = int((Decimal(match["number"]) * factor).to_integral_value())
    if size < 1:
        raise InvalidRequestError(f"The size {text!r} is less than one byte.", _FORM)
    return size


def parse_vram(value: object) -> tuple[int, ...] | None:
    """Return the bytes of each GPU from comma-separated sizes, a number of bytes, or a list of either.

    "2x24GB" are two cards. Sizes are read as by `parse_memory`: a card of "12 GB" has 12 GiB. A number 0 in a list is a
    GPU that is left alone.

    Returns:
        None for None; () for "none", a machine without a GPU.

    Raises:
        InvalidRequestError: the value cannot be parsed.
    """
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return (value,)
    if isinstance(value, list | tuple) and value:
        return tuple(size for each in value for size in ((0,) if each == 0 else parse_vram(each) or ()))
    if not isinstance(value, str) or not all(part.strip() for part in value.split(",")):
        raise InvalidRequestError(f"{value!r} is not a memory budget.", _GPUS_FORM)
    if value.strip().lower() == "none":
        return ()
    if value.strip() == "0":
        raise InvalidRequestError("A GPU of no memory.", 'Write "none" for a machine without a GPU.')
    return tuple(parse_memory(size) for part in value.split(",") for size in _each(part))


def parse_memory(text: str) -> int:
    """Parse a size of memory; GB and MB are powers of 1024 here, as whoever sells it means them.

    Raises:
        InvalidRequestError: no size, or without a unit.
    """
    if re.fullmatch(r"\s*[0-9]+(?:\.[0-9]+)?\s*", text):
        number = text.strip()
        raise InvalidRequestError(
            f"The size {number!r} has no unit.", f'Write "{number}GiB" (or "{number}GB": of memory it is the same).'
        )
    try:
        return parse_size(_in_binary(text))
    except InvalidRequestError as error:
        raise InvalidRequestError(error.message, _MEMORY_FORM) from None


def memory_note(*given: str | None) -> str:
    """What to say of memory given in GB; "" where none was."""
    sizes = [size.strip() for text in given if text for part in text.split(",") for size in dict.fromkeys(_each(part))]
    read = [f"{size} as {_in_binary(size)}" for size in dict.fromkeys(sizes) if _OF_MEMORY.fullmatch(size)]
    return f"Read {' and '.join(read)}: GB of memory are powers of 1024." if read else ""


def _each(part: str) -> list[str]:
    """Return the sizes of a part of a list: "2x24GB" are two of them."""
    several = _SEVERAL.fullmatch(part)
    return [several["size"]] * int(several["number"]) if several else [part]


def _in_binary(size: str) -> str:
    return re.sub("b", "iB", size, flags=re.IGNORECASE) if _OF_MEMORY.fullmatch(size) else size


def rounded_size(size: int) -> str:
    """As `format_size`, with as many digits as an estimate is worth: "512 B", "673 MiB", "8.5 GiB"."""
    text, unit = format_size(size).split(" ")
    value = float(text)
    return f"{value:.1f} {unit}" if value < 10 and unit != "B" else f"{value:.0f} {unit}"


def plain_size(size: int) -> str:
    """As `format_size`, without zeros behind the point: "12 GiB", "11.5 GiB"."""
    text, unit = format_size(size).split(" ")
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} {unit}"


def format_size(size: int) -> str:
    """Format a number of bytes, 0 or more, in a suitable binary unit: "512 B", "672.66 MiB", "8.48 GiB"."""
    if size < 1024:
        return f"{size} B"
    value = float(size)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= 1024
        if round(value, 2) < 1024:  # 1023.999 MiB reads 1.00 GiB, not 1024.00 MiB
            return f"{value:.2f} {unit}"
    return f"{value / 1024:.2f} PiB"


def in_seconds(seconds: float) -> str:
    """Return a time in words: "1 second", "0.5 seconds"."""
    return f"{seconds:g} {'second' if seconds == 1 else 'seconds'}"


def counted(count: int, one: str, many: str = "") -> str:
    """Return a number of things in words: "1 line", "50,000 lines".

    Args:
        count: how many.
        one: the word for one.
        many: the word for several; with an s at its end if left out.
    """
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"
