"""Lines as users type them: paths in every spelling of terminals and shells, and what is no path."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from internvl_gguf.chat.reader import is_complete, without_quotes
from internvl_gguf.chat.typed_line import FileLookup, PathKind, parse_line
from internvl_gguf.errors import PictureError

FOLDER = "/home/me/my pictures"
NAMES = st.text(
    st.characters(categories=["L", "M", "N", "P", "S", "Zs"], exclude_characters="/"), min_size=1, max_size=30
).filter(lambda name: name.strip(".").strip() != "")


def files(*paths: str, kind: PathKind = PathKind.PICTURE) -> FileLookup:
    """A disk with these files and no others."""
    known = set(paths)

    def matches(pattern: str) -> list[Path]:
        return [Path(path) for path in sorted(known) if PurePosixPath(path).match(pattern)]

    return FileLookup(lambda path: kind if str(path) in known else PathKind.NOTHING, matches)


def in_double_quotes(path: str) -> str:
    return '"' + re.sub(r'(["\\$`])', r"\\\1", path) + '"'


def escaped(path: str) -> str:
    """As macOS's Terminal drops a file."""
    return re.sub(r"([^\w/.-])", r"\\\1", path)


def as_uri(path: str) -> str:
    return f"file://{quote(path)}"


def as_local_uri(path: str) -> str:
    return f"FILE://localhost{quote(path)}"


SPELLINGS = [shlex.quote, in_double_quotes, escaped, as_uri, as_local_uri]


@pytest.mark.parametrize("spelled", SPELLINGS)
@given(name=NAMES, after=st.sampled_from(["", " ", ", please", "?", " what\nis it"]))
def test_a_path_with_any_printable_name_survives(spelled: Callable[[str], str], name: str, after: str) -> None:
    path = f"{FOLDER}/{name}"
    typed = parse_line(f"look at {spelled(path)}{after}", files(path))
    assert typed.pictures == (Path(path),)
    assert typed.prompt == f"look at the picture{after}".strip()
    assert typed.hints == ()


@pytest.mark.parametrize("spelled", SPELLINGS)
@given(names=st.lists(NAMES, min_size=2, max_size=3, unique=True))
def test_several_dropped_at_once(spelled: Callable[[str], str], names: list[str]) -> None:
    paths = [f"{FOLDER}/{name}" for name in names]
    typed = parse_line(" ".join(map(spelled, paths)) + " ", files(*paths))
    assert typed.pictures == tuple(map(Path, paths))
    assert typed.prompt == ""


