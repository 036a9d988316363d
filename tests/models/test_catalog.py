"""The catalogue: shipped entries, lookup by name, the user's own entries, and errors that name the line."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import platformdirs
import pytest

import internvl_gguf
from internvl_gguf import CatalogError, InvalidRequestError
from internvl_gguf.gguf.arch.base import TextShape, VisionShape
from internvl_gguf.models.catalog import Catalog, load_catalog, parse_catalog
from internvl_gguf.models.model_spec import CatalogFile
from internvl_gguf.utils import paths
from internvl_gguf.utils.sizes import format_size, parse_size

REPOSITORY = Path(__file__).parents[2]
LISTING = REPOSITORY / "tests" / "data" / "unsloth-internvl3-14b-instruct-gguf.tsv"
THREE = ("1B", "2B", "8B", "9B", "14B", "38B", "78B")
TWO_AND_A_HALF = ("1B", "2B", "4B", "8B", "26B", "38B", "78B")
THREE_AND_A_HALF = ("1B", "2B", "4B", "8B", "14B", "30B-A3B", "38B", "241B-A28B")
FLASH = ("1B", "2B", "4B", "8B", "14B", "30B-A3B", "38B")
LISTED = "InternVL3-14B-Instruct"


@pytest.fixture
def own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a person's catalogue stands in this test; not made yet."""
    monkeypatch.setenv("INTERNVL_CONFIG", str(tmp_path))
    return tmp_path / "models.toml"


@pytest.fixture
def shipped(own_file: Path) -> Catalog:
    return load_catalog()


def write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")


def listing_rows() -> list[list[str]]:
    lines = LISTING.read_text(encoding="utf-8").splitlines()
    return [line.split("\t") for line in lines if line and not line.startswith(("#", "file\t"))]


# --- What ships ---------------------------------------------------------------------------------------------------


def test_the_listed_repository_has_exactly_the_files_of_the_listing(shipped: Catalog) -> None:
    model = shipped.find(LISTED)
    assert model is not None
    assert {file.name: (file.size, file.exact) for file in model.files} == {
        name: (parse_size(f"{size} {unit}"), False) for name, _, size, unit in listing_rows()
    }
    assert len(model.files) == 27
    assert sum(file.name.startswith("mmproj-") for file in model.files) == 3
    assert f"repo {model.repo}, revision {model.revision};" in LISTING.read_text(encoding="utf-8")


def test_the_whole_family_is_there_once(shipped: Catalog) -> None:
    assert sorted(model.name for model in shipped) == sorted(
        [
            *(f"InternVL3-{size}{stage}" for size in THREE for stage in ("-Instruct", "", "-Pretrained")),
            *(f"InternVL2_5-{size}{stage}" for size in TWO_AND_A_HALF for stage in ("", "-MPO")),
            *(
                f"InternVL3_5-{size}{stage}"
                for size in THREE_AND_A_HALF
                for stage in ("", "-Instruct", "-MPO", "-Pretrained")
            ),
            *(f"InternVL3_5-{size}-Flash" for size in FLASH),
            "InternVL3_5-GPT-OSS-20B-A4B-Preview",
        ]
    )
    assert list(dict.fromkeys(model.generation for model in shipped)) == ["InternVL3.5", "InternVL3", "InternVL2.5"]


@pytest.mark.parametrize(
    ("size", "text"),
    [
        ("1B", TextShape("qwen2", 24, 896, 14, 2, 4864, 151674, 32768)),
        ("2B", TextShape("qwen2", 28, 1536, 12, 2, 8960, 151674)),
        ("8B", TextShape("qwen2", 28, 3584, 28, 4, 18944, 151674, 32768)),
        ("14B", TextShape("qwen2", 48, 5120, 40, 8, 13824)),
        ("38B", TextShape("qwen2", 64, 5120, 40, 8, 27648)),
        ("78B", TextShape("qwen2", 80, 8192, 64, 8, 29568, 151674, 32768)),
    ],
)
def test_both_variants_of_a_size_have_its_shapes(shipped: Catalog, size: str, text: TextShape) -> None:
    small = VisionShape(24, 1024, 16, 4096, 448, 14, 256, "layernorm")
    large = VisionShape(45, 3200, 25, 12800, 448, 14, 256, "rmsnorm")
    for name in (f"InternVL3-{size}", f"InternVL3-{size}-Instruct"):
        model = shipped.find(name)
        assert model.text == text
        assert model.vision == (large if size in ("38B", "78B") else small)
        assert model.unsupported is None


