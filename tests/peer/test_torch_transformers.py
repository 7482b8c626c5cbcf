"""Every class and every argument against transformers: outputs, losses, gradients, files, generation."""

from __future__ import annotations

import json

import pytest
import torch

from bigbird_port.families.bigbird.heads import HEADS
from models_torch.bigbird.cache import LayerCache
from tests.models.torch_models import DECODER, FULL, TINY, labels_for, model_class, padded, random_ids

transformers = pytest.importorskip("transformers")

# What transformers and the libraries below it warn of is not ours.
pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore")]
LIMIT = 1e-5
CONFIGS = {"sparse": TINY, "full": FULL}
LENGTHS = {"sparse": 192, "full": 48}
BATCH, CHOICES = 2, 3


def their_class(head):
    return getattr(transformers, HEADS[head].class_name)


def pair(head, config, tmp_path, seed=0):
    """The same weights in our class and in theirs, through files that we wrote; both in evaluation mode."""
    if head == "causal-lm":
        config = config.replace(is_decoder=True, attention_type="original_full")
    ours = model_class(head).from_config(config, seed)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in ours.named_parameters():
        if name.endswith("bias"):  # initial biases are 0, which would hide a bias that is left out
            parameter.data.normal_(0, 0.2, generator=generator)
    ours.save_pretrained(tmp_path)
    theirs, report = their_class(head).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return ours, theirs.eval()


def inputs_for(head, length=48):
    """Ids and mask, with an axis of choices where the head wants one."""
    if head == "multiple-choice":
        ids, mask = padded(BATCH * CHOICES, length)
        return ids.view(BATCH, CHOICES, length), mask.view(BATCH, CHOICES, length)
    ids, mask = padded(BATCH, length)
    if head == "qa":
        ids[ids == 66] = 5
        ids[0, 9] = ids[1, 12] = 66
    return ids, mask


def variants(head, length=48):
    """Arguments beside ids and mask, by name of the case."""
    ids, _ = inputs_for(head, length)
    positions = (torch.arange(length) * 3 % 600).expand(ids.shape)
    cases = {
        "plain": {},
        "token_type_ids": {"token_type_ids": (ids % 2)},
        "position_ids": {"position_ids": positions},
        "outputs": {"output_attentions": True, "output_hidden_states": True},
        "head_mask": {"head_mask": torch.tensor([0.0, 1.5]), "output_attentions": True},
        "head_mask of layers": {"head_mask": torch.tensor([[0.5, 1.0], [1.0, 0.0]]), "output_attentions": True},
        "inputs_embeds": {},
    }
    if head == "qa":
        cases["question_lengths"] = {"question_lengths": torch.tensor([[4], [30]])}
    return cases


def close(ours, theirs, what, rows=None):
    """Within LIMIT of the largest value (at least of 1); ``rows`` selects what is not padding."""
    ours, theirs = ours.detach(), theirs.detach()
    assert ours.shape == theirs.shape, what
    if rows is not None:
        ours, theirs = ours[rows], theirs[rows]
    limit = LIMIT * max(1.0, theirs.abs().max().item())
    error = (ours - theirs).abs().max().item()
    assert error <= limit, f"{what}: {error} > {limit}"


def compare(ours, theirs, real, first_key=0):
    """All fields of two outputs, on the real tokens ``real`` [B, L]; attentions from ``first_key`` on."""
    for name, expected in theirs.items():
        found = ours[name]
        if name in ("attentions", "cross_attentions"):
            for i, (a, b) in enumerate(zip(found, expected, strict=True)):
                a, b = (x.transpose(1, 2)[..., first_key:] for x in (a, b))
                close(a, b, f"{name} {i}", real)
        elif name == "hidden_states":
            for i, (a, b) in enumerate(zip(found, expected, strict=True)):
                close(a, b[:, : a.shape[1]], f"{name} {i}", real)
        elif name == "past_key_values":
            for i, layer in enumerate(found):
                close(layer.key, expected[i][0], f"key {i}")
                close(layer.value, expected[i][1], f"value {i}")
        elif found.shape[:2] == real.shape:
            close(found, expected, name, real)
        else:
            close(found, expected, name)


def loss_of(output):
    return output.loss if getattr(output, "loss", None) is not None else output.last_hidden_state[0].square().sum()


