"""Golden cases: outputs of the original code, and what in a run they are to be compared with.

Legend: B batch, L length, V vocabulary.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.families.family import Family
from bigbird_port.families.place import LAYER
from bigbird_port.families.registry import default_family
from bigbird_port.files.reading import check_regular
from bigbird_port.sparse.pattern import layer_pattern
from parity.given.inputs import Inputs, select_inputs

Taps = dict[str, np.ndarray]


@dataclass(frozen=True)
class GoldenCase:
    """One evaluation of the original: its inputs, what it computed, its configured length, and the model's family."""

    path: Path
    inputs: Inputs
    tensors: Taps
    max_encoder_length: int
    family: Family = field(default_factory=default_family)

    @property
    def head(self) -> str:
        """The head that was evaluated; raises ValueError where the case holds no head's scores."""
        for head in self.family.heads.values():
            if head.original and all(original.log_probs in self.tensors for original in head.original):
                return head.name
        wanted = "; or ".join(
            " and ".join(original.log_probs for original in head.original)
            for head in self.family.heads.values()
            if head.original
        )
        raise ValueError(f"{self.path}: a golden case of no head: expected {wanted}")


def read_golden(path: Path) -> GoldenCase:
    """Read a golden case; raises ValueError naming the file and what is wrong with it."""
    try:
        check_regular(path)
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: expected a golden case (.safetensors), but it cannot be read: {error}") from None
    if not metadata.get("max_encoder_length", "").isdigit():
        raise ValueError(f"{path}: not a golden case: its metadata has no max_encoder_length")
    inputs = select_inputs(
        {name: x for name, x in tensors.items() if name in ("input_ids", "token_type_ids")}, str(path)
    )
    return GoldenCase(path, inputs, tensors, int(metadata["max_encoder_length"]))


def golden_taps(case: GoldenCase, names: list[str]) -> tuple[Taps, list[str]]:
    """Return the golden tensors under the taps' names, cut to the inputs' length, and those without a tap.

    names: the taps that the run has, in order. What the original returns is padded to its effective length.
    """
    taps = tensors_as_taps(case)
    left_over = [name for name in case.tensors if name not in _INPUTS and tap_name(name, case.family) not in names]
    return {name: taps[name] for name in names if name in taps}, sorted(left_over)


def tensors_as_taps(case: GoldenCase) -> Taps:
    """Return every golden tensor but inputs and gradients under its tap's name, cut to the inputs' length."""
    length = case.inputs["input_ids"].shape[1]
    taps: Taps = {}
    for name, values in case.tensors.items():
        if name in _INPUTS or name.startswith("grad."):
            continue
        tap = tap_name(name, case.family)
        place = case.family.place(tap)
        axes = place.tap.names if place else ()
        taps[tap] = values.take(np.arange(length), axis=axes.index("length")) if "length" in axes else values
    return taps


def excuse(name: str, head: str, config: BigBirdConfig) -> bool:
    """Whether a golden tensor rightly has no tap in a run of ``head``: gradients, and what another head computed."""
    place = config.family.place(tap_name(name, config.family), head)
    return name.startswith("grad.") or (name not in _INPUTS and (place is None or not place.tap.exists(config)))


_INPUTS = {
    "input_ids",
    "token_type_ids",
    "masked_lm_positions",
    "masked_lm_ids",
    "next_sentence_labels",
    "labels",
}


def tap_name(name: str, family: Family) -> str:
    """Return the tap that holds what a golden tensor holds; the tensor's own name where no tap says that it does."""
    for tap in family.taps:
        called = re.escape(tap.golden).replace(re.escape(LAYER), r"(\d+)")
        if tap.golden and (match := re.fullmatch(called, name)):
            return tap.name.replace(LAYER, match[1]) if LAYER in tap.golden else tap.name
    return name.removeprefix("hidden.")


def reported_hidden(config: BigBirdConfig) -> str:
    """Return what golden cases call the hidden states that go into a head."""
    family = config.family
    place = family.place(family.steps(config)[-2].output)
    return next(tap.name for tap in family.whole if tap.golden and place and tap.kind == place.tap.kind)


def derived_taps(taps: Taps, case: GoldenCase, config: BigBirdConfig) -> Taps:
    """Return, from a run's taps, what the original reports: random blocks, log-probabilities and losses (float64)."""
    derived = {reported_hidden(config): taps[case.family.steps(config)[-2].output]}
    for i in range(config.num_hidden_layers):
        derived |= derived_of_layer(i, case, config)
    return derived | derived_scores(taps, case, case.head)


def derived_of_layer(i: int, case: GoldenCase, config: BigBirdConfig) -> Taps:
    """Return the random blocks of layer i as the original reports them, int32 [N, n-2, r]; none in full attention."""
    pattern = layer_pattern(config, i, case.inputs["input_ids"].shape[1])
    if pattern is None:
        return {}
    return {f"rand_attn.{i}": pattern.key_blocks[:, :, -config.num_random_blocks :]}


def derived_scores(taps: Taps, case: GoldenCase, head: str) -> Taps:
    """Return, from the scores of ``head``, the log-probabilities and losses that the original reports (float64)."""
    derived: Taps = {}
    for original in case.family.heads[head].original:
        labels = [case.tensors[name] for name in original.labels if name in case.tensors]
        if original.scores in taps and len(labels) == len(original.labels):
            log_probs = derived[original.log_probs] = log_softmax(taps[original.scores])
            derived[original.loss] = _mean_of_places(log_probs, *labels) if labels[1:] else _mean(log_probs, *labels)
    return derived


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities over the last axis, float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def _mean(log_probs_BC: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The cross entropy of one label a text, [B] or [B, 1]."""
    return -log_probs_BC[np.arange(len(labels)), labels.reshape(-1)].mean(keepdims=True)


def _mean_of_places(log_probs_BLV: np.ndarray, positions: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Weighted mean over the masked positions, all of weight 1 (bigbird/pretrain/run_pretraining.py)."""
    per_token = -log_probs_BLV[np.arange(len(ids))[:, None], positions, ids]
    return np.array([per_token.sum() / (per_token.size + 1e-5)])
