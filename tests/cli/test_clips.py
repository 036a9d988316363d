"""Clips on the command line: asked about like pictures, in lines of a batch, and shown by `inspect`."""

from __future__ import annotations

import base64
import importlib.metadata
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from internvl_gguf import Question, SamplingParams, Session, Video
from internvl_gguf.bulk.clip_fields import ClipOptionsError
from internvl_gguf.bulk.common import Common
from internvl_gguf.bulk.lines import Line
from internvl_gguf.cli.completion import answer
from internvl_gguf.cli.prompt_pictures import find_pictures
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.models.resolve import ModelFiles
from internvl_gguf.video.clip_wishes import ClipWishes
from internvl_gguf.video.formats import is_clip
from tests.cli.test_batch_lines import SPEED, Run, records, run
from tests.cli.test_batch_lines import told as estimated
from tests.cli.test_commands import FAST, assert_two_lines
from tests.cli.test_commands import run as run_alone
from tests.cli.test_pictures_named import needs_pipes, pipe_of
from tests.support.clips import clip, sound_alone
from tests.support.damaged_clips import GROUPS, spoilt
from tests.support.pictures import encoded, noise

__all__ = ["run"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with clips, and with what looks like some."""
    folder = tmp_path_factory.mktemp("clips")
    film = clip()
    files = {
        "film.mp4": film,
        "same film": film,
        "other.webm": clip("webm", "libvpx", frames=8),
        "one.mp4": clip(frames=1),
        "none.mkv": clip("matroska", frames=0),
        "sound.mp4": sound_alone(),
        "codec.mp4": film.replace(b"avc1", b"zz9y"),
        "list.m3u8": b"#EXTM3U\nhttp://example.org/1.ts\n",
        "cut.mp4": film[: len(film) // 2],
        "empty.mp4": b"",
        "photo.png": encoded(noise(1), "PNG"),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    noise(1).save(folder / "moves.gif", save_all=True, append_images=[noise(2), noise(3)], duration=100)
    return folder


@pytest.fixture
def ask(run: Run, tiny: ModelFiles, made: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Ask the tiny model in the folder of clips, and return the document of `--json`."""
    monkeypatch.chdir(made)

    def asked(*arguments: object) -> dict[str, Any]:
        done = run("ask", tiny.text, "--json", *FAST, *arguments)
        assert done.returncode == 0, done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    return asked


def shown(document: dict[str, Any]) -> list[list[int]]:
    """The numbers of the frames of each clip."""
    return [[frame["index"] for frame in each["frames"]] for each in document["clips"]]


# internvl ask


def test_json_has_the_frames_with_their_times(ask: Any) -> None:
    told = ask("What happens?", "-i", "photo.png", "--video", "film.mp4", "--frames", 2, "--max-tiles", 1)
    frames = [{"image": 1, "index": 9, "time": 0.36}, {"image": 2, "index": 29, "time": 1.16}]
    assert told["clips"] == [{"name": "film.mp4", "frames": frames}]
    assert told["images"] == ["photo.png", "film.mp4 at 0.4 s", "film.mp4 at 1.2 s"]
    assert told["images"][frames[1]["image"]] == "film.mp4 at 1.2 s"


def test_the_answer_is_that_of_the_session(ask: Any, tiny: ModelFiles) -> None:
    told = ask("When?", "--video", "film.mp4", "--frames", 3, "--start", "0:00.4", "--end", 1.2, "--frame-times")
    with Session.open(tiny.text, tiny.mmproj, n_threads=1) as session:
        wanted = Video("film.mp4", frames=3, start=0.4, end=1.2)
        reply = session.ask("When?", wanted, frame_times=True, max_tokens=8)
    assert (told["text"], told["usage"]["prompt_tokens"]) == (reply.text, reply.usage.prompt_tokens)
    assert told["clips"] == [each.to_dict() for each in reply.clips]


@pytest.mark.parametrize("name", ["film.mp4", "same film", "other.webm"])
def test_a_picture_that_is_a_clip_is_one_whatever_its_name(ask: Any, name: str) -> None:
    assert len(shown(ask("What happens?", "-i", name))[0]) == 8


def test_an_animation_is_a_clip_only_where_it_is_called_one(ask: Any) -> None:
    assert ask("What is it?", "-i", "moves.gif", "--max-tiles", 1)["clips"] == []
    assert shown(ask("What is it?", "--video", "moves.gif", "--frames", 2)) == [[0, 1]]


def test_an_animation_that_is_given_as_a_picture_is_said_to_be_one(run: Run, tiny: ModelFiles, made: Path) -> None:
    for command in (["ask", tiny.text, "What?", "-i", made / "moves.gif", *FAST], ["inspect", made / "moves.gif"]):
        assert "is animated" in run(*command).stderr.replace("\n", " ")
        done = run(*command, "--frames", 4)
        assert done.returncode == 2
        assert "moves.gif with --video" in done.stderr.replace("\n", " ")
    assert "is animated" not in run("inspect", made / "photo.png").stderr


@pytest.mark.parametrize("name", ["list.m3u8", "empty.mp4", "stream.ts", "words.mp4"])
def test_a_clip_that_cannot_be_read_is_told_as_video_tells_it(run: Run, tmp_path: Path, name: str) -> None:
    """By -i, by inspect and in the question, too: not that it is to be a PNG."""
    contents = {"list.m3u8": b"#EXTM3U\n1.ts\n", "stream.ts": (b"\x47" + bytes(187)) * 3, "words.mp4": b"no clip"}
    path = tmp_path / name
    path.write_bytes(contents.get(name, b""))
    wanted = run("ask", "demo", "What?", "--video", path).stderr
    assert "PNG" not in wanted.replace("APNG", "")
    assert run("ask", "demo", "What?", "-i", path).stderr == wanted
    assert run("inspect", path).stderr == wanted
    assert wanted in run("ask", "demo", f"What comes first in {path}?").stderr


def test_a_damaged_clip_is_told_of_by_ask_and_by_inspect(run: Run, tiny: ModelFiles, tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    film.write_bytes(spoilt(clip(size=(320, 240), frames=20, options={**GROUPS, "g": "1000"}), 3))
    for command in (
        ["ask", tiny.text, "What?", "--video", film, "--frames", 2, *FAST],
        ["inspect", film, "--frames", 2],
    ):
        assert "is damaged: all 2 frames shown may look wrong." in run(*command).stderr.replace("\n", " ")


def test_a_clip_is_found_in_the_question_and_among_the_words(ask: Any) -> None:
    told = ask("What happens in film.mp4?", "--fps", 2)
    assert (told["prompt"], shown(told)) == ("What happens in the video?", [[6, 19, 32]])
    told = ask("What happens?", "film.mp4", "--frames", 1)
    assert (told["prompt"], shown(told)) == ("What happens?", [[19]])


def test_clips_and_pictures_are_counted_apart(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their labels are: "Image-1" beside "Video-1"."""
    monkeypatch.chdir(made)
    found = find_pictures("Is photo.png in film.mp4 or other.webm?", [])
    assert found.question == "Is the picture in video 1 or video 2?"
    found = find_pictures("Is moves.gif like ./film.mp4 and photo.png?", ["photo.png", "-"], ["moves.gif"])
    assert found.question == "Is video 1 like video 2 and picture 1?"
    assert found.paths == (Path("film.mp4"),)


def test_a_clip_comes_on_stdin_and_in_a_uri(run: Run, tiny: ModelFiles, made: Path) -> None:
    data = (made / "film.mp4").read_bytes()
    uri = f"data:video/mp4;base64,{base64.b64encode(data).decode()}"
    for given in (["-i", "-"], ["--video", "-"], ["-i", uri], ["--video", (made / "film.mp4").as_uri()]):
        done = run("ask", tiny.text, "What?", *given, "--frames", 2, "--json", *FAST, stdin=data)
        assert shown(json.loads(done.stdout)) == [[9, 29]], done.stderr


def test_what_users_should_know_is_on_stderr(run: Run, tiny: ModelFiles, made: Path) -> None:
    film, one = made / "film.mp4", made / "one.mp4"
    done = run("ask", tiny.text, "What?", "--video", film, "--frames", "auto", "-c", 400, "-v", *FAST)
    assert f"of the 40 frames of {film} are shown." in done.stderr.replace("\n", " ")
    assert "pictures 0, frames " in done.stderr
    done = run("ask", tiny.text, "What?", "--video", one, "--frames", 2, *FAST)
    assert "has 1 frame; of the 2 that are shown, some are the same." in done.stderr.replace("\n", " ")


@needs_pipes
def test_a_clip_comes_through_a_pipe(run: Run, tiny: ModelFiles, made: Path, tmp_path: Path) -> None:
    """It is looked at before the model is loaded, and read after that, though a pipe gives its bytes once."""
    for option in ("-i", "--video"):
        with pipe_of((made / "film.mp4").read_bytes(), tmp_path / option) as pipe:
            done = run("ask", tiny.text, "What?", option, pipe, "--frames", 2, "--json", *FAST)
        document = json.loads(done.stdout)
        assert shown(document) == [[9, 29]]
        assert document["clips"][0]["name"] == str(pipe)


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"\0\0\0\x20ftypisom", True),
        (b"\0\0\0\x14ftypqt  ", True),
        (b"\0\0\0\x08moov", True),
        (b"\x1a\x45\xdf\xa3", True),
        (b"RIFF\0\0\0\0AVI ", True),
        (b"\0\0\0\x20ftypavif", False),
        (b"\0\0\0\x20ftypavis", False),
        (b"\0\0\0\x20ftypheic", False),
        (b"GIF89a", False),
        (b"RIFF\0\0\0\0WEBP", False),
        (b"\x89PNG\r\n\x1a\n", False),
        (b"#EXTM3U", False),
        (b"", False),
    ],
)
def test_stills_and_animations_given_as_pictures_stay_pictures(head: bytes, expected: bool) -> None:
    assert is_clip(head) == expected


BAD = [
    ("absent.mp4", "there is no such file"),
    ("sound.mp4", "it has sound and no moving pictures"),
    ("none.mkv", "Cannot use none.mkv"),
    ("empty.mp4", "it is empty"),
    ("codec.mp4", "an unknown codec"),
    ("list.m3u8", "a list of other files"),
    ("cut.mp4", "it is damaged or cut off"),
    ("https://example.org/a.mp4", "never fetched from a network"),
]


@pytest.mark.parametrize(("name", "told"), BAD)
def test_what_is_no_clip_is_told_before_a_model_is_looked_for(
    run: Run, made: Path, monkeypatch: pytest.MonkeyPatch, name: str, told: str
) -> None:
    monkeypatch.chdir(made)
    for command in (["ask", "no-such-model", "What?", "--video", name], ["inspect", "--video", name]):
        done = run(*command)
        assert_two_lines(done)
        assert told in done.stderr


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--start", "2"], "it lasts 1.60 s, and start is 2 s"),
        (["--frames", "5000"], "more than the limit of 1,024"),
    ],
)
def test_frames_that_a_clip_has_not_are_told_before_a_model_is_looked_for(
    run: Run, made: Path, more: list[str], told: str
) -> None:
    for command in (["ask", "no-such-model", "What?"], ["inspect"]):
        done = run(*command, "--video", made / "film.mp4", *more)
        assert_two_lines(done)
        assert told in done.stderr.replace("\n  ", " ")


def test_a_picture_given_as_a_clip_is_told(run: Run, made: Path) -> None:
    (made / "photo.jpg").write_bytes(encoded(noise(1), "JPEG"))
    done = run("ask", "demo", "What?", "--video", made / "photo.jpg")
    assert_two_lines(done)
    assert "a picture, not a clip" in done.stderr
    assert "Give it with -i." in done.stderr


def test_without_the_extra_a_clip_says_how_to_install_it(run: Run, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    for command in (["ask", "demo", "What?"], ["inspect"]):
        done = run(*command, "--video", made / "film.mp4")
        assert_two_lines(done)
        assert "pip install 'internvl-gguf[video]'" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--frames", "4"], "--frames: goes with a clip only"),
        (["--frame-times"], "--frame-times: goes with a clip only"),
        (["--start", "4"], "--start: goes with a clip only"),
        (["--video", "film.mp4", "--frames", "0"], "--frames is 0."),
        (["--video", "film.mp4", "--frames", "many"], "--frames is 'many'."),
        (["--video", "film.mp4", "--fps", "-1"], "--fps is -1."),
        (["--video", "film.mp4", "--start", "1:75"], "--start is '1:75'."),
        (["--video", "film.mp4", "--start", "soon"], "--start is 'soon'."),
        (["--video", "film.mp4", "--start", "2", "--end", "1"], "--end is 1."),
        (["--video", "film.mp4", "--layout", "combined"], "A clip cannot be asked about in the layout combined."),
    ],
)
@pytest.mark.parametrize("command", [["ask", "demo", "What?"], ["inspect"]], ids=["ask", "inspect"])
def test_options_that_cannot_be_used_are_wrong_usage(
    run: Run, made: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], arguments: list[str], told: str
) -> None:
    monkeypatch.chdir(made)
    done = run(*command, *([] if "--video" in arguments or command[0] == "ask" else ["photo.png"]), *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 2
    assert told in done.stderr


def test_boxes_are_not_drawn_on_clips(run: Run, made: Path) -> None:
    done = run("ask", "demo", "What?", "--video", made / "film.mp4", "--boxes", "boxes.png")
    assert_two_lines(done, code=2)
    done = run("inspect", made / "film.mp4", "--boxes", "[[1, 2, 3, 4]]")
    assert_two_lines(done, code=2)


# --batch


def line(**fields: Any) -> Line:
    return Line(1, json.dumps({"prompt": "What?", **fields}).encode())


def test_a_line_names_clips_in_three_ways(made: Path) -> None:
    film = str(made / "film.mp4")
    common = Common(sampling=SamplingParams(), wishes=ClipWishes(frames=4, start=1.0))
    (one,) = common.question_of(line(video=film)).images
    assert one == Video(film, frames=4, start=1.0)
    asked = common.question_of(line(images=[str(made / "photo.png"), film], videos=[{"path": "b", "end": "0:02"}]))
    assert asked.images == (str(made / "photo.png"), one, Video("b", frames=4, start=1.0, end=2.0))
    (own,) = common.question_of(line(video={"path": film, "frames": "auto", "fps": 2, "start": 0})).images
    assert own == Video(film, frames="auto", fps=2.0, start=0.0)


def test_what_a_line_says_of_frames_is_for_all_its_clips(made: Path) -> None:
    film = str(made / "film.mp4")
    of_line, own = (
        Common(wishes=ClipWishes(fps=3))
        .question_of(line(videos=[{"path": "a", "frames": 2}], images=[film], frames=4, end="0:01"))
        .images
    )
    assert own == Video("a", frames=2, fps=3.0, end=1.0)
    assert of_line == Video(film, frames=4, fps=3.0, end=1.0)
    assert Common().hash_of(line(video=film, frames=4)) != Common().hash_of(line(video=film, frames=5))
    for fields, told in (({"frames": 4}, "frames goes with a clip only."), ({"video": film, "fps": 0}, "fps is 0.")):
        with pytest.raises(ClipOptionsError, match=told):
            Common().question_of(line(**fields))


@pytest.mark.parametrize(
    ("video", "told"),
    [
        (5, "video is 5."),
        ({"frames": 4}, 'video is {"frames": 4}.'),
        ({"path": "a.mp4", "frame": 4}, "There is no field 'frame' of a clip."),
        ({"path": "a.mp4", "num_frames": 4}, "It is called frames here."),
        ({"url": "a.mp4"}, "It is called path here."),
        ({"path": "a.mp4", "frames": 0}, "frames is 0."),
        ({"path": "a.mp4", "start": "soon"}, "start is 'soon'."),
        ({"path": "a.mp4", "start": 3, "end": 2}, "end is 2."),
        ([{"path": "a.mp4"}, None], "video is null."),
    ],
)
def test_a_line_with_a_clip_that_cannot_be_used_says_why(video: Any, told: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        Common().question_of(line(video=video))
    assert told in str(caught.value)


def test_the_hash_of_a_line_covers_its_frames(made: Path) -> None:
    film, photo = str(made / "film.mp4"), str(made / "photo.png")
    plain, four = Common(), Common(wishes=ClipWishes(frames=4))
    for with_clip in (line(video=film), line(images=[film])):
        assert plain.hash_of(with_clip) != four.hash_of(with_clip)
    own = line(video={"path": film, "frames": 2})
    assert plain.hash_of(own) == four.hash_of(own)
    without = line(images=[photo])
    assert plain.hash_of(without) == four.hash_of(without)


def test_a_batch_answers_lines_with_clips_and_goes_on_behind_bad_ones(
    run: Run, tiny: ModelFiles, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made)
    lines: list[dict[str, Any]] = [
        {"prompt": "What?", "video": "film.mp4"},
        {"prompt": "What?", "videos": ["film.mp4", {"path": "moves.gif", "frames": 1}]},
        *({"prompt": "What?", "video": name} for name, _ in BAD),
        {"prompt": "What?", "images": ["other.webm"], "id": 7},
        {"prompt": "What?", "video": {"path": "film.mp4", "start": 9}},
    ]
    source, output = tmp_path / "questions.jsonl", tmp_path / "answers.jsonl"
    source.write_text("".join(f"{json.dumps(each)}\n" for each in lines))
    command = ["ask", tiny.text, "--batch", source, "--output", output, "--frames", 2, *FAST]
    done = run(*command)
    found = records(output.read_text())
    assert (done.returncode, len(found)) == (1, len(lines))
    assert [shown(record) for record in (*found[:2], found[-2])] == [[[9, 29]], [[9, 29], [1]], [[1, 5]]]
    assert found[1]["videos"] == lines[1]["videos"]
    for record, (_, told) in zip(found[2:], BAD, strict=False):
        assert told in record["error"]
    assert "it lasts 1.60 s" in found[-1]["error"]
    assert "unusable clips" in done.stderr.replace("\n", " ")
    assert "frames an hour" in done.stderr.replace("\n", " ")
    again = run(*command)
    assert "3 of 12 lines were answered before." in again.stderr


def test_clips_beside_a_batch_are_in_its_lines(run: Run, made: Path) -> None:
    done = run("ask", "demo", "--batch", "lines.jsonl", "--video", made / "film.mp4")
    assert_two_lines(done, code=2)
    assert '"videos": [...]' in done.stderr


def test_an_estimate_counts_the_frames_of_a_clip(made: Path) -> None:
    film = Video(str(made / "film.mp4"), frames=5)
    asked = Question("What?", (film,), {"sampling": SamplingParams()})
    words = estimated(SPEED, 100, [asked])
    assert words is not None
    assert "about 1 tile a picture" in words
    missing = Question("What?", (Video(str(made / "absent.mp4")),), {"sampling": SamplingParams()})
    assert estimated(SPEED, 100, [missing]) is None


# internvl inspect


def test_inspect_shows_a_clip_and_what_would_fit(run: Run, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made)
    done = run("inspect", "film.mp4", "--frames", 2)
    assert done.stdout.splitlines()[0] == "film.mp4: MP4 (h264), 64 x 48 pixels"
    for told in ("40 frames, 25 a second, 1.6 s", "2 frames, from 0.4 s to 1.2 s", "sees 2 tiles, 512 visual tokens"):
        assert told in done.stdout
    facts = json.loads(run("inspect", "film.mp4", "--frames", 2, "--json").stdout)
    (film,) = facts["clips"]
    assert film["frames"] == [{"image": 0, "index": 9, "time": 0.36}, {"image": 1, "index": 29, "time": 1.16}]
    assert (film["container"], film["codec"], film["n_frames"], film["fps"]) == ("mp4", "h264", 40, 25)
    assert [each["image"] for each in facts["pictures"]] == ["film.mp4 at 0.4 s", "film.mp4 at 1.2 s"]
    assert (facts["visual_tokens"], facts["fits"]) == (512, True)
    most = json.loads(run("inspect", "film.mp4", "--frames", "auto", "-c", 2048, "--json").stdout)
    assert len(most["clips"][0]["frames"]) == most["frames_that_fit"] == 6
    assert most["notices"] == ["6 of the 40 frames of film.mp4 are shown."]
    assert not json.loads(
        run("inspect", "film.mp4", "--frames", 7, "-c", 2048, "--prompt-tokens", 300, "--json").stdout
    )["fits"]


def test_what_inspect_says_fits_is_what_ask_takes(run: Run, tiny: ModelFiles, made: Path) -> None:
    film = made / "film.mp4"
    told = json.loads(run("inspect", film, "-m", tiny.text, "--frames", "auto", "-c", 512, "--json").stdout)
    fitting = told["frames_that_fit"]
    assert 1 < fitting < 32
    done = run("ask", tiny.text, "What?", "--video", film, "--frames", fitting, "-c", 512, "--json", *FAST)
    assert len(shown(json.loads(done.stdout))[0]) == fitting


def test_what_does_not_fit_is_told_with_how_many_would(run: Run, made: Path) -> None:
    done = run("inspect", made / "film.mp4", "--frames", 100, "-c", 4096)
    assert "would fit  13 frames in all (--frames)" in done.stdout
    assert "13 of the 100 frames (--frames)" in done.stderr.replace("\n", " ")


def test_inspect_draws_the_frames_side_by_side(run: Run, made: Path, tmp_path: Path) -> None:
    target = tmp_path / "sheet.png"
    done = run("inspect", made / "film.mp4", "--frames", 3, "--save", target, "--json")
    assert json.loads(done.stdout)["clips"][0]["saved"] == str(target)
    with Image.open(target) as sheet:
        assert sheet.width > 2 * sheet.height
    both = run("inspect", made / "photo.png", made / "film.mp4", "--save", target, "--json")
    facts = json.loads(both.stdout)
    saved = [facts["pictures"][0]["saved"], facts["clips"][0]["saved"]]
    assert saved == [str(tmp_path / "sheet-1.png"), str(tmp_path / "sheet-2.png")]
    assert all(Path(path).exists() for path in saved)
    refused = run("inspect", made / "film.mp4", "--save", tmp_path / "sheet.jpg")
    assert_two_lines(refused, code=2)


def test_inspect_takes_clips_of_a_folder_and_goes_on_behind_bad_ones(run: Run, made: Path, tmp_path: Path) -> None:
    for name in ("film.mp4", "photo.png", "cut.mp4", "list.m3u8"):
        shutil.copy(made / name, tmp_path)
    done = run("inspect", tmp_path, "--frames", 2)
    assert done.returncode == 1
    assert "1 picture and 1 clip together" in done.stdout
    assert "Left out: " in done.stderr
    assert "list.m3u8" not in done.stdout + done.stderr


def test_completion_and_help_know_the_options() -> None:
    offered = answer(["bash", "internvl ask --frames "])
    assert offered == "auto\n"
    assert "--video" in answer(["bash", "internvl inspect --vi"])
    for columns in ("60", "120"):
        for command in ("ask", "inspect"):
            done = run_alone(command, "--help", COLUMNS=columns)
            assert "--frame-times" in done.stdout
            assert max(map(len, done.stdout.splitlines())) <= int(columns)


def test_the_chat_takes_a_clip_as_ask_does(run: Run, tiny: ModelFiles, made: Path) -> None:
    done = run("chat", tiny.text, "--video", made / "moves.gif", "--frames", 2, "--no-history", *FAST)
    assert "Added moves.gif: 2 frames" in (done.stdout + done.stderr).replace("\n", " ")
    assert_two_lines(run("chat", tiny.text, "--frames", 2), code=2)
    assert_two_lines(run("chat", tiny.text, "--video", made / "list.m3u8"))


def test_inspect_says_of_more_frames_than_it_lists_where_they_are(run: Run, made: Path) -> None:
    told = run("inspect", made / "film.mp4", "--frames", 41, "-c", 30000).stdout
    assert "41 frames, more than the 40 that are listed; --json has them all" in told
    assert "would fit  all frames that there are" in told
