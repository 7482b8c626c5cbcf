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
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

from bigbird_port.families.bigbird.bounds import LARGEST
from bigbird_port.families.bigbird.labels import by_id, default_labels, frozen_labels, inverted
from bigbird_port.families.registry import family_of
from bigbird_port.files.frozen import FrozenDict, freeze, thaw
from bigbird_port.files.json_object import read_json_object
from bigbird_port.formats.detection.architectures import check_model_type

if TYPE_CHECKING:
    from bigbird_port.families.family import Family

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

    Fields that change no number, and are kept:

    * id2label, label2id: names of the classes, by transformers' rules. Where none are given they are LABEL_0, ...;
      where num_labels is left alone it follows id2label.
    * is_encoder_decoder, output_hidden_states, output_attentions, return_dict: as transformers has them.
    * extra: whatever else a config.json holds, JSON values by name. Each is an attribute of the configuration, too.

    Raises ValueError naming field, value and rule.
    """

    model_type: ClassVar[str] = "big_bird"

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
    is_encoder_decoder: bool = False
    output_hidden_states: bool = False
    output_attentions: bool = False
    return_dict: bool = True
    id2label: Mapping[int, Any] = FrozenDict()
    label2id: Mapping[str, Any] = FrozenDict()
    extra: Mapping[str, Any] = FrozenDict()

    def __post_init__(self) -> None:
        self._set(extra=_checked_extra(self.extra))
        self._complete_labels()
        for name, hint in _hints().items():
            _check_type(name, getattr(self, name), hint)
        for name, rule, holds in _RULES:
            if not holds(self):
                known = re.sub(r"\w+", lambda word: self._with_value(word[0]), rule)
                raise ValueError(f"config: {name} is {getattr(self, name)!r}, but it must be {known}")

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _complete_labels(self) -> None:
        """Give labels where none are given, and make num_labels and label2id follow those that are."""
        if self.id2label:
            labels = by_id(self.id2label)
            if self.num_labels not in (_DEFAULT_LABELS, len(labels)):
                raise ValueError(f"config: num_labels is {self.num_labels}, but id2label has {len(labels)} names")
            self._set(id2label=labels, num_labels=len(labels))
        elif type(self.num_labels) is int and self.num_labels <= LARGEST["num_labels"]:  # any other is refused below
            self._set(id2label=FrozenDict(default_labels(self.num_labels)))
        given = self.label2id or inverted(self.id2label)
        self._set(label2id=frozen_labels("label2id", given))

    if not TYPE_CHECKING:  # a checker of types should know a name that is no field

        def __getattr__(self, name: str) -> Any:
            """What config.json held beyond the model, under its name there."""
            extra = self.__dict__.get("extra", {})
            if name in extra:
                return thaw(extra[name])
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _with_value(self, word: str) -> str:
        return f"{word} = {getattr(self, word)!r}" if word in _hints() else word

    @property
    def family(self) -> Family:
        """The family that it is a configuration of."""
        return family_of(self.model_type)

    @property
    def head_dim(self) -> int:
        """Size of one attention head."""
        return self.hidden_size // self.num_attention_heads

    def replace(self, **changes: Any) -> BigBirdConfig:
        """Return a copy with ``changes``; raises ValueError for a name that is no field.

        Labels follow: another num_labels alone gives up their names, and other names count anew.
        """
        _reject_unknown(changes)
        if "id2label" in changes:
            changes = {"label2id": {}, "num_labels": len(changes["id2label"] or ()) or self.num_labels} | changes
            changes["id2label"] = changes["id2label"] or {}
        elif changes.get("num_labels", self.num_labels) != self.num_labels:
            changes = {"label2id": {}, "id2label": {}} | changes
        return dataclasses.replace(self, **changes)

    def for_head(self, head: str) -> BigBirdConfig:
        """Return the configuration under which a head runs: causal-lm is a decoder, and attends fully."""
        settings = self.family.heads[head].settings
        return self.replace(**settings) if settings else self

    def to_dict(self) -> dict[str, Any]:
        """Return every field by name, and what is extra beside them."""
        return {name: thaw(getattr(self, name)) for name in _JSON_FIELDS} | thaw(self.extra)

    def to_json_values(self, architecture: str) -> dict[str, Any]:
        """Return the values of a config.json that transformers reads; ``architecture`` is a torch class name.

        Fields of transformers that say nothing, because they have their default, are left out.
        """
        values = {name: value for name, value in self.to_dict().items() if _UNWRITTEN.get(name, ...) != value}
        if self.id2label == default_labels(self.num_labels) and self.label2id == inverted(self.id2label):
            del values["id2label"], values["label2id"]
        else:
            values["id2label"] = {str(key): value for key, value in values["id2label"].items()}
        return {"model_type": self.model_type, "architectures": [architecture]} | values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> BigBirdConfig:
        """Build from transformers' config.json or the original's flags, told apart by their keys.

        What a config.json holds beyond the model goes into ``extra``, except for NOT_CARRIED; a flag of the original
        that is no setting of the model is passed over. A key that looks like a misspelt field is refused.
        """
        check_model_type(values)
        ours = "model_type" in values or "num_random_blocks" in values
        is_original = not ours and any(flag in values for flag in _FLAG_NAMES)
        settings = _from_flags(values) if is_original else _from_transformers(values)
        _reject_misspelt(set(values) - set(_JSON_FIELDS) - (_FLAGS if is_original else _NOT_MISSPELT))
        return cls(**settings)

    @staticmethod
    def not_carried(values: Mapping[str, Any]) -> list[str]:
        """Return the keys of a config.json that from_dict leaves out, because they say how its own file was written."""
        return [name for name in values if name in NOT_CARRIED]


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
            "a prenorm model (the original's summarisation, or its encoder alone) has none of the eight heads"
        )
    settings = {_FLAG_NAMES.get(name, name): value for name, value in values.items()}
    if "hidden_act" in settings:
        if settings["hidden_act"] not in _FLAG_ACTS:
            known = sorted(filter(None, _FLAG_ACTS))
            raise ValueError(f"config: hidden_act is {settings['hidden_act']!r}, but it must be one of {known}")
        settings["hidden_act"] = _FLAG_ACTS[settings["hidden_act"]]
    return {name: value for name, value in settings.items() if name in _JSON_FIELDS}


def _from_transformers(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings from a transformers config.json (or this project's own)."""
    position_type = values.get("position_embedding_type", "absolute")
    if position_type != "absolute":
        raise ValueError(f"config: position_embedding_type is {position_type!r}, but it must be 'absolute'")
    if not values.get("tie_word_embeddings", True):
        raise ValueError("config: tie_word_embeddings is False, but it must be True: BigBird's decoder is tied")
    settings = {name: value for name, value in values.items() if name in _JSON_FIELDS}
    settings = {name: value for name, value in settings.items() if value is not None or name not in _NULLABLE}
    if settings.get("id2label"):
        settings.pop("num_labels", None)  # as in transformers the names are what counts
    settings["extra"] = {name: value for name, value in values.items() if name not in _RESERVED}
    return settings