@pytest.mark.parametrize(
    ("size", "text", "kv_bytes"),
    [
        ("1B", TextShape("qwen3", 28, 1024, 16, 8, 3072, 151936, 40960, 128), 114_688),
        ("2B", TextShape("qwen3", 28, 2048, 16, 8, 6144, 151936, 40960, 128), 114_688),
        ("4B", TextShape("qwen3", 36, 2560, 32, 8, 9728, 151936, 40960, 128), 147_456),
        ("8B", TextShape("qwen3", 36, 4096, 32, 8, 12288, 151936, 40960, 128), 147_456),
        ("14B", TextShape("qwen3", 40, 5120, 40, 8, 17408, 151936, 40960, 128), 163_840),
        ("38B", TextShape("qwen3", 64, 5120, 64, 8, 25600, 151936, 40960, 128), 262_144),
        ("30B-A3B", TextShape("qwen3moe", 48, 2048, 32, 4, 6144, 151936, 40960, 128, 128, 8, 768), 98_304),
        ("241B-A28B", TextShape("qwen3moe", 94, 4096, 64, 4, 12288, 151936, 40960, 128, 128, 8, 1536), 192_512),
    ],
)
def test_heads_and_experts_of_the_newest_release(shipped: Catalog, size: str, text: TextShape, kv_bytes: int) -> None:
    for stage in ("", "-Instruct", "-MPO", "-Pretrained"):
        model = shipped.find(f"InternVL3_5-{size}{stage}")
        assert model is not None
        assert model.text == text
        assert model.vision is not None
        assert model.vision.norm == ("rmsnorm" if size in ("38B", "241B-A28B") else "layernorm")
    assert 2 * text.n_layers * text.kv_width * 2 == kv_bytes  # keys and values in F16


def test_what_does_not_run_says_why(shipped: Catalog) -> None:
    reasons = {model.name: model.unsupported for model in shipped if model.unsupported}
    assert len(reasons) == 7 + 1  # Flash; GPT-OSS
    for name, reason in reasons.items():
        assert ("router" if "Flash" in name else "GPT-OSS") in reason
    runs = {model.text.architecture for model in shipped if model.text and not model.unsupported}
    assert runs == {"qwen2", "qwen3", "qwen3moe", "internlm2", "llama"}


def test_scores_are_those_that_were_published(shipped: Catalog) -> None:
    model = shipped.find("InternVL3-8B")
    assert model is not None
    assert model.scores is not None
    assert "2504.10479" in model.scores.source
    assert model.scores.figures["ocrbench"] == 880
    points = model.scores.points()
    assert points["ocr"] == pytest.approx((88.0 + 92.7 + 76.8 + 80.2) / 4)
    assert points["charts"] == pytest.approx((86.6 + 76.8) / 2)
    assert points["reasoning"] == 62.7
    assert points["video"] == pytest.approx((66.3 + 75.4) / 2)
    assert points["grounding"] == 89.6


def test_a_task_with_a_figure_missing_is_unknown(shipped: Catalog) -> None:
    """Of InternVL2.5-4B only MMMU was seen, of 8B all but that."""
    four, eight = (shipped.find(f"InternVL2.5-{size}") for size in ("4B", "8B"))
    assert four is not None
    assert eight is not None
    assert four.scores is not None
    assert eight.scores is not None
    assert four.scores.points() == {"reasoning": 51.8}
    assert set(eight.scores.points()) == {"ocr", "charts", "video", "grounding"}


