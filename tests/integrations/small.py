"""Small models of both families, their folders, and ids."""

import numpy as np
import torch

from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.families.pegasus.config import BigBirdPegasusConfig
from bigbird_port.families.registry import families

SIZES = {"vocab_size": 500, "max_position_embeddings": 128, "block_size": 8, "num_random_blocks": 2}
CONFIGS = {
    "bigbird": BigBirdConfig(
        **SIZES, hidden_size=16, num_attention_heads=2, num_hidden_layers=2, intermediate_size=24, initializer_range=0.1
    ),
    "pegasus": BigBirdPegasusConfig(
        **SIZES,
        d_model=16,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_layers=2,
        decoder_layers=2,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        init_std=0.1,
        scale_embedding=False,
    ),
}
HEADS = [(family, head) for family in families() for head in family.heads.values()]
NAMED = {head.class_name: (family, head) for family, head in HEADS}


def product(name, seed=3, **changes):
    """The product's model of a class name."""
    family, head = NAMED[name]
    return family.model_class(head.name, "torch").from_config(CONFIGS[family.name].replace(**changes), seed)


def ids(rows=2, length=20, seed=0):
    """Ids, each row with an end."""
    found = np.random.default_rng(seed).integers(20, 300, (rows, length))
    found[:, -1] = CONFIGS["pegasus"].eos_token_id
    return torch.tensor(found)


def inputs(name):
    """What a model is called with."""
    return ids()[None] if NAMED[name][1].inputs == "choices" else ids()
