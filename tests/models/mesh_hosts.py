"""Run by test_flax_sharding.py in two processes: python -m tests.models.mesh_hosts PORT RANK; four devices in each."""

from __future__ import annotations

import sys

import jax
import numpy as np

from models_flax.sharding import make_mesh, shard_inputs, shard_params
from tests.models.flax_cases import model_of
from tests.models.mesh_cases import CONFIG, texts


def main(port: str, rank: str) -> None:
    """The sequence axis is twice as long as a process has devices."""
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, int(rank))
    assert len(jax.local_devices()) == 4
    model = model_of("masked-lm", CONFIG.replace(num_hidden_layers=1), seed=1)
    inputs = texts(600, 1)
    score = jax.jit(lambda params, inputs: model(**inputs, params=params).logits)
    expected = score(model.params, inputs)
    mesh = make_mesh(sequence=8)
    with jax.set_mesh(mesh):
        params = shard_params(model.params, model.config, model.head, mesh)
        found = jax.jit(score, out_shardings=jax.P())(params, shard_inputs(inputs, mesh))
    assert found.is_fully_replicated
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=0, atol=1e-5)


if __name__ == "__main__":
    jax.config.update("jax_default_matmul_precision", "highest")
    main(*sys.argv[1:])
