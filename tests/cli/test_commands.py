"""The `internvl` command as people run it: real processes, real exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from internvl_gguf.cli.command_list import COMMANDS
from internvl_gguf.cli.parameters import in_flags
from internvl_gguf.models.resolve import ModelFiles
from tests.support.pictures import noise

INTERNVL = [sys.executable, "-m", "internvl_gguf"]
FAST = ["-t", "1", "-n", "8"]


def run(*arguments: object, stdin: bytes | None = b"", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command; stdin is empty unless given, output decoded."""
    done = subprocess.run(
        [*INTERNVL, *map(str, arguments)],
        input=stdin,
        capture_output=True,
        env={**os.environ, "COLUMNS": "80", "NO_COLOR": "1", **environment},
        check=False,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def assert_two_lines(done: subprocess.CompletedProcess[str], code: int = 1) -> None:
    """What happened, what to do, nothing else."""
    assert done.returncode == code
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 2, done.stderr
    assert lines[0].startswith("Error: ")
    assert lines[1].startswith("  ")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "a picture.png"
    noise(1).save(path)
    return path


def test_the_answer_alone_is_on_stdout(tiny: ModelFiles, picture: Path) -> None:
    done = run("ask", tiny.text, "What is it?", "-i", picture, *FAST)
    assert done.returncode == 0
    assert done.stdout.endswith("\n")
    assert done.stderr.splitlines() in (
        [],
        ["The answer was cut at its limit; raise it with --max-tokens, or the context with --n-ctx."],
    )


def test_json_is_one_document(tiny: ModelFiles, picture: Path) -> None:
    done = run("ask", tiny.text, "What is it?", "-i", picture, "--mmproj", tiny.mmproj, "--json", *FAST)
    answer: dict[str, Any] = json.loads(done.stdout)
    kept = {
        "text",
        "thinking",
        "finish_reason",
        "usage",
        "timings",
        "notices",
        "boxes",
        "parsed",
        "tool_calls",
        "selection",
        "confidence",
    }
    assert answer.keys() == {"model", "prompt", "images", "clips", *kept}
    assert answer["usage"]["tiles"] == answer["usage"]["tiles_encoded"] == 13
    assert answer["usage"]["tiles_cached"] == 0
    assert answer["images"] == [str(picture)]
    assert answer["notices"] == []


def test_the_question_comes_through_a_pipe(tiny: ModelFiles) -> None:
    piped = run("ask", tiny.text, "-", "--json", *FAST, stdin="Wie heißt du?\n".encode())
    assert json.loads(piped.stdout)["prompt"] == "Wie heißt du?"
    alone = run("ask", tiny.text, "--json", *FAST, stdin=b"Who?")
    assert json.loads(alone.stdout)["prompt"] == "Who?"


def test_the_model_comes_from_the_environment(tiny: ModelFiles) -> None:
    done = run("ask", "Who are you?", "--json", *FAST, INTERNVL_MODEL=str(tiny.text))
    assert json.loads(done.stdout)["model"] == str(tiny.text)


def test_a_question_that_is_not_utf8_is_refused(tiny: ModelFiles) -> None:
    done = run("ask", tiny.text, "-", stdin=b"caf\xe9?")
    assert_two_lines(done)
    assert "byte 3 is 0xe9" in done.stderr


@pytest.mark.parametrize("name", ["missing.png", "empty.png", "text.png", "folder"])
def test_a_picture_that_is_none_is_refused(tiny: ModelFiles, tmp_path: Path, name: str) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "folder").mkdir()
    done = run("ask", tiny.text, "What?", "-i", tmp_path / name)
    assert_two_lines(done)
    assert name in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["ask", "no-such-model", "What?"],
        ["ask", "missing.gguf", "What?"],
        ["ask", "TEXT", "What?", "--mmproj", "missing.gguf"],
        ["ask", "TEXT", "What?", "--mmproj", "TEXT"],
        ["ask", "MMPROJ", "What?", "--mmproj", "MMPROJ"],
        ["ask", "TEXT", "What?", "-c", "64", "-i", "PICTURE"],
        ["ask", "TEXT", "What?", "-c", "1000000"],
        ["inspect", "missing.png"],
        ["inspect", "PICTURE", "--save", "/no/such/folder/grid.png"],
        ["inspect", "PICTURE", "--mmproj", "TEXT"],
    ],
)
def test_what_cannot_be_done_is_told_in_two_lines(tiny: ModelFiles, picture: Path, arguments: list[str]) -> None:
    names = {"TEXT": tiny.text, "MMPROJ": tiny.mmproj, "PICTURE": picture}
    assert_two_lines(run(*(names.get(argument, argument) for argument in arguments)))


