"""The only user of huggingface_hub: listings, headers by ranged reads, verified downloads that can be resumed.

Files are kept in the hub's own cache, in its layout, so that other programs find ours and we find theirs. The hub's
client is used for everything but the transfer itself: it restarts a file in each process and does not verify content.
"""

from internvl_gguf.models.hub.network import variable_error

try:
    from internvl_gguf.models.hub.cache import CachedRepo, HubCache
    from internvl_gguf.models.hub.download import download
    from internvl_gguf.models.hub.hub_client import HubClient, RepoListing, is_offline
    from internvl_gguf.models.hub.remote_file import RemoteFile
except ValueError as error:  # of huggingface_hub, which reads its variables when it is imported
    raise variable_error(error) from error

__all__ = ["CachedRepo", "HubCache", "HubClient", "RemoteFile", "RepoListing", "download", "is_offline"]
