"""A model in a process of its own, as sessions share it."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from internvl_gguf.config import EngineConfig
from internvl_gguf.errors import SessionStateError
from internvl_gguf.models.local_files import ModelFiles
from internvl_gguf.session.worker.client import Client
from internvl_gguf.session.worker.engine import FarEngine
from internvl_gguf.utils.notices import Notice, log_notice
from internvl_gguf.utils.owned import Owned, forsake_in_children

if TYPE_CHECKING:
    from internvl_gguf.gguf.validation import MmprojFacts, TextModelFacts
    from internvl_gguf.hardware.cpu_tuning import HostSettings
    from internvl_gguf.planning.planner import Configuration
    from internvl_gguf.session.saved_file import ModelIdentity


class WorkerRuntime(Owned):
    """A model that is loaded in another process; the counterpart of `session.runtime.Runtime`, which runs there.

    Owns the process; the last `release` ends it, and so does dropping the runtime. Where the process dies, what was
    under way ends in a `WorkerDiedError`, and `revive` starts another: its facts may be others then, since there may
    be less memory.

    Args:
        files, config, on_notice: as `session.runtime.Runtime`.
        on_load: told how far the text model is loaded, the first time.
        timeout: seconds without a sign of life after which the process is ended if it has work; 0 waits for ever.

    Raises:
        WorkerDiedError: the process died while the model was loaded.
        As `session.runtime.Runtime`.
    """

    def __init__(
        self,
        files: ModelFiles,
        config: EngineConfig,
        on_load: Callable[[float], None] | None = None,
        on_notice: Notice = log_notice,
        *,
        timeout: float,
    ) -> None:
        self.files = files
        self._client = Client(files, config, timeout, on_notice)
        self._client.start(on_load or (lambda done: None))
        self._finalizer = weakref.finalize(self, self._client.kill)
        self.engine = FarEngine(self._client)
        self._identity: tuple[bytes, ModelIdentity] | None = None
        self._users = 1
        self._lock = threading.Lock()
        forsake_in_children(self)

    @property
    def text(self) -> TextModelFacts:
        """As `session.runtime.Runtime.text`."""
        return self._client.facts.text

    @property
    def vision(self) -> MmprojFacts:
        """As `session.runtime.Runtime.vision`."""
        return self._client.facts.vision

    @property
    def control_tokens(self) -> Mapping[str, int]:
        """As `session.runtime.Runtime.control_tokens`."""
        return self._client.facts.control_tokens

    @property
    def configuration(self) -> Configuration:
        """As `session.runtime.Runtime.configuration`."""
        return self._client.facts.configuration

    @property
    def host(self) -> HostSettings:
        """As `session.runtime.Runtime.host`."""
        return self._client.facts.host

    @property
    def encoder_identity(self) -> bytes:
        """As `session.runtime.Runtime.encoder_identity`; another process may have another."""
        return self._client.facts.encoder_identity

    @property
    def identity(self) -> ModelIdentity:
        """As `session.runtime.Runtime.identity`."""
        encoder = self.encoder_identity
        if self._identity is None or self._identity[0] != encoder:
            self._identity = encoder, self._client.call("identity")
        return self._identity[1]

    @property
    def is_alive(self) -> bool:
        """Whether the process is there, as far as is known."""
        return self._client.is_alive

    @property
    def pid(self) -> int | None:
        """Number of the newest process."""
        return self._client.pid

    def revive(self) -> None:
        """Start the process again if it has died; a notice says so.

        Raises:
            InternVLError: the model cannot be loaded again.
        """
        self._client.revive()

    def share(self) -> WorkerRuntime:
        """One more user of this runtime.

        Raises:
            SessionStateError: its last user has released it.
        """
        with self._lock:
            if not self._users:
                raise SessionStateError("The session is closed.", "Open a new one with Session.open().")
            self._users += 1
        return self

    def release(self) -> None:
        """One user less; the last one ends the process."""
        with self._lock:
            self._users -= 1
            last = self._users == 0
        if last:
            self._finalizer.detach()
            self._client.close()

    def forsake(self) -> None:
        """As `Owned.forsake`."""
        self._finalizer.detach()
        self._lock = threading.Lock()
