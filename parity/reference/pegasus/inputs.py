"""What the reference of BigBird-Pegasus is called with, completed; and what its stages hand on.

Legend: B batch, L length of the texts, T tokens of the decoder, D hidden.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bigbird_port.families.pegasus.config import BigBirdPegasusConfig
from parity.given.inputs import DECODER_IDS, Inputs, check_ids
from parity.reference.pattern import blocks_of_pattern


@dataclass(frozen=True, eq=False)
class Completed:
    """Inputs with what was left out.

    input_ids [B, L]; decoder_ids [B, T]. mask: bool [B, L], True for real tokens; None for a decoder alone, whose
    tokens are input_ids. blocks: the pattern's number of blocks, or None for full attention.
    """

    input_ids: np.ndarray
    decoder_ids: np.ndarray
    mask: np.ndarray | None
    blocks: int | None


@dataclass(frozen=True, eq=False)
class Stream:
    """What goes from stage to stage.

    x: hidden states, float64 [B, L, D] or [B, T, D]. encoder: the encoder's output, while the decoder attends to it.
    """

    x: np.ndarray
    given: Completed
    encoder: np.ndarray | None = None

    def fed(self, x: np.ndarray) -> Stream:
        """Return the stream with hidden states, behind the encoder's where they are as many as both sides have."""
        L = self.given.input_ids.shape[1]
        if self.given.mask is None or x.shape[1] != L + self.given.decoder_ids.shape[1]:
            return replace(self, x=x, encoder=None)
        return replace(self, x=x[:, L:], encoder=x[:, :L])


def complete_inputs(config: BigBirdPegasusConfig, head: str, inputs: Inputs) -> Completed:
    """Add what was left out: padding is pad_token_id, and the decoder reads the text behind the start id.

    Raises ValueError naming an input that is unknown or does not fit.
    """
    if unknown := sorted(set(inputs) - set(config.family.inputs)):
        raise ValueError(f"the reference takes {', '.join(config.family.inputs)}; found {', '.join(unknown)}")
    check_ids(inputs, config)
    ids = inputs["input_ids"]
    if ids.ndim != 2:
        raise ValueError(f"input_ids has shape {list(ids.shape)}, expected [batch, length]")
    if not config.is_encoder_decoder:
        if "attention_mask" in inputs and not inputs["attention_mask"].all():
            raise ValueError("attention_mask: the reference of a decoder alone knows no padding")
        return Completed(ids, ids, None, None)
    start = np.full((len(ids), 1), config.decoder_start_token_id, ids.dtype)
    read = inputs.get(DECODER_IDS, np.concatenate((start, ids[:, :-1]), axis=1))
    mask = np.broadcast_to(inputs.get("attention_mask", ids != config.pad_token_id) != 0, ids.shape)
    return Completed(ids, read, mask, blocks_of_pattern(config, ids.shape[1]))
