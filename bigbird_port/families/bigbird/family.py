"""BigBird as a value."""

from __future__ import annotations

from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.families.bigbird.flags import flags_json
from bigbird_port.families.bigbird.heads import HEADS
from bigbird_port.families.bigbird.inferred import infer
from bigbird_port.families.bigbird.schema import AXES, ROWS
from bigbird_port.families.bigbird.styles import PREFIX, STYLES
from bigbird_port.families.bigbird.taps import STAGES, WHOLE
from bigbird_port.families.family import Family

BIGBIRD = Family(
    name="bigbird",
    title="BigBird",
    model_type=BigBirdConfig.model_type,
    config=BigBirdConfig,
    infer=infer,
    flags=flags_json,
    flags_file="bigbird.config",
    shown=(
        *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
        *("max_position_embeddings", "attention_type", "block_size", "num_random_blocks", "max_encoder_length"),
        *("hidden_act", "use_bias"),
    ),
    judged=True,
    told=("norm_type",),
    untold=("hidden_act", "rescale_embeddings", "block_size", "num_random_blocks", "max_encoder_length"),
    heads=HEADS,
    base="base",
    bare="base",
    prefix=PREFIX,
    packages={"torch": "models_torch", "flax": "models_flax"},
    rows=ROWS,
    axes=AXES,
    styles=STYLES,
    anchor="embeddings.word_embeddings.embedding",
    positions="embeddings.position_embeddings.embedding",
    scope=lambda config: "bert",
    part="pooler",
    tokenizer="BigBirdTokenizer",
    buffers=("embeddings.position_ids", "embeddings.token_type_ids"),
    stages=STAGES,
    whole=WHOLE,
    hidden="last_hidden_state",
    inputs=("input_ids", "attention_mask", "token_type_ids", "position_ids", "question_lengths"),
)