def test_scores_of_a_stage_are_its_own_or_marked_as_those_of_another(shipped: Catalog) -> None:
    for model in shipped:
        found = shipped.scores(model)
        of = model.name if model.scores else model.scores_of
        assert (found[0] if found else None) == of
        assert model.scores_of in (None, model.name.removesuffix("-Instruct"))
    instruct, trained = shipped.find("InternVL3-8B-Instruct"), shipped.find("InternVL3-8B")
    assert instruct is not None
    assert trained is not None
    assert instruct.scores is None
    assert shipped.scores(instruct) == ("InternVL3-8B", trained.scores)
    by_stage = [shipped.find(f"InternVL3.5-8B{stage}").scores for stage in ("-Instruct", "-MPO", "")]
    assert [scores.figures["reasoning"] for scores in by_stage] == [53.6, 56.3, 60.3]
    assert [scores.points().get("ocr") is not None for scores in by_stage] == [False, False, True]


def test_a_size_that_nobody_published_as_gguf_runs_all_the_same(shipped: Catalog) -> None:
    """llama.cpp's converter fails on InternLM3; a file made otherwise is loaded."""
    for name in ("9b", "9b-instruct"):
        model = shipped.find(name)
        assert model is not None
        assert (model.status, model.repo, model.unsupported) == ("none", None, None)


def test_status_says_how_much_is_known_of_a_repository(shipped: Catalog) -> None:
    assert [model.name for model in shipped if model.status == "listed"] == [LISTED]
    for model in shipped:
        assert bool(model.files) == (model.status == "listed")
        assert (model.repo is None) == (model.status == "none")
        if model.status == "documented":  # llama.cpp's docs name this owner's repositories
            assert model.repo.startswith("ggml-org/")


def test_a_wheel_and_a_source_distribution_carry_the_catalogue() -> None:
    build = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]
    assert build["targets"]["wheel"]["force-include"] == {"models.toml": "internvl_gguf/models.toml"}
    assert "models.toml" in build["targets"]["sdist"]["include"]
    assert (REPOSITORY / "models.toml").is_file()


def test_the_packaged_file_goes_before_the_checkout(
    own_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "models.toml", '[[model]]\nname = "packaged"\n')
    monkeypatch.setattr("internvl_gguf.models.catalog.resources.files", lambda package: tmp_path)
    monkeypatch.setenv("INTERNVL_CONFIG", str(tmp_path / "none"))
    assert [model.name for model in load_catalog()] == ["packaged"]


def test_an_installation_without_a_catalogue_says_so(
    own_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("internvl_gguf.models.catalog.resources.files", lambda package: tmp_path)
    monkeypatch.setattr(
        "internvl_gguf.models.catalog.__file__", str(tmp_path / "src" / "internvl_gguf" / "models" / "catalog.py")
    )
    with pytest.raises(CatalogError, match="missing from this installation") as raised:
        load_catalog()
    assert raised.value.line is None


def test_importing_the_catalogue_loads_no_heavy_library() -> None:
    heavy = ("numpy", "huggingface_hub", "PIL", "llama_cpp", "gguf")
    script = (
        "import sys; from internvl_gguf.models.catalog import load_catalog; load_catalog();"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_the_error_is_exported() -> None:
    assert internvl_gguf.CatalogError is CatalogError
    assert internvl_gguf.__all__ == sorted(internvl_gguf.__all__, key=lambda name: (name.islower(), name))


# --- Names --------------------------------------------------------------------------------------------------------


def test_every_spelling_finds_its_model(shipped: Catalog) -> None:
    for model in shipped:
        for spelling in (model.name, *model.aliases):
            for written in (spelling, spelling.lower(), spelling.upper(), f" {spelling} "):
                assert shipped.find(written) is model


def test_no_spelling_is_shared(shipped: Catalog) -> None:
    spellings = [spelling.lower() for model in shipped for spelling in model.spellings]
    assert len(spellings) == len(set(spellings))


@pytest.mark.parametrize("name", ["", "InternVL3", "InternVL3-14B-Instruct:Q4_K_M", "demo"])
def test_what_is_no_name_finds_nothing(shipped: Catalog, name: str) -> None:
    assert shipped.find(name) is None


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("InternVL3-14B-Instrukt", "InternVL3-14B-Instruct"),
        ("intervl3-8b", "InternVL3-8B"),
        ("14b_instruct", "InternVL3-14B-Instruct"),
        ("InternVL-38B", "InternVL3-38B-Instruct"),
        ("7b", "InternVL3-8B-Instruct"),
    ],
)
def test_the_nearest_name_comes_first(shipped: Catalog, typed: str, meant: str) -> None:
    nearest = shipped.nearest(typed)
    assert nearest[0] == meant
    assert all(spec.repo for spec in shipped if spec.name in nearest), "what can be fetched"
    assert len(nearest) == len(set(nearest)) <= 3


