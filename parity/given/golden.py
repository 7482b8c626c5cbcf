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
from bigbird_port.families.family import Family, Head, Step, Tap
from bigbird_port.families.place import LAYER
from bigbird_port.families.registry import default_family, families
from bigbird_port.files.reading import check_regular
from bigbird_port.sparse.pattern import layer_pattern
from parity.given.inputs import DECODER_IDS, Inputs, select_inputs

Taps = dict[str, np.ndarray]


@dataclass(frozen=True)
class GoldenCase:
    """One evaluation of the original: its inputs, what it computed, its configured length, and the model's family.

    label_smoothing: of a summary's loss.
    """

    path: Path
    inputs: Inputs
    tensors: Taps
    max_encoder_length: int
    family: Family = field(default_factory=default_family)
    label_smoothing: float = 0.0

    @property
    def head(self) -> str:
        """The head that was evaluated; raises ValueError where the case holds no head's scores."""
        if (head := _head_of(self.family, self.tensors)) is not None:
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
    family = next((family for family in families() if _head_of(family, tensors)), default_family())
    given = {_GIVEN.get(name, name): x for name, x in tensors.items()}
    inputs = select_inputs(
        {name: x for name, x in given.items() if name in ("input_ids", "token_type_ids", DECODER_IDS)}, str(path)
    )
    smoothing = float(metadata.get("label_smoothing", 0))
    return GoldenCase(path, inputs, tensors, int(metadata["max_encoder_length"]), family, smoothing)


def _head_of(family: Family, tensors: Taps) -> Head | None:
    """The head of a family whose scores the tensors of a case are."""
    for head in family.heads.values():
        if head.original and all(original.log_probs in tensors for original in head.original):
            return head
    return None


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
        if name in _INPUTS or name.startswith("grad.") or _WRITTEN.fullmatch(name):
            continue
        tap = tap_name(name, case.family)
        place = case.family.place(tap)
        axes = place.tap.names if place else ()
        taps[tap] = values.take(np.arange(length), axis=axes.index("length")) if "length" in axes else values
    return taps


def excuse(name: str, head: str, config: BigBirdConfig) -> bool:
    """Whether a golden tensor rightly has no tap in a run of ``head``: gradients, and what another head computed.

    What the original wrote is compared elsewhere (parity/run/writing.py).
    """
    if config.family.heads[head].writes and _WRITTEN.fullmatch(name):
        return False
    place = config.family.place(tap_name(name, config.family), head)
    return name.startswith("grad.") or (name not in _INPUTS and (place is None or not place.tap.exists(config)))


_WRITTEN = re.compile(r"(greedy|beam\d+_alpha[\d.]+)\.(ids|beams|scores)")
_GIVEN = {"decoder.input_ids": DECODER_IDS}  # what cases call inputs otherwise
_INPUTS = {
    "input_ids",
    "decoder.input_ids",
    "target_ids",
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
    """Return what golden cases call the hidden states that go into a head; empty where that is a tap of a stage."""
    family = config.family
    place = family.place(family.steps(config)[-2].output)
    whole = (tap for tap in family.whole if tap.golden and place and tap != place.tap)
    found = (tap.name for tap in whole if place and tap.kind == place.tap.kind)
    return next(found, "")


def derived_taps(taps: Taps, case: GoldenCase, config: BigBirdConfig) -> Taps:
    """Return, from a run's taps, what the original reports: random blocks, log-probabilities and losses (float64)."""
    name, steps = reported_hidden(config), case.family.steps(config)
    derived = {name: taps[steps[-2].output]} if name else {}
    for step in steps:
        derived |= derived_of_step(step, case, config)
    return derived | derived_scores(taps, case, case.head)


def derived_of_step(step: Step, case: GoldenCase, config: BigBirdConfig) -> Taps:
    """Return the random blocks of a layer as the original reports them, int32 [N, n-2, r].

    There are none in full attention, nor of a stage that does not attend by blocks.
    """
    tap = next((tap for tap in case.family.whole if tap.has("random") and reports(step, tap)), None)
    if tap is None or (pattern := layer_pattern(config, step.index, case.inputs["input_ids"].shape[1])) is None:
        return {}
    return {tap.name.replace(LAYER, str(step.index)): pattern.key_blocks[:, :, -config.num_random_blocks :]}


def reports(step: Step, tap: Tap) -> bool:
    """Whether what the original reports beside the stages is of a module of this one, which has a number."""
    return step.number is not None and any(tap.module == own.module for own in step.stage.taps)


def derived_scores(taps: Taps, case: GoldenCase, head: str) -> Taps:
    """Return, from the scores of ``head``, the log-probabilities and losses that the original reports (float64)."""
    derived: Taps = {}
    for original in case.family.heads[head].original:
        labels = [case.tensors[name] for name in original.labels if name in case.tensors]
        if original.scores in taps and len(labels) == len(original.labels):
            log_probs = derived[original.log_probs] = log_softmax(taps[original.scores])
            if original.smoothed:
                derived[original.log_probs] = _at_labels(log_probs, labels[0]) * (labels[0] != 0)
                pairs = zip(original.smoothed, (case.label_smoothing, 0.0), strict=True)
                derived |= {name: _smoothed(log_probs, labels[0], smoothing) for name, smoothing in pairs}
                continue
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


def _at_labels(log_probs_BTV: np.ndarray, ids_BT: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.take_along_axis(log_probs_BTV, ids_BT[..., None].astype(np.int64), axis=-1)[..., 0]
    return found


def _smoothed(log_probs_BTV: np.ndarray, ids_BT: np.ndarray, smoothing: float) -> np.ndarray:
    """The cross entropy of smoothed labels at all places, less their own entropy, by the labels that are not 0."""
    at_BT, rest = _at_labels(log_probs_BTV, ids_BT), smoothing / (log_probs_BTV.shape[-1] - 1)
    losses_BT = -(1 - smoothing) * at_BT - rest * (log_probs_BTV.sum(axis=-1) - at_BT)
    if smoothing:
        losses_BT = losses_BT + (1 - smoothing) * np.log(1 - smoothing) + smoothing * np.log(rest + 1e-20)
    return np.array([losses_BT.sum() / (ids_BT != 0).sum()])
