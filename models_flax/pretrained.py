"""Loading: from a folder that convert or transformers wrote to a model with exactly those weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import jax
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array
from jax import numpy as jnp

from bigbird_port.config import BigBirdConfig
from bigbird_port.folder import load_weights
from bigbird_port.heads import find_head
from bigbird_port.weights import initial_arrays

Params = dict[str, Any]


class FlaxBigBirdPreTrainedModel:
    """Base of the eight models: a linen module with its parameters.

    head: the head's name in the schema. smallest_input: shape of the least ids. module: the linen module, which
    composes into others. params: its parameters. initialised: canonical names of weights that came from no file.
    """

    head: ClassVar[str]
    module_class: ClassVar[type[nn.Module]]
    smallest_input: ClassVar[tuple[int, ...]] = (1, 1)
    config: BigBirdConfig
    module: nn.Module
    params: Params
    initialised: list[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.head = find_head(cls.__name__).name

    def __init__(self, config: BigBirdConfig, params: Params | None = None) -> None:
        self.config = config.for_head(self.head)
        self.module = self.module_class(self.config)
        self.params = {} if params is None else params
        self.initialised = []

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, init_seed: int | None = None, **config_overrides: Any) -> Self:
        """Load from ``folder`` (config.json and flax_model.msgpack, or what convert wrote).

        init_seed: initialise head weights that the folder lacks from this seed; None makes them an error.
        config_overrides: fields of BigBirdConfig to change. Raises ValueError naming file, weight or field.
        """
        config, arrays, initialised = load_weights(folder, cls.head, "flax", init_seed, config_overrides)
        model = cls(config)
        model.load_arrays(arrays)
        model.initialised = initialised
        return model

    @classmethod
    def from_config(cls, config: BigBirdConfig, seed: int = 0) -> Self:
        """Build with initial weights drawn from ``seed``, the same that the torch twin draws."""
        model = cls(config)
        arrays, model.initialised = initial_arrays(model.config, cls.head, "flax", seed)
        model.load_arrays(arrays)
        return model

    def load_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take over weights under their Flax paths; raises ValueError unless names and shapes fit exactly."""
        expected = {name: leaf.shape for name, leaf in flatten_dict(self.param_shapes(), sep="/").items()}
        found = {name: array.shape for name, array in arrays.items()}
        if found != expected:
            differing = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
            raise ValueError(f"parameters that do not fit the module: {', '.join(differing)}")
        self.params = unflatten_dict({name: jnp.asarray(array) for name, array in arrays.items()}, sep="/")

    def param_shapes(self) -> Params:
        """Return the parameter tree as shapes and dtypes, without computing anything."""
        ids = jnp.ones(self.smallest_input, jnp.int32)
        return jax.eval_shape(self.module.init, jax.random.key(0), ids)["params"]

    def __call__(
        self,
        input_ids: Array,
        attention_mask: Array | None = None,
        token_type_ids: Array | None = None,
        position_ids: Array | None = None,
        *,
        params: Params | None = None,
        dropout_rng: Array | None = None,
        train: bool = False,
        **options: Any,
    ) -> Any:
        """Run the module on ``params`` (default: the model's own); the arguments are those of the torch twin.

        train: apply dropout, drawn from ``dropout_rng``.
        """
        rngs = {} if dropout_rng is None else {"dropout": dropout_rng}
        return self.module.apply(
            {"params": self.params if params is None else params},
            *(None if x is None else jnp.asarray(x) for x in (input_ids, attention_mask, token_type_ids, position_ids)),
            deterministic=not train,
            rngs=rngs,
            **options,
        )