def compare_gradients(ours, theirs):
    expected = dict(theirs.named_parameters(remove_duplicate=False))
    seen = 0
    for name, parameter in ours.named_parameters():
        their_gradient = expected[name].grad
        assert (parameter.grad is None) == (their_gradient is None), name
        if parameter.grad is not None:
            # they never train the embedding of the padding token; the original does
            first = 1 if name.endswith("word_embeddings.weight") else 0
            close(parameter.grad[first:], their_gradient[first:], f"gradient of {name}")
            seen += bool(parameter.grad.abs().max() > 0)
    assert seen > 20


CASES = [
    pytest.param(head, attention, case, id=f"{head}-{attention}-{case}")
    for head in HEADS
    for attention in CONFIGS
    for case in variants(head)
    # their block-sparse attention passes head_mask over, a causal model is never block-sparse, and what concerns
    # the embeddings alone needs no second attention
    if attention == "full" or (case in ("plain", "outputs", "inputs_embeds") and head != "causal-lm")
]


@pytest.mark.parametrize(("head", "attention", "case"), CASES)
def test_outputs_losses_and_gradients_are_those_of_transformers(head, attention, case, tmp_path):
    ours, theirs = pair(head, CONFIGS[attention], tmp_path)
    length = LENGTHS[attention]
    ids, mask = inputs_for(head, length)
    arguments = {"attention_mask": mask} | variants(head, length)[case] | labels_for(head, BATCH, length)
    if case == "inputs_embeds":
        embedding = theirs.get_input_embeddings().weight.detach()
        leaves = [embedding[ids].clone().requires_grad_() for _ in range(2)]
        both = [arguments | {"inputs_embeds": leaf} for leaf in leaves]
    else:
        both = [arguments | {"input_ids": ids}] * 2
    found, expected = ours(**both[0]), theirs(**both[1])
    # of a block that stands in a list several times (here block 0) their dense attentions keep one share only
    compare(found, expected, mask.flatten(0, -2).bool(), first_key=TINY.block_size if attention == "sparse" else 0)
    loss_of(found).backward()
    loss_of(expected).backward()
    compare_gradients(ours, theirs)
    if case == "inputs_embeds":
        close(leaves[0].grad, leaves[1].grad, "gradient of inputs_embeds", mask.bool())


def test_sparse_attentions_sum_to_one_where_theirs_do_not(tmp_path):
    ours, theirs = pair("base", TINY, tmp_path)
    ids, mask = inputs_for("base", LENGTHS["sparse"])
    sums = [
        model(ids, mask, output_attentions=True).attentions[0].sum(-1).transpose(1, 2)[mask.bool()]
        for model in (ours, theirs)
    ]
    assert (sums[0] - 1).abs().max() < LIMIT
    assert (sums[1] < 0.9).any()


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("labelled", [False, True])
def test_tuples_have_their_order(head, labelled, tmp_path):
    ours, theirs = pair(head, FULL, tmp_path)
    ids, mask = inputs_for(head)
    arguments = {"attention_mask": mask, "output_attentions": True, "output_hidden_states": True, "return_dict": False}
    arguments |= labels_for(head, BATCH, 48) if labelled else {}
    found, expected = ours(ids, **arguments), theirs(ids, **arguments)
    real = mask.flatten(0, -2).bool()
    assert isinstance(found, tuple)
    if head == "qa":  # without a pooler its output is None in their base model's tuple, and dropped by the head
        assert ours.bert.pooler is None
    assert len(found) == len(expected)
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        if isinstance(a, tuple) and isinstance(a[0], LayerCache):
            close(a[0].key, b[0][0], f"entry {i}")
        elif isinstance(a, tuple):
            assert len(a) == len(b)
            axis = 1 if a[0].ndim == 3 else 2
            close(a[-1].transpose(1, axis), b[-1].transpose(1, axis), f"entry {i}", real)
        else:
            close(a, b, f"entry {i}", real if a.shape[:2] == real.shape else None)


@pytest.mark.parametrize(
    ("settings", "labels"),
    [
        ({"num_labels": 1}, torch.tensor([0.3, -1.2])),
        ({"num_labels": 3, "problem_type": "regression"}, torch.tensor([[0.5, -1.0, 2.0], [0.0, 0.3, -0.7]])),
        ({"num_labels": 3}, torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])),
        ({"num_labels": 3, "problem_type": "multi_label_classification"}, torch.ones(2, 3)),
        ({"num_labels": 3, "problem_type": "single_label_classification"}, torch.tensor([2, 0])),
    ],
)
def test_classification_losses_of_every_problem_type(settings, labels, tmp_path):
    ours, theirs = pair("sequence-classification", FULL.replace(**settings), tmp_path)
    ids, mask = padded(2, 40)
    found, expected = (model(ids, attention_mask=mask, labels=labels) for model in (ours, theirs))
    close(found.loss, expected.loss, "loss")
    found.loss.backward()
    expected.loss.backward()
    compare_gradients(ours, theirs)


