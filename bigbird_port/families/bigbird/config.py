"""The model configuration, read from and written to transformers' and the original's JSON files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from bigbird_port.families.assigned import assignable
from bigbird_port.families.bigbird.bounds import LARGEST
from bigbird_port.families.fields import (
    PATTERN_LENGTH,
    Fields,
    Rule,
    above_zero,
    activation,
    divisible,
    probability,
    sizes,
    token,
)
from bigbird_port.files.frozen import FrozenDict
from bigbird_port.files.json_object import read_json_object


@assignable
@dataclass(frozen=True, kw_only=True)
class BigBirdConfig(Fields):
    """Everything that fixes the model's function, under transformers' names and defaults.

    Fields that transformers does not have:

    * max_encoder_length: the length (tokens) whose attention pattern is used, whatever the batch's
      length, as in the original; None takes the padded length of the batch.
    * random_blocks: "original" for the original's seeded plan, "transformers" for the all-zero blocks
      and the switch to full attention of transformers' evaluation mode, "resample" for the original's plan
      in evaluation and fresh draws by the same rules in each training step.
    * norm_type: "postnorm", or "prenorm", where LayerNorm comes before each sublayer and after the last layer.
    * classifier_style: "original" is dropout and one dense layer on the pooled output,
      "transformers" the two-layer head on the first token.

    Fields that change no number, and are kept:

    * id2label, label2id: names of the classes, by transformers' rules. Where none are given they are LABEL_0, ...;
      where num_labels is left alone it follows id2label.
    * is_encoder_decoder, output_hidden_states, output_attentions, return_dict: as transformers has them.
    * extra: whatever else a config.json holds, JSON values by name. Each is an attribute of the configuration, too.

    Raises ValueError naming field, value and rule.
    """

    model_type: ClassVar[str] = "big_bird"
    label_count: ClassVar[int] = 2
    largest: ClassVar[Mapping[str, int]] = LARGEST
    unwritten: ClassVar[Mapping[str, Any]] = {
        "is_encoder_decoder": False,
        "output_hidden_states": False,
        "output_attentions": False,
        "return_dict": True,
        "norm_type": "postnorm",
    }
    # The original's flags whose names differ; the others carry the name of the field.
    flag_names: ClassVar[Mapping[str, str]] = {
        "num_rand_blocks": "num_random_blocks",
        "rescale_embedding": "rescale_embeddings",
        "max_encoder_length": "max_encoder_length",
    }
    other_flags: ClassVar[frozenset[str]] = frozenset({"max_decoder_length"})

    vocab_size: int = 50358
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu_new"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 4096
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    is_decoder: bool = False
    add_cross_attention: bool = False
    use_cache: bool = True
    pad_token_id: int = 0
    bos_token_id: int = 1
    eos_token_id: int = 2
    sep_token_id: int = 66
    attention_type: Literal["block_sparse", "original_full"] = "block_sparse"
    use_bias: bool = True
    rescale_embeddings: bool = False
    block_size: int = 64
    num_random_blocks: int = 3
    classifier_dropout: float | None = None
    num_labels: int = 2
    problem_type: Literal["regression", "single_label_classification", "multi_label_classification"] | None = None
    max_encoder_length: int | None = None
    random_blocks: Literal["original", "transformers", "resample"] = "original"
    norm_type: Literal["postnorm", "prenorm"] = "postnorm"
    classifier_style: Literal["original", "transformers"] = "transformers"
    is_encoder_decoder: bool = False
    output_hidden_states: bool = False
    output_attentions: bool = False
    return_dict: bool = True
    id2label: Mapping[int, Any] = FrozenDict()
    label2id: Mapping[str, Any] = FrozenDict()
    extra: Mapping[str, Any] = FrozenDict()

    @property
    def head_dim(self) -> int:
        """Size of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def beyond_transformers(self) -> tuple[str, ...]:
        """transformers' class has LayerNorm behind each sublayer."""
        return ("prenorm",) * (self.norm_type == "prenorm")

    @classmethod
    def _from_transformers(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        position_type = values.get("position_embedding_type", "absolute")
        if position_type != "absolute":
            raise ValueError(f"config: position_embedding_type is {position_type!r}, but it must be 'absolute'")
        return super()._from_transformers(values)

    rules: ClassVar[tuple[Rule, ...]] = (
        *sizes(LARGEST),
        divisible("hidden_size", "num_attention_heads"),
        activation("hidden_act"),
        probability("hidden_dropout_prob"),
        probability("attention_probs_dropout_prob"),
        probability("classifier_dropout"),
        above_zero("initializer_range"),
        above_zero("layer_norm_eps"),
        token("pad_token_id"),
        (
            "norm_type",
            "'postnorm' where add_cross_attention is set, because the original's prenorm encoder has none",
            lambda c: c.norm_type == "postnorm" or not c.add_cross_attention,
        ),
        ("add_cross_attention", "False unless is_decoder is set", lambda c: c.is_decoder or not c.add_cross_attention),
        *PATTERN_LENGTH,
    )


def read_config(path: Path) -> BigBirdConfig:
    """Read a configuration file of either kind; raises ValueError naming the file."""
    return config_from(read_json_object(path), str(path))


def config_from(values: Mapping[str, Any], origin: str) -> BigBirdConfig:
    """Build a configuration from JSON values; errors name ``origin``."""
    try:
        return BigBirdConfig.from_dict(values)
    except ValueError as error:
        raise ValueError(f"{origin}: {error}") from None
