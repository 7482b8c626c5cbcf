"""Between a training state that was read and an optimizer that has it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from bigbird_port.schema.table import dims
from bigbird_port.training.resuming import Resumed
from bigbird_port.training.settings import Training
from models_torch.pretrained.files import to_array
from models_torch.training.devices import like, whole
from models_torch.training.optimizers import Adafactor, Adam, AdamWeightDecay
from models_torch.training.schedules import linear_schedule, rsqrt_schedule


def make_optimizer(resumed: Resumed, model: nn.Module, foreach: bool | None = None) -> Optimizer:
    """Return the optimizer of a run with its slots, over the weights that train; the others require no gradient."""
    training = resumed.state.training
    trained: dict[str, nn.Parameter] = {}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in resumed.slots)
        if name in resumed.slots:
            trained[name] = parameter
    optimizer = _optimizer(training, trained, resumed.decays, foreach)
    for name, parameter in trained.items():
        state: dict[str, Any] = {"step": torch.tensor(resumed.state.global_step, dtype=torch.int64)}
        state |= {kind: like(x, parameter, kind) for kind, x in resumed.slots[name].items()}
        state |= {power: torch.tensor(x, dtype=torch.float32) for power, x in resumed.state.powers.items()}
        optimizer.state[parameter] = state
    return optimizer


def _optimizer(
    training: Training, trained: dict[str, nn.Parameter], decays: frozenset[str], foreach: bool | None
) -> Optimizer:
    if training.optimizer == "Adafactor":
        return Adafactor(list(trained.values()), training.learning_rate, foreach=foreach)
    betas = training.beta1, training.beta2
    if training.optimizer == "Adam":
        return Adam(list(trained.values()), training.learning_rate, betas, training.epsilon, foreach=foreach)
    groups = [
        {"params": [x for name, x in trained.items() if name in decays], "weight_decay": training.weight_decay_rate},
        {"params": [x for name, x in trained.items() if name not in decays], "weight_decay": 0.0},
    ]
    return AdamWeightDecay(groups, training.learning_rate, betas, training.epsilon, foreach=foreach)


def make_schedule(resumed: Resumed, optimizer: Optimizer) -> LambdaLR:
    """Return the schedule of a run, at its step."""
    training, step = resumed.state.training, resumed.state.global_step
    given = optimizer, training.learning_rate, training.num_warmup_steps
    if training.schedule == "rsqrt":
        return rsqrt_schedule(*given, dims(resumed.config)["hidden"], step)
    return linear_schedule(*given, training.num_train_steps, step)


def slot_arrays(resumed: Resumed, model: nn.Module, optimizer: Optimizer) -> tuple[dict[str, Any], dict[str, float]]:
    """Return the slots of an optimizer by CANONICAL/kind, as the weights lie here, and the powers of Adam's betas."""
    slots: dict[str, Any] = {}
    powers: dict[str, float] = {}
    for name, parameter in model.named_parameters():
        if name in resumed.slots:
            state = optimizer.state[parameter]
            row = resumed.rows[name]
            slots |= {f"{row.name}/{kind}": to_array(whole(state[kind])) for kind in resumed.slots[name]}
            powers = {power: float(state[power]) for power in resumed.state.powers}
    return slots, powers
