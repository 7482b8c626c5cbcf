"""Loading: from a folder that convert or transformers wrote to a model with exactly those weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import nn

from bigbird_port.config import BigBirdConfig
from bigbird_port.folder import load_weights
from bigbird_port.heads import find_head
from bigbird_port.weights import initial_arrays


class BigBirdPreTrainedModel(nn.Module):
    """Base of the eight models.

    head: the head's name in the schema. initialised: canonical names of the weights that did not come from a file.
    """

    head: ClassVar[str]
    config: BigBirdConfig
    initialised: list[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.head = find_head(cls.__name__).name

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, init_seed: int | None = None, **config_overrides: Any) -> Self:
        """Load from ``folder`` (config.json and model.safetensors, or what convert wrote), in evaluation mode.

        init_seed: initialise head weights that the folder lacks from this seed; None makes them an error.
        config_overrides: fields of BigBirdConfig to change. Raises ValueError naming file, weight or field.
        """
        config, arrays, initialised = load_weights(folder, cls.head, "torch", init_seed, config_overrides)
        with torch.device("meta"):
            model = cls(config)
        model.load_arrays(arrays)
        model.initialised = initialised
        return model.eval()

    @classmethod
    def from_config(cls, config: BigBirdConfig, seed: int = 0) -> Self:
        """Build with initial weights drawn from ``seed``, the same that the Flax twin draws; evaluation mode."""
        with torch.device("meta"):
            model = cls(config)
        arrays, model.initialised = initial_arrays(model.config, cls.head, "torch", seed)
        model.load_arrays(arrays)
        return model.eval()

    def load_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take over weights under their torch names; raises RuntimeError unless names and shapes fit exactly."""
        tensors = {name: torch.from_numpy(np.require(array, requirements="W")) for name, array in arrays.items()}
        self.load_state_dict(tensors, strict=True, assign=True)
