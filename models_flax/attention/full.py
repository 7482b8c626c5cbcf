"""Full attention: every query meets every key that its mask allows.

Legend: B batch, L queries, N heads, H head size, K keys, C parts of R queries each. A mask named BL is [B, K] where
there are more keys than queries (a cache, cross-attention), and may be [B, L, K].
"""

from __future__ import annotations

from collections.abc import Callable

from jax import Array, lax
from jax import numpy as jnp

from bigbird_port.sparse.formulation import Formulation
from models_flax.attention import plain
from models_flax.target import by_target


def full_attention(
    q_BNLH: Array,
    k_BNLH: Array,
    v_BNLH: Array,
    mask_BL: Array,
    causal: bool,
    dropout: Callable[[Array], Array] | None = None,
) -> Array:
    """Every query attends to every key that is not padding (``causal``: and does not lie ahead); [B, L, N, H].

    The queries are the last of the keys. A mask [B, L, K] says alone who attends to whom, ``causal`` or not. Some
    queries at a time, as the target's formulation has it, where nothing is dropped.
    """
    arrays, (L, K) = (q_BNLH, k_BNLH, v_BNLH, mask_BL), (q_BNLH.shape[2], k_BNLH.shape[2])
    if dropout:
        return _some_at_a_time((L, causal), *arrays, dropout)
    return by_target(lambda how: (_queries_at_once(how, q_BNLH, K), causal), _some_at_a_time, *arrays)


def _some_at_a_time(
    choice: tuple[int, bool],
    q_BNLH: Array,
    k_BNLH: Array,
    v_BNLH: Array,
    mask_BL: Array,
    dropout: Callable[[Array], Array] | None = None,
) -> Array:
    """The same, by how many queries attend at once, and whether they are causal."""
    step, causal = choice
    L, K = q_BNLH.shape[2], k_BNLH.shape[2]

    def some_queries(q_BNRH: Array, mask: Array, start: Array | int) -> Array:
        allowed = mask[:, None] if mask.ndim == 3 else mask[:, None, None, :]
        if causal and mask.ndim == 2:
            allowed = allowed & (jnp.arange(K) <= jnp.arange(step)[:, None] + start + (K - L))
        return plain.attend(q_BNRH, k_BNLH, v_BNLH, plain.mask_bias(allowed, plain.at_least_float32(q_BNLH)), dropout)

    def queries_from(start: Array) -> Array:
        mask = mask_BL if mask_BL.ndim == 2 else lax.dynamic_slice_in_dim(mask_BL, start, step, axis=1)
        return some_queries(lax.dynamic_slice_in_dim(q_BNLH, start, step, axis=2), mask, start)

    if step == L:
        return some_queries(q_BNLH, mask_BL, 0).swapaxes(1, 2)
    starts = jnp.minimum(jnp.arange(0, L, step), L - step)  # the last ones overlap rather than be fewer
    contexts_CBNRH = lax.map(queries_from, starts)
    whole = contexts_CBNRH[:-1].transpose(1, 0, 3, 2, 4)
    last = contexts_CBNRH[-1].swapaxes(1, 2)[:, whole.shape[1] * step - L :]
    return jnp.concatenate((whole.reshape(whole.shape[0], -1, *whole.shape[3:]), last), axis=1)


def _queries_at_once(how: Formulation, q_BNLH: Array, K: int) -> int:
    """How many queries of all heads and texts attend at once."""
    B, N, L, _ = q_BNLH.shape
    limit = how.scores_at_once
    return L if limit is None else max(1, min(L, limit // (B * N * K)))
