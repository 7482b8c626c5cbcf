"""transformers' torch classes as a witness: what their users see when they load the same files.

transformers is a peer, not a part of this project: it is loaded here if it is installed, and seen through forward
hooks only. The model runs in evaluation mode under its own configuration, random blocks and attention included.

Legend: B batch, L length, N heads, H head size.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np

from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.families.family import Step
from bigbird_port.models.folder import load_weights
from bigbird_port.schema.weights import digest, from_framework
from parity.given.inputs import Inputs
from parity.reference.own import own_module
from parity.witnesses.devices import torch_device
from parity.witnesses.with_torch import pinned, scale_words, to_array
from parity.witnesses.witness import Setting, Source, Taps


class TransformersWitness:
    """A transformers model of one head. It has most taps, and runs no layer on another input."""

    name, complete, steps, multiple = "transformers", False, False, 1

    def __init__(self, model: Any, head: str, config: BigBirdConfig, setting: Setting, fresh: list[str]) -> None:
        """Digest the loaded weights, then move the model to its dtype and device. fresh: weights of no file."""
        import torch

        self.head, self.config, self.initialised = head, config, fresh
        arrays = {name: x.numpy() for name, x in model.state_dict().items()}
        canonical = from_framework(arrays, config, head, "torch", any_pooler=True)
        self._digests = {name: digest(x) for name, x in canonical.items()}
        self.device = torch_device(setting.device)
        self.model = model.eval().to(getattr(torch, setting.dtype)).to(self.device)

    def digests(self) -> dict[str, str]:
        """Return sha256 of every weight as it was loaded, before any change of dtype."""
        return self._digests

    def scale_words(self, factor: float) -> None:
        """Scale the parameter that a tied decoder shares."""
        scale_words(self.model, factor)

    def start(self, inputs: Inputs) -> tuple[Taps, Taps]:
        """Run the whole model and return the taps of the embeddings; the stream holds all."""
        import torch

        given = {name: torch.from_numpy(x).long().to(self.device) for name, x in inputs.items()}
        ids = given["input_ids"]
        given.setdefault("attention_mask", (ids != self.config.pad_token_id).long())
        taps: Taps = {}
        hooks = list(self._hooks(taps, ids.shape[-1]))
        try:
            with pinned(), _quiet():  # what it says of its fallbacks is not ours to pass on
                output = self.model(**given)
        finally:
            for hook in hooks:
                hook.remove()
        returned = [tap.name for tap in self.config.family.heads[self.head].taps]
        taps |= {name: to_array(output[name]) for name in returned if output.get(name) is not None}
        first = {tap.name for tap in self.config.family.stages[0].taps}
        return {name: taps.pop(name) for name in list(taps) if name in first}, taps

    def step(self, step: Step, stream: Taps) -> tuple[Taps, Taps]:
        """Return the taps of a layer."""
        return {name: stream.pop(name) for name in list(stream) if name.startswith(f"{step.name}.")}, stream

    def finish(self, stream: Taps, positions: slice | None = None) -> Taps:
        """Return the scores."""
        own = {tap.name for tap in self.config.family.heads[self.head].taps}
        return {name: tap for name, tap in stream.items() if name in own}

    def inject(self, stream: Taps, x: np.ndarray) -> Taps:
        """Raise, because the hooks only listen."""
        raise NotImplementedError("transformers is run as a whole")

    def hidden(self, stream: Taps) -> np.ndarray:
        """Raise, because the hooks only listen."""
        raise NotImplementedError("transformers is run as a whole")

    def loss(self, scores: Taps, labels: Inputs) -> float:
        """Raise, as losses are compared among the complete witnesses."""
        raise NotImplementedError("transformers is not asked for its loss")

    def _hooks(self, taps: Taps, length: int) -> Iterator[Any]:
        """Register a hook on every module that shows a tap."""

        def keep(name: str) -> Callable[..., None]:
            return lambda module, given, output: taps.update({name: self._shaped(name, output, length)})

        def keep_context(name: str) -> Callable[..., None]:
            return lambda module, given: taps.update({name: self._shaped(name, given[0], length)})

        base = getattr(self.model, "bert", self.model)
        for tap in (tap for tap in self.config.family.outside if tap.torch):
            for module in (base, self.model):
                if (found := dict(module.named_modules()).get(tap.torch)) is not None:
                    yield found.register_forward_hook(keep(tap.name))
                    break
        for i, layer in enumerate(base.encoder.layer):
            for tap in self.config.family.layer:
                name = tap.name.format(i=i)
                if tap.torch.startswith("<"):  # the module itself is exchanged for short inputs
                    yield layer.get_submodule(tap.torch[1:]).register_forward_pre_hook(keep_context(name))
                else:
                    yield layer.get_submodule(tap.torch).register_forward_hook(keep(name))

    def _shaped(self, name: str, x: Any, length: int) -> np.ndarray:
        """A tap in this project's shape, without the padding to whole blocks."""
        x_BLD = to_array(x.detach())[:, :length]
        place = self.config.family.place(name)
        if place is None or not place.tap.has("heads"):
            return x_BLD
        split = x_BLD.reshape(*x_BLD.shape[:2], self.config.num_attention_heads, self.config.head_dim)
        return np.moveaxis(split, 1, place.tap.names.index("length"))


def load(source: Source, setting: Setting) -> TransformersWitness:
    """Load what convert wrote with transformers; raises ValueError where it is not installed or has no such head.

    Head weights that the folder lacks are those that this project draws from the seed.
    """
    import torch

    transformers = _transformers()
    config, arrays, initialised = load_weights(
        source.folder, source.head, "torch", source.init_seed, dict(source.overrides)
    )
    if source.head == "sequence-classification" and getattr(config, "classifier_style", "") == "original":
        raise ValueError(
            "transformers has no classification head in the original's style: leave transformers out of --against, or "
            "choose other heads with --head"
        )
    config, own = config.for_head(source.head), own_module(sys.modules[__name__], config.family)
    theirs = getattr(transformers, type(config).__name__)(**own.settings_of(config))
    folder = source.folder / "torch" if (source.folder / "torch").is_dir() else source.folder
    with torch.random.fork_rng(devices=[]), _quiet():
        cls = getattr(transformers, config.family.heads[source.head].class_name)
        model, report = cls.from_pretrained(folder, config=theirs, output_loading_info=True)
    for name in report["missing_keys"]:
        if name in arrays:
            model.get_parameter(name).data.copy_(torch.from_numpy(arrays[name]))
    found: TransformersWitness = own.TransformersWitness(model, source.head, config, setting, initialised)
    return found


def settings_of(config: Any) -> dict[str, Any]:
    """Return transformers' settings of a model; raises ValueError for one whose classes it has not."""
    if config.norm_type == "prenorm":
        raise ValueError(
            "transformers' BigBird has no norm_type prenorm: leave transformers out of --against; the reference judges "
            "such a model"
        )
    values: dict[str, Any] = config.to_dict() | {"use_cache": False}
    return values


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from logging and warning; its level is put back."""
    logging = _transformers().utils.logging
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(before)


def _transformers() -> Any:
    """The package; without TensorFlow, which it would load if it is there, and which takes seconds."""
    try:
        with mock.patch.dict(os.environ, {"USE_TF": "0"}):
            return importlib.import_module("transformers")
    except ImportError:
        raise ValueError(
            "the witness transformers is not installed: pip install 'transformers<5', or leave it out of --against"
        ) from None
