"""Loading, saving and the call: what is BigBird-Pegasus' own in it, which is the decoder's arguments."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import numpy as np
from flax import linen as nn
from jax import Array
from jax import numpy as jnp
from jax.typing import ArrayLike

from models_flax.pegasus.cache import DecoderCache, init_cache
from models_flax.pretrained.model import FlaxBigBirdPreTrainedModel, Params

Past = tuple[DecoderCache, ...]


class FlaxBigBirdPegasusPreTrainedModel(FlaxBigBirdPreTrainedModel):
    """Base of the five models: a linen module with its parameters. What both sides share is one parameter."""

    head: ClassVar[str] = ""
    model_type: ClassVar[str] = "bigbird_pegasus"
    base_model_prefix: ClassVar[str] = "model"
    module_class: ClassVar[Any]

    def __call__(  # type: ignore[override]
        self,
        input_ids: ArrayLike | None = None,
        attention_mask: ArrayLike | None = None,
        decoder_input_ids: ArrayLike | None = None,
        decoder_attention_mask: ArrayLike | None = None,
        params: Params | None = None,
        dropout_rng: Array | None = None,
        indices_rng: Array | None = None,
        train: bool = False,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **arrays: Any,
    ) -> Any:
        """Run the module on ``params`` (None: the model's own); the arrays, by name, are the module's.

        train, dropout_rng, indices_rng, output_attentions, output_hidden_states, return_dict: as for
        FlaxBigBirdPreTrainedModel.
        Raises ValueError naming what does not fit.
        """
        named = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "decoder_input_ids": decoder_input_ids,
            "decoder_attention_mask": decoder_attention_mask,
        }
        given = {name: value for name, value in (named | arrays).items() if value is not None}
        output_taps = given.pop("output_taps", False)
        asked = (train, output_attentions, output_hidden_states, output_taps)
        return self._run(given, params, dropout_rng, indices_rng, return_dict, *asked)

    def encode(self, input_ids: ArrayLike | None = None, attention_mask: ArrayLike | None = None, **named: Any) -> Any:
        """Run the encoder alone; ``params`` and the flags are the call's."""
        arrays = {"input_ids": input_ids, "attention_mask": attention_mask}
        given = {name: value for name, value in arrays.items() if value is not None}
        flags = ("params", "dropout_rng", "indices_rng", "return_dict")
        asked = ("train", "output_attentions", "output_hidden_states", "output_taps")
        values = {name: named.pop(name, None) for name in (*flags, *asked)}
        return self._run(given | named, **values, method="encode")

    def init_cache(self, batch_size: int, max_length: int) -> Past:  # type: ignore[override]
        """Return an empty cache for decoding max_length tokens; raises ValueError as pegasus/cache.py's init_cache."""
        return init_cache(self.config, batch_size, max_length, self.dtype)

    def _run(
        self,
        given: dict[str, Any],
        params: Params | None,
        dropout_rng: Array | None,
        indices_rng: Array | None,
        return_dict: bool | None,
        train: bool | None,
        output_attentions: bool | None,
        output_hidden_states: bool | None,
        output_taps: bool | None,
        method: str | None = None,
    ) -> Any:
        """Run a method of the module on arrays by name."""
        configured = self.config.output_attentions, self.config.output_hidden_states
        asked = [
            own if value is None else value
            for value, own in zip((output_attentions, output_hidden_states), configured, strict=True)
        ]
        output: Any = self.module.apply(
            {"params": self._params_for(params)},
            **{name: _as_array(value) for name, value in given.items()},
            deterministic=not train,
            output_attentions=asked[0],
            output_hidden_states=asked[1],
            output_taps=bool(output_taps),
            rngs=self._generators(bool(train), dropout_rng, indices_rng),
            method=method,
        )
        as_mapping = self.config.return_dict if return_dict is None else return_dict
        return output if as_mapping else output.to_tuple()


def _as_array(value: Any) -> Any:
    """What is no array of JAX yet; NumPy's stay NumPy's, so that padding is known where a call is compiled."""
    if isinstance(value, (list, np.ndarray)):
        return np.asarray(value)
    return jax.tree.map(jnp.asarray, value) if not isinstance(value, nn.Module) else value
