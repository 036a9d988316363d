"""config.toml: the user's values for options that neither the command line nor a variable sets.

model = "InternVL3-8B-Instruct:Q4_K_XL"   # what INTERNVL_MODEL would say
temperature = 0.7                         # options of `internvl ask` and `internvl chat`, by their long names
max_tiles = 6

[chat]                                    # options of one command
preview = false
"""

from __future__ import annotations

import difflib
import inspect
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.utils.kinds import kind_of
from internvl_gguf.utils.paths import config_dir
from internvl_gguf.utils.text_data import decode_text

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE_NAME: Final = "config.toml"
MODEL: Final = "model"


class SettingsError(InvalidRequestError):
    """config.toml cannot be used. Its messages call options as that file does."""


def settings_path() -> Path:
    """Return the path of the file, whether it exists or not."""
    return config_dir() / FILE_NAME


def wanted_model() -> str | None:
    """Return the model that the file names; None if it names none.

    Raises:
        InvalidRequestError: the file cannot be read, or names something else than a model.
    """
    value = _read().get(MODEL)
    return None if value is None else str(_checked(MODEL, value, str))


def defaults_of(
    name: str, command: Callable[..., Any], shared: Mapping[str, Any], names: tuple[str, ...]
) -> dict[str, Any]:
    """Return the values that the file gives to the options of a command.

    Args:
        name: of the command.
        command: its function; its options are the parameters that `typer.Option` describes.
        shared: type of each option that stands above the tables of the file.
        names: of all commands, which a table may have.

    Raises:
        InvalidRequestError: the file cannot be read, has a key that is no option, or a value of another kind.
    """
    document = _read()
    tables = {key: value for key, value in document.items() if isinstance(value, dict)}
    for key in tables:
        if key not in names:
            raise _unknown(f"[{key}]", "command", key, names)
    own = option_types(command)
    found = {}
    for key, value in document.items():
        if key in tables or key == MODEL:
            continue
        if key not in shared:
            raise _unknown(key, "option of ask and chat", key, (*shared, MODEL))
        checked = _checked(key, value, shared[key])
        if key in own:
            found[key] = checked
    for key, value in tables.get(name, {}).items():
        if key not in own:
            raise _unknown(f"{key} of [{name}]", f"option of internvl {name}", key, tuple(own))
        found[key] = _checked(f"{key} of [{name}]", value, own[key])
    return found


def option_types(command: Callable[..., Any]) -> dict[str, Any]:
    """Return the options of a command with their types; what is said of one run alone is left out, as arguments are."""
    from typer.models import OptionInfo

    found = {}
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        kind, *described = get_args(parameter.annotation) if hasattr(parameter.annotation, "__metadata__") else (None,)
        if any(isinstance(each, OptionInfo) and each.allow_from_autoenv for each in described):
            found[parameter.name] = kind
    return found


def _read() -> dict[str, Any]:
    path = settings_path()
    try:
        return tomllib.loads(decode_text(path.read_bytes(), str(path)))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror or error}.", "Check its permissions.") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(
            f"{path} is not TOML: {error}.", 'Write lines such as max_tiles = 6 or vram = "8GiB".'
        ) from None


def _unknown(shown: str, what: str, key: str, known: tuple[str, ...]) -> SettingsError:
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"Did you mean {near[0]}?" if near else f"There are {', '.join(sorted(known))}."
    return SettingsError(f"{settings_path()} has {shown}, which is no {what}.", hint)


def _checked(key: str, value: Any, type_: Any) -> Any:
    """Return a value as the parameter of a command takes it.

    Raises:
        InvalidRequestError: it is of another kind.
    """
    kind = kind_of(type_)
    if kind.parameter is str and isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)  # layers on the GPU are "auto" or a number
    try:
        found = kind.accept(key, value)
    except InvalidRequestError:
        raise SettingsError(f"{key} is {value!r} in {settings_path()}.", f"Give {kind.written}.") from None
    return list(found) if isinstance(found, tuple) else found
