"""Network settings of the environment: proxies and certificates; errors name the wrong variable.

HTTP clients read these variables when they are made, and raise many kinds of errors for an invalid value. So the
variables are checked here first.
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

_FILE, _FOLDER = "SSL_CERT_FILE", "SSL_CERT_DIR"
_CERTIFICATES: Final = (_FILE, _FOLDER, "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Variables for certificates, the first one that is set counts; httpx2 knows the first two only."""
_PROXY_FORMS: Final = "Write it as http://HOST:PORT or socks5://HOST:PORT, or unset it."
_client_lock = threading.Lock()


@contextlib.contextmanager
def checked_environment(address: str) -> Iterator[None]:
    """Make the environment one that httpx2 understands while a client for an address is made; one thread at a time.

    Raises:
        HubError: a proxy or certificate cannot be used; it names the variable.
    """
    with _client_lock, _environment({**_proxies(address), **_certificates()}):
        yield


def new_client(address: str, **arguments: Any) -> httpx2.Client:
    """Return a client for an address that is no hub, made with the configured proxies and certificates.

    Args:
        address: where it leads.
        **arguments: of `httpx2.Client`.

    Raises:
        HubError: a proxy or certificate cannot be used; it names the variable.
    """
    import httpx2

    with checked_environment(address):
        return httpx2.Client(**arguments)


def proxy_of(url: httpx2.URL) -> str | None:
    """Return the variable of the proxy that an address is reached through; None without a proxy."""
    proxies = getproxies()
    scheme = next((each for each in (url.scheme, "all") if proxies.get(each)), None)
    return None if scheme is None or proxy_bypass(url.host) else _variable(scheme)


def certificates_variable() -> str | None:
    """Return the variable that names the trusted certificates; None if the system's are used."""
    return next((name for name in _CERTIFICATES if os.environ.get(name)), None)


def split_address(address: str) -> SplitResult | None:
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
    parts = split_address(value if "://" in value else f"http://{value}")
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
