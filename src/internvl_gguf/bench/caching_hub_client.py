"""A hub client that fetches each listing once, so that all quants of a benchmark come from one repository state."""

from __future__ import annotations

from collections.abc import Callable

from internvl_gguf.models.hub import HubClient, RepoListing


class CachingHubClient(HubClient):
    """A `HubClient` that remembers the listings it has fetched."""

    def __init__(self, on_wait: Callable[[str], None]) -> None:
        super().__init__(on_wait=on_wait)
        self._listings: dict[tuple[str, str | None], RepoListing] = {}

    def listing(self, repo: str, revision: str | None) -> RepoListing:
        """Return a listing; see `HubClient.listing`."""
        key = (repo, revision)
        if key not in self._listings:
            self._listings[key] = super().listing(repo, revision)
        return self._listings[key]
