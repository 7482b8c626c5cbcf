"""The configuration of BigBird-Pegasus, read from and written to transformers' and the original's JSON files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from bigbird_port.families.assigned import assignable
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

# Far above every model that is known: the released ones have 16 layers on each side, and 96 103 words.
LARGEST = {
    "vocab_size": 1 << 24,
    "d_model": 1 << 20,
    "encoder_layers": 1 << 10,
    "decoder_layers": 1 << 10,
    "encoder_attention_heads": 1 << 16,
    "decoder_attention_heads": 1 << 16,
    "encoder_ffn_dim": 1 << 22,
    "decoder_ffn_dim": 1 << 22,
    "max_position_embeddings": 1 << 24,
    "block_size": 1 << 24,
    "num_random_blocks": 1 << 16,
    "num_labels": 1 << 16,  # each has a name
}


@assignable
@dataclass(frozen=True, kw_only=True)
class BigBirdPegasusConfig(Fields):
    """Everything that fixes the model's function, under transformers' names and defaults.

    Fields that transformers does not have:

    * layer_norm_eps: 1e-12 as in the original; transformers' class computes with 1e-5.
    * max_encoder_length: the length (tokens) whose attention pattern is used, whatever the batch's length, as in the
      original; None takes the padded length of the batch.
    * max_decoder_length: how many tokens are written at most; None is 128, or as many as there are positions.
    * random_blocks: "original", "transformers" or "resample", as BigBirdConfig's.
    * norm_type: "prenorm", LayerNorm before each sublayer and after the last layer, or "postnorm".
    * couple_encoder_decoder: the decoder's layers are the encoder's own, and cross-attention is added to them.
    * label_smoothing: of the loss. loss_style: "original" (label smoothing, a numerator that is not masked, decoder
      inputs 0 behind the text), or "transformers" (the mean over labels that are not -100).

    Fields that change no number, and are kept: as BigBirdConfig's.

    Raises ValueError naming field, value and rule.
    """

    model_type: ClassVar[str] = "bigbird_pegasus"
    label_count: ClassVar[int] = 3
    largest: ClassVar[Mapping[str, int]] = LARGEST
    unwritten: ClassVar[Mapping[str, Any]] = {
        "output_hidden_states": False,
        "output_attentions": False,
        "return_dict": True,
    }
    # The original's flags; its max_decoder_length and the like carry the name of the field.
    flag_names: ClassVar[Mapping[str, str]] = {
        "num_rand_blocks": "num_random_blocks",
        "rescale_embedding": "scale_embedding",
        "max_encoder_length": "max_encoder_length",
        "hidden_size": "d_model",
        "num_hidden_layers": "encoder_layers",
        "num_decoder_layers": "decoder_layers",
        "num_attention_heads": "encoder_attention_heads",
        "intermediate_size": "encoder_ffn_dim",
        "hidden_act": "activation_function",
        "hidden_dropout_prob": "dropout",
        "attention_probs_dropout_prob": "attention_dropout",
        "initializer_range": "init_std",
    }
    other_flags: ClassVar[frozenset[str]] = frozenset()

    vocab_size: int = 96103
    max_position_embeddings: int = 4096
    encoder_layers: int = 16
    encoder_ffn_dim: int = 4096
    encoder_attention_heads: int = 16
    decoder_layers: int = 16
    decoder_ffn_dim: int = 4096
    decoder_attention_heads: int = 16
    encoder_layerdrop: float = 0.0
    decoder_layerdrop: float = 0.0
    use_cache: bool = True
    is_encoder_decoder: bool = True
    activation_function: str = "gelu_new"
    d_model: int = 1024
    dropout: float = 0.1
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    init_std: float = 0.02
    decoder_start_token_id: int = 2
    classifier_dropout: float = 0.0
    scale_embedding: bool = True
    pad_token_id: int = 0
    bos_token_id: int = 2
    eos_token_id: int = 1
    attention_type: Literal["block_sparse", "original_full"] = "block_sparse"
    block_size: int = 64
    num_random_blocks: int = 3
    use_bias: bool = False
    layer_norm_eps: float = 1e-12
    max_encoder_length: int | None = None
    max_decoder_length: int | None = None
    random_blocks: Literal["original", "transformers", "resample"] = "original"
    norm_type: Literal["prenorm", "postnorm"] = "prenorm"
    couple_encoder_decoder: bool = False
    label_smoothing: float = 0.1
    loss_style: Literal["original", "transformers"] = "original"
    num_labels: int = 3
    problem_type: Literal["regression", "single_label_classification", "multi_label_classification"] | None = None
    output_hidden_states: bool = False
    output_attentions: bool = False
    return_dict: bool = True
    id2label: Mapping[int, Any] = FrozenDict()
    label2id: Mapping[str, Any] = FrozenDict()
    extra: Mapping[str, Any] = FrozenDict()

    @property
    def hidden_size(self) -> int:
        """Size of the hidden states, as other families call it."""
        return self.d_model

    @property
    def num_hidden_layers(self) -> int:
        """How many layers the encoder has."""
        return self.encoder_layers

    @property
    def num_attention_heads(self) -> int:
        """How many attention heads a layer has, on either side."""
        return self.encoder_attention_heads

    @property
    def intermediate_size(self) -> int:
        """Inner size of the encoder's feed-forward sublayers."""
        return self.encoder_ffn_dim

    @property
    def type_vocab_size(self) -> int:
        """One: there are no token types."""
        return 1

    @property
    def is_decoder(self) -> bool:
        """False: it is the encoder that other families' code asks for."""
        return False

    @property
    def add_cross_attention(self) -> bool:
        """False: the encoder has none."""
        return False

    @property
    def head_dim(self) -> int:
        """Size of one attention head."""
        return self.d_model // self.encoder_attention_heads

    @property
    def hidden_dropout_prob(self) -> float:
        """Dropout of embeddings and of what sublayers add."""
        return self.dropout

    @property
    def attention_probs_dropout_prob(self) -> float:
        """Dropout of attention's probabilities, where attention is full."""
        return self.attention_dropout

    @property
    def initializer_range(self) -> float:
        """Standard deviation of initial weights."""
        return self.init_std

    @property
    def decoder_length(self) -> int:
        """How many tokens are written at most."""
        return self.max_decoder_length or min(128, self.max_position_embeddings)

    @property
    def beyond_transformers(self) -> tuple[str, ...]:
        """transformers' class has two stacks of layers, and LayerNorm before each sublayer."""
        return ("coupled",) * self.couple_encoder_decoder + ("postnorm",) * (self.norm_type == "postnorm")

    @property
    def has_logits_bias(self) -> bool:
        """False: no model adds a bias to its logits, though transformers' class keeps one, of zeros."""
        return False

    def for_head(self, head: str) -> Self:
        """Return the configuration under which a head runs; raises ValueError for a head that the model cannot have."""
        if head == "causal-lm" and self.couple_encoder_decoder:
            raise ValueError(
                "couple_encoder_decoder: a coupled model has no decoder alone, because the decoder's layers are the "
                "encoder's: take the head conditional-generation"
            )
        return super().for_head(head)

    @classmethod
    def _from_flags(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Settings from summarization.config; what it leaves out has the original's default, not transformers'."""
        settings = {**_FLAG_DEFAULTS, **super()._from_flags(values)}
        if "decoder_layers" not in settings and "encoder_layers" in settings:
            settings["decoder_layers"] = settings["encoder_layers"]
        for name in ("attention_heads", "ffn_dim"):
            if f"encoder_{name}" in settings:
                settings[f"decoder_{name}"] = settings[f"encoder_{name}"]
        return settings

    @classmethod
    def _from_transformers(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Settings from a config.json, under the names that transformers takes for the same as well."""
        named = {_SAME.get(name, name): value for name, value in values.items() if name != "num_hidden_layers"}
        return super()._from_transformers(named | {name: values[name] for name in named.keys() & values.keys()})

    rules: ClassVar[tuple[Rule, ...]] = (
        *sizes(LARGEST),
        divisible("d_model", "encoder_attention_heads"),
        (
            "decoder_attention_heads",
            "encoder_attention_heads",
            lambda c: c.decoder_attention_heads == c.encoder_attention_heads,
        ),
        (
            "decoder_layers",
            "at most encoder_layers, because the original's cache has room for that many layers (in its flags "
            "num_decoder_layers and num_hidden_layers): correct one of them",
            lambda c: c.decoder_layers <= c.encoder_layers,
        ),
        (
            "decoder_ffn_dim",
            "encoder_ffn_dim, because couple_encoder_decoder shares the layers",
            lambda c: not c.couple_encoder_decoder or c.decoder_ffn_dim == c.encoder_ffn_dim,
        ),
        activation("activation_function"),
        probability("dropout"),
        probability("attention_dropout"),
        probability("activation_dropout"),
        probability("classifier_dropout"),
        probability("label_smoothing"),
        ("encoder_layerdrop", "0, because no layer is dropped here", lambda c: c.encoder_layerdrop == 0),
        ("decoder_layerdrop", "0, because no layer is dropped here", lambda c: c.decoder_layerdrop == 0),
        above_zero("init_std"),
        above_zero("layer_norm_eps"),
        token("pad_token_id"),
        token("decoder_start_token_id"),
        token("eos_token_id"),
        *PATTERN_LENGTH,
        (
            "max_decoder_length",
            "at least 1 or None",
            lambda c: c.max_decoder_length is None or c.max_decoder_length >= 1,
        ),
        (
            "max_decoder_length",
            "at most max_position_embeddings",
            lambda c: c.max_decoder_length is None or c.max_decoder_length <= c.max_position_embeddings,
        ),
    )


# transformers' attribute_map; its num_hidden_layers is what encoder_layers says.
_SAME = {
    "hidden_size": "d_model",
    "num_attention_heads": "encoder_attention_heads",
    "attention_probs_dropout_prob": "attention_dropout",
}
# bigbird/core/flags.py and run_summarization.py.
_FLAG_DEFAULTS: Mapping[str, Any] = {
    "norm_type": "postnorm",
    "activation_function": "gelu_new",
    "use_bias": True,
    "scale_embedding": False,
    "block_size": 16,
    "attention_dropout": 0.1,
    "max_encoder_length": 128,
}
