"""Summaries as transformers' generate writes them: equal ids, in both frameworks, on a model with equal numbers.

The encoder attends in full, because transformers draws other random blocks, and LayerNorm's epsilon is its own.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

import models_flax
import models_torch
from bigbird_port.conversion.convert import Settings, convert

pytestmark = pytest.mark.peer
NEW = 10
SEARCHES = [
    {"num_beams": 1},
    {"num_beams": 1, "no_repeat_ngram_size": 2, "min_length": 6},
    {"num_beams": 3},
    {"num_beams": 3, "length_penalty": 2.0, "early_stopping": True},
    {"num_beams": 4, "length_penalty": 0.4, "early_stopping": "never", "no_repeat_ngram_size": 1},
    {"num_beams": 2, "length_penalty": -1.0, "early_stopping": "never", "no_repeat_ngram_size": 3},
    {"num_beams": 3, "min_length": 8, "no_repeat_ngram_size": 2, "length_penalty": 0.0},
]
DRAWS = [
    {"temperature": 0.7, "top_k": 5},
    {"top_k": 0, "top_p": 0.8},
    {"temperature": 1.5, "top_k": 20, "top_p": 0.9, "no_repeat_ngram_size": 2},
]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """transformers' model, and the two of its folder."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(3)
    config = transformers.BigBirdPegasusConfig(
        vocab_size=40,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        max_position_embeddings=64,
        attention_type="original_full",
        init_std=0.7,
        max_length=20,
    )
    peer = transformers.BigBirdPegasusForConditionalGeneration(config).eval()
    with torch.no_grad():
        peer.model.shared.weight[1] *= 1.6  # summaries end, at different lengths
        peer.model.decoder.embed_positions.weight.copy_(peer.model.encoder.embed_positions.weight)  # one table here
    folder = tmp_path_factory.mktemp("peer")
    peer.save_pretrained(folder)
    changes = {"layer_norm_eps": 1e-5, "attention_type": "original_full"}
    ours = models_torch.BigBirdPegasusForConditionalGeneration.from_pretrained(folder, **changes)
    convert(folder, folder / "out", Settings(to=("flax",)))
    flax = models_flax.FlaxBigBirdPegasusForConditionalGeneration.from_pretrained(folder / "out", **changes)
    return peer, ours, flax


@pytest.fixture(scope="module")
def texts():
    ids = np.random.default_rng(0).integers(3, 40, (6, 12))
    ids[1, 9:] = ids[4, 5:] = 0
    return ids


def expected(peer, texts, **options):
    """transformers' ids without the start, and 0 behind the end."""
    mask = torch.tensor(texts != 0)
    ids = peer.generate(torch.tensor(texts), attention_mask=mask, max_new_tokens=NEW, **options)[:, 1:].numpy()
    ids = np.pad(ids, ((0, 0), (0, NEW - ids.shape[1])))
    behind = np.cumsum(ids == 1, axis=1) - (ids == 1) > 0
    return np.where(behind, 0, ids)


def test_the_models_have_equal_numbers_and_their_summaries_differ(models, texts):
    peer, ours, flax = models
    start, ids = torch.full((6, 1), 2), torch.tensor(texts)
    theirs = peer(ids, attention_mask=ids != 0, decoder_input_ids=start).logits.detach().numpy()
    assert np.abs(ours(ids, decoder_input_ids=start).logits.detach().numpy() - theirs).max() < 2e-5
    assert np.abs(np.asarray(flax(texts, decoder_input_ids=np.full((6, 1), 2)).logits) - theirs).max() < 2e-5
    found = [expected(peer, texts, do_sample=False, **search) for search in SEARCHES]
    assert len({ids.tobytes() for ids in found}) == len(SEARCHES)  # every argument changes something
    lengths = {int((row != 0).sum()) for row in found[2]}
    assert len(lengths) > 1
    assert min(lengths) < NEW


@pytest.mark.parametrize("search", SEARCHES, ids=lambda search: "-".join(map(str, search.values())))
def test_ids_are_those_of_transformers(models, texts, search):
    peer, ours, _ = models
    wanted = expected(peer, texts, do_sample=False, **search)
    found = ours.generate(torch.tensor(texts), max_new_tokens=NEW, beam_style="transformers", **search)
    assert found.tolist() == wanted.tolist()


@pytest.mark.parametrize("search", SEARCHES, ids=lambda search: "-".join(map(str, search.values())))
@pytest.mark.quick("4-0.4-never-1")
def test_flax_writes_the_same(models, texts, search):
    peer, _, flax = models
    wanted = expected(peer, texts, do_sample=False, **search)
    found = flax.generate(texts, max_new_tokens=NEW, beam_style="transformers", **search)
    assert found.tolist() == wanted.tolist()


def test_lengths_count_as_in_transformers(models, texts):
    peer, ours, _ = models
    ids, options = torch.tensor(texts), {"max_length": 6, "min_length": 5, "num_beams": 2}
    wanted = peer.generate(ids, attention_mask=ids != 0, do_sample=False, **options)[:, 1:].tolist()
    assert ours.generate(ids, length_penalty=1.0, **options).tolist() == wanted
    assert ours.generate(ids, length_penalty=1.0, **options | {"min_length": 0}).tolist() != wanted


@pytest.mark.parametrize("draw", DRAWS, ids=lambda draw: "-".join(map(str, draw.values())))
def test_draws_are_those_of_transformers_and_of_the_generator_alone(models, texts, draw):
    peer, ours, _ = models
    torch.manual_seed(11)
    wanted = expected(peer, texts, do_sample=True, num_beams=1, **draw)
    before = torch.get_rng_state()
    options = {"do_sample": True, "max_new_tokens": NEW, **draw}
    found = ours.generate(torch.tensor(texts), generator=torch.Generator().manual_seed(11), **options)
    assert found.tolist() == wanted.tolist()
    assert torch.equal(before, torch.get_rng_state())
    other = ours.generate(torch.tensor(texts), generator=torch.Generator().manual_seed(12), **options)
    assert other.tolist() != wanted.tolist()
