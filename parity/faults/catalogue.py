"""The faults that parity must notice, in one table.

Not every fault changes every model. The float64 reference decides: it runs with the fault and without. Where the
reference cannot be given the fault, ``always`` says why the fault changes every model that it touches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from bigbird_port.families.bigbird.heads import HEADS
from bigbird_port.schema.table import Framework
from parity.faults import code, pattern
from parity.faults import weights as other
from parity.faults.setup import Setup

_ALL = frozenset(HEADS)
_LANGUAGE = frozenset({"pretraining", "masked-lm", "causal-lm"})
_POOLED = frozenset({"base", "pretraining", "multiple-choice"})
_CAUSAL = frozenset({"causal-lm"})
_SPARSE = _ALL - _CAUSAL  # a decoder attends fully
_SEQUENCE = frozenset({"sequence-classification"})
_PRETRAINING = frozenset({"pretraining"})
_QA = frozenset({"qa"})
_NO_TYPES_DERIVED = _ALL - _QA


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault. Exactly one of the fields from ``weights`` to ``witness`` says how it is injected.

    ========== ================================================================================================
    name       what the command line calls it
    expected   the first tap that should show it; {last} is the last layer, {score} the first score of a call
    heads      the heads whose models it can touch
    case       the small model (parity/faults/setup.py) that has what the fault needs
    weights    returns the weights that the faulty framework is given
    config     returns the fields of the configuration that are changed
    inputs     returns the inputs that the faulty framework is given
    labels     returns the labels that the faulty framework is given
    twin       (path, wrapper) pairs: functions of the framework's code that are wrapped while the fault is held
    change     returns the changed pattern of key blocks
    witness    changes the witness itself
    reference  for ``twin``: the same fault in the reference's code
    always     for a fault that the reference cannot be given: why it changes every model that it touches
    holds      for ``always``: whether the reason holds for a setup
    ========== ================================================================================================
    """

    name: str
    expected: str
    heads: frozenset[str] = _ALL
    case: str = "padded"
    weights: other.WeightFault | None = None
    config: other.ConfigFault | None = None
    inputs: other.InputFault | None = None
    labels: Callable[[Any], Any] | None = None
    twin: tuple[tuple[str, code.Wrap], ...] = ()
    change: pattern.Change | None = None
    witness: Callable[[Any, Setup], None] | None = None
    reference: code.InReference | None = None
    always: str = ""
    holds: Callable[[Setup], bool] = lambda setup: True

    @property
    def how(self) -> str:
        """What the fault is injected into: weights, configuration, or code."""
        return "weights" if self.weights else "configuration" if self.config else "code"

    @property
    def what(self) -> str:
        """The fault in one sentence."""
        parts = (self.weights, self.config, self.inputs, self.labels, self.change, self.witness)
        function = next((part for part in parts if part), None) or self.twin[0][1]
        return (function.__doc__ or "").partition("\n")[0]

    def expects(self, setup: Setup) -> str:
        """Return the first tap that should show the fault in a setup."""
        score = "last_hidden_state" if setup.head == "base" else "*logits"
        return self.expected.format(last=setup.config.num_hidden_layers - 1, score=score)

    def applied(self, setup: Setup) -> Setup:
        """Return the setup with the fault's weights and configuration. ``feed`` changes inputs and labels."""
        if self.weights:
            return replace(setup, weights=self.weights(dict(setup.weights), setup.config))
        return replace(setup, config=setup.config.replace(**self.config(setup))) if self.config else setup

    def feed(self, witness: Any, setup: Setup) -> None:
        """Give a witness (of a framework or the reference) the fault's inputs, labels or own change."""
        change, labels = self.inputs, self.labels
        if change:
            start = witness.start
            witness.start = lambda inputs: start(change(inputs, setup))
        if labels:
            loss = witness.loss
            witness.loss = lambda scores, given: loss(scores, labels(given))
        if self.witness:
            self.witness(witness, setup)

    @contextmanager
    def in_twin(self, framework: Framework) -> Iterator[None]:
        """Keep the fault in a framework's code while the context lasts."""
        wraps = self.twin
        if self.change:
            wraps = (("bigbird.encoder.layer_pattern", pattern.pattern_wrap(self.change)),)
        with ExitStack() as stack:
            for path, wrap in wraps:
                stack.enter_context(code.in_twin(path, wrap)(framework))
            yield

    def in_reference(self) -> AbstractContextManager[Any]:
        """Keep the same fault in the reference's code while the context lasts."""
        if self.change:
            return pattern.pattern_in_reference(self.change)()
        return self.reference() if self.reference else ExitStack()


