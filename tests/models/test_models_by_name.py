"""Models by name: every spelling of every quant of a published listing is pulled, opened, and opened again offline."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader, GGUFWriter

from internvl_gguf import Session
from internvl_gguf.chat.commands import full_name
from internvl_gguf.errors import HubError, ModelFileError, ModelPairError
from internvl_gguf.gguf.filenames import Quant, RepoFile, find_copy, sort_out
from internvl_gguf.hardware.encoder_precision import Precision, preferred_precision
from internvl_gguf.models.catalog import load_catalog
from internvl_gguf.models.hub import HubCache, HubClient, RemoteFile
from internvl_gguf.models.hub_resolver import HubResolver
from internvl_gguf.models.local_files import demo_files
from internvl_gguf.models.names import HubModel, LocalModel, parse_model_name
from internvl_gguf.models.resolve import resolve_model
from internvl_gguf.models.select_files import complete_texts, named_text
from tests.support.kept_trial import copy_trial
from tests.support.loopback_hub import Fault, LoopbackHub
from tests.support.tiny_models import write_tiny_mmproj, write_tiny_text

REPO = "unsloth/InternVL3-14B-Instruct-GGUF"
NAME = "InternVL3-14B-Instruct"
LISTING = [
    line.split("\t")[0]
    for line in (Path(__file__).parents[1] / "data" / "unsloth-internvl3-14b-instruct-gguf.tsv")
    .read_text()
    .splitlines()
    if ".gguf" in line
]
TEXTS = [name for name in LISTING if not name.startswith("mmproj")]


def spellings(file: str) -> list[str]:
    """Every way to write the quant of a file of the listing."""
    full = file.removesuffix(".gguf").removeprefix(f"{NAME}-")
    plain = full.removeprefix("UD-")
    ways = [full, full.lower(), plain, plain.lower(), plain.replace("_", "-").lower(), file, file.lower()]
    return [*dict.fromkeys([*ways, file.removesuffix(".gguf"), full.replace("UD-", "ud_")])]


SPELLINGS = [(file, way) for file in TEXTS for way in spellings(file)]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A small model for each name of the listing; no two are equal."""
    folder = tmp_path_factory.mktemp("published")
    made = {name: write_tiny_text(folder / name, seed=seed, n_ctx=2048).read_bytes() for seed, name in enumerate(TEXTS)}
    for seed, name in enumerate(name for name in LISTING if name.startswith("mmproj")):
        made[name] = write_tiny_mmproj(folder / name, seed=seed).read_bytes()
    return made


@pytest.fixture
def hub(texts: dict[str, bytes]) -> Iterator[LoopbackHub]:
    with LoopbackHub() as running:
        spec = load_catalog().find(NAME)
        assert spec is not None
        repo = running.add_repo(REPO, texts)
        repo.branches[spec.revision] = repo.commit
        yield running


def resolver(hub: LoopbackHub, root: Path) -> HubResolver:
    return HubResolver(
        HubClient(hub.url, token=False, sleep=lambda seconds: None),
        HubCache(root),
        precisions=lambda labels: Precision("F16", "the test says so"),
    )


def test_the_listing_has_24_quants_and_3_mmprojs(hub: LoopbackHub, tmp_path: Path) -> None:
    listing = resolver(hub, tmp_path).client.listing(REPO, None)
    contents = sort_out(listing.files)
    assert (len(contents.texts), len(contents.mmprojs)) == (24, 3)
    assert len({copy.name for copy in contents.texts}) == 24


@pytest.mark.parametrize(("file", "spelling"), SPELLINGS)
def test_every_spelling_of_every_quant(file: str, spelling: str) -> None:
    contents = sort_out(RepoFile(name) for name in LISTING)
    assert named_text(contents.texts, spelling, REPO).first.path == file