@given(line=st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_where_there_are_no_files_a_line_stays_what_it_is(line: str) -> None:
    typed = parse_line(line, files())
    assert typed.pictures == ()
    assert typed.prompt == line.strip()


@pytest.mark.parametrize(
    ("line", "pictures", "prompt"),
    [
        ("What is in photo.jpg, and b.png?", ["photo.jpg", "b.png"], "What is in picture 1, and picture 2?"),
        ("What's in 'my photo.jpg'?", ["my photo.jpg"], "What's in the picture?"),
        ("'it's here.png' now", ["it's here.png"], "now"),
        ("(photo.jpg) and [b.png]", ["photo.jpg", "b.png"], "(picture 1) and [picture 2]"),
        ("compare photo.jpg,b.png", ["photo.jpg", "b.png"], "compare picture 1,picture 2"),
        ("/home/me/my photo.jpg what is it", ["/home/me/my photo.jpg"], "what is it"),
        ("my photo.jpg what is it", ["my photo.jpg"], "what is it"),
        ("What is in my photo.jpg?", ["my photo.jpg"], "What is in the picture?"),
        ("compare my photo.jpg and a.png", ["my photo.jpg", "a.png"], "compare picture 1 and picture 2"),
        ("is it /home/me/my photo.jpg?", ["/home/me/my photo.jpg"], "is it the picture?"),
        (r"C:\Users\me\a.png what", [r"C:\Users\me\a.png"], "what"),
        (r'"C:\My Pictures\a.png" what', [r"C:\My Pictures\a.png"], "what"),
        ("file:///C:/My%20Pictures/a.png", ["C:/My Pictures/a.png"], ""),
        ("first\nphoto.jpg\nlast", ["photo.jpg"], "first\n\nlast"),
        ("photo.jpg photo.jpg", ["photo.jpg", "photo.jpg"], ""),
        ("pics/*.png which?", ["pics/1.png", "pics/2.png"], "which?"),
        ("What is it? photo.jpg", ["photo.jpg"], "What is it?"),
        ("What is it? (photo.jpg)", ["photo.jpg"], "What is it?"),
        ("a.png, b.png: which is red?", ["a.png", "b.png"], "which is red?"),
        ("a.png and b.png: which is red?", ["a.png", "b.png"], "picture 1 and picture 2: which is red?"),
        ("describe photo.jpg", ["photo.jpg"], "describe the picture"),
        ("Compare these: a.png b.png", ["a.png", "b.png"], "Compare these:"),
        ("Left in a.png, right in a.png?", ["a.png"], "Left in the picture, right in the picture?"),
        ("Which of pics/*.png is red?", ["pics/1.png", "pics/2.png"], "Which of pictures 1, 2 is red?"),
        ("a.jpg 'STOP' or 'GO'?", ["a.jpg"], "'STOP' or 'GO'?"),
    ],
)
def test_lines_with_pictures(line: str, pictures: list[str], prompt: str) -> None:
    typed = parse_line(line, files("pics/1.png", "pics/2.png", *pictures))
    assert typed.pictures == tuple(map(Path, pictures))
    assert typed.prompt == prompt
    assert typed.hints == ()


@pytest.mark.parametrize(
    ("line", "hints"),
    [
        ("see https://example.org/a.png.", ["https://example.org/a.png is not fetched"]),
        ("see https://example.org/page", []),
        ("is .png better than .jpg?", []),
        ("what is 2*3? and *this*?", []),
        ("README.md and/or notes.txt", []),
    ],
)
def test_what_looks_like_a_picture_and_is_none_stays_text_with_a_hint(line: str, hints: list[str]) -> None:
    typed = parse_line(line, files())
    assert typed.prompt == line
    assert typed.pictures == ()
    assert len(typed.hints) == len(hints)
    assert all(said.startswith(hint) for said, hint in zip(typed.hints, hints, strict=True))


@pytest.mark.parametrize(
    ("line", "address"),
    [
        ("https://example.org/x.png What is it?", "https://example.org/x.png"),
        ("What is in http://example.org/a/X.JPG?", "http://example.org/a/X.JPG"),
        ("Look (https://example.org/x.png), what is it?", "https://example.org/x.png"),
        ("![x](https://example.org/x.png) what?", "https://example.org/x.png"),
        ("'https://example.org/x.png'", "https://example.org/x.png"),
        ("https://example.org/x.webp?width=30#top what?", "https://example.org/x.webp?width=30#top"),
        ("https://example.org/x.png是什么？", "https://example.org/x.png"),
        ("see https://example.org/page and https://example.org/x.png", "https://example.org/x.png"),
        ("see https://example.org/page", None),
        ("see (https://example.org/a.png/page).", None),
        ("is https://example.org/a.png.html down? and https://example.org?", None),
    ],
)
def test_the_address_of_a_picture_is_refused_and_that_of_a_page_is_text(line: str, address: str | None) -> None:
    """The question was asked at once, and the model answered about whatever picture it had seen before."""
    typed = parse_line(line, files())
    assert typed.prompt == line
    assert typed.pictures == ()
    if address is None:
        typed.refuse_addresses()
        assert (typed.addresses, typed.hints) == ((), ())
    else:
        with pytest.raises(PictureError, match=re.escape(f"{address} is not fetched")):
            typed.refuse_addresses()
        assert typed.addresses == (address,)


@pytest.mark.parametrize(
    ("line", "missing"),
    [
        ("nope.png What colour is the circle?", "nope.png"),
        (r"my\ photo.JPG", "my photo.JPG"),
        ("file:///tmp/no%20such.webp", "/tmp/no such.webp"),
        ("What is in /tmp/nope.png?", "/tmp/nope.png"),
        ("compare 'holiday pictures/b c.png' with the first", "holiday pictures/b c.png"),
        ("/home/me/my holiday photo.png what is it?", "/home/me/my holiday photo.png"),
        ("What is in ../my photo.png?", "../my photo.png"),
        ("What is in ./nope.png?", "nope.png"),
        ("what is in missing.png?", "missing.png"),
        ("what's in 'b c.png'?", "b c.png"),
    ],
)
def test_a_picture_that_is_missing_is_not_answered_about(line: str, missing: str) -> None:
    """The name stayed text with a hint, and the model answered about whatever picture it had seen before."""
    assert parse_line(line, files()).pictures == (Path(missing),)


def test_the_name_of_a_missing_picture_may_be_text() -> None:
    line = "what's in a.jpg and 'b c.png'?"
    typed = parse_line(line, files(), missing_is_text=True)
    assert (typed.prompt, typed.pictures) == (line, ())
    assert typed.hints == ("no such file: a.jpg", "no such file: b c.png")


def test_many_pictures_of_a_conversation_are_counted_on() -> None:
    typed = parse_line("Which of p/*.png is red?", files("p/1.png", "p/2.png", "p/3.png", "p/4.png"))
    assert typed.question([3, 4, 5, 6], 6) == "Which of pictures 3 to 6 is red?"
    assert typed.question([1, 2, 3, 2], 3) == "Which of pictures 1, 2, 3 is red?"


def test_a_star_alone_is_no_wish_for_every_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    for line in ("* first point", "**bold**", "2 * 3", "?"):
        assert parse_line(line).pictures == ()
    assert parse_line("*.png").pictures == (Path("a.png"),)
    assert parse_line("./*").pictures == (Path("a.png"),)


def test_the_content_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture may have any name; a file with a picture's name is taken, too, so that its error is told."""
    Image.new("RGB", (4, 4)).save(tmp_path / "photo", "PNG")
    (tmp_path / "notes").write_text("no picture")
    (tmp_path / "broken.png").write_text("no picture")
    (tmp_path / "folder.png").mkdir()
    monkeypatch.chdir(tmp_path)
    typed = parse_line("photo notes broken.png folder.png x" + "y" * 5000)
    assert typed.pictures == (Path("photo"), Path("broken.png"))
    assert typed.prompt.startswith("picture 1 notes picture 2 folder.png xy")
    assert typed.hints == ("folder.png is a folder, and nothing of it was attached",)


def test_clips_of_formats_that_are_refused_are_taken_so_that_their_error_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A .ts is a clip by its content only: it may be TypeScript."""
    (tmp_path / "a.ts").write_bytes((b"\x47" + bytes(187)) * 3)
    (tmp_path / "app.ts").write_text("export const one = 1")
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n1.ts\n")
    (tmp_path / "film.flv").write_bytes(b"FLV\x01")
    monkeypatch.chdir(tmp_path)
    typed = parse_line("Compare a.ts with ./list.m3u8, film.flv and app.ts.")
    assert typed.pictures == (Path("a.ts"), Path("list.m3u8"), Path("film.flv"))


def test_the_home_folder_and_the_order_of_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("page 10.png", "page 2.png", "page 1.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    assert parse_line("~/page\\ 2.png what?").pictures == (tmp_path / "page 2.png",)
    assert parse_line('"~/page 2.png"').pictures == (tmp_path / "page 2.png",)
    assert [path.name for path in parse_line("~/*.png").pictures] == ["page 1.png", "page 2.png", "page 10.png"]


@pytest.mark.parametrize(
    ("text", "whole", "inner"),
    [
        ("one", True, "one"),
        ('"""one', False, "one"),
        ('"""one\ntwo"""', True, "one\ntwo"),
        ('"""\none\n"""', True, "one"),
        ('"""one""" and', True, "one and"),
        ('he said """one"""', True, 'he said """one"""'),
    ],
)
def test_triple_quotes(text: str, whole: bool, inner: str) -> None:
    assert is_complete(text) is whole
    assert without_quotes(text) == inner
