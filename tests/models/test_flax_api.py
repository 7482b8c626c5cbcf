"""The Flax classes' promises: construction, call, transformations, half precision, files, bad input."""

import logging
import subprocess
import sys

import jax
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict
from jax import numpy as jnp

from bigbird_port.families.bigbird.heads import HEADS
from bigbird_port.models.folder import write_model_folder
from bigbird_port.schema.initialise import initial_value
from bigbird_port.schema.table import weights_of
from models_flax.bigbird.model import FlaxBigBirdModule
from tests.models.flax_cases import (
    CROSS,
    DECODER,
    LENGTH,
    ONE,
    SPARSE,
    TINY,
    assert_trees_close,
    make_ids,
    make_inputs,
    model_of,
    scores_of,
)

BY_HEAD = pytest.mark.parametrize("head", HEADS)
LIMIT = 1e-5


@BY_HEAD
def test_construction_initialises_from_the_seed(head):
    model = model_of(head, seed=5)
    assert_trees_close(model.params, type(model).from_config(TINY, seed=5).params, 0)
    assert len(model.initialised) == len(flatten_dict(model.params))
    other = model_of(head, seed=6).params["bert" if "bert" in model.params else "encoder"]
    same = model.params["bert" if "bert" in model.params else "encoder"]
    assert any((x != y).any() for x, y in zip(jax.tree.leaves(same), jax.tree.leaves(other), strict=True))


def test_without_initial_weights_the_call_needs_params():
    model = model_of("base", _do_init=False)
    assert model.params == {}
    with pytest.raises(ValueError, match="FlaxBigBirdModel was built with _do_init=False .* give params="):
        model(make_ids((1, 5)))
    params = model_of("base", seed=1).params
    assert model(make_ids((1, 5)), params=params).last_hidden_state.shape == (1, 5, 16)


def test_an_input_shape_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="257 tokens long, but there are 256 position"):
        model_of("base", input_shape=(1, 257))
    assert_trees_close(model_of("base", input_shape=(3, 40)).params, model_of("base").params, 0)


@BY_HEAD
@pytest.mark.quick("qa", "sequence-classification")
def test_jit_vmap_and_the_tuple_give_what_the_call_gives(head):
    # with skip_padding, what padded positions hold is another matter where the mask is not known
    model, inputs = model_of(head, ONE, seed=1, skip_padding=False), make_inputs(head)
    expected = scores_of(model(**inputs))
    jitted = jax.jit(lambda params, arrays: model(**arrays, params=params))(model.params, inputs)
    assert_trees_close(scores_of(jitted), expected, LIMIT)

    def one(arrays):
        return scores_of(model(**{name: x[None] for name, x in arrays.items()}))

    mapped = jax.vmap(one)(inputs)
    assert_trees_close(jax.tree.map(lambda x: x[:, 0], mapped), expected, LIMIT)
    values = model(**inputs, return_dict=False)
    assert isinstance(values, tuple)
    assert_trees_close(list(values), list(expected.values()), 0)


def test_outputs_are_reached_by_position_and_name():
    output = model_of("masked-lm")(make_ids((1, 8)), output_hidden_states=True)
    assert (output[0] == output.logits).all()
    assert (output["logits"] == output.logits).all()
    assert output[:2][1] is output.hidden_states
    with pytest.raises(KeyError):
        output["attentions"]


def test_the_module_composes_into_another():
    class Sum(nn.Module):
        @nn.compact
        def __call__(self, input_ids):
            return FlaxBigBirdModule(ONE, name="bert")(input_ids).last_hidden_state.sum(-1)

    model, ids = model_of("base", ONE, seed=1), make_ids((1, LENGTH))
    found = Sum().apply({"params": {"bert": model.params}}, ids)
    np.testing.assert_allclose(found, model(ids).last_hidden_state.sum(-1), rtol=0, atol=LIMIT)


def test_gradient_checkpointing_changes_no_gradient():
    inputs, gradients = make_inputs("base"), []
    for checkpointing in (False, True):
        model = model_of("base", seed=1, gradient_checkpointing=checkpointing)

        def loss(params, model=model):
            return jnp.sin(model(**inputs, params=params).last_hidden_state).mean()

        gradients.append(jax.jit(jax.grad(loss))(model.params))
    assert_trees_close(*gradients, LIMIT)
    assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(gradients[0])) > 1e-3


