"""Loading and saving: between a folder that convert or transformers wrote and a model with exactly those weights."""

from __future__ import annotations

import functools
import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from bigbird_port.casting import float_type
from bigbird_port.config import BigBirdConfig
from bigbird_port.folder import load_weights
from bigbird_port.formats.filling import write_arrays
from bigbird_port.formats.safetensors import SafetensorsFormat
from bigbird_port.heads import find_head
from bigbird_port.positions import extend_positions
from bigbird_port.sizes import parse_size
from bigbird_port.weights import initial_arrays

_POSITIONS = "embeddings.position_embeddings.weight"
_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")


class BigBirdPreTrainedModel(nn.Module):
    """Base of the eight models.

    head: the head's name in the schema. initialised: canonical names of the weights that did not come from a file.
    config: the configuration under which the model runs; a decoder's attention is full.
    """

    head: ClassVar[str]
    config: BigBirdConfig
    initialised: list[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not hasattr(cls, "head"):  # a class of the caller's, or of a wrapper, keeps its base's
            cls.head = find_head(cls.__name__).name

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        if config.is_decoder and config.attention_type == "block_sparse":
            _warn_decoder()
            config = config.replace(attention_type="original_full")
        self.config = config.for_head(self.head)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        init_seed: int | None = None,
        add_pooling_layer: bool | None = None,
        **config_overrides: Any,
    ) -> Self:
        """Load from ``folder``, in evaluation mode.

        The folder holds config.json and model.safetensors, its shards with model.safetensors.index.json, or
        pytorch_model.bin (read as weights only); or it is one that convert wrote. init_seed: initialise head weights
        that the folder lacks from this seed; None makes them an error. add_pooling_layer: of BigBirdModel and
        BigBirdForQuestionAnswering. config_overrides: fields of BigBirdConfig to change. Raises ValueError naming
        file, weight or field.
        """
        config, arrays, initialised = load_weights(folder, cls.head, "torch", init_seed, config_overrides)
        model = cls._empty(config, add_pooling_layer)
        if model._wants_pooler(arrays):
            _, base, absent = load_weights(folder, "base", "torch", init_seed, config_overrides)
            arrays |= _pooler_of(base)
            initialised += [name for name in absent if name.startswith("pooler.")]
        model.load_arrays(model._without_pooler(arrays))
        model.initialised = [name for name in initialised if add_pooling_layer is not False or "pooler." not in name]
        return model.eval()

    @classmethod
    def from_config(cls, config: BigBirdConfig, seed: int = 0, *, add_pooling_layer: bool | None = None) -> Self:
        """Build with initial weights drawn from ``seed``, the same that the Flax twin draws; evaluation mode."""
        model = cls._empty(config, add_pooling_layer)
        arrays, model.initialised = initial_arrays(model.config, cls.head, "torch", seed)
        if model._wants_pooler(arrays):
            arrays |= _pooler_of(initial_arrays(model.config, "base", "torch", seed)[0])
        model.load_arrays(model._without_pooler(arrays))
        return model.eval()

    def save_pretrained(self, folder: str | Path, max_shard_size: int | str = "5GB") -> None:
        """Write config.json and model.safetensors as transformers reads them, in shards if larger than max_shard_size.

        max_shard_size: bytes, or text such as "200MB". Weight files that stand in the folder already are replaced.
        """
        _write_folder(Path(folder), self.state_dict(), self.config, type(self).__name__, max_shard_size)

    def load_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take over weights under their torch names; raises RuntimeError unless names and shapes fit exactly."""
        self.load_state_dict({name: _to_tensor(array) for name, array in arrays.items()}, strict=True, assign=True)

    @property
    def base(self) -> Any:
        """The base model in this one, a BigBirdModel: itself where there is no head."""
        return getattr(self, "bert", self)

    def split_inputs(self, arrays: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return forward's arrays as the base model's and as what ``score`` wants beside hidden states."""
        return arrays, {}

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the word embeddings."""
        return self.base.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the word embeddings, and with them the tied decoder; raises ValueError for another shape."""
        expected = (self.config.vocab_size, self.config.hidden_size)
        if tuple(value.weight.shape) != expected:
            raise ValueError(
                f"the embeddings have shape {list(value.weight.shape)}, expected {list(expected)}: "
                "resize_token_embeddings changes the vocabulary"
            )
        self.base.embeddings.word_embeddings = value

    def resize_token_embeddings(self, new_num_tokens: int | None = None, seed: int = 0) -> nn.Embedding:
        """Keep the first new_num_tokens of the vocabulary or add to it, and return the word embeddings.

        New embeddings are drawn from a normal distribution (initializer_range) with ``seed``, new biases are 0. None
        changes nothing. The configuration follows. Raises ValueError if a special token would be lost.
        """
        old = self.get_input_embeddings()
        if new_num_tokens is None or new_num_tokens == self.config.vocab_size:
            return old
        config = self.config.replace(vocab_size=new_num_tokens)
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(new_num_tokens, config.hidden_size, generator=generator) * config.initializer_range
        old.weight = _resized(old.weight, drawn)
        old.num_embeddings = new_num_tokens
        head = getattr(self, "cls", None)
        if head is not None:
            head.predictions.bias = _resized(head.predictions.bias, torch.zeros(new_num_tokens))
        for module in self.modules():
            if isinstance(getattr(module, "config", None), BigBirdConfig):
                module.config = config  # type: ignore[assignment]
        return old

    def extend_positions(self, length: int, method: str = "tile", **config_overrides: Any) -> Self:
        """Return a model with ``length`` position embeddings made from this one's, all else copied.

        method: "tile" or "interpolate", see bigbird_port.positions. config_overrides: fields of BigBirdConfig to
        change with max_position_embeddings, such as max_encoder_length. Raises ValueError for a shorter length.
        """
        pooling = self.base.pooler is not None if self.head in ("base", "qa") else None
        old = self.base.embeddings.position_embeddings.weight.detach().cpu()
        table = old.float().numpy() if old.dtype in (torch.bfloat16, torch.float16) else old.numpy()
        longer = torch.from_numpy(extend_positions(table, length, method))
        config = self.config.replace(max_position_embeddings=length, **config_overrides)
        model = self._empty(config, pooling)
        state = {name: tensor.detach().clone() for name, tensor in self.state_dict().items()}
        (name,) = (name for name in state if name.endswith(_POSITIONS))
        state[name] = longer.to(state[name])
        model.load_state_dict(state, strict=True, assign=True)
        model.initialised = list(self.initialised)
        return model.train(self.training)

    def gradient_checkpointing_enable(self) -> None:
        """In training, compute layers again in the backward pass rather than keep them: less memory, more time."""
        self.base.encoder.gradient_checkpointing = True

    def gradient_checkpointing_disable(self) -> None:
        """Keep the layers' intermediates for the backward pass (the default)."""
        self.base.encoder.gradient_checkpointing = False

    @classmethod
    def _empty(cls, config: BigBirdConfig, add_pooling_layer: bool | None) -> Self:
        """Build without values."""
        if add_pooling_layer is not None and cls.head not in ("base", "qa"):
            raise ValueError(f"add_pooling_layer was given, but {cls.__name__} has no such choice: leave it out")
        arguments = {} if add_pooling_layer is None else {"add_pooling_layer": add_pooling_layer}
        with torch.device("meta"):
            return cls(config, **arguments)

    def _wants_pooler(self, arrays: Mapping[str, np.ndarray]) -> bool:
        return self.base.pooler is not None and not any("pooler." in name for name in arrays)

    def _without_pooler(self, arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        if self.base.pooler is not None:
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


def _to_tensor(array: np.ndarray) -> Tensor:
    """Return an array as a tensor of its own; bfloat16, which NumPy knows as an extension only, by its bits."""
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(np.require(array, requirements="W"))


def _to_array(tensor: Tensor) -> np.ndarray:
    """Return a tensor's values as an array, which may share its memory; the reverse of _to_tensor."""
    values = tensor.detach().cpu().contiguous()
    if values.dtype == torch.bfloat16:
        return values.view(torch.int16).numpy().view(float_type("bfloat16"))
    return values.numpy()


def _write_folder(
    folder: Path, tensors: Mapping[str, Tensor], config: BigBirdConfig, architecture: str, max_shard_size: int | str
) -> None:
    """Write config.json and the weights, in as many shards as max_shard_size asks for (a larger tensor has its own)."""
    try:
        form = SafetensorsFormat({"format": "pt"}, _SINGLE, parse_size(max_shard_size))
    except ValueError as error:
        raise ValueError(f"max_shard_size: {error}") from None
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.iterdir():  # a reader would find the old weights
        if stale.name in (_SINGLE, _INDEX) or _SHARD.fullmatch(stale.name):
            stale.unlink()
    (folder / "config.json").write_text(json.dumps(config.to_json_values(architecture), indent=2) + "\n", "utf-8")
    write_arrays(folder, form, {name: _to_array(tensor) for name, tensor in tensors.items()})
