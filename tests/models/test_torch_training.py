"""Training mode, and the ways in which torch runs a model: compiled, exported, in half precision, in two processes."""

import pytest
import torch

import models_torch
from bigbird_port.sparse.pattern import fold_repeats, layer_pattern
from models_torch.attention.lists import key_lists
from models_torch.bigbird.layer import BigBirdLayer
from tests.models.gloo import run_in_processes
from tests.models.torch_models import FULL, TINY, labels_for, model_class, padded, random_ids

ORIGINAL = TINY.replace(random_blocks="original")
RESAMPLE = TINY.replace(random_blocks="resample")
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
# The compiler looks at .grad of every tensor that it traces.
COMPILED = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
LONG = 544  # the original's plan begins above 512


def lists_of(monkeypatch, model, ids, **arguments):
    """The key blocks that every layer of a forward pass was given."""
    seen = []
    forward = BigBirdLayer.forward

    def spy(self, x, mask, lists, *rest):
        seen.append(lists.key_blocks.clone())
        return forward(self, x, mask, lists, *rest)

    with monkeypatch.context() as patch, torch.no_grad():
        patch.setattr(BigBirdLayer, "forward", spy)
        model(ids, **arguments)
    return seen


def equal(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_random_blocks_are_those_of_the_plan_in_training_too(monkeypatch):
    model, ids = models_torch.BigBirdModel.from_config(ORIGINAL), random_ids(1, LONG)
    planned = [
        torch.from_numpy(fold_repeats(layer_pattern(ORIGINAL, i, LONG)).key_blocks.astype("int64")) for i in range(2)
    ]
    assert equal(lists_of(monkeypatch, model, ids), planned)
    assert equal(lists_of(monkeypatch, model.train(), ids), planned)


def test_random_blocks_are_redrawn_in_training_where_the_configuration_says_so(monkeypatch):
    model, ids = models_torch.BigBirdModel.from_config(RESAMPLE), random_ids(1, LONG)
    planned = lists_of(monkeypatch, models_torch.BigBirdModel.from_config(ORIGINAL), ids)
    assert equal(lists_of(monkeypatch, model, ids), planned)
    model.train()
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 0, 1)]
    runs = [lists_of(monkeypatch, model, ids, generator=g) for g in (*generators, generators[0])]
    assert equal(runs[0], runs[1])
    for other in (planned, runs[2], runs[3]):
        assert not equal(runs[0], other)
    assert not torch.equal(runs[0][0], runs[0][1])  # each layer has its own
    with pytest.raises(ValueError, match="no generator was given"):
        model(ids)
    assert equal(lists_of(monkeypatch, model.eval(), ids), planned)


def test_redrawing_takes_no_global_random_state():
    model = models_torch.BigBirdModel.from_config(RESAMPLE.replace(**NO_DROPOUT)).train()
    state = torch.get_rng_state()
    model(random_ids(1, LONG), generator=torch.Generator().manual_seed(0))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("head", ["base", "pretraining", "sequence-classification", "qa"])
