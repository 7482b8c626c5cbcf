"""What a model is called with: the page's arguments in the page's order, and an error for what does not fit."""

import inspect

import pytest
import torch

from bigbird_port.families.bigbird.heads import HEADS
from models_torch.bigbird.cache import LayerCache, init_cache
from tests.models.torch_models import DECODER, FULL, TINY, labels_for, model_class, random_ids

COMMON = ["input_ids", "attention_mask", "token_type_ids", "position_ids", "head_mask", "inputs_embeds"]
ENCODER = ["encoder_hidden_states", "encoder_attention_mask"]
RETURNED = ["output_attentions", "output_hidden_states", "return_dict"]
QUESTION = ["input_ids", "attention_mask", "question_lengths", "token_type_ids", "position_ids", "head_mask"]
# transformers' page, class by class
PAGE = {
    "base": [*COMMON, *ENCODER, "past_key_values", "use_cache", *RETURNED],
    "pretraining": [*COMMON, "labels", "next_sentence_label", *RETURNED],
    "masked-lm": [*COMMON, *ENCODER, "labels", *RETURNED],
    "causal-lm": [*COMMON, *ENCODER, "past_key_values", "labels", "use_cache", *RETURNED],
    "sequence-classification": [*COMMON, "labels", *RETURNED],
    "multiple-choice": [*COMMON, "labels", *RETURNED],
    "token-classification": [*COMMON, "labels", *RETURNED],
    "qa": [*QUESTION, "inputs_embeds", "start_positions", "end_positions", *RETURNED],
}
CROSS = DECODER.replace(add_cross_attention=True)


@pytest.mark.parametrize("head", HEADS)
def test_arguments_stand_in_the_order_of_the_page(head):
    parameters = list(inspect.signature(model_class(head).forward).parameters.values())[1:]
    positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == PAGE[head]
    assert all(p.default is None for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)
    assert [p.name for p in parameters if p.kind is p.KEYWORD_ONLY] == ["output_taps", "generator"]


@pytest.mark.parametrize("head", HEADS)
def test_outputs_are_found_by_name_and_by_position(head):
    model, ids = model_class(head).from_config(FULL), random_ids(2, 40)
    if head == "multiple-choice":
        ids = ids[:, None].expand(2, 3, 40)
    output = model(ids, **labels_for(head, 2, 40), output_hidden_states=True, output_taps=True)
    values = output.to_tuple()
    assert output[0] is values[0]
    assert output[:2] == values[:2]
    assert (output["last_hidden_state"] if head == "base" else output["loss"]) is values[0]
    assert not any(isinstance(value, dict) for value in values)
    for absent in ("attentions", "nonsense"):
        with pytest.raises(KeyError, match=absent):
            output[absent]
    assert len(output.hidden_states) == 3
    assert model(ids).hidden_states is None


def test_embeddings_stand_for_ids():
    for config in (TINY, FULL.replace(rescale_embeddings=True)):
        model, ids = model_class("base").from_config(config), random_ids(2, 192)
        embeds = model.get_input_embeddings()(ids)
        assert torch.equal(model(inputs_embeds=embeds).last_hidden_state, model(ids).last_hidden_state)


def test_a_padding_id_masks_and_an_embedding_does_not():
    model, ids = model_class("base").from_config(FULL), random_ids(1, 20)
    ids[0, 15:] = 0
    embeds = model.get_input_embeddings()(ids)
    masked = model(ids).last_hidden_state[:, :15]
    assert not torch.allclose(model(inputs_embeds=embeds).last_hidden_state[:, :15], masked)
    told = model(inputs_embeds=embeds, attention_mask=(ids != 0).float())
    assert torch.equal(told.last_hidden_state[:, :15], masked)


