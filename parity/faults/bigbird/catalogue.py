"""The faults that parity must notice in BigBird, in one table.

Not every fault changes every model. The float64 reference decides: it runs with the fault and without. Where the
reference cannot be given the fault, ``always`` says why the fault changes every model that it touches.
"""

from __future__ import annotations

from bigbird_port.families.family import Head
from parity.faults.bigbird import code, in_reference, pattern
from parity.faults.bigbird import weights as other
from parity.faults.fault import Fault
from parity.faults.inject import ATTEND, Wrap

# Which heads a fault can touch, by what their records say.


def _language(head: Head) -> bool:
    return head.scores_every_token


def _pooled(head: Head) -> bool:
    return any(tap.module == "pooler" and tap.when is None for tap in head.taps)


def _causal(head: Head) -> bool:
    return head.decodes


def _sequence(head: Head) -> bool:
    return head.labels == "classes"


def _pretraining(head: Head) -> bool:
    return any(tap.module == "cls.seq_relationship" for tap in head.taps)


def _qa(head: Head) -> bool:
    return head.inputs == "question"


def _has_loss(head: Head) -> bool:
    return not head.no_loss


def _in_pattern(name: str, change: pattern.Change, case: str = "padded") -> Fault:
    """A fault of the pattern, which shows where the first layer attends."""
    return Fault(
        name=name,
        twin=(("bigbird.encoder.layer_pattern", pattern.pattern_wrap(change)),),
        reference=pattern.pattern_in_reference(change),
        case=case,
        expected="layer.0.context",
    )


def _both(wrap_sparse: Wrap, wrap_full: Wrap) -> tuple[tuple[str, Wrap], ...]:
    return (_SPARSE_PATH, wrap_sparse), (_FULL_PATH, wrap_full)


_SPARSE_PATH = "bigbird.layer.block_sparse_attention"
_FULL_PATH = "bigbird.layer.full_attention"
_INPUTS = "bigbird.model.complete_inputs"

