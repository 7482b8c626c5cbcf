"""The NumPy reference against the original's outputs, and both frameworks against the reference."""

import dataclasses
import tracemalloc

import numpy as np
import pytest

import parity.reference.model
from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.families.bigbird.heads import HEADS
from bigbird_port.models.folder import read_folder_config, read_model_folder, write_model_folder
from bigbird_port.schema.initialise import initial_value
from bigbird_port.schema.table import weights_of
from parity.given.golden import derived_taps, golden_taps, read_golden
from parity.given.inputs import for_head, make_inputs
from parity.reference.attention import multiplicity, random_blocks_of
from parity.reference.losses import loss_terms
from parity.reference.model import Reference
from parity.witnesses import whole
from tests.conftest import CASES, GOLDEN, require

GOLDEN_LIMIT = 2e-6  # of a tensor's largest magnitude; measured: 7e-7, which is the original's float32
TWIN_LIMIT = 1e-5  # times max(1, |reference|); measured: 3e-6


def forward(reference, inputs):
    """All taps, stage by stage."""
    taps, stream = reference.start(inputs)
    for i in range(reference.config.num_hidden_layers):
        layer_taps, stream = reference.layer(i, stream)
        taps |= layer_taps
    return taps | reference.finish(stream)


def paper_case(name):
    """The golden case of 1024 tokens, whose plan lists blocks twice."""
    (path,) = [path for path in require(GOLDEN[name]).cases if path.stem == "len1024-paper-plan"]
    return read_golden(path)


def load(converted, name, case, **overrides):
    return Reference.load(converted(name), case.head, {"max_encoder_length": case.max_encoder_length} | overrides, 0)


def golden_errors(case, config, taps):
    """Tap -> largest error on real tokens over the golden tensor's largest magnitude there."""
    golden, left_over = golden_taps(case, list(taps))
    assert all(name.startswith(("grad.", "rand_attn.")) for name in left_over)
    real, errors = case.inputs["input_ids"] != 0, {}
    for tap, expected in golden.items():
        value = taps[tap]
        if tap.endswith((".query", ".key", ".value")):
            value, expected = value.swapaxes(1, 2), expected.swapaxes(1, 2)
        if value.shape[:2] == real.shape:
            value, expected = value[real], expected[real]
        assert value.shape == expected.shape, tap
        assert np.isfinite(value).all(), tap
        errors[tap] = np.abs(value - expected).max() / np.abs(expected).max()
    parts = {f"layer.{i}.{part}" for i in range(config.num_hidden_layers) for part in ("context", "output")}
    scores = {"mlm_log_probs", "nsp_log_probs"} if case.head == "pretraining" else {"cls_log_probs"}
    assert errors.keys() >= parts | scores | {"embeddings_prenorm", "embeddings", "sequence_output", "pooler_output"}
    return errors


def reported(reference, case, taps):
    """The taps and what the original reports of them."""
    derived = derived_taps(taps, case, reference.config)
    return taps | {name: x for name, x in derived.items() if not name.startswith("rand_attn.")}


@pytest.mark.parametrize(("name", "path"), CASES)
def test_every_golden_tensor_is_met(converted, name, path):
    require(GOLDEN[name])
    case = read_golden(path)
    reference = load(converted, name, case)
    taps = reported(reference, case, forward(reference, case.inputs))
    errors = golden_errors(case, reference.config, taps)
    assert {tap: error for tap, error in errors.items() if error > GOLDEN_LIMIT} == {}
    assert_losses(reference, case, taps)
    if case.head == "pretraining":
        best, real = taps["prediction_logits"].argmax(-1), case.inputs["input_ids"] != 0
        assert (best == case.tensors["mlm_log_probs"][:, : best.shape[1]].argmax(-1))[real].all()


def assert_losses(reference, case, taps):
    """By the original's own labels: masked positions, whose number has 1e-5 added."""
    terms = loss_terms(reference.config, reference.head, taps, case.tensors)
    assert set(terms) == {name for name in case.tensors if name.endswith("_loss")}
    for name, term in terms.items():
        assert term.value == pytest.approx(case.tensors[name].item(), rel=GOLDEN_LIMIT)
    total = sum(case.tensors[name].item() for name in terms)
    assert reference.losses(taps, case.tensors) == pytest.approx(total, rel=GOLDEN_LIMIT)


