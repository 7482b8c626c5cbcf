"""Every golden folder through every source and target and back, bit for bit; docs/conversion.md shows the table."""

import numpy as np
import pytest

from bigbird_port.conversion.convert import Settings, convert
from tests.conftest import FOLDERS, GOLDEN, ROOT, require
from tests.conversion.matrix import ALL, TARGETS, cell, compare, make_sources, table, weights


def test_every_source_reaches_every_target_bit_for_bit(tmp_path):
    checkpoint = GOLDEN["mini-pretrain"].checkpoint
    original, rows = weights(checkpoint), {}
    for kind, source in make_sources(checkpoint, tmp_path).items():
        expected = weights(source)
        assert expected == original, kind
        rows[kind] = {target: cell(source, target, tmp_path, expected) for target in TARGETS}
    assert all(found == "equal" for row in rows.values() for found in row.values()), rows
    assert table(rows) in (ROOT / "docs/conversion.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", FOLDERS[1:])
def test_every_golden_folder_through_every_pair(tmp_path, name):
    original = weights(require(GOLDEN[name]).checkpoint)
    for kind, source in make_sources(GOLDEN[name].checkpoint, tmp_path).items():
        assert compare(weights(source), original) == "equal", kind
        for target in TARGETS:
            assert cell(source, target, tmp_path, original) == "equal", (kind, target)


@pytest.mark.parametrize("name", FOLDERS[1:])
def test_every_golden_folder_makes_the_round_trip(tmp_path, name):
    """From the checkpoint to everything, and from each of these to everything once more."""
    checkpoint = require(GOLDEN[name]).checkpoint
    original = weights(checkpoint)
    convert(checkpoint, tmp_path / "first", Settings(to=ALL))
    for source in ALL:
        convert(tmp_path / "first" / source, tmp_path / source, Settings(to=ALL))
        for target in ALL:
            assert compare(weights(tmp_path / source / target), original) == "equal", (source, target)


def test_a_changed_weight_shows_in_the_table(tmp_path):
    """The negative control: what is compared are values, not names."""
    checkpoint = GOLDEN["mini-pretrain"].checkpoint
    expected = weights(checkpoint)
    assert cell(checkpoint, "torch", tmp_path, expected) == "equal"
    dtype, shape, data = expected["pooler.kernel"]
    turned = np.frombuffer(data, dtype).reshape(shape).T
    changed = expected | {"pooler.kernel": (dtype, shape, turned.tobytes())}
    assert cell(checkpoint, "torch", tmp_path, changed) == "differs in pooler.kernel"
    assert cell(checkpoint, "torch", tmp_path, {}).startswith("differs")


def test_the_original_code_reads_the_written_checkpoint_as_its_own(tmp_path):
    """Names, shapes, types and bytes of every weight are those of the checkpoint that it wrote itself."""
    from bigbird_port.formats.open_store import open_store
    from bigbird_port.formats.store import read

    for name, choice in (("tiny-pretrain", "tf"), ("tiny-pretrain-bert-names", "tf, BERT names")):
        checkpoint = require(GOLDEN[name]).checkpoint
        convert(checkpoint, tmp_path / name, TARGETS[choice][0])
        source, written = open_store(checkpoint).store, open_store(tmp_path / name / "tf").store
        weights_only = {own for own in source.tensors if "dam" not in own and own != "global_step"}
        assert set(written.tensors) == weights_only
        for own in weights_only:
            assert written.tensors[own] == source.tensors[own]
            assert read(written, own).tobytes() == read(source, own).tobytes()


def test_the_pooler_that_only_torch_carries_is_said(tmp_path):
    convert(GOLDEN["mini-pretrain"].checkpoint, tmp_path / "flax", Settings(to=("flax",), head="masked-lm"))
    report = convert(tmp_path / "flax/flax", tmp_path / "torch", Settings(to=("torch",)))
    assert report.plan.match.fills == {"pooler.kernel": "initialise", "pooler.bias": "initialise"}