def _both(wrap_sparse: code.Wrap, wrap_full: code.Wrap) -> tuple[tuple[str, code.Wrap], ...]:
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
        heads=_PRETRAINING,
        expected="seq_relationship_logits",
    ),
    Fault(
        name="language-bias-dropped",
        weights=other.language_bias_dropped,
        heads=_LANGUAGE,
        expected="*logits",
    ),
    Fault(name="pooler-transposed", weights=other.pooler_transposed, heads=_POOLED, expected="pooler_output"),
    Fault(name="spans-swapped", weights=other.spans_swapped, heads=_QA, expected="span_logits"),
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
    Fault(name="question-too-long", inputs=other.question_too_long, heads=_QA, expected="embeddings_prenorm"),
    Fault(name="labels-off-by-one", labels=other.labels_off_by_one, heads=_ALL - {"base"}, expected="loss"),
    # the pattern
    Fault(name="duplicates-removed", change=pattern.duplicates_removed, case="paper", expected="layer.0.context"),
    Fault(name="wrong-layer-seed", change=pattern.wrong_layer_seed, expected="layer.0.context"),
    Fault(name="heads-seeded-anew", change=pattern.heads_seeded_anew, case="paper", expected="layer.0.context"),
    Fault(name="no-paper-plan-of-2048", change=pattern.plan_of_2048_missing, case="long", expected="layer.0.context"),
    Fault(name="window-off-by-one", change=pattern.window_off_by_one, expected="layer.0.context"),
    Fault(name="last-global-dropped", change=pattern.last_global_dropped, case="paper", expected="layer.0.context"),
    Fault(name="first-global-dropped", change=pattern.first_global_dropped, expected="layer.0.context"),
    Fault(name="border-counted-twice", change=pattern.border_counted_twice, expected="layer.0.context"),
    Fault(name="one-random-block", change=pattern.one_random_block, expected="layer.0.context"),
    # attention
    Fault(
        name="scale-missing",
        twin=((code.ATTEND, code.scale_missing),),
        reference=code.reference_scale(0.5),
        expected="layer.0.context",
    ),
    Fault(
        name="scale-twice",
        twin=((code.ATTEND, code.scale_twice),),
        reference=code.reference_scale(-0.5),
        expected="layer.0.context",
    ),
    Fault(
        name="scale-after-mask",
        twin=((code.ATTEND, code.scale_after_mask),),
        reference=code.reference_scaled_bias,
        expected="layer.0.context",
    ),
    Fault(
        name="half-precision-softmax",
        twin=((code.ATTEND, code.half_precision_softmax),),
        reference=code.reference_half_softmax,
        expected="layer.0.context",
    ),
    Fault(
        name="mask-penalty-missing",
        twin=_both(code.mask_penalty_missing, code.full_mask_penalty_missing),
        reference=code.seen_as(code.without_penalty),
        expected="layer.0.context",
    ),
    Fault(
        name="padded-queries-kept",
        twin=((_SPARSE_PATH, code.padded_queries_kept),),
        reference=code.seen_as(code.with_padded_queries),
        expected="layer.0.context",
    ),
    Fault(
        name="partial-block-attended",
        twin=((_SPARSE_PATH, code.partial_block_attended),),
        reference=code.reference_partial_block,
        expected="layer.0.context",
    ),
    Fault(
        name="causal-off-by-one",
        twin=((_FULL_PATH, code.causal_off_by_one),),
        reference=code.seen_as(code.looking_ahead(1)),
        expected="layer.0.context",
    ),
    Fault(
        name="causal-mask-missing",
        twin=((_FULL_PATH, code.causal_mask_missing),),
        reference=code.seen_as(code.looking_ahead(1 << 30)),
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
        heads=_LANGUAGE,
        always="what the LayerNorm is given is not normalised",
        expected="transform",
    ),
    Fault(
        name="decoder-untied",
        twin=(("bigbird.heads.BigBirdLMPredictionHead.call", code.decoder_untied),),
        heads=_LANGUAGE,
        always="tokens have different embeddings",
        expected="*logits",
    ),
    Fault(
        name="pooler-wrong-token",
        twin=(("bigbird.model.BigBirdModel.pool", code.wrong_token),),
        heads=_POOLED,
        always="the first two tokens have different hidden states",
        expected="pooler_output",
    ),
    Fault(
        name="classifier-wrong-token",
        twin=(("bigbird.heads.BigBirdClassificationHead.call", code.wrong_token),),
        heads=_SEQUENCE,
        always="the head takes the first token, and the second has other hidden states",
        holds=lambda setup: setup.config.classifier_style == "transformers",
        expected="logits",
    ),
    Fault(
        name="question-mask-hits-cls",
        twin=(("bigbird.tasks.mask_question", code.cls_masked),),
        heads=_QA,
        always="every text has a first token",
        expected="*_logits",
    ),
    Fault(
        name="question-not-masked",
        twin=(("bigbird.tasks.mask_question", code.question_not_masked),),
        heads=_QA,
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
        heads=_CAUSAL,
        always="position embeddings differ",
        expected="logits",
    ),
)
FAULTS: dict[str, Fault] = {fault.name: fault for fault in _TABLE}


def find_faults(names: tuple[str, ...]) -> list[Fault]:
    """Return the faults of these names, or all faults if no name is given.

    Raises ValueError for an unknown name. The message lists the known ones.
    """
    if unknown := [name for name in names if name not in FAULTS]:
        raise ValueError(f"there is no fault {', '.join(unknown)}: expected some of {', '.join(FAULTS)}")
    return [fault for fault in FAULTS.values() if not names or fault.name in names]