@pytest.mark.parametrize(("name", "path"), CASES)
def test_the_random_blocks_are_the_originals(converted, name, path):
    require(GOLDEN[name])
    case = read_golden(path)
    reference = load(converted, name, case)
    blocks = reference.start(case.inputs)[1].given.blocks
    golden = {name: x for name, x in case.tensors.items() if name.startswith("rand_attn.")}
    layers = range(reference.config.num_hidden_layers if blocks else 0)
    assert set(golden) == {f"rand_attn.layer_{i}" for i in layers}
    assert bool(golden) == (case.max_encoder_length > 512)
    for i in layers:
        random = random_blocks_of(reference.config, i, blocks)
        np.testing.assert_array_equal(random, golden[f"rand_attn.layer_{i}"])


def transposed_query(weights):
    name = "encoder.layer.0.attention.self.query.kernel"
    return {**weights, name: weights[name].T}


def swapped_norm(weights):
    gamma, beta = (f"encoder.layer.0.output.LayerNorm.{part}" for part in ("gamma", "beta"))
    return {**weights, gamma: weights[beta], beta: weights[gamma]}


FAULTS = {
    "zeroed random blocks": lambda N, n, W, r, seed: np.zeros((N, n - 2, r), np.int32),
    "a set of blocks": lambda random: np.minimum(multiplicity(random), 1),
    "transposed query": transposed_query,
    "gamma and beta swapped": swapped_norm,
}


# In mini-pretrain's case only padding is listed twice.
FAULTY = [(name, fault) for name in ("mini-pretrain", "tiny-block16") for fault in FAULTS]
FAULTY.remove(("mini-pretrain", "a set of blocks"))


@pytest.mark.parametrize(("name", "fault"), FAULTY)
def test_a_fault_misses_the_golden_outputs_by_orders_of_magnitude(converted, monkeypatch, name, fault):
    case = paper_case(name)
    reference = load(converted, name, case)
    if fault == "zeroed random blocks":
        monkeypatch.setattr("parity.reference.attention.draw", FAULTS[fault])
    elif fault == "a set of blocks":
        monkeypatch.setattr(parity.reference.model, "multiplicity", FAULTS[fault])
    else:
        reference = dataclasses.replace(reference, weights=FAULTS[fault](reference.weights))
    errors = golden_errors(case, reference.config, reported(reference, case, forward(reference, case.inputs)))
    assert max(errors.values()) > 5e4 * GOLDEN_LIMIT
    assert errors["mlm_log_probs"] > 5e3 * GOLDEN_LIMIT
    assert errors["embeddings"] < GOLDEN_LIMIT  # where the fault is not


def test_a_block_counts_as_often_as_it_is_listed():
    """Row by row as in the table of the original's key blocks, n = 8."""
    random = np.array([[[5, 3], [7, 2], [6, 1], [1, 1], [2, 3], [0, 4]]])
    lists = [
        [*range(8)],
        [0, 1, 2, 7, 5, 3],
        [0, 1, 2, 3, 7, 2, 7],
        [0, 2, 3, 4, 6, 1, 7],
        [0, 3, 4, 5, 1, 1, 7],
        [0, 4, 5, 6, 2, 3, 7],
        [0, 5, 6, 7, 0, 4],
        [*range(8)],
    ]
    expected = np.array([[[row.count(block) for block in range(8)] for row in lists]])
    np.testing.assert_array_equal(multiplicity(random), expected)


def test_the_paper_plan_does_list_blocks_twice(converted):
    reference = load(converted, "mini-pretrain", paper_case("mini-pretrain"))
    assert multiplicity(random_blocks_of(reference.config, 0, 64)).max() == 2


# 500 tokens: full attention, 31.25 blocks. 1001: block-sparse, a batch shorter than its pattern, blocks listed twice;
# tiny-block16 has no biases and rescales. Flax compiles each, so it takes one folder through all heads.
EVERY_HEAD = [
    *(
        ("torch", name, length, head)
        for name, length in (("mini-pretrain", 500), ("tiny-block16", 1001))
        for head in HEADS
    ),
    *(("flax", "mini-pretrain", 1001, head) for head in HEADS),
    ("flax", "mini-pretrain", 500, "qa"),
    ("flax", "tiny-block16", 1001, "pretraining"),
]


@pytest.mark.parametrize(("framework", "name", "length", "head"), EVERY_HEAD)
def test_both_frameworks_give_what_the_reference_gives(converted, name, length, head, framework):
    assert_twin_agrees(converted(name), head, framework, {"max_encoder_length": 500 if length == 500 else 1024}, length)