@pytest.mark.parametrize("attention", [TINY, FULL])
@pytest.mark.parametrize("head", [head for head in HEADS if head != "multiple-choice"])
def test_a_length_of_one_works(head, attention):
    output = model_class(head).from_config(attention)(torch.tensor([[5], [6]]), output_attentions=True)
    assert output.attentions[0].shape == (2, 2, 1, 1)


IDS = random_ids(2, 6)
LONG = random_ids(1, 192)
STATES = torch.zeros(2, 4, 16)
WRONG = [
    ("base", FULL, {}, "neither of input_ids and inputs_embeds"),
    ("base", FULL, {"input_ids": IDS, "inputs_embeds": torch.zeros(2, 6, 16)}, "both of input_ids and inputs_embeds"),
    ("base", FULL, {"input_ids": torch.tensor([[1, 2], [3, 90]])}, r"input_ids at \[1, 1\] is 90, expected 0 \.\. 89"),
    ("base", FULL, {"input_ids": torch.tensor([[-1]])}, r"input_ids at \[0, 0\] is -1"),
    ("base", FULL, {"input_ids": IDS.float()}, "input_ids has dtype torch.float32, expected integers"),
    ("base", FULL, {"input_ids": IDS[:0]}, r"input_ids has shape \[0, 6\]"),
    ("base", FULL, {"input_ids": IDS[:, :0]}, r"input_ids has shape \[2, 0\]"),
    ("base", FULL, {"inputs_embeds": torch.zeros(2, 6, 15)}, r"inputs_embeds has shape \[2, 6, 15\]"),
    ("base", FULL, {"inputs_embeds": torch.zeros(0, 6, 16)}, r"inputs_embeds has shape \[0, 6, 16\]"),
    ("base", FULL, {"input_ids": random_ids(1, 641)}, "641 tokens long, but there are 640 position embeddings"),
    ("base", FULL, {"input_ids": IDS, "attention_mask": torch.ones(2, 5)}, r"attention_mask has shape \[2, 5\]"),
    ("base", FULL, {"input_ids": IDS, "attention_mask": torch.ones(2, 6, 5)}, r"attention_mask has shape \[2, 6, 5\]"),
    ("base", TINY, {"input_ids": LONG, "attention_mask": torch.ones(1, 192, 192)}, "with full attention only"),
    ("base", FULL, {"input_ids": IDS, "token_type_ids": IDS * 0 + 2}, r"token_type_ids at \[0, 0\] is 2"),
    ("base", FULL, {"input_ids": IDS, "position_ids": IDS * 0 + 640}, r"position_ids at \[0, 0\] is 640"),
    ("base", FULL, {"input_ids": IDS, "position_ids": IDS[0]}, r"position_ids has shape \[6\]"),
    ("base", FULL, {"input_ids": IDS, "head_mask": torch.ones(3)}, r"head_mask has shape \[3\], expected \[2\] or"),
    ("base", FULL, {"input_ids": IDS, "encoder_hidden_states": STATES}, "the model has no cross-attention"),
    ("base", CROSS, {"input_ids": IDS, "encoder_hidden_states": STATES[:1]}, r"encoder_hidden_states has shape \[1,"),
    ("base", CROSS, {"input_ids": IDS, "encoder_attention_mask": STATES[:, :, 0]}, "without encoder_hidden_states"),
    (
        "base",
        CROSS,
        {"input_ids": IDS, "encoder_hidden_states": STATES, "encoder_attention_mask": torch.ones(2, 5)},
        r"encoder_attention_mask has shape \[2, 5\]",
    ),
    ("base", FULL, {"input_ids": IDS, "past_key_values": init_cache(FULL, 2, 6)}, "this model is no decoder"),
    ("base", DECODER, {"input_ids": IDS, "past_key_values": init_cache(DECODER, 2, 6)[:1]}, "has 1 entries"),
    ("base", DECODER, {"input_ids": IDS, "past_key_values": init_cache(DECODER, 1, 6)}, "layer 0 has a key"),
    ("base", DECODER, {"input_ids": IDS, "past_key_values": ((STATES, STATES),) * 2}, "of LayerCache"),
    ("masked-lm", FULL, {"input_ids": IDS, "labels": IDS[:, 1:]}, r"labels has shape \[2, 5\], expected \[2, 6\]"),
    ("masked-lm", FULL, {"input_ids": IDS, "labels": IDS + 90}, r"labels at \[0, 0\] is .*expected 0 \.\. 89, or -100"),
    ("causal-lm", FULL, {"input_ids": IDS, "labels": -IDS}, r"labels at \[0, 0\]"),
    ("pretraining", FULL, {"input_ids": IDS, "next_sentence_label": torch.tensor([0, 2])}, r"label at \[1\] is 2"),
    ("token-classification", FULL, {"input_ids": IDS, "labels": IDS * 0 + 3}, r"labels at \[0, 0\] is 3"),
    ("sequence-classification", FULL, {"input_ids": IDS, "labels": torch.tensor([0, 3])}, r"labels at \[1\] is 3"),
    ("sequence-classification", FULL, {"input_ids": IDS, "labels": torch.ones(2)}, r"labels has shape \[2\]"),
    ("sequence-classification", FULL, {"input_ids": IDS, "labels": torch.tensor([0])}, r"labels has shape \[1\]"),
    ("multiple-choice", FULL, {"input_ids": IDS[:, None], "labels": torch.tensor([0, 1])}, r"labels at \[1\] is 1"),
    ("multiple-choice", FULL, {"inputs_embeds": STATES}, r"inputs_embeds has shape \[2, 4, 16\], expected \[batch, ch"),
    ("multiple-choice", FULL, {}, "neither of input_ids"),
    ("qa", FULL, {}, "neither of input_ids"),
    ("qa", FULL, {"input_ids": IDS, "start_positions": torch.tensor([0, 1])}, "only start_positions was given"),
    (
        "qa",
        FULL,
        {"input_ids": IDS, "start_positions": torch.tensor([0.5, 1]), "end_positions": torch.tensor([1, 1])},
        "start_positions has dtype",
    ),
    ("qa", FULL, {"input_ids": IDS, "question_lengths": torch.tensor([3])}, r"question_lengths has shape \[1\]"),
]


