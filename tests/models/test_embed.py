"""In half precision a call casts the rows of the embeddings that it reads, not the tables."""

import jax
import numpy as np
import pytest
from flax import linen as nn
from jax import numpy as jnp

import models_flax
import models_flax.bigbird.embeddings
import models_flax.pegasus.model
from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.families.pegasus.config import BigBirdPegasusConfig
from models_flax.embed import Embed

WORDS = 9173  # a size that nothing else has
BIGBIRD = BigBirdConfig(
    vocab_size=WORDS,
    hidden_size=16,
    num_attention_heads=2,
    num_hidden_layers=1,
    intermediate_size=24,
    max_position_embeddings=40,
)
PEGASUS = BigBirdPegasusConfig(
    vocab_size=WORDS,
    d_model=16,
    encoder_layers=1,
    decoder_layers=1,
    encoder_attention_heads=2,
    decoder_attention_heads=2,
    encoder_ffn_dim=24,
    decoder_ffn_dim=24,
    max_position_embeddings=40,
)
HEADS = {
    # The head of language modelling multiplies by the whole table, and its product wants one type.
    "FlaxBigBirdModel": (BIGBIRD, 0),
    "FlaxBigBirdForMaskedLM": (BIGBIRD, 1),
    "FlaxBigBirdPegasusModel": (PEGASUS, 0),
    "FlaxBigBirdPegasusForConditionalGeneration": (PEGASUS, 1),
}


def tables_cast(name: str, config) -> int:
    """How many casts of a whole table of words there are in a call's program."""
    model = getattr(models_flax, name)(config, dtype=jnp.bfloat16, _do_init=False)
    ids = jax.ShapeDtypeStruct((1, 12), np.int32)
    given = {"decoder_input_ids": ids} if config is PEGASUS else {}
    program = jax.make_jaxpr(lambda params, given: jax.tree.leaves(vars(model(**given, params=params))))
    return len(list(_casts(program(model.param_shapes(), {"input_ids": ids} | given).jaxpr)))


def _casts(jaxpr):
    for equation in jaxpr.eqns:
        if equation.primitive.name == "convert_element_type" and sorted(equation.invars[0].aval.shape) == [16, WORDS]:
            yield equation
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_program):
            if _is_program(value):
                yield from _casts(getattr(value, "jaxpr", value))


def _is_program(value):
    return hasattr(value, "eqns") or hasattr(value, "jaxpr")


@pytest.mark.parametrize("name", HEADS)
def test_no_table_of_words_is_cast_but_for_a_product_with_all_of_it(name):
    config, products = HEADS[name]
    assert tables_cast(name, config) == products


def test_a_table_that_is_cast_whole_is_seen(monkeypatch):
    """The negative control."""
    for room in (models_flax.bigbird.embeddings, models_flax.pegasus.model):
        monkeypatch.setattr(room, "Embed", nn.Embed)
    assert tables_cast("FlaxBigBirdModel", BIGBIRD) == 1
    assert tables_cast("FlaxBigBirdPegasusModel", PEGASUS) == 2


def test_what_is_read_is_the_same_bit_for_bit():
    ids, key = jnp.array([[3, 0, 6]]), jax.random.key(0)
    ours, theirs = (kind(7, 5, dtype=jnp.bfloat16) for kind in (Embed, nn.Embed))
    variables = theirs.init(key, ids)
    found = ours.apply(variables, ids)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(found, np.float32), np.asarray(theirs.apply(variables, ids), np.float32))
    with pytest.raises(ValueError, match="ids are float32: expected integers"):
        ours.apply(variables, jnp.ones(3))