@pytest.mark.parametrize(("start", "end"), [([0, 39], [5, 39]), ([-3, 40], [1000, 7])])
def test_positions_out_of_range_count_as_theirs(start, end, tmp_path):
    ours, theirs = pair("qa", FULL, tmp_path)
    ids, mask = padded(2, 40)
    arguments = {
        "attention_mask": mask,
        "question_lengths": torch.tensor([[1], [1]]),
        "start_positions": torch.tensor(start),
        "end_positions": torch.tensor(end),
    }
    close(ours(ids, **arguments).loss, theirs(ids, **arguments).loss, "loss")


def test_question_answering_with_a_pooler(tmp_path):
    ours = model_class("qa").from_config(FULL, add_pooling_layer=True)
    ours.save_pretrained(tmp_path)
    theirs = their_class("qa").from_pretrained(tmp_path, add_pooling_layer=True).eval()
    ids, mask = inputs_for("qa")
    compare(ours(ids, mask), theirs(ids, mask), mask.bool())
    assert ours(ids, mask).pooler_output.shape == (BATCH, 16)


@pytest.mark.parametrize("head", ["base", "masked-lm"])
def test_a_mask_of_queries_and_keys(head, tmp_path):
    ours, theirs = pair(head, FULL, tmp_path)
    ids = random_ids(2, 20)
    mask = (torch.rand(2, 20, 20, generator=torch.Generator().manual_seed(0)) < 0.6) | torch.eye(20, dtype=torch.bool)
    compare(ours(ids, mask), theirs(ids, mask.long()), torch.ones(2, 20, dtype=torch.bool))


def repair_cross_attention(theirs):
    """Undo two slips of theirs, without which nothing is left to compare.

    Their layer gives the encoder's states to its self-attention too, which so never sees the text; and it gives
    cross-attention the encoder's mask under a name that is not read.
    """
    for layer in theirs.bert.encoder.layer if hasattr(theirs, "bert") else theirs.encoder.layer:

        def attention(x, *args, run=layer.attention.forward, **kwargs):
            return run(x, *args, **(kwargs | {"encoder_hidden_states": None, "encoder_attention_mask": None}))

        def cross(x, *args, run=layer.crossattention.forward, **kwargs):
            # without the cache: they would append to the layer's own keys
            moved = {"encoder_attention_mask": kwargs["attention_mask"], "past_key_values": None}
            return run(x, *args, **(kwargs | moved))

        layer.attention.forward, layer.crossattention.forward = attention, cross


@pytest.mark.parametrize("head", ["base", "masked-lm", "causal-lm"])
@pytest.mark.parametrize("head_mask", [None, torch.tensor([[0.5, 1.0], [1.0, 0.0]])])
def test_decoder_with_cross_attention(head, head_mask, tmp_path):
    ours, theirs = pair(head, DECODER.replace(add_cross_attention=True), tmp_path)
    repair_cross_attention(theirs)
    ids, mask = padded(2, 30)
    arguments = {
        "attention_mask": mask,
        "encoder_hidden_states": torch.randn(2, 17, 16, generator=torch.Generator().manual_seed(0)),
        "encoder_attention_mask": (torch.arange(17) < torch.tensor([[17], [9]])).long(),
        "output_attentions": True,
        "head_mask": head_mask,
    } | labels_for(head, 2, 30)
    found, expected = ours(ids, **arguments), theirs(ids, **arguments)
    if "past_key_values" in expected:
        assert found.past_key_values[0].cross_key.shape == (2, 2, 17, 8)
    compare(found, expected, mask.bool())
    loss_of(found).backward()
    loss_of(expected).backward()
    compare_gradients(ours, theirs)


