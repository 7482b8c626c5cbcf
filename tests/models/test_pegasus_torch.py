"""BigBird-Pegasus in torch against the original's own evaluations, and its calls."""

import numpy as np
import pytest
import torch
from jax import numpy as jnp

import models_flax.pegasus.losses
import models_torch
from bigbird_port.conversion.convert import Settings, convert
from bigbird_port.families.pegasus.config import BigBirdPegasusConfig
from models_torch.pegasus.cache import init_cache
from models_torch.pegasus.losses import decoder_inputs, summary_loss
from models_torch.pegasus.outputs import BigBirdPegasusEncoderOutput
from tests.conftest import GOLDEN
from tests.families.test_pegasus import SMALL
from tests.models.pegasus_cases import CASES, CLOSE, WITH_GRADIENTS, Case, error

TINY = BigBirdPegasusConfig(**SMALL)
MODELS = (
    models_torch.BigBirdPegasusModel,
    models_torch.BigBirdPegasusForConditionalGeneration,
    models_torch.BigBirdPegasusForSequenceClassification,
    models_torch.BigBirdPegasusForQuestionAnswering,
    models_torch.BigBirdPegasusForCausalLM,
)


def load(converted, name, case):
    return models_torch.BigBirdPegasusForConditionalGeneration.from_pretrained(
        converted(name), max_encoder_length=case.length
    )


def ids(batch, length, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(3, 40, (batch, length)))


@pytest.mark.parametrize(("name", "path"), CASES)
def test_golden(converted, name, path):
    case = Case(path) if path.exists() else pytest.skip("not there")
    model, labels = load(converted, name, case), torch.from_numpy(case.targets)
    with torch.no_grad():
        output = model(torch.from_numpy(case.ids), labels=labels)
        tapped = model(torch.from_numpy(case.ids), labels=labels, output_taps=True)
    assert (decoder_inputs(labels, model.config).numpy() == case.tensors["decoder.input_ids"]).all()
    assert error(output.encoder_last_hidden_state.numpy()[case.real], case.encoder("encoder.output")) < CLOSE
    assert error(output.logits, case.tensors["logits"]) < CLOSE
    assert error(output.loss, case.tensors["loss"][0]) < CLOSE
    plain = summary_loss(output.logits, labels, 0.0, "original")
    assert error(plain, case.tensors["loss_no_smoothing"][0]) < CLOSE
    scores = output.logits.log_softmax(-1).gather(-1, labels[..., None])[..., 0] * (labels != 0)
    assert error(scores, case.tensors["target_log_probs"]) < CLOSE
    assert compare_taps(tapped.taps, case) >= 8


def compare_taps(taps, case):
    """How many taps the case has; all are near, of the residual streams within what their size allows."""
    count = 0
    for name, tap in taps.items():
        golden = name.replace("layer.", "layer_")
        golden = golden.removesuffix(".output") if ".layer_" in golden else golden
        if golden in case.tensors:
            encoder = name.startswith("encoder")
            found = tap.numpy()[case.real] if encoder else tap.numpy()
            expected = case.encoder(golden) if encoder else case.tensors[golden]
            assert error(found, expected) < 2e-6 * max(10, np.abs(expected).max()), name
            count += 1
    return count


@pytest.mark.parametrize(("name", "path"), WITH_GRADIENTS)
def test_golden_gradients(converted, name, path):
    """In a coupled model one parameter's gradient is the sum of both uses."""
    case = Case(path)
    model = load(converted, name, case)
    model(torch.from_numpy(case.ids), labels=torch.from_numpy(case.targets)).loss.backward()
    found = {own: p.grad.numpy() for own, p in model.named_parameters(remove_duplicate=False)}
    largest, count = case.largest_gradient(), 0
    for own, expected in case.gradients(model.config, "torch"):
        assert error(found[own], expected) < CLOSE * largest, own
        count += 1
    assert count == (56 if name == "tiny-coupled" else 66)


