"""The options of `internvl serve`, beside those that every command has that asks a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from internvl_gguf.config import MAX_SEQUENCES
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.utils.options import at_least, between, check_options, option


@dataclass(frozen=True)
class ListenOptions:
    """Where the server listens, and to whom. Each field says what it does.

    Raises:
        InvalidRequestError: a value of another kind or outside its range, or one of two that belong together.
    """

    PANEL: ClassVar = "Who may ask"

    host: str = option(
        "127.0.0.1", "Listen on this address. Others than this machine's own need a key.", metavar="ADDRESS"
    )
    port: int = option(
        8080, "Port; 0 takes a free one.", "--port", "-p", allows=between(0, 65535), hint="Use 0 to 65535."
    )
    api_key: tuple[str, ...] = option(
        (),
        "Answer only requests that bring this key; may be repeated. Other users of the machine can see a key on the "
        "command line: better set INTERNVL_API_KEY.",
        metavar="KEY",
        variable="INTERNVL_API_KEY",
    )
    api_key_file: str | None = option(None, "Read keys from a file, one a line.", metavar="FILE")
    allowed_host: tuple[str, ...] = option(
        (),
        "A further name that the server may be called by, as a proxy before it passes on; may be repeated.",
        metavar="NAME",
    )
    cors_origin: tuple[str, ...] = option(
        (),
        "Let pages of this origin ask, such as https://chat.example.org; may be repeated.",
        metavar="ORIGIN",
        allows=lambda origins: all(map(is_origin, origins)),
        hint="Write the scheme, the name and the port of each: https://chat.example.org.",
    )
    tls_cert: str | None = option(None, "Certificate for HTTPS.", metavar="FILE")
    tls_key: str | None = option(None, "Private key of --tls-cert.", metavar="FILE")

    def __post_init__(self) -> None:
        check_options(self)
        if (self.tls_cert is None) != (self.tls_key is None):
            raise InvalidRequestError("A certificate needs its key, and a key its certificate.", "Give both or none.")


@dataclass(frozen=True)
class TakenOptions:
    """What the server takes of a request. Each field says what it does."""

    PANEL: ClassVar = "What is taken"

    allow_remote_images: bool = option(
        False,
        "Fetch pictures and clips whose address a request names, from public addresses only.",
        "--allow-remote-images",
    )
    media_root: str | None = option(None, "Let requests name files in this folder by file://.", metavar="FOLDER")
    max_body: int = option(64, "Most MiB of a request.", allows=between(1, 4096), hint="Use 1 to 4096.", metavar="MIB")
    max_pictures: int = option(
        64, "Most pictures of a request.", allows=between(1, 4096), hint="Use 1 to 4096.", metavar="N"
    )
    max_clip: int = option(
        64, "Most MiB of a clip's file.", allows=between(1, 2048), hint="Use 1 to 2048.", metavar="MIB"
    )

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True)
class ModelOptions:
    """How the server keeps and asks its models. Each field says what it does.

    Raises:
        InvalidRequestError: a value of another kind or outside its range, or fewer conversations than answers at once.
    """

    PANEL: ClassVar = "The models"

    parallel: int | None = option(
        None,
        "Requests answered at once by a model, each with a KV cache; the others wait in turn.",
        otherwise="as `internvl doctor --measure` found best, or 1",
        allows=between(1, MAX_SEQUENCES - 1),
        hint=f"Use 1 to {MAX_SEQUENCES - 1}.",
        metavar="N",
    )
    conversations: int | None = option(
        None,
        "Conversations whose KV cache is kept.",
        otherwise="one more than --parallel where there is memory",
        allows=between(1, MAX_SEQUENCES),
        hint=f"Use 1 to {MAX_SEQUENCES}.",
        metavar="N",
    )
    queue: int = option(
        64, "Requests that may wait for a model.", allows=at_least(0), hint="Use 0 or more.", metavar="N"
    )
    idle_unload: float | None = option(
        None,
        "Unload a model that was not asked for so long; the next request loads it again.",
        allows=at_least(0),
        hint="Give minutes, 0 or more.",
        metavar="MINUTES",
    )
    alias: tuple[str, ...] = option(
        (),
        "A further name of the first model, for programs that ask for a fixed one; may be repeated.",
        metavar="NAME",
    )
    grace: float = option(
        30.0,
        "What requests under way have to finish when the server is stopped.",
        allows=at_least(0),
        hint="Give seconds, 0 or more.",
        metavar="SECONDS",
    )

    def __post_init__(self) -> None:
        check_options(self)
        if self.parallel and self.conversations and self.conversations < self.parallel:
            raise InvalidRequestError(
                f"--conversations {self.conversations} is less than --parallel {self.parallel}.",
                "Each answer needs a KV cache.",
            )

    def answers_at_once(self, measured: int) -> int:
        """Return how many requests are answered at once, if so many were measured to be best."""
        return self.parallel or min(measured, self.conversations or measured)


def is_origin(text: str) -> bool:
    """Return whether a text is an origin, as browsers write one: a scheme, a name and perhaps a port."""
    scheme, separator, rest = text.rstrip("/").partition("://")
    return bool(separator and rest) and scheme in ("http", "https") and "/" not in rest and "*" not in rest
