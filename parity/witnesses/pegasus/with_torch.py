"""The torch twin of BigBird-Pegasus as a witness: its own modules, one after the other.

Legend: B batch, L length of the texts, T tokens of the decoder, D hidden.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bigbird_port.families.family import Step
from bigbird_port.schema.weights import from_framework
from parity.given.inputs import DECODER_IDS, Inputs
from parity.measure.losses import total_loss
from parity.witnesses import with_torch as base
from parity.witnesses.witness import Gradients, Taps
from parity.witnesses.written import Written

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Stream:
    """x [B, L or T, D]; encoder: its output, while the decoder attends to it.

    ids, decoder_ids: what both sides read; ids is None for a decoder alone. inputs: what the encoder wants beside x.
    """

    x: Tensor
    ids: Tensor | None
    decoder_ids: Tensor
    inputs: Any
    encoder: Tensor | None = None

    def fed(self, x: Tensor) -> Stream:
        """Return the stream with hidden states, behind the encoder's where they are as many as both sides have."""
        L = 0 if self.ids is None else self.ids.shape[1]
        if not L or x.shape[1] != L + self.decoder_ids.shape[1]:
            return replace(self, x=x, encoder=None)
        return replace(self, x=x[:, L:], encoder=x[:, :L])


class TorchWitness(base.TorchWitness):
    """A model of models_torch, in evaluation mode."""

    def start(self, inputs: Inputs) -> tuple[Taps, Any]:
        """Run the embeddings of the encoder, or of a decoder alone."""
        from models_torch.bigbird.inputs import Arrays, complete_inputs
        from models_torch.pegasus.losses import decoder_inputs

        given = self._tensors(inputs)
        ids, mask = given["input_ids"], given.get("attention_mask")
        with base.pinned():
            if not self.config.is_encoder_decoder:
                return self._embed(Stream(ids, None, ids, mask), "decoder", ids)
            read = given.get(DECODER_IDS)
            if read is None:
                read = decoder_inputs(ids, self.config.replace(loss_style="transformers"))
            completed = complete_inputs(self.config, Arrays(ids, mask))
            return self._embed(Stream(ids, ids, read, completed), "encoder", ids)

    def step(self, step: Step, stream: Any) -> tuple[Taps, Any]:
        """Run a stage."""
        side, _, part = step.stage.name.partition(".")
        with base.pinned():
            if part == "embeddings":
                return self._embed(replace(stream, encoder=stream.x), side, stream.decoder_ids)
            if part == "output":
                return self._output(stream, side)
            x, taps = (self._encoder_layer if side == "encoder" else self._decoder_layer)(step.index, stream)
        return {f"{step.name}.{name}": base.to_array(tap) for name, tap in taps.items()}, replace(stream, x=x)

    def finish(self, stream: Any, positions: slice | None = None) -> Taps:
        """Run the head."""
        x = stream.x if positions is None else stream.x[:, positions]
        with base.pinned():
            return {name: base.to_array(tap) for name, tap in self._scores(x, stream.ids).items()}

    def call_base(self, inputs: Inputs) -> Any:
        """Call the base model, or the decoder alone."""
        given = self._tensors(inputs)
        with base.pinned():
            if self.config.is_encoder_decoder:
                output = self.model.base(**given, use_cache=False)
                return Stream(output.last_hidden_state, given["input_ids"], given["input_ids"], None)
            x = self._decoder(given["input_ids"], given.get("attention_mask")).last_hidden_state
        return Stream(x, None, given["input_ids"], None)

    def inject(self, stream: Any, x: np.ndarray) -> Any:
        """Put hidden states in, rounded to the model's dtype."""
        import torch

        return stream.fed(torch.from_numpy(np.ascontiguousarray(x)).to(self.dtype).to(self.device))

    def hidden(self, stream: Any) -> np.ndarray:
        """Return what the next stage reads."""
        import torch

        parts = [x for x in (stream.encoder, stream.x) if x is not None]
        return base.to_array(torch.cat(parts, dim=1))

    def backward(self, inputs: Inputs, labels: Inputs) -> Gradients:
        """Return the gradients of the loss by autograd, through one call of the model."""
        import torch

        from models_torch import losses

        self.model.zero_grad()
        with base.pinned(gradients=True):
            output = self.model(**self._tensors(inputs), output_taps=True)
            scores = {name: output[name] for name in self.config.family.heads[self.model.head].returned}
            taps = {name: tap for name, tap in (output.taps | scores).items() if tap.requires_grad}
            for tap in taps.values():
                tap.retain_grad()
            targets = {name: torch.from_numpy(x).to(self.device) for name, x in labels.items()}
            loss = total_loss(losses, self.config, self.model.head, scores, targets)
            loss.backward()
        arrays = {name: base.gradient_of(x) for name, x in self.model.named_parameters()}
        weights = from_framework(arrays, self.config, self.model.head, "torch", any_pooler=True)
        return Gradients(float(loss.detach()), weights, {name: base.gradient_of(tap) for name, tap in taps.items()})

    def decode(self, inputs: Inputs) -> np.ndarray:
        """Return the scores [B, T, V] of the decoder's tokens one after the other; the text is encoded once."""
        from models_torch.pegasus.cache import init_cache

        given = self._tensors(inputs)
        encoded: dict[str, Any] = {}
        with base.pinned():
            name, tokens = "input_ids", given["input_ids"]
            if self.config.is_encoder_decoder:
                name, tokens, text = "decoder_input_ids", given[DECODER_IDS], given["input_ids"]
                mask = given.get("attention_mask", text != self.config.pad_token_id)
                encoded = {"encoder_outputs": self.model.base.encoder(text, mask), "attention_mask": mask}
            past: Any = init_cache(self.config, len(tokens), tokens.shape[1], self.dtype, self.device)
            found = []
            for i in range(tokens.shape[1]):
                output = self.model(**encoded, **{name: tokens[:, i : i + 1]}, past_key_values=past, use_cache=True)
                past = output.past_key_values
                found.append(base.to_array(output.logits))
        return np.concatenate(found, axis=1)

    def write(self, inputs: Inputs, T: int, beams: int, alpha: float) -> Written:
        """Return what is written: greedily with one beam, else by the original's search."""
        given = {name: x for name, x in self._tensors(inputs).items() if name != DECODER_IDS}
        with base.pinned():
            if beams == 1:
                return Written(base.to_array(self.model.generate(**given, max_length=T)))
            found = self.model.generate(**given, max_length=T, num_beams=beams, alpha=alpha, return_beams=True)
        return Written(base.to_array(found.ids), base.to_array(found.scores))

    @property
    def _stack(self) -> Any:
        """Where encoder and decoder are."""
        return self.model.base

    def _embed(self, stream: Stream, side: str, ids: Tensor) -> tuple[Taps, Stream]:
        from models_torch.pegasus.stacks import embedded, first_norm

        stack = getattr(self._stack, side)
        words, positions = stack.embed_tokens(ids), stack.embed_positions.weight[None, : ids.shape[1]]
        total = embedded(self.config, words, positions)
        x, taps = first_norm(self.config, stack.layernorm_embedding, total, stack.dropout, side)
        return {name: base.to_array(tap) for name, tap in taps.items()}, replace(stream, x=x)

    def _output(self, stream: Stream, side: str) -> tuple[Taps, Stream]:
        x = stream.x
        if self.config.norm_type == "prenorm":
            x = getattr(self._stack, side).layernorm_embedding(x)
        return {f"{side}.output": base.to_array(x)}, replace(stream, x=x, encoder=None)

    def _encoder_layer(self, i: int, stream: Stream) -> tuple[Tensor, Any]:
        from models_torch.bigbird.encoder import encoder_lists

        lists = encoder_lists(self.config, i, stream.x.shape[1], self.device)
        found: tuple[Tensor, Any] = self._stack.encoder.layers[i](stream.x, stream.inputs.mask, lists)
        return found

    def _decoder_layer(self, i: int, stream: Stream) -> tuple[Tensor, Any]:
        import torch

        mask = torch.ones(stream.x.shape[:2], dtype=torch.bool, device=self.device)
        seen = None if stream.encoder is None else stream.inputs.mask
        x, taps, _ = self._stack.decoder.layers[i](stream.x, mask, stream.encoder, seen)
        return x, taps

    def _decoder(self, ids: Tensor, mask: Tensor | None) -> Any:
        from models_torch.pegasus.inputs import DecoderArrays
        from models_torch.pegasus.model import run_decoder

        return run_decoder(self._stack.decoder, DecoderArrays(ids, mask=mask), False, False, False, False, "")

    def _scores(self, x: Tensor, ids: Tensor | None) -> dict[str, Tensor]:
        from torch.nn import functional

        if not self.config.is_encoder_decoder:
            return {"logits": functional.linear(x, self._stack.decoder.embed_tokens.weight)}
        if self.model.head == self.config.family.base:
            return {}
        from models_torch.pegasus.outputs import BigBirdPegasusModelOutput

        found: dict[str, Tensor] = self.model.score(BigBirdPegasusModelOutput(last_hidden_state=x), {"input_ids": ids})
        return found
