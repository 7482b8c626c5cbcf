"""Summaries in both frameworks: ids equal the original's, greedily and by its beam search."""

import re

import jax
import numpy as np
import pytest
import torch

import models_flax
import models_torch
from models_torch.pegasus.generation import best
from tests.conftest import GOLDEN, require
from tests.models.pegasus_cases import CASES, Case, error
from tests.models.test_pegasus_torch import TINY, ids, load

FAST = "mini-pegasus-len528-general-plan-padded"
SLOW = [case if case.id == FAST else pytest.param(*case.values, id=case.id, marks=pytest.mark.slow) for case in CASES]


def searches(case):
    """Beams, alpha and golden prefix of every search of a case."""
    for name in case.tensors:
        if match := re.fullmatch(r"beam(\d+)_alpha([\d.]+)\.ids", name):
            yield int(match[1]), float(match[2]), name.removesuffix(".ids")


def check(model, text, case, T):
    greedy = np.asarray(model.generate(text, max_length=T))
    assert (greedy == case.tensors["greedy.ids"]).all()
    count = 0
    for M, alpha, golden in searches(case):
        beams = model.generate(text, max_length=T, num_beams=M, alpha=alpha, return_beams=True)
        assert (np.asarray(beams.ids[:, 0]) == case.tensors[f"{golden}.ids"]).all(), golden
        assert (np.asarray(beams.ids) == case.tensors[f"{golden}.beams"]).all(), golden
        assert error(beams.scores, case.tensors[f"{golden}.scores"]) < 1e-5 * T, golden
        count += 1
    assert count == sum(name.endswith(".beams") for name in case.tensors)


@pytest.mark.parametrize(("name", "path"), CASES)
def test_torch_writes_what_the_original_writes(converted, name, path):
    case = Case(path) if path.exists() else pytest.skip("not there")
    check(load(converted, name, case), torch.from_numpy(case.ids), case, case.targets.shape[1])


@pytest.mark.parametrize(("name", "path"), SLOW)
def test_flax_writes_what_the_original_writes(converted, name, path):
    case = Case(path) if path.exists() else pytest.skip("not there")
    cls = models_flax.FlaxBigBirdPegasusForConditionalGeneration
    model = cls.from_pretrained(converted(name), max_encoder_length=case.length)
    check(model, case.ids, case, case.targets.shape[1])


def test_another_exponent_or_start_is_seen(converted):
    """The negative control: what the search depends on changes what it finds."""
    case = Case(require(GOLDEN["tiny-pegasus"]).checkpoint / "cases/len448-full.safetensors")
    model, text = load(converted, "tiny-pegasus", case), torch.from_numpy(case.ids)
    M, alpha, golden = max(searches(case))
    other = model.generate(text, max_length=32, num_beams=M, alpha=alpha + 1, return_beams=True)
    assert error(other.scores, case.tensors[f"{golden}.scores"]) > 1e-3
    model.config = model.config.replace(decoder_start_token_id=0)
    assert (model.generate(text, max_length=32).numpy() != case.tensors["greedy.ids"]).any()