@pytest.mark.parametrize(("head", "config", "arguments", "message"), WRONG)
def test_what_does_not_fit_is_named(head, config, arguments, message):
    model = model_class(head).from_config(config)
    with pytest.raises(ValueError, match=message):
        model(**arguments)


def test_a_cache_and_new_tokens_must_fit_the_positions():
    model = model_class("base").from_config(DECODER)
    layer = torch.zeros(1, 2, 638, 8)
    past = (LayerCache(layer, layer),) * 2
    assert model(random_ids(1, 2), past_key_values=past).last_hidden_state.shape == (1, 2, 16)
    with pytest.raises(ValueError, match="641 tokens long"):
        model(random_ids(1, 3), past_key_values=past)
    with pytest.raises(ValueError, match=r"attention_mask has shape \[1, 2\], expected \[1, 640\]"):
        model(random_ids(1, 2), torch.ones(1, 2), past_key_values=past)


def test_calls_leave_no_trace():
    """Whatever was called before, in whatever mode, the result is the same, bit for bit."""
    model, ids = model_class("pretraining").from_config(TINY), random_ids(2, 192)
    first, state = model(ids).prediction_logits, {name: x.clone() for name, x in model.state_dict().items()}
    model(ids[:, :30], output_attentions=True, output_taps=True, head_mask=torch.zeros(2))
    model.train()(ids, **labels_for("pretraining", 2, 192)).loss.backward()
    model.gradient_checkpointing_enable()
    model(ids)
    model.eval()
    assert torch.equal(model(ids).prediction_logits, first)
    assert all(torch.equal(x, state[name]) for name, x in model.state_dict().items())
