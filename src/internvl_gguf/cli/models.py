"""`internvl list`, `show` and `rm`: list the local models, describe them and remove them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from internvl_gguf.cli import options
from internvl_gguf.cli.output import confirm, print_json, print_lines, print_table, say
from internvl_gguf.errors import InternVLError, ModelFileError
from internvl_gguf.gguf.filenames import ModelCopy, find_copy, sort_out
from internvl_gguf.models.catalog import Catalog, load_catalog
from internvl_gguf.models.model_spec import ModelSpec
from internvl_gguf.models.names import HubModel, parse_model_name
from internvl_gguf.models.published_scores import BENCHMARKS, PublishedScores
from internvl_gguf.utils.sizes import format_size

if TYPE_CHECKING:
    from internvl_gguf.gguf.arch.base import TextShape
    from internvl_gguf.gguf.header import GGUFHeader
    from internvl_gguf.gguf.report import TensorStatistics, TextReport, VisionReport
    from internvl_gguf.models.hub import CachedRepo, HubCache

_LABEL = 14  # columns before the name of a file
_STATUS: Final = {"listed": "checked", "documented": "checked", "named": "not checked"}
"""Words for each status of the catalogue's repositories."""
_OTHERS: Final = "Others"
_RELEASE: Final = re.compile(r"^InternVL\d(?:[._]\d)?-")


def list_models(
    catalog: Annotated[bool, typer.Option("--catalog", help="The models known by name instead of those here.")] = False,
    json_output: options.JSONOption = False,
) -> None:
    """List the models that are on this machine, with what their headers say."""
    known = load_catalog()
    if catalog:
        _list_catalog(known, json_output)
        return
    from internvl_gguf.models.hub import HubCache

    cache = HubCache()
    rows = [row for repo in cache.repos() for row in _cached_rows(cache, repo, known)]
    if json_output:
        print_json(rows)
    elif rows:
        print_table(
            ("MODEL", "SIZE", "BITS/WEIGHT", "CONTEXT", "ARCHITECTURE"),
            [
                (
                    row["model"], format_size(row["bytes"]),
                    f"{row['bits_per_weight']:.2f}" if "bits_per_weight" in row else "",
                    f"{row['context']:,}" if "context" in row else "", row.get("architecture", row["note"]),
                )
                for row in rows
            ],
            least_first=("BITS/WEIGHT", "CONTEXT"),
        )  # fmt: skip
        say(f"{format_size(sum(row['bytes'] for row in rows))} in {cache.root}")
    else:
        say(f"No models in {cache.root}; `demo` is in the package.")
        say("`internvl list --catalog` shows what there is, `internvl pull MODEL` fetches one.")


def show(
    model: Annotated[str, typer.Argument(help="A catalogue's name, owner/repo, a path or `demo`; with :QUANT.")],
    mmproj: options.MmprojOption = None,
    json_output: options.JSONOption = False,
) -> None:
    """Show what a model is, from the headers of its files; a few MB are fetched of those that are not here."""
    from internvl_gguf.cli.headers import model_headers
    from internvl_gguf.gguf.report import report_text, report_vision

    found = model_headers(model, mmproj)
    for reason in found.reasons:
        say(reason)
    text, contents, published = report_text(found.text), found.contents, _published(model)
    vision = report_vision(found.mmproj) if found.mmproj else None
    if json_output:
        mmproj_file = found.mmproj.label if found.mmproj else None
        files = {"text": [header.label for header in found.text], "mmproj": mmproj_file}
        copies = {"quants": _copies(contents.texts), "mmprojs": _copies(contents.mmprojs)} if contents else {}
        print_json(
            {
                "model": model,
                "files": files,
                "text": text.as_json(),
                "vision": vision and vision.as_json(),
                "published": published and {"of": published[0], "source": published[1].source, **published[1].figures},
                **copies,
            }
        )
        return
    _print_text(found.text, text)
    if found.mmproj and vision:
        _print_vision(found.mmproj, vision)
    else:
        print_lines(f"{'mmproj':<{_LABEL}}none beside it: name one with --mmproj")
    if published:
        of, scores = published
        figures = ", ".join(f"{BENCHMARKS[key].title} {marks:g}" for key, marks in scores.figures.items())
        print_lines(f"{'published':<{_LABEL}}{figures}", hang=_LABEL)
        print_lines(f"  of {of} in BF16, with other tile limits and prompts: {scores.source}")
    if contents:
        _print_copies("quants", contents.texts)
        _print_copies("mmproj files", contents.mmprojs)


