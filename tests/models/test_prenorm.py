"""The original's prenorm encoder with its pretraining heads: converted, and in both frameworks as its golden cases."""

import json

import jax
import numpy as np
import pytest
import safetensors.numpy
import torch
from flax.traverse_util import flatten_dict
from safetensors import safe_open

import models_flax
import models_torch
from bigbird_port.config import BigBirdConfig
from bigbird_port.conversion.convert import Settings, convert
from bigbird_port.conversion.source import open_source
from bigbird_port.schema.layout import change_layout
from bigbird_port.schema.table import dims, weights_of
from tests.conftest import GOLDEN, PRENORM, require
from tests.conversion.matrix import ALL, weights
from tests.models.pegasus_cases import CLOSE, error

TINY = BigBirdConfig(
    *(), vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
    max_position_embeddings=64, norm_type="prenorm", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
)  # fmt: skip


@pytest.fixture(params=["len1024-paper-plan", "len656-general-plan-grads"])
def case(request):
    path = require(GOLDEN[PRENORM]).checkpoint / f"cases/{request.param}.safetensors"
    with safe_open(path, "np") as file:
        return safetensors.numpy.load_file(path), int(file.metadata()["max_encoder_length"])


def loss_of(log_probs, tensors, gather):
    """The original's two losses: means over the masked words, and over the texts."""
    places, ids, following = (
        tensors[name].astype(np.int64) for name in ("masked_lm_positions", "masked_lm_ids", "next_sentence_labels")
    )
    words = gather(log_probs["prediction_logits"], (np.arange(len(ids))[:, None], places, ids))
    nexts = gather(log_probs["seq_relationship_logits"], (np.arange(len(ids)), following[:, 0]))
    return -words.mean() - nexts.mean()


def test_torch(converted, case):
    tensors, length = case
    model = models_torch.BigBirdForPreTraining.from_pretrained(converted(PRENORM), max_encoder_length=length)
    ids, types = (torch.from_numpy(tensors[name]).long() for name in ("input_ids", "token_type_ids"))
    output, real = model(ids, token_type_ids=types), tensors["input_ids"] != 0
    last = model.bert(ids, token_type_ids=types).last_hidden_state.detach().numpy()
    assert error(last[real], tensors["sequence_output"][:, : real.shape[1]][real]) < CLOSE
    log_probs = {name: output[name].log_softmax(-1) for name in ("prediction_logits", "seq_relationship_logits")}
    found = log_probs["prediction_logits"].detach().numpy()
    assert error(found[real], tensors["mlm_log_probs"][:, : real.shape[1]][real]) < CLOSE
    assert error(log_probs["seq_relationship_logits"].detach(), tensors["nsp_log_probs"]) < CLOSE
    loss = loss_of(log_probs, tensors, lambda x, at: x[at])
    assert error(loss.detach(), (tensors["mlm_loss"] + tensors["nsp_loss"]).sum()) < CLOSE
    loss.backward()
    check_gradients({name: p.grad.numpy() for name, p in model.named_parameters()}, tensors, model.config, "torch")


def check_gradients(found, tensors, config, framework):
    golden = {name.removeprefix("grad."): value for name, value in tensors.items() if name.startswith("grad.")}
    largest = max((np.abs(value).max() for value in golden.values()), default=0)
    count = 0
    for row in weights_of(config, "pretraining", framework):
        for original in (name.replace("{scope}", "bert") for name in row.original):
            if original in golden:
                name, axes = (row.torch, row.torch_axes) if framework == "torch" else (row.flax, row.flax_axes)
                expected = change_layout(golden[original], row.axes, axes, dims(config))
                assert error(found[name], expected) < CLOSE * largest, row.name
                count += 1
    assert count == len(golden)


def test_flax(converted):
    path = require(GOLDEN[PRENORM]).checkpoint / "cases/len656-general-plan-grads.safetensors"
    tensors = safetensors.numpy.load_file(path)
    model = models_flax.FlaxBigBirdForPreTraining.from_pretrained(converted(PRENORM), max_encoder_length=656)
    ids, types, real = tensors["input_ids"], tensors["token_type_ids"], tensors["input_ids"] != 0

    def loss(params):
        output = model(ids, token_type_ids=types, params=params)
        names = ("prediction_logits", "seq_relationship_logits")
        log_probs = {name: jax.nn.log_softmax(output[name]) for name in names}
        return loss_of(log_probs, tensors, lambda x, at: x[at]), log_probs["prediction_logits"]

    (value, log_probs), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(model.params)
    assert error(np.asarray(log_probs)[real], tensors["mlm_log_probs"][:, : real.shape[1]][real]) < CLOSE
    assert error(value, (tensors["mlm_loss"] + tensors["nsp_loss"]).sum()) < CLOSE
    check_gradients(flatten_dict(gradients, sep="/"), tensors, model.config, "flax")


def test_every_bit_goes_through_every_target(tmp_path):
    checkpoint = require(GOLDEN[PRENORM]).checkpoint
    original = weights(checkpoint)
    assert {"encoder.LayerNorm.gamma", "encoder.layer.1.intermediate.LayerNorm.beta"} <= original.keys()
    assert "embeddings.LayerNorm.gamma" not in original
    convert(checkpoint, tmp_path / "first", Settings(to=ALL))
    for source in ALL:
        convert(tmp_path / "first" / source, tmp_path / source, Settings(to=ALL))
        assert all(weights(tmp_path / source / target) == original for target in ALL), source


def test_the_variables_tell_the_norm_type(tmp_path):
    checkpoint = require(GOLDEN[PRENORM]).checkpoint
    for file in checkpoint.glob("model.ckpt*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert open_source(tmp_path, num_attention_heads=2).config.norm_type == "prenorm"
    flags = json.loads((checkpoint / "pretrain.config").read_text()) | {"norm_type": "postnorm"}
    (tmp_path / "pretrain.config").write_text(json.dumps(flags))
    with pytest.raises(ValueError, match="says norm_type=postnorm, but the variables are those of a BigBird model"):
        open_source(tmp_path)


def test_layer_norm_comes_first_and_last(tmp_path):
    model = models_torch.BigBirdModel.from_config(TINY, seed=1)
    output = model(torch.arange(3, 23)[None], output_hidden_states=True)
    last = output.last_hidden_state.detach()
    assert error(last.mean(-1), 0) < 1e-6
    assert error(output.hidden_states[0].detach().mean(-1), 0) > 1e-3
    model.save_pretrained(tmp_path)
    again = models_torch.BigBirdModel.from_pretrained(tmp_path)
    assert torch.equal(again(torch.arange(3, 23)[None]).last_hidden_state, output.last_hidden_state)
    with pytest.raises(ValueError, match="'postnorm' where add_cross_attention = True is set"):
        TINY.replace(is_decoder=True, add_cross_attention=True)