def test_a_pulled_quant_opens_and_opens_again_without_one_request(tmp_path: Path) -> None:
    """The published names over files made from the demo model, each with another name inside: every quant is pulled,
    the right two files and nothing else; several answer; then again with the hub gone."""
    demo = demo_files()
    contents = {name: demo_text_named(seed) for seed, name in enumerate(TEXTS)}
    contents |= {name: demo.mmproj.read_bytes() for name in LISTING if name not in contents}
    spec = load_catalog().find(NAME)
    assert spec is not None
    with LoopbackHub() as hub:
        repo = hub.add_repo(REPO, contents)
        repo.branches[spec.revision] = repo.commit
        finder = resolver(hub, tmp_path)
        for file in TEXTS:
            files = resolve_model(f"{NAME.lower()}:{spellings(file)[2]}", resolver=finder)
            assert files.text.read_bytes() == contents[file]
            assert files.mmproj.name == "mmproj-F16.gguf"
        listing = finder.client.listing(REPO, spec.revision)
        assert {file.path for file in finder.cache.files(REPO, listing.commit)} == {*TEXTS, "mmproj-F16.gguf"}
        bodies = sum(len(contents[name]) for name in (*TEXTS, "mmproj-F16.gguf"))
        assert hub.body_bytes == bodies + 25 * RemoteFile.first_window  # and 25 headers before them
    example = demo.text.parent / "example.png"
    with Session.open("demo", n_threads=1) as session:
        expected = session.ask("How many shapes are there?", [example]).text
    for file in TEXTS[::6]:
        files = resolve_model(f"{NAME}:{spellings(file)[1]}", resolver=finder)
        with Session.open(files.text, files.mmproj, n_threads=1) as session:
            assert session.ask("How many shapes are there?", [example]).text == expected


def demo_text_named(seed: int) -> bytes:
    """The demo model's text half, told apart from others by its name."""
    old, new = b"InternVL demo", b"InternVL %04d" % seed
    data = demo_files().text.read_bytes()
    assert data.count(old) == 1
    return data.replace(old, new)  # of the same length


def test_headers_come_before_bodies(hub: LoopbackHub, tmp_path: Path) -> None:
    """A pair that cannot work is refused with a part of each file, and nothing is left in the cache."""
    wrong = write_tiny_mmproj(tmp_path / "wrong.gguf", projection=96).read_bytes()
    text = write_tiny_text(tmp_path / "text.gguf").read_bytes()
    hub.add_repo("owner/wrong", {"model-Q8_0.gguf": text, "mmproj-F16.gguf": wrong})
    with pytest.raises(ModelPairError, match="96 wide"):
        resolve_model("owner/wrong", resolver=resolver(hub, tmp_path / "cache"))
    assert not (tmp_path / "cache").exists()


def test_a_repository_of_another_model_is_refused_by_its_header(hub: LoopbackHub, tmp_path: Path) -> None:
    mmproj = write_tiny_mmproj(tmp_path / "mmproj.gguf").read_bytes()
    hub.add_repo("owner/other", {"other-Q4_0.gguf": mmproj, "mmproj-F16.gguf": mmproj})
    with pytest.raises(ModelFileError, match="the vision half"):
        resolve_model("owner/other", resolver=resolver(hub, tmp_path / "cache"))


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (f"{NAME}:Q4_K", ["no quant 'Q4_K'", "Q4_K_M", "UD-Q8_K_XL"]),
        (f"{NAME}:q9", ["no quant 'q9'", "BF16"]),
        (f"{NAME}:UD-Q6_K", ["no quant 'UD-Q6_K'", "UD-Q6_K_XL"]),
        (f"{REPO}:mmproj-F16.gguf", ["no quant"]),
    ],
)
def test_an_unknown_quant_is_answered_with_the_nearest_and_the_list(
    hub: LoopbackHub, tmp_path: Path, wanted: str, words: list[str]
) -> None:
    with pytest.raises(ModelFileError) as failure:
        resolver(hub, tmp_path).select(wanted)
    for word in words:
        assert word in str(failure.value)


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("InternVL3-14B-Instrukt", "InternVL3-14B-Instruct"),
        ("InternVL3-9B", "knows no GGUF repository of InternVL3-9B"),
        ("InternVL3-78B", "owner/repo"),
        ("nonsense", "internvl list"),
    ],
)
def test_an_unknown_model_says_what_to_type(typed: str, words: str) -> None:
    with pytest.raises(ModelFileError) as failure:
        parse_model_name(typed, load_catalog())
    assert words in str(failure.value)