def test_nothing_is_near_to_another_word(shipped: Catalog) -> None:
    assert shipped.nearest("chair") == []


# --- A person's own file ------------------------------------------------------------------------------------------


def test_an_own_entry_is_added_at_the_end(own_file: Path, shipped: Catalog) -> None:
    write(own_file, '[[model]]\nname = "Mine"\naliases = ["m"]\nrepo = "me/Mine-GGUF"\n')
    catalog = load_catalog()
    assert [*shipped, catalog.find("M")] == list(catalog)
    mine = catalog.find("mine")
    assert (mine.repo, mine.revision, mine.status, mine.files) == ("me/Mine-GGUF", "main", "named", ())
    assert mine.origin == str(own_file)


def test_an_own_entry_replaces_the_shipped_one_in_its_place(own_file: Path, shipped: Catalog) -> None:
    write(
        own_file,
        """
        [[model]]
        name = "internvl3-14b-instruct"
        repo = "me/Finetuned-GGUF"
        revision = "v2"
        files = [
            { name = "a/tuned-Q4_K_M.gguf", bytes = 12_345 },
            { name = "mmproj-F16.gguf", listed = "672.66 MiB" },
        ]
        """,
    )
    catalog = load_catalog()
    assert len(catalog) == len(shipped)
    mine, replaced = catalog.find(LISTED), shipped.find(LISTED)
    assert mine is not None
    assert replaced is not None
    assert list(catalog).index(mine) == list(shipped).index(replaced)
    assert (mine.repo, mine.revision, mine.status) == ("me/Finetuned-GGUF", "v2", "listed")
    assert mine.files == (
        CatalogFile("a/tuned-Q4_K_M.gguf", 12_345, True),
        CatalogFile("mmproj-F16.gguf", parse_size("672.66MiB"), False),
    )
    assert catalog.find("14B-Instruct") is None  # the alias went with the entry that had it


def test_a_spelling_chosen_in_the_own_file_is_taken_from_the_shipped_model(own_file: Path) -> None:
    write(own_file, '[[model]]\nname = "Mine"\naliases = ["14b"]\n[[model]]\nname = "8b"\n')
    catalog = load_catalog()
    assert catalog.find("14B").name == "Mine"
    assert catalog.find("8B").name == "8b"
    assert catalog.find("InternVL3-14B").aliases == ()


def test_an_own_alias_cannot_hide_a_shipped_name(own_file: Path) -> None:
    write(own_file, '[[model]]\nname = "Mine"\naliases = [\n  "fine",\n  "internvl3-8b",\n]\n')
    with pytest.raises(CatalogError, match="model 1, aliases 2: the alias 'internvl3-8b'"):
        load_catalog()


def test_text_and_vision_are_read_in_every_form_of_toml(own_file: Path) -> None:
    write(
        own_file,
        """\ufeff[[model]]
        "name" = 'Mine'
        text.architecture = "qwen2"
        text.layers = 2
        text.width = 3
        text.heads = 4
        text.kv_heads = 5
        text.ffn = 6
        vision = {layers=1, width=2, heads=3, ffn=4, tile=5, patch=6, tokens_per_tile=7, norm="rmsnorm"}
        """,
    )
    mine = load_catalog().find("Mine")
    assert mine.text == TextShape("qwen2", 2, 3, 4, 5, 6)
    assert mine.vision == VisionShape(1, 2, 3, 4, 5, 6, 7, "rmsnorm")


