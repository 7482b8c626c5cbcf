"""The four modules with a task head; the losses take their scores.

Legend: B batch, L length of the texts, T tokens of the decoder, D hidden, V vocabulary, C labels.
"""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import numpy as np
from flax import linen as nn
from jax import Array
from jax import numpy as jnp
from jax.typing import DTypeLike

from bigbird_port.families.pegasus.config import BigBirdPegasusConfig
from bigbird_port.models.output import ModelOutput
from models_flax.embed import Embed
from models_flax.pegasus.coupled import make_module
from models_flax.pegasus.inputs import DecoderArrays
from models_flax.pegasus.model import Past, run_decoder
from models_flax.pegasus.outputs import (
    BigBirdPegasusDecoderOutput,
    BigBirdPegasusHeadOutput,
    BigBirdPegasusModelOutput,
    BigBirdPegasusQuestionAnsweringOutput,
)
from models_flax.pegasus.stacks import BigBirdPegasusDecoder

Scores = dict[str, Array]  # by the output's field


class FlaxBigBirdPegasusTaskModule(nn.Module):
    """Base of the modules with a task head on encoder and decoder; the fields are FlaxBigBirdPegasusModule's.

    output: what a call returns.
    """

    config: BigBirdPegasusConfig
    dtype: DTypeLike = jnp.float32
    gradient_checkpointing: bool = False
    skip_padding: bool = True

    output: ClassVar[type[ModelOutput]] = BigBirdPegasusHeadOutput

    def setup(self) -> None:
        self.model = make_module(self.config, self.dtype, self.gradient_checkpointing, self.skip_padding)
        self.add_head()

    def add_head(self) -> None:
        """Make what stands behind the decoder."""

    def score(self, output: BigBirdPegasusModelOutput, input_ids: Array | None, deterministic: bool) -> Scores:
        """Return the scores by their names."""
        raise NotImplementedError

    def __call__(self, input_ids: Array | None = None, *arrays: Any, deterministic: bool = True, **named: Any) -> Any:
        """Return the scores; the arguments are FlaxBigBirdPegasusModule's."""
        base = self.model(input_ids, *arrays, deterministic=deterministic, **named)
        scores = self.score(base, input_ids, deterministic)
        kept = {name: value for name, value in vars(base).items() if name != "last_hidden_state"}
        if kept["taps"] is not None:
            kept["taps"] = kept["taps"] | scores
        return self.output(**scores, **kept)

    def encode(self, *arrays: Any, **named: Any) -> Any:
        """Run the encoder alone; the arguments are FlaxBigBirdPegasusModule's."""
        return self.model.encode(*arrays, **named)


class FlaxBigBirdPegasusForConditionalGenerationModule(FlaxBigBirdPegasusTaskModule):
    """Summarisation: logits [B, T, V]. models_flax.pegasus.losses has the decoder's inputs and the loss of labels."""

    def score(self, output: BigBirdPegasusModelOutput, input_ids: Array | None, deterministic: bool) -> Scores:
        """Return logits [B, T, V]: the output layer is the table of words, not scaled."""
        return {"logits": self.model.logits(output.last_hidden_state)}

    def decode(self, *arrays: Any, **named: Any) -> BigBirdPegasusDecoderOutput:
        """Run the decoder alone, logits included; the arguments are FlaxBigBirdPegasusModule's."""
        output = self.model.decode(*arrays, **named)
        return output.replace(logits=self.model.logits(output.last_hidden_state))


class FlaxBigBirdPegasusForSequenceClassificationModule(FlaxBigBirdPegasusTaskModule):
    """Classification of a text by the decoder's state at its last end-of-sequence token: logits [B, C]."""

    def add_head(self) -> None:
        """Two dense layers."""
        self.classification_head = FlaxBigBirdPegasusClassificationHead(self.config, self.dtype)

    def score(self, output: BigBirdPegasusModelOutput, input_ids: Array | None, deterministic: bool) -> Scores:
        """Return logits [B, C]."""
        if input_ids is None:
            raise ValueError("input_ids was not given: the end-of-sequence token is looked for in them")
        ends_BL, last_BTD = input_ids == self.config.eos_token_id, output.last_hidden_state
        known = not isinstance(ends_BL, jax.core.Tracer) and not self.is_initializing()
        if ends_BL.shape != last_BTD.shape[:2] or (known and not np.asarray(ends_BL).any(axis=1).all()):
            raise ValueError(
                f"input_ids: every text must hold the end-of-sequence token {self.config.eos_token_id}, and the "
                "decoder must read the text itself: add the token, and leave decoder_input_ids out"
            )
        places_B = (ends_BL * jnp.arange(1, ends_BL.shape[1] + 1)).argmax(axis=1)
        return {"logits": self.classification_head(last_BTD[jnp.arange(len(last_BTD)), places_B], deterministic)}


