"""BigBird-Pegasus for all five heads in plain NumPy float64, written from the original's rules.

It runs stage by stage, as BigBird's reference does, whose attention, random blocks and operations it has. Of the twins
it has nothing but configuration and weights.

Legend: B batch, L length of the texts, T tokens of the decoder, D hidden.

Sources: bigbird/core/{modeling,encoder,decoder,utils}.py of google-research/bigbird; the heads that it does not have
are transformers'.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bigbird_port.families.family import Step
from bigbird_port.families.pegasus.config import BigBirdPegasusConfig
from parity.given.inputs import Inputs
from parity.reference import model as base
from parity.reference.attention import Visibility, attend
from parity.reference.operations import activate, dense, layer_norm
from parity.reference.own import own_function
from parity.reference.pegasus.heads import HEADS, Taps
from parity.reference.pegasus.inputs import Stream, complete_inputs
from parity.reference.pegasus.losses import LOSSES
from parity.reference.rounding import lossy
from parity.witnesses.written import Written

WORDS = "embeddings.word_embeddings.embedding"
POSITIONS = "embeddings.position_embeddings.embedding"
Sublayer = tuple[Taps, np.ndarray]


@dataclass(frozen=True, eq=False)
class Reference(base.Reference):
    """A model: configuration, head, and canonical weights, in types to compute with."""

    config: BigBirdPegasusConfig  # type: ignore[assignment]  # of another family

    def start(self, inputs: Inputs) -> tuple[Taps, Stream]:  # type: ignore[override]
        """Return the taps of the embeddings: the encoder's, or those of a decoder alone."""
        given = complete_inputs(self.config, self.head, inputs)
        return self._embeddings(Stream(np.empty(0), given), "encoder" if given.mask is not None else "decoder")

    def step(self, step: Step, stream: Stream) -> tuple[Taps, Stream]:  # type: ignore[override]
        """Run a stage on stream.x; return its taps, and what the next stage needs."""
        side, _, part = step.stage.name.partition(".")
        if part == "embeddings":
            return self._embeddings(replace(stream, encoder=stream.x), side)
        if part == "output":
            return self._output(stream, side)
        run = self._encoder_layer if side == "encoder" else self._decoder_layer
        taps, x = run(step.index, stream)
        return {f"{step.name}.{name}": tap for name, tap in taps.items()}, replace(stream, x=x)

    def finish(self, stream: Stream) -> Taps:  # type: ignore[override]
        """Return the head's scores under the models' field names."""
        return own_function(self.config, self.head, "head_taps", HEADS)(self.config, self.weights, stream)

    def write(self, inputs: Inputs, T: int, beams: int, alpha: float) -> Written:
        """Return what is written: greedily with one beam, else by the original's search."""
        from parity.reference.pegasus.writing import greedy, search

        return greedy(self, inputs, T) if beams == 1 else search(self, inputs, T, beams, alpha)

    def loss_terms(self, taps: Taps, labels: Any) -> Any:
        """Return the terms whose sum is the loss, each with its gradients."""
        return own_function(self.config, self.head, "loss_terms", LOSSES)(self.config, taps, labels)

    def inject(self, stream: Stream, x: np.ndarray) -> Stream:  # type: ignore[override]
        """Return the stream with hidden states in it, as ``hidden`` gives them."""
        return stream.fed(x.astype(np.float64, copy=False))

    def hidden(self, stream: Stream) -> np.ndarray:  # type: ignore[override]
        """Return what the next stage reads: hidden states, behind the encoder's where the decoder attends to them."""
        return stream.x if stream.encoder is None else np.concatenate((stream.encoder, stream.x), axis=1)

    def scale(self) -> float:
        """Return the factor of the words' embeddings."""
        return math.sqrt(self.config.d_model) if self.config.scale_embedding else 1.0

    def owner(self, module: str) -> str:
        """Return whose weights a module has: in a coupled model the decoder's layers are the encoder's own."""
        shared = self.config.couple_encoder_decoder and ".encdec" not in module
        return module.replace("decoder.", "encoder.", 1) if shared else module

    def causal(self, stream: Stream) -> Visibility:
        """Return what the decoder's queries see of its own tokens: those up to their own, padding among them."""
        return Visibility(np.ones(stream.x.shape[:2], bool), None, self.config.block_size, causal=True)

    def crossed(self, stream: Stream) -> Visibility:
        """Return what the decoder's queries see of the encoder's states: those of tokens."""
        assert stream.given.mask is not None
        B, T, L = *stream.x.shape[:2], stream.given.mask.shape[1]
        mask = np.broadcast_to(stream.given.mask[:, None], (B, T, L))
        return Visibility(mask, None, self.config.block_size, causal=False)

    def _embeddings(self, stream: Stream, side: str) -> tuple[Taps, Stream]:
        """Words, scaled where the configuration says so, and positions from row 0; in postnorm their LayerNorm."""
        ids = stream.given.input_ids if side == "encoder" else stream.given.decoder_ids
        x = lossy(self.weights[WORDS][ids].astype(np.float64))
        x *= self.scale()
        x += lossy(self.weights[POSITIONS][: ids.shape[1]])
        taps = {f"{side}.embeddings": (x := lossy(x))}
        if self.config.norm_type == "postnorm":
            x = taps[f"{side}.embeddings_layer_norm"] = self._norm(f"{side}.LayerNorm", x)
        return taps, replace(stream, x=x)

    def _output(self, stream: Stream, side: str) -> tuple[Taps, Stream]:
        """The last LayerNorm of a side, which there is in prenorm; behind it the decoder needs the encoder no more."""
        x = self._norm(f"{side}.LayerNorm", stream.x) if self.config.norm_type == "prenorm" else stream.x
        return {f"{side}.output": x}, replace(stream, x=x, encoder=None)

    def _encoder_layer(self, i: int, stream: Stream) -> Sublayer:
        seen, module = self.visibility(i, stream), f"encoder.layer.{i}"  # type: ignore[arg-type]
        attention, x = self._attention(f"{module}.attention", "self", stream.x, None, seen)
        fed, x = self._feed_forward(module, x)
        named = {"dense": "attention_dense", "output": "attention_output", "layer_norm": "self_layer_norm"}
        return {named.get(name, name): tap for name, tap in attention.items()} | fed, x

    def _decoder_layer(self, i: int, stream: Stream) -> Sublayer:
        module = f"decoder.layer.{i}"
        own, x = self._attention(f"{module}.attention", "self", stream.x, None, self.causal(stream))
        taps = {f"self_{name}": tap for name, tap in own.items()}
        if stream.encoder is not None:
            seen = self.crossed(stream)
            crossed, x = self._attention(f"{module}.attention", "encdec", x, stream.encoder, seen)
            taps |= {f"cross_{name}": tap for name, tap in crossed.items()}
        fed, x = self._feed_forward(module, x)
        return taps | fed, x

    def _attention(  # type: ignore[override]
        self, module: str, kind: str, x: np.ndarray, keyed: np.ndarray | None, seen: Visibility
    ) -> Sublayer:
        """A sublayer in which x attends to itself, or to what is ``keyed``, which no LayerNorm of it touches."""
        norm = f"{module}.LayerNorm" if kind == "self" else f"{module}.{kind}.LayerNorm"
        entered = self._enter(norm, x)
        read = entered if keyed is None else keyed
        q, k, v = (
            self.split_heads(dense(self.weights, self.owner(f"{module}.{kind}.{part}"), given))
            for part, given in (("query", entered), ("key", read), ("value", read))
        )
        context = attend(q, k, v, seen)
        output = "output" if kind == "self" else f"{kind}_output"
        added = dense(self.weights, self.owner(f"{module}.{output}.dense"), context.reshape(x.shape))
        left = self._leave(norm, x, added)
        parts = self._entered("layer_norm", entered) | {"query": q, "key": k, "value": v, "context": context}
        return parts | {"dense": added, "output": left}, left

    def _feed_forward(self, module: str, x: np.ndarray) -> Sublayer:  # type: ignore[override]
        entered = self._enter(f"{module}.LayerNorm", x)
        before = dense(self.weights, self.owner(f"{module}.intermediate.dense"), entered)
        inner = activate(self.config.activation_function, before)
        added = dense(self.weights, self.owner(f"{module}.output.dense"), inner)
        output = self._leave(f"{module}.LayerNorm", x, added)
        taps = {"intermediate": inner, "output_dense": added, "output": output}
        return self._entered("intermediate_layer_norm", entered) | taps, output

    def _enter(self, norm: str, x: np.ndarray) -> np.ndarray:
        """What a sublayer reads: x, in prenorm its LayerNorm."""
        return self._norm(norm, x) if self.config.norm_type == "prenorm" else x

    def _entered(self, name: str, entered: np.ndarray) -> Taps:
        """The tap of what a sublayer reads, which there is in prenorm."""
        return {name: entered} if self.config.norm_type == "prenorm" else {}

    def _leave(self, norm: str, x: np.ndarray, added: np.ndarray) -> np.ndarray:
        """x and what a sublayer adds, in postnorm their LayerNorm."""
        return x + added if self.config.norm_type == "prenorm" else self._norm(norm, x + added)

    def _norm(self, module: str, x: np.ndarray) -> np.ndarray:
        return layer_norm(self.weights, self.owner(module), x, self.config.layer_norm_eps)
