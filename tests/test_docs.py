"""The pages: their examples run as they stand, their commands parse, and what they name exists."""

import re

import click
import pytest

from bigbird_port.conversion.convert import convert
from bigbird_port.conversion.manifest import MANIFEST
from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.families.bigbird.heads import HEADS
from bigbird_port.models.folder import WEIGHT_FILES, write_model_folder
from bigbird_port.schema.initialise import initial_value
from bigbird_port.schema.table import weights_of
from bigbird_port.tokenizers import write_tokenizer_files
from parity.faults.bigbird.catalogue import FAULTS
from parity.measure.tolerances import shipped_table
from tests.commands import parse, shown_commands
from tests.conftest import GOLDEN, ROOT
from tests.vocabulary import train_vocabulary

PAGES = {path.name: path.read_text(encoding="utf-8") for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"))}
README = PAGES["README.md"]
# These have tests of their own, which run their examples.
OWN_TESTS = {
    "scaling.md": "test_scaling_doc.py",
    "schema.md": "test_schema_doc.py",
    "training.md": "training/test_training_doc.py",
    "summaries.md": "test_summaries_doc.py",
}
EXAMPLES = [
    pytest.param(code, id=f"{name}-{number}")
    for name, page in PAGES.items()
    if name not in OWN_TESTS
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL))
    if ".training import" not in code  # training/test_training_doc.py runs it
]


def test_the_readme_is_read_to_the_end():
    assert len(README.splitlines()) <= 160
    assert all(f"`{head}`" in README for head in HEADS)
    assert {"README.md", "index.md", "usage.md", "CONTRIBUTING.md", "CHANGELOG.md"} <= PAGES.keys()


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """What convert writes for a pretraining checkpoint with a vocabulary, here with initial values as its weights."""
    config = BigBirdConfig(
        vocab_size=500,
        hidden_size=16,
        num_attention_heads=2,
        num_hidden_layers=2,
        intermediate_size=24,
        max_position_embeddings=1024,
        block_size=16,
    )
    out = tmp_path_factory.mktemp("docs") / "out"
    (out.parent / "small.model").write_bytes(train_vocabulary())
    weights = {row.name: initial_value(row, config, 0) for row in weights_of(config, "pretraining", "torch")}
    for framework in WEIGHT_FILES:
        (out / framework).mkdir(parents=True)
        write_model_folder(out / framework, weights, config, "pretraining", framework)
        write_tokenizer_files(out.parent / "small.model", out / framework)
    convert(GOLDEN["mini-pegasus"].checkpoint, out.parent / "summaries")
    return out


@pytest.mark.parametrize("code", EXAMPLES)
def test_examples_run(code, out, tmp_path, monkeypatch, request):
    """A test function in an example is called with the fixtures that it asks for."""
    (tmp_path / "out").symlink_to(out)
    (tmp_path / "summaries").symlink_to(out.parent / "summaries")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(code, "example", "exec"), names)
    for name, function in names.items():
        if name.startswith("test_"):
            fixtures = function.__code__.co_varnames[: function.__code__.co_argcount]
            function(*map(request.getfixturevalue, fixtures))


def test_every_page_with_examples_has_a_test():
    assert {example.id.rpartition("-")[0] for example in EXAMPLES} >= {"README.md", "usage.md", "ci.md"}
    for page, test in OWN_TESTS.items():
        assert "```python" in PAGES[page]
        assert f"docs/{page}" in (ROOT / "tests" / test).read_text()


@pytest.mark.parametrize("name", [name for name, page in PAGES.items() if shown_commands(page)])
def test_commands_parse(name):
    for arguments in shown_commands(PAGES[name]):
        parse(arguments)


def test_a_wrong_command_would_be_noticed():
    (arguments,) = shown_commands("```\n$ bigbird-port convert a b --into torch   # what?\n```\n")
    assert arguments == ["convert", "a", "b", "--into", "torch"]
    with pytest.raises(click.UsageError, match="No such option"):
        parse(arguments)


def broken_links(page, folder):
    """Relative links in a Markdown page that lead to no file."""
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page)
    return [link for link in links if "://" not in link and not (folder / link).is_file()]


def test_links_lead_somewhere():
    """Beside ``make docs``, which sees only docs/."""
    for name, page in PAGES.items():
        assert not broken_links(page, ROOT if (ROOT / name).is_file() else ROOT / "docs"), name
    assert broken_links("[here](docs/nothing.md#at-all) and [there](https://example.org)", ROOT) == ["docs/nothing.md"]


def test_every_file_in_the_tree_exists():
    tree = PAGES["architecture.md"].partition("## Files\n\n```\n")[2].partition("```")[0]
    folders, checked = {-2: ROOT}, 0  # the latest folder at each indentation
    for line in tree.splitlines():
        names = re.match(r"^( *)([\w/.-]+(?:[,;] [\w/.-]+)*)(?:  |$)", line)
        assert names, line
        indentation = len(names[1])
        for name in re.split("[,;] ", names[2]):
            path = folders[indentation - 2] / name
            assert path.exists(), line
            checked += 1
            if path.is_dir():
                folders[indentation] = path
    assert checked > 30


def test_figures_are_those_of_the_code():
    entries = shipped_table().entries.values()
    page = " ".join(PAGES["parity.md"].split())
    assert f"There are {len(entries)} entries, from {sum(entry.samples for entry in entries):,} samples." in page
    assert f"injects {len(FAULTS)} faults" in page
    assert f"{len(FAULTS)} known faults" in README


def test_the_glossary_has_each_word_once():
    words = re.findall(r"^\| ([^|]+?) \|", PAGES["glossary.md"], flags=re.MULTILINE)
    words = [word for word in words if word not in ("word", "---")]
    assert len(words) > 40
    assert len(words) == len(set(words))
    assert MANIFEST in PAGES["glossary.md"]


def test_pre_commit_runs_what_make_lint_runs():
    yaml = pytest.importorskip("yaml")
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = [hook["entry"] for repo in config["repos"] for hook in repo["hooks"]]
    recipe = (ROOT / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0]
    assert hooks == re.findall(r"\$\(BIN\)/(.+)", recipe.replace("$(BIN)/", "$(BIN)/.venv/bin/"))
    assert len(hooks) == 3
