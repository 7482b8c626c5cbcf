"""Run by test_flax_sharding.py in a process with eight host devices: python -m tests.models.mesh_cases CASE."""

from __future__ import annotations

import re
import sys

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jax.sharding import NamedSharding

from bigbird_port.devices.communication import Transfer, sequence_transfers, tensor_transfers
from bigbird_port.devices.exchange import make_exchange
from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.sparse.pattern import layer_pattern
from models_flax.attention.block_sparse import block_sparse_attention
from models_flax.bigbird.encoder import encoder_lists
from models_flax.bigbird.layer import BigBirdLayer
from models_flax.sharding import make_mesh, partition_specs, shard_inputs, shard_params
from tests.models.flax_cases import assert_trees_close, model_of, scores_of

CONFIG = BigBirdConfig(
    vocab_size=70,
    hidden_size=16,
    num_attention_heads=4,
    num_hidden_layers=2,
    intermediate_size=24,
    max_position_embeddings=800,
    block_size=16,
    num_random_blocks=2,
    initializer_range=0.3,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
MESHES = [(2, 2, 2), (1, 1, 8), (1, 4, 1)]


def texts(length: int, batch: int = 2) -> dict[str, np.ndarray]:
    ids = np.random.default_rng(length).integers(1, 64, (batch, length)).astype(np.int32)
    ids[-1, length * 3 // 4 :] = 0
    ids[:, 7] = 66
    return {"input_ids": ids}


def step_of(model):
    """Scores, every layer's hidden states and the gradient of something that all of them have a part in."""

    def loss(params, arrays):
        output = model(**arrays, params=params, output_hidden_states=True)
        scores = scores_of(output)
        weighed = sum((jnp.sin(jnp.where(x < -1e4, 0, x)) ** 2).mean() for x in scores.values())
        return weighed, (scores, output.hidden_states)

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


def equal_to_one_device(head: str, lengths: list[int], meshes: list, **overrides) -> None:
    model = model_of(head, CONFIG.replace(sep_token_id=66, **overrides), seed=1)
    for length in lengths:
        inputs = texts(length)
        expected = step_of(model)(model.params, inputs)
        for sizes in meshes:
            mesh = make_mesh(*sizes)
            with jax.set_mesh(mesh):
                params = shard_params(model.params, model.config, head, mesh)
                found = step_of(model)(params, shard_inputs(inputs, mesh))
            assert_trees_close(found, expected, 1e-5)
            query = params["bert"]["encoder"]["layer"]["0"]["attention"]["self"]["query"]["kernel"]
            assert query.addressable_shards[0].data.shape == (16, 16 // sizes[1])
        assert_trees_close(step_of(model)(model.params, inputs), expected, 0)  # nothing of a mesh stays behind


def models() -> None:
    """768 is 48 blocks of 16; 531 pads to whole blocks and to whole devices, and is short for its pattern."""
    equal_to_one_device("pretraining", [768, 531], MESHES, max_encoder_length=768)
    equal_to_one_device("qa", [300], MESHES[:1])  # full attention
    equal_to_one_device("causal-lm", [64], MESHES[:1])


def refused() -> None:
    model = model_of("masked-lm", CONFIG.replace(random_blocks="resample"))
    with pytest.raises(ValueError, match="wants 16 devices, found 8"):
        make_mesh(4, 2, 2)
    mesh = make_mesh(2, 2, 2)
    with pytest.raises(ValueError, match="input_ids holds 3 texts, which data=2 does not divide"):
        shard_inputs(texts(600, 3), mesh)
    with pytest.raises(ValueError, match="num_attention_heads is 4, which model=8 does not divide"):
        shard_params(model.params, model.config, "masked-lm", make_mesh(1, 8, 1))
    with jax.set_mesh(mesh), pytest.raises(ValueError, match="draws new random blocks in every step. On a mesh"):
        model(**texts(600), train=True, indices_rng=jax.random.key(0))


def padded_batch() -> None:
    """Attention pads texts to whole devices, so that one text runs as well; with attentions, and op by op."""
    model = model_of("base", CONFIG.replace(num_hidden_layers=1), seed=1)
    inputs = texts(560, 1)

    def run(inputs):
        output = model(**inputs, output_attentions=True)
        return output.last_hidden_state, output.attentions

    expected = jax.jit(run)(inputs)
    with jax.set_mesh(make_mesh(2, 2, 2)):
        assert_trees_close(jax.jit(run)(inputs), expected, 1e-5)
        assert_trees_close(model(**inputs).last_hidden_state, expected[0], 1e-5)


BYTES = {"f32": 4, "s32": 4, "bf16": 2, "pred": 1, "s8": 1}


def payloads(program: str, collective: str) -> int:
    """Bytes that all calls of a collective in a compiled program are given."""
    total = 0
    for result in re.findall(rf"= (.*?) {collective}(?:-start)?\(", program):
        for kind, shape in re.findall(r"(\w+)\[([\d,]*)\]", result):
            total += BYTES[kind] * int(np.prod([int(x) for x in shape.split(",") if x]))
    return total


def program_of(function, mesh, *arrays: tuple[tuple[int, ...], jax.P]) -> str:
    """The compiled program of a function of float32 arrays, given by shape and place."""
    shapes = [jax.ShapeDtypeStruct(x, jnp.float32, sharding=NamedSharding(mesh, place)) for x, place in arrays]
    return jax.jit(function).lower(*shapes).compile().as_text()


def check_payloads(program: str, counted: list[Transfer], gradient: bool) -> None:
    for kind, name in (("permute", "collective-permute"), ("all-reduce", "all-reduce")):
        expected = sum(x.payload * (1 + (gradient and x.again)) for x in counted if x.kind == kind)
        assert payloads(program, name) == expected, name
        assert expected
    for name in ("all-to-all", "all-gather", "reduce-scatter", "collective-broadcast"):
        assert not payloads(program, name)


def volume() -> None:
    """The bytes that communication.py counts are those of the compiled programs' collectives; base size, 4096 tokens.

    Of a layer on a mesh with all axes, and of the gradient of attention (the layer's sums up weights besides).
    """
    config, length = BigBirdConfig(), 4096
    mask = jnp.ones((2, length), bool)
    pattern = layer_pattern(config, 0, length)

    mesh = make_mesh(2, 2, 2)
    with jax.set_mesh(mesh):
        lists = encoder_lists(config, 0, length)
        layer = BigBirdLayer(config)
        shapes = jax.eval_shape(lambda: layer.init(jax.random.key(0), jnp.zeros((2, length, 768)), mask, None))
        specs = partition_specs(config, "base", mesh.shape)["encoder"]["layer"]["0"]
        leaves, tree = jax.tree.flatten(shapes["params"])
        arrays = [(x.shape, spec) for x, spec in zip(leaves, jax.tree.leaves(specs), strict=True)]

        def run(x, *leaves):
            return layer.apply({"params": tree.unflatten(leaves)}, x, mask, lists)[0]

        program = program_of(run, mesh, ((2, length, 768), jax.P("data", "sequence")), *arrays)
    exchange = make_exchange(pattern, 64, 2)
    check_payloads(
        program, sequence_transfers(config, exchange, model=2) + tensor_transfers(config, length // 2, 2), False
    )

    mesh = make_mesh(1, 2, 4)
    with jax.set_mesh(mesh):
        lists = encoder_lists(config, 0, length)

        def loss(q, k, v):
            return (block_sparse_attention(q, k, v, mask[:1], lists, 64) ** 2).sum()

        x = (1, 12, length, 64), jax.P("data", "model", "sequence")
        program = program_of(jax.grad(loss, argnums=(0, 1, 2)), mesh, x, x, x)
    check_payloads(program, sequence_transfers(config, make_exchange(pattern, 64, 4), model=2), True)


if __name__ == "__main__":
    assert len(jax.devices()) == 8
    jax.config.update("jax_default_matmul_precision", "highest")
    globals()[sys.argv[1]]()
