"""A configuration that asks for more than any model has is refused at once."""

import json
import shutil
import time

import pytest
from click.testing import CliRunner

from bigbird_port.cli import main
from bigbird_port.families.bigbird.bounds import LARGEST
from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.models.folder import read_model_folder
from tests.conversion.brought.sources import numbered, write_torch

FIELDS = (*LARGEST, "max_encoder_length")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_torch(tmp_path_factory.mktemp("bounds") / "source", numbered())


@pytest.mark.parametrize("field", LARGEST)
def test_each_size_has_a_bound(field):
    with pytest.raises(ValueError, match=rf"{field} is {LARGEST[field] + 1}, but it must be .*at most"):
        BigBirdConfig(**{field: LARGEST[field] + 1})


@pytest.mark.parametrize("value", [500, 10**6, 10**12, 10**30])
@pytest.mark.parametrize("field", FIELDS)
def test_a_size_that_is_not_that_of_the_weights(source, tmp_path, field, value):
    folder = shutil.copytree(source, tmp_path / "source")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    begin = time.perf_counter()
    result = CliRunner().invoke(main, ["convert", str(folder), str(tmp_path / "out"), "--to", "torch"])
    no_weights = field in ("block_size", "num_random_blocks", "num_labels")
    if not (no_weights and value <= LARGEST[field]):
        assert result.exit_code == 2, result.output
        with pytest.raises(ValueError, match=r"config\.json|model\.safetensors"):
            read_model_folder(folder, "torch")
    assert time.perf_counter() - begin < 20  # on a busy machine
    assert len(result.output) < 20_000


def test_many_more_layers_than_the_names_show(source, tmp_path):
    folder = shutil.copytree(source, tmp_path / "source")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hidden_layers": 1000}))
    result = CliRunner().invoke(main, ["convert", str(folder), str(tmp_path / "out")])
    assert "the configuration has 1000 layers (num_hidden_layers), but the weights are those of 2" in result.output