@pytest.mark.parametrize(
    "arguments",
    [
        ["ask", "demo", "two", "questions"],
        ["ask", "demo", "What?", "--temperature", "-1"],
        ["ask", "demo", "What?", "--max-tiles", "0"],
        ["ask", "demo", "What?", "--kv-type", "q5"],
        ["ask", "demo", "What?", "-ngl", "some"],
        ["ask", "demo", "What?", "--threads", "0"],
        ["ask", "demo", "What?", "--no-such-option"],
        ["inspect"],
        ["inspect", "x.png", "--n-ctx", "0"],
        ["no-such-command"],
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_ctrl_c_while_the_command_line_is_imported_ends_with_130_and_no_traceback() -> None:
    """Its libraries take a third of a second to import, in which people press Ctrl-C, too."""
    script = (
        "import sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'typer':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "sys.argv[1:] = ['list']\n"
        "from internvl_gguf.cli import main\n"
        "main()\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")


def test_ctrl_c_ends_with_130_and_no_traceback(tiny: ModelFiles) -> None:
    child = subprocess.Popen(
        [*INTERNVL, "ask", str(tiny.text), "Tell me.", "-n", "100000", "--temperature", "2", "--top-k", "0", "-vv"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    assert child.stderr is not None
    for line in child.stderr:
        if b"llama_context" in line:
            break
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 130
    assert b"Traceback" not in errors


def test_a_text_model_without_an_encoder_beside_it_is_shown(tiny: ModelFiles, tmp_path: Path, picture: Path) -> None:
    """It was refused for the mmproj that the folder lacks."""
    alone = tmp_path / "alone" / "tiny.gguf"
    alone.parent.mkdir()
    alone.write_bytes(tiny.text.read_bytes())
    shown = run("show", alone)
    assert shown.returncode == 0, shown.stderr
    assert "bits a weight" in shown.stdout
    assert "none beside it: name one with --mmproj" in shown.stdout
    assert json.loads(run("show", alone, "--json").stdout)["files"]["mmproj"] is None
    assert_two_lines(run("inspect", picture, "--model", alone))


def test_inspect_says_when_a_file_is_replaced(tmp_path: Path) -> None:
    photo, saved = tmp_path / "photo.png", tmp_path / "grid.png"
    Image.new("RGB", (64, 48)).save(photo)
    first, second, machine = (run("inspect", photo, "--save", saved, *more) for more in ((), (), ("--json",)))
    assert first.stderr == f"Saved {saved}\n"
    assert second.stderr == machine.stderr == f"Replaced {saved}, which was there already\n"
    assert "text       128 tokens kept for your question (--prompt-tokens), 8 for labels" in second.stdout
    assert "context    3,330 of 8,192 tokens, 41%" in second.stdout


def test_inspect_shows_the_grid_of_the_model_card(tmp_path: Path) -> None:
    path = tmp_path / "wide.png"
    Image.new("RGB", (1920, 1080)).save(path)
    facts = json.loads(run("inspect", path, "--json").stdout)
    assert (facts["columns"], facts["rows"], facts["thumbnail"], facts["tiles"]) == (4, 2, True, 9)
    assert facts["visual_tokens"] == 9 * 256
    shown = run("inspect", path).stdout
    assert "4 x 2 tiles of 448 pixels + thumbnail" in shown


def test_inspect_with_a_models_own_tile_size(tiny: ModelFiles, picture: Path, tmp_path: Path) -> None:
    target = tmp_path / "grid.png"
    done = run("inspect", picture, "--model", tiny.text, "--json", "--save", target)
    facts = json.loads(done.stdout)
    assert (facts["tile_size"], facts["visual_tokens"], facts["saved"]) == (32, 13 * 4, str(target))
    with Image.open(target) as saved:
        assert saved.format == "PNG"


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Four pictures that InternVL3 sees in 9, 13, 5 and 4 tiles."""
    paths = [tmp_path / f"photo{number}.png" for number in range(1, 5)]
    for path, size in zip(paths, [(1920, 1080), (1024, 768), (800, 800), (600, 2000)], strict=True):
        Image.new("RGB", size).save(path)
    return paths


def test_inspect_of_one_picture_keeps_its_facts_at_the_top(photos: list[Path]) -> None:
    """Scripts read them there; several pictures are read from `pictures`, as one can be."""
    facts = json.loads(run("inspect", photos[0], "--json").stdout)
    assert facts.keys() >= {
        *("image", "width", "height", "encoder", "tile_size", "columns", "rows", "thumbnail", "tiles"),
        *("visual_tokens", "prompt_tokens", "n_ctx", "context_share"),
    }
    assert facts["prompt_tokens"] == 9 * 256 + 2
    assert facts["context_share"] == facts["prompt_tokens"] / 8192
    assert (facts["fits"], facts["fitted"], facts["notices"]) == (True, None, [])
    (picture,) = facts["pictures"]
    assert picture.items() <= facts.items()


def test_inspect_of_several_pictures_that_fit(photos: list[Path]) -> None:
    facts = json.loads(run("inspect", *photos, "--json").stdout)
    assert [picture["image"] for picture in facts["pictures"]] == [str(path) for path in photos]
    assert [picture["tiles"] for picture in facts["pictures"]] == [9, 13, 5, 4]
    assert "image" not in facts
    assert (facts["tiles"], facts["visual_tokens"], facts["prompt_tokens"]) == (31, 31 * 256, 31 * 256 + 4 * 2)
    assert (facts["layout"], facts["text_tokens"], facts["fits"]) == ("separate", 128 + 4 * 10, True)
    combined = json.loads(run("inspect", *photos, "--layout", "combined", "--json").stdout)
    assert combined["prompt_tokens"] == 31 * 256 + 2
    frames = json.loads(run("inspect", *photos, "--layout", "frames", "--json").stdout)
    assert frames["tiles"] == 4


def test_inspect_shows_how_pictures_would_be_fitted(photos: list[Path]) -> None:
    done = run("inspect", *photos, "-c", 4096, "--json")
    facts = json.loads(done.stdout)
    assert not facts["fits"]
    fitted = facts["fitted"]
    assert fitted["max_tiles"] == 3
    assert [picture["tiles"] for picture in fitted["pictures"]] == [3, 1, 1, 4]
    assert fitted["visual_tokens"] == 9 * 256
    assert facts["tiles"] == 31
    assert list(map(in_flags, facts["notices"])) == [done.stderr.strip()]
    shown = run("inspect", *photos, "-c", 4096)
    assert "context    7,944 of 4,096 tokens, 194%: does not fit" in shown.stdout
    assert "to fit     max_tiles 3 for each: 9 tiles, 2,304 visual tokens, 56%" in shown.stdout
    assert shown.stdout.count("\n  to fit") == 5
    assert "text       128 tokens kept for your question (--prompt-tokens), 32 for labels" in shown.stdout
    assert shown.stderr == done.stderr


def test_inspect_says_what_would_fit_where_fitting_does_not_help(photos: list[Path]) -> None:
    plain = run("inspect", *photos, "-c", 4096, "--no-fit-pictures")
    assert plain.returncode == 0
    assert "to fit" not in plain.stdout
    assert "--max-tiles" in plain.stderr
    tight = run("inspect", *photos, "-c", 512, "--json")
    facts = json.loads(tight.stdout)
    assert (facts["fits"], facts["fitted"], facts["notices"]) == (False, None, [])
    assert "1 of the 4 pictures or a context of 1,448 (--n-ctx)" in tight.stderr
    more = json.loads(run("inspect", *photos, "--prompt-tokens", 4000, "--json").stdout)
    assert more["fitted"]["max_tiles"] < 12


def test_inspect_goes_on_behind_a_broken_picture(photos: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    done = run("inspect", photos[0], broken, photos[1], "--json")
    facts = json.loads(done.stdout)
    assert done.returncode == 1
    assert [picture["image"] for picture in facts["pictures"]] == [str(photos[0]), str(photos[1])]
    assert [each["image"] for each in facts["unreadable"]] == [str(broken)]
    assert "Left out: " in done.stderr.splitlines()[-1]
    assert_two_lines(run("inspect", broken))


def test_inspect_sums_the_pictures_of_a_folder_up(tmp_path: Path) -> None:
    for number in range(21):
        noise(1, 64, 64 if number else 640).save(tmp_path / f"{number}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    shown = run("inspect", tmp_path, "--max-tiles", 2).stdout
    assert "21 pictures together" in shown
    assert "cut into   20 of 1 tile, 1 of 3 tiles" in shown
    assert len(shown.splitlines()) < 8
    (tmp_path / "empty").mkdir()
    assert_two_lines(run("inspect", tmp_path / "empty"))


def test_grids_of_several_pictures_are_saved_in_numbered_files(photos: list[Path], tmp_path: Path) -> None:
    target = tmp_path / "grid.png"
    facts = json.loads(run("inspect", *photos[:2], "-c", 2048, "--save", target, "--json").stdout)
    saved = [str(tmp_path / "grid-1.png"), str(tmp_path / "grid-2.png")]
    assert [picture["saved"] for picture in facts["pictures"]] == saved
    assert all(Path(path).exists() for path in saved)
    assert not target.exists()


def test_saving_a_grid_never_overwrites_a_picture(photos: list[Path], tmp_path: Path) -> None:
    photos[1].rename(tmp_path / "photo-2.png")
    done = run("inspect", photos[0], tmp_path / "photo-2.png", "--save", tmp_path / "photo.png")
    assert done.returncode == 2
    assert run("inspect", photos[0], "--save", photos[0]).returncode == 2
    assert not (tmp_path / "photo-1.png").exists()


def test_doctor_finds_everything_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    report = json.loads(run("doctor", "--json").stdout)
    assert report["library"]["problems"] == []
    assert report["library"]["position_correction_needed"] is True
    (cpu,) = (device for device in report["library"]["devices"] if device["kind"] == "cpu")
    assert cpu["free_bytes"] < cpu["total_bytes"], "all memory of a machine is never free"
    done = run("doctor")
    assert done.returncode == 0
    assert done.stdout.endswith("Everything is in place.\n")


@pytest.mark.parametrize(
    ("variable", "lost"),
    [
        ("INTERNVL_CACHE", "what was computed or measured is not kept"),
        ("INTERNVL_DATA", "no conversation is kept"),
        ("HF_HOME", "no model can be fetched"),
    ],
)
def test_doctor_says_which_folder_cannot_be_written(
    variable: str, lost: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It said "Everything is in place." and exited with 0 over a cache that nothing could be written to."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    (tmp_path / "file").touch()
    monkeypatch.setenv(variable, str(tmp_path / "file" / "folder"))
    done = run("doctor")
    assert done.returncode == 1
    (problem,) = (line for line in done.stdout.splitlines() if line.startswith("problem"))
    assert f"cannot be written: {lost}. Set {variable} to another folder." in problem
    assert "Everything is in place." not in done.stdout
    report = json.loads(run("doctor", "--json").stdout)
    assert len(report["problems"]) == 1
    assert report["library"]["problems"] == []
    assert not Path(tmp_path / "hub").exists(), "nothing is made to find out"


def test_doctor_says_when_the_library_is_another(tmp_path: Path) -> None:
    """The version is pinned because the layout of structures passed by value changes without notice."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.metadata as metadata\n"
        "version = metadata.version\n"
        "metadata.version = lambda name: '0.4.0' if name == 'llama-cpp-python' else version(name)\n"
    )
    done = run("doctor", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "llama-cpp-python is 0.4.0, not 0.3.36" in done.stdout


def test_a_reader_that_leaves_is_no_error(tiny: ModelFiles) -> None:
    with subprocess.Popen(
        [*INTERNVL, "ask", str(tiny.text), "Tell me.", *FAST], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        child.wait(timeout=60)
        assert b"Traceback" not in child.stderr.read()


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
def test_help_names_every_command_and_fits_the_terminal(columns: int) -> None:
    shown = run("--help", COLUMNS=str(columns)).stdout
    assert all(f"\n  {name} " in shown for name in COMMANDS)
    assert "..." not in shown.split("Commands:")[1]
    assert max(map(len, shown.splitlines()[1:])) < max(columns, 30)


def test_help_is_the_same_whoever_prints_it() -> None:
    """`--help` alone answers without the libraries of the command line; without arguments they are there."""
    shown = run("--help").stdout
    assert run("-h").stdout == shown
    bare = run()
    assert (bare.returncode, bare.stdout, bare.stderr) == (2, "", shown)
    assert run("--help", "ask").stdout == shown
    assert run("--version").stdout.startswith("internvl-gguf ")


@pytest.mark.parametrize(
    ("arguments", "happened", "where"),
    [
        (["aks"], "No such command 'aks'. Did you mean 'ask'?", "internvl"),
        (["--nonsense"], "No such option: --nonsense.", "internvl"),
        (["ask", "demo", "hi", "--max-tokens", "x"], "--max-tokens: 'x' is not a whole number.", "internvl ask"),
        (["ask", "demo", "hi", "--top-p", "y"], "--top-p: 'y' is not a number.", "internvl ask"),
        (["ask", "demo", "hi", "--flash-attn", "x"], "--flash-attn: 'x' is not one of", "internvl ask"),
        (["pick", "--vram"], "Option '--vram' requires an argument.", "internvl pick"),
        (["pull"], "Missing argument 'model'.", "internvl pull"),
        (["list", "extra"], "Got unexpected extra argument", "internvl list"),
        (["cache", "x"], "No such command 'x'.", "internvl cache"),
    ],
)
def test_a_wrong_command_line_is_told_in_two_lines(arguments: list[str], happened: str, where: str) -> None:
    done = run(*arguments)
    assert_two_lines(done, code=2)
    first, second = done.stderr.strip().splitlines()
    assert first.startswith(f"Error: {happened}")
    assert second == f"  See {where} --help."
