"""Adapt matplotlib's SVG to a page: the page's colours and font, and identifiers that differ between charts."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import Final

from internvl_gguf.bench.report.theme import SHADES

_ROLE_OF: Final = {shade.light: role for role, shade in SHADES.items()}
_COLOUR: Final = re.compile(r"#[0-9a-f]{6}")
_FONT: Final = re.compile(r"font-family:[^;]*;?\s*")
_REFERENCE: Final = re.compile(r"url\(#([^)]+)\)")


def svg_for_page(svg: str, name: str, title: str, description: str) -> str:
    """Return an SVG document as an element of a page.

    Args:
        svg: written by matplotlib, in the light theme's colours, which become variables: `var(--ink)`.
        name: prefix of its identifiers, unique for each chart of a page.
        title, description: for screen readers.
    """
    root = ET.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if _local(child.tag) in ("metadata", "style"):
                parent.remove(child)
    wanted = {reference for element in root.iter() for reference in _references(element)}
    for element in root.iter():
        element.tag = _local(element.tag)
        element.attrib = {
            key: value
            for key, old in element.attrib.items()
            for key, value in [_attribute(_local(key), old, name)]
            if key != "id" or old in wanted
        }
        element.text, element.tail = (element.text or "").strip() or None, None
    view = root.attrib["viewBox"]
    root.attrib = {
        "viewBox": view, "role": "img", "aria-labelledby": f"{name}-title", "aria-describedby": f"{name}-description",
    }  # fmt: skip
    for place, (tag, text) in enumerate((("title", title), ("desc", description))):
        element = ET.Element(tag, id=f"{name}-{'title' if tag == 'title' else 'description'}")
        element.text = text
        root.insert(place, element)
    return ET.tostring(root, encoding="unicode")


def _references(element: ET.Element) -> list[str]:
    """Return the identifiers that an element refers to."""
    found = [value[1:] for key, value in element.attrib.items() if _local(key) == "href"]
    return found + [match[1] for value in element.attrib.values() for match in _REFERENCE.finditer(value)]


def _attribute(key: str, value: str, name: str) -> tuple[str, str]:
    """Return an attribute as written in the page."""
    if key == "id":
        value = f"{name}-{value}"
    elif key == "href":
        value = f"#{name}-{value[1:]}"
    elif key == "clip-path":
        value = _REFERENCE.sub(lambda match: f"url(#{name}-{match[1]})", value)
    elif key == "style":
        value = _COLOUR.sub(lambda match: f"var(--{_ROLE_OF[match[0]]})", _FONT.sub("", value))
    elif key == "d":
        value = " ".join(value.split())
    return key, value


def _local(name: str) -> str:
    return name.rpartition("}")[2]
