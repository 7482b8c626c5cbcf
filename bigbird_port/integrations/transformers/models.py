"""Models of transformers' kind around the product's: the same modules, the same names of weights, the same forward."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn
from transformers import PreTrainedModel

from bigbird_port.families.assigned import ASSIGNABLE
from bigbird_port.integrations.transformers.caches import entered, left
from bigbird_port.integrations.transformers.configs import PortedConfig
from bigbird_port.integrations.transformers.outputs import CACHE, PAST, as_output
from bigbird_port.schema.table import weights_of

_OWN = ("_modules", "_parameters", "_buffers")  # what the product's model and the one around it share
_UNUSED = ("cache_position", "logits_to_keep", "num_items_in_batch")


class PortedModel(PreTrainedModel):
    """Base of the models. product: the class that computes. fixed_places: of its caches."""

    product: ClassVar[Any]
    fixed_places: ClassVar[bool] = False
    config_class: ClassVar[type[PortedConfig]]
    supports_gradient_checkpointing = True

    def __init__(self, config: PortedConfig) -> None:
        super().__init__(config)
        made = self.product(config.product(), seed=None)
        for name, child in made.named_children():
            self.add_module(name, child)
        self.__dict__["_made"] = {name: value for name, value in vars(made).items() if name not in _OWN}
        self.__dict__["_tied_weights_keys"] = _tied(self)
        self.post_init()

    @property
    def model_of_product(self) -> Any:
        """The product's model of the same modules, as it stands now."""
        model = self.product.__new__(self.product)
        vars(model).update(self._made, **{name: vars(self)[name] for name in _OWN}, training=self.training)
        own = model.config
        for name in ASSIGNABLE & own.__dataclass_fields__.keys():
            if name not in ("id2label", "label2id") and getattr(own, name) != getattr(self.config, name):
                setattr(own, name, getattr(self.config, name))
        return model

    def forward(self, *values: Any, **named: Any) -> Any:
        """Run the product's forward, with transformers' caches and outputs."""
        given = inspect.signature(self.product.forward).bind_partial(self, *values, **_known(named)).arguments
        given.pop("self")
        model, as_dict = self.model_of_product, given.get("return_dict")
        if as_dict is None:
            as_dict = self.config.return_dict
        past = given.get(PAST)
        if past is not None:
            given[PAST] = entered(past, _tokens(given), self.fixed_places)
        output = as_output(model.forward(**given | {"return_dict": True}))
        if output.get(CACHE) is not None:
            output[CACHE] = left(past, output[CACHE])
        return output if as_dict else output.to_tuple()

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the word embeddings."""
        return self.model_of_product.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the word embeddings; raises ValueError for another shape."""
        self.model_of_product.set_input_embeddings(value)

    def get_output_embeddings(self) -> None:
        """Return None: the decoder of language modelling has no weights of its own."""

    def get_position_embeddings(self) -> nn.Embedding:
        """Return the position embeddings."""
        return self.model_of_product.get_position_embeddings()

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = False
    ) -> nn.Embedding:
        """Keep the first tokens of the vocabulary or add to it; mean_resizing is not used: new ones are drawn."""
        model = self.model_of_product
        embeddings: nn.Embedding = model.resize_token_embeddings(new_num_tokens, pad_to_multiple_of)
        self._made["config"] = next(module.config for module in self.modules() if _is_product(module))
        self.config.vocab_size = self.vocab_size = self._made["config"].vocab_size
        return embeddings

    def set_attention_type(self, value: str) -> None:
        """Attend by blocks ("block_sparse") or fully ("original_full") from now on; raises ValueError for another."""
        self.model_of_product.set_attention_type(value)
        self._made["config"] = next(module.config for module in self.modules() if _is_product(module))
        self.config.attention_type = value

    def gradient_checkpointing_enable(
        self,
        gradient_checkpointing_kwargs: Mapping[str, Any] | None = None,
        every_n_layers: int = 1,
        offload: Any = None,
    ) -> None:
        """In training, compute layers again in the backward pass rather than keep them.

        Raises ValueError for every_n_layers other than 1, and for offload: every layer is computed again, in place.
        """
        given = {
            name: value for name, value in (gradient_checkpointing_kwargs or {}).items() if name != "use_reentrant"
        }
        self.model_of_product.gradient_checkpointing_enable(given, every_n_layers, offload)

    def gradient_checkpointing_disable(self) -> None:
        """Keep the layers' intermediates for the backward pass (the default)."""
        self.model_of_product.gradient_checkpointing_disable()

    def _init_weights(self, module: nn.Module) -> None:
        """Draw what no file gave, as the original does: a normal distribution cut at two deviations, zeros, ones."""
        deviation = self.config.initializer_range
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.trunc_normal_(module.weight, std=deviation, a=-2 * deviation, b=2 * deviation)
        if isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
        bias = getattr(module, "bias", None)
        if isinstance(bias, nn.Parameter):
            nn.init.zeros_(bias)


def _known(named: dict[str, Any]) -> dict[str, Any]:
    """Forward's keywords under the product's names, without those that transformers may send along."""
    return {PAST if name == CACHE else name: value for name, value in named.items() if name not in _UNUSED}


def _tokens(given: Mapping[str, Any]) -> int:
    """How many tokens a call of a decoder brings."""
    names = ("decoder_input_ids", "decoder_inputs_embeds", "input_ids", "inputs_embeds")
    return next(given[name].shape[1] for name in names if given.get(name) is not None)


def _is_product(module: Any) -> bool:
    return hasattr(getattr(module, "config", None), "family") and not isinstance(module, PortedModel)


def _tied(model: PortedModel) -> Any:
    """Names of parameters that are another's once more: the kind of value that this transformers wants."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    own = model.config.product().for_head(model.product.head)
    wanted = {row.torch for row in weights_of(own, model.product.head, "torch")}
    tied: dict[str, str] = {}
    for same in names.values():
        first = next((name for name in same if name in wanted), same[0])
        tied |= {name: first for name in same if name != first}
    if not tied:
        return None
    return tied if _wants_mapping() else list(tied)


def _wants_mapping() -> bool:
    import transformers

    return int(transformers.__version__.partition(".")[0]) >= 5
