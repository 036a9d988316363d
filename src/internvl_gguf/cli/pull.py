"""`internvl pull`: fetch a model's files into the cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from internvl_gguf.cli import options
from internvl_gguf.cli.downloads import download_bars
from internvl_gguf.cli.output import print_json, print_lines, say
from internvl_gguf.models.names import DEMO
from internvl_gguf.utils.sizes import format_size

if TYPE_CHECKING:
    from internvl_gguf.models.hub_resolver import HubResolver, Selection
    from internvl_gguf.models.local_files import ModelFiles


def pull(
    model: Annotated[str, typer.Argument(help="A catalogue's name or owner/repo, with :QUANT if you like.")],
    mmproj: options.MmprojOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would be fetched, fetch nothing.")] = False,
    json_output: options.JSONOption = False,
) -> None:
    """Fetch a model: the text model and the vision encoder that goes with it, verified.

    An interrupted pull goes on where it stopped; what is here is not fetched again.
    """
    if model.lower() == DEMO:
        say("The demo model is a part of this package: nothing to fetch.")
        return
    from internvl_gguf.models.hub import HubClient, is_offline
    from internvl_gguf.models.hub_resolver import HubResolver

    resolver = HubResolver(HubClient(on_wait=say))
    if is_offline() and (here := resolver.cached(model, mmproj)):
        say("Offline, and everything is here already.")
        if json_output:
            print_json({"model": model, "text": str(here.text), "mmproj": str(here.mmproj), "files": []})
        return
    selection = resolver.select(model, mmproj)
    for reason in selection.reasons:
        say(reason)
    plan = _plan(resolver, selection)
    if dry_run:
        if json_output:
            print_json({"model": model, **plan})
        else:
            _print_plan(plan)
        return
    files = _fetch(resolver, selection)
    if json_output:
        print_json({"model": model, "text": str(files.text), "mmproj": str(files.mmproj), **plan})
    else:
        state = "is here" if plan["bytes_to_fetch"] else "was here already"
        say(f"{model} {state}: {format_size(plan['bytes'])} in {len(plan['files'])} files.")


def _fetch(resolver: HubResolver, selection: Selection) -> ModelFiles:
    resolver.check(selection)
    with download_bars() as bars:
        resolver.client.on_wait = bars.say
        return resolver.fetch(selection, bars.progress, bars.say)


def _plan(resolver: HubResolver, selection: Selection) -> dict[str, Any]:
    rests = {file.path: rest for file, rest in resolver.missing(selection)}
    files = [
        {"path": file.path, "bytes": file.size or 0, "bytes_to_fetch": rests.get(file.path, 0)}
        for file in selection.files
    ]
    return {
        "repo": selection.listing.repo,
        "commit": selection.listing.commit,
        "files": files,
        "bytes": sum(file.size or 0 for file in selection.files),
        "bytes_to_fetch": sum(rests.values()),
    }


def _print_plan(plan: dict[str, Any]) -> None:
    print_lines(f"{plan['repo']} at {plan['commit'][:12]}", hang=4)
    for file in plan["files"]:
        size, rest = file["bytes"], file["bytes_to_fetch"]
        state = "here already" if not rest else "to fetch" if rest == size else f"{format_size(rest)} still to fetch"
        print_lines(f"  {file['path']}  {format_size(size)}, {state}", hang=4)
    print_lines(f"{format_size(plan['bytes_to_fetch'])} to fetch of {format_size(plan['bytes'])}.")
