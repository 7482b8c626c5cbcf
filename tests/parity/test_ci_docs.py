"""The workflow and the guide name commands and options that exist."""

import re
import shlex

import click
import pytest

from bigbird_port.cli import main
from tests.commands import parse
from tests.conftest import ROOT

WORKFLOW = (ROOT / "docs/parity-workflow.yml").read_text()
GUIDE = (ROOT / "docs/ci.md").read_text()
COMMAND = re.compile(r"bigbird-port (?!is |installed)([^\n|>`]+?)(?=$|`| >|\n| \|\|)", flags=re.MULTILINE)


def commands(text):
    return [shlex.split(found) for found in COMMAND.findall(text)]


def steps():
    return [line.removeprefix("run: ") for line in map(str.strip, WORKFLOW.splitlines()) if line.startswith("run: ")]


def test_the_workflow_is_yaml_and_has_the_gates():
    yaml = pytest.importorskip("yaml")
    job = yaml.safe_load(WORKFLOW)["jobs"]["parity"]
    runs = [step["run"] for step in job["steps"] if "run" in step]
    assert runs == steps()
    gates = ("convert", "verify", "parity out", "parity baseline check", "parity report")
    assert [next(i for i, text in enumerate(runs) if f"bigbird-port {gate}" in text) for gate in gates] == [
        1,
        2,
        3,
        4,
        5,
    ]
    assert "--junit" in runs[3]
    assert runs[5].endswith('>> "$GITHUB_STEP_SUMMARY"')
    late = [step for step in job["steps"] if "!cancelled()" in str(step.get("if"))]
    assert [step["name"] for step in late] == ["Summary", "Upload the report"]
    uploaded = late[1]["with"]["path"].split()
    assert all(f" {name}" in runs[3] for name in uploaded)


@pytest.mark.parametrize("text", [step for step in steps() if step.startswith("bigbird-port")])
def test_commands_of_the_workflow_parse(text):
    (arguments,) = commands(text)
    if arguments[0] == "verify" and "verify" not in main.commands:
        pytest.skip("the command verify is not there yet")
    parse(arguments)


def test_commands_of_the_guide_parse():
    blocks = re.findall(r"^```\n(.*?)^```", GUIDE, flags=re.DOTALL | re.MULTILINE)
    found = [arguments for block in blocks for arguments in commands(block)]
    assert len(found) == 4
    for arguments in found:
        parse(arguments)


def test_a_wrong_option_would_be_noticed():
    with pytest.raises(click.UsageError, match="No such option"):
        parse(["parity", "out", "--junitxml", "x"])
    with pytest.raises(AssertionError, match="there is no command"):
        parse(["parity", "baseline", "chekc", "a", "b"])


def test_every_option_that_the_guide_lists_exists():
    (table,) = re.findall(r"\| option \| what \|\n(.*?)\n\n", GUIDE, flags=re.DOTALL)
    options = re.findall(r"^\| `(--\w+) FILE`", table, flags=re.MULTILINE)
    assert options == ["--json", "--html", "--junit", "--markdown"]
    for option in options:
        parse(["parity", "out", option, "file"])
