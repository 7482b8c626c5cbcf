"""Mistakes that ports of training make, injected into torch's run: each has to be caught.

A fault is a function of a run that is about to begin. Most exchange the class of the optimizer, or its schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bigbird_port.training.resuming import read_training
from parity.training.compare import compared, known
from parity.training.run import TrainingOptions, allowed_for, taken
from parity.training.runs import TorchSteps

Inject = Callable[[Any], None]


@dataclass(frozen=True)
class TrainingFault:
    """One mistake. optimizers: under which it can be made. training, sizes: what a run needs for it to show."""

    name: str
    inject: Inject
    optimizers: tuple[str, ...] = ("AdamWeightDecay",)
    training: dict[str, Any] = field(default_factory=dict)
    sizes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Detection:
    """What became of a fault. tap: the first that was off, behind ``step``; factor: its error over what is allowed."""

    fault: str
    caught: bool
    tap: str = ""
    factor: float = 0.0
    step: int = 0


def detect(fault: TrainingFault, out: Path, options: TrainingOptions) -> Detection:
    """Inject a fault into torch's run and compare it with the reference until something is off."""
    steps = TorchSteps(out, None)
    fault.inject(steps.run)
    return first_off(fault.name, out, options, steps)


def first_off(name: str, out: Path, options: TrainingOptions, steps: TorchSteps | None = None) -> Detection:
    """Return the first difference that is more than what is allowed; steps: torch's run, None for the right one."""
    of = known(out)
    for n, values in enumerate(taken(out, None, options, {"torch": steps} if steps else None), 1):
        for pair in compared(values["torch"], values["reference"], of):
            found = pair.difference(allowed_for(pair, of.optimizer, n, options.table))
            if not found.passed:
                return Detection(name, True, pair.tap, found.excess, n)
    return Detection(name, False)


def _with_class(change: Callable[[type], type]) -> Inject:
    """A fault that is another optimizer's class, made from the right one."""

    def inject(run: Any) -> None:
        run.optimizer.__class__ = change(type(run.optimizer))

    return inject


def _updating(update: Callable[[Any, Any, Any, dict[str, Any]], None]) -> Inject:
    """A fault that is another rule: ``update(weight, gradient, state, group)``, weight by weight."""

    def changed(base: type) -> type:
        def _update(self: Any, parameters: list[Any], group: dict[str, Any]) -> None:
            for parameter in parameters:
                update(parameter, parameter.grad, self.state[parameter], group)

        return type(f"Wrong{base.__name__}", (base,), {"_update": _update})

    return _with_class(changed)


def _moved(g: Any, state: dict[str, Any], group: dict[str, Any]) -> tuple[Any, Any]:
    beta1, beta2 = group["betas"]
    m = state["m"].mul_(beta1).add_(g, alpha=1 - beta1)
    return m, state["v"].mul_(beta2).addcmul_(g, g, value=1 - beta2)


