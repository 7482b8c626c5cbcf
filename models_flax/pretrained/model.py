"""A module with its parameters: initial values, loading, saving, and the call.

A folder is config.json beside flax_model.msgpack or model.safetensors, as convert and transformers write them.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array
from jax import numpy as jnp
from jax.sharding import PartitionSpec
from jax.typing import ArrayLike, DTypeLike

from bigbird_port.families.configuration import described
from bigbird_port.families.registry import family_of, find_head
from bigbird_port.models.folder import WEIGHT_FILES, write_model_folder
from bigbird_port.models.loading import Loading, check_config, load_model
from bigbird_port.schema.positions import extend_positions
from bigbird_port.schema.weights import framework_shapes, from_framework, initial_arrays
from models_flax.bigbird.cache import LayerCache, init_cache
from models_flax.pretrained.files import read_safetensors, write_safetensors
from models_flax.sharding import partition_specs

Params = dict[str, Any]
Past = tuple[LayerCache, ...]
_POSITIONS = ("embeddings/position_embeddings/embedding", "embed_positions/embedding")
_SAFETENSORS = "model.safetensors"  # the name that torch's file has too
_READERS = {_SAFETENSORS: read_safetensors}
_OWN_ARGUMENTS = ("dtype", "gradient_checkpointing", "skip_padding")
# What torch's from_pretrained has beside them: the next step here.
_REFUSED = {
    "torch_dtype": "give dtype, the type of the computation; to_bf16 and the like cast parameters",
    "device_map": "load within 'with jax.default_device(device):', or use models_flax.sharding for several",
}


class FlaxBigBirdPreTrainedModel:
    """Base of the models: a linen module with its parameters.

    head: the head's name in the schema. smallest_input: shape of the least ids. decoder_inputs: which of
    encoder_hidden_states, encoder_attention_mask and past_key_values the module takes. module: the linen module,
    which composes into others. params: its parameters. initialised: canonical names of weights that came from no file.
    """

    head: ClassVar[str]
    model_type: ClassVar[str] = "big_bird"
    base_model_prefix: ClassVar[str] = "bert"
    module_class: ClassVar[Any]
    smallest_input: ClassVar[tuple[int, ...]] = (1, 1)
    decoder_inputs: ClassVar[tuple[str, ...]] = ()
    config: Any
    module: Any
    params: Params
    initialised: list[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not hasattr(cls, "head"):  # a class of the caller's, or of a wrapper, keeps its base's
            cls.head = find_head(cls.__name__).name

    def __init__(
        self,
        config: Any,
        input_shape: tuple[int, ...] | None = None,
        seed: int = 0,
        dtype: DTypeLike = jnp.float32,
        _do_init: bool = True,
        gradient_checkpointing: bool = False,
        *,
        skip_padding: bool = True,
    ) -> None:
        """Build with initial weights drawn from ``seed``, the same that the torch twin draws.

        input_shape: shape of ids that the module must be able to take (the weights do not depend on it). dtype: of
        the computation; the parameters are float32. _do_init: False leaves ``params`` empty, to be given in the call.
        gradient_checkpointing: compute the layers again for the gradient, which saves memory. skip_padding: leave out
        blocks that are nothing but padding. Raises ValueError for an input_shape that the configuration does not allow.
        """
        check_config(config, self.model_type, type(self).__name__)
        self.config = config.for_head(self.head)
        self.input_shape = self.smallest_input if input_shape is None else tuple(input_shape)
        self.dtype = jnp.dtype(dtype)
        self.module = self.module_class(
            config=self.config,
            dtype=self.dtype,
            gradient_checkpointing=gradient_checkpointing,
            skip_padding=skip_padding,
        )
        self.params, self.initialised = {}, []
        if input_shape is not None:
            self.param_shapes()  # raises where the module does not take it
        if _do_init:
            arrays, self.initialised = initial_arrays(self.config, self.head, "flax", seed)
            self.load_arrays(arrays)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        init_seed: int | None = None,
        dtype: DTypeLike = jnp.float32,
        gradient_checkpointing: bool = False,
        skip_padding: bool = True,
        **keywords: Any,
    ) -> Self:
        """Load from ``folder``.

        The folder holds config.json with flax_model.msgpack or model.safetensors, or is one that convert wrote; or it
        is the name of a model of the hub. init_seed: initialise head weights that the folder lacks from this seed; None
        makes them an error. dtype, gradient_checkpointing, skip_padding: the constructor's. keywords: fields of
        BigBirdConfig to change, and bigbird_port.models.loading's, such as config and ignore_mismatched_sizes; with
        output_loading_info (model, info) is returned. Raises ValueError naming file, weight, argument or field.
        """
        loading = Loading.of(keywords | {"init_seed": init_seed}, _OWN_ARGUMENTS, _REFUSED, family_of(cls.model_type))
        loaded = load_model(folder, cls.head, "flax", loading, _READERS)
        model = cls(
            loaded.config,
            dtype=dtype,
            _do_init=False,
            gradient_checkpointing=gradient_checkpointing,
            skip_padding=skip_padding,
        )
        model.load_arrays(loaded.arrays)
        model.initialised = loaded.initialised
        if loading.output_loading_info:
            return model, loaded.info("flax", cls.head)  # type: ignore[return-value]  # as in transformers
        return model

    @classmethod
    def from_config(cls, config: Any, seed: int = 0) -> Self:
        """Build with initial weights drawn from ``seed``, the same that the torch twin draws."""
        return cls(config, seed=seed)

    def save_pretrained(
        self, folder: str | Path, params: Params | None = None, safe_serialization: bool = False
    ) -> None:
        """Write config.json and flax_model.msgpack, or with safe_serialization model.safetensors, into ``folder``.

        params: the parameters to write, None for the model's own. transformers' Flax classes read either. Raises
        ValueError unless the parameters are those of the configuration.
        """
        folder = Path(folder)
        flat = flatten_dict(self.params if params is None else params, sep="/")
        arrays = {name: np.asarray(leaf) for name, leaf in flat.items()}
        weights = from_framework(arrays, self.config, self.head, "flax")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / WEIGHT_FILES["flax"]).unlink(
            missing_ok=True
        )  # not overwritten: these parameters may be mapped from it
        if safe_serialization:
            write_safetensors(folder / _SAFETENSORS, arrays)
            values = described(self.config, self.head)
            (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        else:
            write_model_folder(folder, weights, self.config, self.head, "flax")

    def load_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take over weights under their Flax paths; raises ValueError unless names and shapes fit exactly.

        Without a copy where memory allows: the arrays must not change afterwards.
        """
        expected = framework_shapes(self.config, self.head, "flax")
        found = {name: array.shape for name, array in arrays.items()}
        if found != expected:
            differing = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
            raise ValueError(f"parameters that do not fit the module: {', '.join(differing)}")
        self.params = unflatten_dict({name: jax.device_put(array) for name, array in arrays.items()}, sep="/")

    def param_shapes(self) -> Params:
        """Return the parameter tree as shapes and dtypes, without computing anything."""
        return jax.tree.map(lambda leaf: leaf, _param_shapes(self.module, tuple(self.input_shape)))

    def extend_positions(
        self, length: int, method: str = "tile", params: Params | None = None, **config_overrides: Any
    ) -> Self:
        """Return a model with ``length`` position embeddings made from this one's, all else as it is.

        method: "tile" or "interpolate", see bigbird_port.schema.positions. params: the parameters to begin with, None
        for the model's own. config_overrides: fields of BigBirdConfig to change with max_position_embeddings, such as
        max_encoder_length. Raises ValueError for a shorter length.
        """
        flat = flatten_dict(self._params_for(params), sep="/")
        (name,) = (name for name in flat if name.endswith(_POSITIONS))
        longer = extend_positions(np.asarray(flat[name]), length, method)
        config = self.config.replace(max_position_embeddings=length, **config_overrides)
        checkpointing, skipping = self.module.gradient_checkpointing, self.module.skip_padding
        model = type(self)(config, self.input_shape, 0, self.dtype, False, checkpointing, skip_padding=skipping)
        model.params = unflatten_dict(flat | {name: jnp.asarray(longer)}, sep="/")
        model.initialised = list(self.initialised)
        return model

    def num_parameters(self, params: Params | None = None) -> int:
        """Return how many numbers the parameters hold; ``params`` None are the model's own."""
        return sum(leaf.size for leaf in jax.tree.leaves(self._params_for(params)))

    def can_generate(self) -> bool:
        """Whether the model writes text (generate)."""
        return hasattr(self, "generate")

    def set_attention_type(self, value: str) -> None:
        """Attend by blocks ("block_sparse") or fully ("original_full") from now on; raises ValueError for another."""
        config = self.config.replace(attention_type=value)
        if config.is_decoder and value == "block_sparse":
            raise ValueError("a decoder cannot attend block-sparsely: leave attention_type as it is, original_full")
        self.config, self.module = config, self.module.clone(config=config)

    def gradient_checkpointing_enable(self) -> None:
        """Compute layers again for the gradient rather than keep them: less memory, more time."""
        self.module = self.module.clone(gradient_checkpointing=True)

    def gradient_checkpointing_disable(self) -> None:
        """Keep the layers' intermediates for the gradient (the default)."""
        self.module = self.module.clone(gradient_checkpointing=False)

    def partition_specs(self, tensor_axis: str = "tensor", size: int = 1) -> Params:
        """Return a PartitionSpec for every parameter over a mesh axis of your own, as devices.partition has it.

        size: of the axis; it must divide num_attention_heads and intermediate_size, and a vocabulary that it does not
        divide stays whole. For a mesh with this project's axes see models_flax.sharding.
        """
        specs = partition_specs(self.config, self.head, {"model": size})
        return jax.tree.map(lambda spec: PartitionSpec(*(axis and tensor_axis for axis in spec)), specs)

    def init_cache(self, batch_size: int, max_length: int) -> Past:
        """Return an empty cache for decoding max_length tokens; raises ValueError as bigbird/cache.py's init_cache."""
        return init_cache(self.config, batch_size, max_length, self.dtype)

    def to_bf16(self, params: Params, mask: Params | None = None) -> Params:
        """Return ``params`` in bfloat16 (where ``mask``, a tree of bools, says so); the model's own stay."""
        return _cast(params, jnp.bfloat16, mask)

    def to_fp16(self, params: Params, mask: Params | None = None) -> Params:
        """Return ``params`` in float16 (where ``mask``, a tree of bools, says so); the model's own stay."""
        return _cast(params, jnp.float16, mask)

    def to_fp32(self, params: Params, mask: Params | None = None) -> Params:
        """Return ``params`` in float32 (where ``mask``, a tree of bools, says so); the model's own stay."""
        return _cast(params, jnp.float32, mask)

    def __call__(
        self,
        input_ids: ArrayLike,
        attention_mask: ArrayLike | None = None,
        token_type_ids: ArrayLike | None = None,
        position_ids: ArrayLike | None = None,
        head_mask: ArrayLike | None = None,
        encoder_hidden_states: ArrayLike | None = None,
        encoder_attention_mask: ArrayLike | None = None,
        params: Params | None = None,
        dropout_rng: Array | None = None,
        indices_rng: Array | None = None,
        train: bool = False,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        past_key_values: Past | None = None,
        *,
        output_taps: bool = False,
    ) -> Any:
        """Run the module on ``params`` (None: the model's own); the arrays are the module's.

        train: apply dropout, drawn from ``dropout_rng``, and, where random_blocks is "resample", draw random blocks
        from ``indices_rng``. output_attentions, output_hidden_states, return_dict: None is as configured. return_dict
        False: return a tuple. Raises ValueError naming what does not fit.
        """
        arrays = (input_ids, attention_mask, token_type_ids, position_ids, head_mask)
        decoder = {
            "encoder_hidden_states": encoder_hidden_states,
            "encoder_attention_mask": encoder_attention_mask,
            "past_key_values": past_key_values,
        }
        flags = (train, output_attentions, output_hidden_states, return_dict, output_taps)
        return self._apply(arrays, decoder, params, dropout_rng, indices_rng, *flags)

    def _apply(
        self,
        arrays: tuple[ArrayLike | None, ...],
        decoder: dict[str, Any],
        params: Params | None,
        dropout_rng: Array | None,
        indices_rng: Array | None,
        train: bool,
        output_attentions: bool | None,
        output_hidden_states: bool | None,
        return_dict: bool | None,
        output_taps: bool,
    ) -> Any:
        """Run the module on positional ``arrays`` and those of ``decoder`` that were given."""
        for name in (name for name, value in decoder.items() if value is not None and name not in self.decoder_inputs):
            raise ValueError(f"{name} was given, but {type(self).__name__} takes none")
        if output_attentions is None:
            output_attentions = self.config.output_attentions
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        given = {name: jax.tree.map(jnp.asarray, value) for name, value in decoder.items() if value is not None}
        output: Any = self.module.apply(
            {"params": self._params_for(params)},
            # NumPy's stay NumPy's: under jax.jit JAX would make of a mask a traced array, whose padding is not known
            *(x if x is None or isinstance(x, Array) else np.asarray(x) for x in arrays),
            **given,
            deterministic=not train,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            output_taps=output_taps,
            rngs=self._generators(train, dropout_rng, indices_rng),
        )
        as_mapping = self.config.return_dict if return_dict is None else return_dict
        return output if as_mapping else output.to_tuple()

    def _params_for(self, params: Params | None) -> Params:
        params = self.params if params is None else params
        if not params:
            raise ValueError(
                f"{type(self).__name__} was built with _do_init=False and has no parameters: give params=..., or load "
                "some with from_pretrained"
            )
        return params

    def _generators(self, train: bool, dropout_rng: Array | None, indices_rng: Array | None) -> dict[str, Array]:
        """The random streams by linen's names."""
        rates = (self.config.hidden_dropout_prob, self.config.attention_probs_dropout_prob)
        if train and dropout_rng is None and any((*rates, self.config.classifier_dropout)):
            raise ValueError(
                "train=True applies dropout, but no generator was given: pass dropout_rng=jax.random.key(seed), "
                "another one at every step"
            )
        generators = {"dropout": dropout_rng, "indices": indices_rng}
        return {name: rng for name, rng in generators.items() if rng is not None}


@functools.lru_cache(maxsize=64)  # tracing takes longer than loading a small model
def _param_shapes(module: Any, input_shape: tuple[int, ...]) -> Params:
    shapes: Params = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros(input_shape, jnp.int32))["params"]
    return shapes


def _cast(params: Params, dtype: DTypeLike, mask: Params | None) -> Params:
    """Floating-point leaves in ``dtype``, of those that ``mask`` marks."""

    def cast(leaf: Array, marked: bool) -> Array:
        return leaf.astype(dtype) if marked and jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(cast, params, jax.tree.map(lambda _: True, params) if mask is None else mask)
