"""Network settings of the environment: the hub's address, proxies, certificates; errors name the wrong variable.

huggingface_hub and httpx2 read these variables when they are imported or a client is made, and raise many kinds of
errors for an invalid value. So the variables are checked here first.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import ssl
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

from internvl_gguf.errors import HubError

if TYPE_CHECKING:
    import httpx2

ENDPOINT: Final = "HF_ENDPOINT"
_NUMBERS: Final = ("HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT")
_FILE, _FOLDER = "SSL_CERT_FILE", "SSL_CERT_DIR"
_CERTIFICATES: Final = (_FILE, _FOLDER, "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Variables for certificates, the first one that is set counts; httpx2 knows the first two only."""
_PROXY_FORMS: Final = "Write it as http://HOST:PORT or socks5://HOST:PORT, or unset it."
_client_lock = threading.Lock()


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
    if _split(value) is None:
        return _address_error(ENDPOINT, value)
    return HubError(f"huggingface_hub cannot be loaded: {error}.", "Check the variables whose names begin with HF_.")


def check_endpoint(endpoint: str) -> None:
    """Refuse an invalid address of the hub.

    Raises:
        HubError: no scheme, no host, or no possible port.
    """
    parts = _split(endpoint)
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
    with _client_lock, _environment({**_proxies(endpoint), **_certificates()}):
        return get_session()


def new_client(address: str, **arguments: Any) -> httpx2.Client:
    """Return a client for an address that is no hub, made with the configured proxies and certificates.

    Args:
        address: where it leads.
        **arguments: of `httpx2.Client`.

    Raises:
        HubError: a proxy or certificate cannot be used; it names the variable.
    """
    import httpx2

    with _client_lock, _environment({**_proxies(address), **_certificates()}):
        return httpx2.Client(**arguments)


def proxy_of(url: httpx2.URL) -> str | None:
    """Return the variable of the proxy that an address is reached through; None without a proxy."""
    proxies = getproxies()
    scheme = next((each for each in (url.scheme, "all") if proxies.get(each)), None)
    return None if scheme is None or proxy_bypass(url.host) else _variable(scheme)


def certificates_variable() -> str | None:
    """Return the variable that names the trusted certificates; None if the system's are used."""
    return next((name for name in _CERTIFICATES if os.environ.get(name)), None)


def _address_error(name: str, value: str) -> HubError:
    return HubError(
        f"{name} is {value!r}, which is no address of a hub.", "Write https://HOST or https://HOST:PORT, or unset it."
    )


def _split(address: str) -> SplitResult | None:
    """Parse an address; return None if it or its port is invalid."""
    try:
        parts = urlsplit(address)
        return parts if parts.port is None or parts.port > 0 else None
    except ValueError:
        return None


def _proxies(endpoint: str) -> dict[str, str | None]:
    """Return changes to the environment so that httpx2 understands the configured proxies.

    Desktops write "socks://" for SOCKS 5, beside separate proxies for http and https, which take precedence.
    """
    proxies = {scheme: value for scheme, value in getproxies().items() if scheme in ("http", "https", "all") and value}
    needed = {"https", urlsplit(endpoint).scheme}  # https, too: redirects lead there
    changes: dict[str, str | None] = {}
    for scheme, value in proxies.items():
        name = _variable(scheme)
        if scheme == "all" and needed <= proxies.keys():
            changes[name] = None
            continue
        changed = re.sub(r"^socks://", "socks5://", value, flags=re.IGNORECASE)
        _check_proxy(name, changed)
        if changed != value:
            changes[name] = changed
    return changes


def _check_proxy(name: str, value: str) -> None:
    """Refuse a proxy that httpx2 makes no client for.

    Raises:
        HubError: an invalid address, an unsupported kind, or one that needs a package that is not installed.
    """
    parts = _split(value if "://" in value else f"http://{value}")
    shown = re.sub(r"//[^/@]*@", "//", value)  # without a password
    if parts is None or not parts.hostname or re.search(r"\s", value):
        raise HubError(f"{name} is {shown!r}, which is no address of a proxy.", _PROXY_FORMS)
    if parts.scheme not in ("http", "https", "socks5", "socks5h"):
        raise HubError(f"{name} is {shown!r}, a kind of proxy that is not supported.", _PROXY_FORMS)
    if parts.scheme.startswith("socks"):
        try:
            importlib.import_module("socksio")
        except ImportError:
            raise HubError(
                f"{name} names a SOCKS proxy, which needs the package socksio.",
                'Install it with pip install "internvl-gguf[socks]", or unset the variable.',
            ) from None


def _variable(scheme: str) -> str:
    """Return the variable that a proxy comes from; a proxy without one comes from the system."""
    name = f"{scheme}_proxy"
    found = next((each for each in (name, name.upper()) if os.environ.get(each)), None)
    return found or "the proxy in the system's settings"


def _certificates() -> dict[str, str | None]:
    """Return changes to the environment so that httpx2 finds the configured certificates.

    Raises:
        HubError: there are no such certificates.
    """
    name = certificates_variable()
    if name is None:
        return {}
    path = Path(os.environ[name])
    is_folder = path.is_dir() and name != _FILE
    if not (is_folder or (path.is_file() and name != _FOLDER)):
        what = "folder" if name == _FOLDER else "file"
        raise HubError(
            f"{name} is {str(path)!r}, and there is no such {what}.", "Name one with certificates, or unset it."
        )
    if not is_folder:
        try:
            ssl.create_default_context(cafile=path)
        except OSError as error:
            fault = "holds no certificates" if isinstance(error, ssl.SSLError) else f"cannot be read: {error.strerror}"
            raise HubError(
                f"{name} is {str(path)!r}, which {fault}.", "Name a file of certificates in PEM, or unset it."
            ) from None
    return {} if name in (_FILE, _FOLDER) else {_FOLDER if is_folder else _FILE: str(path)}


@contextlib.contextmanager
def _environment(changes: Mapping[str, str | None]) -> Iterator[None]:
    """Change variables while a client is made, and restore them: the caller's own clients read them, too."""
    before = {name: os.environ.get(name) for name in changes}
    try:
        _set(changes)
        yield
    finally:
        _set(before)


def _set(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