def test_of_equal_scores_the_first_come_first():
    scores = torch.zeros(2, 3000)
    scores[0, [7, 2900]] = 1
    scores[1, 5] = -1
    values, places = best(scores, 4)
    assert places.tolist() == [[7, 2900, 0, 1], [0, 1, 2, 3]]
    assert values[0].tolist() == [1, 1, 0, 0]
    distinct = torch.randperm(3000, generator=torch.Generator().manual_seed(0)).float()[None]
    assert best(distinct, 5)[0].tolist() == [[2999, 2998, 2997, 2996, 2995]]
    assert distinct[0, best(distinct, 5)[1][0]].tolist() == [2999, 2998, 2997, 2996, 2995]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_beams": 0}, "num_beams is 0, expected 1 .. 20"),
        ({"num_beams": 41}, "num_beams is 41, expected 1 .. 20"),
        ({"max_length": 0}, "max_length is 0, expected 1 .. 64"),
        ({"max_length": 65}, "max_length is 65, expected 1 .. 64"),
        ({"max_length": 1, "min_length": 0}, "max_length is 1, expected 2 .. 65 .*the start id counted"),
        ({"max_new_tokens": 0, "top_k": 1}, "max_new_tokens is 0, expected 1 .. 64"),
        ({"max_length": 4, "max_new_tokens": 4}, "both given: give one"),
        ({"num_beams": 2.0}, "num_beams is 2.0, expected"),
        ({"beam_style": "best"}, "beam_style is 'best', expected one of 'original', 'transformers'"),
        ({"beam_style": "original", "early_stopping": True}, "'original', which has no early_stopping: leave them out"),
        ({"alpha": 0.8, "length_penalty": 1.0}, "alpha is the original's .*give length_penalty"),
        ({"num_return_sequences": 2}, "generate has no num_return_sequences: expected some of"),
        ({"early_stopping": "always"}, "early_stopping is 'always', expected True, False or 'never'"),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size is -1, expected a whole number"),
        ({"min_length": 80}, "min_length is 80, expected a whole number of at most"),
        ({"do_sample": True, "temperature": 0}, "temperature is 0, expected a number above 0"),
        ({"do_sample": True, "top_p": 1.5}, "top_p is 1.5, expected a number above 0 and at most 1"),
        ({"do_sample": True, "top_k": -1}, "top_k is -1, expected a whole number"),
        ({"do_sample": True, "num_beams": 2}, "do_sample=True with num_beams=2"),
        ({"top_p": 0.5}, "top_p given, but nothing is drawn: give do_sample=True"),
        ({"do_sample": True}, "do_sample=True without"),
    ],
)
def test_what_does_not_fit_is_named(arguments, message):
    config = TINY.replace(encoder_layers=1, decoder_layers=1)
    for cls in (
        models_torch.BigBirdPegasusForConditionalGeneration,
        models_flax.FlaxBigBirdPegasusForConditionalGeneration,
    ):
        with pytest.raises(ValueError, match=message):
            cls.from_config(config).generate(ids(1, 4), **arguments)


def test_flax_draws_by_its_key_alone():
    model = models_flax.FlaxBigBirdPegasusForConditionalGeneration.from_config(
        TINY.replace(encoder_layers=1, decoder_layers=1, init_std=0.5)
    )
    text, options = ids(3, 8), {"max_new_tokens": 6, "do_sample": True, "top_k": 8, "top_p": 0.9, "temperature": 1.3}
    found = [model.generate(text, rng=jax.random.key(seed), **options).tolist() for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    best = model.generate(text, max_new_tokens=6, beam_style="transformers").tolist()
    assert model.generate(text, rng=jax.random.key(5), **options | {"top_k": 1}).tolist() == best
    assert all(0 in row[row.index(1) :] or row[-1] == 1 for row in found[0] if 1 in row)


@pytest.mark.parametrize("framework", ["torch", "flax"])
def test_another_end_can_be_given(framework):
    """The first token that is written ends the summary, where it is the end."""
    module, class_name = (models_torch, "") if framework == "torch" else (models_flax, "Flax")
    model = getattr(module, f"{class_name}BigBirdPegasusForConditionalGeneration").from_config(TINY, 0)
    text = np.arange(5, 25)[None]
    text = torch.from_numpy(text) if framework == "torch" else text
    whole = np.asarray(model.generate(text, max_new_tokens=4, eos_token_id=TINY.vocab_size - 1))
    first = int(whole[0, 0])
    assert first != TINY.vocab_size - 1
    assert (whole != 0).all()
    assert np.asarray(model.generate(text, max_new_tokens=4, eos_token_id=first)).tolist() == [[first, 0, 0, 0]]
    with pytest.raises(ValueError, match=f"eos_token_id.*{TINY.vocab_size}"):
        model.generate(text, eos_token_id=TINY.vocab_size)