@BY_HEAD
def test_every_head_checkpoints_its_layers(head):
    inputs = make_inputs(head)
    for checkpointing in (False, True):
        model = model_of(head, gradient_checkpointing=checkpointing)
        jaxpr = jax.make_jaxpr(lambda params, model=model: scores_of(model(**inputs, params=params)))(model.params)
        # those of the attention are further inside
        outermost = [equation.primitive.name for equation in jaxpr.eqns]
        assert sum(name in ("remat2", "checkpoint") for name in outermost) == (2 if checkpointing else 0)


def test_a_checkpointed_gradient_is_that_of_its_own_dropout():
    """Were the dropout drawn anew in the second pass, the derivative would not be that of the loss."""
    config = TINY.replace(hidden_dropout_prob=0.3, num_hidden_layers=1)
    model, ids, key = model_of("base", config, seed=1, gradient_checkpointing=True), make_ids((1, LENGTH)), 0

    def loss(shift):
        params = jax.tree.map(lambda x: x + shift, model.params)
        output = model(ids, params=params, train=True, dropout_rng=jax.random.key(key))
        return jnp.sin(output.last_hidden_state).sum()

    found, step = jax.jit(jax.grad(loss))(0.0), 1e-3
    jitted = jax.jit(loss)
    expected = (jitted(step) - jitted(-step)) / (2 * step)
    np.testing.assert_allclose(found, expected, rtol=0.02, atol=0.2)
    assert abs(found) > 5


@pytest.mark.parametrize(("dtype", "limit"), [(jnp.bfloat16, 0.15), (jnp.float16, 0.02)], ids=["bfloat16", "float16"])
@BY_HEAD
@pytest.mark.quick("pretraining-bfloat16", "qa-float16")
def test_half_precision_computes_in_it_and_keeps_float32_parameters(head, dtype, limit):
    """The error is a few roundings (2**-8 and 2**-11) of scores whose size is about 3."""
    inputs, outputs = make_inputs(head), []
    for options in ({}, {"dtype": dtype}):
        model = model_of(head, ONE, seed=1, **options)
        outputs.append(jax.jit(lambda params, model=model: scores_of(model(**inputs, params=params)))(model.params))
    exact, found = outputs
    assert {leaf.dtype for leaf in jax.tree.leaves(model.params)} == {jnp.dtype("float32")}
    for name, x in found.items():
        assert x.dtype == (jnp.float32 if head == "qa" else dtype)  # as in torch: some of its scores are 1e6 lower
        difference = np.abs(np.asarray(x, np.float32) - np.asarray(exact[name]))[np.asarray(exact[name]) > -1e4]
        assert 0 < difference.max() < limit, name
        assert np.isfinite(np.asarray(x, np.float32)).all()


def test_half_precision_softmax_and_layer_norm_sum_in_float32():
    """4,000 equal keys: summed in bfloat16, 1 + 1 + ... stops at 256 and the probabilities are far from 1."""
    from models_flax.attention.plain import attend

    q, k = jnp.zeros((1, 8), jnp.bfloat16), jnp.zeros((4000, 8), jnp.bfloat16)
    context = attend(q, k, jnp.ones((4000, 8), jnp.bfloat16), jnp.zeros((1, 4000)))
    assert context.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(context, np.float32), 1)
    model = model_of("base", TINY, dtype=jnp.bfloat16)
    x = jnp.asarray(1000 + np.random.default_rng(0).standard_normal((1, 4, 16)) * 8, jnp.bfloat16)
    norm = model.module.bind({"params": model.params}).embeddings.LayerNorm(x)
    assert norm.dtype == jnp.bfloat16
    exact = np.asarray(x, np.float64)
    exact = (exact - exact.mean(-1, keepdims=True)) / exact.std(-1, keepdims=True)
    np.testing.assert_allclose(np.asarray(norm, np.float64), exact, rtol=0, atol=0.02)


