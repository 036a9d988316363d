"""The whole family by name: every release's spellings, and the file names of those who publish GGUF files of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from internvl_gguf.errors import ModelFileError, ModelPairError
from internvl_gguf.gguf.filenames import RepoFile, sort_out
from internvl_gguf.hardware.encoder_precision import Precision
from internvl_gguf.models.catalog import load_catalog
from internvl_gguf.models.hub import HubCache, HubClient
from internvl_gguf.models.hub_resolver import HubResolver
from internvl_gguf.models.names import HubModel, LocalModel, parse_model_name
from internvl_gguf.models.resolve import resolve_model
from internvl_gguf.models.suggest import suggest_models
from tests.support.damage import Blueprint, write
from tests.support.loopback_hub import LoopbackHub
from tests.support.tiny_models import tiny_mmproj, tiny_text, write_tiny_mmproj, write_tiny_text

# --- Names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "name", "quant"),
    [
        ("InternVL3_5-8B", "InternVL3_5-8B", None),
        ("InternVL3.5-8B", "InternVL3_5-8B", None),
        ("internvl-3.5-8b", "InternVL3_5-8B", None),
        ("3.5-8b:q4_k_m", "InternVL3_5-8B", "q4_k_m"),
        ("OpenGVLab_InternVL3_5-8B", "InternVL3_5-8B", None),
        ("OpenGVLab/InternVL3_5-8B", "InternVL3_5-8B", None),
        ("hf.co/OpenGVLab/InternVL3_5-8B:Q6_K", "InternVL3_5-8B", "Q6_K"),
        ("InternVL3_5-8B-HF", "InternVL3_5-8B", None),
        ("InternVL3_5-1B-Instruct-HF", "InternVL3_5-1B-Instruct", None),
        ("InternVL3.5-30B-A3B", "InternVL3_5-30B-A3B", None),
        ("30b-a3b", "InternVL3_5-30B-A3B", None),
        ("internvl3.5:8b", "InternVL3_5-8B", None),
        ("internvl3.5:30b-a3b-q4_K_M", "InternVL3_5-30B-A3B", "q4_K_M"),
        ("internvl3.5:30b", "InternVL3_5-30B-A3B", None),
        ("internvl2.5:4b", "InternVL2_5-4B", None),
        ("internvl3:14b", "InternVL3-14B-Instruct", None),
        ("InternVL3-8B-hf", "InternVL3-8B", None),
        # A size alone means what it meant before there were other releases in the catalogue.
        *((size, f"InternVL3-{size}-Instruct", None) for size in ("1B", "2B", "8B", "14B", "38B")),
        ("4B", "InternVL3_5-4B", None),
    ],
)
def test_a_spelling_means_one_model(typed: str, name: str, quant: str | None) -> None:
    found = parse_model_name(typed, load_catalog())
    assert isinstance(found, HubModel)
    assert found.spec is not None
    assert (found.spec.name, found.spec.repo, found.wanted) == (name, found.repo, quant)


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        ("InternVL3_5-8B-Flash", "router"),
        ("InternVL3.5-20B-A4B", "GPT-OSS"),
        ("InternVL3_5-GPT-OSS-20B-A4B-Preview", "GPT-OSS"),
    ],
)
def test_what_does_not_run_says_why(typed: str, why: str) -> None:
    with pytest.raises(ModelFileError, match=f"does not run here: .*{why}"):
        parse_model_name(typed, load_catalog())


@pytest.mark.parametrize(
    "typed",
    ["InternVL3_5-38B-Instruct", "InternVL2.5-78B", "3-8B-Pretrained", "2.5-8B-MPO", "internvl2.5:26b", "9B"],
)
def test_a_release_that_nobody_converted_is_known_and_says_so(typed: str) -> None:
    with pytest.raises(ModelFileError, match="knows no GGUF repository"):
        parse_model_name(typed, load_catalog())


def test_another_repository_of_opengvlab_is_asked_for_itself() -> None:
    assert parse_model_name("OpenGVLab/Another-GGUF", load_catalog()) == HubModel("OpenGVLab/Another-GGUF")


def test_completion_goes_on_as_somebody_began() -> None:
    assert "InternVL3_5-8B" in suggest_models("internvl3_5")
    assert "InternVL3.5-8B" in suggest_models("InternVL3.5-")


# --- Repositories -------------------------------------------------------------------------------------------------

MMPROJ = "mmproj"
# Repository, its files, the quant asked for, the text file and the mmproj that are meant.
REPOSITORIES = [
    ("ggml-org/InternVL3-14B-Instruct-GGUF",
     ["InternVL3-14B-Instruct-Q4_K_M.gguf", "mmproj-InternVL3-14B-Instruct-Q8_0.gguf",
      "mmproj-InternVL3-14B-Instruct-f16.gguf"],
     "q4_k_m", "InternVL3-14B-Instruct-Q4_K_M.gguf", "mmproj-InternVL3-14B-Instruct-f16.gguf"),
    ("unsloth/InternVL3-14B-GGUF",
     ["InternVL3-14B-UD-Q4_K_XL.gguf", "InternVL3-14B-Q4_K_M.gguf", "mmproj-BF16.gguf", "mmproj-F16.gguf",
      "mmproj-F32.gguf"],
     "Q4_K_XL", "InternVL3-14B-UD-Q4_K_XL.gguf", "mmproj-F16.gguf"),
    ("bartowski/OpenGVLab_InternVL3_5-8B-GGUF",
     ["OpenGVLab_InternVL3_5-8B-Q4_K_M.gguf", "OpenGVLab_InternVL3_5-8B-Q4_K_S.gguf",
      "OpenGVLab_InternVL3_5-8B-imatrix.gguf", "mmproj-OpenGVLab_InternVL3_5-8B-f16.gguf",
      "mmproj-OpenGVLab_InternVL3_5-8B-bf16.gguf"],
     "Q4_K_M", "OpenGVLab_InternVL3_5-8B-Q4_K_M.gguf", "mmproj-OpenGVLab_InternVL3_5-8B-f16.gguf"),
    ("bartowski/OpenGVLab_InternVL3_5-30B-A3B-GGUF",
     ["OpenGVLab_InternVL3_5-30B-A3B-bf16/OpenGVLab_InternVL3_5-30B-A3B-bf16-00001-of-00002.gguf",
      "OpenGVLab_InternVL3_5-30B-A3B-bf16/OpenGVLab_InternVL3_5-30B-A3B-bf16-00002-of-00002.gguf",
      "OpenGVLab_InternVL3_5-30B-A3B-Q4_K_M.gguf", "mmproj-OpenGVLab_InternVL3_5-30B-A3B-f16.gguf"],
     "Q4_K_M", "OpenGVLab_InternVL3_5-30B-A3B-Q4_K_M.gguf", "mmproj-OpenGVLab_InternVL3_5-30B-A3B-f16.gguf"),
    ("lmstudio-community/InternVL3_5-8B-GGUF",
     ["InternVL3_5-8B-Q4_K_M.gguf", "InternVL3_5-8B-Q8_0.gguf", "mmproj-model-f16.gguf"],
     "q8_0", "InternVL3_5-8B-Q8_0.gguf", "mmproj-model-f16.gguf"),
    ("QuantStack/InternVL3_5-8B-gguf",
     ["InternVL3_5-8B-q6_k.gguf", "InternVL3_5-8B-f16.gguf", "mmproj-InternVL3_5-8B-f16.gguf"],
     "Q6_K", "InternVL3_5-8B-q6_k.gguf", "mmproj-InternVL3_5-8B-f16.gguf"),
    ("QuantStack/InternVL3_5-38B-gguf",
     ["InternVL3_5-38b-q4_k_m.gguf", "InternVL3_5-38B-q5_k_m.gguf", "mmproj-InternVL3_5-38B-f16.gguf"],
     "Q4_K_M", "InternVL3_5-38b-q4_k_m.gguf", "mmproj-InternVL3_5-38B-f16.gguf"),
    ("mradermacher/InternVL3_5-8B-GGUF",
     ["InternVL3_5-8B.Q4_K_M.gguf", "InternVL3_5-8B.Q4_K_S.gguf", "InternVL3_5-8B.mmproj-f16.gguf"],
     "q4-k-m", "InternVL3_5-8B.Q4_K_M.gguf", "InternVL3_5-8B.mmproj-f16.gguf"),
    ("Zoont/InternVL3-2B-4-Bit-GGUF-with-mmproj",
     ["InternVL3-2B-Q4_K_M.gguf", "mmproj-InternVL3-2B-Q8_0.gguf"],
     None, "InternVL3-2B-Q4_K_M.gguf", "mmproj-InternVL3-2B-Q8_0.gguf"),
]  # fmt: skip


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as running:
        yield running


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, bytes]:
    folder = tmp_path_factory.mktemp("halves")
    return {
        "text": write_tiny_text(folder / "text.gguf", name="Tiny").read_bytes(),
        MMPROJ: write_tiny_mmproj(folder / "mmproj.gguf", name="Tiny").read_bytes(),
    }


def resolver(hub: LoopbackHub, root: Path) -> HubResolver:
    return HubResolver(
        HubClient(hub.url, token=False, sleep=lambda seconds: None),
        HubCache(root),
        precisions=lambda labels: Precision("F16", "the test says so"),
    )


@pytest.mark.parametrize(
    ("repo", "files", "quant", "meant", "mmproj"), REPOSITORIES, ids=[row[0] for row in REPOSITORIES]
)
def test_the_files_of_a_publisher_are_found_and_fetched(
    hub: LoopbackHub,
    tmp_path: Path,
    contents: Mapping[str, bytes],
    repo: str,
    files: list[str],
    quant: str | None,
    meant: str,
    mmproj: str,
) -> None:
    hub.add_repo(repo, {name: contents[MMPROJ if MMPROJ in name else "text"] for name in files})
    found = resolve_model(f"{repo}:{quant}" if quant else repo, resolver=resolver(hub, tmp_path))
    assert (found.text.name, found.mmproj.name) == (meant, mmproj)
    assert found.text.is_file()
    assert found.mmproj.is_file()


def test_the_parts_of_a_split_model_are_selected_together(
    hub: LoopbackHub, tmp_path: Path, contents: Mapping[str, bytes]
) -> None:
    repo, files = next((row[0], row[1]) for row in REPOSITORIES if "30B-A3B" in row[0])
    hub.add_repo(repo, {name: contents[MMPROJ if MMPROJ in name else "text"] for name in files})
    selection = resolver(hub, tmp_path).select("InternVL3.5-30B-A3B:bf16")
    assert [part.path for part in selection.text.parts] == files[:2]


@pytest.mark.parametrize("name", ["InternVL3_5-1B", "InternVL3_5-8B", "InternVL2_5-4B", "InternVL3-2B"])
def test_a_name_leads_to_its_repository(
    hub: LoopbackHub, tmp_path: Path, contents: Mapping[str, bytes], name: str
) -> None:
    spec = load_catalog().find(name)
    assert spec is not None
    assert spec.repo is not None
    hub.add_repo(spec.repo, {f"{name}-q4_k_m.gguf": contents["text"], f"mmproj-{name}-f16.gguf": contents[MMPROJ]})
    found = resolve_model(f"{name.replace('_', '.')}:Q4_K_M", resolver=resolver(hub, tmp_path))
    assert found.text.read_bytes() == contents["text"]


def test_whose_files_are_taken_is_said_where_the_original_was_named(
    hub: LoopbackHub, tmp_path: Path, contents: Mapping[str, bytes]
) -> None:
    repo = "bartowski/OpenGVLab_InternVL3_5-8B-GGUF"
    hub.add_repo(repo, {"a-Q4_K_M.gguf": contents["text"], "mmproj-a-f16.gguf": contents[MMPROJ]})
    found = resolve_model("OpenGVLab/InternVL3_5-8B:Q4_K_M", resolver=resolver(hub, tmp_path))
    assert found.choice == f"OpenGVLab has no GGUF files of it: those of {repo} are taken."
    assert resolve_model(f"{repo}:Q4_K_M", resolver=resolver(hub, tmp_path)).choice == ""


def test_parts_whose_names_differ_in_case_are_one_model() -> None:
    names = ("InternVL3_5-38B-f16-00001-of-00002.gguf", "InternVL3_5-38b-f16-00002-of-00002.gguf")
    (copy,) = sort_out(RepoFile(name) for name in names).texts
    assert copy.is_complete
    assert [part.path for part in copy.parts] == list(names)


# --- Files that are not meant -------------------------------------------------------------------------------------


def internlm(kind: str, name: str) -> Blueprint:
    """A text-only InternLM: its vocabulary has no place for pictures."""
    plan = tiny_text(name=name, kind=kind)
    tokens: list[str] = plan.key("tokenizer.ggml.tokens").value
    tokens[tokens.index("<img>")] = "[UNUSED_TOKEN_0]"
    return plan


@pytest.mark.parametrize(
    ("repo", "kind", "said"),
    [
        ("internlm/internlm2_5-7b-chat-gguf", "internlm2", "InternLM2"),
        ("internlm/internlm3-8b-instruct-gguf", "llama", "InternLM3"),
    ],
)
def test_a_text_only_internlm_is_refused_by_its_header(
    hub: LoopbackHub, tmp_path: Path, repo: str, kind: str, said: str
) -> None:
    """It said that there was no mmproj, and to name one: none would have helped."""
    data = write(tmp_path / "text.gguf", internlm(kind, "internlm")).read_bytes()
    hub.add_repo(repo, {"internlm-q4_k_m.gguf": data, "internlm-q8_0.gguf": data})
    for quant in ("", ":q4_k_m"):
        with pytest.raises(ModelFileError, match=said) as refused:
            resolve_model(f"{repo}{quant}", resolver=resolver(hub, tmp_path / "cache"))
        assert "no <img>" in refused.value.message
        assert "text GGUF of an InternVL model" in refused.value.hint
    assert not (tmp_path / "cache").exists()
    with pytest.raises(ModelFileError, match=said):
        resolve_model(tmp_path / "text.gguf")


def test_an_internlm_on_the_command_line_is_two_lines(tmp_path: Path) -> None:
    write(tmp_path / "internlm2_5-7b-chat-q4_k_m.gguf", internlm("internlm2", "internlm2_5-7b-chat"))
    done = subprocess.run(
        [sys.executable, "-m", "internvl_gguf", "ask", "./internlm2_5-7b-chat-q4_k_m.gguf", "Hello."],
        capture_output=True, text=True, cwd=tmp_path, check=False, timeout=60, env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 2


def test_in_a_folder_of_many_models_each_gets_the_mmproj_of_its_name(tmp_path: Path) -> None:
    """Every mmproj but one was called ambiguous."""
    for name in ("InternVL3_5-8B", "InternVL3-8B-Instruct", "Other"):
        write_tiny_text(tmp_path / f"{name}-Q4_K_M.gguf")
    for name in ("mmproj-InternVL3_5-8B-f16", "InternVL3-8B.mmproj-f16", "mmproj-model-f16"):
        write_tiny_mmproj(tmp_path / f"{name}.gguf")
    for text_file, mmproj in (
        ("InternVL3_5-8B-Q4_K_M.gguf", "mmproj-InternVL3_5-8B-f16.gguf"),
        ("InternVL3-8B-Instruct-Q4_K_M.gguf", "InternVL3-8B.mmproj-f16.gguf"),
    ):
        assert resolve_model(tmp_path / text_file).mmproj.name == mmproj
    write_tiny_text(tmp_path / "InternVL3-14B-Q4_K_M.gguf")
    assert resolve_model(tmp_path / "InternVL3-14B-Q4_K_M.gguf").mmproj.name == "mmproj-model-f16.gguf"
    with pytest.raises(ModelFileError, match="several mmproj files"):
        resolve_model(tmp_path / "Other-Q4_K_M.gguf")


def test_an_mmproj_of_another_generation_of_the_same_width_is_refused_before_its_body(
    hub: LoopbackHub, tmp_path: Path
) -> None:
    """InternVL3-14B and InternVL3.5-14B are both 5120 wide."""
    new = write(tmp_path / "text.gguf", tiny_text(kind="qwen3", name="InternVL3_5 14B")).read_bytes()
    old = write(tmp_path / "old.gguf", tiny_mmproj(name="InternVL3 14B")).read_bytes()
    hub.add_repo("owner/mixed", {"InternVL3_5-14B-Q4_K_M.gguf": new, "mmproj-F16.gguf": old})
    with pytest.raises(ModelPairError, match=r"it is of InternVL3-14B, the text model of InternVL3\.5-14B") as refused:
        resolve_model("owner/mixed", resolver=resolver(hub, tmp_path / "cache"))
    assert "the repository the text model came from" in refused.value.hint
    assert not (tmp_path / "cache").exists()


def test_a_path_is_still_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "OpenGVLab" / "InternVL3_5-8B").mkdir(parents=True)
    found = parse_model_name("OpenGVLab/InternVL3_5-8B", load_catalog())
    assert found == LocalModel(Path("OpenGVLab/InternVL3_5-8B"))
