"""The losses of summaries, and the decoder's inputs that belong to them.

Legend: B batch, T tokens, V vocabulary.
"""

from __future__ import annotations

import jax
from jax import Array
from jax import numpy as jnp

from bigbird_port.families.pegasus.config import BigBirdPegasusConfig
from bigbird_port.families.pegasus.summaries import check_summaries, smoothing_cost
from models_flax.bigbird.inputs import IGNORED, check_labels
from models_flax.bigbird.losses import masked_lm_loss


def decoder_inputs(labels_BT: Array, config: BigBirdPegasusConfig) -> Array:
    """Return what the decoder reads for these labels, by config.loss_style, [B, T].

    The original: the start id, then the labels, and padding from the place on that is the number of labels which are no
    padding. transformers: the start id, then the labels. Labels of -100 are padding.

    Raises ValueError for labels of no length, or longer than there are positions.
    """
    check_summaries(labels_BT, config.max_position_embeddings)
    ids_BT, shifted_BT = _padded(labels_BT, config), behind_start(labels_BT, config)
    if config.loss_style == "transformers":
        return shifted_BT
    counts_B1 = (ids_BT != config.pad_token_id).sum(axis=1, keepdims=True)
    return jnp.where(jnp.arange(ids_BT.shape[1]) < counts_B1, shifted_BT, config.pad_token_id)


def behind_start(labels_BT: Array, config: BigBirdPegasusConfig) -> Array:
    """Return ids [B, T] behind the start id, without the last of them; -100 is padding."""
    return jnp.pad(_padded(labels_BT, config)[:, :-1], ((0, 0), (1, 0)), constant_values=config.decoder_start_token_id)


def summary_loss(logits_BTV: Array, labels_BT: Array, label_smoothing: float, loss_style: str) -> Array:
    """Return the loss of a summary.

    The original (loss_style "original"): the cross entropy with smoothed labels of all places, padding among them with
    id 0 as its label, less what smoothing itself costs; divided by the number of labels that are not 0. transformers':
    the mean cross entropy over the labels that are not -100.

    Raises ValueError where no label counts, because there is no loss then.
    """
    _check_some(labels_BT, loss_style)
    check_labels("labels", labels_BT, logits_BTV.shape[:-1], logits_BTV.shape[-1])
    if loss_style == "transformers":
        return masked_lm_loss(logits_BTV, labels_BT)
    ids_BT, V = jnp.where(labels_BT == IGNORED, 0, labels_BT), logits_BTV.shape[-1]
    log_p_BTV = jax.nn.log_softmax(logits_BTV.astype(jnp.promote_types(logits_BTV.dtype, jnp.float32)))
    at_label_BT = jnp.take_along_axis(log_p_BTV, ids_BT[..., None], axis=-1)[..., 0]
    rest = label_smoothing / (V - 1)
    losses_BT = -(1 - label_smoothing) * at_label_BT - rest * (log_p_BTV.sum(axis=-1) - at_label_BT)
    return (losses_BT - smoothing_cost(label_smoothing, V)).sum() / (ids_BT != 0).sum()


def _check_some(labels_BT: Array, loss_style: str) -> None:
    """Raise ValueError unless some label counts; a traced array has no values to look at."""
    if isinstance(labels_BT, jax.core.Tracer):
        return
    counts_BT = labels_BT != IGNORED if loss_style == "transformers" else (labels_BT != IGNORED) & (labels_BT != 0)
    if not counts_BT.any():
        padding = IGNORED if loss_style == "transformers" else f"0 or {IGNORED}"
        raise ValueError(f"labels hold no token: all are padding ({padding}): give summaries, or no labels")


def _padded(labels_BT: Array, config: BigBirdPegasusConfig) -> Array:
    return jnp.where(labels_BT == IGNORED, config.pad_token_id, labels_BT)
