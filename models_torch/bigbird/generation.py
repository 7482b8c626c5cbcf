"""Writing text token by token, with a cache of keys and values.

Legend: B batch, L length so far, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bigbird_port.families.bigbird.config import BigBirdConfig
from models_torch.few_rows import written_fast


def filter_logits(logits_BV: Tensor, top_k: int | None = None, top_p: float | None = None) -> Tensor:
    """Return logits with -inf for all but the top_k best and, of these, the fewest that hold top_p of the probability.

    None switches a filter off. At least one token is left. Raises ValueError for top_k < 1 or top_p outside (0, 1].
    """
    if top_k is not None:
        if top_k < 1:
            raise ValueError(f"top_k is {top_k}, expected at least 1, or None")
        worst_B1 = logits_BV.topk(min(top_k, logits_BV.shape[-1]), dim=-1).values[..., -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < worst_B1, -torch.inf)
    if top_p is not None:
        if not 0 < top_p <= 1:
            raise ValueError(f"top_p is {top_p}, expected above 0 and at most 1, or None")
        sorted_BV, order_BV = logits_BV.sort(dim=-1, descending=True)
        probabilities_BV = sorted_BV.softmax(dim=-1)
        before_BV = probabilities_BV.cumsum(dim=-1) - probabilities_BV  # what better tokens hold already
        drop_BV = torch.zeros_like(before_BV, dtype=torch.bool).scatter(-1, order_BV, before_BV >= top_p)
        logits_BV = logits_BV.masked_fill(drop_BV, -torch.inf)
    return logits_BV


class GenerationMixin:
    """Generation for a causal language model."""

    config: BigBirdConfig

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        max_new_tokens: int = 20,
        do_sample: bool = False,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        eos_token_id: int | Sequence[int] | None = None,
        pad_token_id: int | None = None,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Continue ids [B, L] by at most max_new_tokens; returns prompt and continuation, [B, <= L + max_new_tokens].

        Takes the best token, or (do_sample) draws one with ``seed`` from what temperature, top_k and top_p leave.
        A text ends with eos_token_id, or any of several, and goes on with pad_token_id (None: the configuration's; -1
        never ends).
        attention_mask [B, L]: prompts may be padded on either side; positions count real tokens only. encoder_...:
        as in the model's call. Raises ValueError naming the argument that does not fit.
        """
        _check_generation(self.config, input_ids, max_new_tokens, temperature)
        ends = self.config.eos_token_id if eos_token_id is None else eos_token_id
        eos = torch.as_tensor(ends, device=input_ids.device)
        pad = self.config.pad_token_id if pad_token_id is None else pad_token_id
        generator = torch.Generator(device=input_ids.device).manual_seed(seed) if do_sample else None
        mask_BL = (input_ids != self.config.pad_token_id) if attention_mask is None else attention_mask.bool()
        ids_BL, new_BL, position_BL = input_ids, input_ids, (mask_BL.cumsum(dim=1) - 1).clamp(min=0)
        finished_B = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        past = None
        with written_fast(self):  # type: ignore[arg-type]  # it is a module
            for _ in range(max_new_tokens):
                output = self._call(
                    new_BL,
                    attention_mask=mask_BL,
                    position_ids=position_BL,
                    past_key_values=past,
                    use_cache=True,
                    encoder_hidden_states=encoder_hidden_states,
                    encoder_attention_mask=encoder_attention_mask,
                )
                past = output.past_key_values
                logits_BV = _last_real(output.logits, mask_BL)
                next_B = _choose(logits_BV, temperature, top_k, top_p, generator)
                next_B = next_B.masked_fill(finished_B, pad)
                finished_B = finished_B | torch.isin(next_B, eos)
                new_BL, position_BL = next_B[:, None], position_BL.max(dim=1, keepdim=True).values + 1
                ids_BL = torch.cat((ids_BL, new_BL), dim=1)
                mask_BL = torch.cat((mask_BL, torch.ones_like(new_BL, dtype=torch.bool)), dim=1)
                if finished_B.all():
                    break
        return ids_BL

    def _call(self, *args: Any, **kwargs: Any) -> Any:
        return self(*args, **kwargs)  # type: ignore[operator]


def _last_real(logits_BLV: Tensor, mask_BK: Tensor) -> Tensor:
    """Logits at each text's last token that is not padding, [B, V]; the L new tokens are the last of the mask's K."""
    B, L, _ = logits_BLV.shape
    order_L = torch.arange(1, L + 1, device=logits_BLV.device)
    last_B = (mask_BK[:, -L:] * order_L).argmax(dim=1)
    return logits_BLV[torch.arange(B, device=logits_BLV.device), last_B]


def _choose(
    logits_BV: Tensor, temperature: float, top_k: int | None, top_p: float | None, generator: torch.Generator | None
) -> Tensor:
    """The next token of each text, [B]: the best without a generator, else a drawn one."""
    if generator is None:
        return logits_BV.argmax(dim=-1)
    filtered_BV = filter_logits(logits_BV.float() / temperature, top_k, top_p)
    return filtered_BV.softmax(dim=-1).multinomial(1, generator=generator)[:, 0]


def _check_generation(config: BigBirdConfig, input_ids: Tensor, max_new_tokens: int, temperature: float) -> None:
    if input_ids.ndim != 2 or 0 in input_ids.shape:
        raise ValueError(f"input_ids has shape {list(input_ids.shape)}, expected [batch, length] with neither 0")
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens is {max_new_tokens}, expected at least 1")
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}, expected above 0; do_sample=False takes the best token")
    room = config.max_position_embeddings - input_ids.shape[1]
    if max_new_tokens > room:
        raise ValueError(
            f"max_new_tokens is {max_new_tokens}, but after a prompt of {input_ids.shape[1]} tokens there are position "
            f"embeddings for {room} more (max_position_embeddings is {config.max_position_embeddings})"
        )
