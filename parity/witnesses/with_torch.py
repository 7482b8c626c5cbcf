"""The torch twin as a witness: its own modules, one after the other.

Legend: B batch, L length, D hidden.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.families.family import Step
from bigbird_port.models.folder import read_folder_config
from bigbird_port.schema.weights import digest, from_framework, to_framework
from parity.given.inputs import Inputs
from parity.measure.losses import scores_dtype, total_loss
from parity.reference.own import own_module
from parity.witnesses.devices import torch_device
from parity.witnesses.witness import Gradients, Setting, Source, Taps

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Stream:
    """x [B, L, D]; inputs: what the encoder wants beside it; beside: what the head wants."""

    x: Tensor
    inputs: Any
    beside: dict[str, Any]


class TorchWitness:
    """A model of models_torch, in evaluation mode."""

    name, complete, steps, multiple = "torch", True, True, 1

    def __init__(self, model: Any, setting: Setting) -> None:
        """Digest the loaded weights, then move the model to its dtype and device."""
        import torch

        self.config, self.initialised = model.config, model.initialised
        arrays = {name: _as_stored(x) for name, x in own_tensors(model).items()}
        canonical = from_framework(arrays, self.config, model.head, "torch", any_pooler=True)
        self._digests = {name: digest(x) for name, x in canonical.items()}
        self.device, self.dtype = torch_device(setting.device), getattr(torch, setting.dtype)
        self.scores_dtype = getattr(torch, scores_dtype(model.config.family.heads[model.head], setting.dtype))
        self.model = model.to(self.dtype).to(self.device)

    def digests(self) -> dict[str, str]:
        """Return sha256 of every weight as it was loaded, before any change of dtype."""
        return self._digests

    def scale_words(self, factor: float) -> None:
        """Scale the parameter that a tied decoder shares."""
        scale_words(self.model, factor)

    def start(self, inputs: Inputs) -> tuple[Taps, Stream]:
        """Run the embeddings."""
        with pinned():
            arrays, beside = self.model.split_inputs(self._tensors(inputs))
            x, completed, taps = self.model.base.embed(**arrays)
        return _arrays(taps), Stream(x, completed, beside)

    def step(self, step: Step, stream: Stream) -> tuple[Taps, Stream]:
        """Run a layer, or in prenorm the LayerNorm behind the last one."""
        from models_torch.bigbird.encoder import encoder_lists

        if step.number is None:
            with pinned():
                x = self.model.base.encoder.LayerNorm(stream.x)
            return {step.output: to_array(x)}, replace(stream, x=x)
        lists = encoder_lists(self.config, step.index, stream.x.shape[1], self.device)
        with pinned():
            x, taps = self.model.base.encoder.layer[step.index](stream.x, stream.inputs.mask, lists)
        return {f"{step.name}.{name}": tap for name, tap in _arrays(taps).items()}, replace(stream, x=x)

    def finish(self, stream: Stream, positions: slice | None = None) -> Taps:
        """Run the pooler and the head."""
        x = stream.x if positions is None else stream.x[:, positions]
        with pinned():
            scores, taps = self.model.score(x, self.model.base.pool(x), **stream.beside)
        return _arrays(taps | scores)

    def call(self, inputs: Inputs) -> Taps:
        """Return what the whole model returns."""
        with pinned():
            output = self.model(**self._tensors(inputs))
        return {
            field.name: to_array(x) for field in fields(output) if hasattr(x := getattr(output, field.name), "dtype")
        }

    def call_base(self, inputs: Inputs) -> Stream:
        """Call the base model."""
        with pinned():
            arrays, beside = self.model.split_inputs(self._tensors(inputs))
            output = self.model.base(**arrays, use_cache=False)
        return Stream(output.last_hidden_state, None, beside)

    def _tensors(self, inputs: Inputs) -> dict[str, Tensor]:
        import torch

        return {name: torch.from_numpy(x).to(self.device) for name, x in inputs.items()}

    def inject(self, stream: Stream, x: np.ndarray) -> Stream:
        """Put hidden states in, rounded to the model's dtype."""
        import torch

        return replace(stream, x=torch.from_numpy(np.ascontiguousarray(x)).to(self.dtype).to(self.device))

    def hidden(self, stream: Stream) -> np.ndarray:
        """Return the hidden states."""
        return to_array(stream.x)

    def loss(self, scores: Taps, labels: Inputs) -> float:
        """Return the loss by models_torch.losses."""
        import torch

        from models_torch import losses

        def to_tensor(x: np.ndarray) -> Tensor:
            return torch.from_numpy(np.array(x)).to(self.device)

        tensors = {name: to_tensor(x).to(self.scores_dtype) for name, x in scores.items()}
        targets = {name: to_tensor(x) for name, x in labels.items()}
        return float(total_loss(losses, self.config, self.model.head, tensors, targets))

    def backward(self, inputs: Inputs, labels: Inputs) -> Gradients:
        """Return the gradients of the loss by autograd."""
        import torch

        from models_torch import losses

        self.model.zero_grad()
        with pinned(gradients=True):
            given = {name: torch.from_numpy(x).to(self.device) for name, x in inputs.items()}
            arrays, beside = self.model.split_inputs(given)
            x, completed, taps = self.model.base.embed(**arrays)
            encoded = self.model.base.encoder(x, completed, output_taps=True)
            last = encoded.hidden_states[-1]
            taps[self.config.family.steps(self.config)[-2].output] = last
            scores, head_taps = self.model.score(last, self.model.base.pool(last), **beside)
            taps = {name: tap for name, tap in (taps | encoded.taps | head_taps | scores).items() if tap.requires_grad}
            for tap in taps.values():
                tap.retain_grad()
            targets = {name: torch.from_numpy(x).to(self.device) for name, x in labels.items()}
            loss = total_loss(losses, self.config, self.model.head, scores, targets)
            loss.backward()
        arrays = {name: gradient_of(x) for name, x in self.model.named_parameters()}
        weights = from_framework(arrays, self.config, self.model.head, "torch", any_pooler=True)
        return Gradients(float(loss.detach()), weights, {name: gradient_of(tap) for name, tap in taps.items()})

    def decode(self, inputs: Inputs) -> np.ndarray:
        """Return the scores [B, L, V] of one token after the other, each given the cache of those before."""
        past, found = None, []
        tokens = self._tensors(inputs)["input_ids"]
        with pinned():
            for i in range(tokens.shape[1]):
                output = self.model(tokens[:, i : i + 1], past_key_values=past, use_cache=True)
                past = output.past_key_values
                found.append(to_array(output.logits))
        return np.concatenate(found, axis=1)