@pytest.mark.parametrize("framework", ["torch", "flax"])
def test_a_framework_with_other_random_blocks_is_caught(converted, monkeypatch, framework):
    """The negative control: the reference keeps the original's plan."""
    folder, overrides = converted("mini-pretrain"), {"max_encoder_length": 528}
    inputs = make_inputs(read_folder_config(folder, "torch"), 2, 528, seed=1)
    right = whole.load_whole
    wrong = right(framework, folder, "base", inputs, overrides | {"random_blocks": "transformers"}, 5)
    wrong = wrong._replace(config=wrong.config.replace(random_blocks="original"))
    monkeypatch.setattr(whole, "load_whole", lambda name, *rest: wrong if name == framework else right(name, *rest))
    with pytest.raises(AssertionError, match=r"layer\.0\.context"):
        assert_equal_runs(folder, "base", framework, inputs, overrides)


CONFIGURATIONS = [
    ("tiny-pretrain", "pretraining", 768, {"max_encoder_length": 768}),
    ("mini-pretrain", "base", 600, {"random_blocks": "transformers", "max_encoder_length": None}),
    ("mini-pretrain", "masked-lm", 40, {"is_decoder": True, "attention_type": "original_full", "hidden_act": "selu"}),
    ("tiny-pretrain", "qa", 1024, {"max_encoder_length": None}),
    ("tiny-pretrain", "token-classification", 1024, {"max_encoder_length": 2048, "num_labels": 5}),
    ("tiny-classifier", "sequence-classification", 1024, {}),
    ("mini-pretrain", "base", 528, {"random_blocks": "resample"}),
    ("mini-pretrain", "masked-lm", 528, {"attention_type": "original_full", "hidden_act": "gelu"}),
    ("mini-pretrain", "qa", 40, {"hidden_act": "tanh"}),
    ("mini-pretrain", "masked-lm", 40, {"hidden_act": "linear"}),
]
# The twins are compared with each other in all of these elsewhere.
CONFIGURED = [("torch", *case) for case in CONFIGURATIONS] + [("flax", *case) for case in CONFIGURATIONS[:3]]


@pytest.mark.parametrize(("framework", "name", "head", "length", "overrides"), CONFIGURED)
def test_every_configuration_is_understood_alike(converted, framework, name, head, length, overrides):
    assert_twin_agrees(converted(name), head, framework, overrides, length)


def assert_twin_agrees(folder, head, framework, overrides, length):
    config = read_folder_config(folder, "torch").replace(**overrides)
    inputs = for_head(make_inputs(config, 3, length, seed=1), head, config)
    if head == "qa":
        del inputs["token_type_ids"]  # derived from the question
    assert_equal_runs(folder, head, framework, inputs, overrides)


def assert_equal_runs(folder, head, framework, inputs, overrides):
    expected = whole.load_whole("reference", folder, head, inputs, overrides, 5)
    run = whole.load_whole(framework, folder, head, inputs, overrides, 5)
    assert run.config == expected.config
    assert run.initialised == expected.initialised
    assert run.taps.keys() == expected.taps.keys()
    for tap, x in expected.taps.items():
        assert x.dtype == np.float64
        assert run.taps[tap].shape == x.shape, tap
        error = np.abs(run.taps[tap] - x) / np.maximum(1, np.abs(x))
        assert error.max() <= TWIN_LIMIT, tap


@pytest.mark.parametrize(
    ("framework", "head"),
    [("torch", "base"), ("torch", "causal-lm"), ("torch", "multiple-choice"), ("flax", "causal-lm")],
)
def test_masks_and_positions_are_understood_alike(converted, framework, head):
    """A mask with holes, one text all padding, positions backwards; under full attention padded queries count too."""
    rng = np.random.default_rng(3)
    ids = rng.integers(1, 60, (3, 45)).astype(np.int32)
    mask = rng.random(ids.shape) < 0.6
    mask[1] = False
    positions = np.broadcast_to(np.arange(45)[::-1], ids.shape)
    inputs = {"input_ids": ids, "attention_mask": mask.astype(np.int32), "position_ids": positions.copy()}
    folder = converted("mini-pretrain")
    config = read_folder_config(folder, "torch")
    assert_equal_runs(folder, head, framework, for_head(inputs, head, config), {})


