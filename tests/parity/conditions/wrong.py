"""Wrong code of the torch twin, one fault each, put in for a while: what plain parity on seeded texts did not see.

Legend: B batch, L length, K keys, W block size.
"""

import dataclasses

import numpy as np
import torch

from bigbird_port.schema import weights
from bigbird_port.sparse import pattern as plans
from models_torch.attention import block_sparse, gathering, gradient, onednn
from models_torch.bigbird import embeddings, encoder, generation, inputs, layer, model, task, tasks
from models_torch.pretrained import model as pretrained
from parity.faults.bigbird import code


def wrap(patch, owner, name, make):
    """Replace a function by what ``make`` makes of it."""
    patch.setattr(owner, name, make(getattr(owner, name)))


def padding_of_the_length_attended(patch):
    wrap(patch, layer, "block_sparse_attention", code.partial_block_attended)


def values_padded_in_front(patch):
    class Functional:
        calls = 0

        @classmethod
        def pad(cls, x, widths):
            cls.calls += x.ndim == 4
            in_front = x.ndim == 4 and cls.calls % 3 == 0
            return torch.nn.functional.pad(x, (*widths[:2], *widths[:1:-1]) if in_front else widths)

    patch.setattr(block_sparse, "functional", Functional)


def _in_arrays(change):
    def make(right):
        return lambda config, arrays: right(config, dataclasses.replace(arrays, **change(arrays)))

    return lambda patch: wrap(patch, model, "complete_inputs", make)


mask_ignored = _in_arrays(lambda arrays: {"attention_mask": None})
mask_inverted = _in_arrays(
    lambda arrays: {} if arrays.attention_mask is None else {"attention_mask": 1 - arrays.attention_mask}
)
default_token_type_1 = _in_arrays(
    lambda arrays: (
        {"token_type_ids": torch.ones_like(arrays.input_ids)}
        if arrays.token_type_ids is None and arrays.input_ids is not None
        else {}
    )
)
positions_ignored = _in_arrays(lambda arrays: {"position_ids": None})


def packing_counts_tokens(patch):
    def make(right):
        return lambda mask, W: right(np.arange(mask.shape[1]) < (mask != 0).sum(axis=1)[:, None], W)

    wrap(patch, inputs, "make_packing", make)


def sixth_text_of_a_row_wrong(patch):
    def make(right):
        def faulty(pattern, packing):
            found = right(pattern, packing)
            if len(packing.texts) < 6:
                return found
            blocks, first = found.key_blocks.copy(), packing.texts[5].first
            blocks[:, found.rows >= first] = first
            return dataclasses.replace(found, key_blocks=blocks)

        return faulty

    wrap(patch, encoder, "packed_pattern", make)


def repeats_counted_once_when_packed(patch):
    def make(right):
        def faulty(pattern, packing):
            found = right(pattern, packing)
            return dataclasses.replace(found, live=np.minimum(found.live, 1))

        return faulty

    wrap(patch, encoder, "packed_pattern", make)


def cache_position_off_by_one(patch):
    wrap(patch, model, "complete_inputs", code.cache_off_by_one)


def _in_full_attention(change):
    def make(right):
        def faulty(q, k, v, mask, causal, dropout=None):
            return right(*change(q, k, v, mask, causal), dropout)

        return faulty

    return lambda patch: wrap(patch, layer, "full_attention", make)


cache_broken_from_token_65 = _in_full_attention(
    lambda q, k, v, mask, causal: (q, k.roll(1, 2) if k.shape[2] > 64 > q.shape[2] else k, v, mask, causal)
)
new_tokens_see_ahead = _in_full_attention(
    lambda q, k, v, mask, causal: (q, k, v, mask, causal and not 1 < q.shape[2] < k.shape[2])
)
mask_of_queries_and_keys_turned = _in_full_attention(
    lambda q, k, v, mask, causal: (q, k, v, mask.transpose(1, 2) if mask.ndim == 3 else mask, causal)
)


def last_separator_for_first(patch):
    def make(right):
        return lambda ids, sep: ids.shape[1] - (ids == sep).flip(1).int().argmax(dim=1, keepdim=True)

    wrap(patch, tasks, "question_lengths_of", make)


def key_gradient_unscaled(patch):
    def make(right):
        def faulty(q, *rest):
            dq, dk, dv = right(q, *rest)
            return dq, dk * q.shape[-1] ** 0.5, dv

        return faulty

    wrap(patch, gradient, "_some_heads_gradient", make)


def second_chunk_has_no_gradient(patch):
    def make(right):
        chunks = []

        def faulty(q, k, v, bias, *rest):
            found = right(q, k, v, bias, *rest)
            chunks.extend([1] * (bias.ndim == 3))
            return tuple(x * 0 for x in found) if bias.ndim == 3 and len(chunks) % 2 == 0 else found

        return faulty

    wrap(patch, gradient, "_attend_gradient", make)


def gradient_cut_by_packing(patch):
    wrap(patch, encoder._Row, "pack", lambda right: lambda self, x: right(self, x).detach())


def returned_loss_doubled(patch):
    wrap(patch, tasks, "classification_loss", lambda right: lambda *given: 2 * right(*given))


def positions_beyond_the_end_count(patch):
    def make(right):
        return lambda start, end, starts, ends: right(
            start, end, *(x.clamp(0, start.shape[1] - 1) for x in (starts, ends))
        )

    wrap(patch, tasks, "question_answering_loss", make)


def left_padding_of_a_prompt_forgotten(patch):
    def make(right):
        def faulty(logits, mask):
            last = (mask[:, -logits.shape[1] :].sum(dim=1) - 1).clamp(min=0)
            return logits[torch.arange(len(logits)), last]

        return faulty

    wrap(patch, generation, "_last_real", make)