def test_sizes_of_experts_and_heads_are_read_where_they_are_given(own_file: Path) -> None:
    write(
        own_file,
        """[[model]]
        name = "Mine"
        text.architecture = "qwen3moe"
        text.layers = 48
        text.width = 2048
        text.heads = 32
        text.kv_heads = 4
        text.ffn = 6144
        text.head_width = 128
        text.experts = 128
        text.experts_used = 8
        text.expert_ffn = 768
        """,
    )
    mine = load_catalog().find("Mine")
    assert mine is not None
    assert mine.text == TextShape("qwen3moe", 48, 2048, 32, 4, 6144, None, None, 128, 128, 8, 768)


def test_an_own_entry_may_name_a_shape_of_the_shipped_file_or_its_own(own_file: Path, shipped: Catalog) -> None:
    write(
        own_file,
        """
        [text.tuned]
        architecture = "qwen3"
        layers = 2
        width = 3
        heads = 4
        kv_heads = 5
        ffn = 6
        [[model]]
        name = "Mine"
        text = "Qwen3-8B"
        vision = "InternViT-300M"
        [[model]]
        name = "Other"
        text = "tuned"
        scores = { source = "my own measurement", chartqa = 50, infovqa = 70.5 }
        """,
    )
    catalog = load_catalog()
    mine, other, published = catalog.find("Mine"), catalog.find("Other"), shipped.find("InternVL3_5-8B")
    assert mine is not None
    assert other is not None
    assert published is not None
    assert (mine.text, mine.vision) == (published.text, published.vision)
    assert other.text == TextShape("qwen3", 2, 3, 4, 5, 6)
    assert other.scores is not None
    assert other.scores.points() == {"charts": 60.25}


def test_an_empty_own_file_changes_nothing(own_file: Path, shipped: Catalog) -> None:
    write(own_file, "# nothing yet\n")
    assert load_catalog() == shipped


def test_an_own_file_that_cannot_be_read_is_named(own_file: Path) -> None:
    own_file.mkdir()
    with pytest.raises(CatalogError) as raised:
        load_catalog()
    assert str(own_file) in raised.value.message
    assert (raised.value.file, raised.value.line) == (str(own_file), None)


