"""Every condition is green on right code, and red on the wrong code that it is for."""

import warnings

import pytest

from bigbird_port.families.bigbird.family import BIGBIRD
from bigbird_port.sparse import pattern as plans
from parity.conditions.run import chosen, run_conditions
from parity.conditions.table import CONDITIONS, PLAIN
from parity.run.conditions import Options
from parity.run.results import Result
from tests.parity.conditions import wrong

# wrong code -> the condition that turns red, and the head on which it is seen
CAUGHT = {
    "padding_of_the_length_attended": ("other-plan", "pretraining"),
    "values_padded_in_front": ("other-plan", "pretraining"),
    "default_token_type_1": ("mixed-lengths", "pretraining"),
    "sixth_text_of_a_row_wrong": ("mixed-lengths", "pretraining"),
    "mask_ignored": ("given-arrays", "pretraining"),
    "mask_inverted": ("given-arrays", "pretraining"),
    "positions_ignored": ("given-arrays", "pretraining"),
    "packing_counts_tokens": ("given-arrays", "pretraining"),
    "no_tuple": ("given-arrays", "pretraining"),
    "tuple_out_of_order": ("given-arrays", "pretraining"),
    "wrong_plan_at_1024": ("other-plan", "pretraining"),
    "repeats_counted_once_when_packed": ("two-texts", "pretraining"),
    "head_mask_ignored": ("attentions", "pretraining"),
    "taps_of_the_head_left_out": ("attentions", "pretraining"),
    "pattern_where_all_is_seen": ("all-seen", "pretraining"),
    "pattern_where_transformers_has_none": ("all-seen", "pretraining"),
    "mask_of_queries_and_keys_turned": ("queries-and-keys", "pretraining"),
    "embedding_saved_wrong": ("saved", "pretraining"),
    "returned_loss_doubled": ("labels", "sequence-classification"),
    "positions_beyond_the_end_count": ("labels", "qa"),
    "last_separator_for_first": ("labels", "qa"),
    "key_gradient_unscaled": ("gradients", "pretraining"),
    "second_chunk_has_no_gradient": ("gradients", "pretraining"),
    "gradient_cut_by_packing": ("gradients", "pretraining"),
    "encoder_mask_ignored": ("cross-attention", "causal-lm"),
    "encoder_mask_turned_on_a_cache": ("cross-cache", "causal-lm"),
    "cache_position_off_by_one": ("cache", "causal-lm"),
    "cache_broken_from_token_65": ("cache", "causal-lm"),
    "new_tokens_see_ahead": ("cache", "causal-lm"),
    "left_padding_of_a_prompt_forgotten": ("generate", "causal-lm"),
    "initial_values_uncut": ("made", "pretraining"),
    "temperature_ignored": ("sampled", "causal-lm"),
    "one_word_too_many": ("sampled", "causal-lm"),
    "share_of_words_ignored": ("sampled", "causal-lm"),
    "positions_repeated_backwards": ("extended", "pretraining"),
    "no_dropout_behind_attention": ("dropped", "pretraining"),
    "no_dropout_of_embeddings": ("dropped", "pretraining"),
    "values_without_gradient_in_onednn": ("onednn-gradients", "pretraining"),
}
# the same with --thorough, or in Flax
HEAVY = {
    "multiplicity_dropped_in_bfloat16": ("bfloat16", "pretraining", "torch"),
    "scale_of_onednn_wrong": ("onednn", "pretraining", "torch"),
    "compiled_path_without_its_mask": ("compiled", "pretraining", "torch"),
    "checkpointed_layers_cut": ("checkpointing", "pretraining", "torch"),
}
TORCH = ("torch", "reference")


@pytest.fixture(autouse=True)
def forget_patterns():
    yield
    plans.layer_pattern.cache_clear()


def found(out, name, head, witnesses=TORCH):
    result = Result(heads=[head], witnesses=witnesses)
    run_conditions(out, out, [head], Options(witnesses=witnesses, conditions=(name,)), result)
    return result


