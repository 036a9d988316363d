"""Resolve what a user types to exact files: the quant, its mmproj, and where both are."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from internvl_gguf.hardware.encoder_precision import most_faithful_precision, preferred_precision
from internvl_gguf.models.catalog import load_catalog
from internvl_gguf.models.local_files import ModelFiles, demo_files, local_choices, local_files
from internvl_gguf.models.names import DEMO, LocalModel, parse_model_name
from internvl_gguf.planning.auto_quant import machine_chooser
from internvl_gguf.utils import arguments

if TYPE_CHECKING:
    from internvl_gguf.gguf.filenames import DownloadProgress
    from internvl_gguf.models.hub_resolver import HubResolver
    from internvl_gguf.planning.choice import Chooser

__all__ = ["DEMO", "ModelFiles", "check_model", "resolve_model"]


def check_model(name: str) -> None:
    """Check that a name means a model, as far as this machine knows: the hub is not asked, and nothing is measured.

    Args:
        name: as in `resolve_model`.

    Raises:
        ModelFileError, ModelPairError: no such model, quant or mmproj.
    """
    parsed = parse_model_name(name, load_catalog())
    if not isinstance(parsed, LocalModel):
        from internvl_gguf.models.hub_resolver import HubResolver

        HubResolver().hub_model(name)
    elif not parsed.is_demo:
        local_choices(name, parsed, most_faithful_precision)


def resolve_model(
    model: str | os.PathLike[str],
    mmproj: str | os.PathLike[str] | None = None,
    *,
    chooser: Chooser | None = None,
    resolver: HubResolver | None = None,
    on_progress: DownloadProgress = lambda file, done: None,
    on_wait: Callable[[str], None] = lambda line: None,
) -> ModelFiles:
    """Return the files of a model on this machine, downloaded first if necessary.

    Args:
        model: `demo`, a path of a GGUF or of a folder, a name of the catalogue, or owner/repo; see `models.names`.
        mmproj: a file, or a precision ("BF16") that the model's repository or folder has.
        chooser: chooses a quant if the user named none; None takes what fits this machine.
        resolver: finds and downloads hub models; it has a chooser of its own.
        on_progress: called with each file and its downloaded bytes.
        on_wait: called with one line when something is waited for.

    Raises:
        ModelFileError, ModelPairError: no such model, quant or mmproj; files that do not belong together.
        InsufficientMemoryError: no quant was named, and none fits this machine.
        HubError: the hub refuses, cannot be reached, or sent other content than announced; the disk is full.
    """
    name = arguments.path("model", model, f"Give a name, such as {DEMO!r}, or the path of a .gguf file.")
    if mmproj is not None:
        mmproj = arguments.path("mmproj", mmproj, 'Give the path of a .gguf file, or a precision, such as "BF16".')
    parsed = parse_model_name(name, load_catalog())
    if isinstance(parsed, LocalModel) and parsed.is_demo and mmproj is None:
        return demo_files()
    if isinstance(parsed, LocalModel):
        prefer = partial(preferred_precision, on_progress=on_wait)
        return local_files(name, parsed, mmproj, prefer, chooser)
    # The hub's client takes half a second to import; files of this machine do without.
    from internvl_gguf.models.hub import HubClient
    from internvl_gguf.models.hub_resolver import HubResolver

    resolver = resolver or HubResolver(HubClient(on_wait=on_wait), chooser=chooser or machine_chooser())
    found = resolver.cached(name, mmproj)
    if found:
        return found
    selection = resolver.select(name, mmproj)
    resolver.check(selection)
    return resolver.fetch(selection, on_progress, on_wait)
