"""Kinds of option values: what each accepts from Python, JSON and TOML, and how it is typed and shown.

A kind follows from the annotation of a field (`kind_of`). All surfaces of an option go through it: the Python interface
and files give values (`Kind.accept`), `/set`, flags and sweeps give text (`Kind.read`).
"""

from __future__ import annotations

import math
import re
import shlex
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.utils import arguments
from internvl_gguf.utils.rpc_addresses import parse_servers
from internvl_gguf.utils.sizes import parse_vram

_ON: Final = ("on", "true", "yes", "1")
_OFF: Final = ("off", "false", "no", "0")
# int() takes underscores and digits of other scripts, too.
_WHOLE: Final = re.compile(r"[+-]?[0-9][0-9,]*")


class Kind:
    """A kind of option value. The base class accepts text.

    Attributes:
        written: description of a value in JSON and TOML, for messages.
        typed: description of a value on a command line, for messages.
        choices: all values, as typed; empty if there are more than a few.
        parameter: type of a command's parameter for such a value.
    """

    written: str = "text"
    typed: str = "text"
    choices: tuple[str, ...] = ()
    parameter: Any = str

    def accept(self, name: str, value: object) -> Any:
        """Check a value from Python, JSON or TOML, and return it in the option's type.

        Raises:
            InvalidRequestError: it is of another kind; the message names it `name`.
        """
        return arguments.text(name, value)

    def read(self, text: str) -> Any:
        """Parse a typed text.

        Raises:
            ValueError: the text is no value of this kind.
        """
        return text

    def show(self, value: Any) -> str:
        """Format a value as it is typed; "none" for None."""
        return "none" if value is None else str(value)


class Whole(Kind):
    """A whole number; commas between thousands may be typed."""

    written = typed = "a whole number"
    parameter: Any = int

    def accept(self, name: str, value: object) -> int:
        """Check a value; see `Kind.accept`. Whole numbers of numpy are accepted, True and False are not."""
        return arguments.whole(name, value)

    def read(self, text: str) -> int:
        """Parse a typed text; see `Kind.read`."""
        if not _WHOLE.fullmatch(text):
            raise ValueError(text)
        return int(text.replace(",", ""))


class Number(Kind):
    """A finite number."""

    written = "a number"
    typed = "a number, such as 0.8"
    parameter = float

    def accept(self, name: str, value: object) -> float:
        """Check a value; see `Kind.accept`. Numbers of numpy and fractions are accepted, True and False are not."""
        found = arguments.number(name, value)
        if not math.isfinite(found):
            raise InvalidRequestError(f"{name} is {found}.", "Give a finite number.")
        return found

    def read(self, text: str) -> float:
        """Parse a typed text; see `Kind.read`."""
        return float(text)


class Switch(Kind):
    """True or False; typed as on and off."""

    written = "true or false"
    typed = "on or off"
    choices: tuple[str, ...] = (_ON[0], _OFF[0])
    parameter: Any = bool

    def accept(self, name: str, value: object) -> bool:
        """Check a value; see `Kind.accept`. Booleans of numpy are accepted, 0 and 1 are not."""
        return arguments.switch(name, value)

    def read(self, text: str) -> bool:
        """Parse a typed text; see `Kind.read`."""
        if text.lower() not in _ON + _OFF:
            raise ValueError(text)
        return text.lower() in _ON

    def show(self, value: Any) -> str:
        """Format a value; see `Kind.show`."""
        return super().show(value) if value is None else _ON[0] if value else _OFF[0]


class Choice(Kind):
    """One of a few words.

    Args:
        literal: `typing.Literal` of the words.
    """

    def __init__(self, literal: Any) -> None:
        self.choices = get_args(literal)
        self.written = self.typed = f"one of {', '.join(self.choices)}"
        self.parameter = literal

    def accept(self, name: str, value: object) -> str:
        """Check a value; see `Kind.accept`."""
        if not isinstance(value, str) or value not in self.choices:
            raise arguments.wrong(name, value, f"Use {self.written}.")
        return value

    def read(self, text: str) -> str:
        """Parse a typed text in any case; see `Kind.read`."""
        if text.lower() not in self.choices:
            raise ValueError(text)
        return text.lower()


class Texts(Kind):
    """Several texts; typed as words of a shell.

    Args:
        written: description of a value in JSON and TOML, for messages.
        takes_one: whether a single text is accepted as a list of one.
    """

    typed = "words, in quotes where one has spaces"
    parameter = list[str]

    def __init__(self, written: str = "a list of texts", *, takes_one: bool = False) -> None:
        self.written = f"a text, or {written}" if takes_one else written
        self._takes_one = takes_one

    def accept(self, name: str, value: object) -> tuple[str, ...]:
        """Check a value; see `Kind.accept`."""
        hint = f"Give {self.written}."
        if self._takes_one and isinstance(value, str):
            return (value,)
        texts = enumerate(arguments.items(name, value, hint))
        return tuple(arguments.text(f"{name}[{index}]", each, hint) for index, each in texts)

    def read(self, text: str) -> tuple[str, ...]:
        """Parse a typed text; see `Kind.read`. A text with an open quote is one word."""
        try:
            return tuple(shlex.split(text))
        except ValueError:
            return (text,)

    def show(self, value: Any) -> str:
        """Format a value; see `Kind.show`."""
        return " ".join(map(shlex.quote, value)) if value else super().show(None)