def test_shared_weights_are_one_parameter():
    config = TINY.replace(couple_encoder_decoder=True, norm_type="postnorm", use_bias=True)
    model = models_torch.BigBirdPegasusForConditionalGeneration.from_config(config)
    encoder, decoder = model.model.encoder, model.model.decoder
    assert decoder.layers[0].self_attn.q_proj.weight is encoder.layers[0].self_attn.self.query.weight
    assert decoder.layers[1].fc2.bias is encoder.layers[1].fc2.bias
    assert decoder.layernorm_embedding.weight is encoder.layernorm_embedding.weight
    assert decoder.embed_positions.weight is encoder.embed_positions.weight
    apart = models_torch.BigBirdPegasusForConditionalGeneration.from_config(
        config.replace(couple_encoder_decoder=False)
    )
    assert apart.model.decoder.layers[1].fc2.bias is not apart.model.encoder.layers[1].fc2.bias
    assert sum(p.numel() for p in model.parameters()) < sum(p.numel() for p in apart.parameters())


@pytest.mark.parametrize("cls", MODELS)
@pytest.mark.parametrize("changes", [{}, {"norm_type": "postnorm", "use_bias": True, "decoder_layers": 1}])
def test_saved_and_loaded(tmp_path, cls, changes):
    model = cls.from_config(TINY.replace(**changes), seed=1)
    model.save_pretrained(tmp_path)
    again = cls.from_pretrained(tmp_path)
    assert again.initialised == []
    for (name, one), (other, two) in zip(model.state_dict().items(), again.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(one, two)


def test_a_coupled_model_is_saved_once_and_loaded(tmp_path):
    config = TINY.replace(couple_encoder_decoder=True)
    model = models_torch.BigBirdPegasusForConditionalGeneration.from_config(config, seed=1)
    model.save_pretrained(tmp_path)
    again = models_torch.BigBirdPegasusForConditionalGeneration.from_pretrained(tmp_path)
    text = ids(2, 20)
    assert torch.equal(model(text, labels=text[:, :5]).logits, again(text, labels=text[:, :5]).logits)


def test_a_folder_of_another_family_is_refused(converted):
    with pytest.raises(
        ValueError, match="is a class of BigBird, but the configuration is that of a BigBird-Pegasus model"
    ):
        models_torch.BigBirdModel.from_pretrained(converted("mini-pegasus"))
    with pytest.raises(ValueError, match="is a class of BigBird-Pegasus, but the configuration is that of a BigBird"):
        models_torch.BigBirdPegasusModel.from_pretrained(converted("mini-pretrain"))


def test_token_by_token_is_the_full_pass():
    model = models_torch.BigBirdPegasusForConditionalGeneration.from_config(TINY, seed=2)
    text, summary = ids(2, 30), ids(2, 6, 1)
    text[1, 20:] = 0
    with torch.no_grad():
        whole = model(text, decoder_input_ids=summary, use_cache=False)
        assert whole.past_key_values is None
        past, steps = init_cache(TINY, 2, 6), []
        for i in range(6):
            output = model(
                encoder_outputs=(whole.encoder_last_hidden_state,),
                attention_mask=text != 0,
                decoder_input_ids=summary[:, i : i + 1],
                past_key_values=past,
            )
            past = output.past_key_values
            steps.append(output.logits)
        first = model(text, decoder_input_ids=summary[:, :4], use_cache=True)
        rest = model(text, decoder_input_ids=summary[:, 4:], past_key_values=first.past_key_values)
    assert error(torch.cat(steps, dim=1), whole.logits) < 1e-6
    assert error(rest.logits, whole.logits[:, 4:]) < 1e-6
    assert past[0].filled == 6
    assert past[0].key.shape == (2, 2, 6, 8)
    assert past[0].cross_key.shape == (2, 2, 30, 8)
    with pytest.raises(ValueError, match="6 places, of which 6 are taken, but 1 tokens come"):
        model(text, decoder_input_ids=summary[:, :1], past_key_values=past)


def test_outputs_are_called_as_in_transformers():
    model = models_torch.BigBirdPegasusModel.from_config(TINY)
    text = ids(2, 20)
    output = model(text, decoder_input_ids=text[:, :5], output_attentions=True, output_hidden_states=True)
    assert list(output) == [
        *("last_hidden_state", "past_key_values", "decoder_hidden_states", "decoder_attentions", "cross_attentions"),
        *("encoder_last_hidden_state", "encoder_hidden_states", "encoder_attentions"),
    ]
    assert [len(output[name]) for name in list(output)[2:5]] == [3, 2, 2]
    assert output.decoder_attentions[0].shape == (2, 2, 5, 5)
    assert output.cross_attentions[0].shape == (2, 2, 5, 20)
    assert error(output.cross_attentions[0].detach().sum(-1), 1) < 1e-6
    assert torch.equal(output.decoder_hidden_states[-1], output.last_hidden_state)
    again = model(
        encoder_outputs=BigBirdPegasusEncoderOutput(output.encoder_last_hidden_state), decoder_input_ids=text[:, :5]
    )
    assert error(again.last_hidden_state.detach(), output.last_hidden_state.detach()) < 1e-6
    assert isinstance(model(text, return_dict=False), tuple)


def test_a_head_that_is_masked_adds_nothing():
    model = models_torch.BigBirdPegasusModel.from_config(TINY)
    text, heads = ids(1, 12), torch.tensor([0.0, 1.0])
    plain = model(text, decoder_input_ids=text[:, :5])
    for name in ("head_mask", "decoder_head_mask", "cross_attn_head_mask"):
        masked = model(text, decoder_input_ids=text[:, :5], **{name: heads})
        assert not torch.allclose(masked.last_hidden_state, plain.last_hidden_state)
        ones = model(text, decoder_input_ids=text[:, :5], **{name: torch.ones(2, 2)})
        assert torch.equal(ones.last_hidden_state, plain.last_hidden_state)


def test_embeddings_stand_in_for_ids():
    model = models_torch.BigBirdPegasusForConditionalGeneration.from_config(TINY)
    text, words = ids(1, 12), model.get_input_embeddings()
    by_ids = model(text, decoder_input_ids=text[:, :5]).logits
    embeds = {"inputs_embeds": words(text), "decoder_inputs_embeds": words(text[:, :5])}
    assert error(model(**embeds).logits.detach(), by_ids.detach()) < 1e-6


def test_losses_of_both_styles():
    model = models_torch.BigBirdPegasusForConditionalGeneration.from_config(TINY.replace(loss_style="transformers"))
    text, labels = ids(2, 12), ids(2, 5, 1)
    labels[1, 3:] = -100
    output = model(text, labels=labels)
    expected = torch.nn.functional.cross_entropy(output.logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
    assert error(output.loss.detach(), expected.detach()) < 1e-6
    shifted = decoder_inputs(labels, model.config)
    assert shifted[:, 0].tolist() == [2, 2]
    assert torch.equal(shifted[1, 1:4], labels[1, :3])
    assert shifted[1, 4] == 0
    original = decoder_inputs(labels, TINY)
    assert original[1].tolist() == [2, *labels[1, :2].tolist(), 0, 0]
    assert torch.equal(decoder_inputs(torch.zeros(1, 3, dtype=torch.long), TINY), torch.zeros(1, 3, dtype=torch.long))


def test_the_other_heads():
    text = ids(2, 12)
    text[:, 8] = 1
    classifier = models_torch.BigBirdPegasusForSequenceClassification.from_config(TINY)
    assert classifier(text, labels=torch.tensor([0, 2])).loss > 0
    assert classifier(text).logits.shape == (2, 3)
    spans = models_torch.BigBirdPegasusForQuestionAnswering.from_config(TINY)
    found = spans(text, start_positions=torch.tensor([1, 2]), end_positions=torch.tensor([3, 4]))
    assert found.loss > 0
    assert found.start_logits.shape == (2, 12)
    decoder = models_torch.BigBirdPegasusForCausalLM.from_config(TINY)
    assert decoder(text, labels=text).loss > 0
    assert decoder(text).logits.shape == (2, 12, 40)
    with pytest.raises(ValueError, match="every text must hold the end-of-sequence token 1"):
        classifier(ids(1, 4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "neither of input_ids and inputs_embeds was given"),
        ({"input_ids": torch.tensor([[41]])}, r"input_ids at \[0, 0\] is 41"),
        (
            {"input_ids": torch.ones(1, 3).long(), "decoder_input_ids": torch.tensor([[40]])},
            r"decoder_input_ids at \[0, 0\]",
        ),
        ({"input_ids": torch.ones(1, 3).long(), "labels": torch.zeros(1, 0).long()}, r"labels has shape \[1, 0\]"),
        ({"input_ids": torch.ones(1, 3).long(), "labels": torch.ones(1, 65).long()}, "65 tokens long.* 64 position"),
        ({"input_ids": torch.ones(1, 3).long(), "decoder_head_mask": torch.ones(3)}, "decoder_head_mask has shape"),
        ({"input_ids": torch.ones(1, 3).long(), "past_key_values": ()}, "past_key_values has 0 entries, expected 2"),
        (
            {"encoder_outputs": (torch.ones(1, 3, 4),), "decoder_input_ids": torch.ones(1, 1).long()},
            "hidden states have",
        ),
    ],
)
def test_what_does_not_fit_is_named(arguments, message):
    model = models_torch.BigBirdPegasusForConditionalGeneration.from_config(TINY)
    with pytest.raises(ValueError, match=message):
        model(**arguments)


def test_training_reaches_every_weight_and_checkpointing_changes_nothing():
    config = TINY.replace(dropout=0.0)
    model = models_torch.BigBirdPegasusForConditionalGeneration.from_config(config).train()
    text = ids(2, 20)
    model(text, labels=text[:, :5]).loss.backward()
    plain = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    model.gradient_checkpointing_enable()
    model(text, labels=text[:, :5]).loss.backward()
    assert all(error(p.grad, plain[name]) < 1e-6 for name, p in model.named_parameters())
    assert len(plain) == 66


@pytest.mark.peer
def test_transformers_loads_what_is_converted_and_agrees(tmp_path):
    """Full attention, its LayerNorm's eps set to the original's: the same logits, and nothing missing or unexpected."""
    peer = pytest.importorskip("transformers").BigBirdPegasusForConditionalGeneration
    convert(GOLDEN["mini-pegasus"].checkpoint, tmp_path / "out", Settings(to=("torch",)))
    theirs, info = peer.from_pretrained(
        tmp_path / "out/torch", attention_type="original_full", output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    for module in theirs.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-12
    ours = models_torch.BigBirdPegasusForConditionalGeneration.from_pretrained(
        tmp_path / "out", attention_type="original_full"
    )
    text, summary = ids(2, 90), ids(2, 7, 1)
    text[1, 70:] = 0
    with torch.no_grad():
        found = theirs.eval()(text, attention_mask=(text != 0).long(), decoder_input_ids=summary).logits
        assert error(ours(text, decoder_input_ids=summary).logits, found) < CLOSE
    theirs.save_pretrained(tmp_path / "theirs")
    again = models_torch.BigBirdPegasusForConditionalGeneration.from_pretrained(tmp_path / "theirs")
    assert torch.equal(again.model.shared.weight, ours.model.shared.weight)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.zeros(2, 0, dtype=torch.long), r"labels has shape \[2, 0\]"),
        (torch.tensor([[0, -100], [0, 0]]), "labels hold no token: all are padding .*give summaries"),
        (torch.ones(1, 65, dtype=torch.long), "labels are 65 tokens long, but there are 64 position .*cut them"),
    ],
)
def test_summaries_that_cannot_be_are_named_in_both_frameworks(labels, message):
    config = TINY.replace(encoder_layers=1, decoder_layers=1)

    def of_flax():
        models_flax.pegasus.losses.decoder_inputs(labels.numpy(), config)
        models_flax.pegasus.losses.summary_loss(jnp.zeros((*labels.shape, 40)), labels.numpy(), 0.1, "original")

    with pytest.raises(ValueError, match=message):
        models_torch.BigBirdPegasusForConditionalGeneration(config)(ids(len(labels), 4), labels=labels)
    with pytest.raises(ValueError, match=message):
        of_flax()
    one = torch.tensor([[5, 1], [0, 0]])  # a batch may have a text without a summary, as in the original
    assert models_torch.BigBirdPegasusForConditionalGeneration(config)(ids(2, 4), labels=one).loss.isfinite()
