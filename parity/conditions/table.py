"""The conditions, in the order in which they run: what is cheap and finds much comes first."""

from __future__ import annotations

from typing import Any

from bigbird_port.families.bigbird.config import BigBirdConfig
from parity.conditions import calls, forced, losses, making, saving, writing
from parity.conditions.condition import UserCondition, decoding, every_head, texts_head, trained_head, with_loss
from parity.conditions.plans import other_plan, paper_plan, short_plan, why_no_other_plan, why_no_short_plan
from parity.conditions.texts import most_tokens


def _full(config: BigBirdConfig) -> dict[str, Any]:
    return {"attention_type": "original_full"}


def _cross(config: BigBirdConfig) -> dict[str, Any]:
    return _full(config) | {"is_decoder": True, "add_cross_attention": True}


def _why_no_cross(config: BigBirdConfig) -> str:
    return "a prenorm encoder has no cross-attention" if config.norm_type == "prenorm" else ""


def _why_no_cache(config: BigBirdConfig) -> str:
    return "" if most_tokens(config) >= 16 else f"the model takes {most_tokens(config)} tokens, fewer than 16"


_PLAINLY = (
    UserCondition(
        "mixed-lengths",
        "seven texts of mixed lengths, ids alone, all hidden states: no length is a multiple of the block",
        "padding attended, blocks dropped or moved by packing, default types and positions",
        texts_head,
        calls.mixed_lengths,
    ),
    UserCondition(
        "given-arrays",
        "seven texts with a mask unlike the ids', types and positions: padded in front, with holes; a tuple returned",
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
        "two-texts",
        "two texts packed, under the paper's plan, which may list a block twice",
        "repeated blocks counted once in a packed row, lists that reach into the other text",
        texts_head,
        calls.two_texts,
        paper_plan,
    ),
    UserCondition(
        "attentions",
        "attention probabilities and all taps returned, and heads switched down",
        "head masks ignored, probabilities that are not those of the context, taps that a call does not return",
        texts_head,
        calls.attentions,
    ),
    UserCondition(
        "all-seen",
        "two texts, where the configured length is so short that every token sees all, by either rule of random blocks",
        "a pattern where there is none, whole attention of the encoder",
        texts_head,
        forced.all_seen,
        short_plan,
        why_no_short_plan,
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
        "made",
        "made from its configuration, its weights drawn from a seed",
        "initial values unlike the original's or each other's, weights that are not counted",
        texts_head,
        making.made,
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
        _why_no_cross,
    ),
    UserCondition(
        "cross-cache",
        "the same decoder, token by token on its cache",
        "keys and values of cross-attention that are lost, moved or grown with the cache",
        decoding,
        writing.cross_cache,
        _cross,
        _why_no_cross,
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
    UserCondition(
        "sampled",
        "the next word drawn 512 times: at a temperature, from the best few, and from the likeliest",
        "temperature, top_k or top_p ignored or misread, seeds that draw something else each time or always the same",
        decoding,
        writing.sampled,
        why_not=_why_no_cache,
    ),
)
_THOROUGHLY = (
    UserCondition(
        "bfloat16",
        "both frameworks in bfloat16, whole and layer by layer",
        "what is dropped or summed in the wrong type in half precision only",
        texts_head,
        forced.in_type("bfloat16"),
        paper_plan,
    ),
    UserCondition(
        "float16",
        "both frameworks in float16, whole and layer by layer",
        "what overflows in half precision",
        texts_head,
        forced.in_type("float16"),
        paper_plan,
    ),
    UserCondition(
        "autocast",
        "torch's autocast to bfloat16",
        "products that autocast does not know",
        texts_head,
        forced.judged_as("bfloat16", forced.in_a_way("autocast", forced.full_texts)),
    ),
    UserCondition(
        "small-chunks",
        "full attention some scores at a time, as long texts have it",
        "chunks that overlap or are left out",
        texts_head,
        forced.in_a_way("small-chunks", forced.full_texts),
        _full,
    ),
    UserCondition(
        "small-lists",
        "few query blocks and tokens at a time",
        "chunks of lists that overlap or are left out",
        texts_head,
        forced.in_a_way("small-chunks", forced.many_texts),
    ),
    UserCondition(
        "all-at-once",
        "everything at once and fused, as on an accelerator",
        "paths of accelerators",
        texts_head,
        forced.in_a_way("all-at-once", forced.many_texts),
    ),
    UserCondition(
        "onednn",
        "torch's products of query blocks in oneDNN, also where MKL is faster",
        "the scale, the bias or the layout of products in oneDNN",
        texts_head,
        forced.in_a_way("onednn", forced.full_texts),
        why_not=forced.why_no_onednn,
    ),
    UserCondition(
        "fast-linears",
        "linear layers from weights that oneDNN has laid out",
        "weights or biases lost when they are laid out",
        texts_head,
        forced.in_a_way("fast-linears", forced.full_texts),
        why_not=forced.why_no_onednn,
    ),
    UserCondition(
        "compiled",
        "traced by a compiler, with padding that is not known beforehand",
        "paths of compiled code, masks that are lost there",
        texts_head,
        forced.in_a_way("compiled", forced.many_texts),
    ),
    UserCondition(
        "training",
        "training mode without dropout, with a fixed key",
        "training computes what evaluation does not",
        texts_head,
        forced.in_a_way("training", forced.full_texts),
        forced.without_dropout,
    ),
    UserCondition(
        "dropped",
        "training mode in which everything is dropped: hidden states, attention, what a classifier takes",
        "dropout that is missing, in another place, or of another probability",
        every_head,
        forced.everything_dropped,
        forced.nothing_else_dropped,
    ),
    UserCondition(
        "extended",
        "half as many positions again, repeated and stretched",
        "position embeddings extended wrongly, weights lost on the way",
        texts_head,
        making.extended,
    ),
    UserCondition(
        "checkpointing",
        "gradients whose layers are computed again",
        "gradients lost or doubled by checkpointing",
        trained_head,
        forced.in_a_way("checkpointing", losses.packed_gradients),
        forced.without_dropout,
    ),
    UserCondition(
        "onednn-gradients",
        "gradients through torch's products of query blocks in oneDNN",
        "results of oneDNN that are written over before a gradient needs them",
        trained_head,
        forced.in_a_way("onednn", losses.packed_gradients),
        why_not=forced.why_no_onednn,
    ),
    UserCondition(
        "gradients-of-heads",
        "gradients through a call, for every head with a loss",
        "gradients cut or wrong in one head",
        with_loss,
        losses.packed_gradients,
    ),
)
CONDITIONS = _PLAINLY + _THOROUGHLY
PLAIN = tuple(one.name for one in _PLAINLY)
THOROUGH = tuple(one.name for one in CONDITIONS)
