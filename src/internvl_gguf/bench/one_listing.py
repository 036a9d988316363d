"""A client of the hub that asks for each listing once: all quants of a benchmark are of one state of a repository."""

from __future__ import annotations

from collections.abc import Callable

from internvl_gguf.models.hub import HubClient, RepoListing


class RememberingClient(HubClient):
    """As `HubClient`; a listing that it gave it gives again."""

    def __init__(self, on_wait: Callable[[str], None]) -> None:
        super().__init__(on_wait=on_wait)
        self._listings: dict[tuple[str, str | None], RepoListing] = {}

    def listing(self, repo: str, revision: str | None) -> RepoListing:
        """As `HubClient.listing`."""
        key = (repo, revision)
        if key not in self._listings:
            self._listings[key] = super().listing(repo, revision)
        return self._listings[key]