def test_a_mask_of_queries_and_keys_is_understood_alike(converted):
    rng = np.random.default_rng(3)
    ids, pairs = rng.integers(1, 60, (3, 45)).astype(np.int32), rng.random((3, 45, 45)) < 0.5
    pairs[1, 7] = False  # a query that may see nothing
    inputs = {"input_ids": ids, "attention_mask": pairs.astype(np.int32)}
    for head in ("base", "causal-lm"):
        assert_equal_runs(converted("mini-pretrain"), head, "torch", inputs, {"attention_type": "original_full"})


def test_a_flax_folder_holds_the_same_model(converted):
    torch, flax = (Reference.load(converted("mini-pretrain") / part, "qa", {}, 1) for part in ("torch", "flax"))
    assert torch.weights.keys() == flax.weights.keys()
    for name, x in torch.weights.items():
        np.testing.assert_array_equal(x, flax.weights[name])


@pytest.mark.parametrize("framework", ["torch", "flax"])
def test_weights_are_read_when_they_are_used_and_not_kept(tmp_path, framework):
    config = BigBirdConfig(vocab_size=3000, hidden_size=128, num_hidden_layers=2, num_attention_heads=2)
    weights = {row.name: initial_value(row, config, 0) for row in weights_of(config, "pretraining", framework)}
    write_model_folder(tmp_path, weights, config, "pretraining", framework)
    folder = read_model_folder(tmp_path, framework)
    tracemalloc.start()
    reference = Reference.load(tmp_path, "token-classification", {}, 1)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 0.25 * sum(x.nbytes for x in reference.weights.values())
    own = set(reference.initialised)
    assert 0 < len(own) < len(reference.weights)
    for name in reference.weights.keys() - own:
        np.testing.assert_array_equal(reference.weights[name], folder.weights[name])
    other = Reference.of(folder.config, "token-classification", dict(reference.weights))
    inputs = make_inputs(folder.config, 2, 64, 0)
    for tap, x in other.start(inputs)[0].items():
        np.testing.assert_array_equal(reference.start(inputs)[0][tap], x)


def test_a_stage_takes_hidden_states_from_elsewhere(converted):
    """Stages give what the whole run gives, in any order, on arrays that were fed in."""
    case = read_golden(GOLDEN["mini-pretrain"].cases[-1])
    overrides = {"max_encoder_length": case.max_encoder_length}
    expected = whole.load_whole("reference", converted("mini-pretrain"), "pretraining", case.inputs, overrides, 0).taps
    reference = load(converted, "mini-pretrain", case)
    _, stream = reference.start(case.inputs)
    last = reference.finish(dataclasses.replace(stream, x=expected["layer.1.output"]))
    second, _ = reference.layer(1, dataclasses.replace(stream, x=expected["layer.0.output"].copy()))
    assert len(last) == 4
    assert len(second) == 7
    for tap, x in (last | second).items():
        np.testing.assert_array_equal(x, expected[tap])
    other, _ = reference.layer(1, dataclasses.replace(stream, x=expected["layer.0.output"] + 0.1 * stream.x))
    assert np.abs(other["layer.1.output"] - expected["layer.1.output"]).max() > 1e-3


def test_a_layer_never_holds_the_scores_of_all_heads():
    config = BigBirdConfig(
        vocab_size=70,
        hidden_size=64,
        num_attention_heads=4,
        num_hidden_layers=1,
        intermediate_size=128,
        block_size=16,
    )
    weights = {row.name: initial_value(row, config, 0) for row in weights_of(config, "base")}
    reference = Reference.of(config, "base", weights)
    _, stream = reference.start(make_inputs(config, 1, 2048, 0))
    tracemalloc.start()
    taps, _ = reference.layer(0, stream)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held >= 0.99 * sum(x.nbytes for x in taps.values()) > 0
    chunk = 256 * 2048 * 8
    assert peak - held < 6 * chunk < 4 * 2048 * 2048 * 8 / 4


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"input_ids": np.ones((1, 4), int), "inputs_embeds": np.ones((1, 4, 2))}, "inputs_embeds"),
        ({"input_ids": np.full((1, 4), 99)}, r"input_ids\[0, 0\] is 99"),
        ({"input_ids": np.ones(4, int)}, r"input_ids has shape \[4\]"),
        ({"input_ids": np.ones((1, 528), int), "attention_mask": np.ones((1, 528, 528))}, "three axes"),
        ({"input_ids": np.ones((1, 529), int)}, "529 tokens long"),
    ],
)
def test_inputs_that_do_not_fit_are_named(converted, inputs, message):
    reference = Reference.load(converted("mini-pretrain"), "base", {}, 0)
    with pytest.raises(ValueError, match=message):
        reference.start(inputs)