@pytest.mark.parametrize(
    ("typed", "repo", "revision", "wanted"),
    [
        ("owner/name", "owner/name", None, None),
        ("owner/name:Q4_K_M", "owner/name", None, "Q4_K_M"),
        ("owner/name@v2:Q4_K_M", "owner/name", "v2", "Q4_K_M"),
        ("owner/name:sub/file-Q4_0.gguf", "owner/name", None, "sub/file-Q4_0.gguf"),
        ("https://huggingface.co/owner/name", "owner/name", None, None),
        ("hf.co/owner/name:q8_0", "owner/name", None, "q8_0"),
        ("INTERNVL3-14B-INSTRUCT", REPO, "a1d2011c6313d656493b21a0480027993520f29c", None),
        (f"{REPO}:q6_k", REPO, "a1d2011c6313d656493b21a0480027993520f29c", "q6_k"),
        (f"{REPO}@main:q6_k", REPO, "main", "q6_k"),
    ],
)
def test_names_of_the_hub(typed: str, repo: str, revision: str | None, wanted: str | None) -> None:
    found = parse_model_name(typed, load_catalog())
    assert isinstance(found, HubModel)
    assert (found.repo, found.revision, found.wanted) == (repo, revision, wanted)


def test_names_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    (tmp_path / "weights").mkdir()
    for typed, path, wanted in (
        ("owner/name", "owner/name", None),
        ("weights:Q4_K_M", "weights", "Q4_K_M"),
        ("none.gguf", "none.gguf", None),
        ("./none.gguf", "none.gguf", None),
        ("a/b.GGUF", "a/b.GGUF", None),
        ("~nobody-of-this-name/a.gguf", "~nobody-of-this-name/a.gguf", None),
        ("./none:Q4_K_M", "none", "Q4_K_M"),
        ("weights:text-Q4_K_M.gguf", "weights", "text-Q4_K_M.gguf"),
        ("./weights:text-Q4_K_M.gguf", "weights", "text-Q4_K_M.gguf"),
    ):
        assert parse_model_name(typed, load_catalog()) == LocalModel(Path(path), wanted)


@pytest.mark.skipif(os.name == "nt", reason="names of folders have no colons there")
def test_the_last_colon_before_a_quant_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a colon in its name was cut at the first colon."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models:v2" / "a:b").mkdir(parents=True)
    for typed, path, wanted in (
        ("./models:v2/a:b:BF16", "models:v2/a:b", "BF16"),
        ("models:v2/a:b:BF16", "models:v2/a:b", "BF16"),
        ("models:v2/a:b", "models:v2/a:b", None),
        ("models:v2/a:b:text.gguf", "models:v2/a:b", "text.gguf"),
        ("models:v2/a:b:wrong", "models:v2/a:b", "wrong"),
        ("./models:v2/missing:Q4_K_M", "models:v2/missing", "Q4_K_M"),
        ("./models:v2/missing.gguf", "models:v2/missing.gguf", None),
        ("models:Q4_K_M", "models", "Q4_K_M"),
    ):
        assert parse_model_name(typed, load_catalog()) == LocalModel(Path(path), wanted), typed
    assert full_name(str(tmp_path / "models:v2" / "a:b" / "x-Q4_K_M.gguf"), ":BF16").endswith("models:v2/a:b:BF16")


def test_the_demo_model_may_be_named_with_its_quant() -> None:
    assert resolve_model("demo:bf16") == resolve_model("demo")


def test_a_folder_with_several_quants(tmp_path: Path, texts: dict[str, bytes]) -> None:
    for name in ("InternVL3-14B-Instruct-Q2_K.gguf", "InternVL3-14B-Instruct-Q4_K_M.gguf", "mmproj-F16.gguf"):
        (tmp_path / name).write_bytes(texts[name])
    assert resolve_model(f"{tmp_path}:q2_k").text.name.endswith("Q2_K.gguf")
    chosen = resolve_model(tmp_path)
    assert chosen.text.name.endswith("Q4_K_M.gguf")
    assert chosen.choice.startswith("Picked Q4_K_M")
    assert chosen.mmproj.name == "mmproj-F16.gguf"
    with pytest.raises(ModelFileError, match="no quant 'q5_0'"):
        resolve_model(f"{tmp_path}:q5_0")


