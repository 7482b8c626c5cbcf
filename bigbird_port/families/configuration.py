"""What a configuration is, of whichever family: what code that knows no family may ask of it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    from bigbird_port.families.family import Family


class Configuration(Protocol):
    """Everything that fixes a model's function; its fields beyond these are its family's own."""

    @property
    def family(self) -> Family:
        """The family that it is a configuration of."""
        ...

    @property
    def vocab_size(self) -> int:
        """How many words have an embedding."""
        ...

    @property
    def num_hidden_layers(self) -> int:
        """How many layers."""
        ...

    @property
    def num_attention_heads(self) -> int:
        """How many attention heads in each."""
        ...

    @property
    def max_position_embeddings(self) -> int:
        """How many positions have an embedding."""
        ...

    @property
    def initializer_range(self) -> float:
        """Standard deviation of initial weights."""
        ...

    @property
    def beyond_transformers(self) -> tuple[str, ...]:
        """What the model has and transformers' class of it has not."""
        ...

    def for_head(self, head: str) -> Self:
        """Return the configuration under which a head runs."""
        ...

    def replace(self, **changes: Any) -> Self:
        """Return a copy with changes; raises ValueError for a name that is no field."""
        ...

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from the JSON values of any file that describes a model of the family."""
        ...

    @staticmethod
    def not_carried(values: Mapping[str, Any]) -> list[str]:
        """Return the keys that from_dict leaves out, because they say how their own file was written."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Return every field by name."""
        ...

    def to_json_values(self, architecture: str) -> dict[str, Any]:
        """Return the values of a config.json; ``architecture`` is a torch class name."""
        ...


class Sparse(Hashable, Protocol):
    """What fixes the pattern of attention; every configuration has it."""

    @property
    def num_attention_heads(self) -> int:
        """How many attention heads in each layer."""
        ...

    @property
    def max_position_embeddings(self) -> int:
        """How many positions have an embedding."""
        ...

    @property
    def attention_type(self) -> str:
        """Either block_sparse or original_full."""
        ...

    @property
    def block_size(self) -> int:
        """Tokens in a block."""
        ...

    @property
    def num_random_blocks(self) -> int:
        """Random blocks of a query block."""
        ...

    @property
    def max_encoder_length(self) -> int | None:
        """The length whose pattern is used; None: the batch's."""
        ...

    @property
    def random_blocks(self) -> str:
        """Whose random blocks: original, transformers or resample."""
        ...


class Attending(Sparse, Protocol):
    """What an encoder's inputs are checked against, and its layers made by."""

    @property
    def vocab_size(self) -> int:
        """How many words have an embedding."""
        ...

    @property
    def hidden_size(self) -> int:
        """Size of the hidden states."""
        ...

    @property
    def num_hidden_layers(self) -> int:
        """How many layers the encoder has."""
        ...

    @property
    def head_dim(self) -> int:
        """Size of an attention head."""
        ...

    @property
    def type_vocab_size(self) -> int:
        """How many token types there are."""
        ...

    @property
    def pad_token_id(self) -> int:
        """The id of padding."""
        ...

    @property
    def is_decoder(self) -> bool:
        """Whether its own layers look back only."""
        ...

    @property
    def add_cross_attention(self) -> bool:
        """Whether its own layers attend to another encoder."""
        ...


def described(config: Configuration, head: str) -> dict[str, Any]:
    """Return the values of a config.json for a model of one head."""
    return config.to_json_values(config.family.heads[head].class_name)
