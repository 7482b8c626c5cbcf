"""Training that goes on where the original stopped: its optimizers, schedules and losses, and resume."""

from bigbird_port.installed import need

need("models_flax.training", "optax")

from models_flax.training.optimizers import Adafactor, Adam, AdamWeightDecay
from models_flax.training.run import TrainingRun, resume

__all__ = ["Adafactor", "Adam", "AdamWeightDecay", "TrainingRun", "resume"]
