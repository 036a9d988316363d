"""Declare an option once: on the field of a configuration dataclass.

`option` makes such a field of its default, its help, its names and its check. From these the dataclass checks itself
(`check_options`), and every surface derives what it shows and takes: flags and variables of the command line, keys of
config.toml and of lines of `--batch`, `/set`, completion, the sweeps of `internvl bench` and the tables in docs/.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, Final, get_type_hints

from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.utils.kinds import Kind, Switch, kind_of, may_be_none

_METADATA: Final = "option"


@dataclass(frozen=True)
class Option:
    """Metadata of an option field, beside its type and default.

    Attributes:
        help: one or two sentences, as `--help` shows them.
        flags: names on the command line; `--` and the key if empty.
        key: name of the parameter, in config.toml and, in capitals after INTERNVL_, of the variable; the field's name
            if empty.
        otherwise: description of the value used when the option is left out, if its default does not show it.
        details: text for docs/ beyond the help.
        allows: returns whether a value of the right kind is in range; None accepts all.
        hint: hint of the error for a value out of range.
        metavar: placeholder of the value in `--help`; None takes the one of the type.
        is_swept: whether `internvl bench` accepts lists of values.
        on_command_line: whether commands that ask a model have this option.
        variable: environment variable of a command's own option; "" for INTERNVL_, the command's name and the key's.
    """

    help: str
    flags: tuple[str, ...] = ()
    key: str = ""
    otherwise: str = ""
    details: str = ""
    allows: Callable[[Any], bool] | None = None
    hint: str = ""
    metavar: str | None = None
    is_swept: bool = False
    on_command_line: bool = True
    variable: str = ""


def option(default: Any, help_text: str, *flags: str, **more: Any) -> Any:
    """Make a dataclass field that is an option.

    Args:
        default: its default.
        help_text: `Option.help`.
        *flags: `Option.flags`.
        **more: the other attributes of `Option`.
    """
    return dataclasses.field(default=default, metadata={_METADATA: Option(help_text, flags, **more)})


@dataclass(frozen=True)
class Declared:
    """An option together with its field's name, kind and default.

    Attributes:
        name: name of the field.
        kind: kind of its values.
        is_optional: whether None is a value.
        default: the default.
        option: the metadata.
    """

    name: str
    kind: Kind
    is_optional: bool
    default: Any
    option: Option

    @property
    def key(self) -> str:
        """Name of the parameter, the variable and the key in config.toml."""
        return self.option.key or self.name

    @property
    def flags(self) -> tuple[str, ...]:
        """Names on the command line, the long ones first; a switch that is on by default has a name to turn it off."""
        dashed = self.key.replace("_", "-")
        is_on = isinstance(self.kind, Switch) and self.default is True
        return self.option.flags or (f"--{dashed}/--no-{dashed}" if is_on else f"--{dashed}",)

    @property
    def flag(self) -> str:
        """Its first name on the command line."""
        return self.flags[0].partition("/")[0]

    @property
    def help(self) -> str:
        """Its help text, with the value used when the option is left out."""
        otherwise = self.option.otherwise
        if not otherwise:
            return self.option.help
        return f"{self.option.help.removesuffix('.')}; {otherwise}{',' * (',' in otherwise)} if left out."

    @property
    def can_be_open(self) -> bool:
        """Whether its default is empty: None, or no texts."""
        return self.default is None or self.default == ()

    def checked(self, value: object, called: str = "") -> Any:
        """Check a value and return it in the field's type.

        Args:
            value: the value.
            called: name of the option in errors; the field's if empty.

        Raises:
            InvalidRequestError: the value is of another kind, or out of range.
        """
        called = called or self.name
        if value is None and self.is_optional:
            return None
        found = self.kind.accept(called, value)
        if self.option.allows is not None and not self.option.allows(found):
            shown = ", ".join(map(repr, found)) if isinstance(found, tuple) else repr(found)
            raise InvalidRequestError(f"{called} is {shown}.", self.option.hint)
        return found

    def read(self, value: Any) -> Any:
        """Convert the parameter of a command to a value for `checked`.

        Raises:
            InvalidRequestError: the text cannot be parsed.
        """
        if value is None:
            return self.default
        if not isinstance(value, str):
            return value
        try:
            return self.kind.read(value)
        except ValueError:
            raise InvalidRequestError(f"{self.flag} is {value!r}.", f"Give {self.kind.typed}.") from None


@cache
def options_of(configuration: Any) -> Mapping[str, Declared]:
    """Return the options of a configuration dataclass by the names of their fields, in order."""
    types = get_type_hints(configuration, include_extras=True)
    return MappingProxyType(
        {
            each.name: Declared(
                each.name,
                kind_of(types[each.name]),
                may_be_none(types[each.name]),
                each.default,
                each.metadata[_METADATA],
            )
            for each in dataclasses.fields(configuration)
            if _METADATA in each.metadata
        }
    )


def check_options(configuration: Any) -> None:
    """Check every option of a new frozen instance, and store each value in its field's type.

    Raises:
        InvalidRequestError: a value of another kind, or out of range.
    """
    for name, declared in options_of(configuration.__class__).items():
        object.__setattr__(configuration, name, declared.checked(getattr(configuration, name)))


def between(lowest: float, highest: float) -> Callable[[Any], bool]:
    """Return a check for `Option.allows`: a number from `lowest` to `highest`, both included."""
    return lambda value: bool(lowest <= value <= highest)


def at_least(lowest: float) -> Callable[[Any], bool]:
    """Return a check for `Option.allows`: a number of at least `lowest`."""
    return lambda value: bool(value >= lowest)