def own_tensors(model: Any) -> dict[str, Any]:
    """Return a model's tensors, each once: what several modules share goes by the name that the schema knows."""
    repeated = model._repeated()
    return {name: x for name, x in model.state_dict().items() if name not in repeated}


def scale_words(model: Any, factor: float) -> None:
    """Multiply a model's word embeddings; the file that they may be mapped from stays as it is."""
    words = model.get_input_embeddings().weight
    words.data = words.data * factor


def gradient_of(x: Any) -> np.ndarray:
    """Return a tensor's gradient; zeros where it has no part in the loss."""
    return np.zeros(x.shape, np.float32) if x.grad is None else to_array(x.grad)


def _as_stored(tensor: Any) -> np.ndarray:
    """A tensor's values; bfloat16, which torch does not hand to NumPy, by its bits."""
    if str(tensor.dtype) != "torch.bfloat16":
        array: np.ndarray = tensor.numpy()
        return array
    import ml_dtypes
    import torch

    return np.asarray(tensor.view(torch.int16).numpy()).view(ml_dtypes.bfloat16)


def load(source: Source, setting: Setting) -> TorchWitness:
    """Load the torch model of a head; raises ValueError as from_pretrained."""
    config = read_folder_config(source.folder, "torch")
    cls = config.family.model_class(source.head, "torch")
    return _own(cls.from_pretrained(source.folder, init_seed=source.init_seed, **source.overrides), setting)


def make(config: BigBirdConfig, head: str, weights: Mapping[str, np.ndarray], setting: Setting) -> TorchWitness:
    """Build the torch model of a head from canonical weights."""
    model = config.family.model_class(head, "torch").from_config(config)
    model.load_arrays(to_framework(weights, config, head, "torch"))
    return _own(model.eval(), setting)


def _own(model: Any, setting: Setting) -> TorchWitness:
    """The witness of the model's family."""
    found: TorchWitness = own_module(sys.modules[__name__], model.config.family).TorchWitness(model, setting)
    return found


_REDUCED = ("allow_bf16_reduced_precision_reduction", "allow_fp16_reduced_precision_reduction")


class pinned:  # noqa: N801 (used as a function)
    """Gradients only if asked for, and sums of products in float32; afterwards all as before.

    TF32 would keep 10 bits of an operand, and CUDA may add parts of a half's sum in that half.
    """

    def __init__(self, gradients: bool = False) -> None:
        self._wants_gradients = gradients

    def __enter__(self) -> None:
        import torch

        self._gradients = torch.set_grad_enabled(self._wants_gradients)
        self._gradients.__enter__()
        self._before = (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32)
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        self._reduced = {name: getattr(torch.backends.cuda.matmul, name) for name in _REDUCED}
        for name in _REDUCED:
            setattr(torch.backends.cuda.matmul, name, False)

    def __exit__(self, *error: Any) -> None:
        import torch

        torch.set_float32_matmul_precision(self._before[0])
        torch.backends.cudnn.allow_tf32 = self._before[1]
        for name, before in self._reduced.items():
            setattr(torch.backends.cuda.matmul, name, before)
        self._gradients.__exit__(*error)


def _arrays(tensors: dict[str, Any]) -> Taps:
    return {name: to_array(x) for name, x in tensors.items() if x is not None}


def to_array(x: Any) -> np.ndarray:
    """NumPy has no bfloat16; float32 holds it exactly."""
    import torch

    found: np.ndarray = (x.float() if x.dtype == torch.bfloat16 else x).cpu().numpy()
    return found
