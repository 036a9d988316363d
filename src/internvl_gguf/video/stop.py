"""A way to end the decoding of clips from another thread."""

from __future__ import annotations

import subprocess
import threading


class ClipStop:
    """Ends the processes that decode clips for somebody who has left. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_set = False
        self._process: subprocess.Popen[bytes] | None = None

    def set(self) -> None:
        """End the process of the clip that is open now, and those of clips that are opened later.

        Who waits for a frame gets a `VideoError`. Setting it twice, or when all is done, is harmless.
        """
        with self._lock:
            self._is_set = True
            if self._process is not None:
                self._process.kill()

    def watch(self, process: subprocess.Popen[bytes]) -> None:
        """Take the process of the clip that is opened now; the one before it has ended."""
        with self._lock:
            self._process = process
            if self._is_set:
                process.kill()
