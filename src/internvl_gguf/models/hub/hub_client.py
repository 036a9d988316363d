"""Requests to the hub, with retries: listings of repositories, and bytes of their files."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import httpx2
from huggingface_hub import HfApi, constants, hf_hub_url
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

from internvl_gguf._version import __version__
from internvl_gguf.errors import HubError
from internvl_gguf.gguf.filenames import RepoFile, is_safe_path
from internvl_gguf.models.hub.faults import TRANSIENT_STATUSES, permanent_fault, transient_fault, unusable_token
from internvl_gguf.models.hub.network import configured_client

_LIBRARY = "internvl-gguf"
_TRIES = 6
_LONGEST_WAIT = 60.0  # seconds, also for a longer Retry-After
_RESULT = TypeVar("_RESULT")

ONLINE_HINT = (
    "Check the network (and HF_ENDPOINT) and run it again; a download goes on where it stopped. "
    "`internvl list` shows what is here."
)


@dataclass(frozen=True)
class RepoListing:
    """The files of a repository at one commit.

    Attributes:
        repo: owner/name as the hub spells it.
        commit: 40 hexadecimal digits; every later request asks for exactly this state.
        files: its files with sizes and digests. Paths that would leave their folder are left out.
    """

    repo: str
    commit: str
    files: tuple[RepoFile, ...]


class HubClient:
    """Client of the hub, or of the mirror that HF_ENDPOINT names.

    Args:
        endpoint: address of the hub; HF_ENDPOINT or the public one if None.
        token: a token, or False for none; None takes the one that huggingface_hub finds (HF_TOKEN, `hf auth login`).
        on_wait: called with the reason in one line before the wait for a retry; may be changed later.
        sleep: waits for a number of seconds.
        keeps_listings: whether a listing that it gave is given again, so that all files are of one state of a
            repository.

    Attributes:
        tries: most attempts of a failing request.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        token: str | bool | None = None,
        on_wait: Callable[[str], None] = lambda line: None,
        sleep: Callable[[float], None] = time.sleep,
        *,
        keeps_listings: bool = False,
    ) -> None:
        self.endpoint = (endpoint or constants.ENDPOINT or constants.HUGGINGFACE_CO_URL_HOME).rstrip("/")
        self._token = token
        self.on_wait = on_wait
        self._sleep = sleep
        self.tries = _TRIES
        self._listings: dict[tuple[str, str | None], RepoListing] | None = {} if keeps_listings else None

    def listing(self, repo: str, revision: str | None) -> RepoListing:
        """Return the files of a repository.

        Args:
            repo: owner/name.
            revision: a branch, tag or commit; the main branch if None.

        Raises:
            HubError: offline, unreachable, no such repository or revision, or no right to see it.
        """
        if self._listings is None:
            return self._requested_listing(repo, revision)
        if (repo, revision) not in self._listings:
            self._listings[repo, revision] = self._requested_listing(repo, revision)
        return self._listings[repo, revision]

    def _requested_listing(self, repo: str, revision: str | None) -> RepoListing:
        api = HfApi(endpoint=self.endpoint, token=self._token, library_name=_LIBRARY, library_version=__version__)
        configured_client(self.endpoint)  # HfApi uses the same session
        with _translate_errors(repo, revision), _translate_bad_answers(repo):
            info = self.with_retries(
                lambda: api.model_info(
                    repo, revision=revision, files_metadata=True, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT
                )
            )
        files = tuple(
            RepoFile(file.rfilename, file.lfs.size, file.lfs.sha256)
            if file.lfs
            else RepoFile(file.rfilename, file.size, file.blob_id)
            for file in info.siblings or ()
            if is_safe_path(file.rfilename)
        )
        if not info.sha:
            raise HubError(f"The hub names no commit of {repo}.", "Check HF_ENDPOINT: the mirror may be incomplete.")
        return RepoListing(info.id or repo, info.sha, files)

    @contextlib.contextmanager
    def open(
        self, listing: RepoListing, file: RepoFile, start: int, end: int | None = None
    ) -> Iterator[httpx2.Response]:
        """Request the bytes of a file from `start` up to `end`; a server may answer with the whole file.

        Raises:
            HubError: a permanent refusal.
            HfHubHTTPError, httpx2.HTTPError: a transient fault.
        """
        headers = build_hf_headers(token=self._token, library_name=_LIBRARY, library_version=__version__)
        headers["Accept-Encoding"] = "identity"  # a compressed answer has no ranges and other lengths
        if start or end is not None:
            headers["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
        url = hf_hub_url(listing.repo, file.path, revision=listing.commit, endpoint=self.endpoint)
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        with (
            _translate_errors(listing.repo, listing.commit, file.path),
            configured_client(self.endpoint).stream("GET", url, headers=headers, timeout=timeout) as response,
        ):
            if response.is_error:
                response.read()
            hf_raise_for_status(response)
            yield response

    def with_retries(self, request: Callable[[], _RESULT]) -> _RESULT:
        """Return the result of `request`, which is retried after transient faults.

        Raises:
            HubError: the fault is permanent, or was still there after all retries.
        """
        retries = RetryPolicy(self.on_wait, self._sleep, self.tries)
        while True:
            try:
                return request()
            except (httpx2.HTTPError, HfHubHTTPError) as error:
                retries.wait(error)

    def retry_policy(self) -> RetryPolicy:
        """Return a new retry policy, for a transfer that decides itself when it made progress."""
        return RetryPolicy(self.on_wait, self._sleep, self.tries)


class RetryPolicy:
    """Retries with exponential backoff; a Retry-After of the hub is respected.

    Args:
        on_wait: called with the reason in one line before each wait.
        sleep: waits for a number of seconds.
        tries: number of failures in a row after which it gives up.
    """

    def __init__(self, on_wait: Callable[[str], None], sleep: Callable[[float], None], tries: int = _TRIES) -> None:
        self._on_wait = on_wait
        self._sleep = sleep
        self._tries = tries
        self._failures = 0

    def reset(self) -> None:
        """Forget earlier failures, after progress."""
        self._failures = 0

    def wait(self, error: Exception) -> None:
        """Wait before the next try.

        Raises:
            HubError: the fault is permanent, or there were too many.
        """
        lasting = permanent_fault(error)
        if lasting is not None:
            raise lasting from error
        if isinstance(error, HfHubHTTPError) and error.response.status_code not in TRANSIENT_STATUSES:
            raise error
        reason, asked = transient_fault(error)
        # A refused connection counts double: waiting seldom helps, and the user is waiting, too.
        self._failures += 2 if isinstance(error, httpx2.ConnectError) else 1
        if self._failures >= self._tries:
            often = ", several times in a row" if self._tries > 1 else ""
            raise HubError(f"{reason}{often}.", ONLINE_HINT) from error
        seconds = min(_LONGEST_WAIT, 2 ** (self._failures - 1) * random.uniform(0.5, 1.0) if asked is None else asked)
        self._on_wait(f"{reason}; trying again in {seconds:.0f} s.")
        self._sleep(seconds)


def is_offline() -> bool:
    """Return whether HF_HUB_OFFLINE forbids requests to the hub."""
    return bool(constants.HF_HUB_OFFLINE)


@contextlib.contextmanager
def _translate_bad_answers(repo: str) -> Iterator[None]:
    """Translate errors of the hub's client about an answer that is no listing into a HubError."""
    try:
        yield
    except (HFValidationError, UnicodeEncodeError):  # errors of the request, not of the answer
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise HubError(
            f"What answers for {repo} is no hub.",
            "Check HF_ENDPOINT, and whether the network wants you to log in first.",
        ) from error


@contextlib.contextmanager
def _translate_errors(repo: str, revision: str | None, path: str | None = None) -> Iterator[None]:
    """Translate permanent errors of the hub's client into a HubError."""
    what = f"{path} of {repo}" if path else repo
    try:
        yield
    except UnicodeEncodeError:
        raise unusable_token() from None
    except OfflineModeIsEnabled as error:
        raise HubError(
            f"{what} is not in the cache, and HF_HUB_OFFLINE forbids to fetch it.",
            "Unset HF_HUB_OFFLINE, or pull it on a machine with a network.",
        ) from error
    except GatedRepoError as error:
        raise HubError(
            f"{repo} is gated: its owner must let you in.",
            "Accept its terms on its page, then log in with `hf auth login` or set HF_TOKEN.",
        ) from error
    except RevisionNotFoundError as error:
        raise HubError(
            f"{repo} has no revision {revision}; it may have moved.", "Run it again, or name a revision with @REVISION."
        ) from error
    except RepositoryNotFoundError as error:
        raise HubError(
            f"There is no repository {repo}, or it is private.",
            "Check the spelling; for a private one log in with `hf auth login` or set HF_TOKEN.",
        ) from error
    except EntryNotFoundError as error:
        raise HubError(f"{what} is listed but not there.", "Run it again; the repository may be changing.") from error
    except HFValidationError as error:
        raise HubError(f"{repo!r} is no name of a repository.", "Write owner/name.") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in TRANSIENT_STATUSES:
            raise
        if status == httpx2.codes.RANGE_NOT_SATISFIABLE:
            raise HubError(
                f"{what} is shorter than the hub lists it.", "Run it again; the repository may be changing."
            ) from error
        hint = {
            401: "Log in with `hf auth login` or set HF_TOKEN.",
            403: "Ask its owner for access, then log in with `hf auth login` or set HF_TOKEN.",
        }.get(status, "Check HF_ENDPOINT, and the repository's page in a browser.")
        raise HubError(f"The hub refused {what} with status {status}.", hint) from error
