"""The model configuration, read from and written to transformers' and the original's JSON files."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from bigbird_port.bounds import LARGEST
from bigbird_port.json_object import read_json_object

HIDDEN_ACTS = ("gelu", "gelu_new", "relu", "selu", "tanh", "linear")


@dataclass(frozen=True, kw_only=True)
class BigBirdConfig:
    """Everything that fixes the model's function, under transformers' names and defaults.

    Fields that transformers does not have:

    * max_encoder_length: the length (tokens) whose attention pattern is used, whatever the batch's
      length, as in the original; None takes the padded length of the batch.
    * random_blocks: "original" for the original's seeded plan, "transformers" for the all-zero blocks
      and the switch to full attention of transformers' evaluation mode, "resample" for the original's plan
      in evaluation and fresh draws by the same rules in each training step.
    * classifier_style: "original" is dropout and one dense layer on the pooled output,
      "transformers" the two-layer head on the first token.

    Raises ValueError naming field, value and rule.
    """

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
    classifier_style: Literal["original", "transformers"] = "transformers"

    def __post_init__(self) -> None:
        for name, hint in _hints().items():
            _check_type(name, getattr(self, name), hint)
        for name, rule, holds in _RULES:
            if not holds(self):
                known = re.sub(r"\w+", lambda word: self._with_value(word[0]), rule)
                raise ValueError(f"config: {name} is {getattr(self, name)!r}, but it must be {known}")

    def _with_value(self, word: str) -> str:
        return f"{word} = {getattr(self, word)!r}" if word in _hints() else word

    @property
    def head_dim(self) -> int:
        """Size of one attention head."""
        return self.hidden_size // self.num_attention_heads

    def replace(self, **changes: Any) -> BigBirdConfig:
        """Return a copy with ``changes``; raises ValueError for a name that is no field."""
        _reject_unknown(changes)
        return dataclasses.replace(self, **changes)

    def for_head(self, head: str) -> BigBirdConfig:
        """Return the configuration under which a head runs: causal-lm is a decoder, and attends fully."""
        return self.replace(is_decoder=True, attention_type="original_full") if head == "causal-lm" else self

    def to_dict(self) -> dict[str, Any]:
        """Return every field by name."""
        return dataclasses.asdict(self)

    def to_json_values(self, architecture: str) -> dict[str, Any]:
        """Return the values of a config.json that transformers reads; ``architecture`` is a torch class name."""
        return {"model_type": "big_bird", "architectures": [architecture]} | self.to_dict()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> BigBirdConfig:
        """Build from transformers' config.json or the original's flags, told apart by their keys.

        Keys that are neither's model settings are passed over, unless one looks like a misspelt field.
        """
        if values.get("model_type", "big_bird") != "big_bird":
            raise ValueError(
                f"config: model_type is {values['model_type']!r}, but it must be 'big_bird': "
                "this is the configuration of another model"
            )
        is_original = "model_type" not in values and any(flag in values for flag in _FLAG_NAMES)
        settings = _from_flags(values) if is_original else _from_transformers(values)
        _reject_misspelt(set(values) - set(_hints()) - (_FLAGS if is_original else set()))
        return cls(**settings)


def read_config(path: Path) -> BigBirdConfig:
    """Read a configuration file of either kind; raises ValueError naming the file."""
    return config_from(read_json_object(path), str(path))


def config_from(values: Mapping[str, Any], origin: str) -> BigBirdConfig:
    """Build a configuration from JSON values; errors name ``origin``."""
    try:
        return BigBirdConfig.from_dict(values)
    except ValueError as error:
        raise ValueError(f"{origin}: {error}") from None


# The original's flags whose names differ; the others carry the name of the field.
_FLAG_NAMES = {
    "num_rand_blocks": "num_random_blocks",
    "rescale_embedding": "rescale_embeddings",
    "max_encoder_length": "max_encoder_length",
}
# Flags of the original whose names only look like a misspelt field.
_FLAGS = {*_FLAG_NAMES, "max_decoder_length"}
# The original's "gelu" is the tanh approximation (bigbird/core/utils.py).
_FLAG_ACTS = {"gelu": "gelu_new", "relu": "relu", "tanh": "tanh", "linear": "linear", "": "linear", None: "linear"}


def _from_flags(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings from the flags JSON that the original code writes beside a checkpoint."""
    norm_type = values.get("norm_type", "postnorm")
    if norm_type != "postnorm":
        raise ValueError(
            f"config: norm_type is {norm_type!r}, but it must be 'postnorm': "
            "the prenorm (Pegasus) models have a decoder and none of the eight heads"
        )
    settings = {_FLAG_NAMES.get(name, name): value for name, value in values.items()}
    if "hidden_act" in settings:
        if settings["hidden_act"] not in _FLAG_ACTS:
            known = sorted(filter(None, _FLAG_ACTS))
            raise ValueError(f"config: hidden_act is {settings['hidden_act']!r}, but it must be one of {known}")
        settings["hidden_act"] = _FLAG_ACTS[settings["hidden_act"]]
    return {name: value for name, value in settings.items() if name in _hints()}


