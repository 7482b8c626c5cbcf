"""Training that goes on where the original stopped: its optimizers, schedules and losses, and resume."""

from models_torch.training.optimizers import Adafactor, Adam, AdamWeightDecay

__all__ = ["Adafactor", "Adam", "AdamWeightDecay"]