def test_the_mmproj_can_be_named(hub: LoopbackHub, tmp_path: Path, texts: dict[str, bytes]) -> None:
    finder = resolver(hub, tmp_path / "cache")
    own = write_tiny_mmproj(tmp_path / "own.gguf")
    for named, content in (
        ("bf16", texts["mmproj-BF16.gguf"]),
        ("mmproj-F32.gguf", texts["mmproj-F32.gguf"]),
        (own, own.read_bytes()),
    ):
        assert resolve_model(f"{NAME}:Q2_K", named, resolver=finder).mmproj.read_bytes() == content
    with pytest.raises(ModelFileError, match="no mmproj Q8_0"):
        resolve_model(f"{NAME}:Q2_K", "Q8_0", resolver=finder)
    with pytest.raises(ModelFileError, match=r"no mmproj missing\.gguf"):
        resolve_model(f"{NAME}:Q2_K", "missing.gguf", resolver=finder)


LAYOUTS = [
    # (listing, spelled, first file or None, number of parts)
    (["a-Q4_K_M-00001-of-00003.gguf", "a-Q4_K_M-00002-of-00003.gguf", "a-Q4_K_M-00003-of-00003.gguf"],
     "q4_k_m", "a-Q4_K_M-00001-of-00003.gguf", 3),
    (["Q4_K_M/a-00001-of-00002.gguf", "Q4_K_M/a-00002-of-00002.gguf", "Q8_0/a.gguf"], "Q4-K-M",
     "Q4_K_M/a-00001-of-00002.gguf", 2),
    (["UD-Q4_K_XL/a-UD-Q4_K_XL.gguf", "Q4_K_XL/a-Q4_K_XL.gguf"], "Q4_K_XL", "Q4_K_XL/a-Q4_K_XL.gguf", 1),
    (["UD-Q4_K_XL/a-UD-Q4_K_XL.gguf", "Q4_K_XL/a-Q4_K_XL.gguf"], "UD-Q4_K_XL", "UD-Q4_K_XL/a-UD-Q4_K_XL.gguf", 1),
    (["a.Q4_K_M.gguf", "a.imatrix.gguf", "imatrix_unsloth.gguf", "a-draft-Q4_K_M.gguf"], "q4_k_m", "a.Q4_K_M.gguf", 1),
    (["a-f16.gguf", "a-bf16.gguf", "mmproj-a-f16.gguf"], "F16", "a-f16.gguf", 1),
    (["a-fp16.gguf"], "F16", "a-fp16.gguf", 1),
    (["InternVL3-8B-Q4_0-v2.gguf"], "q4_0", "InternVL3-8B-Q4_0-v2.gguf", 1),
    (["a-IQ4_XS.gguf", "a-Q4_K_S.gguf"], "iq4-xs", "a-IQ4_XS.gguf", 1),
    (["a-MXFP4.gguf"], "mxfp4", "a-MXFP4.gguf", 1),
    (["readme.md", "config.json"], "Q4_0", None, 0),
    (["../a-Q4_0.gguf", "/b-Q4_0.gguf"], "Q4_0", None, 0),
]  # fmt: skip


@pytest.mark.parametrize(("names", "wanted", "first", "parts"), LAYOUTS)
def test_layouts_of_other_publishers(names: list[str], wanted: str, first: str | None, parts: int) -> None:
    for order in itertools.islice(itertools.permutations(names), 6):
        found = find_copy(sort_out(RepoFile(name) for name in order).texts, wanted)
        assert (found.first.path if found else None, len(found.parts) if found else 0) == (first, parts)


def test_a_split_model_with_a_part_missing_is_refused() -> None:
    contents = sort_out([RepoFile("a-Q4_0-00001-of-00003.gguf"), RepoFile("a-Q4_0-00003-of-00003.gguf")])
    with pytest.raises(ModelFileError, match="parts are missing"):
        named_text(contents.texts, "Q4_0", "owner/name")
    with pytest.raises(ModelFileError, match="parts are missing"):
        complete_texts(contents.texts, "owner/name")


