"""Network settings of the hub: its address, and its client with the configured proxies and certificates.

huggingface_hub reads its variables when it is imported, and raises many kinds of errors for an invalid value. So the
variables are checked here first.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

from internvl_gguf.errors import HubError
from internvl_gguf.models.network import checked_environment, split_address

if TYPE_CHECKING:
    import httpx2

ENDPOINT: Final = "HF_ENDPOINT"
_NUMBERS: Final = ("HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT")


def variable_error(error: Exception) -> HubError:
    """Return the error for a variable that huggingface_hub could not read when it was imported.

    Args:
        error: the error that the import raised.
    """
    for name in _NUMBERS:
        value = os.environ.get(name)
        if value is not None and not re.fullmatch(r"\s*[+-]?\d+\s*", value):
            return HubError(f"{name} is {value!r}, which is no whole number.", "Give seconds, as 30, or unset it.")
    value = os.environ.get(ENDPOINT, "")
    if split_address(value) is None:
        return _address_error(ENDPOINT, value)
    return HubError(f"huggingface_hub cannot be loaded: {error}.", "Check the variables whose names begin with HF_.")


def check_endpoint(endpoint: str) -> None:
    """Refuse an invalid address of the hub.

    Raises:
        HubError: no scheme, no host, or no possible port.
    """
    parts = split_address(endpoint)
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"\s", endpoint):
        is_variable = endpoint == os.environ.get(ENDPOINT, "").rstrip("/")
        raise _address_error(ENDPOINT if is_variable else "The endpoint", endpoint)


def configured_client(endpoint: str) -> httpx2.Client:
    """Return huggingface_hub's client, made with the configured proxies and certificates.

    Raises:
        HubError: one of them cannot be used; it names the variable.
    """
    from huggingface_hub import get_session

    check_endpoint(endpoint)
    with checked_environment(endpoint):
        return get_session()


def _address_error(name: str, value: str) -> HubError:
    return HubError(
        f"{name} is {value!r}, which is no address of a hub.", "Write https://HOST or https://HOST:PORT, or unset it."
    )
