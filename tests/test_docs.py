"""The documents hold: their Python runs, the files and names they mention exist, and the index has every page."""

from __future__ import annotations

import re
import runpy
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from internvl_gguf import Session
from internvl_gguf.models.local_files import demo_files
from tests.support.pictures import noise

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "src" / "internvl_gguf"
DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md")])
OUTPUTS = REPOSITORY / "docs" / "outputs.py"
BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<reason>\S[^\n]*) -->\n)?```python\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE
)
FILE = re.compile(r'"([\w./-]+\.(?:jpg|png|gguf|txt))"')
FOLDER = re.compile(r'Path\("(\w+)"\)')
LINK = re.compile(r"\]\(([^)\s#]+)(?:#([^)\s]+))?\)")
MENTIONED = re.compile(r"`(?P<name>[A-Za-z_][\w.]*)`\s+\(`(?P<path>[\w/]+\.py)`\)")
PATH = re.compile(r"`((?:[\w]+/)*\w+\.py)`")


@dataclass(frozen=True)
class Block:
    """A block of Python in a document.

    Attributes:
        code: its lines.
        line: where they begin.
        reason: why it is not run; None where it is.
    """

    code: str
    line: int
    reason: str | None


def blocks(document: Path) -> list[Block]:
    text = document.read_text(encoding="utf-8")
    return [
        Block(found["code"], text[: found.start("code")].count("\n") + 1, found["reason"])
        for found in BLOCK.finditer(text)
    ]


def with_blocks() -> list[Path]:
    return [document for document in DOCUMENTS if blocks(document)]


def short(document: Path) -> str:
    return document.relative_to(REPOSITORY).as_posix()


def make_files(code: str) -> None:
    """The files that a block names, in the working folder: pictures, texts, and the demo model under any name."""
    for name in FILE.findall(code):
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            continue
        if (REPOSITORY / name).exists():
            shutil.copy(REPOSITORY / name, path)
        elif path.suffix in (".jpg", ".png"):
            noise(1, 200, 150).save(path)
        elif path.suffix == ".gguf" and "imatrix" not in name:
            shutil.copy(demo_files().mmproj if "mmproj" in name else demo_files().text, path)
        elif path.suffix == ".txt":
            path.write_text("There is a red circle on a white page. " * 200)
    if "photos" in FOLDER.findall(code):
        Path("photos").mkdir()
        noise(2, 100, 100).save("photos/one.png")


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What the blocks of a document take for granted: `session`, `other`, and a folder of one's own to work in."""
    monkeypatch.chdir(tmp_path)
    with Session.open("demo") as session, session.fork() as other:
        yield {"__name__": "document", "session": session, "other": other}


def is_closed(session: Session) -> bool:
    try:
        return not session.runtime
    except Exception:
        return True


@pytest.mark.parametrize("document", with_blocks(), ids=short)
def test_the_python_of_a_document_runs(document: Path, given: dict[str, Any]) -> None:
    """One block after another, each in what the ones before it left."""
    opened = given["session"]
    for block in blocks(document):
        code = compile("\n" * (block.line - 1) + block.code, str(document), "exec", dont_inherit=True)
        if block.reason:
            continue
        make_files(block.code)
        if is_closed(given["session"]):
            given["session"] = opened.fork()
        exec(code, given)


@pytest.mark.parametrize("document", DOCUMENTS, ids=short)
def test_every_block_of_python_is_found(document: Path) -> None:
    assert len(blocks(document)) == document.read_text(encoding="utf-8").count("```python")


@pytest.mark.parametrize("document", DOCUMENTS, ids=short)
def test_links_lead_somewhere(document: Path) -> None:
    for target, anchor in LINK.findall(document.read_text(encoding="utf-8")):
        if target.startswith(("https://", "http://")):
            continue
        file = document.parent / target
        assert file.exists(), target
        if anchor:
            assert anchor in headings(file), f"{target}#{anchor}"


def headings(document: Path) -> set[str]:
    """The anchors of a document, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_what_a_document_says_of_the_code_is_there(document: str) -> None:
    text = (REPOSITORY / document).read_text(encoding="utf-8")
    for path in PATH.findall(text):
        assert (PACKAGE / path).exists() or (REPOSITORY / path).exists(), path
    for found in MENTIONED.finditer(text):
        file = next(root / found["path"] for root in (PACKAGE, REPOSITORY) if (root / found["path"]).exists())
        source = file.read_text(encoding="utf-8")
        for part in found["name"].split("."):
            assert re.search(rf"^ *(?:async )?(?:def|class) {part}\b|^{part}\b.*=", source, re.MULTILINE), found[0]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("document", DOCUMENTS, ids=short)
def test_the_outputs_of_commands_are_what_they_print(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert text == runpy.run_path(str(OUTPUTS))["with_outputs"](text), "run `make docs`"


def test_documents_show_outputs() -> None:
    texts = [document.read_text(encoding="utf-8") for document in DOCUMENTS]
    assert sum(text.count("<!-- output: ") for text in texts) >= 4


def test_the_index_has_every_page() -> None:
    index = REPOSITORY / "docs" / "index.md"
    listed = {(index.parent / target).resolve() for target, _ in LINK.findall(index.read_text(encoding="utf-8"))}
    assert {page for page in (REPOSITORY / "docs").glob("*.md") if page != index} <= listed


def test_the_picture_shows_every_room() -> None:
    """The picture of the rooms names each folder and file of the package."""
    picture = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8").split("```")[1]
    rooms = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if not path.name.startswith("_")}
    assert {room for room in rooms - {"models.toml", "py.typed"} if not re.search(rf"\b{room}\b", picture)} == set()