@pytest.mark.parametrize("text", ["", "Q", "4_K_M", "Q4_K_M.gguf", "INT8", "UD-", "Q0_1"])
def test_what_is_no_quant(text: str) -> None:
    assert Quant.parse(text) is None


def test_the_precision_is_measured_once_and_the_faithful_one_wins_a_tie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INTERNVL_CACHE", str(tmp_path))
    asked: list[list[str]] = []
    seconds = {"F16": 1.0, "BF16": 0.95, "F32": 2.0}

    def measure(labels: list[str]) -> dict[str, float]:
        asked.append(list(labels))
        return {label: seconds[label] for label in labels}

    monkeypatch.setattr("internvl_gguf.hardware.encoder_precision._measure", measure)
    assert preferred_precision(["F32", "BF16", "F16"]).label == "F16"
    assert preferred_precision(["BF16", "F16"]).label == "F16"
    assert asked == [["F16", "BF16", "F32"]]
    (tmp_path / "encoder-speed.json").write_text("damaged")
    seconds["BF16"] = 0.5
    assert preferred_precision(["F16", "BF16", "F32"]).label == "BF16"
    assert len(asked) == 2


def test_the_precision_without_a_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERNVL_CACHE", str(tmp_path))
    monkeypatch.setattr("internvl_gguf.hardware.encoder_precision._measure", lambda labels: {})
    assert preferred_precision(["BF16", "F32", "F16"]).label == "F16"
    assert preferred_precision(["BF16", "F32"]).label == "BF16"
    assert preferred_precision(["Q8_K_XL"]).label == "Q8_K_XL"


class Shell:
    """The `internvl` command against a hub, with a cache of its own."""

    def __init__(self, hub: LoopbackHub, root: Path) -> None:
        self.hub = hub
        self.environment = {
            **os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(root / "hf"), "INTERNVL_CACHE": str(root / "cache"),
            "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1", "COLUMNS": "100",
        }  # fmt: skip
        copy_trial(root / "cache")

    def __call__(self, *arguments: str, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "internvl_gguf", *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**self.environment, **environment}, check=False, timeout=120
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done


@pytest.fixture
def internvl(hub: LoopbackHub, tmp_path: Path) -> Shell:
    return Shell(hub, tmp_path)