def test_parameters_are_cast_and_back():
    model = model_of("base")
    for cast, dtype in ((model.to_bf16, "bfloat16"), (model.to_fp16, "float16")):
        half = cast(model.params)
        assert {leaf.dtype.name for leaf in jax.tree.leaves(half)} == {dtype}
        assert {leaf.dtype.name for leaf in jax.tree.leaves(model.to_fp32(half))} == {"float32"}
        assert model(make_ids((1, 8)), params=half).last_hidden_state.dtype == jnp.float32
    assert {leaf.dtype.name for leaf in jax.tree.leaves(model.params)} == {"float32"}
    only_kernels = jax.tree.map(lambda x: x.ndim == 2, model.params)
    mixed = model.to_bf16(model.params, only_kernels)
    assert mixed["pooler"]["kernel"].dtype == jnp.bfloat16
    assert mixed["pooler"]["bias"].dtype == jnp.float32


@pytest.mark.parametrize("safe", [False, True], ids=["msgpack", "safetensors"])
@BY_HEAD
def test_saved_models_load_again(head, safe, tmp_path):
    config = (CROSS if head in ("base", "masked-lm", "causal-lm") else TINY).replace(use_bias=False)
    model = model_of(head, config, seed=2)
    model.save_pretrained(tmp_path / "a" / "b", safe_serialization=safe)
    files = sorted(path.name for path in (tmp_path / "a" / "b").iterdir())
    assert files == ["config.json", "model.safetensors" if safe else "flax_model.msgpack"]
    again = type(model).from_pretrained(tmp_path / "a" / "b")
    assert again.config == model.config
    assert_trees_close(again.params, model.params, 0)


def test_given_parameters_are_saved_and_checked(tmp_path):
    model = model_of("base")
    doubled = jax.tree.map(lambda x: 2 * x, model.params)
    model.save_pretrained(tmp_path, params=doubled)
    assert_trees_close(type(model).from_pretrained(tmp_path).params, doubled, 0)
    with pytest.raises(ValueError, match="missing: pooler/kernel"):
        model.save_pretrained(tmp_path, params={k: v for k, v in model.params.items() if k != "pooler"})
    half = model.to_bf16(model.params)
    model.save_pretrained(tmp_path, params=half)
    assert_trees_close(type(model).from_pretrained(tmp_path).params, half, 0)


def test_another_file_of_the_same_name_is_named(tmp_path):
    model = model_of("base", seed=2)
    weights = {row.name: initial_value(row, TINY, 2) for row in weights_of(TINY, "base", "torch")}
    write_model_folder(tmp_path, weights, TINY, "base", "torch")
    with pytest.raises(ValueError, match=r"model\.safetensors: its metadata says format 'pt', expected 'flax'"):
        type(model).from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        type(model).from_pretrained(tmp_path)


def test_saving_again_in_the_other_format_replaces_the_model(tmp_path):
    for seed, safe in ((1, False), (2, True), (3, False)):
        model = model_of("base", seed=seed)
        model.save_pretrained(tmp_path, safe_serialization=safe)
        assert_trees_close(type(model).from_pretrained(tmp_path).params, model.params, 0)


def test_resampling_draws_new_blocks_in_training_only():
    config = SPARSE.replace(random_blocks="resample", max_position_embeddings=2048, block_size=16)
    model, ids = model_of("base", config, seed=1), make_ids((1, 640))
    original = model_of("base", config.replace(random_blocks="original"), seed=1)(ids).last_hidden_state
    np.testing.assert_array_equal(model(ids).last_hidden_state, original)

    @jax.jit
    def train(key):
        def loss(params):
            output = model(ids, params=params, train=True, indices_rng=key).last_hidden_state
            return jnp.sin(output).mean(), output

        return jax.grad(loss, has_aux=True)(model.params)

    (gradient, first), (_, again), (_, other) = (train(jax.random.key(i)) for i in (0, 0, 1))
    eager = model(ids, train=True, indices_rng=jax.random.key(0)).last_hidden_state
    np.testing.assert_allclose(first, eager, rtol=0, atol=LIMIT)
    np.testing.assert_array_equal(first, again)
    for x, y in ((first, other), (first, original)):
        assert np.abs(np.asarray(x - y)).max() > 0.01
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    mapped = jax.vmap(lambda key: model(ids, train=True, indices_rng=key).last_hidden_state)(
        jnp.stack([jax.random.key(0), jax.random.key(1)])
    )
    assert_trees_close(list(mapped), [first, other], LIMIT)


