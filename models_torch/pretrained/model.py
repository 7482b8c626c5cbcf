"""Loading and saving: between a folder that convert or transformers wrote and a model with exactly those weights."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from bigbird_port.families.registry import family_of, find_head
from bigbird_port.models.checkpointing import refuse_partial_checkpointing
from bigbird_port.models.loading import Loading, check_config, load_model
from bigbird_port.models.output import ModelOutput
from bigbird_port.schema.positions import extend_positions
from bigbird_port.schema.weights import initial_arrays
from models_torch.bigbird.tracing import is_traced
from models_torch.pretrained.files import place_of, to_tensor, write_folder

_POSITIONS = ("embeddings.position_embeddings.weight", "embed_positions.weight")
_OWN_ARGUMENTS = ("add_pooling_layer", "dtype", "torch_dtype", "device_map", "gradient_checkpointing")
_CHECKPOINT_OPTIONS = ("preserve_rng_state", "determinism_check", "debug", "context_fn", "early_stop")


class BigBirdPreTrainedModel(nn.Module):
    """Base of the eight models.

    head: the head's name in the schema. initialised: canonical names of the weights that did not come from a file.
    config: the configuration under which the model runs; a decoder's attention is full. model_type: of its family.
    """

    head: ClassVar[str]
    model_type: ClassVar[str] = "big_bird"
    base_model_prefix: ClassVar[str] = "bert"
    config: Any
    initialised: list[str]
    _poolers: ClassVar[tuple[str, ...]] = ("base", "qa")  # heads whose classes can be built with or without a pooler

    def __init_subclass__(cls, abstract: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not abstract and not hasattr(cls, "head"):  # a class of the caller's, or of a wrapper, keeps its base's
            cls.head = find_head(cls.__name__).name

    def __init__(self, config: Any) -> None:
        super().__init__()
        check_config(config, self.model_type, type(self).__name__)
        if config.is_decoder and config.attention_type == "block_sparse":
            _warn_decoder()
            config = config.replace(attention_type="original_full")
        self.config = config.for_head(self.head)
        self.initialised = []

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        init_seed: int | None = None,
        add_pooling_layer: bool | None = None,
        dtype: torch.dtype | str | None = None,
        device_map: Any = None,
        gradient_checkpointing: bool = False,
        **keywords: Any,
    ) -> Self:
        """Load from ``folder``, in evaluation mode.

        The folder holds config.json and model.safetensors, its shards with model.safetensors.index.json, or
        pytorch_model.bin (read as weights only); or it is one that convert wrote; or it is the name of a model of the
        hub. init_seed: initialise head weights that the folder lacks from this seed; None makes them an error.
        add_pooling_layer: of BigBirdModel and BigBirdForQuestionAnswering. dtype (or torch_dtype): of the parameters,
        such as torch.bfloat16 or "float16"; None and "auto" leave them as they are stored. device_map: a device; "auto"
        spreads the model over the devices there are, if accelerate is installed. gradient_checkpointing: see
        gradient_checkpointing_enable. keywords: fields of BigBirdConfig to change, and those of Loading, such as
        config and ignore_mismatched_sizes; with output_loading_info (model, info) is returned. Raises ValueError naming
        file, weight, argument or field.
        """
        wanted = _dtype_of(keywords.pop("torch_dtype", None) if dtype is None else dtype)
        place = place_of(device_map)
        loading = Loading.of(keywords | {"init_seed": init_seed}, _OWN_ARGUMENTS, family=family_of(cls.model_type))
        loaded = load_model(folder, cls.head, "torch", loading)
        model = cls._empty(loaded.config, add_pooling_layer)
        arrays, initialised = loaded.arrays, loaded.initialised
        if model._wants_pooler(arrays):
            base = load_model(folder, "base", "torch", loading)
            arrays = arrays | _pooler_of(base.arrays)
            initialised = initialised + [name for name in base.initialised if name.startswith("pooler.")]
        model.load_arrays(model._without_pooler(arrays))
        model.initialised = [name for name in initialised if add_pooling_layer is not False or "pooler." not in name]
        if gradient_checkpointing:
            model.gradient_checkpointing_enable()
        model = place(model if wanted is None else model.to(wanted)).eval()
        if loading.output_loading_info:
            return model, loaded.info("torch", cls.head)  # type: ignore[return-value]  # as in transformers
        return model

    @classmethod
    def from_config(cls, config: Any, seed: int = 0, *, add_pooling_layer: bool | None = None) -> Self:
        """Build with initial weights drawn from ``seed``, the same that the Flax twin draws; evaluation mode.

        The class itself, called with configuration and seed, draws the same; it begins in training mode.
        """
        model = cls._empty(config, add_pooling_layer)
        model._draw(seed)
        return model.eval()

    def save_pretrained(
        self,
        folder: str | Path,
        max_shard_size: int | str = "5GB",
        *,
        state_dict: Mapping[str, Tensor] | None = None,
        safe_serialization: bool = True,
        is_main_process: bool = True,
        save_function: Callable[[Any, Any], Any] = torch.save,
    ) -> None:
        """Write config.json and model.safetensors as transformers reads them, in shards if larger than max_shard_size.

        max_shard_size: bytes, or text such as "200MB". state_dict: the weights to write, None for the model's own.
        safe_serialization False: write pytorch_model.bin with save_function. is_main_process False: write nothing.
        Weight files that stand in the folder already are replaced. Raises ValueError for weights of other names.
        """
        own = self.state_dict()
        state = own if state_dict is None else state_dict
        if differing := sorted(own.keys() ^ state.keys()):
            raise ValueError(f"state_dict: {differing[0]} is missing, or no weight of a {type(self).__name__}")
        if is_main_process:
            values = self.config.to_json_values(self.config.family.heads[self.head].class_name)  # FSDP2 renames classes
            state = {name: tensor for name, tensor in state.items() if name not in self._repeated()}
            write_folder(Path(folder), state, values, max_shard_size, None if safe_serialization else save_function)

    def load_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take over weights under their torch names; raises RuntimeError unless names and shapes fit exactly."""
        empty = any(parameter.is_meta for parameter in self.parameters())
        self.load_state_dict({name: to_tensor(array) for name, array in arrays.items()}, strict=True, assign=empty)

    @property
    def base(self) -> Any:
        """The base model in this one: itself where there is no head."""
        return getattr(self, self.base_model_prefix, self)

    @property
    def base_model(self) -> Any:
        """The base model in this one, as transformers calls it."""
        return self.base

    @property
    def device(self) -> torch.device:
        """Where the first parameter is."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the first parameter of floating-point numbers."""
        return next(x.dtype for x in self.parameters() if x.is_floating_point())

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """Return how many numbers the parameters hold."""
        embeddings = {id(m.weight) for m in self.modules() if isinstance(m, nn.Embedding)} if exclude_embeddings else ()
        return sum(
            x.numel() for x in self.parameters() if (x.requires_grad or not only_trainable) and id(x) not in embeddings
        )

    def can_generate(self) -> bool:
        """Whether the model writes text (generate)."""
        return hasattr(self, "generate")

    def tie_weights(self) -> None:
        """Do nothing: the decoder of language modelling is the word embeddings themselves, always."""

    def split_inputs(self, arrays: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return forward's arrays as the base model's and as what ``score`` wants beside hidden states."""
        return arrays, {}

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the word embeddings."""
        return self.base.embeddings.word_embeddings

    def get_position_embeddings(self) -> nn.Embedding:
        """Return the position embeddings."""
        return self.base.embeddings.position_embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the word embeddings, and with them the tied decoder; raises ValueError for another shape."""
        expected = (self.config.vocab_size, self.config.hidden_size)
        if tuple(value.weight.shape) != expected:
            raise ValueError(
                f"the embeddings have shape {list(value.weight.shape)}, expected {list(expected)}: "
                "resize_token_embeddings changes the vocabulary"
            )
        self.base.embeddings.word_embeddings = value

    def get_output_embeddings(self) -> nn.Linear | None:
        """Return the decoder of language modelling as a layer, which holds the model's own weights; else None."""
        head = getattr(self, "cls", None)
        if head is None:
            return None
        decoder = nn.Linear(self.config.hidden_size, self.config.vocab_size, device="meta")
        decoder.weight, decoder.bias = self.get_input_embeddings().weight, head.predictions.bias
        return decoder

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, *, seed: int = 0
    ) -> nn.Embedding:
        """Keep the first new_num_tokens of the vocabulary or add to it, and return the word embeddings.

        pad_to_multiple_of: add tokens until their number is a multiple of this. New embeddings are drawn from a normal
        distribution (initializer_range) with ``seed``, new biases are 0. None changes nothing. The configuration
        follows. Raises ValueError if a special token would be lost.
        """
        old = self.get_input_embeddings()
        wanted = self.config.vocab_size if new_num_tokens is None else new_num_tokens
        if pad_to_multiple_of is not None:
            if pad_to_multiple_of < 1:
                raise ValueError(f"pad_to_multiple_of is {pad_to_multiple_of}, expected at least 1, or None")
            wanted += -wanted % pad_to_multiple_of
        if wanted == self.config.vocab_size:
            return old
        config = self.config.replace(vocab_size=wanted)
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(wanted, config.hidden_size, generator=generator) * config.initializer_range
        old.weight = _resized(old.weight, drawn)
        old.num_embeddings = wanted
        head = getattr(self, "cls", None)
        if head is not None:
            head.predictions.bias = _resized(head.predictions.bias, torch.zeros(wanted))
        self._use(config)
        return old

    def set_attention_type(self, value: str) -> None:
        """Attend by blocks ("block_sparse") or fully ("original_full") from now on; raises ValueError for another."""
        config = self.config.replace(attention_type=value)
        if config.is_decoder and value == "block_sparse":
            raise ValueError("a decoder cannot attend block-sparsely: leave attention_type as it is, original_full")
        self._use(config)

    def _use(self, config: Any) -> None:
        """Run under another configuration, whose weights are the same but for what the caller changed."""
        for module in self.modules():
            if isinstance(getattr(module, "config", None), type(config)):
                module.config = config

    def extend_positions(self, length: int, method: str = "tile", **config_overrides: Any) -> Self:
        """Return a model with ``length`` position embeddings made from this one's, all else copied.

        method: "tile" or "interpolate", see bigbird_port.schema.positions. config_overrides: fields of BigBirdConfig to
        change with max_position_embeddings, such as max_encoder_length. Raises ValueError for a shorter length.
        """
        pooling = getattr(self.base, "pooler", None) is not None if self.head in self._poolers else None
        old = self.get_position_embeddings().weight.detach().cpu()
        table = old.float().numpy() if old.dtype in (torch.bfloat16, torch.float16) else old.numpy()
        longer = torch.from_numpy(extend_positions(table, length, method))
        config = self.config.replace(max_position_embeddings=length, **config_overrides)
        model = self._empty(config, pooling)
        state = {name: tensor.detach().clone() for name, tensor in self.state_dict().items()}
        for name in (name for name in state if name.endswith(_POSITIONS)):
            state[name] = longer.to(state[name])
        model.load_state_dict(state, strict=True, assign=True)
        model.initialised = list(self.initialised)
        return model.train(self.training)

    def enable_input_require_grads(self) -> None:
        """Let gradients reach the word embeddings' output, as adapters need that train no embeddings."""
        self.disable_input_require_grads()
        self._input_hook = self.get_input_embeddings().register_forward_hook(_require_grad)

    def disable_input_require_grads(self) -> None:
        """Undo enable_input_require_grads."""
        hook = self.__dict__.pop("_input_hook", None)
        if hook is not None:
            hook.remove()

    def gradient_checkpointing_enable(
        self,
        gradient_checkpointing_kwargs: dict[str, Any] | None = None,
        every_n_layers: int = 1,
        offload: Any = None,
    ) -> None:
        """In training, compute layers again in the backward pass rather than keep them: less memory, more time.

        gradient_checkpointing_kwargs: torch.utils.checkpoint.checkpoint's. use_reentrant is False whatever it says,
        with a warning. every_n_layers, offload: Trainer of transformers 5 gives them. Raises ValueError naming an
        argument that checkpoint has not, for every_n_layers other than 1, and for offload.
        """
        refuse_partial_checkpointing(every_n_layers, offload)
        self._checkpoint(self.base.encoder, gradient_checkpointing_kwargs)

    def _checkpoint(self, stack: Any, given: dict[str, Any] | None) -> None:
        """Have a stack's layers computed again."""
        options = dict(given or {})
        unknown = sorted(options.keys() - {"use_reentrant", *_CHECKPOINT_OPTIONS})
        if unknown:
            raise ValueError(
                f"gradient_checkpointing_kwargs: there is no {unknown[0]!r}: expected use_reentrant, "
                f"{', '.join(_CHECKPOINT_OPTIONS)}"
            )
        if options.pop("use_reentrant", False):
            warnings.warn(
                "gradient_checkpointing_kwargs: use_reentrant=True is not used: the other way gives the same "
                "gradients, and torch recommends it",
                stacklevel=2,
            )
        stack.checkpoint_options, stack.gradient_checkpointing = options, True

    def gradient_checkpointing_disable(self) -> None:
        """Keep the layers' intermediates for the backward pass (the default)."""
        self.base.encoder.gradient_checkpointing = False

    @classmethod
    def _empty(cls, config: Any, add_pooling_layer: bool | None) -> Self:
        """Build without values."""
        if add_pooling_layer is not None and cls.head not in cls._poolers:
            raise ValueError(f"add_pooling_layer was given, but {cls.__name__} has no such choice: leave it out")
        arguments = {} if add_pooling_layer is None else {"add_pooling_layer": add_pooling_layer}
        with torch.device("meta"):
            return cls(config, **arguments)

    def _returned(self, output: ModelOutput, return_dict: bool | None) -> Any:
        """A call's output, or a tuple of what it holds; torch.jit.trace knows tuples only."""
        as_mapping = self.config.return_dict and not is_traced() if return_dict is None else return_dict
        return output if as_mapping else output.to_tuple()

    def _initialise(self, seed: int | None) -> None:
        """Draw the constructor's weights; None, and a model without values, leave them to whoever loads some."""
        if seed is not None and not any(parameter.is_meta for parameter in self.parameters()):
            self._draw(seed)

    def _draw(self, seed: int) -> None:
        """Take over initial weights drawn from ``seed``."""
        arrays, self.initialised = initial_arrays(self.config, self.head, "torch", seed)
        if self._wants_pooler(arrays):
            arrays |= _pooler_of(initial_arrays(self.config, "base", "torch", seed)[0])
        self.load_arrays(self._without_pooler(arrays))

    def _repeated(self) -> frozenset[str]:
        """Names in state_dict that are not written, because they hold another's values once more."""
        return frozenset()

    def _wants_pooler(self, arrays: Mapping[str, np.ndarray]) -> bool:
        return getattr(self.base, "pooler", None) is not None and not any("pooler." in name for name in arrays)

    def _without_pooler(self, arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        if self.head not in self._poolers or self.base.pooler is not None:
            return arrays
        return {name: array for name, array in arrays.items() if not name.startswith("pooler.")}


@functools.cache  # said once
def _warn_decoder() -> None:
    warnings.warn(
        "a decoder cannot attend block-sparsely: full attention runs instead (attention_type='original_full')",
        stacklevel=4,
    )


def _pooler_of(base: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"bert.{name}": array for name, array in base.items() if name.startswith("pooler.")}


def _resized(old: Tensor, fresh: Tensor) -> nn.Parameter:
    """``fresh`` with the values, type and place of ``old`` where both have rows."""
    kept = min(len(old), len(fresh))
    new = fresh.to(old)
    new[:kept] = old.detach()[:kept]
    return nn.Parameter(new, requires_grad=old.requires_grad)


def _require_grad(module: nn.Module, arguments: Any, output: Tensor) -> None:
    output.requires_grad_(True)


def _dtype_of(given: torch.dtype | str | None) -> torch.dtype | None:
    """The type that parameters are to have; None leaves them as they are."""
    if given is None or given == "auto":
        return None
    found = getattr(torch, given.removeprefix("torch."), None) if isinstance(given, str) else given
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ValueError(f"dtype is {given!r}, expected a type of floating-point numbers, such as torch.bfloat16")
    return found
