"""A SavedModel with the names of the original's question answering, through to every target."""

import subprocess
import sys

import numpy as np
import pytest

from bigbird_port.conversion.convert import Settings, convert
from bigbird_port.conversion.source import open_source
from bigbird_port.models.folder import read_model_folder
from bigbird_port.schema.table import weights_of

D, N, H, INNER, VOCAB, LAYERS = 12, 3, 4, 20, 70, 3

# tf.Module names its variables by its scopes, as the release does; created and listed in a shuffled order, so that
# nothing but the names can tell which is which.
PROGRAM = f"""
import sys
import numpy as np
import tensorflow as tf
D, N, H, INNER, VOCAB, LAYERS = {(D, N, H, INNER, VOCAB, LAYERS)}
rng = np.random.default_rng(int(sys.argv[2]))
def dense(name, *shape):
    bias = shape[-2:] if name.endswith(("query", "key", "value")) else shape[-1:]
    return [(f"{{name}}/kernel", shape), (f"{{name}}/bias", bias)]

norm = lambda name: [(f"{{name}}/gamma", (D,)), (f"{{name}}/beta", (D,))]
shapes = [("word_embeddings/embeddings", (VOCAB, D)), ("position_embedding/embeddings", (64, D)),
          ("type_embeddings/embeddings", (16, D)), *norm("embeddings/layer_norm")]
for i in range(LAYERS):
    layer = f"transformer_scaffold_{{i}}" if i else "transformer_scaffold"
    attention = f"{{layer}}/big_bird_attention"
    for part in ("query", "key", "value"):
        shapes += dense(f"{{attention}}/{{part}}", D, N, H)
    shapes += dense(f"{{layer}}/attention_output", N, H, D) + norm(f"{{layer}}/self_attention_layer_norm")
    shapes += dense(f"{{layer}}/intermediate", D, INNER) + dense(f"{{layer}}/output", INNER, D)
    shapes += norm(f"{{layer}}/output_layer_norm")
head = "trivia_qa_head"
shapes += dense(f"{{head}}/dense", D, INNER) + dense(f"{{head}}/dense_2", INNER, D)
shapes += norm(f"{{head}}/layer_normalization")
shapes += dense(f"{{head}}/dense_1", D, 2)
values = {{name: rng.standard_normal(shape).astype("f4") for name, shape in shapes}}
order = rng.permutation(len(shapes))
model = tf.Module()
model.tracked = [tf.Variable(values[shapes[i][0]], name=f"qa_model/big_bird_encoder/{{shapes[i][0]}}") for i in order]
tf.saved_model.save(model, f"{{sys.argv[1]}}/model")
np.savez(f"{{sys.argv[1]}}/values.npz", **values)
"""

BY_HAND = {
    "word_embeddings/embeddings": "embeddings.word_embeddings.embedding",
    "position_embedding/embeddings": "embeddings.position_embeddings.embedding",
    "type_embeddings/embeddings": "embeddings.token_type_embeddings.embedding",
    "embeddings/layer_norm/gamma": "embeddings.LayerNorm.gamma",
    "transformer_scaffold/big_bird_attention/key/kernel": "encoder.layer.0.attention.self.key.kernel",
    "transformer_scaffold_2/big_bird_attention/query/bias": "encoder.layer.2.attention.self.query.bias",
    "transformer_scaffold_1/attention_output/kernel": "encoder.layer.1.attention.output.dense.kernel",
    "transformer_scaffold_1/self_attention_layer_norm/beta": "encoder.layer.1.attention.output.LayerNorm.beta",
    "transformer_scaffold_2/intermediate/kernel": "encoder.layer.2.intermediate.dense.kernel",
    "transformer_scaffold/output/kernel": "encoder.layer.0.output.dense.kernel",
    "transformer_scaffold/output_layer_norm/gamma": "encoder.layer.0.output.LayerNorm.gamma",
    "trivia_qa_head/dense/kernel": "qa_classifier.intermediate.dense.kernel",
    "trivia_qa_head/dense_2/kernel": "qa_classifier.output.dense.kernel",
    "trivia_qa_head/layer_normalization/gamma": "qa_classifier.output.LayerNorm.gamma",
    "trivia_qa_head/dense_1/bias": "qa_classifier.qa_outputs.bias",
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    pytest.importorskip("tensorflow", reason="TensorFlow writes the SavedModel")
    folder = tmp_path_factory.mktemp("saved")
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, "-c", PROGRAM, folder, "1"], check=True, env=environment, capture_output=True)
    return folder


def test_names_decide_and_every_weight_arrives(saved, tmp_path):
    report = convert(saved / "model", tmp_path / "out", Settings(to=("torch", "flax", "neutral")))
    assert (report.plan.head, report.plan.source.opened.style) == ("qa", "saved-model")
    assert (report.plan.config.num_hidden_layers, report.plan.config.num_attention_heads) == (LAYERS, N)
    expected = np.load(saved / "values.npz")
    for target in ("torch", "flax"):
        found = read_model_folder(tmp_path / "out", target).weights
        assert set(found) == {row.name for row in weights_of(report.plan.config, "qa", target)}
        for name, canonical in BY_HAND.items():
            np.testing.assert_array_equal(found[canonical].reshape(-1), expected[name].reshape(-1), err_msg=name)
    neutral = open_source(tmp_path / "out/neutral")
    arrived = sorted(neutral.weight(name, own).tobytes() for name, own in neutral.match("qa").sources.items())
    assert arrived == sorted(expected[name].tobytes() for name in expected)


def test_the_bare_bundle_of_a_saved_model_will_do(saved, tmp_path):
    report = convert(saved / "model/variables/variables", tmp_path / "out", Settings(to=("torch",)))
    assert report.plan.head == "qa"


def test_a_saved_model_has_no_place_in_the_originals_checkpoints(saved, tmp_path):
    with pytest.raises(ValueError, match="no variables for qa_classifier"):
        convert(saved / "model", tmp_path / "out", Settings(to=("tf",)))
    convert(saved / "model", tmp_path / "out", Settings(to=("tf",), head="masked-lm"))
