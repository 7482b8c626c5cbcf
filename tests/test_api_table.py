"""docs/api.md against the code, and against the page that it answers to."""

from __future__ import annotations

import importlib
import inspect
import re
from dataclasses import fields

import pytest

import models_flax.bigbird.outputs
import models_torch.bigbird.outputs
from bigbird_port.families.bigbird.heads import HEADS
from tests.conftest import ROOT, SHARED
from tests.page import Entry, read_page

TEXT = (ROOT / "docs/api.md").read_text(encoding="utf-8")
OUTPUTS = {"base": "BigBirdModelOutput", "pretraining": "BigBirdForPreTrainingOutput",
           "qa": "BigBirdForQuestionAnsweringOutput"}  # fmt: skip


def read_table() -> dict[Entry, str]:
    rows, cls = {}, ""
    for line in TEXT.splitlines():
        if line.startswith("## "):
            cls = line[3:]
        elif match := re.fullmatch(r"\| (\w+) \| (argument|returned) \| `(\w+)` \| (.+) \|", line):
            method = "" if match[1] == "constructor" else match[1]
            rows[Entry(cls, method, match[2], match[3])] = match[4]
    return rows


TABLE = read_table()
IMPORTS = {cls: package for package, cls in re.findall(r"^`from ([\w.]+) import (\w+)`$", TEXT, flags=re.MULTILINE)}


def returned_fields(cls: str) -> set[str]:
    head = next(h for h in HEADS.values() if cls in (h.class_name, h.flax_class_name))
    package = models_flax.bigbird.outputs if cls.startswith("Flax") else models_torch.bigbird.outputs
    return {field.name for field in fields(getattr(package, OUTPUTS.get(head.name, "BigBirdHeadOutput")))}


@pytest.mark.parametrize(("entry", "status"), TABLE.items(), ids=["-".join(filter(None, entry)) for entry in TABLE])
def test_every_row_holds(entry, status):
    assert re.match(r"works$|works; .{10}|differs: .{20}", status)
    cls = getattr(importlib.import_module(IMPORTS[entry.cls]), entry.cls)
    if entry.kind == "returned":
        found = returned_fields(entry.cls)
    else:
        found = set(inspect.signature(getattr(cls, entry.method) if entry.method else cls).parameters)
    name = {"pooled_output": "pooler_output"}.get(entry.name, entry.name)
    assert (name in found) != (entry.name == "kwargs"), sorted(found)


def test_the_table_is_the_page():
    page = SHARED / "docs/transformers-bigbird-api.txt"
    if not page.is_file():
        pytest.skip(f"{page} is not there: the table cannot be held against the page")
    entries = read_page(page.read_text(encoding="utf-8"))
    assert len(entries) > 350
    assert list(TABLE) == entries


def test_every_class_is_there():
    assert set(IMPORTS) >= {h.class_name for h in HEADS.values()} | {h.flax_class_name for h in HEADS.values()}
