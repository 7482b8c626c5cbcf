"""docs/compatibility.md is the list of these rows, and every row holds.

``python -m tests.compatibility.test_compatibility`` writes the page.
"""

import ast

import pytest
import torch

import models_flax
import models_torch
from bigbird_port.tokenizers import BigBirdTokenizer, BigBirdTokenizerFast
from tests.compatibility import models, others
from tests.compatibility.row import Scene
from tests.conftest import ROOT
from tests.integrations.small import CONFIGS, ids
from tests.vocabulary import train_vocabulary

PAGE = ROOT / "docs/compatibility.md"
HEAD = """# Compatibility

What people's scripts use of transformers, and what of it works here. `python -m tests.compatibility.test_compatibility`
writes this page from the list that the tests run: every row is run by a test. [Differences](differences.md) has what
the models compute otherwise, [the API table](api.md) every argument and returned field.

`from bigbird_port.integrations import transformers` gives a class of transformers' own kind for every head of both
families, such as `PortedBigBirdForMaskedLM`, and registers them with the Auto classes. What computes is the product's
model. The tests run them with transformers 4.57, and `make test-versions` also with release 5
([versions](versions.md)).
"""
SECTIONS = {
    "Models of torch": models.MODELS,
    "Outputs": models.OUTPUTS,
    "from_pretrained": models.LOADING,
    "save_pretrained": models.SAVING,
    "Models of Flax": models.FLAX,
    "Configurations": others.CONFIGURATION,
    "Batches": others.BATCHES,
    "Tokenizers": others.TOKENIZERS,
    "Clients": others.CLIENTS,
}
ROWS = [pytest.param(row, id=f"{title}-{i}") for title, rows in SECTIONS.items() for i, row in enumerate(rows)]


def page():
    parts = [HEAD]
    for title, rows in SECTIONS.items():
        lines = [f"| {row.name} | {row.status} |" for row in rows]
        parts.append("\n".join([f"## {title}\n", "| what | status |", "|---|---|", *lines]) + "\n")
    return "\n".join(parts)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A vocabulary, and the folder of a classifier."""
    path = tmp_path_factory.mktemp("compatibility")
    (path / "spiece.model").write_bytes(train_vocabulary())
    models_torch.BigBirdForSequenceClassification.from_config(CONFIGS["bigbird"], 3).save_pretrained(path / "model")
    return path


@pytest.fixture
def scene(made, tmp_path):
    def fresh(name):
        package = models_flax if name.startswith("Flax") else models_torch
        config = CONFIGS["pegasus" if "Pegasus" in name else "bigbird"].replace()
        return getattr(package, name).from_config(config, 3)

    vocabulary = made / "spiece.model"
    tokenizers = BigBirdTokenizerFast(vocabulary), BigBirdTokenizer(vocabulary)
    return Scene(
        fresh, made / "model", tmp_path, *tokenizers, ids(), CONFIGS["bigbird"].replace(), CONFIGS["pegasus"].replace()
    )


@pytest.mark.parametrize("row", ROWS)
def test_every_row_holds(row, scene):
    assert row.status == "works" or row.status.startswith(("works; ", "differs: "))
    assert (row.check is None) != (row.test == "")
    if row.check is not None:
        assert row.check(scene)
        return
    file, _, name = row.test.partition("::")
    tests = {node.name for node in ast.parse((ROOT / file).read_text()).body if isinstance(node, ast.FunctionDef)}
    assert name in tests or (not name and any(test.startswith("test_") for test in tests))


def test_the_page_has_these_rows():
    assert PAGE.read_text(encoding="utf-8") == page()


@pytest.mark.peer
def test_transformers_collators_take_the_tokenizers(scene):
    transformers = pytest.importorskip("transformers")
    rows = [dict(scene.tokenizer(text)) for text in ("the model", "a question of the model")]
    padded = transformers.DataCollatorWithPadding(scene.tokenizer)(rows)
    assert torch.equal(padded["input_ids"], scene.batch["input_ids"])
    labelled = [{**row, "labels": [1] * len(row["input_ids"])} for row in rows]
    found = transformers.DataCollatorForTokenClassification(scene.tokenizer)(labelled)
    assert torch.equal(found["labels"] == -100, found["attention_mask"] == 0)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
