"""Small runs of every optimizer, made from a seed: what tolerances are measured on, and faults are injected into."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from bigbird_port.conversion.convert import Settings, convert
from bigbird_port.families.registry import default_family
from bigbird_port.training.carried import Asked
from parity.training.batches import make_batches

HEAD = next(head.name for head in default_family().heads.values() if head.labels == "masked words, next sentence")
LENGTH, BATCH, BEFORE = 48, 3, 3
_SIZES: dict[str, Any] = {
    "vocab_size": 67,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
    "attention_type": "original_full",
    "initializer_range": 0.15,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "hidden_act": "gelu_new",
}
_TRAINING: dict[str, Any] = {
    "learning_rate": 2e-3,
    "num_train_steps": 60,
    "num_warmup_steps": 8,
    "use_nsp": True,
    "weight_decay_rate": 0.1,
}


def make_run(out: Path, optimizer: str, seed: int, *, training: dict[str, Any] | None = None, **sizes: Any) -> Path:
    """Write a small model with its training state, some updates old, as convert would; returns ``out``.

    training, sizes: changes of how it trains and of its configuration.
    """
    from models_torch.training import resume

    family = default_family()
    config = family.config(**(_SIZES | sizes))
    with tempfile.TemporaryDirectory() as folder:
        model = family.model_class(HEAD, "torch").from_config(config, seed)
        model.save_pretrained(Path(folder) / "model")
        given = _TRAINING | (training or {}) | {"optimizer": optimizer}
        convert(Path(folder) / "model", Path(folder) / "begun", Settings(training=Asked(fresh=True, given=given)))
        run = resume(Path(folder) / "begun", loss_style="original")
        for batch in make_batches(config, HEAD, BEFORE, BATCH, LENGTH, seed + 10_000):
            run.train_step(batch)
        run.save(Path(folder) / "saved")
        convert(Path(folder) / "saved", out, Settings(training=Asked()))
    return out
