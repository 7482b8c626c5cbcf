"""The conditions, in the order in which they run: what is cheap and finds much comes first."""

from __future__ import annotations

from typing import Any

from bigbird_port.families.bigbird.config import BigBirdConfig
from parity.conditions import calls, losses, saving, writing
from parity.conditions.condition import UserCondition, decoding, texts_head, trained_head, with_loss
from parity.conditions.plans import other_plan, why_no_other_plan
from parity.conditions.texts import most_tokens


def _full(config: BigBirdConfig) -> dict[str, Any]:
    return {"attention_type": "original_full"}


def _cross(config: BigBirdConfig) -> dict[str, Any]:
    return _full(config) | {"is_decoder": True, "add_cross_attention": True}


def _why_no_cache(config: BigBirdConfig) -> str:
    return "" if most_tokens(config) >= 16 else f"the model takes {most_tokens(config)} tokens, fewer than 16"


CONDITIONS = (
    UserCondition(
        "mixed-lengths",
        "seven texts of mixed lengths, ids alone, all hidden states: no length is a multiple of the block",
        "padding attended, blocks dropped or moved by packing, default types and positions",
        texts_head,
        calls.mixed_lengths,
    ),
    UserCondition(
        "given-arrays",
        "seven texts with a mask unlike the ids', types and positions: padded in front, with holes",
        "masks ignored or inverted, padding in front, packing that counts tokens, given types and positions ignored",
        texts_head,
        calls.given_arrays,
    ),
    UserCondition(
        "embeddings-given",
        "word embeddings in place of ids, with a mask",
        "wrong defaults where there are no ids",
        texts_head,
        calls.embeddings_given,
    ),
    UserCondition(
        "other-plan",
        "one text alone, under the plan of random blocks that the model's own length does not have",
        "a wrong plan of one kind of length, one text packed",
        texts_head,
        calls.alone,
        other_plan,
        why_no_other_plan,
    ),
    UserCondition(
        "attentions",
        "attention probabilities returned, and heads switched down",
        "head masks ignored, probabilities that are not those of the context",
        texts_head,
        calls.attentions,
    ),
    UserCondition(
        "queries-and-keys",
        "a mask of queries and keys, in full attention",
        "masks of three axes read the wrong way round, full attention",
        texts_head,
        calls.queries_and_keys,
        _full,
    ),
    UserCondition(
        "saved",
        "saved, and loaded again",
        "weights or settings that are lost or changed on the way to a file",
        texts_head,
        saving.saved,
    ),
    UserCondition(
        "labels",
        "the losses that a call returns, for every kind of labels",
        "losses of one kind, ignored labels, positions beyond the end, labels handed to the wrong term",
        with_loss,
        losses.returned_losses,
    ),
    UserCondition(
        "gradients",
        "gradients through a call of two packed texts with more lists than run at once",
        "gradients cut, unscaled, or wrong beyond the first lists",
        trained_head,
        losses.packed_gradients,
    ),
    UserCondition(
        "cross-attention",
        "a decoder that attends to an encoder's states, with their padding",
        "masks and states of cross-attention",
        decoding,
        calls.cross_attention,
        _cross,
    ),
    UserCondition(
        "cache",
        "a prompt, single tokens beyond the 64th, and several at once, on one cache",
        "positions, masks and keys of cached tokens",
        decoding,
        writing.long_cache,
        why_not=_why_no_cache,
    ),
    UserCondition(
        "padded-cache",
        "a prompt padded in front, continued on its cache",
        "padding in a cache, given positions",
        decoding,
        writing.padded_cache,
        why_not=_why_no_cache,
    ),
    UserCondition(
        "generate",
        "two prompts, one padded in front, continued greedily",
        "the choice of the next token, its position and its mask",
        decoding,
        writing.generated,
        why_not=_why_no_cache,
    ),
)
PLAIN = tuple(one.name for one in CONDITIONS if not one.thorough)
THOROUGH = tuple(one.name for one in CONDITIONS)