def test_training_without_its_generators_is_refused():
    model = model_of("base", SPARSE.replace(random_blocks="resample"))
    with pytest.raises(ValueError, match="no generator was given: pass indices_rng="):
        model(make_ids((1, 768)), train=True)
    with pytest.raises(ValueError, match="pass dropout_rng="):
        model_of("base", TINY.replace(hidden_dropout_prob=0.1))(make_ids((1, 8)), train=True)


def test_a_decoder_says_once_that_it_attends_fully():
    from models_flax.bigbird.encoder import _say_full_attention

    _say_full_attention.cache_clear()
    config = DECODER.replace(attention_type="block_sparse", max_position_embeddings=1024)
    model = model_of("base", config, seed=1)
    with pytest.warns(UserWarning, match="full attention runs instead") as caught:
        model(make_ids((1, 600)))
    found = model(make_ids((1, 600))).last_hidden_state  # another warning would be an error
    assert len(caught) == 1
    full = model_of("base", config.replace(attention_type="original_full"), seed=1)
    np.testing.assert_array_equal(found, full(make_ids((1, 600))).last_hidden_state)


def ones(*shape):
    return np.ones(shape, np.int32)


STATES = np.ones((2, 3, 16), np.float32)


@pytest.mark.parametrize(
    ("head", "config", "ids", "arguments", "message"),
    [
        ("base", TINY, np.array([[1, 70]]), {}, r"input_ids at \[0, 1\] is 70, expected 0 \.\. 69"),
        ("base", TINY, np.array([[1, 2], [-1, 3]]), {}, r"input_ids at \[1, 0\] is -1"),
        ("base", TINY, np.ones((1, 5)), {}, "input_ids has dtype float"),
        ("base", TINY, ones(0, 5), {}, r"input_ids has shape \[0, 5\]"),
        ("base", TINY, ones(1, 0), {}, r"input_ids has shape \[1, 0\]"),
        ("base", TINY, ones(1, 300), {}, "300 tokens long, but there are 256 position embeddings"),
        ("base", TINY, ones(2, 5), {"token_type_ids": 2 * ones(2, 5)}, r"token_type_ids at \[0, 0\] is 2, expected 0"),
        ("base", TINY, ones(2, 5), {"position_ids": 256 * ones(2, 5)}, "position_ids at .* is 256"),
        ("base", TINY, ones(2, 5), {"position_ids": ones(3, 5)}, r"position_ids has shape \[3, 5\]"),
        ("base", TINY, ones(2, 5), {"attention_mask": ones(2, 6)}, r"attention_mask has shape \[2, 6\], expected"),
        ("base", TINY, ones(2, 36), {"attention_mask": ones(2, 36, 36)}, "works with full attention only"),
        ("base", TINY, ones(2, 5), {"head_mask": ones(3)}, r"head_mask has shape \[3\], expected \[2\] or \[2, 2\]"),
        ("base", TINY, ones(2, 5), {"encoder_hidden_states": STATES}, "has no cross-attention: set is_decoder"),
        ("base", CROSS, ones(1, 5), {"encoder_hidden_states": STATES}, r"encoder_hidden_states has shape \[2, 3, 16\]"),
        ("base", CROSS, ones(2, 5), {"encoder_attention_mask": ones(2, 3)}, "without encoder_hidden_states"),
        (
            "base",
            CROSS,
            ones(2, 5),
            {"encoder_hidden_states": STATES, "encoder_attention_mask": ones(2, 4)},
            r"encoder_attention_mask has shape \[2, 4\]",
        ),
        ("token-classification", TINY, ones(2, 5), {"encoder_hidden_states": STATES}, "TokenClassification takes none"),
        ("multiple-choice", TINY, ones(2, 5), {}, r"expected \[batch, choices, length\]"),
        ("multiple-choice", TINY, np.full((1, 2, 3), 99), {}, "input_ids at .* is 99"),
        ("qa", TINY, ones(2, 5), {"question_lengths": ones(3)}, r"question_lengths has shape \[3\]"),
        ("qa", TINY, ones(5), {}, r"input_ids has shape \[5\]"),
    ],
)
def test_bad_input_is_named(head, config, ids, arguments, message):
    with pytest.raises(ValueError, match=message):
        model_of(head, config)(ids, **arguments)


