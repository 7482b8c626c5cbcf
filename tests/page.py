"""Read the public API that this project offers from the page that lists it (shared/docs)."""

from __future__ import annotations

import re
from typing import NamedTuple


class Entry(NamedTuple):
    """One argument or returned field (kind) of a method of ``cls``; the constructor's method is ""."""

    cls: str
    method: str
    kind: str
    name: str


CLASSES = re.compile(r"^(?:class transformers\.(?:\S+\.)?)?((?:Flax)?BigBird\w+)$")
HEADING = re.compile(r"((?:Flax)?BigBird(?:Model|For\w+|Tokenizer|TokenizerFast))$")


def read_page(text: str) -> list[Entry]:
    """Return every constructor argument, method argument and returned field, in the page's order, each once."""
    lines = text.splitlines()
    found: dict[Entry, None] = {}
    cls = method = ""
    returned = False
    for at, line in enumerate(lines):
        following = lines[at + 1] if at + 1 < len(lines) else ""
        if match := CLASSES.match(line.strip()):
            cls, method, returned = match[1], "", False
        elif line.startswith("< source >("):
            found |= {Entry(cls, method, "argument", name): None for name in arguments(line)}
        elif following.startswith("< source >("):
            method, returned = line.strip(), False
        elif not returned and (match := re.match(r"- +(\w+)  ?\(", line)):
            found[Entry(cls, method, "argument", match[1])] = None
        elif line.strip() == "Returns":
            returned = True
        elif returned and line.strip() == "-" and (match := re.match(r"(\w+) \(", following)):
            found[Entry(cls, method, "returned", match[1])] = None
        elif (match := HEADING.search(line)) and following.startswith(("forward", "class ")):
            cls, method, returned = match[1], "", False
    return list(found)


def arguments(line: str) -> list[str]:
    """Names in a signature line: words that start an argument, outside brackets."""
    inside = re.sub(r"'[^']*'|<class[^>]*>", "x", line[line.index("(") + 1 :].partition(" )")[0])
    while (bare := re.sub(r"\[[^\[\]]*\]", "", inside)) != inside:
        inside = bare
    words = re.sub(r":\s*[\w.]+", " ", inside)
    words = re.sub(r"=\s*\S+", " ", words)
    return [word for word in words.split() if re.fullmatch(r"\w+", word)]
