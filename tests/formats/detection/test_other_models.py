"""Other models by their config.json, before anything else about them is judged."""

import json

import numpy as np
import pytest
import safetensors.numpy

from bigbird_port.conversion.source import open_source
from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.formats.detection.architectures import FAMILIES

ENCODER_DECODER = {"model_type": "encoder-decoder", "encoder": {"model_type": "big_bird"}, "decoder": {}}


def model(folder, **values):
    weights = {"bert.embeddings.word_embeddings.weight": np.ones((2, 2), np.float32)}
    safetensors.numpy.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(values))
    return folder


@pytest.mark.parametrize("model_type", [*FAMILIES, "a-new-one"])
def test_another_architecture_is_named_before_its_head(tmp_path, model_type):
    source = model(tmp_path, model_type=model_type, architectures=["OtherForMaskedLM"])
    with pytest.raises(ValueError, match=f"model_type '{model_type}' is another architecture") as caught:
        open_source(source)
    assert str(caught.value).startswith(f"{tmp_path / 'config.json'}: ")
    assert FAMILIES.get(model_type, "") in str(caught.value)
    assert "unknown head" not in str(caught.value)


def test_an_encoder_decoder_with_our_encoder_has_a_next_step(tmp_path):
    with pytest.raises(ValueError, match=r"its encoder is a BigBird model: save that alone, by model\.encoder\.save"):
        open_source(model(tmp_path, **ENCODER_DECODER))
    other = {**ENCODER_DECODER, "encoder": {"model_type": "bert"}}
    with pytest.raises(ValueError, match="model_type 'encoder-decoder' is another") as caught:
        open_source(model(tmp_path, **other))
    assert "its encoder is" not in str(caught.value)


def test_our_own_is_not_refused_and_a_near_spelling_is_named():
    assert BigBirdConfig.from_dict({"model_type": "big_bird"}).hidden_size == 768
    with pytest.raises(ValueError, match="model_type is 'bigbird', but BigBird's is spelt 'big_bird'"):
        BigBirdConfig.from_dict({"model_type": "bigbird"})


@pytest.mark.parametrize("model_type", [None, 3, ["bert"], {"a": 1}])
def test_what_is_no_name_is_refused(model_type):
    with pytest.raises(ValueError, match="another architecture"):
        BigBirdConfig.from_dict({"model_type": model_type})
