"""The two frameworks as calibration needs them: forward with taps, one layer at a time, backward, and token by token.

Each witness runs a model of one configuration, head, dtype and device; its weights can be exchanged. All arrays that
come back are NumPy's: half-precision taps as float32, which holds them exactly.

Legend: B batch, L length, D hidden.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.families.bigbird.heads import HEADS
from bigbird_port.schema.table import Framework
from bigbird_port.schema.weights import from_framework, to_framework
from parity.given.inputs import Inputs

Taps = dict[str, np.ndarray]
Weights = Mapping[str, np.ndarray]
_NOT_TAPS = {"taps", "loss", "last_hidden_state", "hidden_states", "past_key_values"}


class Backward(NamedTuple):
    """A loss and its gradients: by canonical name of the weight, and by tap (those that the witness can tell)."""

    loss: float
    weights: Taps
    taps: Taps


class Witness(Protocol):
    """A model to measure."""

    def load(self, weights: Weights) -> None:
        """Take over canonical weights."""

    def forward(self, inputs: Inputs, streams: Sequence[np.ndarray] | None) -> Taps:
        """Return every tap; streams: hidden states [B, L, D] to give to layer 0, 1, .. and to the head instead."""

    def backward(self, inputs: Inputs, labels: Inputs) -> Backward:
        """Return the loss and its gradients."""

    def decode(self, ids: np.ndarray) -> np.ndarray:
        """Return the scores [B, L, V] of a causal language model that is given one token at a time."""


class TorchWitness:
    """models_torch, with full matmul precision."""

    framework: Framework = "torch"

    def __init__(self, config: BigBirdConfig, head: str, dtype: str, device: str) -> None:
        import torch

        import models_torch

        torch.set_float32_matmul_precision("highest")
        if device != "cpu" and not (device == "cuda" and torch.cuda.is_available()):
            raise ValueError(f"torch has no device {device!r} here: run the calibration where it is, or leave it out")
        self.config, self.head, self.dtype, self.device = config, head, getattr(torch, dtype), device
        self.model = getattr(models_torch, HEADS[head].class_name).from_config(config)

    def load(self, weights: Weights) -> None:
        """Take over canonical weights."""
        arrays = to_framework(weights, self.config, self.head, "torch")
        self.model.load_arrays(arrays)
        self.model.to(self.device, self.dtype).eval()

    def forward(self, inputs: Inputs, streams: Sequence[np.ndarray] | None) -> Taps:
        """Return every tap; see Witness."""
        import torch

        handles = [] if streams is None else self._feed(streams)
        try:
            with torch.no_grad():
                return _collect(self.model(**self._tensors(inputs), output_taps=True), self._array)
        finally:
            for handle in handles:
                handle.remove()

    def backward(self, inputs: Inputs, labels: Inputs) -> Backward:
        """Return the loss and its gradients, by every tap."""
        self.model.zero_grad()
        output = self.model(**self._tensors(inputs), **self._tensors(labels), output_taps=True)
        for tap in output.taps.values():
            tap.retain_grad()
        output.loss.backward()
        taps = {name: self._array(tap.grad) for name, tap in output.taps.items() if tap.grad is not None}
        arrays = {name: self._array(p.grad) for name, p in self.model.named_parameters() if p.grad is not None}
        absent = {name: np.zeros(p.shape, np.float32) for name, p in self.model.named_parameters() if p.grad is None}
        gradients = from_framework(arrays | absent, self.config, self.head, "torch", any_pooler=True)
        return Backward(float(output.loss.detach().float()), gradients, taps)

    def decode(self, ids: np.ndarray) -> np.ndarray:
        """Return the scores of one token at a time."""
        import torch

        past, logits = None, []
        mask = torch.ones(ids.shape, dtype=torch.bool, device=self.device)
        with torch.no_grad():
            for i in range(ids.shape[1]):
                token = torch.from_numpy(ids[:, i : i + 1]).to(self.device)
                given = {"attention_mask": mask[:, : i + 1], "past_key_values": past, "use_cache": True}
                output = self.model(token, **given)
                past = output.past_key_values
                logits.append(self._array(output.logits))
        return np.concatenate(logits, axis=1)

    def _feed(self, streams: Sequence[np.ndarray]) -> list[Any]:
        """Hooks that put ``streams`` in the place of the layers' inputs, and of the last layer's output."""
        import torch

        given = [torch.from_numpy(x).to(self.device, self.dtype) for x in streams]
        layers = getattr(self.model, "bert", self.model).encoder.layer
        handles = [
            layer.register_forward_pre_hook(lambda _, arguments, x=x: (x, *arguments[1:]))
            for layer, x in zip(layers, given[:-1], strict=True)
        ]
        return [*handles, layers[-1].register_forward_hook(lambda _, arguments, result: (given[-1], result[1]))]

    def _tensors(self, arrays: Inputs) -> dict[str, Any]:
        import torch

        return {name: torch.from_numpy(x).to(self.device) for name, x in arrays.items()}

    def _array(self, tensor: Any) -> np.ndarray:
        return tensor.detach().float().cpu().numpy()


class FlaxWitness:
    """models_flax under jit, with full matmul precision."""

    framework: Framework = "flax"

    def __init__(self, config: BigBirdConfig, head: str, dtype: str, device: str) -> None:
        import jax

        import models_flax

        try:
            self.device = jax.devices({"cuda": "gpu"}.get(device, device))[0]
        except RuntimeError:
            raise ValueError(
                f"jax has no device {device!r} here: run the calibration where it is, or leave it out"
            ) from None
        self.config, self.head, self.layers = config, head, config.num_hidden_layers
        model_class = getattr(models_flax, HEADS[head].flax_class_name)
        self.model = model_class(config, dtype=jax.numpy.dtype(dtype), _do_init=False)
        self._forward, self._backward = jax.jit(self._run), jax.jit(jax.value_and_grad(self._loss, has_aux=False))
        self._step = jax.jit(lambda params, token, past: self.model(token, params=params, past_key_values=past))

    def load(self, weights: Weights) -> None:
        """Take over canonical weights."""
        self.model.load_arrays(to_framework(weights, self.config, self.head, "flax"))

    def forward(self, inputs: Inputs, streams: Sequence[np.ndarray] | None) -> Taps:
        """Return every tap; see Witness. One program serves both kinds of run."""
        import jax

        B, L = inputs["input_ids"].reshape(-1, inputs["input_ids"].shape[-1]).shape
        nothing = [np.zeros((B, L, self.config.hidden_size), np.float32)] * (self.layers + 1)
        given = nothing if streams is None else [x.astype(np.float32) for x in streams]
        with jax.default_device(self.device), jax.default_matmul_precision("highest"):
            output = self._forward(self.model.params, dict(inputs), given, streams is not None)
        return {name: np.asarray(x, np.float32) for name, x in output.items()}

    def backward(self, inputs: Inputs, labels: Inputs) -> Backward:
        """Return the loss and its gradients; taps: the outputs of the layers, by an addend of 0."""
        import jax
        from flax.traverse_util import flatten_dict

        B, L = inputs["input_ids"].reshape(-1, inputs["input_ids"].shape[-1]).shape
        zeros = [np.zeros((B, L, self.config.hidden_size), np.float32)] * (self.layers + 1)
        with jax.default_device(self.device), jax.default_matmul_precision("highest"):
            loss, (params, addends) = self._backward((self.model.params, zeros), dict(inputs), dict(labels))
        arrays = {name: np.asarray(x, np.float32) for name, x in flatten_dict(params, sep="/").items()}
        names = ["embeddings", *(f"layer.{i}.output" for i in range(self.layers))]
        taps = {name: np.asarray(x, np.float32) for name, x in zip(names, addends, strict=True)}
        return Backward(float(loss), from_framework(arrays, self.config, self.head, "flax", any_pooler=True), taps)

    def decode(self, ids: np.ndarray) -> np.ndarray:
        """Return the scores of one token at a time."""
        import jax

        past, logits = self.model.init_cache(*ids.shape), []
        with jax.default_device(self.device), jax.default_matmul_precision("highest"):
            for i in range(ids.shape[1]):
                output = self._step(self.model.params, ids[:, i : i + 1], past)
                past = output.past_key_values
                logits.append(np.asarray(output.logits, np.float32))
        return np.concatenate(logits, axis=1)

    def _run(self, params: Any, inputs: Any, streams: Any, use: Any) -> Any:
        from jax import numpy as jnp

        def change(i: int, x: Any) -> Any:
            return jnp.where(use, streams[i].astype(x.dtype), x)

        return _collect(self._call(params, inputs, change), lambda x: x.astype(jnp.float32))

    def _loss(self, differentiable: Any, inputs: Any, labels: Any) -> Any:
        params, addends = differentiable
        output = self._call(params, inputs, lambda i, x: x + addends[i].astype(x.dtype))
        return _flax_loss(self.config, self.head, output, labels)

    def _call(self, params: Any, inputs: Any, change: Any) -> Any:
        """Run the model; ``change(i, x)`` makes the input of layer i, or of the head (i the number of layers)."""
        from flax import linen as nn

        from models_flax.bigbird.layer import BigBirdLayer

        def intercept(call: Any, arguments: Any, keywords: Any, context: Any) -> Any:
            if not isinstance(context.module, BigBirdLayer) or context.method_name != "__call__":
                return call(*arguments, **keywords)
            i = int(str(context.module.name))
            output, taps = call(change(i, arguments[0]), *arguments[1:], **keywords)
            return (change(i + 1, output) if i + 1 == self.layers else output), taps

        with nn.intercept_methods(intercept):
            return self.model(**inputs, params=params, output_taps=True)


WITNESSES: dict[str, type[TorchWitness] | type[FlaxWitness]] = {"torch": TorchWitness, "flax": FlaxWitness}


def _collect(output: Any, convert: Any) -> Any:
    """The model's taps, and its scores under their field names."""
    scores = {name: x for name, x in vars(output).items() if name not in _NOT_TAPS and x is not None}
    return {name: convert(x) for name, x in (output.taps | scores).items()}


def _flax_loss(config: BigBirdConfig, head: str, output: Any, labels: Any) -> Any:
    """The loss of a head; the Flax models leave it to the caller."""
    from models_flax.bigbird import losses

    if head == "pretraining":
        return losses.masked_lm_loss(output.prediction_logits, labels["labels"]) + losses.next_sentence_loss(
            output.seq_relationship_logits, labels["next_sentence_label"]
        )
    if head == "qa":
        return losses.question_answering_loss(
            output.start_logits, output.end_logits, labels["start_positions"], labels["end_positions"]
        )
    if head == "sequence-classification":
        return losses.classification_loss(output.logits, labels["labels"], config.num_labels, config.problem_type)
    by_labels = {
        "masked-lm": losses.masked_lm_loss,
        "causal-lm": losses.causal_lm_loss,
        "multiple-choice": losses.multiple_choice_loss,
        "token-classification": losses.token_classification_loss,
    }
    return by_labels[head](output.logits, labels["labels"])
