"""Convert an original TensorFlow checkpoint into a torch folder and a Flax folder, verified by reading back."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import bigbird_port
from bigbird_port.checkpoint.locate import find_checkpoint, find_flags, find_vocabulary
from bigbird_port.checkpoint.tensor_bundle import TensorBundle
from bigbird_port.config import BigBirdConfig, read_config
from bigbird_port.folder import WEIGHT_FILES, read_model_folder, write_model_folder
from bigbird_port.heads import HEADS
from bigbird_port.initialise import initial_value
from bigbird_port.layout import change_layout
from bigbird_port.matching import Match, head_held, infer_settings, match_names
from bigbird_port.output import whole_folder
from bigbird_port.schema import dims, weights_of
from bigbird_port.weights import digest

MANIFEST = "manifest.json"
MANIFEST_VERSION = 1


@dataclass(frozen=True)
class Plan:
    """What a conversion will do. vocabulary: a SentencePiece file. notes: what was inferred or chosen, in sentences."""

    bundle: TensorBundle
    config: BigBirdConfig
    head: str
    match: Match
    seed: int
    vocabulary: Path | None
    notes: tuple[str, ...]


def convert(
    source: Path,
    out: Path,
    *,
    head: str | None = None,
    config_file: Path | None = None,
    num_attention_heads: int | None = None,
    vocab: Path | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> Plan:
    """Convert the checkpoint at ``source`` into ``out``/torch, ``out``/flax and ``out``/manifest.json.

    head: name of the head to write; None takes what the checkpoint holds. seed: for head weights it lacks.
    vocab: a SentencePiece file; None takes the one that the flags name or that lies beside the checkpoint, if any.
    Raises ValueError, naming the thing and the next step, and then leaves no output.
    """
    plan = make_plan(source, head, config_file, num_attention_heads, vocab, seed)
    with whole_folder(out, overwrite) as staged:
        weights = read_weights(plan)
        for framework in WEIGHT_FILES:
            (staged / framework).mkdir()
            write_model_folder(staged / framework, weights, plan.config, plan.head, framework)
            _verify(staged, framework, weights, plan)
            if plan.vocabulary:
                _write_tokenizer(plan.vocabulary, staged / framework, plan.config)
        (staged / MANIFEST).write_text(json.dumps(_manifest(plan, weights), indent=1) + "\n", encoding="utf-8")
    return plan


def make_plan(
    source: Path,
    head: str | None = None,
    config_file: Path | None = None,
    num_attention_heads: int | None = None,
    vocab: Path | None = None,
    seed: int = 0,
) -> Plan:
    """Decide everything a conversion does, reading names and shapes only; raises ValueError as convert does."""
    bundle = TensorBundle(find_checkpoint(source))
    shapes = {name: entry.shape for name, entry in bundle.entries.items()}
    try:
        flags = config_file or find_flags(bundle.prefix)
        config, notes = _configuration(shapes, flags, num_attention_heads)
        vocabulary = vocab or find_vocabulary(bundle.prefix, flags)
        notes.append(f"vocabulary from {vocabulary}" if vocabulary else "no vocabulary found: no tokenizer is written")
        chosen = head or head_held(shapes, config)
        if config != config.for_head(chosen):
            config = config.for_head(chosen)
            notes.append(f"{chosen}: is_decoder is set, and attention is full")
        match = match_names(shapes, config, chosen)
    except ValueError as error:
        raise ValueError(f"{bundle.prefix}: {error}") from None
    return Plan(bundle, config, chosen, match, seed, vocabulary, tuple(notes))


def _configuration(
    shapes: dict[str, tuple[int, ...]], flags: Path | None, num_heads: int | None
) -> tuple[BigBirdConfig, list[str]]:
    """The configuration: from a file, else inferred from the variables; and what to say of it."""
    inferred = infer_settings(shapes)
    labels = {name: inferred[name] for name in ("num_labels", "classifier_style") if name in inferred}
    if flags:
        config = read_config(flags).replace(**labels)
        if num_heads not in (None, config.num_attention_heads):
            raise ValueError(
                f"--num-attention-heads is {num_heads}, but {flags} says {config.num_attention_heads}: leave it out"
            )
        return config, [f"configuration from {flags}"]
    if num_heads is not None and inferred.setdefault("num_attention_heads", num_heads) != num_heads:
        found = inferred["num_attention_heads"]
        raise ValueError(f"--num-attention-heads is {num_heads}, but the 3-D kernels have {found}: leave it out")
    if "num_attention_heads" not in inferred:
        raise ValueError(
            "no configuration lies beside the checkpoint, and 2-D kernels do not tell the number of attention heads: "
            "give --num-attention-heads (the released models have hidden_size / 64) or --config FILE"
        )
    config = BigBirdConfig(**inferred)
    defaults = ("hidden_act", "rescale_embeddings", "block_size", "num_random_blocks", "max_encoder_length")
    return config, [
        f"configuration inferred from the variables: {_settings(config, tuple(inferred))}",
        f"taken by default, as nothing tells: {_settings(config, defaults)}",
    ]


def _settings(config: BigBirdConfig, names: tuple[str, ...]) -> str:
    return ", ".join(f"{name}={getattr(config, name)}" for name in names)


def read_weights(plan: Plan) -> dict[str, np.ndarray]:
    """Read every weight of the plan, in canonical layout; absent ones as zeros or initialised from the seed."""
    sizes = dims(plan.config)
    weights: dict[str, np.ndarray] = {}
    for row in weights_of(plan.config, plan.head, "torch"):
        if row.name in plan.match.sources:
            values = plan.bundle.read(plan.match.sources[row.name])
            if values.dtype != np.float32:
                raise ValueError(
                    f"{plan.bundle.prefix}: {plan.match.sources[row.name]} is {values.dtype}, expected float32"
                )
            weights[row.name] = change_layout(values, row.axes, row.axes, sizes)
        else:
            filled = replace(row, init="zeros") if plan.match.fills[row.name] == "zeros" else row
            weights[row.name] = initial_value(filled, plan.config, plan.seed)
    return weights


def _write_tokenizer(vocabulary: Path, folder: Path, config: BigBirdConfig) -> None:
    from bigbird_port.tokenizers import write_tokenizer_files  # slow to import, and not always needed

    write_tokenizer_files(vocabulary, folder, config.max_position_embeddings, config.vocab_size)


def _verify(staged: Path, framework: Any, weights: dict[str, np.ndarray], plan: Plan) -> None:
    """Read back what was written and compare bit for bit."""
    again = read_model_folder(staged / framework, framework)
    if again.config != plan.config:
        raise ValueError(f"{framework}: the configuration read back differs from what was written")
    names = {row.name for row in weights_of(plan.config, plan.head, framework)}
    if again.weights.keys() != names:
        differing = sorted(again.weights.keys() ^ names)
        raise ValueError(f"{framework}: what was read back differs from what was written in {', '.join(differing)}")
    for name, values in again.weights.items():
        if values.dtype != weights[name].dtype or digest(values) != digest(weights[name]):
            raise ValueError(f"{framework}: {name} read back differs from what was written")


def _manifest(plan: Plan, weights: dict[str, np.ndarray]) -> dict[str, Any]:
    names = {row.name: row.torch for row in weights_of(plan.config, plan.head, "torch")}
    paths = {row.name: row.flax for row in weights_of(plan.config, plan.head, "flax")}
    bundle = plan.bundle
    files = [bundle.index_path, *(bundle.shard_path(shard) for shard in range(bundle.num_shards))]
    return {
        "manifest_version": MANIFEST_VERSION,
        "bigbird_port": bigbird_port.__version__,
        "head": plan.head,
        "config": plan.config.to_json_values(HEADS[plan.head].class_name),
        "source": [{"name": file.name, "size": file.stat().st_size, "sha256": _file_digest(file)} for file in files],
        "tensors": {
            name: {
                "source": plan.match.sources.get(name),
                "how": "converted" if name in plan.match.sources else plan.match.fills[name],
                "torch": names[name],
                "flax": paths.get(name),
                "shape": list(values.shape),
                "dtype": values.dtype.name,
                "sha256": digest(values),
            }
            for name, values in weights.items()
        },
        "source_names": {
            name: {"fate": fate.what, "detail": fate.detail} for name, fate in sorted(plan.match.fates.items())
        },
        "init_seed": plan.seed,
        "vocabulary": plan.vocabulary and {"name": plan.vocabulary.name, "sha256": _file_digest(plan.vocabulary)},
    }


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