def test_the_commands_of_a_first_day(hub: LoopbackHub, internvl: Shell) -> None:
    """Look, pull, look, ask offline, remove."""
    model = ("InternVL3-14B-Instruct:q4_k_xl", "--mmproj", "BF16")
    plan = json.loads(internvl("pull", *model, "--dry-run", "--json").stdout)
    assert [file["path"] for file in plan["files"]] == [
        "mmproj-BF16.gguf", "InternVL3-14B-Instruct-UD-Q4_K_XL.gguf",
    ]  # fmt: skip
    assert plan["bytes"] == plan["bytes_to_fetch"] > 0
    shown = json.loads(internvl("show", *model, "--json").stdout)
    assert shown["text"]["architecture"] == "qwen2"
    assert shown["vision"]["projector"] == "internvl"
    assert len(shown["quants"]) == 24
    assert shown["published"]["of"] == "InternVL3-14B"
    assert shown["published"]["ocrbench"] == 875
    said = internvl("show", *model).stdout
    assert "OCRBench 875" in said
    assert "of InternVL3-14B in BF16, with other tile limits and prompts: arXiv 2504.10479" in " ".join(said.split())
    assert json.loads(internvl("list", "--json").stdout) == []
    assert "is here: " in internvl("pull", *model).stderr
    assert "was here already" in internvl("pull", *model).stderr
    asked = len(hub.requests)
    rows = json.loads(internvl("list", "--json").stdout)
    assert [row["model"] for row in rows] == [
        "InternVL3-14B-Instruct:UD-Q4_K_XL", "InternVL3-14B-Instruct mmproj BF16",
    ]  # fmt: skip
    assert rows[0]["bits_per_weight"] == pytest.approx(32, abs=0.1)
    answer = internvl("ask", model[0], "Tell me.", "-n", "4", "--n-ctx", "256", HF_HUB_OFFLINE="1")
    assert answer.stdout.strip()
    internvl("pull", *model, HF_HUB_OFFLINE="1")
    assert len(hub.requests) == asked
    refused = internvl("ask", "InternVL3-14B-Instruct:Q2_K", "Tell me.", code=1, HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE" in refused.stderr
    assert "free again" in internvl("rm", model[0], "--yes").stderr
    assert json.loads(internvl("list", "--json").stdout) == []
    assert "not in the cache" in internvl("rm", model[0], "--yes", code=1).stderr


def test_ask_fetches_what_it_needs(internvl: Shell) -> None:
    done = internvl("ask", "internvl3-14b-instruct:IQ1_S", "Tell me.", "--mmproj", "F16", "-n", "4", "--n-ctx", "256")
    assert done.stdout.strip()
    assert [row["bytes"] for row in json.loads(internvl("list", "--json").stdout)]


def test_without_a_quant_one_is_picked_for_this_machine(internvl: Shell) -> None:
    done = internvl("ask", NAME, "Tell me.", "--mmproj", "F16", "-n", "4", "--n-ctx", "256")
    assert done.stdout.strip()
    assert done.stderr.startswith("Picked ")
    assert "`internvl pick` says why" in done.stderr
    picked = done.stderr.removeprefix("Picked ").partition(",")[0]
    assert f"{NAME}:{picked}" in [row["model"] for row in json.loads(internvl("list", "--json").stdout)]
    again = internvl("ask", NAME, "Tell me.", "-n", "4", "--n-ctx", "256", HF_HUB_OFFLINE="1")
    assert again.stdout == done.stdout


def test_a_listing_that_is_read_live(hub: LoopbackHub, internvl: Shell, texts: dict[str, bytes]) -> None:
    """A repository the catalogue does not know: its form comes from the header of one file, sizes from the listing."""
    names = ("InternVL3-14B-Instruct-Q2_K.gguf", "InternVL3-14B-Instruct-Q4_K_M.gguf", "mmproj-F16.gguf")
    hub.add_repo("owner/own", {name: texts[name] for name in names})
    found = json.loads(internvl("pick", "owner/own", "--context", "512", "--json").stdout)
    assert {row["quant"]: row["source"] for row in found["picks"]} in (
        {"Q2_K": "header", "Q4_K_M": "listing"},
        {"Q2_K": "listing", "Q4_K_M": "header"},
    )
    exact = json.loads(internvl("pick", "owner/own", "--context", "512", "--json", "--headers").stdout)
    assert {row["source"] for row in exact["picks"]} == {"header"}
    refused = internvl("pick", "owner/none", "--context", "512", code=1)
    assert len(refused.stderr.strip().splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("pull", "owner/none"), "no repository owner/none"),
        (("pull", "nonsense"), "internvl list"),
        (("rm", "demo", "--yes"), "part of this package"),
        (("ask", "demo:Q4_0", "Tell me."), "BF16 only"),
        (("show", "notes.txt"), "no model 'notes.txt'"),
        (("ask", NAME, "What?", "-i", "missing.png"), "missing.png"),
        (("show", f"{NAME}:Q9_Z"), "no quant"),
        (("show", "nowhere.gguf"), "There is no file"),
        (("rm", NAME, "--yes"), "not in the cache"),
        (("ask", "owner/none:Q4_0", "Tell me."), "no repository"),
    ],
)
def test_what_cannot_be_had_is_told_in_two_lines(internvl: Shell, arguments: tuple[str, ...], words: str) -> None:
    done = internvl(*arguments, code=1)
    assert words in done.stderr
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) <= 3


