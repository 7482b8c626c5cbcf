"""More position embeddings: the function, the conversion, and its verification."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from bigbird_port.cli import main
from bigbird_port.conversion.convert import Settings, convert
from bigbird_port.conversion.manifest import MANIFEST, self_digest
from bigbird_port.families.bigbird.family import BIGBIRD
from bigbird_port.models.folder import load_weights
from bigbird_port.schema.positions import METHODS, extend_positions, how_extended, read_how
from tests.conversion.brought.sources import CONFIG, numbered, write_torch

POSITIONS = BIGBIRD.positions
P = CONFIG.max_position_embeddings
TABLE = np.float32([[0, 10], [1, 12], [4, 11]])


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_tiles_repeat_the_table():
    np.testing.assert_array_equal(extend_positions(TABLE, 7), TABLE[[0, 1, 2, 0, 1, 2, 0]])


def test_interpolation_stretches_the_table():
    found = extend_positions(TABLE, 5, "interpolate")
    np.testing.assert_array_equal(found, np.float32([[0, 10], [0.5, 11], [1, 12], [2.5, 11.5], [4, 11]]))
    assert found.dtype == np.float32


@pytest.mark.parametrize("method", ["tile", "interpolate"])
def test_the_same_length_and_one_position_stay(method):
    np.testing.assert_array_equal(extend_positions(TABLE, 3, method), TABLE)
    np.testing.assert_array_equal(extend_positions(TABLE[:1], 3, method), TABLE[[0, 0, 0]])


@pytest.mark.parametrize(
    ("length", "method", "text"), [(2, "tile", "there are 3 already"), (4, "mirror", "expected one of tile, inter")]
)
def test_what_cannot_be_is_named(length, method, text):
    with pytest.raises(ValueError, match=text):
        extend_positions(TABLE, length, method)


def test_the_manifests_words_are_read_again():
    assert read_how(how_extended("tile", 4096)) == ("tile", 4096)
    assert read_how("converted") is None


@pytest.fixture
def source(tmp_path):
    return write_torch(tmp_path / "source", numbered())


@pytest.mark.parametrize("method", ["tile", "interpolate"])
def test_a_conversion_makes_more_positions_and_is_verified(tmp_path, source, method):
    out, length = tmp_path / "out", 2 * P + 5
    report = run("convert", source, out, "--max-position-embeddings", length, "--positions", method)
    assert report.exit_code == 0, report.output
    assert f"{length} position embeddings from {P} ({method}): fine-tune before use" in report.output.replace("\n", " ")
    weights = numbered()
    for framework in ("torch", "flax"):
        config, arrays, _ = load_weights(out, "pretraining", framework, None, {})
        (name,) = (name for name in arrays if "position_embeddings" in name)
        np.testing.assert_array_equal(arrays[name], extend_positions(weights[POSITIONS], length, method))
        assert config == CONFIG.replace(max_position_embeddings=length)
    tensors = json.loads((out / MANIFEST).read_text())["tensors"]
    extended = {name: entry["how"] for name, entry in tensors.items() if entry["how"] != "converted"}
    assert extended == {POSITIONS: f"extended: {method} from {P}"}
    verified = run("verify", out, "--source", source)
    assert verified.exit_code == 0, verified.output


@pytest.mark.parametrize("how", ["extended: interpolate from {P}", "converted", "extended: tile from 3"])
def test_a_false_word_on_how_is_seen(tmp_path, source, how):
    """The negative control: the manifest says, and signs, another way than the one taken."""
    out = tmp_path / "out"
    convert(source, out, Settings(max_position_embeddings=P + 9))
    values = json.loads((out / MANIFEST).read_text())
    values["tensors"][POSITIONS]["how"] = how.format(P=P)
    values["digest"] = self_digest(values)
    (out / MANIFEST).write_text(json.dumps(values, indent=1) + "\n")
    verified = run("verify", out, "--source", source)
    assert verified.exit_code != 0, verified.output
    assert "Traceback" not in verified.output


def test_the_same_number_of_positions_is_no_extension(tmp_path, source):
    report = convert(source, tmp_path / "out", Settings(max_position_embeddings=P))
    assert {entry["how"] for entry in report.values["tensors"].values()} == {"converted"}


def test_fewer_positions_are_refused(tmp_path, source):
    result = run("convert", source, tmp_path / "out", "--max-position-embeddings", P - 1)
    assert (result.exit_code, f"there are {P} already" in result.output.replace("\n", " ")) == (2, True)
    assert not (tmp_path / "out").exists()


def test_the_command_offers_every_method():
    (option,) = [option for option in main.commands["convert"].params if option.name == "positions"]
    assert tuple(option.type.choices) == METHODS
