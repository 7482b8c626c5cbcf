"""The third witness: BigBird for all eight heads in plain NumPy float64, written from the original's rules.

It runs stage by stage (start, layer 0, layer 1, .., finish), keeps nothing between the stages, and shares with the
two frameworks only the configuration and the canonical weights. It draws the random blocks anew (pattern.py).

Legend: B batch, L length, D hidden, N heads, H head size.

Sources: bigbird/core/{attention,encoder,modeling,utils}.py and bigbird/pretrain/run_pretraining.py of
google-research/bigbird; the heads that it does not have are transformers'.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.families.family import Step
from bigbird_port.models.folder import WEIGHT_FILES, complete_folder, read_model_folder
from bigbird_port.schema.table import Framework
from parity.given.inputs import Inputs
from parity.reference.attention import Visibility, attend, multiplicity, random_blocks_of
from parity.reference.dropout import dropped
from parity.reference.heads import WORDS, Taps, head_taps
from parity.reference.inputs import Stream, complete_inputs
from parity.reference.losses import Labels, Terms, loss_terms
from parity.reference.operations import Weights, activate, dense, layer_norm
from parity.reference.rounding import lossy
from parity.reference.weights import StoredWeights, Widened


@dataclass(frozen=True, eq=False)
class Reference:
    """A model: configuration, head, and canonical weights, in types to compute with.

    initialised: weights that the folder lacked.
    """

    config: BigBirdConfig
    head: str
    weights: Widened
    initialised: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, folder: Path, head: str, overrides: Mapping[str, Any], init_seed: int) -> Reference:
        """Open a model folder (what convert wrote: its torch folder, or flax where there is no other).

        All of it is read once, and judged; then each weight is read when it is used. Raises ValueError naming the file
        and what is wrong with it.
        """
        model = read_model_folder(folder, framework_of(folder))
        config = model.config.replace(**overrides)
        # "flax": the rows that the head uses; torch classes carry some that they do not.
        weights, initialised = complete_folder(model, config, head, "flax", init_seed)
        held = {name: values for name, values in weights.items() if name not in model.weights}
        return cls.of(config, head, StoredWeights(model.path, list(weights), held), initialised)

    @classmethod
    def of(cls, config: BigBirdConfig, head: str, weights: Weights, initialised: list[str] | None = None) -> Reference:
        """Build from canonical weights of any precision; a decoder attends fully."""
        config = config.for_head(head)
        if config.is_decoder:
            config = config.replace(attention_type="original_full")
        return cls(config, head, Widened(weights), initialised or [])

    def start(self, inputs: Inputs) -> tuple[Taps, Stream]:
        """Return the taps embeddings_prenorm and embeddings [B, L, D], and what layer 0 needs."""
        given = complete_inputs(self.config, self.head, inputs)
        x = lossy(self.weights[WORDS][given.input_ids].astype(np.float64))
        if self.config.rescale_embeddings:
            x *= math.sqrt(self.config.hidden_size)
        x += lossy(self.weights["embeddings.token_type_embeddings.embedding"][given.token_type_ids])
        x += lossy(self.weights["embeddings.position_embeddings.embedding"][given.position_ids])
        x = lossy(x)
        kept = dropped(x, self.config.hidden_dropout_prob)
        normed = self.norm_where("postnorm", "embeddings.LayerNorm", kept)
        return {"embeddings_prenorm": x, "embeddings": normed}, Stream(normed, given)

    def step(self, step: Step, stream: Stream) -> tuple[Taps, Stream]:
        """Run a stage between the first and the last: a layer, or in prenorm the LayerNorm behind all of them."""
        if step.number is not None:
            return self.layer(step.number, stream)
        x = self.norm_where("prenorm", "encoder.LayerNorm", stream.x)
        return {step.output: x}, replace(stream, x=x)

    def layer(self, i: int, stream: Stream) -> tuple[Taps, Stream]:
        """Run layer ``i`` on stream.x.

        Return the taps layer.<i>.query, key, value [B, N, L, H], context [B, L, N, H], attention_output, intermediate
        and output [B, L, ..], and what the next layer needs.
        """
        head_mask, states = stream.given.head_mask, stream.given.encoder_states
        factors = None if head_mask is None else head_mask[i]
        visibility = self.visibility(i, stream)
        attention = self._attention(f"encoder.layer.{i}.attention", stream.x, stream.x, visibility, factors)
        attended = attention["attention_output"]
        if states is not None and stream.given.encoder_mask is not None:
            seen = Visibility(stream.given.encoder_mask, None, self.config.block_size, causal=False)
            crossed = self._attention(f"encoder.layer.{i}.crossattention", attended, states, seen, factors)
            attended = crossed["attention_output"]
        taps = attention | self._feed_forward(i, attended)
        return {f"layer.{i}.{name}": tap for name, tap in taps.items()}, replace(stream, x=taps["output"])

    def _attention(
        self, module: str, x: np.ndarray, keyed: np.ndarray, visibility: Visibility, factors: np.ndarray | None
    ) -> Taps:
        """A sublayer in which x attends to what is keyed; factors [N]: of the heads' contexts."""
        weights, itself = self.weights, keyed is x
        entered = self.norm_where("prenorm", f"{module}.self.LayerNorm", x)
        keyed = entered if itself else keyed
        q, k, v = (
            self.split_heads(dense(weights, f"{module}.self.{part}", given))
            for part, given in (("query", entered), ("key", keyed), ("value", keyed))
        )
        context = attend(q, k, v, visibility)
        if visibility.counts is None:  # lists of blocks have no dropout
            context = dropped(context, self.config.attention_probs_dropout_prob)
        if factors is not None:
            context *= factors[:, None]
        projected = dense(weights, f"{module}.output.dense", context.reshape(x.shape))
        projected = dropped(projected, self.config.hidden_dropout_prob)
        projected += x
        attention = self._summed(f"{module}.output.LayerNorm", projected)
        return {"query": q, "key": k, "value": v, "context": context, "attention_output": attention}

    def _feed_forward(self, i: int, attention: np.ndarray) -> Taps:
        weights, module = self.weights, f"encoder.layer.{i}"
        entered = self.norm_where("prenorm", f"{module}.intermediate.LayerNorm", attention)
        inner = activate(self.config.hidden_act, dense(weights, f"{module}.intermediate.dense", entered))
        narrowed = dropped(dense(weights, f"{module}.output.dense", inner), self.config.hidden_dropout_prob)
        narrowed += attention
        return {"intermediate": inner, "output": self._summed(f"{module}.output.LayerNorm", narrowed)}

    def _summed(self, module: str, added: np.ndarray) -> np.ndarray:
        """Return the sum that a sublayer makes, in postnorm its LayerNorm, which rounds the sum itself."""
        return lossy(added) if self.has_norm("prenorm") else self.norm_where("postnorm", module, added)

    def finish(self, stream: Stream) -> Taps:
        """Return the head's scores under the models' field names, and the taps before them."""
        return head_taps(self.config, self.weights, self.head, stream)

    def losses(self, taps: Taps, labels: Labels) -> float:
        """Return the loss of finish's taps; losses.py says which labels."""
        return sum(term.value for term in self.loss_terms(taps, labels).values())

    def loss_terms(self, taps: Taps, labels: Labels) -> Terms:
        """Return the terms whose sum is the loss, each with its gradients."""
        return loss_terms(self.config, self.head, taps, labels)

    def inject(self, stream: Stream, x: np.ndarray) -> Stream:
        """Return the stream with hidden states [B, L, D] in it."""
        return replace(stream, x=x.astype(np.float64, copy=False))

    def hidden(self, stream: Stream) -> np.ndarray:
        """Return the hidden states [B, L, D]."""
        return stream.x

    def norm_where(self, norm_type: str, module: str, x: np.ndarray) -> np.ndarray:
        """Return LayerNorm(x) in a model of this norm_type, else ``x`` itself."""
        return layer_norm(self.weights, module, x, self.config.layer_norm_eps) if self.has_norm(norm_type) else x

    def has_norm(self, norm_type: str) -> bool:
        """Return whether the model is of this norm_type; prenorm: before each sublayer and behind the last layer."""
        return self.config.norm_type == norm_type

    def visibility(self, i: int, stream: Stream) -> Visibility:
        """Return what the queries of layer ``i`` see."""
        counts = None
        if stream.given.blocks is not None:
            counts = multiplicity(random_blocks_of(self.config, i, stream.given.blocks))
        return Visibility(stream.given.mask, counts, self.config.block_size, self.config.is_decoder)

    def split_heads(self, x: np.ndarray) -> np.ndarray:
        """Return [B, L, D] as [B, N, L, H]."""
        return x.reshape(*x.shape[:2], self.config.num_attention_heads, self.config.head_dim).swapaxes(1, 2)


def framework_of(folder: Path) -> Framework:
    """Whose file to read: torch's unless only Flax's is there."""
    flax = WEIGHT_FILES["flax"]
    only_flax = not (folder / "torch").is_dir() and not any(folder.glob("model*.safetensors*"))
    return "flax" if only_flax and ((folder / flax).is_file() or (folder / "flax" / flax).is_file()) else "torch"