@pytest.mark.parametrize(("name", "head"), sorted(set(CAUGHT.values())))
def test_right_code_is_green(converted, name, head):
    result = found(converted("mini-pretrain"), name, head)
    assert [row for row in result.rows if not row.passed] == []
    assert result.rows
    assert [one.name for one in result.conditions] == [name]
    assert result.conditions[0].purpose
    assert result.passed


@pytest.mark.parametrize("fault", CAUGHT)
def test_wrong_code_is_red_under_the_condition_that_is_for_it(converted, monkeypatch, fault):
    name, head = CAUGHT[fault]
    out = converted("mini-pretrain")
    getattr(wrong, fault)(monkeypatch)
    result = found(out, name, head)
    assert {(row.condition, row.value) for row in result.rows if not row.passed} == {(name, "torch")}
    assert not result.passed


@pytest.mark.slow
@pytest.mark.parametrize("fault", HEAVY)
def test_heavy_wrong_code_is_red_under_the_condition_that_is_for_it(converted, fault):
    name, head, framework = HEAVY[fault]
    out, witnesses = converted("mini-pretrain"), (framework, "reference")
    right = found(out, name, head, witnesses)
    assert right.rows
    assert [row for row in right.rows if not row.passed] == []
    with pytest.MonkeyPatch.context() as patch:
        getattr(wrong, fault)(patch)
        result = found(out, name, head, witnesses)
    assert {(row.condition, row.value) for row in result.rows if not row.passed} == {(name, framework)}


@pytest.mark.parametrize("fault", ["seed_plus_one", "draws_sorted"])
def test_a_wrong_draw_is_red_because_the_reference_draws_anew(converted, monkeypatch, fault):
    from parity.checks.drawn import check_drawn

    out = converted("mini-pretrain")
    getattr(wrong, fault)(monkeypatch)
    result = Result()
    options = Options(witnesses=TORCH, conditions=("other-plan",))
    patterns = run_conditions(out, out, ["pretraining"], options, result)
    check = check_drawn(patterns)
    assert not check.passed
    assert "of head 0 lists" in check.detail
    # the order within a list changes no sum
    assert any(not row.passed for row in result.rows) == (fault == "seed_plus_one")


def test_what_raises_is_red_and_says_so(converted, monkeypatch):
    out = converted("mini-pretrain")

    def fails(*given):
        raise IndexError("no such block")

    monkeypatch.setattr(wrong.encoder, "packed_pattern", fails)
    result = found(out, "mixed-lengths", "pretraining")
    (row,) = (row for row in result.rows if not row.passed)
    assert row.difference.problem == "raised IndexError: no such block"


def test_conditions_say_what_they_are_for():
    names = [one.name for one in CONDITIONS]
    assert len(set(names)) == len(names)
    assert set(PLAIN) <= set(names)
    assert all(one.purpose and one.kills for one in CONDITIONS)


def test_a_condition_stands_for_all_heads_or_runs_on_each():
    every = list(BIGBIRD.heads)
    able = {one.name: one.heads(BIGBIRD, every) for one in CONDITIONS}
    assert able["mixed-lengths"] == ["pretraining"]
    assert able["labels"] == [head for head in every if head != "base"]
    assert able["cache"] == ["causal-lm"]
    assert chosen(PLAIN)[0].heads(BIGBIRD, ["multiple-choice", "qa"]) == ["multiple-choice"]


def test_unknown_conditions_are_refused():
    with pytest.raises(ValueError, match="there is no condition never: choose some of mixed-lengths"):
        chosen(("never",))


def test_what_cannot_run_is_said(converted):
    out = converted("mini-pretrain")
    result = Result(heads=["masked-lm"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        options = Options(witnesses=TORCH, dtype="bfloat16", conditions=("mixed-lengths",))
        run_conditions(out, out, ["masked-lm"], options, result)
    assert result.rows == []
    assert result.not_compared == {"masked-lm": ["mixed-lengths (conditions are judged in float32 and float64)"]}