@pytest.mark.parametrize("head", ["base", "causal-lm"])
def test_decoding_step_by_step_with_their_cache(head, tmp_path):
    ours, theirs = pair(head, DECODER, tmp_path)
    ids = random_ids(2, 12)
    mask = torch.ones(2, 12, dtype=torch.long)
    mine = his = None
    for start, end in ((0, 5), (5, 6), (6, 12)):
        chunk = {"input_ids": ids[:, start:end], "attention_mask": mask[:, :end], "use_cache": True}
        found = ours(**chunk, past_key_values=mine)
        if his is None or end - start == 1:  # they build no causal mask for several tokens after a cache
            expected = theirs(**chunk, past_key_values=his)
            compare(found, expected, torch.ones(2, end - start, dtype=torch.bool))
            his = expected.past_key_values
        mine = found.past_key_values


def test_greedy_generation_is_theirs(tmp_path):
    ours, theirs = pair("causal-lm", DECODER, tmp_path)
    ids = random_ids(3, 10)
    mask = torch.ones_like(ids)
    ids[1, :4] = 0  # padding on the left
    mask[1, :4] = 0
    free = ours.generate(ids, max_new_tokens=12, attention_mask=mask, eos_token_id=-1)
    eos = int(free[0, 14])  # a token that is written, so that a text ends early
    for end in (None, eos):
        settings = {"max_new_tokens": 12, "attention_mask": mask, "pad_token_id": 0}
        expected = theirs.generate(ids, do_sample=False, eos_token_id=end, **settings)
        found = ours.generate(ids, eos_token_id=-1 if end is None else end, **settings)
        assert torch.equal(found, expected)
    assert (expected[0, 15:] == 0).all()


def test_filtered_logits_are_theirs():
    from transformers.generation.logits_process import TopKLogitsWarper, TopPLogitsWarper

    from models_torch.bigbird.generation import filter_logits

    logits = torch.randn(5, 40, generator=torch.Generator().manual_seed(0)) * 3
    for k, p in ((1, None), (7, None), (100, None), (None, 0.6), (None, 0.01), (9, 0.7)):
        expected = logits
        if k:
            expected = TopKLogitsWarper(k)(None, expected)
        if p:
            expected = TopPLogitsWarper(p)(None, expected)
        assert torch.equal(filter_logits(logits, k, p), expected)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("form", [{}, {"max_shard_size": "4KB"}, {"safe_serialization": False}])
def test_folders_that_they_wrote(head, form, tmp_path):
    values = TINY.to_dict() | {"num_labels": 3 if head != "qa" else 2, "is_decoder": head == "causal-lm"}
    for name in ("max_encoder_length", "random_blocks", "classifier_style"):
        values.pop(name)
    torch.manual_seed(0)
    theirs = their_class(head)(transformers.BigBirdConfig(**values | {"attention_type": "original_full"})).eval()
    theirs.save_pretrained(tmp_path, **form)
    files = {path.name for path in tmp_path.iterdir()}
    wanted = {"max_shard_size": "model.safetensors.index.json", "safe_serialization": "pytorch_model.bin"}
    assert next((wanted[key] for key in form), "model.safetensors") in files
    if head == "sequence-classification":
        assert "num_labels" not in json.loads((tmp_path / "config.json").read_text())  # id2label stands for it
    ours = model_class(head).from_pretrained(tmp_path)
    assert ours.initialised == []
    ids, mask = inputs_for(head)
    compare(ours(ids, mask), theirs(ids, mask), mask.flatten(0, -2).bool())
    again = tmp_path / "again"
    ours.save_pretrained(again)
    state = their_class(head).from_pretrained(again).state_dict()
    assert all(torch.equal(value, state[name]) for name, value in theirs.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_folders_in_half_precision(dtype, tmp_path):
    theirs = pair("masked-lm", FULL, tmp_path)[1].to(dtype)
    theirs.save_pretrained(tmp_path / "half")
    ours = model_class("masked-lm").from_pretrained(tmp_path / "half")
    for name, parameter in ours.named_parameters():
        assert torch.equal(parameter.float(), theirs.get_parameter(name).float())


def test_buffers_of_old_releases_are_passed_over(tmp_path):
    ours, theirs = pair("base", FULL, tmp_path)
    old = theirs.state_dict() | {"embeddings.position_ids": torch.arange(640)[None]}
    (tmp_path / "model.safetensors").unlink()
    torch.save(old, tmp_path / "pytorch_model.bin")
    again = model_class("base").from_pretrained(tmp_path)
    assert all(torch.equal(again.state_dict()[name], value) for name, value in ours.state_dict().items())