@pytest.mark.parametrize(
    ("native_there", "documented_there"), [(False, False), (True, False), (False, True), (True, True)]
)
def test_the_settings_folder_is_the_systems_or_the_documented_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, native_there: bool, documented_there: bool
) -> None:
    native, documented = tmp_path / "native", tmp_path / ".config" / "internvl"
    for folder, there in ((native, native_there), (documented, documented_there)):
        if there:
            folder.mkdir(parents=True)
    monkeypatch.delenv("INTERNVL_CONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setattr(platformdirs, "user_config_dir", lambda name: str(native))
    assert paths.config_dir() == (documented if documented_there and not native_there else native)


def test_the_settings_folder_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERNVL_CONFIG", str(tmp_path / "here"))
    assert paths.config_dir() == tmp_path / "here"


# --- Mistakes -----------------------------------------------------------------------------------------------------

FILE = '  {name = "a.gguf", bytes = 1},'
VISION = ("layers=1", "width=1", "heads=1", "ffn=1", "tile=1", "patch=1", "tokens_per_tile=1")
TEXT = 'architecture = "qwen2"\nlayers = 1\nwidth = 1\nheads = 1\nkv_heads = 1\nffn = 1\n'
GOOD = '# first\n[[model]]\nname = "good"\n'  # three lines before the entry with the mistake


def entry(*lines: str) -> str:
    """A file whose fourth line begins an entry; `lines` stand from line six on."""
    return GOOD + "\n".join(["[[model]]", 'name = "bad"', *lines]) + "\n"


# Name, file, the line of what is no TOML or else the place (after a dot: in the second model), and what is said.
MISTAKES: list[tuple[str, str, int | str, str]] = [
    # form of the file
    ("not TOML", entry("repo = owner/name"), 6, "not TOML"),
    ("ends too early", entry('repo = "owner'), 6, "not TOML"),
    ("never closed", entry("aliases = [", '  "a",'), 7, "not TOML"),
    ("key twice", entry('repo = "a/b"', 'repo = "a/b"'), 7, "not TOML"),
    ("not UTF-8", entry('licence = "caf\udce9"'), 6, "not UTF-8"),
    ("one table", '\n[model]\nname = "bad"\n', "model", "[model] is one table"),
    ("no tables", "\n\nmodel = 3\n", "model", "'model' is a whole number"),
    ("list of words", '\nmodel = [\n  "bad",\n]\n', "model 1", "an entry of 'model' is text"),
    # unknown keys
    ("unknown top key", "\n" + '[[models]]\nname = "bad"\n', "models", "unknown key 'models'"),
    ("unknown key", entry('license = "mit"'), ".license", "unknown key 'license'"),
    ("key after strings", entry('licence = """', "repo = 1", '"""', "# layers", 'reop = "a/b"'), ".reop", "reop"),
    ("unknown key after a literal", entry("licence = '''", "[x]", "'''", 'reop = "a/b"'), ".reop", "unknown key"),
    ("quoted key", entry('"re\\u006fp" = "a/b"'), ".reop", "unknown key 'reop'"),
    ("in a table", entry("", "[model.text]", TEXT + "layer = 3"), ".text.layer", "unknown key 'layer'"),
    ("in a dotted key", entry("text . layer = 3"), ".text.layer", "unknown key 'layer'"),
    ("in an inline table", entry("text = { layer = 3 }"), ".text.layer", "unknown key 'layer'"),
    ("in a list", entry("files=[", FILE + " # [", '  {name = "b.gguf", size = 1},', "]"), ".files 2, size", "unknown"),
    ("in a table list", entry("[[model.files]]", "name='a.gguf'", "bytes=1", "[[model.files]]", "nam=1"),
     ".files 2, nam", "unknown key 'nam'"),
    # wrong kinds
    ("number for text", entry("repo = 3"), ".repo", "'repo' is a whole number, not text"),
    ("text for list", entry('aliases = "a"'), ".aliases", "'aliases' is text, not a list"),
    ("number in a list", entry("aliases = [", '  "a, ]", # "', "", "  3,", "]"), ".aliases 2", "an entry of 'aliases'"),
    ("list in a list", entry("aliases = [ 'a',", "  ['b'] ]"), ".aliases 2", "an entry of 'aliases' is a list"),
    ("text for number", entry('parameters = "8B"'), ".parameters", "'parameters' is text"),
    ("fraction", entry("parameters = 1.5e9"), ".parameters", "'parameters' is a number, not a whole number"),
    ("truth", entry("parameters = true"), ".parameters", "'parameters' is true or false"),
    ("date", entry("revision = 2025-05-01 07:32:00"), ".revision", "'revision' is a date or time"),
    ("zero", entry("", "[model.text]", TEXT.replace("heads = 1", "heads = 0", 1)), ".text.heads", "'heads' is 0"),
    ("number for table", entry("vision = 6"), ".vision", "'vision' is a whole number, not a table"),
    ("unknown shape", entry('vision = "big"'), ".vision", "there is no shape 'big'"),
    ("shapes in a list", "\n[[text]]\nlayers = 1\n", "text", "'text' is a list, not a table of tables"),
    ("a shape that lacks a size", "\n[vision.small]\nlayers = 1\n", "vision.small", "'width' is missing"),
    ("scores without a source", entry("scores = { mmmu = 50 }"), ".scores", "'source' is missing"),
    ("another benchmark", entry('scores = { source = "x", mmm = 50 }'), ".scores.mmm", "unknown key 'mmm'"),
    ("text as a score", entry('scores = { source = "x", mmmu = "50" }'), ".scores.mmmu", "'mmmu' is text"),
    ("too good a score", entry('scores = { source = "x", mmmu = 101 }'), ".scores.mmmu", "'mmmu' is 101"),
    ("a score of nothing", entry('scores = { source = "x", mmmu = 0 }'), ".scores.mmmu", "'mmmu' is 0"),
    ("list of numbers for files", entry("files = [1]"), ".files 1", "an entry of 'files' is a whole number"),
    ("another norm", entry("", "[model.vision]", *VISION, 'norm = "batch"'), ".vision.norm", "'norm' is 'batch'"),
    ("another status", entry('status = "known"'), ".status", "'status' is 'known'"),
    ("empty text", entry('licence = " "'), ".licence", "'licence' is empty"),
    # missing keys: the place of the table that lacks it
    ("no name", GOOD + '\n[[model]]\nrepo = "a/b"\n', ".", "'name' is missing"),
    ("no architecture", entry("", "[model.text] # shape", "layers = 1"), ".text", "'architecture' is missing"),
    ("no norm", entry("", f"vision = {{ {', '.join(VISION)} }}"), ".vision", "'norm' is missing"),
    ("no file name", entry("files = [", FILE, "  {bytes = 1},", "]"), ".files 2", "'name' is missing"),
    ("no repo", entry('status = "named"'), ".", "'repo' is missing"),
    # sizes
    ("bad size", entry("files = [", '  {name = "a.gguf", listed="8.48 GB?"},', "]"), ".files 1, listed", "not a size"),
    ("no unit", entry('files = [{name = "a.gguf", listed = "8.48"}]'), ".files 1, listed", "no unit"),
    ("number as listed", entry("files = [{name = 'a.gguf', listed = 8.48}]"), ".files 1, listed", "is a number"),
    ("text as bytes", entry("[[model.files]]", 'name = "a.gguf"', 'bytes = "8 GiB"'), ".files 1, bytes", "is text"),
    ("no size", entry("[[model.files]]", 'name = "a.gguf"'), ".files 1", "the size of 'a.gguf' is missing"),
    ("two sizes", entry("[[model.files]]", 'name = "a.gguf"', "bytes = 1", 'listed = "1 B"'), ".files 1", "twice"),
    # meanings
    ("name twice", GOOD + '\n[[model]]\nname = "GOOD"\n', ".name", "'GOOD' is already a name, at model 1, name"),
    ("alias is a name", entry('aliases = ["b",', '  "Good"]'), ".aliases 2", "already a name, at model 1, name"),
    ("alias twice", entry('aliases = ["b",', '  "c",', '  "B"]'), ".aliases 3", "at model 2, aliases 1"),
    ("alias is its name", entry('aliases = ["BAD"]'), ".aliases 1", "'BAD' is already a name, at model 2, name"),
    ("name with a quant", GOOD + '[[model]]\nname = "a:Q4_K_M"\n', ".name", "cannot be the name of a model"),
    ("name of the demo", GOOD + '[[model]]\nname = "Demo"\n', ".name", "cannot be the name of a model"),
    ("alias with a slash", entry('aliases = ["a/b"]'), ".aliases 1", "cannot be the name of a model"),
    ("name of a file", entry('aliases = ["a.gguf"]'), ".aliases 1", "cannot be the name of a model"),
    ("no owner", entry('repo = "InternVL3"'), ".repo", "is not a repository"),
    ("other repo", entry('repo = "a/b"', "other_repos = [", '  "https://x/y",', "]"), ".other_repos 1", "not a repo"),
    ("file twice", entry("files=[{name='a.gguf',bytes=1},", " {name='a.gguf',bytes=1}]"), ".files 2, name", "twice"),
    ("file outside", entry("files=[{name='../a.gguf',bytes=1}]"), ".files 1, name", "is not the path of a .gguf file"),
    ("file from the root", entry("files=[{name='/a.gguf',bytes=1}]"), ".files 1, name", "is not the path"),
    ("file of another kind", entry("files=[{name='a.exe',bytes=1}]"), ".files 1, name", "is not the path"),
    ("listed without files", entry('repo = "a/b"', 'status = "listed"'), ".status", "there are no files"),
    ("files but named", entry('repo = "a/b"', f"files=[{FILE}]", 'status = "named"'), ".status", "files are listed"),
    ("repo but none", entry('repo = "a/b"', 'status = "none"'), ".status", "a repo is given"),
]  # fmt: skip


@pytest.mark.parametrize("ending", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize(("text", "place", "what"), [case[1:] for case in MISTAKES], ids=[case[0] for case in MISTAKES])
def test_a_mistake_is_told_with_its_file_and_place(
    own_file: Path, text: str, place: int | str, what: str, ending: str
) -> None:
    own_file.write_bytes(text.replace("\n", ending).encode("utf-8", "surrogateescape"))
    with pytest.raises(CatalogError) as raised:
        load_catalog()
    error = raised.value
    assert what in error.message
    assert (error.file, error.line) == (str(own_file), place if isinstance(place, int) else None)
    shown = f"line {place}" if isinstance(place, int) else re.sub(r"^\.", "model 2, ", place).removesuffix(", ")
    assert error.message.startswith(f"{own_file}, {shown}: ")
    assert error.hint
    assert "\n" not in f"{error}"


@pytest.mark.parametrize(
    ("written", "meant"), [("license", "licence"), ("alias", "aliases"), ("Revision", "revision"), ("other", None)]
)
def test_the_nearest_known_key_is_suggested(written: str, meant: str | None) -> None:
    with pytest.raises(CatalogError) as raised:
        parse_catalog(f'[[model]]\nname = "a"\n{written} = 1\n'.encode(), "models.toml")
    assert (f"Did you mean {meant!r}?" in raised.value.hint) == (meant is not None)
    assert "Known keys: name, aliases" in raised.value.hint


@pytest.mark.parametrize("opening", ["[", "{a="])
def test_brackets_without_end_are_an_error_of_ours(opening: str) -> None:
    with pytest.raises(CatalogError):
        parse_catalog(f"model = {opening * 100_000}".encode(), "models.toml")


def test_a_number_of_thousands_of_digits_is_an_error_of_ours() -> None:
    with pytest.raises(CatalogError):
        parse_catalog(b"model = " + b"9" * 100_000, "models.toml")


@pytest.mark.parametrize("depth", range(200, 520, 8))
def test_a_file_nested_as_deep_as_toml_is_read_has_an_error_of_ours(depth: int) -> None:
    with pytest.raises(CatalogError):
        parse_catalog(f"model = {'[' * depth}{']' * depth}".encode(), "models.toml")


# --- Sizes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8.48 GiB", 9_105_330_668),
        ("12GB", 12 * 10**9),
        ("12 GiB", 12 * 2**30),
        ("12GiB", 12 * 2**30),
        (" 12  gib ", 12 * 2**30),
        ("500MiB", 500 * 2**20),
        ("500mb", 500 * 10**6),
        ("1.5G", 3 * 2**29),
        ("2 t", 2**41),
        ("3KiB", 3072),
        ("0.5 KB", 500),
        ("7 B", 7),
        ("1 PiB", 2**50),
    ],
)
def test_a_size_is_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["", " ", "12", "12.5", "-1", "-1GiB", "0", "0GiB", "0.2B", "nan", "nan GiB", "inf", "inf GiB", "lots", "GiB",
     ".5 GiB", "8.48 GB?", "8,48 GiB", "1e3 GiB", "12 GiBs", "12 G i B", "12 bananas", "\u0661 GiB", f"{'9' * 99} GiB"],
)  # fmt: skip
def test_what_is_no_size_is_refused_with_a_way_to_write_it(text: str) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        parse_size(text)
    assert "GiB" in raised.value.hint


def test_a_number_without_a_unit_is_told_to_take_one() -> None:
    with pytest.raises(InvalidRequestError, match="no unit") as raised:
        parse_size("12")
    assert '"12GiB"' in raised.value.hint


def test_a_caller_may_choose_the_unit_of_bare_numbers() -> None:
    assert parse_size("12", default_unit="GiB") == 12 * 2**30
    assert parse_size("12MB", default_unit="GiB") == 12 * 10**6
    for text in ("0", "-1", "nan", "lots"):
        with pytest.raises(InvalidRequestError):
            parse_size(text, default_unit="GiB")


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (705_335_132, "672.66 MiB"),
        (9_105_330_668, "8.48 GiB"),
        (2**30 - 1, "1.00 GiB"),
        (2**40, "1.00 TiB"),
        (3 * 2**50, "3.00 PiB"),
    ],
)
def test_a_size_is_written_in_the_unit_people_would_choose(size: int, text: str) -> None:
    assert format_size(size) == text


def test_every_size_of_the_listing_is_written_as_the_listing_has_it() -> None:
    for _, _, size, unit in listing_rows():
        assert format_size(parse_size(f"{size} {unit}")) == f"{size} {unit}"
