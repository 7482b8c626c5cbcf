"""What the configurations of all families do alike: their fields are checked, changed, and read from and to JSON."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import re
import types
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, Union, get_args, get_origin, get_type_hints

from bigbird_port.families.config_files import ConfigFiles
from bigbird_port.families.labels import by_id, default_labels, frozen_labels, inverted
from bigbird_port.families.ported import product_values
from bigbird_port.families.registry import family_of
from bigbird_port.files.frozen import FrozenDict, freeze, thaw
from bigbird_port.formats.detection.architectures import check_model_type

if TYPE_CHECKING:
    from bigbird_port.families.family import Family

# Each rule: field, the rule in words (it follows "must be"), and the test.
Rule = tuple[str, str, Callable[[Any], bool]]

HIDDEN_ACTS = ("gelu", "gelu_new", "relu", "selu", "tanh", "linear")
# The original's "gelu" is the tanh approximation (bigbird/core/utils.py).
FLAG_ACTS = {"gelu": "gelu_new", "relu": "relu", "tanh": "tanh", "linear": "linear", "": "linear", None: "linear"}
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
_NULLABLE = {"is_encoder_decoder", "output_hidden_states", "output_attentions", "return_dict", "id2label", "label2id"}
_NOT_MISSPELT = {"tie_encoder_decoder"}


class Fields(ConfigFiles):
    """Base of the dataclasses that are configurations.

    model_type: as in config.json. label_count: how many labels there are where nothing is said. largest: the
    greatest value of each size. unwritten: fields that a config.json names only where they are not these.
    flag_names: flags of the original -> fields, where the names differ. other_flags: flags whose names only look like
    a misspelt field. rules: what values must be. The class has the fields num_labels, id2label, label2id and extra.
    """

    model_type: ClassVar[str]
    label_count: ClassVar[int]
    largest: ClassVar[Mapping[str, int]]
    unwritten: ClassVar[Mapping[str, Any]]
    flag_names: ClassVar[Mapping[str, str]]
    other_flags: ClassVar[frozenset[str]]
    rules: ClassVar[tuple[Rule, ...]]
    num_labels: int
    id2label: Mapping[int, Any]
    label2id: Mapping[str, Any]
    extra: Mapping[str, Any]

    def __post_init__(self) -> None:
        self._set(extra=self._checked_extra())
        self._complete_labels()
        for name, hint in hints(type(self)).items():
            _check_type(name, getattr(self, name), hint)
        for name, rule, holds in self.rules:
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
            if self.num_labels not in (self.label_count, len(labels)):
                raise ValueError(f"config: num_labels is {self.num_labels}, but id2label has {len(labels)} names")
            self._set(id2label=labels, num_labels=len(labels))
        elif type(self.num_labels) is int and self.num_labels <= self.largest["num_labels"]:  # else refused below
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
        return f"{word} = {getattr(self, word)!r}" if word in hints(type(self)) else word

    @property
    def family(self) -> Family:
        """The family that it is a configuration of."""
        return family_of(self.model_type)

    def replace(self, **changes: Any) -> Self:
        """Return a copy with ``changes``; raises ValueError for a name that is no field.

        Labels follow: another num_labels alone gives up their names, and other names count anew.
        """
        self._reject_unknown(changes)
        if "id2label" in changes:
            changes = {"label2id": {}, "num_labels": len(changes["id2label"] or ()) or self.num_labels} | changes
            changes["id2label"] = changes["id2label"] or {}
        elif changes.get("num_labels", self.num_labels) != self.num_labels:
            changes = {"label2id": {}, "id2label": {}} | changes
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]

    def for_head(self, head: str) -> Self:
        """Return the configuration under which a head runs; raises ValueError where the family has no such head."""
        settings = self.family.head(head).settings
        return self.replace(**settings) if settings else self

    @property
    def beyond_transformers(self) -> tuple[str, ...]:
        """What the model has and transformers' class of it has not."""
        return ()

    def to_dict(self) -> dict[str, Any]:
        """Return every field by name, and what is extra beside them."""
        return {name: thaw(getattr(self, name)) for name in json_fields(type(self))} | thaw(self.extra)

    def to_json_values(self, architecture: str) -> dict[str, Any]:
        """Return the values of a config.json that transformers reads; ``architecture`` is a torch class name.

        Fields that say nothing, because they have their default, are left out. What transformers cannot compute stands
        behind attention_type, whose other values its classes refuse: else they would load the weights and compute
        something else.
        """
        values = {name: value for name, value in self.to_dict().items() if self.unwritten.get(name, ...) != value}
        values["attention_type"] = ", ".join((values["attention_type"], *self.beyond_transformers))
        if self.id2label == default_labels(self.num_labels) and self.label2id == inverted(self.id2label):
            del values["id2label"], values["label2id"]
        else:
            values["id2label"] = {str(key): value for key, value in values["id2label"].items()}
        return {"model_type": self.model_type, "architectures": [architecture]} | values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from transformers' config.json or the original's flags, told apart by their keys.

        What a config.json holds beyond the model goes into ``extra``, except for NOT_CARRIED; a flag of the original
        that is no setting of the model is passed over. A key that looks like a misspelt field is refused.
        """
        values = product_values(values)
        check_model_type(values, cls.model_type)
        ours = "model_type" in values or "num_random_blocks" in values
        is_original = not ours and any(flag in values for flag in cls.flag_names)
        settings = cls._from_flags(values) if is_original else cls._from_transformers(values)
        passed = {*cls.flag_names, *cls.other_flags} if is_original else _NOT_MISSPELT
        cls._reject_misspelt(set(values) - set(json_fields(cls)) - passed)
        return cls(**settings)

    @classmethod
    def _from_flags(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Settings from the flags JSON that the original code writes beside a checkpoint."""
        act = values.get("hidden_act")
        if "hidden_act" in values and act not in FLAG_ACTS:
            raise ValueError(f"config: hidden_act is {act!r}, but it must be one of {sorted(filter(None, FLAG_ACTS))}")
        settings = {cls.flag_names.get(name, name): value for name, value in values.items()}
        if "hidden_act" in values:
            settings[cls.flag_names.get("hidden_act", "hidden_act")] = FLAG_ACTS[act]
        return {name: value for name, value in settings.items() if name in json_fields(cls)}

    @classmethod
    def _from_transformers(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Settings from a transformers config.json (or this project's own)."""
        if not values.get("tie_word_embeddings", True):
            title = family_of(cls.model_type).title
            raise ValueError(f"config: tie_word_embeddings is False, but it must be True: {title}'s decoder is tied")
        settings = {name: value for name, value in values.items() if name in json_fields(cls)}
        settings = {name: value for name, value in settings.items() if value is not None or name not in _NULLABLE}
        if settings.get("id2label"):
            settings.pop("num_labels", None)  # as in transformers the names are what counts
        if isinstance(settings.get("attention_type"), str):  # without what stands behind it, which has its own fields
            settings["attention_type"] = settings["attention_type"].partition(", ")[0]
        settings["extra"] = {name: value for name, value in values.items() if name not in _reserved(cls)}
        return settings

    @staticmethod
    def not_carried(values: Mapping[str, Any]) -> list[str]:
        """Return the keys of a config.json that from_dict leaves out, because they say how its own file was written."""
        return [name for name in values if name in NOT_CARRIED]

    def _checked_extra(self) -> FrozenDict:
        """``extra`` frozen; raises ValueError for a name that has a meaning of its own, and for what is no JSON."""
        if not isinstance(self.extra, Mapping):
            raise ValueError(f"config: extra is {self.extra!r}, but it must map names to JSON values")
        taken = sorted(set(self.extra) & _reserved(type(self)))
        if taken:
            raise ValueError(f"config: extra holds {', '.join(taken)}, but these have a place of their own")
        frozen = {}
        for name, value in self.extra.items():
            try:
                frozen[name] = freeze(value)
            except ValueError as error:
                raise ValueError(f"config: {name}: {error}") from None
        return FrozenDict(frozen)

    @classmethod
    def _reject_unknown(cls, names: Mapping[str, Any]) -> None:
        known = hints(cls)
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"the fields are {', '.join(known)}"
                raise ValueError(f"config: there is no field {name!r}: {hint}")

    @classmethod
    def _reject_misspelt(cls, names: set[str]) -> None:
        fields = [name for name in json_fields(cls) if name not in _NULLABLE or name in ("id2label", "label2id")]
        for name in sorted(names):
            near = difflib.get_close_matches(name, fields, n=1, cutoff=0.9)
            if near:
                raise ValueError(f"config: there is no field {name!r}: did you mean {near[0]!r}?")


def _hints(config: Any) -> dict[str, Any]:
    found = get_type_hints(config)
    return {field.name: found[field.name] for field in dataclasses.fields(config)}


def _json_fields(config: Any) -> tuple[str, ...]:
    return tuple(name for name in hints(config) if name != "extra")


def _reserved_of(config: Any) -> frozenset[str]:
    return frozenset({*json_fields(config), *NOT_CARRIED, "model_type", "architectures"})


# Of a class of configurations: field name -> type, in order; every field but ``extra``, whose content stands beside the
# fields in JSON; names that ``extra`` cannot hold.
hints: Callable[[Any], dict[str, Any]] = functools.cache(_hints)
json_fields: Callable[[Any], tuple[str, ...]] = functools.cache(_json_fields)
_reserved: Callable[[Any], frozenset[str]] = functools.cache(_reserved_of)


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


def sizes(largest: Mapping[str, int]) -> tuple[Rule, ...]:
    """The rules of sizes: at least 1, and at most as large as any model is."""
    return tuple(map(_size, largest.items()))


def _size(item: tuple[str, int]) -> Rule:
    name, most = item
    return name, f"at least 1 and at most {most}", lambda c: 1 <= getattr(c, name) <= most


def probability(name: str) -> Rule:
    """The rule of a probability of dropout; None is allowed where the type says so."""
    return name, "at least 0 and below 1", lambda c: getattr(c, name) is None or 0 <= getattr(c, name) < 1


def token(name: str) -> Rule:
    """The rule of a special token's id."""
    return name, "an id of the vocabulary (0 .. vocab_size - 1)", lambda c: 0 <= getattr(c, name) < c.vocab_size


def above_zero(name: str) -> Rule:
    """The rule of a deviation, or of what keeps a division from zero."""
    return name, "finite and above 0", lambda c: 0 < getattr(c, name) < math.inf


def divisible(size: str, heads: str) -> Rule:
    """The rule of a size that attention heads share out."""
    return size, f"divisible by {heads}", lambda c: getattr(c, size) % getattr(c, heads) == 0


def activation(name: str) -> Rule:
    """The rule of an activation."""
    return name, f"one of {list(HIDDEN_ACTS)}", lambda c: getattr(c, name) in HIDDEN_ACTS


PATTERN_LENGTH: tuple[Rule, ...] = (
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
