"""Configurations of transformers' kind, with the fields of a family's."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import PretrainedConfig

from bigbird_port.families.configuration import Configuration
from bigbird_port.families.family import Family
from bigbird_port.families.fields import NOT_CARRIED, json_fields
from bigbird_port.families.ported import ported_class, ported_type
from bigbird_port.integrations.transformers.outputs import CACHE

# Properties of the family's configurations that transformers asks for -> the fields behind them.
_ALSO_CALLED = {
    "hidden_size": "d_model",
    "num_hidden_layers": "encoder_layers",
    "num_attention_heads": "encoder_attention_heads",
    "initializer_range": "init_std",
}


class PortedConfig(PretrainedConfig):
    """Base of the configurations: every field of the family's, under its name there, checked as there."""

    family: ClassVar[Family]
    keys_to_ignore_at_inference: ClassVar[list[str]] = [CACHE]

    def __init__(self, **values: Any) -> None:
        """Raise ValueError for what the family's configuration refuses."""
        names = json_fields(self.family.config)
        given = {name: value for name, value in values.items() if name in names and value is not None}
        own = self.family.config.from_dict({"model_type": self.family.model_type, **given})
        fields = own.to_dict()
        labels = {name: fields.pop(name) for name in ("id2label", "label2id", "num_labels")}
        rest = {name: value for name, value in values.items() if name not in names}
        super().__init__(**rest, id2label=labels["id2label"], label2id=labels["label2id"])
        for name, value in fields.items():
            if getattr(self, name, ...) != value:
                setattr(self, name, value)

    def product(self) -> Configuration:
        """Return the family's configuration of these values."""
        values = {name: getattr(self, name) for name in json_fields(self.family.config)}
        return self.family.config.from_dict({"model_type": self.family.model_type, **values})

    @classmethod
    def get_config_dict(cls, place: Any, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read a config.json; one of the family's own is taken as it is."""
        values, rest = super().get_config_dict(place, **options)
        if values.get("model_type") == cls.family.model_type:
            values = {name: value for name, value in values.items() if name not in NOT_CARRIED}
            values["model_type"] = cls.model_type
        return values, rest


def config_class(family: Family) -> type[PortedConfig]:
    """Return the class of a family's configurations."""
    names = json_fields(family.config)
    also = {name: field for name, field in _ALSO_CALLED.items() if field in names and name not in names}

    def initialise(self: Any, **values: Any) -> None:
        PortedConfig.__init__(self, **values)

    body = {
        "__init__": initialise,  # of the class itself, because transformers 5 else writes one
        "__doc__": f"The fields of {family.config.__name__}, as a configuration of transformers.",
        "__module__": __package__,
        "model_type": ported_type(family.model_type),
        "family": family,
        "attribute_map": also,
    }
    return type(ported_class(family.config.__name__), (PortedConfig,), body)