def _corrected(w: Any, g: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
    """Bias correction on, as torch.optim.AdamW has it."""
    m, v = _moved(g, state, group)
    beta1, beta2 = group["betas"]
    count = int(state["step"]) + 1
    u = (m / (1 - beta1**count)) / ((v / (1 - beta2**count)).sqrt() + group["eps"])
    w.sub_(group["lr"] * (u + group["weight_decay"] * w))


def _inside(w: Any, g: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
    """Epsilon inside the root."""
    m, v = _moved(g, state, group)
    w.sub_(group["lr"] * (m / (v + group["eps"]).sqrt() + group["weight_decay"] * w))


def _before(w: Any, g: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
    """Decay before the moments, as torch.optim.Adam has it."""
    m, v = _moved(g + group["weight_decay"] * w, state, group)
    w.sub_(group["lr"] * m / (v.sqrt() + group["eps"]))


def _wide_beta(w: Any, g: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
    """1 - beta of the double, in TensorFlow's Adam."""
    power1, power2 = float(state["beta1_power"]), float(state["beta2_power"])
    m, v = _moved(g, state, group)
    rate = group["lr"] * (1 - power2) ** 0.5 / (1 - power1)
    w.sub_(rate * m / (v.sqrt() + group["eps"]))
    for power, beta in zip(("beta1_power", "beta2_power"), group["betas"], strict=True):
        state[power].mul_(beta)


def _unfactored(w: Any, g: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
    """Small matrices unfactored, as optax's min_dim_size_to_factor 128 has them."""
    kept = 1 - (int(state["step"]) + 1) ** -0.8
    if w.ndim > 1 and "whole" not in state:
        row, column = state["row"], state["column"]
        state["whole"] = row[:, None] * column[None, :] / row.mean()
    v = state["whole" if w.ndim > 1 else "v"]
    v.mul_(kept).add_(g.square() + 1e-30, alpha=1 - kept)
    if w.ndim > 1:
        state["row"], state["column"] = v.mean(-1), v.mean(-2)
    x = g * v.rsqrt()
    x = x / x.square().mean().sqrt().clamp(min=1.0)
    w.sub_(x * w.square().mean().sqrt().clamp(min=1e-3) * group["lr"])


def _decay_layer_norm(run: Any) -> None:
    run.optimizer.param_groups[1]["weight_decay"] = run.optimizer.param_groups[0]["weight_decay"]


def _decay_by_torchs_names(run: Any) -> None:
    """No decay on what has LayerNorm in torch's name, as usual lists have it."""
    decaying, others = run.optimizer.param_groups
    names = {id(parameter): name for name, parameter in run.model.named_parameters()}
    moved = [p for p in decaying["params"] if "LayerNorm" in names[id(p)]]
    decaying["params"] = [p for p in decaying["params"] if "LayerNorm" not in names[id(p)]]
    others["params"] = [*others["params"], *moved]


def _scheduled(rate: Callable[[int, Any], float]) -> Inject:
    """A fault that is another schedule: the rate over its peak, of the updates so far."""

    def inject(run: Any) -> None:
        training, schedule = run.resumed.state.training, run.schedule
        schedule.lr_lambdas = [lambda step: rate(step, training)] * len(schedule.lr_lambdas)
        for group in run.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * rate(schedule.last_epoch, training)

    return inject


def _right(step: int, of: Any) -> float:
    warmup, total = of.num_warmup_steps, of.num_train_steps
    return step / warmup if step < warmup else 1 - min(step, total) / total


def _from_warmup(step: int, of: Any) -> float:
    """As transformers' get_linear_schedule_with_warmup."""
    warmup, total = of.num_warmup_steps, of.num_train_steps
    return step / warmup if step < warmup else max(0.0, (total - step) / (total - warmup))


def _off_by_one(step: int, of: Any) -> float:
    return (step + 1) / of.num_warmup_steps if step < of.num_warmup_steps else _right(step, of)


def _clipped(run: Any) -> None:
    from torch.nn.utils import clip_grad_norm_

    run.optimizer.register_step_pre_hook(lambda *_: clip_grad_norm_(run.model.parameters(), 1.0) and None)


def _each_state(change: Callable[[dict[str, Any]], None]) -> Inject:
    def inject(run: Any) -> None:
        for state in run.optimizer.state.values():
            change(state)

    return inject


def _swapped(state: dict[str, Any]) -> None:
    state["m"], state["v"] = state["v"], state["m"]


def _zeroed(state: dict[str, Any]) -> None:
    for kind in ("m", "v"):
        state[kind].zero_()


def _factors_swapped(state: dict[str, Any]) -> None:
    """Of square matrices, where nothing but the values tells."""
    if "row" in state and state["row"].shape == state["column"].shape:
        state["row"], state["column"] = state["column"], state["row"]


def _twice(run: Any) -> None:
    """The tied table in two places, each with an update of its own."""
    words = run.model.get_input_embeddings().weight

    def again(optimizer: Any, *_: Any) -> None:
        import torch

        group = next(group for group in optimizer.param_groups if any(p is words for p in group["params"]))
        with torch.no_grad():
            optimizer._update([words], group)

    run.optimizer.register_step_post_hook(again)


def _all_train(run: Any) -> None:
    """What the original holds still, or has not, trains as well."""
    held = [p for name, p in run.model.named_parameters() if name not in run.resumed.slots]
    for parameter in held:
        parameter.requires_grad_(True)
    run.optimizer.add_param_group({"params": held, "lr": run.optimizer.param_groups[0]["lr"]})
    run.schedule.lr_lambdas.append(run.schedule.lr_lambdas[0])
    run.schedule.base_lrs.append(run.schedule.base_lrs[0])


WARMING = {"num_warmup_steps": 30}
FAULTS: tuple[TrainingFault, ...] = (
    TrainingFault("bias-correction", _updating(_corrected)),
    TrainingFault("epsilon-inside-the-root", _updating(_inside)),
    TrainingFault("decay-before-the-moments", _updating(_before)),
    TrainingFault("decay-on-layer-norm", _decay_layer_norm),
    TrainingFault("no-decay-on-transform", _decay_by_torchs_names),
    TrainingFault("rate-of-the-step-after", _scheduled(lambda step, of: _right(step + 1, of))),
    TrainingFault("decay-from-the-end-of-warmup", _scheduled(_from_warmup)),
    TrainingFault("warmup-off-by-one", _scheduled(_off_by_one), training=WARMING),
    TrainingFault("clipping-at-1", _clipped),
    TrainingFault("moments-swapped", _each_state(_swapped), ("AdamWeightDecay", "Adam")),
    TrainingFault("moments-zeroed", _each_state(_zeroed), ("AdamWeightDecay", "Adam")),
    TrainingFault("factors-swapped", _each_state(_factors_swapped), ("Adafactor",)),
    TrainingFault("min-dim-size-128", _updating(_unfactored), ("Adafactor",)),
    TrainingFault("beta2-in-float64", _updating(_wide_beta), ("Adam",)),
    TrainingFault("tied-weight-updated-twice", _twice),
    TrainingFault("frozen-bias-trained", _all_train, sizes={"use_bias": False}),
)


def faults_of(optimizer: str) -> Iterator[TrainingFault]:
    """Yield the faults that can be made under an optimizer."""
    yield from (fault for fault in FAULTS if optimizer in fault.optimizers)


def detection_matrix(
    out: Path, options: TrainingOptions, say: Callable[[str], None] = lambda line: None
) -> list[dict[str, Any]]:
    """Inject every fault that can be made in this run, and return a record of each, as reports take them.

    A fault that this run does not show, such as one of warmup behind its end, is said and left out.
    """
    of = known(out)
    records = []
    for fault in faults_of(of.optimizer):
        if why := _hidden(fault, out, options):
            say(f"fault {fault.name}: not injected: {why}")
            continue
        found = detect(fault, out, options)
        say(
            f"fault {fault.name}: "
            + (f"caught at {found.tap} behind update {found.step}" if found.caught else "MISSED")
        )
        head = read_training(out, "torch", None).head
        records.append({"fault": fault.name, "head": head, "caught": found.caught, "changes": True, "tap": found.tap,
                        "factor": found.factor})  # fmt: skip
    return records


def _hidden(fault: TrainingFault, out: Path, options: TrainingOptions) -> str:
    """Why a fault cannot show in a run; empty where it can."""
    resumed = read_training(out, "torch", None)
    training, step = resumed.state.training, resumed.state.global_step
    if fault.name == "warmup-off-by-one" and step >= training.num_warmup_steps:
        return "the warmup is over"
    if fault.name == "decay-from-the-end-of-warmup" and step + options.steps <= training.num_warmup_steps:
        return "all steps are of the warmup"
    if fault.name == "frozen-bias-trained" and not resumed.not_trained:
        return "nothing is held still"
    if "decay" in fault.name and "warmup" not in fault.name and not training.weight_decay_rate:
        return "nothing decays"
    return ""
