"""BigBird-Pegasus as a value."""

from __future__ import annotations

from bigbird_port.families.family import Family
from bigbird_port.families.pegasus.config import BigBirdPegasusConfig
from bigbird_port.families.pegasus.flags import flags_json, scope
from bigbird_port.families.pegasus.heads import HEADS
from bigbird_port.families.pegasus.inferred import infer
from bigbird_port.families.pegasus.schema import AXES, ROWS
from bigbird_port.families.pegasus.styles import PREFIX, STYLES
from bigbird_port.families.pegasus.taps import STAGES, WHOLE

PEGASUS = Family(
    name="pegasus",
    title="BigBird-Pegasus",
    model_type=BigBirdPegasusConfig.model_type,
    config=BigBirdPegasusConfig,
    infer=infer,
    flags=flags_json,
    flags_file="summarization.config",
    shown=(
        *("vocab_size", "d_model", "encoder_layers", "decoder_layers", "encoder_attention_heads", "encoder_ffn_dim"),
        *("max_position_embeddings", "attention_type", "block_size", "num_random_blocks", "max_encoder_length"),
        *("max_decoder_length", "activation_function", "use_bias", "norm_type", "couple_encoder_decoder"),
    ),
    judged=True,
    told=("norm_type", "couple_encoder_decoder", "encoder_layers", "decoder_layers"),
    untold=("activation_function", "scale_embedding", "block_size", "num_random_blocks", "max_encoder_length"),
    heads=HEADS,
    base="base",
    bare="conditional-generation",
    prefix=PREFIX,
    packages={"torch": "models_torch", "flax": "models_flax"},
    rows=ROWS,
    axes=AXES,
    styles=STYLES,
    anchor="embeddings.word_embeddings.embedding",
    positions="embeddings.position_embeddings.embedding",
    scope=scope,
    part="",
    tokenizer="BigBirdPegasusTokenizer",
    buffers=(),
    stages=STAGES,
    whole=WHOLE,
    hidden="last_hidden_state",
    inputs=("input_ids", "attention_mask", "decoder_input_ids"),
)
