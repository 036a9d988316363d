"""The runtime of a model in a worker process, shared by a session and its forks."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from internvl_gguf.config import USUAL_PICTURES, EngineConfig, PictureOptions
from internvl_gguf.errors import SessionStateError
from internvl_gguf.models.local_files import ModelFiles
from internvl_gguf.session.worker.remote_engine import RemoteEngine
from internvl_gguf.session.worker.worker_client import WorkerClient
from internvl_gguf.utils.notices import Notice, log_notice
from internvl_gguf.utils.owned import Owned, disown_after_fork

if TYPE_CHECKING:
    from internvl_gguf.gguf.validation import MmprojFacts, TextModelFacts
    from internvl_gguf.hardware.cpu_tuning import HostSettings
    from internvl_gguf.planning.planner import Configuration
    from internvl_gguf.session.saved_file import ModelIdentity


class WorkerRuntime(Owned):
    """A model that is loaded in a worker process, by an `InProcessRuntime` there.

    Owns the process; the last `release` ends it, and so does dropping the runtime. If the process dies, the requests
    under way end in a `WorkerDiedError`, and `revive` starts another process: the facts about the model may differ
    then, since there may be less memory.

    Args:
        files, config, on_notice, pictures: as in `InProcessRuntime`.
        on_load: called with the fraction of the text model that is loaded, the first time only.
        timeout: seconds without a sign of life after which the process is ended if it has work; 0 waits for ever.

    Raises:
        WorkerDiedError: the process died while the model was loaded.
        As `InProcessRuntime`.
    """

    def __init__(
        self,
        files: ModelFiles,
        config: EngineConfig,
        on_load: Callable[[float], None] | None = None,
        on_notice: Notice = log_notice,
        *,
        timeout: float,
        pictures: PictureOptions = USUAL_PICTURES,
    ) -> None:
        self.files = files
        self._client = WorkerClient(files, config, timeout, on_notice, pictures)
        self._client.start(on_load or (lambda done: None))
        self._finalizer = weakref.finalize(self, self._client.kill)
        self.engine = RemoteEngine(self._client)
        self._identity: tuple[bytes, ModelIdentity] | None = None
        self._users = 1
        self._lock = threading.Lock()
        disown_after_fork(self)

    @property
    def text(self) -> TextModelFacts:
        """See `ModelRuntime.text`."""
        return self._client.facts.text

    @property
    def vision(self) -> MmprojFacts:
        """See `ModelRuntime.vision`."""
        return self._client.facts.vision

    @property
    def control_tokens(self) -> Mapping[str, int]:
        """See `ModelRuntime.control_tokens`."""
        return self._client.facts.control_tokens

    @property
    def configuration(self) -> Configuration:
        """See `ModelRuntime.configuration`."""
        return self._client.facts.configuration

    @property
    def host(self) -> HostSettings:
        """See `ModelRuntime.host`."""
        return self._client.facts.host

    @property
    def encoder_identity(self) -> bytes:
        """See `ModelRuntime.encoder_identity`; it may change with the process."""
        return self._client.facts.encoder_identity

    @property
    def identity(self) -> ModelIdentity:
        """See `ModelRuntime.identity`."""
        encoder = self.encoder_identity
        if self._identity is None or self._identity[0] != encoder:
            self._identity = encoder, self._client.call("identity")
        return self._identity[1]

    @property
    def is_alive(self) -> bool:
        """Whether the process runs, as far as is known."""
        return self._client.is_alive

    @property
    def pid(self) -> int | None:
        """Process id of the current process."""
        return self._client.pid

    def revive(self) -> None:
        """Start another process if the last one has died; a notice says so.

        Raises:
            InternVLError: the model cannot be loaded again.
        """
        self._client.revive()

    def share(self) -> WorkerRuntime:
        """Count one more user and return this runtime.

        Raises:
            SessionStateError: its last user has released it.
        """
        with self._lock:
            if not self._users:
                raise SessionStateError("The session is closed.", "Open a new one with Session.open().")
            self._users += 1
        return self

    def release(self) -> None:
        """Count one user less; the last one ends the process."""
        with self._lock:
            self._users -= 1
            last = self._users == 0
        if last:
            self._finalizer.detach()
            self._client.close()

    def disown(self) -> None:
        """See `Owned.disown`."""
        self._finalizer.detach()
        self._lock = threading.Lock()