def _published(model: str) -> tuple[str, PublishedScores] | None:
    """Return the published scores of a model of the catalogue and the name of the one that was measured."""
    catalog = load_catalog()
    named = parse_model_name(model, catalog)
    return catalog.scores(named.spec) if isinstance(named, HubModel) and named.spec else None


def rm(
    model: Annotated[str, typer.Argument(help="A catalogue's name or owner/repo; with :QUANT only that quant.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Take a model off this machine: one quant, or everything of the repository."""
    from internvl_gguf.models.hub import HubCache
    from internvl_gguf.models.hub_resolver import HubResolver

    cache = HubCache()
    wanted = HubResolver(cache=cache).hub_model(model)
    repos = [repo for repo in cache.repos() if repo.repo.lower() == wanted.repo.lower()]
    contents = sort_out({file for repo in repos for file in repo.files})
    doomed = [*contents.texts, *contents.mmprojs]
    if wanted.wanted:
        found = find_copy(contents.texts, wanted.wanted) or find_copy(contents.mmprojs, wanted.wanted)
        doomed = [found] if found else []
        if found in contents.texts and len(contents.texts) == 1:
            doomed += contents.mmprojs  # of no use to anything without a text model
    has_partials = any(repo.partial_bytes for repo in repos) and not wanted.wanted
    if not doomed and not has_partials:
        raise ModelFileError(f"{model} is not in the cache.", "`internvl list` shows what is.")
    names = [copy.first.path for copy in doomed]
    total = sum(copy.size or 0 for copy in doomed)
    if not yes:
        question = f"Remove {', '.join(names) or 'unfinished downloads'} ({format_size(total)}) of {wanted.repo}?"
        confirm(question)
    freed = sum(cache.remove(repos[0].repo, part) for copy in doomed for part in copy.parts)
    if has_partials:
        freed += cache.remove_partials(repos[0].repo)
    say(f"Removed; {format_size(freed)} are free again.")


def _list_catalog(catalog: Catalog, json_output: bool) -> None:
    """Print the models by generation: those with a repository in a table, then the names of the others."""
    if json_output:
        print_json([spec.as_json() for spec in catalog])
        return
    generations = list(dict.fromkeys(spec.generation for spec in catalog))
    groups = {name or _OTHERS: [spec for spec in catalog if spec.generation == name] for name in generations}
    rows: list[tuple[str, ...]] = []
    for name, specs in groups.items():
        listed = [spec for spec in specs if spec.repo and not spec.unsupported]
        rows += [(name, "", "", "", ""), *map(_catalog_row, listed)] if listed else []
    print_table(("MODEL", "PARAMS", "Q4_K_M", "REPOSITORY", "STATUS"), rows, least_first=("REPOSITORY",))
    say("Q4_K_M: what fetching this quant takes, the vision encoder with it; ~ where the files are not listed.")
    say("checked: its files are listed, or documented by llama.cpp; not checked: others name the repository.")
    say("Of InternVL3.5 the models without a suffix are those that its card recommends.")
    for name, specs in groups.items():
        _say_without_repository(name, specs)
    say("`internvl pick` says which of them suits this machine.")


def _catalog_row(spec: ModelSpec) -> tuple[str, ...]:
    parameters = f"{spec.parameters / 1e9:.1f}B" if spec.parameters else ""
    return f"  {spec.name}", parameters, _download(spec), spec.repo or "", _STATUS[spec.status]


def _say_without_repository(generation: str, specs: Sequence[ModelSpec]) -> None:
    """Name the models of a generation that cannot be fetched by name, or not run, with the reasons."""
    unknown = [spec for spec in specs if not spec.repo and not spec.unsupported]
    if unknown:
        say(f"{generation}, no GGUF repository known: {_short_names(unknown)}.")
    for reason in dict.fromkeys(spec.unsupported for spec in specs if spec.unsupported):
        names = _short_names([spec for spec in specs if spec.unsupported == reason])
        say(f"{generation}, does not run here: {names}. {reason}")


def _short_names(specs: Sequence[ModelSpec]) -> str:
    """Return names without that of their release, which stands before them."""
    return ", ".join(_RELEASE.sub("", spec.name) for spec in specs)


def _download(spec: ModelSpec) -> str:
    """Return the size of the usual download of a model, as shown; nothing if it cannot be run or sized."""
    from internvl_gguf.models.listing import usual_download

    found = usual_download(spec)
    if found is None:
        return ""
    size = f"{(found.size + found.encoders[0].size) / 2**30:.1f} GiB"
    return f"~{size}" if found.source == "estimate" else size


def _cached_rows(cache: HubCache, repo: CachedRepo, catalog: Catalog) -> Iterable[dict[str, Any]]:
    """Return a row for each quant of a cached repository, then one for its other files."""
    from internvl_gguf.gguf.header import read_header
    from internvl_gguf.gguf.report import report_text

    spec = next((spec for spec in catalog if spec.repo and spec.repo.lower() == repo.repo.lower()), None)
    name = spec.name if spec else repo.repo
    contents = sort_out(repo.files)
    for copy in contents.texts:
        row: dict[str, Any] = {"model": f"{name}:{copy.name}", "repo": repo.repo, "bytes": copy.size or 0, "note": ""}
        row["path"] = str(cache.path(repo.repo, repo.commit, copy.first))
        try:
            headers = [read_header(cache.path(repo.repo, repo.commit, part)) for part in copy.parts]
            report = report_text(headers)
            row |= {
                "architecture": report.facts.architecture,
                "bits_per_weight": round(report.tensors.bits_per_weight, 3),
                "context": report.facts.n_ctx_train,
                "tensor_types": report.tensors.types,
            }
        except InternVLError as error:
            row["note"] = "not an InternVL" if copy.is_complete else "parts are missing"
            row["error"] = error.message
        yield row
    for copy in contents.mmprojs:
        path = cache.path(repo.repo, repo.commit, copy.first)
        yield {"model": f"{name} mmproj {copy.name}", "repo": repo.repo, "bytes": copy.size or 0, "note": "mmproj",
               "path": str(path)}  # fmt: skip
    if repo.partial_bytes:
        yield {"model": f"{name} (unfinished)", "repo": repo.repo, "bytes": repo.partial_bytes,
               "note": "pull it again to go on"}  # fmt: skip


def _print_text(headers: Sequence[GGUFHeader], report: TextReport) -> None:
    text = report.facts
    print_lines(f"text          {headers[0].label}", hang=_LABEL)
    print_lines(f"  {text.name or 'no name'}: {text.architecture}, {_count(report.tensors.parameters)} weights")
    print_lines(f"  {_stored(report.tensors, sum(header.file_size for header in headers))}")
    print_lines(
        f"  {text.n_layers} layers, width {text.n_embd}, {text.n_head} heads ({text.n_head_kv} for keys and values), "
        f"{_feed_forward(text)}, a vocabulary of {text.n_vocab:,}"
    )
    template = "a chat template" if report.has_template else "no chat template"
    print_lines(f"  a context of {text.n_ctx_train:,} tokens; {template} in the file (InternVL's own is used)")


def _feed_forward(text: TextShape) -> str:
    if text.n_expert:
        return f"{text.n_expert_used} of {text.n_expert} experts for each token, each feed-forward {text.n_ff_exp}"
    return f"feed-forward {text.n_ff}"


def _print_vision(header: GGUFHeader, report: VisionReport) -> None:
    vision = report.facts
    print_lines(f"mmproj        {header.label}", hang=_LABEL)
    weights = _count(report.tensors.parameters)
    print_lines(f"  {vision.name or 'no name'}: {vision.projector} projector, {weights} weights")
    print_lines(f"  {_stored(report.tensors, header.file_size)}")
    print_lines(
        f"  {vision.n_layers} layers, width {vision.n_embd}; tiles of {vision.image_size} pixels, patches of "
        f"{vision.patch_size}: {vision.tokens_per_tile} visual tokens a tile, {vision.projection_dim} wide"
    )
    if vision.max_tiles is not None:
        print_lines(f"  its file says {vision.min_tiles or 1} to {vision.max_tiles} tiles a picture")


def _stored(tensors: TensorStatistics, file_bytes: int) -> str:
    types = ", ".join(f"{count} {name}" for name, count in tensors.types.items())
    size = f"{format_size(file_bytes)}, of which {format_size(tensors.n_bytes)} are weights"
    return f"{size}; {tensors.bits_per_weight:.2f} bits a weight: {types}"


def _count(parameters: int) -> str:
    return f"{parameters / 1e9:.2f}B" if parameters >= 1e8 else f"{parameters / 1e6:.2f}M"


def _size(copy: ModelCopy) -> str:
    return format_size(copy.size) if copy.size else "of unknown size"


def _copies(copies: Iterable[ModelCopy]) -> list[dict[str, Any]]:
    return [{"name": copy.name, "bytes": copy.size, "files": [part.path for part in copy.parts]} for copy in copies]


def _print_copies(title: str, copies: Iterable[ModelCopy]) -> None:
    rows = f"\n{' ' * _LABEL}".join(f"{copy.name:<12}{_size(copy):>12}" for copy in copies)
    print_lines(f"{title:<{_LABEL}}{rows}", wrap=False)
