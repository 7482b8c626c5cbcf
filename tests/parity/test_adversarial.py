"""Each case is what its name says, and the frameworks agree on all of them."""

import numpy as np
import pytest

from bigbird_port.config import BigBirdConfig
from bigbird_port.weights import from_framework, initial_arrays, to_framework
from parity.adversarial import adversarial_inputs, large_norm
from parity.metrics import measure

L, W = 200, 16
CONFIG = BigBirdConfig(
    vocab_size=40,
    hidden_size=16,
    num_attention_heads=2,
    num_hidden_layers=2,
    intermediate_size=24,
    max_position_embeddings=256,
    block_size=W,
    num_random_blocks=1,
    initializer_range=0.2,
    random_blocks="transformers",  # sparse at 200 tokens
)
CASES = adversarial_inputs(CONFIG, L, 0)


def test_cases_are_what_they_are_called():
    lengths = {name: inputs["attention_mask"].sum(axis=1).tolist() for name, inputs in CASES.items()}
    assert lengths["one-token"] == [L, 1, 1]
    assert CASES["one-token"]["attention_mask"][2, -1] == 1
    assert lengths["mixed-lengths"] == [1, W - 1, W, W + 1, L]
    assert lengths["full"] == lengths["one-id"] == lengths["one-type"] == lengths["vocabulary-ends"] == [L, L]
    ends, begins = CASES["split-blocks"]["attention_mask"]
    assert (ends[0], ends[-1], begins[0], begins[-1]) == (1, 0, 0, 1)
    assert ends.sum() % W
    assert (L - begins.sum()) % W
    assert np.unique(CASES["one-type"]["token_type_ids"]).tolist() == [CONFIG.type_vocab_size - 1]
    assert len(np.unique(CASES["one-id"]["input_ids"])) == 1
    assert np.unique(CASES["vocabulary-ends"]["input_ids"]).tolist() == [0, CONFIG.vocab_size - 1]


@pytest.mark.parametrize("length", [1, 2, W - 1, W, W + 1, 2 * W + 1, 256])
@pytest.mark.parametrize("block_size", [1, 16])
def test_every_length_gives_every_case_with_a_real_token_in_each_text(length, block_size):
    config = CONFIG.replace(block_size=block_size, type_vocab_size=1)
    for name, inputs in adversarial_inputs(config, length, 3).items():
        assert set(inputs) == {"input_ids", "attention_mask", "token_type_ids"}
        for array in inputs.values():
            assert (array.dtype, array.shape[1], array.min() >= 0) == (np.int32, length, True)
        assert inputs["attention_mask"].any(axis=1).all(), name
        assert inputs["input_ids"].max() < config.vocab_size
        assert (inputs["input_ids"][inputs["attention_mask"] == 0] == config.pad_token_id).all()


def test_the_seed_decides_and_a_length_too_long_is_refused():
    again, other = adversarial_inputs(CONFIG, L, 0), adversarial_inputs(CONFIG, L, 1)
    assert all(np.array_equal(CASES[name]["input_ids"], again[name]["input_ids"]) for name in CASES)
    assert not np.array_equal(CASES["full"]["input_ids"], other["full"]["input_ids"])
    for length in (0, 257):
        with pytest.raises(ValueError, match=r"length is \d+, expected 1 .. 256"):
            adversarial_inputs(CONFIG, length, 0)


def weights_of(config):
    return from_framework(initial_arrays(config, "masked-lm", "torch", 0)[0], config, "masked-lm", "torch")


def test_large_norm_scales_the_words_alone():
    weights = weights_of(CONFIG)
    before = {name: x.copy() for name, x in weights.items()}
    scaled = large_norm(weights, 64)
    changed = [name for name in weights if not np.array_equal(scaled[name], before[name])]
    assert changed == ["embeddings.word_embeddings.embedding"]
    assert np.array_equal(scaled[changed[0]], before[changed[0]] * 64)
    assert all(np.array_equal(weights[name], before[name]) for name in weights)
    with pytest.raises(ValueError, match="beyond float32"):
        large_norm(weights, 1e40)
    with pytest.raises(ValueError, match=r"embeddings\.word_embeddings\.embedding is not among the weights"):
        large_norm({}, 2)


def run_both(config, weights, inputs):
    import jax
    import torch

    from models_flax import FlaxBigBirdForMaskedLM
    from models_torch import BigBirdForMaskedLM

    torch_model = BigBirdForMaskedLM.from_config(config)
    torch_model.load_arrays(to_framework(weights, config, "masked-lm", "torch"))
    flax_model = FlaxBigBirdForMaskedLM(config, _do_init=False)
    flax_model.load_arrays(to_framework(weights, config, "masked-lm", "flax"))
    with torch.no_grad():
        ours = torch_model(**{name: torch.from_numpy(x) for name, x in inputs.items()}, output_taps=True)
    with jax.default_matmul_precision("highest"):
        theirs = flax_model(**inputs, output_taps=True)
    return [{**out.taps, "logits": out.logits} for out in (ours, theirs)]


@pytest.mark.parametrize(("name", "factor"), [*((name, 1) for name in CASES), ("full", 64), ("mixed-lengths", 64)])
def test_the_frameworks_agree_on_what_is_real(name, factor):
    inputs, weights = CASES[name], large_norm(weights_of(CONFIG), factor)
    torch_taps, flax_taps = run_both(CONFIG, weights, inputs)
    real_BL = inputs["attention_mask"].astype(bool)
    assert set(torch_taps) == set(flax_taps)
    for tap, value in torch_taps.items():
        a, b = np.asarray(value), np.asarray(flax_taps[tap])
        if tap.endswith((".query", ".key", ".value")):
            a, b = a.swapaxes(1, 2), b.swapaxes(1, 2)
        found = measure(a, b, 1e-5, real_BL)
        assert found.passed, (tap, found)