def _checked_extra(extra: Any) -> FrozenDict:
    """``extra`` frozen; raises ValueError for a name that has a meaning of its own, and for what is no JSON."""
    if not isinstance(extra, Mapping):
        raise ValueError(f"config: extra is {extra!r}, but it must map names to JSON values")
    taken = sorted(set(extra) & _RESERVED)
    if taken:
        raise ValueError(f"config: extra holds {', '.join(taken)}, but these have a place of their own")
    frozen = {}
    for name, value in extra.items():
        try:
            frozen[name] = freeze(value)
        except ValueError as error:
            raise ValueError(f"config: {name}: {error}") from None
    return FrozenDict(frozen)


def _reject_unknown(names: Mapping[str, Any]) -> None:
    for name in names:
        if name not in _hints():
            near = difflib.get_close_matches(name, _hints(), n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the fields are {', '.join(_hints())}"
            raise ValueError(f"config: there is no field {name!r}: {hint}")


def _reject_misspelt(names: set[str]) -> None:
    for name in sorted(names):
        near = difflib.get_close_matches(name, _MODEL_FIELDS, n=1, cutoff=0.9)
        if near:
            raise ValueError(f"config: there is no field {name!r}: did you mean {near[0]!r}?")


@functools.cache
def _hints() -> dict[str, Any]:
    """Field name -> type, in order."""
    hints = get_type_hints(BigBirdConfig)
    return {field.name: hints[field.name] for field in dataclasses.fields(BigBirdConfig)}


def _check_type(name: str, value: Any, hint: Any) -> None:
    options = get_args(hint) if get_origin(hint) in (types.UnionType, Union) else (hint,)
    for option in options:
        if get_origin(option) is Literal:
            if value in get_args(option):
                return
            continue
        accepted = (int, float) if option is float else get_origin(option) or option
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


# Every field but ``extra``, whose content stands beside the fields in JSON.
_JSON_FIELDS = tuple(name for name in _hints() if name != "extra")
_DEFAULT_LABELS = 2
# Fields of transformers that a config.json of this project names only where they are not these.
_UNWRITTEN: dict[str, Any] = {
    "is_encoder_decoder": False,
    "output_hidden_states": False,
    "output_attentions": False,
    "return_dict": True,
}
_NULLABLE = {*_UNWRITTEN, "id2label", "label2id"}  # null says as much as their absence
# Names that a misspelt one is taken for.
_MODEL_FIELDS = tuple(name for name in _JSON_FIELDS if name not in _UNWRITTEN)
_NOT_MISSPELT = {"tie_encoder_decoder"}
# What says of a config.json how its own file was written and from where: it would not be true of another.
NOT_CARRIED = (
    "transformers_version",
    "torch_dtype",
    "dtype",
    "_name_or_path",
    "_commit_hash",
    "_attn_implementation_autoset",
    "quantization_config",
)
_RESERVED = {*_JSON_FIELDS, *NOT_CARRIED, "model_type", "architectures"}

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
