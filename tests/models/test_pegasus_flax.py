"""BigBird-Pegasus in Flax against the original's own evaluations, against its torch twin, and its calls."""

import jax
import numpy as np
import pytest
import torch
from flax.traverse_util import flatten_dict

import models_flax
import models_torch
from models_flax.pegasus.losses import decoder_inputs, summary_loss
from tests.models.pegasus_cases import CASES, CLOSE, WITH_GRADIENTS, Case, error
from tests.models.test_pegasus_torch import TINY, ids

FAST = [case for case in CASES if case.id in ("mini-pegasus-len528-general-plan-padded", "tiny-coupled-len400-full")]
SLOW = [pytest.param(*case.values, id=case.id, marks=pytest.mark.slow) for case in CASES if case not in FAST]


def load(converted, name, case):
    return models_flax.FlaxBigBirdPegasusForConditionalGeneration.from_pretrained(
        converted(name), max_encoder_length=case.length
    )


@pytest.mark.parametrize(("name", "path"), [*FAST, *SLOW])
def test_golden(converted, name, path):
    case = Case(path) if path.exists() else pytest.skip("not there")
    model = load(converted, name, case)
    read = decoder_inputs(case.targets, model.config)
    assert (np.asarray(read) == case.tensors["decoder.input_ids"]).all()
    output = jax.jit(lambda params: model(case.ids, decoder_input_ids=read, params=params))(model.params)
    assert error(np.asarray(output.encoder_last_hidden_state)[case.real], case.encoder("encoder.output")) < CLOSE
    assert error(output.logits, case.tensors["logits"]) < CLOSE
    assert error(summary_loss(output.logits, case.targets, 0.1, "original"), case.tensors["loss"][0]) < CLOSE
    plain = summary_loss(output.logits, case.targets, 0.0, "original")
    assert error(plain, case.tensors["loss_no_smoothing"][0]) < CLOSE


@pytest.mark.slow
@pytest.mark.parametrize(("name", "path"), WITH_GRADIENTS)
def test_golden_gradients(converted, name, path):
    """In a coupled model one parameter's gradient is the sum of both uses."""
    case = Case(path)
    model = load(converted, name, case)
    read = decoder_inputs(case.targets, model.config)

    def loss(params):
        return summary_loss(
            model(case.ids, decoder_input_ids=read, params=params).logits, case.targets, 0.1, "original"
        )

    found = flatten_dict(jax.jit(jax.grad(loss))(model.params), sep="/")
    largest = case.largest_gradient()
    expected = dict(case.gradients(model.config, "flax"))
    assert found.keys() == expected.keys()
    for own, golden in expected.items():
        assert error(found[own], golden) < CLOSE * largest, own


@pytest.mark.parametrize(
    "changes",
    [
        {"decoder_layers": 1, "use_bias": True, "norm_type": "postnorm"},
        {"couple_encoder_decoder": True, "encoder_layers": 1, "decoder_layers": 1},
    ],
)
def test_the_twins_draw_and_compute_the_same(changes):
    config = TINY.replace(**changes)
    twin = models_torch.BigBirdPegasusForConditionalGeneration.from_config(config, seed=3)
    model = models_flax.FlaxBigBirdPegasusForConditionalGeneration(config, seed=3)
    text, summary = ids(2, 20), ids(2, 5, 1)
    text[1, 12:] = 0
    with torch.no_grad():
        expected = twin(text, decoder_input_ids=summary)
    arrays = text.numpy(), summary.numpy()
    found = jax.jit(lambda params: model(arrays[0], decoder_input_ids=arrays[1], params=params))(model.params)
    assert error(found.logits, expected.logits) < 1e-6
    shapes = jax.tree.map(np.shape, model.param_shapes(), is_leaf=lambda leaf: hasattr(leaf, "shape"))
    assert shapes == jax.tree.map(np.shape, model.params)


def test_token_by_token_is_the_full_pass():
    config = TINY.replace(encoder_layers=1, decoder_layers=1)
    model = models_flax.FlaxBigBirdPegasusForConditionalGeneration(config, seed=2)
    text, summary = ids(2, 16).numpy(), ids(2, 4, 1).numpy()
    whole = jax.jit(lambda params: model(text, decoder_input_ids=summary, params=params))(model.params)
    step = jax.jit(
        lambda new, past: model(
            encoder_outputs=(whole.encoder_last_hidden_state,), decoder_input_ids=new, past_key_values=past
        )
    )
    past, steps = model.init_cache(2, 4), []
    for i in range(4):
        output = step(summary[:, i : i + 1], past)
        past = output.past_key_values
        steps.append(output.logits)
    assert error(np.concatenate(steps, axis=1), whole.logits) < 1e-6
    assert int(past[0].filled) == 4
    assert past[0].cross_key.shape == (2, 2, 16, 8)
    with pytest.raises(ValueError, match="4 places, of which 4 are taken, but 1 tokens come"):
        model(text, decoder_input_ids=summary[:, :1], past_key_values=past)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"decoder_input_ids": np.ones((1, 2), int)}, "neither of input_ids and inputs_embeds was given"),
        ({"input_ids": np.full((1, 3), 41)}, r"input_ids at \[0, 0\] is 41"),
        ({"input_ids": np.ones((1, 3), int), "decoder_input_ids": np.ones((1, 65), int)}, "65 tokens long"),
    ],
)
def test_what_does_not_fit_is_named(arguments, message):
    model = models_flax.FlaxBigBirdPegasusForConditionalGeneration(TINY.replace(encoder_layers=1, decoder_layers=1))
    with pytest.raises(ValueError, match=message):
        model(**arguments)


@pytest.mark.parametrize("head", ["ForConditionalGeneration", "ForCausalLM"])
def test_embeddings_stand_in_for_ids(head):
    config = TINY.replace(encoder_layers=1, decoder_layers=1, is_encoder_decoder=head != "ForCausalLM")
    model, text = getattr(models_flax, f"FlaxBigBirdPegasus{head}").from_config(config), ids(2, 12).numpy()
    table = model.params["model"]["shared"]["embedding"]
    if head == "ForCausalLM":
        by_ids, embeds = model(text), {"inputs_embeds": table[text]}
    else:
        by_ids = model(text, decoder_input_ids=text[:, :5])
        embeds = {"inputs_embeds": table[text], "decoder_inputs_embeds": table[text[:, :5]]}
    assert error(model(**embeds).logits, by_ids.logits) < 1e-6
    assert error(model(**{name: x * 2 for name, x in embeds.items()}).logits, by_ids.logits) > 1e-4
    first = "inputs_embeds"
    with pytest.raises(ValueError, match="both of input_ids and inputs_embeds was given"):
        model(text, **embeds)
    with pytest.raises(ValueError, match=r"inputs_embeds has shape \[2, 12, 3\], expected \[batch, length, "):
        model(**embeds | {first: embeds[first][..., :3]})


def test_a_folder_of_another_family_is_refused(converted):
    with pytest.raises(
        ValueError, match="is a class of BigBird, but the configuration is that of a BigBird-Pegasus model"
    ):
        models_flax.FlaxBigBirdModel.from_pretrained(converted("mini-pegasus"))
