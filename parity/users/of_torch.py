"""How users call the torch twin.

Legend: B batch, L length, K keys so far, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bigbird_port.schema.weights import from_framework
from parity.given.inputs import Inputs
from parity.users.torch_ways import WAYS
from parity.users.user import flat
from parity.witnesses.with_torch import TorchWitness, gradient_of, pinned, to_array
from parity.witnesses.witness import Gradients, Setting, Taps

if TYPE_CHECKING:
    from torch import Tensor


class TorchUser:
    """A user of a torch model."""

    name, takes_embeddings, ways = "torch", True, WAYS

    def __init__(self, witness: TorchWitness) -> None:
        self.witness, self.model = witness, witness.model
        self._returned = witness.config.family.heads[witness.model.head].returned

    def call(self, inputs: Inputs, **asked: Any) -> Taps:
        """Call the model."""
        with pinned():
            output = self.model(**self._tensors(inputs), **asked)
        return flat(output, to_array, self._returned, asked)

    def loss(self, inputs: Inputs, labels: Inputs, scores: Taps) -> float:
        """Call the model with labels, and return its loss."""
        return float(self.call(inputs | labels)["loss"])

    def gradients(self, inputs: Inputs, labels: Inputs) -> Gradients:
        """Call the model with labels, and go back from its loss."""
        self.model.zero_grad()
        with pinned(gradients=True):
            loss = self.model(**self._tensors(inputs | labels)).loss
            loss.backward()
        arrays = {name: gradient_of(x) for name, x in self.model.named_parameters()}
        config, head = self.witness.config, self.witness.model.head
        return Gradients(float(loss.detach()), from_framework(arrays, config, head, "torch", any_pooler=True), {})

    def continued(self, pieces: Sequence[Inputs]) -> np.ndarray:
        """Hand on each call's cache. A mask is of all tokens so far."""
        from models_torch.bigbird.cache import init_cache

        B, total = len(pieces[0]["input_ids"]), sum(piece["input_ids"].shape[1] for piece in pieces)
        past: Any = init_cache(self.model.config, B, total, self.witness.dtype, self.witness.device)
        found, masks = [], []
        with pinned():
            for piece in pieces:
                tensors = self._tensors(piece)
                if "attention_mask" in piece:
                    masks.append(piece["attention_mask"])
                    tensors |= self._tensors({"attention_mask": np.concatenate(masks, axis=1)})
                output = self.model(**tensors, past_key_values=past, use_cache=True)
                past = output.past_key_values
                found.append(to_array(output.logits))
        return np.concatenate(found, axis=1)

    def generate(self, inputs: Inputs, tokens: int, **how: Any) -> np.ndarray:
        """Write tokens, which nothing ends."""
        with pinned():
            ids = self.model.generate(**self._tensors(inputs), max_new_tokens=tokens, eos_token_id=-1, **how)
        found: np.ndarray = ids.cpu().numpy()
        return found

    def weights(self) -> Taps:
        """Read the state."""
        arrays = {name: to_array(x) for name, x in self.model.state_dict().items()}
        return from_framework(arrays, self.model.config, self.model.head, "torch", any_pooler=True)

    def size(self) -> int:
        """Ask the model."""
        found: int = self.model.num_parameters()
        return found

    def made(self, seed: int) -> TorchUser:
        """Make one from the configuration."""
        return self._of(type(self.model).from_config(self.model.config, seed))

    def extended(self, length: int, method: str) -> TorchUser:
        """Extend the model."""
        return self._of(self.model.extend_positions(length, method))

    def reloaded(self, folder: Path) -> TorchWitness:
        """Save and load."""
        self.model.save_pretrained(folder)
        return self._of(type(self.model).from_pretrained(folder)).witness

    def _of(self, model: Any) -> TorchUser:
        """The user of another model, in this one's type and on its device."""
        setting = Setting(str(self.witness.dtype).removeprefix("torch."), str(self.witness.device))  # type: ignore[arg-type]
        return TorchUser(TorchWitness(model, setting))

    def _tensors(self, arrays: Inputs) -> dict[str, Tensor]:
        """On the model's device; numbers in its type, but for labels."""
        import torch

        device, dtype = self.witness.device, self.witness.dtype
        tensors = {name: torch.from_numpy(np.ascontiguousarray(x)).to(device) for name, x in arrays.items()}
        return {name: x.to(dtype) if x.is_floating_point() and name != "labels" else x for name, x in tensors.items()}


def user_of(witness: TorchWitness) -> TorchUser:
    """Return the user of a witness's model."""
    return TorchUser(witness)
