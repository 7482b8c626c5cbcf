"""What goes wrong where a run of the original goes on under torch's AdamW, measured against the original's own steps.

    python -m benchmarks.training [CHECKPOINT STEPS]

CHECKPOINT is a checkpoint of the original with AdamWeightDecay's slots, STEPS the steps that it took from there;
without them those of tests/golden/mini-training. Every way begins with the same weights, takes the
same batches and has the original's rates; the printed table is the one of docs/training.md.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bigbird_port.conversion.convert import Settings, convert
from bigbird_port.training.carried import Asked
from models_torch.training import TrainingRun
from models_torch.training.state import make_schedule
from parity.training.compare import known
from parity.training.golden import read_steps
from parity.training.runs import TorchSteps

GOLDEN = Path(__file__).parents[1] / "tests/golden/mini-training"
_NEVER = 2.0**24  # of AdamW's count: beta to this power is 0, and its correction is off


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], prog="python -m benchmarks.training")
    parser.add_argument("checkpoint", nargs="?", type=Path, default=GOLDEN / "model.ckpt-10")
    parser.add_argument("steps", nargs="?", type=Path, default=GOLDEN / "steps.safetensors")
    arguments = parser.parse_args()
    print("\n".join(table(arguments.checkpoint, arguments.steps)))


def table(checkpoint: Path, file: Path) -> list[str]:
    """The lines of the table."""
    lines = ["| way | off | worst weight | worst loss |", "|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        convert(checkpoint, out, Settings(to=("torch",), training=Asked()))
        for name, change in WAYS.items():
            off, weight, loss = measured(out, file, change)
            lines.append(f"| {name} | {off:.2g} | {weight:.2g} | {loss:.2g} |")
    return lines


def measured(out: Path, file: Path, change: Callable[[TrainingRun], None]) -> tuple[float, float, float]:
    """How far the end of a way is off, in units of the distance that the original moved; its worst weight and loss."""
    steps = TorchSteps(out, None)
    golden = read_steps(file)
    golden.check(steps.run.resumed)
    begin = steps.state()
    change(steps.run)
    count = golden.count
    losses = [steps.step(batch).loss for batch in golden.batches(count)]
    end, found = golden.after(count, 0.0).state, _weights(steps)
    idle = known(out).idle
    weights = [name for name in end if "/" not in name and name not in idle]
    moved = _distance(begin, end, weights)
    worst = max(float((np.abs(found[x] - end[x]) / np.maximum(np.abs(end[x]), 0.05)).max()) for x in weights)
    series = [golden.after(n, 0.0).said.loss for n in range(1, count + 1)]
    return _distance(found, end, weights) / moved, worst, float(np.abs(np.subtract(losses, series)).max())


def _weights(steps: TorchSteps) -> dict[str, np.ndarray]:
    from parity.training.runs import canonical_state

    resumed = steps.run.resumed
    own = {name: x.detach().numpy() for name, x in steps.run.model.named_parameters() if name in resumed.slots}
    return canonical_state(resumed, "torch", own, {})


def _distance(one: dict[str, np.ndarray], other: dict[str, np.ndarray], names: list[str]) -> float:
    return float(np.sqrt(sum(((one[name] - other[name]) ** 2).sum() for name in names)))


def adamw(step: float, moments: bool, decays: Callable[[str], bool] | None = None) -> Callable[[TrainingRun], None]:
    """A way that goes on with torch.optim.AdamW, its count at ``step`` (-1: the run's)."""

    def change(run: TrainingRun) -> None:
        training = run.resumed.state.training
        groups: list[dict[str, Any]] = [{**group, "params": list(group["params"])} for group in _groups(run, decays)]
        betas = (training.beta1, training.beta2)
        ours, other = run.optimizer, torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=training.epsilon)
        for group in other.param_groups:
            for parameter in group["params"] if moments else ():
                own = ours.state[parameter]
                count = torch.tensor(float(run.step if step < 0 else step))
                other.state[parameter] = {"step": count, "exp_avg": own["m"], "exp_avg_sq": own["v"]}
        run.optimizer, run.schedule = other, make_schedule(run.resumed, other)

    return change


def _groups(run: TrainingRun, decays: Callable[[str], bool] | None) -> Iterator[dict[str, Any]]:
    names = {parameter: name for name, parameter in run.model.named_parameters()}
    rate = run.resumed.state.training.weight_decay_rate
    trained = [parameter for group in run.optimizer.param_groups for parameter in group["params"]]
    if decays is None:
        yield from ({"params": g["params"], "weight_decay": g["weight_decay"]} for g in run.optimizer.param_groups)
        return
    for wanted in (True, False):
        own = [parameter for parameter in trained if decays(names[parameter]) == wanted]
        yield {"params": own, "weight_decay": rate if wanted else 0.0}


def right(run: TrainingRun) -> None:
    """The original's rule."""


def _lost(run: TrainingRun) -> None:
    for state in run.optimizer.state.values():
        state["m"].zero_()
        state["v"].zero_()


def _usual_list(run: TrainingRun) -> None:
    from parity.training.faults import FAULTS

    next(fault for fault in FAULTS if fault.name == "no-decay-on-transform").inject(run)


WAYS: dict[str, Callable[[TrainingRun], None]] = {
    "`resume`: AdamWeightDecay, moments kept": right,
    "AdamW, moments kept, step = 2^24": adamw(_NEVER, True),
    "AdamW, moments kept, step = that of the checkpoint": adamw(-1, True),
    "AdamW, moments kept, step = 0": adamw(0, True),
    "AdamW, fresh moments": adamw(0, False),
    "the right rule, moments lost": _lost,
    "the right rule, transform's LayerNorm not decayed": _usual_list,
}


if __name__ == "__main__":
    main()
