"""``parity calibrate`` makes a table that ``parity --tolerances`` takes."""

import json

import pytest
from click.testing import CliRunner

from bigbird_port.cli import main
from parity.measure.tolerances import read_table


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "table.json"
    command = ["parity", "calibrate", "--size", "full-16", "--seed", "9", "--dtype", "float32", "--witness", "torch"]
    result = CliRunner().invoke(main, [*command, "--out", str(path)])
    assert result.exit_code == 0, result.output
    assert "context/float32/cpu/accumulated: worst" in result.output
    return path


def test_every_entry_is_measured_and_derived(table):
    found = read_table(table)
    assert "--size full-16 --seed 9" in found.command or "--seed 9 --size full-16" in found.command
    assert len(found.entries) > 10
    for entry in found.entries.values():
        assert entry.samples > 0
        assert entry.bound == pytest.approx(entry.worst * entry.factor)


def test_a_table_of_ones_own_wins(table, tmp_path, converted):
    """Bounds a million times tighter than measured fail a healthy model: the table is what decides."""
    values = json.loads(table.read_text())
    for entry in values["entries"]:
        entry["worst"], entry["bound"] = entry["worst"] / 1e6, entry["bound"] / 1e6
    tight = tmp_path / "tight.json"
    tight.write_text(json.dumps(values))
    command = ["parity", str(converted("mini-pretrain")), "--head", "base", "--length", "64", "--against"]
    command += ["reference,torch", "--no-local"]
    assert CliRunner().invoke(main, command).exit_code == 0
    assert CliRunner().invoke(main, [*command, "--tolerances", str(tight)]).exit_code == 1
    missing = CliRunner().invoke(main, [*command, "--tolerances", str(tmp_path / "absent.json")])
    assert (missing.exit_code, "absent.json" in missing.output) == (2, True)
