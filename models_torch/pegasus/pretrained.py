"""Loading and saving: what is BigBird-Pegasus' own in it, which is that parts of a model stand in several places."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from torch import nn

from bigbird_port.models.checkpointing import refuse_partial_checkpointing
from bigbird_port.schema.table import weights_of
from models_torch.pretrained.model import BigBirdPreTrainedModel


class BigBirdPegasusPreTrainedModel(BigBirdPreTrainedModel, abstract=True):
    """Base of the five models. A part that both sides share is one module under several names."""

    model_type: ClassVar[str] = "bigbird_pegasus"
    base_model_prefix: ClassVar[str] = "model"
    _poolers: ClassVar[tuple[str, ...]] = ()

    def load_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take over weights under their torch names; raises RuntimeError unless names and shapes fit exactly."""
        named = {other: arrays[name] for other, name in self._others().items() if name in arrays}
        super().load_arrays({**arrays, **named})

    @property
    def stacks(self) -> list[Any]:
        """Encoder and decoder, as far as there are both."""
        found = (getattr(self.base, name, None) for name in ("encoder", "decoder"))
        return [stack for stack in found if stack is not None]

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the word embeddings."""
        return self.stacks[-1].embed_tokens

    def get_position_embeddings(self) -> nn.Embedding:
        """Return the position embeddings."""
        return self.stacks[-1].embed_positions

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the word embeddings of both sides and of the output; raises ValueError for another shape."""
        expected = (self.config.vocab_size, self.config.d_model)
        if tuple(value.weight.shape) != expected:
            raise ValueError(
                f"the embeddings have shape {list(value.weight.shape)}, expected {list(expected)}: "
                "resize_token_embeddings changes the vocabulary"
            )
        for module in (*self.stacks, self.base):
            for name in ("embed_tokens", "shared"):
                if hasattr(module, name):
                    setattr(module, name, value)

    def get_output_embeddings(self) -> nn.Linear | None:
        """Return the output layer of language modelling, which holds the model's own weights; else None."""
        if self.head not in ("conditional-generation", "causal-lm"):
            return None
        layer = nn.Linear(self.config.d_model, self.config.vocab_size, bias=False, device="meta")
        layer.weight = self.get_input_embeddings().weight
        return layer

    def gradient_checkpointing_enable(
        self,
        gradient_checkpointing_kwargs: dict[str, Any] | None = None,
        every_n_layers: int = 1,
        offload: Any = None,
    ) -> None:
        """In training, compute the layers of both sides again in the backward pass; see BigBirdPreTrainedModel."""
        refuse_partial_checkpointing(every_n_layers, offload)
        first = self.stacks[0]
        self._checkpoint(first, gradient_checkpointing_kwargs)
        for stack in self.stacks[1:]:
            stack.checkpoint_options, stack.gradient_checkpointing = first.checkpoint_options, True

    def gradient_checkpointing_disable(self) -> None:
        """Keep the layers' intermediates for the backward pass (the default)."""
        for stack in self.stacks:
            stack.gradient_checkpointing = False

    def _repeated(self) -> frozenset[str]:
        """What a file does not hold twice: all but what transformers wants to find."""
        copies = {copy for row in weights_of(self.config, self.head, "torch") for copy in row.copies}
        return frozenset(self._others().keys() - copies)

    def _others(self) -> dict[str, str]:
        """Names of shared parameters beside those that the schema has -> those."""
        wanted = {row.torch for row in weights_of(self.config, self.head, "torch")}
        names: dict[int, list[str]] = {}
        for name, parameter in self.named_parameters(remove_duplicate=False):
            names.setdefault(id(parameter), []).append(name)
        found = ((name for name in same if name in wanted) for same in names.values())
        firsts = {
            name: next(iter(hit), same[0]) for same, hit in zip(names.values(), found, strict=True) for name in same
        }
        return {name: first for name, first in firsts.items() if name != first}
