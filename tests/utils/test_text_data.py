"""Text from editors and shells that mark its encoding, and text that is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from internvl_gguf.bench.quality.sets import read_task, read_text
from internvl_gguf.errors import CatalogError, InvalidRequestError
from internvl_gguf.models.catalog import parse_catalog
from internvl_gguf.models.resolve import ModelFiles
from internvl_gguf.quantizing.calibration_set import CalibrationText, read_items
from internvl_gguf.utils.text_data import as_utf8, decode_text
from tests.cli.test_commands import FAST, assert_two_lines, run

MARKED = ["utf-8-sig", "utf-16", "utf-32"]
TEXT = "Was ist das? 日本 😀\r\n"


@pytest.mark.parametrize("encoding", ["utf-8", *MARKED])
def test_a_mark_tells_the_encoding_and_goes(encoding: str) -> None:
    assert decode_text(TEXT.encode(encoding), "It") == TEXT
    assert as_utf8(TEXT.encode(encoding), "It") == TEXT.encode()


@pytest.mark.parametrize("mark", [b"\xfe\xff", b"\0\0\xfe\xff"])
def test_big_endian_text_is_read(mark: bytes) -> None:
    encoding = "utf-16-be" if len(mark) == 2 else "utf-32-be"
    assert decode_text(mark + TEXT.encode(encoding), "It") == TEXT


@pytest.mark.parametrize("data", ["What?".encode("utf-16-le"), "What?".encode("utf-16-be"), b"a\0b"])
def test_a_nul_is_no_text(data: bytes) -> None:
    """UTF-16 without a mark was asked with its NULs, and answered."""
    with pytest.raises(InvalidRequestError, match="It is not text: it has a NUL"):
        decode_text(data, "It")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"caf\xe9", "It is not UTF-8: byte 3 is 0xe9"),
        (b"\xff\xfea", "It is not UTF-16LE: byte 2 is 0x61"),
        (b"\xef\xbb\xbf\xff", "It is not UTF-8: byte 3 is 0xff"),
    ],
)
def test_another_encoding_is_told_with_its_byte(data: bytes, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        decode_text(data, "It")


def asked(tiny: ModelFiles, *arguments: str, stdin: bytes) -> str:
    done = run("ask", tiny.text, "--json", *arguments, *FAST, stdin=stdin)
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["prompt"])


@pytest.mark.parametrize("encoding", MARKED)
def test_the_question_on_stdin_has_no_mark(tiny: ModelFiles, encoding: str) -> None:
    """A byte order mark before the question was a part of it."""
    assert asked(tiny, stdin="Was ist das? 日本\n".encode(encoding)) == "Was ist das? 日本"


def test_a_question_full_of_nuls_is_refused() -> None:
    for arguments in (["ask", "demo"], ["chat", "demo"]):
        done = run(*arguments, stdin="What?\n".encode("utf-16-le"))
        assert_two_lines(done)
        assert "NUL" in done.stderr


@pytest.mark.parametrize("encoding", MARKED)
def test_the_lines_of_a_chat_have_no_mark(tiny: ModelFiles, encoding: str) -> None:
    script = "What is it?\r\nAnd now?\r\n"
    done = run("chat", tiny.text, *FAST, "--no-history", stdin=script.encode(encoding))
    plain = run("chat", tiny.text, *FAST, "--no-history", stdin=script.encode())
    assert plain.returncode == 0
    assert (done.returncode, done.stdout) == (0, plain.stdout)


@pytest.mark.parametrize("encoding", MARKED)
@pytest.mark.parametrize("is_piped", [True, False])
def test_the_lines_of_a_batch_have_no_mark(tiny: ModelFiles, encoding: str, is_piped: bool, tmp_path: Path) -> None:
    data = '{"prompt": "What?", "id": 1}\r\n{"prompt": "日本?", "id": 2}\r\n'.encode(encoding)
    path = tmp_path / "questions.jsonl"
    path.write_bytes(data)
    done = run("ask", tiny.text, "--batch", "-" if is_piped else path, *FAST, stdin=data)
    assert done.returncode == 0, done.stdout
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == [1, 2]


def test_a_batch_of_nuls_is_told_line_by_line(tmp_path: Path) -> None:
    done = run("ask", "demo", "--batch", "-", *FAST, stdin='{"prompt": "What?"}\n'.encode("utf-16-le"))
    assert done.returncode == 1
    assert "NUL" in json.loads(done.stdout.splitlines()[0])["error"]


@pytest.mark.parametrize("encoding", MARKED)
def test_settings_have_no_mark(tmp_path: Path, encoding: str) -> None:
    """Editors on Windows put a mark before config.toml, which was not TOML then."""
    (tmp_path / "config.toml").write_bytes('model = "no-such-model"\r\n'.encode(encoding))
    done = run("ask", "What?", INTERNVL_CONFIG=str(tmp_path))
    assert_two_lines(done)
    assert "There is no model 'no-such-model'" in done.stderr


def test_settings_full_of_nuls_are_told(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes("n_ctx = 512\n".encode("utf-16-le"))
    done = run("ask", "demo", "What?", INTERNVL_CONFIG=str(tmp_path))
    assert_two_lines(done)
    assert "config.toml is not text" in done.stderr


@pytest.mark.parametrize("encoding", MARKED)
def test_a_catalogue_has_no_mark(encoding: str) -> None:
    (model,) = parse_catalog('[[model]]\nname = "mine"\nrepo = "me/mine"\n'.encode(encoding), "models.toml")
    assert model.repo == "me/mine"
    with pytest.raises(CatalogError, match="not UTF-16LE"):
        parse_catalog(b"\xff\xfea", "models.toml")


@pytest.mark.parametrize("encoding", MARKED)
def test_what_quants_are_measured_and_made_with_has_no_mark(encoding: str, tmp_path: Path, photo: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_bytes("Ein Text über 日本.\n".encode(encoding))
    assert read_text(str(text)).text == "Ein Text über 日本."
    (item,) = read_items([text])
    assert isinstance(item, CalibrationText)
    assert item.text == "Ein Text über 日本.\n"
    questions = tmp_path / "questions.jsonl"
    line = json.dumps({"image": photo.name, "prompt": "日本?", "answer": "ja"}, ensure_ascii=False)
    (tmp_path / photo.name).write_bytes(photo.read_bytes())
    questions.write_bytes(f"{line}\n{line}\n".encode(encoding))
    assert [item.prompt for item in read_task(str(questions)).items] == ["日本?"] * 2