def _from_transformers(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings from a transformers config.json (or this project's own)."""
    position_type = values.get("position_embedding_type", "absolute")
    if position_type != "absolute":
        raise ValueError(f"config: position_embedding_type is {position_type!r}, but it must be 'absolute'")
    if not values.get("tie_word_embeddings", True):
        raise ValueError("config: tie_word_embeddings is False, but it must be True: BigBird's decoder is tied")
    settings = {name: value for name, value in values.items() if name in _hints()}
    if isinstance(values.get("id2label"), dict):
        settings.setdefault("num_labels", len(values["id2label"]))
    return settings


def _reject_unknown(names: Mapping[str, Any]) -> None:
    for name in names:
        if name not in _hints():
            near = difflib.get_close_matches(name, _hints(), n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the fields are {', '.join(_hints())}"
            raise ValueError(f"config: there is no field {name!r}: {hint}")


def _reject_misspelt(names: set[str]) -> None:
    for name in sorted(names):
        near = difflib.get_close_matches(name, _hints(), n=1, cutoff=0.9)
        if near:
            raise ValueError(f"config: there is no field {name!r}: did you mean {near[0]!r}?")


@functools.cache
def _hints() -> dict[str, Any]:
    """Field name -> type, in order."""
    return get_type_hints(BigBirdConfig)


def _check_type(name: str, value: Any, hint: Any) -> None:
    options = get_args(hint) if get_origin(hint) in (types.UnionType, Union) else (hint,)
    for option in options:
        if get_origin(option) is Literal:
            if value in get_args(option):
                return
            continue
        accepted = (int, float) if option is float else option
        if isinstance(value, accepted) and (option is bool or not isinstance(value, bool)):
            return
    expected = " or ".join(_type_text(option) for option in options)
    raise ValueError(f"config: {name} is {value!r}, but it must be {expected}")


def _type_text(option: Any) -> str:
    if get_origin(option) is Literal:
        return f"one of {list(get_args(option))}"
    return "None" if option is type(None) else f"of type {option.__name__}"


def _positive(name: str) -> tuple[str, str, Callable[[BigBirdConfig], bool]]:
    return name, f"at least 1 and at most {LARGEST[name]}", lambda c: 1 <= getattr(c, name) <= LARGEST[name]


def _probability(name: str) -> tuple[str, str, Callable[[BigBirdConfig], bool]]:
    return name, "at least 0 and below 1", lambda c: getattr(c, name) is None or 0 <= getattr(c, name) < 1


def _token(name: str) -> tuple[str, str, Callable[[BigBirdConfig], bool]]:
    return name, "an id of the vocabulary (0 .. vocab_size - 1)", lambda c: 0 <= getattr(c, name) < c.vocab_size


# Each rule: field, the rule in words (it follows "must be"), and the test.
_RULES: tuple[tuple[str, str, Callable[[BigBirdConfig], bool]], ...] = (
    _positive("vocab_size"),
    _positive("hidden_size"),
    _positive("num_hidden_layers"),
    _positive("num_attention_heads"),
    _positive("intermediate_size"),
    _positive("max_position_embeddings"),
    _positive("type_vocab_size"),
    _positive("block_size"),
    _positive("num_random_blocks"),
    _positive("num_labels"),
    (
        "hidden_size",
        "divisible by num_attention_heads",
        lambda c: c.hidden_size % c.num_attention_heads == 0,
    ),
    ("hidden_act", f"one of {list(HIDDEN_ACTS)}", lambda c: c.hidden_act in HIDDEN_ACTS),
    _probability("hidden_dropout_prob"),
    _probability("attention_probs_dropout_prob"),
    _probability("classifier_dropout"),
    ("initializer_range", "finite and above 0", lambda c: 0 < c.initializer_range < math.inf),
    ("layer_norm_eps", "finite and above 0", lambda c: 0 < c.layer_norm_eps < math.inf),
    _token("pad_token_id"),
    ("add_cross_attention", "False unless is_decoder is set", lambda c: c.is_decoder or not c.add_cross_attention),
    (
        "max_encoder_length",
        "at least 1 or None",
        lambda c: c.max_encoder_length is None or c.max_encoder_length >= 1,
    ),
    (
        "max_encoder_length",
        "at most max_position_embeddings",
        lambda c: c.max_encoder_length is None or c.max_encoder_length <= c.max_position_embeddings,
    ),
)
