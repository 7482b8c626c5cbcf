"""What the seven modules with a task head have in common: a call goes to the base module, its states to score.

Legend: B batch, L length, M positions of a text, D hidden, K keys (those of the encoder, or those a mask covers).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any, ClassVar

from flax import linen as nn
from jax import Array
from jax import numpy as jnp
from jax.typing import DTypeLike

from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.models.output import ModelOutput
from models_flax.bigbird.layer import Taps
from models_flax.bigbird.model import Scores
from models_flax.bigbird.outputs import BigBirdHeadOutput, BigBirdModelOutput


class FlaxBigBirdTaskModule(nn.Module):
    """Base of the modules with a task head; the fields are FlaxBigBirdModule's.

    takes: what it is called with beside the arrays that all have. output: what a call returns.
    """

    config: BigBirdConfig
    dtype: DTypeLike = jnp.float32
    gradient_checkpointing: bool = False
    skip_padding: bool = True

    takes: ClassVar[tuple[str, ...]] = ()
    output: ClassVar[type[ModelOutput]] = BigBirdHeadOutput
    score: ClassVar[Callable[..., tuple[Scores, Taps]]]

    def __call__(
        self,
        input_ids: Array,
        attention_mask: Array | None = None,
        token_type_ids: Array | None = None,
        position_ids: Array | None = None,
        head_mask: Array | None = None,
        question_lengths: Array | None = None,
        *,
        deterministic: bool = True,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        output_taps: bool = False,
        **decoder: Any,
    ) -> Any:
        """Return the scores; the arguments are FlaxBigBirdModule's, and those that ``takes`` names."""
        more = decoder | ({} if question_lengths is None else {"question_lengths": question_lengths})
        for name in more:
            if name not in self.takes:
                raise TypeError(f"{type(self).__name__} takes no {name}")
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            "position_ids": position_ids,
            "head_mask": head_mask,
        }
        arrays, beside = self.split_inputs(inputs | more)
        bert: Any = self.bert  # every setup makes one
        base: BigBirdModelOutput = bert(
            **arrays,
            deterministic=deterministic,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            output_taps=output_taps,
        )
        scores, taps = self.score(base.last_hidden_state, base.pooler_output, deterministic, **beside)
        own = {field.name for field in fields(self.output)}  # type: ignore[arg-type]
        kept = {field.name: getattr(base, field.name) for field in fields(base) if field.name in own - scores.keys()}
        return self.output(**scores, **kept | {"taps": join_taps(base.taps, taps)})

    def scores_at(self, positions_BM: Array, *, deterministic: bool = True, **inputs: Any) -> Scores:
        """Return the scores at positions [B, M] of each text alone, as training on masked words wants them."""
        bert: Any = self.bert
        base: BigBirdModelOutput = bert(**inputs, deterministic=deterministic)
        picked_BMD = jnp.take_along_axis(base.last_hidden_state, positions_BM[:, :, None], axis=1)
        return self.score(picked_BMD, base.pooler_output, deterministic)[0]

    def split_inputs(self, arrays: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the call's arrays as the base module's and as what ``score`` wants beside hidden states."""
        return arrays, {}


def join_taps(base: Taps | None, head: dict[str, Any]) -> Taps | None:
    """Return base and head taps together, or None where none were asked for."""
    return None if base is None else base | head
