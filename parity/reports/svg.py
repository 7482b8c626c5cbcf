"""Pictures as SVG elements; colours are classes that the page's style sheet defines for light and dark."""

from __future__ import annotations

from itertools import count
from xml.etree import ElementTree

from markupsafe import Markup

Element = ElementTree.Element


def picture(name: str, width: float, height: float, title: str, description: str) -> Element:
    """Return an empty picture with a title and a description for who does not see it; name: unique on the page."""
    labels = f"{name}-title {name}-description"
    root = Element("svg", viewBox=f"0 0 {_text(width)} {_text(height)}", role="img")
    root.set("aria-labelledby", labels)
    for part, text in (("title", title), ("desc", description)):
        element = add(root, part, id=labels.split()[part == "desc"])
        element.text = text
    return root


def limit(root: Element, width: float) -> None:
    """Keep a picture near its natural width, so that its letters stay readable."""
    root.set("style", f"min-width:{0.9 * width:.0f}px;max-width:{1.25 * width:.0f}px")


def add(parent: Element, tag: str, /, text: object = None, **attributes: object) -> Element:
    """Append an element; names of attributes have "_" for "-" and a trailing "_" where Python reserves them."""
    texts = {name.rstrip("_").replace("_", "-"): _text(value) for name, value in attributes.items()}
    element = ElementTree.SubElement(parent, tag, texts)
    element.text = None if text is None else str(text)
    return element


def hint(element: Element, text: str) -> None:
    """Add the text that shows when a pointer rests on the element."""
    add(element, "title", text)


def markup(root: Element) -> Markup:
    """Return the element as text. ElementTree has escaped it already."""
    return Markup(ElementTree.tostring(root, encoding="unicode"))


class Names:
    """Hands out names that are unique on a page."""

    def __init__(self) -> None:
        self._next = count()

    def __call__(self, kind: str) -> str:
        """Return a new name."""
        return f"{kind}-{next(self._next)}"


def _text(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
