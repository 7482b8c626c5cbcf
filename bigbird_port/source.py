"""One source of weights, opened: which file names mean which weights, under which configuration."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bigbird_port.checkpoint.open_store import Opened, open_store
from bigbird_port.checkpoint.store import read
from bigbird_port.config import BigBirdConfig, config_from, not_carried, read_config
from bigbird_port.heads import find_head
from bigbird_port.json_object import as_json_object, read_json_object
from bigbird_port.layout import change_layout
from bigbird_port.matching import Match, head_held, infer_settings, match_names
from bigbird_port.naming import STYLES
from bigbird_port.schema import dims, weights_of


@dataclass(frozen=True)
class Source:
    """An opened source. head: whose model it holds. notes: what was inferred, in sentences."""

    opened: Opened
    config: BigBirdConfig
    head: str
    notes: tuple[str, ...]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of everything in it, by its own names."""
        return {name: stored.shape for name, stored in self.opened.store.tensors.items()}

    def match(self, head: str, config: BigBirdConfig | None = None) -> Match:
        """Match its names to the weights of ``head``; raises ValueError with one report, naming the source."""
        try:
            return match_names(self.shapes, config or self.config, head, self.opened.style, self.head)
        except ValueError as error:
            raise ValueError(f"{self.opened.path}: {error}") from None

    def weight(self, name: str, source_name: str) -> np.ndarray:
        """Read one weight in canonical layout (of its stored type); raises ValueError where its data are damaged."""
        rows = {row.name: row for row in weights_of(self.config)}
        values = read(self.opened.store, source_name)
        axes = STYLES[self.opened.style].axes(rows[name])
        return change_layout(values, axes, rows[name].axes, dims(self.config))


def open_source(
    path: Path, config_file: Path | None = None, num_attention_heads: int | None = None, head: str | None = None
) -> Source:
    """Open any source: a TensorFlow checkpoint, a SavedModel, a torch or Flax folder, the neutral form, a weight file.

    config_file: its configuration, where none lies beside it. head: whose model it is, where only the caller knows.
    Raises ValueError naming what is wrong and the next step.
    """
    opened = open_store(path, config_file)
    try:
        if opened.style in ("original", "saved-model"):
            return _from_tensorflow(opened, num_attention_heads)
        config, own_head, notes = _described(opened, config_file, head)
    except ValueError as error:
        raise ValueError(f"{opened.path}: {error}") from None
    if num_attention_heads not in (None, config.num_attention_heads):
        raise ValueError(_contradiction(num_attention_heads, f"the configuration says {config.num_attention_heads}"))
    return Source(opened, config, own_head, notes)


def _described(
    opened: Opened, config_file: Path | None, head: str | None
) -> tuple[BigBirdConfig, str, tuple[str, ...]]:
    """Configuration, head and notes as a torch, Flax or neutral source's own description says."""
    file = opened.config_file
    if opened.style == "neutral" and not config_file:
        metadata = getattr(opened.store, "metadata", {})
        origin = "the configuration in its metadata"
        values = as_json_object(metadata.get("config", "").encode(), origin)
    elif file:
        origin, values = str(file), read_json_object(file)
    else:
        raise ValueError("no configuration lies beside it: give --config FILE (the model's config.json)")
    architectures = values.get("architectures")
    named = isinstance(architectures, list) and len(architectures) == 1 and isinstance(architectures[0], str)
    if not named and head is None:
        raise ValueError(
            f"{origin}: architectures is {architectures!r}, expected one class name such as "
            "['BigBirdForMaskedLM']: it says whose weights these are; or give --head"
        )
    own_head = find_head(architectures[0]).name if named and architectures else head
    assert own_head is not None
    left = ", ".join(not_carried(values))
    notes = (f"not carried from {origin}, because it says how that file was written: {left}",) if left else ()
    return config_from(values, origin), own_head, notes


def _from_tensorflow(opened: Opened, num_heads: int | None) -> Source:
    """A checkpoint or SavedModel: the configuration from a file, else inferred from the variables."""
    shapes = {name: stored.shape for name, stored in opened.store.tensors.items()}
    inferred = infer_settings(shapes, opened.style)
    labels = {name: inferred[name] for name in ("num_labels", "classifier_style") if name in inferred}
    flags = opened.config_file
    if flags:
        config = read_config(flags).replace(**labels)
        if num_heads not in (None, config.num_attention_heads):
            raise ValueError(_contradiction(num_heads, f"{flags} says {config.num_attention_heads}"))
        notes = [f"configuration from {flags}"]
    else:
        if num_heads is not None and inferred.setdefault("num_attention_heads", num_heads) != num_heads:
            raise ValueError(_contradiction(num_heads, f"the 3-D kernels have {inferred['num_attention_heads']}"))
        if "num_attention_heads" not in inferred:
            raise ValueError(
                "no configuration lies beside the checkpoint, and 2-D kernels do not tell the number of attention "
                "heads: give --num-attention-heads (the released models have hidden_size / 64) or --config FILE"
            )
        config = BigBirdConfig(**inferred)
        defaults = ("hidden_act", "rescale_embeddings", "block_size", "num_random_blocks", "max_encoder_length")
        notes = [
            f"configuration inferred from the variables: {_settings(config, inferred)}",
            f"taken by default, as nothing tells: {_settings(config, defaults)}",
        ]
    return Source(opened, config, head_held(shapes, config, opened.style), tuple(notes))


def _contradiction(given: int | None, found: str) -> str:
    return f"--num-attention-heads is {given}, but {found}: leave it out"


def _settings(config: BigBirdConfig, names: Iterable[str]) -> str:
    return ", ".join(f"{name}={getattr(config, name)}" for name in names)
