"""The faults that parity must notice in BigBird-Pegasus, in one table: what BigBird does not have."""

from __future__ import annotations

from dataclasses import replace

from bigbird_port.families.family import Head
from bigbird_port.families.pegasus.family import PEGASUS
from parity.faults.bigbird.code import causal_off_by_one
from parity.faults.fault import Fault
from parity.faults.pegasus import code, in_reference
from parity.given.inputs import BESIDE


def _reads(head: Head) -> bool:
    """Whether it has an encoder."""
    return head.settings.get("is_encoder_decoder", True)


def _writes(head: Head) -> bool:
    return bool(head.writes)


def _derives(head: Head) -> bool:
    """Whether the start id is the model's own, not among what it is given."""
    return bool(head.writes) or (_reads(head) and head.inputs != BESIDE)


def _beside(head: Head) -> bool:
    return head.inputs == BESIDE


def _decodes(head: Head) -> bool:
    return head.decodes


_ATTENTION = "pegasus.layer.BigBirdPegasusDecoderAttention.call"
_GENERATION = "pegasus.generation.beam_search"

_TABLE = (
    # weights, configuration and inputs
    Fault(name="positions-offset", weights=code.positions_offset, expected="*coder.embeddings"),
    Fault(
        name="cross-kernel-transposed",
        weights=code.cross_kernel_transposed,
        touches=_reads,
        expected="decoder.layer.{last}.cross_query",
    ),
    Fault(name="layer-norm-epsilon", config=code.large_epsilon, expected="*coder.layer.0.self_layer_norm"),
    Fault(name="scale-missing", config=code.scale_missing, expected="*coder.embeddings"),
    Fault(name="start-id-zero", config=code.start_id_zero, touches=_derives, expected="*"),
    Fault(name="smoothing-missing", config=code.smoothing_missing, touches=_writes, expected="loss"),
    Fault(name="labels-shifted", inputs=code.labels_shifted, touches=_beside, expected="decoder.embeddings"),
    # stages
    Fault(name="encoder-norm-missing", witness=code.encoder_norm_missing, touches=_reads, expected="encoder.output"),
    Fault(name="encoder-norm-twice", witness=code.encoder_norm_twice, touches=_reads, expected="encoder.output"),
    Fault(name="decoder-norm-missing", witness=code.decoder_norm_missing, expected="decoder.output"),
    Fault(name="decoder-norm-twice", witness=code.decoder_norm_twice, expected="decoder.output"),
    Fault(
        name="cross-keys-normed", witness=code.cross_keys_normed, touches=_reads, expected="decoder.layer.0.cross_key"
    ),
    Fault(
        name="copies-in-place-of-sharing",
        witness=code.copies_in_place_of_sharing,
        touches=lambda head: head.name == "conditional-generation",
        case="coupled",
        backward=True,
        always="the decoder's use of a shared weight has a gradient",
        holds=lambda setup: setup.config.couple_encoder_decoder,
        expected="grad.*",
    ),
    # code
    Fault(
        name="scaled-twice",
        twin=(("pegasus.stacks.embedded", code.scaled_twice),),
        reference=in_reference.scaled_twice,
        expected="*coder.embeddings",
    ),
    Fault(
        name="output-scaled",
        twin=(("pegasus.tasks.BigBirdPegasusForConditionalGeneration.score", code.output_scaled),),
        reference=in_reference.output_scaled,
        touches=_writes,
        expected="logits",
    ),
    Fault(
        name="numerator-masked",
        twin=(("losses.summary_loss", code.numerator_masked),),
        reference=in_reference.numerator_masked,
        touches=_writes,
        expected="loss",
    ),
    Fault(
        name="causal-off-by-one",
        twin=(("pegasus.layer.full_attention", causal_off_by_one),),
        reference=in_reference.looking_ahead,
        expected="decoder.layer.0.self_context",
    ),
    Fault(
        name="cross-mask-dropped",
        twin=((_ATTENTION, code.cross_mask_dropped),),
        reference=in_reference.cross_mask_dropped,
        touches=_reads,
        expected="decoder.layer.0.cross_context",
    ),
    Fault(
        name="slot-off-by-one",
        twin=(("pegasus.cache.DecoderCache.written", code.slot_off_by_one),),
        touches=_decodes,
        always="keys of different tokens differ",
        expected="logits",
    ),
    Fault(
        name="other-penalty",
        twin=((_GENERATION, code.other_penalty),),
        reference=in_reference.other_penalty,
        touches=_writes,
        case="endings",
        expected="beam*",
    ),
    Fault(
        name="unfinished-normalised",
        twin=((_GENERATION, code.unfinished_normalised),),
        reference=in_reference.unfinished_normalised,
        touches=_writes,
        case="endless",
        expected="beam*",
    ),
)
FAULTS: dict[str, Fault] = {fault.name: replace(fault, family=PEGASUS) for fault in _TABLE}
