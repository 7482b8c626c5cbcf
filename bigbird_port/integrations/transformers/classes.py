"""A class of transformers' kind for every head of every family, made from the head's record, and their registration."""

from __future__ import annotations

import inspect
from typing import Any

import transformers
from transformers import GenerationMixin

from bigbird_port.families.family import Family, Head
from bigbird_port.families.ported import ported_class
from bigbird_port.families.registry import families
from bigbird_port.integrations.transformers.configs import PortedConfig, config_class
from bigbird_port.integrations.transformers.generation import PortedGeneration
from bigbird_port.integrations.transformers.models import PortedModel
from bigbird_port.integrations.transformers.outputs import CACHE, PAST
from models_torch.pegasus.pretrained import BigBirdPegasusPreTrainedModel

# What follows the family's name in a class -> what follows AutoModel, where these differ.
_AUTO = {"Model": "", "ForConditionalGeneration": "ForSeq2SeqLM"}


def _model_class(family: Family, head: Head, config: type[PortedConfig]) -> type[PortedModel]:
    """The class of a head."""
    product = family.model_class(head.name, "torch")

    def forward(self: Any, *values: Any, **named: Any) -> Any:
        return PortedModel.forward(self, *values, **named)

    parameters = inspect.signature(product.forward).parameters.values()
    shown = [p.replace(name=CACHE) if p.name == PAST else p for p in parameters if p.name != "output_taps"]
    forward.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    forward.__doc__ = product.forward.__doc__
    body = {
        "__doc__": f"{head.class_name} as transformers' own; its arguments and outputs are the same.",
        "__module__": __package__,
        "product": product,
        "config_class": config,
        "base_model_prefix": product.base_model_prefix,
        "fixed_places": issubclass(product, BigBirdPegasusPreTrainedModel),
        "main_input_name": "input_ids",
        "_no_split_modules": ["BigBirdLayer", "BigBirdPegasusEncoderLayer", "BigBirdPegasusDecoderLayer"],
        "forward": forward,
    }
    bases = (PortedGeneration, PortedModel, GenerationMixin) if head.decodes else (PortedModel,)
    return type(ported_class(head.class_name), bases, body)


CONFIGS = {family.name: config_class(family) for family in families()}
CLASSES = {
    (family.name, head.name): _model_class(family, head, CONFIGS[family.name])
    for family in families()
    for head in family.heads.values()
}


def register() -> None:
    """Tell transformers' Auto classes of all models; doing so again changes nothing."""
    for family in families():
        config = CONFIGS[family.name]
        transformers.AutoConfig.register(config.model_type, config, exist_ok=True)
        base = family.heads[family.base].class_name.removesuffix("Model")
        for head in family.heads.values():
            kind = head.class_name.removeprefix(base)
            auto = getattr(transformers, f"AutoModel{_AUTO.get(kind, kind)}")
            auto.register(config, CLASSES[family.name, head.name], exist_ok=True)
