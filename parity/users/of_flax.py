"""How users call the Flax twin: a small model compiled as a whole, its padding known; a deep one layer by layer.

Legend: B batch, L length, K keys so far, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bigbird_port.schema.weights import from_framework
from parity.given.inputs import Inputs
from parity.measure.losses import total_loss
from parity.users.flax_ways import WAYS
from parity.users.user import flat
from parity.witnesses.with_flax import FlaxWitness, narrowed, quickly
from parity.witnesses.witness import Gradients, Setting, Taps

_DEEP = 4  # layers: all of them in one program take longer to compile than one after the other


class FlaxUser:
    """A user of a Flax model."""

    name, takes_embeddings, ways = "flax", False, WAYS

    def __init__(self, witness: FlaxWitness) -> None:
        self.witness, self.model, self.config = witness, witness.model, witness.config
        self._returned = witness.config.family.heads[witness.head].returned

    def call(self, inputs: Inputs, **asked: Any) -> Taps:
        """Call the model; the inputs are no arguments of the program, so that their padding is known."""
        with self.witness.scope():
            output = self._run(lambda params: self.model(**inputs, params=params, **asked))
        return flat(output, np.asarray, self._returned, asked)

    def loss(self, inputs: Inputs, labels: Inputs, scores: Taps) -> float:
        """Return the loss of scores: a call takes no labels."""
        return self.witness.loss(scores, labels)

    def gradients(self, inputs: Inputs, labels: Inputs) -> Gradients:
        """Differentiate the loss of what a call returns."""
        import jax
        from flax.traverse_util import flatten_dict

        from models_flax.bigbird import losses

        targets = {name: narrowed(x, self.witness.dtype == "float64") for name, x in labels.items()}

        def loss(params: Any) -> Any:
            output = self.model(**inputs, params=params)
            scores = {name: output[name] for name in self._returned}
            return total_loss(losses, self.config, self.witness.head, scores, targets)

        with self.witness.scope():
            value, found = self._run(jax.value_and_grad(loss))
        weights = {name: np.asarray(x) for name, x in flatten_dict(found, sep="/").items()}
        canonical = from_framework(weights, self.config, self.witness.head, "flax", any_pooler=True)
        return Gradients(float(value), canonical, {})

    def continued(self, pieces: Sequence[Inputs]) -> np.ndarray:
        """Hand on each call's cache, which has room for all pieces. A mask is of the piece."""
        from jax import numpy as jnp

        from models_flax.bigbird.cache import init_cache

        B, total = len(pieces[0]["input_ids"]), sum(piece["input_ids"].shape[1] for piece in pieces)
        step, found = _step(self.witness.module), []
        with self.witness.scope():
            past: Any = init_cache(self.config, B, total, jnp.dtype(self.witness.dtype))
            for piece in pieces:
                output = step(self.witness.params, {name: jnp.asarray(x) for name, x in piece.items()}, past)
                past = output.past_key_values
                found.append(np.asarray(output.logits))
        return np.concatenate(found, axis=1)

    def generate(self, inputs: Inputs, tokens: int, **how: Any) -> np.ndarray:
        """Write tokens, which nothing ends."""
        with self.witness.scope():
            return np.asarray(self.model.generate(**inputs, max_new_tokens=tokens, eos_token_id=-1, **how))

    def weights(self) -> Taps:
        """Read the parameters."""
        from flax.traverse_util import flatten_dict

        arrays = {name: np.asarray(x) for name, x in flatten_dict(self.model.params, sep="/").items()}
        return from_framework(arrays, self.model.config, self.model.head, "flax", any_pooler=True)

    def size(self) -> int:
        """Ask the model."""
        found: int = self.model.num_parameters()
        return found

    def made(self, seed: int) -> FlaxUser:
        """Make one from the configuration."""
        return self._of(type(self.model).from_config(self.model.config, seed))

    def extended(self, length: int, method: str) -> FlaxUser:
        """Extend the model."""
        return self._of(self.model.extend_positions(length, method))

    def reloaded(self, folder: Path) -> FlaxWitness:
        """Save and load."""
        self.model.save_pretrained(folder)
        return self._of(type(self.model).from_pretrained(folder, dtype=self.model.dtype)).witness

    def _of(self, model: Any) -> FlaxUser:
        """The user of another model, in this one's type and on its device."""
        return FlaxUser(FlaxWitness(model, Setting(self.witness.dtype), self.witness.device))

    def _run(self, function: Callable[[Any], Any]) -> Any:
        import jax

        if self.config.num_hidden_layers <= _DEEP:
            function = jax.jit(function, compiler_options=quickly(self.config))
        return function(self.witness.params)


def _step(module: Any) -> Any:
    """A call on a cache, which is compiled once for each number of new tokens."""
    import jax

    def run(params: Any, arrays: Any, past: Any) -> Any:
        return module.apply({"params": params}, **arrays, past_key_values=past)

    return jax.jit(run, compiler_options=quickly(module.config))


def user_of(witness: FlaxWitness) -> FlaxUser:
    """Return the user of a witness's model."""
    return FlaxUser(witness)
