"""The libraries of the extra `internvl-gguf[structured]`, loaded when they are first needed."""

from __future__ import annotations

import importlib
from typing import Any, Final

from internvl_gguf.errors import InvalidRequestError

_INSTALL: Final = "pip install 'internvl-gguf[structured]'"


def library(name: str, purpose: str) -> Any:
    """Import a library of the extra.

    Args:
        name: name of the package, such as "llguidance".
        purpose: what needs it, as the subject of a sentence in the singular: "A bound answer".

    Raises:
        InvalidRequestError: it is not installed, or cannot be loaded on this machine.
    """
    module = name.replace("-", "_")
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == module:
            raise InvalidRequestError(f"{purpose} needs the package {name}.", _INSTALL) from None
        raise InvalidRequestError(f"{name} cannot be loaded: {error}.", f"Install it again: {_INSTALL}") from error