class SwitchOrAuto(Switch):
    """True, False or "auto"."""

    written = 'true, false or "auto"'
    typed = "auto, on or off"
    choices = ("auto", _ON[0], _OFF[0])
    parameter = Literal["auto", "on", "off"]

    def accept(self, name: str, value: object) -> Any:
        """Check a value; see `Kind.accept`."""
        if isinstance(value, bool) or (isinstance(value, str) and value == "auto"):
            return value
        raise arguments.wrong(name, value, 'Use True, False or "auto".')

    def read(self, text: str) -> Any:
        """Parse a typed text; see `Kind.read`."""
        return "auto" if text.lower() == "auto" else super().read(text)

    def show(self, value: Any) -> str:
        """Format a value; see `Kind.show`."""
        return value if isinstance(value, str) else super().show(value)


class LayersOrAuto(Whole):
    """A number of layers, -1 for all of them, or "auto"."""

    written = 'a whole number or "auto"'
    typed = "auto, all or a number of layers"
    choices = ("auto", "all")
    parameter = str
    hint = 'Use "auto", -1 (all layers), 0 (none) or a number of layers.'

    def accept(self, name: str, value: object) -> Any:
        """Check a value; see `Kind.accept`."""
        return value if isinstance(value, str) and value == "auto" else arguments.whole(name, value, self.hint)

    def read(self, text: str) -> Any:
        """Parse a typed text; see `Kind.read`."""
        return text if text == "auto" else -1 if text == "all" else super().read(text)

    def show(self, value: Any) -> str:
        """Format a value; see `Kind.show`."""
        return "all" if value == -1 else super().show(value)


class JudgeName(Kind):
    """The name of a judge of answers, or of a model that is a critic."""

    written = 'a text: "vote", "certainty" or the model of a critic'
    typed = "vote, certainty or the model of a critic"
    choices = ("vote", "certainty")


class FramesOrAuto(Whole):
    """A number of frames, or "auto"."""

    written = 'a whole number of 1 or more, or "auto"'
    typed = "auto or a number of frames"
    choices = ("auto",)
    parameter = str

    def accept(self, name: str, value: object) -> Any:
        """Check a value; see `Kind.accept`."""
        return value if value == "auto" else arguments.whole(name, value, f"Give {self.written}.")

    def read(self, text: str) -> Any:
        """Parse a typed text; see `Kind.read`."""
        return text if text == "auto" else super().read(text)


class MemorySizes(Kind):
    """Memory of each GPU: "12GiB", "24GiB,12GiB", a number of bytes, or a list of either."""

    def accept(self, name: str, value: object) -> Any:
        """Check a value; see `Kind.accept`. The sizes stay as they were written."""
        parse_vram(value)
        return value


class RPCServers(Kind):
    """Addresses of RPC servers: "host:port", several with commas between them, or a list."""

    written = 'a text as "127.0.0.1:50052", or a list of such'
    typed = "HOST:PORT, or several with commas between them"

    def accept(self, name: str, value: object) -> tuple[str, ...]:
        """Check a value; see `Kind.accept`."""
        hint = f"Give {self.written}."
        texts = (value,) if isinstance(value, str) else arguments.items(name, value, hint)
        return parse_servers(name, [arguments.text(name, each, hint) for each in texts])

    def show(self, value: Any) -> str:
        """Format a value; see `Kind.show`."""
        return ",".join(value) if value else super().show(None)


def kind_of(annotation: Any) -> Kind:
    """Return the kind of a field or parameter for its type; None in a union only means that it may be left out.

    A type that names its kind, `Annotated[int | Literal["auto"], LayersOrAuto()]`, is of that kind. Any other type
    (a path, for example) is text.
    """
    if get_origin(annotation) is Annotated:
        type_, *described = get_args(annotation)
        return next((each for each in described if isinstance(each, Kind)), None) or kind_of(type_)
    if get_origin(annotation) in (Union, UnionType):
        parts = [each for each in get_args(annotation) if each is not NoneType]
        return kind_of(parts[0]) if len(parts) == 1 else Kind()
    if get_origin(annotation) is Literal:
        return Choice(annotation)
    if get_origin(annotation) in (list, tuple):
        return Texts(takes_one=get_origin(annotation) is tuple)
    plain: dict[Any, type[Kind]] = {bool: Switch, int: Whole, float: Number}
    return plain.get(annotation, Kind)()


def may_be_none(annotation: Any) -> bool:
    """Return whether None is a value of a type."""
    return get_origin(annotation) in (Union, UnionType) and NoneType in get_args(annotation)
