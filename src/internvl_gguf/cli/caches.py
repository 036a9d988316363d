"""`internvl cache`: show and clear the files that are kept so that nothing is computed twice."""

from __future__ import annotations

from typing import Annotated

import typer

from internvl_gguf.cli import options
from internvl_gguf.cli.cache_contents import cache_contents, clear_caches
from internvl_gguf.cli.help_page import PlainCommand, PlainGroup
from internvl_gguf.cli.output import confirm, print_json, print_table, say
from internvl_gguf.utils.paths import cache_dir
from internvl_gguf.utils.records import EMBEDDINGS, Record
from internvl_gguf.utils.sizes import format_size

app = typer.Typer(cls=PlainGroup, add_completion=False)


@app.callback(invoke_without_command=True)
def show(context: typer.Context, json_output: options.JSONOption = False) -> None:
    """Show what is kept on disk so that nothing is computed twice; models are not part of it (`internvl list`)."""
    if context.invoked_subcommand:
        return
    contents = cache_contents()
    if json_output:
        caches = [
            {
                "name": cache.name,
                "folder": str(cache.folder),
                "entries": cache.entries,
                "bytes": cache.n_bytes,
                "max_bytes": cache.max_bytes,
                **({"records": [_shown(record) for record in cache.records]} if cache.records else {}),
            }
            for cache in contents
        ]
        print_json({"folder": str(cache_dir()), "caches": caches})
        return
    print_table(
        ("CACHE", "FILES", "SIZE", "AT MOST", "HOLDS"),
        [
            (
                cache.name,
                f"{cache.entries:,}",
                format_size(cache.n_bytes),
                format_size(cache.max_bytes) if cache.max_bytes is not None else "",
                cache.what,
            )
            for cache in contents
        ],
        least_first=("AT MOST", "FILES"),
    )
    say(f"{format_size(sum(cache.n_bytes for cache in contents))} in {cache_dir()}")


def _shown(record: Record) -> dict[str, str]:
    return {"name": record.name, "purpose": record.purpose}


@app.command(cls=PlainCommand)
def clear(
    everything: Annotated[
        bool, typer.Option("--all/--embeddings", help="Everything, or only what was seen of pictures.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json_output: options.JSONOption = False,
) -> None:
    """Remove what is kept; it is made again when it is needed. Models stay (`internvl rm`)."""
    doomed = [cache for cache in cache_contents() if everything or cache.name == EMBEDDINGS.name]
    size = sum(cache.n_bytes for cache in doomed)
    if size and not yes:
        names = ", ".join(cache.name for cache in doomed)
        confirm(f"Remove {names} ({format_size(size)}) from {cache_dir()}?")
    freed = clear_caches(everything=everything)
    if json_output:
        print_json({"folder": str(cache_dir()), "cleared": [cache.name for cache in doomed], "bytes": freed})
    else:
        say(f"Removed; {format_size(freed)} are free again.")
