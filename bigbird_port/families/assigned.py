"""What of a configuration can be assigned: what a model looks at in each call, and what is beyond the model."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping
from dataclasses import FrozenInstanceError
from typing import Any, TypeVar

from bigbird_port.files.frozen import FrozenDict

Kind = TypeVar("Kind", bound=type)

# Of both families. Others fix weights, or modules that a model made of them.
ASSIGNABLE = frozenset(
    {
        *("use_cache", "pad_token_id", "bos_token_id", "eos_token_id", "sep_token_id", "decoder_start_token_id"),
        *("problem_type", "output_hidden_states", "output_attentions", "return_dict"),
        *("id2label", "label2id"),
    }
)


def assignable(kind: Kind) -> Kind:
    """Let a frozen dataclass of Fields have the ASSIGNABLE assigned, and be made with names that are no field.

    These names go into ``extra``, as they do where they are assigned. A name that looks like a misspelt field is
    refused: ValueError. A field that is not assignable raises FrozenInstanceError, which says what to do.
    """
    frozen: Any = kind
    made = frozen.__init__

    @functools.wraps(made)
    def initialise(self: Any, **values: Any) -> None:
        unknown = {name: value for name, value in values.items() if name not in frozen.__dataclass_fields__}
        if unknown:
            frozen._reject_misspelt(set(unknown))
            values = {name: value for name, value in values.items() if name not in unknown}
            values["extra"] = {**(values.get("extra") or {}), **unknown}
        made(self, **values)

    frozen.__init__, frozen.__setattr__ = initialise, _assign
    return kind


def _assign(config: Any, name: str, value: Any) -> None:
    known = type(config).__dataclass_fields__
    if name in ASSIGNABLE & known.keys():
        changed = config.replace(**{name: value})
        if changed.num_labels != config.num_labels:
            raise FrozenInstanceError(
                f"config: {name} has {changed.num_labels} names, but num_labels is {config.num_labels}, and the model "
                "has as many scores: load it with from_pretrained(folder, id2label=..., ignore_mismatched_sizes=True)"
            )
        vars(config).update({field: getattr(changed, field) for field in known})
    elif name in known or isinstance(getattr(type(config), name, None), property):
        raise FrozenInstanceError(
            f"config: {name} cannot be assigned, because a model is made by it: give it to from_pretrained or "
            f"from_config, with config.replace({name}=...); what can be assigned is "
            f"{', '.join(sorted(ASSIGNABLE & known.keys()))}"
        )
    elif name.startswith("_") or name in config.not_carried({name: None}):
        vars(config)[name] = value  # of one file or session, and never written
    else:
        if near := difflib.get_close_matches(name, known, n=1, cutoff=0.9):
            raise FrozenInstanceError(f"config: there is no field {name!r}: did you mean {near[0]!r}?")
        extra: Mapping[str, Any] = {**config.extra, name: value}
        vars(config)["extra"] = FrozenDict(config.replace(extra=extra).extra)
