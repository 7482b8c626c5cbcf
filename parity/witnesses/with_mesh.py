"""The Flax twin on a mesh of devices as a witness: the same modules and programs, parameters and inputs in pieces.

Legend: B batch, L length, D hidden.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from parity.given.inputs import Inputs
from parity.witnesses.devices import jax_devices
from parity.witnesses.with_flax import FlaxWitness, load_model
from parity.witnesses.witness import Setting, Source


class ShardedWitness(FlaxWitness):
    """A model of models_flax whose parameters stand in pieces on a mesh."""

    name = "sharded"

    def __init__(self, model: Any, setting: Setting, mesh: Any) -> None:
        """Digest the loaded parameters, then spread them."""
        from models_flax.sharding import shard_params

        self.mesh, self.multiple = mesh, mesh.shape["data"]
        super().__init__(model, setting, mesh.devices.flat[0])
        self.params = shard_params(self.params, self.config, self.head, mesh)

    def _call(self, inputs: Inputs) -> Any:
        """Compiled as a whole, which is how XLA partitions."""
        import jax

        from models_flax.sharding import shard_inputs

        run = jax.jit(lambda params, arrays: self.model(**arrays, params=params))
        return run(self.params, shard_inputs(inputs, self.mesh))

    def _split_inputs(self, inputs: Inputs) -> tuple[dict[str, Any], dict[str, Any]]:
        from models_flax.sharding import shard_inputs

        arrays, beside = super()._split_inputs(inputs)
        return shard_inputs(arrays, self.mesh), beside

    def scope(self) -> ExitStack:
        """Flax's, under the mesh."""
        import jax

        stack = super().scope()
        stack.enter_context(jax.set_mesh(self.mesh))
        return stack


def load(source: Source, setting: Setting) -> ShardedWitness:
    """Load the Flax model of a head onto the setting's mesh; raises ValueError as from_pretrained and make_mesh."""
    from models_flax.sharding import make_mesh

    devices = jax_devices(setting.device)
    mesh = make_mesh(**dict(setting.mesh), devices=devices)
    return ShardedWitness(load_model(source, setting, devices[0]), setting, mesh)
