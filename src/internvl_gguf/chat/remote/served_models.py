"""The models of a server that a chat can change to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from internvl_gguf.chat.chat_model import FoundModel
from internvl_gguf.chat.remote.address import Address
from internvl_gguf.chat.remote.remote_model import RemoteModel
from internvl_gguf.chat.remote.server import ModelServer
from internvl_gguf.errors import ServerError
from internvl_gguf.utils.safe_text import safe_name

if TYPE_CHECKING:
    from internvl_gguf.chat.remote.server import ServedModel
    from internvl_gguf.utils.notices import Notice

_NAMED = 5


class ServedModels:
    """The models of a server, as it listed them last.

    Args:
        server: the server.
        on_notice: called with lines for the user.

    Raises:
        ServerError: it cannot be reached, or is no OpenAI-compatible server.
    """

    def __init__(self, server: ModelServer, on_notice: Notice) -> None:
        self._server = server
        self._on_notice = on_notice
        self._models: list[ServedModel] = server.models()

    @classmethod
    def of(cls, url: str, key: str | None, on_notice: Notice) -> ServedModels:
        """Return the models of the server at an address.

        Raises:
            InvalidRequestError: it is no address, or the key is none.
            ServerError: no OpenAI-compatible server is there.
        """
        address = Address.of(url, key)
        if notice := address.clear_text_notice:
            on_notice(notice)
        return cls(ModelServer(address), on_notice)

    def known(self) -> list[str]:
        """Return the names of the models as they were listed last."""
        return [model.name for model in self._models]

    def listed(self) -> list[str]:
        """Return the names of the models, asked for anew.

        Raises:
            ServerError: the server cannot be reached.
        """
        self._models = self._server.models()
        return self.known()

    def find(self, name: str) -> FoundModel:
        """Return a model by its name.

        Raises:
            ServerError: the server cannot be reached, or has no such model.
        """
        if name not in self.known():
            self.listed()
        for model in self._models:
            if model.name == name:
                return self._found(model)
        raise self._missing(name)

    def first(self, preferred: str | None = None) -> FoundModel:
        """Return the preferred model if the server has it, else its first.

        Raises:
            ServerError: it has none.
        """
        if not self._models:
            raise ServerError(f"The server at {self._server.address.url} lists no model.", "Load one there first.")
        wanted = (model for model in self._models if model.name == preferred)
        return self._found(next(wanted, self._models[0]))

    def _found(self, model: ServedModel) -> FoundModel:
        return FoundModel(model.name, lambda: RemoteModel(self._server, model, self._on_notice))

    def _missing(self, name: str) -> ServerError:
        named = ", ".join(safe_name(each) for each in self.known()[:_NAMED])
        more = len(self._models) - _NAMED
        rest = f" and {more} more" if more > 0 else ""
        return ServerError(
            f"The server at {self._server.address.url} has no model {safe_name(name)}.",
            f"It has {named}{rest}." if named else "It lists none: load one there first.",
        )