def test_every_head_takes_a_generator(head):
    model = model_class(head).from_config(RESAMPLE.replace(**NO_DROPOUT)).train()
    ids = random_ids(1, LONG)
    first, again, other = (model(ids, generator=torch.Generator().manual_seed(s)).to_tuple()[0] for s in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("settings", "length", "acts"),
    [
        ({"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.0}, 192, True),
        ({"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.5}, 192, False),  # none when block-sparse
        ({"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.5}, 100, True),  # full attention
    ],
)
def test_dropout_is_where_the_original_has_it(settings, length, acts):
    model, ids = models_torch.BigBirdModel.from_config(TINY.replace(**settings)).train(), random_ids(1, length)
    torch.manual_seed(0)
    first = model(ids).last_hidden_state
    assert torch.equal(first, model(ids).last_hidden_state) != acts
    assert torch.equal(model.eval()(ids).last_hidden_state, first) != acts


def test_embedding_dropout_precedes_the_layer_norm():
    """Then the embeddings' mean is LayerNorm's bias, 0, in training as well."""
    model = models_torch.BigBirdModel.from_config(TINY.replace(hidden_dropout_prob=0.5)).train()
    states = model(random_ids(1, 20), output_hidden_states=True).hidden_states
    assert states[0].mean(-1).abs().max() < 1e-6


def gradients(model, arguments):
    model.zero_grad()
    torch.manual_seed(7)  # dropout
    output = model(**arguments)
    output.loss.backward()
    return output.loss.detach(), [parameter.grad.clone() for parameter in model.parameters()]


@pytest.mark.parametrize("config", [TINY, FULL, RESAMPLE], ids=["sparse", "full", "resampled"])
def test_checkpointing_changes_nothing(config):
    model = models_torch.BigBirdForPreTraining.from_config(config).train()
    length = LONG if config is RESAMPLE else 192
    arguments = {"input_ids": random_ids(2, length)} | labels_for("pretraining", 2, length)

    def run():
        return gradients(model, arguments | {"generator": torch.Generator().manual_seed(5)})

    loss, plain = run()
    model.gradient_checkpointing_enable()
    again, checkpointed = run()
    assert torch.equal(loss, again)
    assert all(torch.equal(a, b) for a, b in zip(plain, checkpointed, strict=True))
    model.gradient_checkpointing_disable()
    assert not model.bert.encoder.gradient_checkpointing


def kept_bytes(model, ids):
    """Memory that is taken once the forward pass is over, with what waits for the backward pass."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        output = model(ids)
    kept = sum(event.self_cpu_memory_usage for event in profile.key_averages())
    assert output.last_hidden_state.requires_grad
    return kept


@pytest.mark.parametrize(("config", "share"), [(FULL, 10), (TINY, 5)], ids=["full", "sparse"])
def test_checkpointing_saves_memory(config, share):
    """Measured: a twentieth, and a seventh of block-sparse attention, which keeps no probabilities anyhow."""
    model = models_torch.BigBirdModel.from_config(config.replace(num_hidden_layers=4)).train()
    ids = random_ids(2, 192)
    kept = kept_bytes(model, ids)
    model.gradient_checkpointing_enable()
    assert kept_bytes(model, ids) < kept / share


@COMPILED
def test_a_layer_compiles_into_one_graph():
    ids, mask = padded(2, 192)
    model = models_torch.BigBirdModel.from_config(TINY)
    layer, x = model.encoder.layer[0], model.embeddings(ids, ids * 0, torch.arange(192)[None])[0]
    lists = key_lists(layer_pattern(TINY, 0, 192), torch.device("cpu"))
    for arguments in ((x, mask.bool(), lists), (x, mask.bool(), None)):
        expected = layer(*arguments)[0]
        found = torch.compile(layer, backend="aot_eager", fullgraph=True)(*arguments)[0]
        assert (found - expected).abs().max() < 1e-6


@COMPILED
def test_a_compiled_model_gives_the_same_and_trains():
    """NumPy chooses the blocks between the embeddings and the layers: one break, and no other."""
    model = models_torch.BigBirdForMaskedLM.from_config(TINY)
    ids, mask = padded(1, 192)
    arguments = {"input_ids": ids, "attention_mask": mask} | labels_for("masked-lm", 1, 192)
    compiled = torch.compile(model, backend="eager")
    expected, found = model(**arguments), compiled(**arguments)
    assert (found.logits - expected.logits).abs().max() < 1e-6
    assert (found.loss - expected.loss).abs() < 1e-6
    found.loss.backward()
    assert model.bert.encoder.layer[0].attention.self.query.weight.grad.abs().max() > 0
    explained = torch._dynamo.explain(model)(ids, mask)
    reasons = [reason.reason for reason in explained.break_reasons]
    assert all("disable" in reason for reason in reasons), reasons


@pytest.mark.parametrize("config", [ORIGINAL, FULL], ids=["sparse", "full"])
def test_the_encoder_exports_at_a_fixed_length(config):
    model = models_torch.BigBirdModel.from_config(config)
    ids, mask = padded(2, 528)
    program = torch.export.export(model, (ids, mask), {"return_dict": False})
    other, other_mask = padded(2, 528, seed=9)
    found = program.module()(other, other_mask, return_dict=False)
    for a, b in zip(found, model(other, other_mask, return_dict=False), strict=True):
        assert (a - b).abs().max() < 1e-6


@pytest.mark.parametrize("config", [TINY, FULL], ids=["sparse", "full"])
def test_autocast_and_half_precision(config):
    config = config.replace(initializer_range=0.1)
    model = models_torch.BigBirdForPreTraining.from_config(config)
    ids, mask = padded(2, 192)
    arguments = {"input_ids": ids, "attention_mask": mask} | labels_for("pretraining", 2, 192)
    real = mask.bool()
    exact = model(**arguments)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(**arguments)
    assert mixed.prediction_logits.dtype == torch.bfloat16
    assert (mixed.loss - exact.loss).abs() < 0.02
    mixed.loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    half = model.half()(**arguments)
    assert half.prediction_logits.dtype == torch.float16
    assert (half.prediction_logits - exact.prediction_logits)[real].abs().max() < 0.02


def test_double_precision():
    model, ids = models_torch.BigBirdModel.from_config(TINY), padded(2, 192)[0]
    exact = model(ids).last_hidden_state
    assert (model.double()(ids).last_hidden_state - exact)[ids != 0].abs().max() < 1e-5


def test_a_model_moves_to_another_device():
    model = models_torch.BigBirdModel.from_config(TINY).to("meta")
    output = model(torch.ones(2, 192, dtype=torch.long, device="meta"), output_attentions=True)
    assert output.last_hidden_state.device.type == "meta"
    assert output.attentions[0].shape == (2, 2, 192, 192)


def whole_batch(length):
    return {"input_ids": random_ids(4, length)} | {
        "labels": random_ids(4, length, seed=2),
        "next_sentence_label": torch.tensor([0, 1, 1, 0]),
    }


def train_in_process(rank):
    """One of two processes: gradients of its half of the batch, averaged over both by DDP."""
    model = models_torch.BigBirdForPreTraining.from_config(TINY.replace(**NO_DROPOUT)).train()
    parallel = torch.nn.parallel.DistributedDataParallel(model)
    for _ in range(2):  # the second step shows parameters that got no gradient
        model.zero_grad()
        parallel(**{name: x[2 * rank : 2 * rank + 2] for name, x in whole_batch(192).items()}).loss.backward()
    return {name: p.grad for name, p in model.named_parameters()}


def test_two_processes_train_as_one(tmp_path):
    first, second = run_in_processes(train_in_process, tmp_path, 2)
    model = models_torch.BigBirdForPreTraining.from_config(TINY.replace(**NO_DROPOUT)).train()
    model(**whole_batch(192)).loss.backward()
    for name, parameter in model.named_parameters():
        assert torch.equal(first[name], second[name])
        assert (first[name] - parameter.grad).abs().max() < 1e-5, name