def head_mask_ignored(patch):
    _in_arrays(lambda arrays: {"head_mask": None})(patch)


def encoder_mask_ignored(patch):
    _in_arrays(lambda arrays: {"encoder_attention_mask": None})(patch)


def embedding_saved_wrong(patch):
    def make(right):
        def faulty(self, folder, *rest, **named):
            words = self.get_input_embeddings().weight
            with torch.no_grad():
                words[-1] += 1
                right(self, folder, *rest, **named)
                words[-1] -= 1

        return faulty

    wrap(patch, model.BigBirdPreTrainedModel, "save_pretrained", make)


def wrong_plan_at_1024(patch):
    def make(right):
        return lambda config, seed, length: right(config, seed + (config.max_encoder_length == 1024), length)

    wrap(patch, encoder, "layer_pattern", make)


def _in_draw(change):
    def inject(patch):
        wrap(patch, plans, "rand_attn", change)
        plans.layer_pattern.cache_clear()

    return inject


seed_plus_one = _in_draw(lambda right: lambda N, n, W, r, seed: right(N, n, W, r, seed + 1))
draws_sorted = _in_draw(lambda right: lambda *given, **named: np.sort(right(*given, **named), axis=-1))


def multiplicity_dropped_in_bfloat16(patch):
    def make(right):
        class Once(right):
            def __init__(self, bias, blocks, counts, W):
                super().__init__(bias, blocks, counts.clamp(max=1) if bias.dtype == torch.bfloat16 else counts, W)

        return Once

    wrap(patch, gathering, "Listed", make)


def scale_of_onednn_wrong(patch):
    wrap(patch, onednn, "attend", lambda right: lambda q, *rest: right(q * q.shape[-1] ** 0.5, *rest))


def compiled_path_without_its_mask(patch):
    def make(right):
        return lambda q, k, v, mask, *rest: right(q, k, v, mask | torch.compiler.is_compiling(), *rest)

    wrap(patch, layer, "block_sparse_attention", make)


def checkpointed_layers_cut(patch):
    def make(right):
        return lambda run, **options: right(lambda: (run()[0].detach(), {}), **options)

    wrap(patch, encoder, "checkpoint", make)


def initial_values_uncut(patch):
    def make(right):
        def faulty(weight, config, seed):
            x = right(weight, config, seed)
            return np.random.default_rng(seed).normal(0, config.initializer_range, x.shape) if x.std() else x

        return faulty

    wrap(patch, weights, "initial_value", make)


def temperature_ignored(patch):
    wrap(patch, generation, "_choose", lambda right: lambda logits, temperature, *rest: right(logits, 1.0, *rest))


def one_word_too_many(patch):
    def make(right):
        return lambda logits, top_k=None, top_p=None: right(logits, top_k and top_k + 1, top_p)

    wrap(patch, generation, "filter_logits", make)


def share_of_words_ignored(patch):
    wrap(patch, generation, "filter_logits", lambda right: lambda logits, top_k=None, top_p=None: right(logits, top_k))


def no_tuple(patch):
    wrap(patch, model.BigBirdPreTrainedModel, "_returned", lambda right: lambda self, output, return_dict: output)


def tuple_out_of_order(patch):
    def make(right):
        def faulty(self, output, return_dict):
            found = right(self, output, return_dict)
            return found[::-1] if isinstance(found, tuple) else found

        return faulty

    wrap(patch, model.BigBirdPreTrainedModel, "_returned", make)


def taps_of_the_head_left_out(patch):
    wrap(patch, task, "join_taps", lambda right: lambda base, head: base)


def pattern_where_all_is_seen(patch):
    patch.setattr(plans, "FULL_ATTENTION_UP_TO", plans.FULL_ATTENTION_UP_TO - 1)


def pattern_where_transformers_has_none(patch):
    def make(right):
        def faulty(config, length):
            found = right(config, length)
            return config.max_encoder_length // config.block_size if config.random_blocks == "transformers" else found

        return faulty

    wrap(patch, plans, "pattern_blocks", make)
    wrap(patch, encoder, "pattern_blocks", make)
    plans.layer_pattern.cache_clear()


def encoder_mask_turned_on_a_cache(patch):
    def change(arrays):
        on_a_cache = arrays.past_key_values is not None and arrays.encoder_attention_mask is not None
        return {"encoder_attention_mask": arrays.encoder_attention_mask.flip(1)} if on_a_cache else {}

    _in_arrays(change)(patch)


def no_dropout_behind_attention(patch):
    def make(right):
        return lambda self, context, x: self.LayerNorm(x + self.dense(context))

    wrap(patch, layer.BigBirdSelfOutput, "forward", make)


def no_dropout_of_embeddings(patch):
    def make(right):
        def faulty(self, *rest):
            _, taps = right(self, *rest)
            return self.LayerNorm(taps["embeddings_prenorm"]), taps

        return faulty

    wrap(patch, embeddings.BigBirdEmbeddings, "forward", make)


def values_without_gradient_in_onednn(patch):
    def make(right):
        def faulty(*given):
            *found, dv = right(*given)
            return (*found, dv * 0)

        return faulty

    wrap(patch, onednn, "attend_gradient", make)


def positions_repeated_backwards(patch):
    def make(right):
        def faulty(table, length, method):
            found = right(table, length, method).copy()
            found[len(table) :] = found[len(table) :][::-1]
            return found

        return faulty

    wrap(patch, pretrained, "extend_positions", make)
