"""Complete a partly typed model name: names of the catalogue and of cached repositories."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from internvl_gguf.errors import CatalogError
from internvl_gguf.gguf.filenames import RepoFile, sort_out
from internvl_gguf.models.catalog import Catalog, load_catalog
from internvl_gguf.models.names import DEMO


def suggest_models(prefix: str) -> list[str]:
    """Return names that begin with `prefix`, in any case: models first, their quants once a colon is typed.

    No request is made, and no file is loaded.
    """
    wanted = prefix.lower()
    names = _quants(prefix) if ":" in prefix else _names("." in prefix)
    return list(dict.fromkeys(name for name in names if name.lower().startswith(wanted)))


def _names(has_dot: bool) -> Iterator[str]:
    """Yield names of models; `InternVL3_5-8B` is `InternVL3.5-8B` to somebody who types a dot."""
    yield DEMO
    for spec in _catalog():
        if spec.repo and not spec.unsupported:
            yield spec.name.replace("_", ".") if has_dot else spec.name
    yield from cached_repos()


def _quants(prefix: str) -> Iterator[str]:
    """Yield NAME:QUANT for the files of a model that catalogue and cache know."""
    name = prefix.partition(":")[0]
    spec = _catalog().find(name)
    repo = spec.repo if spec else name
    files = [RepoFile(file.name) for file in spec.files] if spec else []
    files += [RepoFile(path) for path in _cached_files(repo or name)]
    for copy in sort_out(files).texts:
        yield f"{name}:{copy.name}"
        if copy.quant and copy.quant.dynamic:  # which is found without its prefix, too
            yield f"{name}:{copy.quant.label}"


def _catalog() -> Catalog:
    try:
        return load_catalog()
    except CatalogError:  # told when a model is opened
        return Catalog(())


def _cache_root() -> Path:
    """Return the hub's cache folder from its documented variables; importing its client would take half a second."""
    home = os.environ.get("HF_HOME") or os.path.join(  # noqa: PTH118
        os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface"
    )
    folder = os.environ.get("HF_HUB_CACHE") or os.path.join(home, "hub")  # noqa: PTH118
    return Path(os.path.expanduser(folder))  # noqa: PTH111


def cached_repos() -> list[str]:
    """Return the cached repositories with GGUF files."""
    folders = sorted(_cache_root().glob("models--*--*"))
    found = [folder.name.removeprefix("models--").replace("--", "/", 1) for folder in folders]
    return [repo for repo in found if sort_out(RepoFile(path) for path in _cached_files(repo)).texts]


def _cached_files(repo: str) -> list[str]:
    folder = _cache_root() / f"models--{repo.replace('/', '--')}" / "snapshots"
    return sorted({path.relative_to(folder).as_posix().partition("/")[2] for path in folder.glob("*/**/*.gguf")})
