"""What describes a model, and does not: the file is named, what was expected of it, and the next step."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from bigbird_port.cli import main
from bigbird_port.conversion.convert import Settings, convert, make_plan
from bigbird_port.conversion.source import open_source
from tests.conversion.brought.sources import numbered, read_all, rewrite, write_torch
from tests.conversion.brought.wrapped import original_arrays, write_bundle
from tests.vocabulary import train_vocabulary


@pytest.fixture
def folder(tmp_path):
    return write_torch(tmp_path / "in", numbered())


def change_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_class_that_is_none_of_bigbirds_is_named_with_its_file(folder):
    change_config(folder, architectures=["TFBigBirdForPreTraining"])
    with pytest.raises(ValueError, match=r"config\.json: architectures names 'TFBigBirdForPreTraining'.*by --head"):
        open_source(folder)
    assert open_source(folder, head="pretraining").head == "pretraining"


@pytest.mark.parametrize("values", [{"model_max_length": 4096, "tokenizer_class": "BigBirdTokenizer"}, {}])
def test_a_description_of_something_else_is_no_configuration(folder, values):
    other = folder / "tokenizer_config.json"
    other.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"^[^ ]*tokenizer_config\.json: it describes no model: .*--config FILE$"):
        open_source(folder, other, head="pretraining")


def test_a_refusal_names_its_file_once(folder):
    change_config(folder, architectures=None)
    with pytest.raises(ValueError, match=r"^[^ ]*config\.json: architectures is None") as caught:
        open_source(folder)
    assert str(caught.value).count(str(folder)) == 1


def test_how_a_file_was_quantised_is_not_carried(folder, tmp_path):
    """Else transformers would quantise the converted weights when it loads them."""
    change_config(folder, quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True})
    assert any("quantization_config" in note for note in make_plan(folder).notes)
    convert(folder, tmp_path / "out", Settings(to=("torch",)))
    assert "quantization_config" not in json.loads((tmp_path / "out/torch/config.json").read_text())


def test_berts_name_of_a_configuration_is_found_beside_a_checkpoint(tmp_path):
    path = write_bundle(tmp_path / "in", original_arrays())
    (path / "config.json").rename(path / "bert_config.json")
    source = open_source(path)
    assert source.notes == (f"configuration from {path / 'bert_config.json'}",)
    assert source.config.num_attention_heads == 2


def test_weights_beyond_the_head_are_told_apart_from_a_wrong_configuration(folder):
    rewrite(folder, lambda arrays: arrays | {"crf.transitions": np.ones((3, 3), np.float32)})
    with pytest.raises(ValueError, match=r"extra: crf\.transitions \[3, 3\](.|\n)*All other weights fit\. If these"):
        open_source(folder).match("pretraining")
    change_config(folder, hidden_size=16)
    with pytest.raises(ValueError, match="misshapen(.|\n)*Check that this is a BigBird checkpoint"):
        open_source(folder).match("pretraining")


def test_an_untied_decoder_is_refused_with_the_reason(folder, tmp_path):
    words = read_all(folder)["bert.embeddings.word_embeddings.weight"]
    rewrite(folder, lambda arrays: arrays | {"cls.predictions.decoder.weight": words + 1})
    done = CliRunner().invoke(main, ["convert", str(folder), str(tmp_path / "out")])
    assert done.exit_code == 2
    assert "but differs: the model has one table for both" in done.output


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"])
def test_a_pointer_in_place_of_a_tokenizers_file_is_named(folder, file):
    (folder / "spiece.model").write_bytes(train_vocabulary())
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 700\n"
    (folder / file).write_bytes(pointer)
    with pytest.raises(ValueError, match=rf"{file}: expected a .*, found a git-lfs pointer .*git lfs pull"):
        make_plan(folder)
    (folder / "spiece.model").unlink()
    if file == "tokenizer.json":
        with pytest.raises(ValueError, match=r"tokenizer\.json: expected a .*, found a git-lfs pointer"):
            make_plan(folder)


def test_an_empty_path_is_no_folder(tmp_path):
    done = CliRunner().invoke(main, ["convert", "", str(tmp_path / "out")])
    assert (done.exit_code, "the path of a source is empty" in done.output) == (2, True)