def test_a_disk_without_room_is_told_before_the_first_byte(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finder = resolver(hub, tmp_path / "cache")
    selection = finder.select(f"{NAME}:Q2_K")
    monkeypatch.setattr("internvl_gguf.models.hub_resolver.free_bytes", lambda path: 1000)
    with pytest.raises(HubError, match="1000 B left"):
        finder.fetch(selection)
    assert not list((tmp_path / "cache").glob("**/*partial"))


@pytest.mark.parametrize(
    ("position", "value", "words"),
    [
        (0, b"GGML", "not a GGUF"),
        (4, (9).to_bytes(4, "little"), "version 9"),
        (8, (2**62).to_bytes(8, "little"), "claims to hold"),
        (16, (2**40).to_bytes(8, "little"), "claims to hold"),
        (24, (2**50).to_bytes(8, "little"), "damaged"),
    ],
)
def test_a_damaged_remote_header_is_one_clear_error_and_no_download(
    hub: LoopbackHub, texts: dict[str, bytes], tmp_path: Path, position: int, value: bytes, words: str
) -> None:
    data = bytearray(texts["InternVL3-14B-Instruct-Q2_K.gguf"])
    data[position : position + len(value)] = value
    hub.add_repo("owner/damaged", {"model-Q2_K.gguf": bytes(data), "mmproj-F16.gguf": texts["mmproj-F16.gguf"]})
    with pytest.raises(ModelFileError, match=words):
        resolve_model("owner/damaged", resolver=resolver(hub, tmp_path / "cache"))
    assert not (tmp_path / "cache").exists()


def test_a_split_model_is_pulled_whole_and_opens(hub: LoopbackHub, tmp_path: Path) -> None:
    """In parts as llama.cpp's gguf-split writes them; the pair is checked over the headers of all parts."""
    parts = split_demo(tmp_path / "parts", 3)
    files = {f"Q8_0/{part.name}": part for part in parts} | {"mmproj-F16.gguf": demo_files().mmproj}
    hub.add_repo("owner/split", files)
    found = resolve_model("owner/split:q8_0", resolver=resolver(hub, tmp_path / "cache"))
    assert found.text.name == parts[0].name
    assert len(list(found.text.parent.iterdir())) == 3
    with Session.open(found.text, found.mmproj, n_threads=1) as session:
        assert session.ask("How many shapes are there?", [demo_files().text.parent / "example.png"]).text


def split_demo(folder: Path, count: int) -> list[Path]:
    """The demo model's text half in `count` files, the key-values in the first, as gguf-split does it."""
    folder.mkdir()
    reader = GGUFReader(demo_files().text)
    paths = []
    for part in range(count):
        path = folder / f"demo-{part + 1:05}-of-{count:05}.gguf"
        writer = GGUFWriter(path, "qwen2")
        if part == 0:
            for key, field in reader.fields.items():
                if not key.startswith(("GGUF.", "general.architecture")):
                    kind = field.types[0]
                    writer.add_key_value(key, field.contents(), kind, field.types[-1] if len(field.types) > 1 else None)
        writer.add_uint16("split.no", part)
        writer.add_uint16("split.count", count)
        writer.add_int32("split.tensors.count", len(reader.tensors))
        for tensor in reader.tensors[part::count]:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        paths.append(path)
    return paths


def test_the_token_of_the_environment_opens_a_private_repository(
    hub: LoopbackHub, texts: dict[str, bytes], internvl: Shell
) -> None:
    files = {name: texts[name] for name in ("InternVL3-14B-Instruct-Q2_K.gguf", "mmproj-F16.gguf")}
    hub.add_repo("owner/private", files, token="secret")
    refused = internvl("pull", "owner/private", code=1)
    assert "HF_TOKEN" in refused.stderr
    allowed: dict[str, Any] = {"HF_TOKEN": "secret", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "0"}
    assert "is here" in internvl("pull", "owner/private", **allowed).stderr


@pytest.mark.skipif(os.name == "nt", reason="SIGINT")
def test_ctrl_c_ends_a_pull_with_130_and_keeps_what_came(hub: LoopbackHub, internvl: Shell) -> None:
    hub.add_repo("owner/large", {"model-Q8_0.gguf": demo_files().text, "mmproj-F16.gguf": demo_files().mmproj})
    hub.faults.append(Fault("cdn", path_contains="model-Q8_0", stall=True, times=9))
    command = [sys.executable, "-m", "internvl_gguf", "pull", "owner/large"]
    with subprocess.Popen(command, env=internvl.environment, stderr=subprocess.PIPE, text=True) as process:
        while not any(request.status is None for request in hub.requests):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in said