PARALLEL = """
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from tests.models.flax_cases import LENGTH, FULL, TINY, make_inputs, model_of
assert len(jax.devices()) == 4
for config in (TINY, FULL):
    model = model_of("masked-lm", config, seed=1)
    inputs = make_inputs("masked-lm", batch=4)
    def loss(params, arrays):
        logits = model(**arrays, params=params).logits
        return (jax.numpy.sin(logits) ** 2).mean(), logits
    step = jax.value_and_grad(loss, has_aux=True)
    expected = jax.jit(step)(model.params, inputs)
    for shape in ((4, 1), (2, 2)):
        mesh = Mesh(np.array(jax.devices()).reshape(shape), ("data", "tensor"))
        sharded = jax.tree.map(lambda spec: NamedSharding(mesh, spec), model.partition_specs())
        params = jax.device_put(model.params, sharded)
        kernel = params["bert"]["encoder"]["layer"]["0"]["intermediate"]["dense"]["kernel"]
        assert kernel.addressable_shards[0].data.shape == (16, 24 // shape[1])
        query = params["bert"]["encoder"]["layer"]["0"]["attention"]["self"]["query"]["kernel"]
        assert query.addressable_shards[0].data.shape == (16, 16 // shape[1])
        arrays = jax.device_put(inputs, NamedSharding(mesh, P("data")))
        found = jax.jit(step)(params, arrays)
        for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(x, y, rtol=0, atol=1e-5)
    mesh = Mesh(np.array(jax.devices()), ("data",))
    specs = {"in_specs": (P(), P("data")), "out_specs": P("data"), "check_vma": False}
    whole = jax.shard_map(lambda p, a: model(**a, params=p).logits, mesh=mesh, **specs)
    np.testing.assert_allclose(jax.jit(whole)(model.params, inputs), expected[0][1], rtol=0, atol=1e-5)
print("equal")
"""


@pytest.mark.slow
def test_data_and_tensor_parallel_runs_equal_one_device(monkeypatch):
    """On four forced host devices: the batch over four, or two by heads and intermediate units over two."""
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    done = subprocess.run([sys.executable, "-c", PARALLEL], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "equal"


@pytest.mark.parametrize("safe", [False, True], ids=["msgpack", "safetensors"])
def test_a_model_is_saved_over_the_file_that_it_was_read_from(safe, tmp_path):
    """Some parameters are the file itself, mapped; what is read into memory is not copied again either."""
    model_of("base", seed=4).save_pretrained(tmp_path)
    model = type(model_of("base", _do_init=False)).from_pretrained(tmp_path)
    before = jax.tree.map(np.array, model.params)
    model.save_pretrained(tmp_path, safe_serialization=safe)
    assert_trees_close(model.params, before, 0)
    assert_trees_close(type(model).from_pretrained(tmp_path).params, before, 0)


def test_an_ordinary_call_compiles_the_layers_once_and_not_again():
    """A call without jax.jit: as many programs for six layers as for two, none at the second call."""
    counts = []
    for layers in (2, 6):
        jax.clear_caches()
        model, ids = (
            model_of("base", TINY.replace(num_hidden_layers=layers, intermediate_size=20)),
            make_ids((1, LENGTH)),
        )
        for _ in range(2):
            with jax.log_compiles(), CountCompilations() as count:
                model(ids)
            counts.append(count.programs)
    first, again, first_of_six, again_of_six = counts
    assert again == again_of_six == 0
    assert 0 < first_of_six <= first


class CountCompilations(logging.Handler):
    """Counts the programs that XLA compiles."""

    def __enter__(self):
        self.programs, self.logger = 0, logging.getLogger("jax._src.dispatch")
        self.logger.addHandler(self)
        return self

    def __exit__(self, *_):
        self.logger.removeHandler(self)

    def emit(self, record):
        self.programs += "Finished XLA compilation" in record.getMessage()