_TABLE = (
    # weights
    Fault(name="transposed-kernel", weights=other.transposed_kernel, expected="layer.{last}.query"),
    Fault(name="query-key-swapped", weights=other.query_key_swapped, expected="layer.0.query"),
    Fault(name="heads-permuted", weights=other.heads_permuted, expected="layer.0.value"),
    Fault(name="value-split-transposed", weights=other.value_split_transposed, expected="layer.0.value"),
    Fault(name="output-split-transposed", weights=other.output_split_transposed, expected="layer.0.attention_output"),
    Fault(name="gamma-beta-swapped", weights=other.gamma_beta_swapped, expected="layer.0.attention_output"),
    Fault(name="unbiased-variance", weights=other.unbiased_variance, expected="embeddings"),
    Fault(name="bias-dropped", weights=other.bias_dropped, expected="layer.0.intermediate"),
    Fault(name="layers-swapped", weights=other.layers_swapped, expected="layer.0.query"),
    Fault(name="bfloat16-weight", weights=other.one_bfloat16_weight, expected="layer.{last}.output"),
    Fault(name="one-element", weights=other.one_element, expected="layer.0.intermediate"),
    Fault(name="vocabulary-shifted", weights=other.vocabulary_shifted, expected="embeddings_prenorm"),
    Fault(
        name="next-sentence-transposed",
        weights=other.next_sentence_transposed,
        touches=_pretraining,
        expected="seq_relationship_logits",
    ),
    Fault(
        name="language-bias-dropped",
        weights=other.language_bias_dropped,
        touches=_language,
        expected="*logits",
    ),
    Fault(name="pooler-transposed", weights=other.pooler_transposed, touches=_pooled, expected="pooler_output"),
    Fault(name="spans-swapped", weights=other.spans_swapped, touches=_qa, expected="span_logits"),
    # configuration
    Fault(name="layer-norm-epsilon", config=other.large_epsilon, expected="embeddings"),
    Fault(name="exact-gelu", config=other.exact_gelu, expected="layer.0.intermediate"),
    Fault(name="zeroed-random-plan", config=other.zeroed_random_plan, expected="layer.0.context"),
    Fault(name="rescale-missing", config=other.rescale_missing, expected="embeddings_prenorm"),
    Fault(name="wrong-pad-id", config=other.wrong_pad_id, expected="layer.0.context"),
    Fault(name="wrong-head-count", config=other.wrong_head_count, expected="layer.0.query"),
    Fault(name="pattern-of-batch-length", config=other.pattern_of_batch_length, expected="layer.0.context"),
    Fault(name="full-attention", config=other.full_attention, expected="layer.0.context"),
    Fault(name="fewer-random-blocks", config=other.fewer_random_blocks, expected="layer.0.context"),
    # inputs and labels, as code would make them
    Fault(name="positions-shifted", inputs=other.positions_shifted, expected="embeddings_prenorm"),
    Fault(name="token-types-ignored", inputs=other.token_types_ignored, expected="embeddings_prenorm"),
    Fault(name="token-types-all-ones", inputs=other.token_types_all_ones, expected="embeddings_prenorm"),
    Fault(name="padding-attended", inputs=other.padding_attended, expected="layer.0.context"),
    Fault(name="question-too-long", inputs=other.question_too_long, touches=_qa, expected="embeddings_prenorm"),
    Fault(name="labels-off-by-one", labels=other.labels_off_by_one, touches=_has_loss, expected="loss"),
    # the pattern
    _in_pattern("duplicates-removed", pattern.duplicates_removed, "paper"),
    _in_pattern("wrong-layer-seed", pattern.wrong_layer_seed),
    _in_pattern("heads-seeded-anew", pattern.heads_seeded_anew, "paper"),
    _in_pattern("no-paper-plan-of-2048", pattern.plan_of_2048_missing, "long"),
    _in_pattern("window-off-by-one", pattern.window_off_by_one),
    _in_pattern("last-global-dropped", pattern.last_global_dropped, "paper"),
    _in_pattern("first-global-dropped", pattern.first_global_dropped),
    _in_pattern("border-counted-twice", pattern.border_counted_twice),
    _in_pattern("one-random-block", pattern.one_random_block),
    # attention
    Fault(
        name="scale-missing",
        twin=((ATTEND, code.scale_missing),),
        reference=in_reference.reference_scale(0.5),
        expected="layer.0.context",
    ),
    Fault(
        name="scale-twice",
        twin=((ATTEND, code.scale_twice),),
        reference=in_reference.reference_scale(-0.5),
        expected="layer.0.context",
    ),
    Fault(
        name="scale-after-mask",
        twin=((ATTEND, code.scale_after_mask),),
        reference=in_reference.reference_scaled_bias,
        expected="layer.0.context",
    ),
    Fault(
        name="half-precision-softmax",
        twin=((ATTEND, code.half_precision_softmax),),
        reference=in_reference.reference_half_softmax,
        expected="layer.0.context",
    ),
    Fault(
        name="mask-penalty-missing",
        twin=_both(code.mask_penalty_missing, code.full_mask_penalty_missing),
        reference=in_reference.seen_as(in_reference.without_penalty),
        expected="layer.0.context",
    ),
    Fault(
        name="padded-queries-kept",
        twin=((_SPARSE_PATH, code.padded_queries_kept),),
        reference=in_reference.seen_as(in_reference.with_padded_queries),
        expected="layer.0.context",
    ),
    Fault(
        name="partial-block-attended",
        twin=((_SPARSE_PATH, code.partial_block_attended),),
        reference=in_reference.reference_partial_block,
        expected="layer.0.context",
    ),
    Fault(
        name="causal-off-by-one",
        twin=((_FULL_PATH, code.causal_off_by_one),),
        reference=in_reference.seen_as(in_reference.looking_ahead(1)),
        expected="layer.0.context",
    ),
    Fault(
        name="causal-mask-missing",
        twin=((_FULL_PATH, code.causal_mask_missing),),
        reference=in_reference.seen_as(in_reference.looking_ahead(1 << 30)),
        expected="layer.0.context",
    ),
    # modules around it
    Fault(
        name="attention-residual-dropped",
        twin=(("bigbird.layer.BigBirdSelfOutput.call", code.residual_dropped),),
        always="hidden states are not 0",
        expected="layer.0.attention_output",
    ),
    Fault(
        name="output-residual-dropped",
        twin=(("bigbird.layer.BigBirdOutput.call", code.residual_dropped),),
        always="hidden states are not 0",
        expected="layer.0.output",
    ),
    Fault(
        name="dropout-left-on",
        twin=(("bigbird.embeddings.nn.Dropout.call", code.dropout_left_on),),
        always="the configuration's hidden_dropout_prob is above 0",
        holds=lambda setup: setup.config.hidden_dropout_prob > 0,
        expected="embeddings",
    ),
    Fault(
        name="transform-norm-skipped",
        twin=(("bigbird.heads.BigBirdPredictionTransform.call", code.transform_norm_skipped),),
        touches=_language,
        always="what the LayerNorm is given is not normalised",
        expected="transform",
    ),
    Fault(
        name="decoder-untied",
        twin=(("bigbird.heads.BigBirdLMPredictionHead.call", code.decoder_untied),),
        touches=_language,
        always="tokens have different embeddings",
        expected="*logits",
    ),
    Fault(
        name="pooler-wrong-token",
        twin=(("bigbird.model.BigBirdModel.pool", code.wrong_token),),
        touches=_pooled,
        always="the first two tokens have different hidden states",
        expected="pooler_output",
    ),
    Fault(
        name="classifier-wrong-token",
        twin=(("bigbird.heads.BigBirdClassificationHead.call", code.wrong_token),),
        touches=_sequence,
        always="the head takes the first token, and the second has other hidden states",
        holds=lambda setup: setup.config.classifier_style == "transformers",
        expected="logits",
    ),
    Fault(
        name="question-mask-hits-cls",
        twin=(("bigbird.tasks.mask_question", code.cls_masked),),
        touches=_qa,
        always="every text has a first token",
        expected="*_logits",
    ),
    Fault(
        name="question-not-masked",
        twin=(("bigbird.tasks.mask_question", code.question_not_masked),),
        touches=_qa,
        always="there is a question of more than its first token",
        holds=lambda setup: bool((setup.inputs["input_ids"][:, 1:] == setup.config.sep_token_id).any()),
        expected="*_logits",
    ),
    Fault(name="last-layer-skipped", witness=code.last_layer_skipped, expected="layer.{last}.query"),
    Fault(
        name="call-skips-a-block",
        witness=code.call_skips_a_block,
        always="a text has more than one block, and its tokens see the last of them",
        holds=lambda setup: setup.length > setup.config.block_size,
        expected="{score}",
    ),
    Fault(
        name="call-runs-other-weights",
        witness=code.call_runs_other_weights,
        always="the kernel's rows differ",
        expected="{score}",
    ),
    Fault(
        name="cache-off-by-one",
        twin=((_INPUTS, code.cache_off_by_one),),
        touches=_causal,
        always="position embeddings differ",
        expected="logits",
    ),
)
FAULTS: dict[str, Fault] = {fault.name: fault for fault in _TABLE}