class FlaxBigBirdPegasusForQuestionAnsweringModule(FlaxBigBirdPegasusTaskModule):
    """Start and end of an answer among the decoder's tokens: start_logits and end_logits [B, T]."""

    output: ClassVar[type[ModelOutput]] = BigBirdPegasusQuestionAnsweringOutput

    def add_head(self) -> None:
        """One dense layer."""
        self.qa_outputs = nn.Dense(2, dtype=self.dtype)

    def score(self, output: BigBirdPegasusModelOutput, input_ids: Array | None, deterministic: bool) -> Scores:
        """Return start_logits and end_logits [B, T]."""
        spans_BT2 = self.qa_outputs(output.last_hidden_state)
        return {"start_logits": spans_BT2[..., 0], "end_logits": spans_BT2[..., 1]}


class FlaxBigBirdPegasusForCausalLMModule(nn.Module):
    """The decoder alone, which may attend to the states of an encoder: logits [B, T, V]."""

    config: BigBirdPegasusConfig
    dtype: DTypeLike = jnp.float32
    gradient_checkpointing: bool = False
    skip_padding: bool = True

    def setup(self) -> None:
        self.model = FlaxBigBirdPegasusDecoderWrapper(self.config, self.dtype, self.gradient_checkpointing)

    def __call__(
        self,
        input_ids: Array | None = None,
        attention_mask: Array | None = None,
        encoder_hidden_states: Array | None = None,
        encoder_attention_mask: Array | None = None,
        head_mask: Array | None = None,
        cross_attn_head_mask: Array | None = None,
        past_key_values: Past | None = None,
        inputs_embeds: Array | None = None,
        deterministic: bool = True,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        output_taps: bool = False,
    ) -> BigBirdPegasusDecoderOutput:
        """Decode ids [B, T]; the arguments are FlaxBigBirdPegasusModule's of the decoder."""
        given = DecoderArrays(
            *(input_ids, inputs_embeds, attention_mask, encoder_hidden_states, encoder_attention_mask),
            *(head_mask, cross_attn_head_mask, past_key_values),
        )
        return self.model(given, (output_attentions, output_hidden_states, output_taps, deterministic))


class FlaxBigBirdPegasusClassificationHead(nn.Module):
    """Two dense layers on one state."""

    config: BigBirdPegasusConfig
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        self.dense = nn.Dense(self.config.d_model, dtype=self.dtype)
        self.dropout = nn.Dropout(self.config.classifier_dropout)
        self.out_proj = nn.Dense(self.config.num_labels, dtype=self.dtype)

    def __call__(self, x_BD: Array, deterministic: bool = True) -> Array:
        """Return scores [B, C]."""
        dropped_BD = self.dropout(x_BD, deterministic=deterministic)
        inner_BD = self.dropout(jnp.tanh(self.dense(dropped_BD)), deterministic=deterministic)
        return self.out_proj(inner_BD)


class FlaxBigBirdPegasusDecoderWrapper(nn.Module):
    """The decoder and the tables that it reads."""

    config: BigBirdPegasusConfig
    dtype: DTypeLike = jnp.float32
    gradient_checkpointing: bool = False

    def setup(self) -> None:
        self.shared = Embed(self.config.vocab_size, self.config.d_model, dtype=self.dtype)
        self.embed_positions = Embed(self.config.max_position_embeddings, self.config.d_model, dtype=self.dtype)
        self.decoder = BigBirdPegasusDecoder(self.config, self.dtype, self.gradient_checkpointing)

    def __call__(self, given: DecoderArrays, asked: tuple[bool, ...]) -> BigBirdPegasusDecoderOutput:
        """Return the decoder's output, with logits in place of the last hidden state."""
        output = run_decoder(self.decoder, self.shared, self.embed_positions, given, asked, "")
        logits_BTV = self.shared.attend(output.last_hidden_state)
        return output.replace(last_hidden_state=None, logits=logits_BTV)  # type: ignore[attr-defined]
