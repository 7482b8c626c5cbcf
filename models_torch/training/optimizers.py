"""The original's three optimizers. None clips gradients; torch's own rules of these names are other ones.

Sources: bigbird/core/optimization.py of google-research/bigbird, utils/adafactor.py of tensorflow/tensor2tensor,
tensorflow/python/training/adam.py of tensorflow/tensorflow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate
from torch.optim import Optimizer

Closure = Callable[[], Any] | None
_LEAST_SQUARE, _LEAST_SCALE = 1e-30, 1e-3  # of Adafactor's gradients, and of its weights


class _Original(Optimizer):
    """What the three have in common: the state begins at its first step, and ``step`` counts the updates before it.

    The count is an integer tensor on the CPU, so that a state_dict carries it.
    """

    def _begin(self, state: dict[str, Any], parameter: Tensor, group: dict[str, Any]) -> None:
        raise NotImplementedError

    def _update(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        raise NotImplementedError

    @torch.no_grad()
    def step(self, closure: Closure = None) -> Any:
        """Update every parameter that has a gradient; returns what ``closure`` does, which is called first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            for parameter in parameters:
                if not self.state[parameter]:
                    self.state[parameter]["step"] = torch.tensor(0, dtype=torch.int64)
                    self._begin(self.state[parameter], parameter, group)
            if parameters:
                self._update(parameters, group)
            for parameter in parameters:
                self.state[parameter]["step"] += 1
        return loss

    def _lists(self, parameters: list[Tensor], foreach: bool | None, *names: str) -> Iterable[list[list[Tensor]]]:
        """Yield parameters, gradients and slots as lists: all of one kind at once with foreach, else one by one.

        None is foreach on accelerators alone, as torch's own: one by one takes less memory.
        """
        rows: dict[Any, list[list[Any]]] = {}
        for p in parameters:
            together = p.device.type != "cpu" if foreach is None else foreach
            kind = (p.device, p.dtype, p.device_mesh if isinstance(p, DTensor) else None) if together else id(p)
            rows.setdefault(kind, []).append([p, p.grad, *(self.state[p][name] for name in names)])
        for own in rows.values():
            yield [list(column) for column in zip(*own, strict=True)]


class AdamWeightDecay(_Original):
    """Adam without correction of its bias, epsilon outside the root, and decay of the weight times the rate.

    state: m, v of the parameter's shape, step. params: parameters or groups, of which those that do not decay have
    weight_decay 0. foreach: each operation updates all parameters; None: on accelerators alone.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        *,
        foreach: bool | None = None,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "foreach": foreach}
        super().__init__(params, _checked(defaults))

    def _begin(self, state: dict[str, Any], parameter: Tensor, group: dict[str, Any]) -> None:
        state["m"], state["v"] = torch.zeros_like(parameter), torch.zeros_like(parameter)

    def _update(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        for weights, gradients, ms, vs in self._lists(parameters, group["foreach"], "m", "v"):
            _moments(gradients, ms, vs, beta1, beta2, 1 - beta1, 1 - beta2)
            roots = torch._foreach_sqrt(vs)
            torch._foreach_add_(roots, group["eps"])
            if group["weight_decay"]:
                torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_addcdiv_(weights, ms, roots, -group["lr"])


class Adafactor(_Original):
    """Adafactor without momentum: factored wherever there are two axes, clipped at a root mean square of 1.

    state: row (means over the last axis) and column (over the last but one), or v of a parameter with fewer axes; step.
    The rate is multiplied by the weight's root mean square, at least 1e-3. Nothing decays. foreach: as of
    AdamWeightDecay.
    """

    def __init__(self, params: Any, lr: float = 0.01, *, foreach: bool | None = None) -> None:
        super().__init__(params, _checked({"lr": lr, "foreach": foreach}))

    def _begin(self, state: dict[str, Any], parameter: Tensor, group: dict[str, Any]) -> None:
        if parameter.ndim < 2:
            state["v"] = torch.zeros_like(parameter)
        else:
            state["row"], state["column"] = (_mean(torch.zeros_like(parameter), axis) for axis in (-1, -2))

    def _update(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        kept = 1 - (int(self.state[parameters[0]]["step"]) + 1) ** -0.8
        vectors = [parameter for parameter in parameters if parameter.ndim < 2]
        matrices = [parameter for parameter in parameters if parameter.ndim > 1]
        for weights, gradients, vs in self._lists(vectors, group["foreach"], "v"):
            _moved(vs, _squares(gradients), kept)
            _change(weights, torch._foreach_mul(gradients, torch._foreach_rsqrt(vs)), group["lr"])
        for weights, gradients, rows, columns in self._lists(matrices, group["foreach"], "row", "column"):
            squares = _squares(gradients)
            _moved(rows, [_mean(x, -1) for x in squares], kept)
            _moved(columns, [_mean(x, -2) for x in squares], kept)
            scales = torch._foreach_rsqrt(torch._foreach_div(rows, [x.mean(dim=-1, keepdim=True) for x in rows]))
            updates = torch._foreach_mul(gradients, [x[..., None] for x in scales])
            torch._foreach_mul_(updates, [x[..., None, :] for x in torch._foreach_rsqrt(columns)])
            _change(weights, updates, group["lr"])


class Adam(_Original):
    """TensorFlow's Adam: the rate is corrected, and epsilon is added behind the correction. Nothing decays.

    state: m, v of the parameter's shape; beta1_power and beta2_power, the powers that the next update uses; step.
    foreach: as AdamWeightDecay's.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        *,
        foreach: bool | None = None,
    ) -> None:
        super().__init__(params, _checked({"lr": lr, "betas": betas, "eps": eps, "foreach": foreach}))

    def _begin(self, state: dict[str, Any], parameter: Tensor, group: dict[str, Any]) -> None:
        state["m"], state["v"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        for name, beta in zip(("beta1_power", "beta2_power"), group["betas"], strict=True):
            state[name] = torch.tensor(beta, dtype=torch.float32)

    def _update(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        beta1, beta2 = (np.float32(beta) for beta in group["betas"])
        first = self.state[parameters[0]]  # of one group, all are updated together
        power1, power2 = float(first["beta1_power"]), float(first["beta2_power"])
        rate = group["lr"] * (1 - power2) ** 0.5 / (1 - power1)
        for weights, gradients, ms, vs in self._lists(parameters, group["foreach"], "m", "v"):
            # 1 - beta is taken of the float32: with 0.999 that is 1.3e-5 less than 0.001
            one = np.float32(1)
            _moments(gradients, ms, vs, float(beta1), float(beta2), float(one - beta1), float(one - beta2))
            roots = torch._foreach_sqrt(vs)
            torch._foreach_add_(roots, group["eps"])
            torch._foreach_addcdiv_(weights, ms, roots, -rate)
        for parameter in parameters:
            self.state[parameter]["beta1_power"].mul_(float(beta1))
            self.state[parameter]["beta2_power"].mul_(float(beta2))


def _moments(
    gradients: list[Tensor], ms: list[Tensor], vs: list[Tensor], beta1: float, beta2: float, new1: float, new2: float
) -> None:
    """Move both moments on: m = beta1 m + new1 g, v = beta2 v + new2 g^2."""
    torch._foreach_mul_(ms, beta1)
    torch._foreach_add_(ms, gradients, alpha=new1)
    torch._foreach_mul_(vs, beta2)
    torch._foreach_addcmul_(vs, gradients, gradients, new2)


def _squares(gradients: list[Tensor]) -> list[Tensor]:
    squares = list(torch._foreach_mul(gradients, gradients))
    torch._foreach_add_(squares, _LEAST_SQUARE)
    return squares


def _moved(slots: list[Tensor], means: list[Tensor], kept: float) -> None:
    """Move slots on: kept of what they were, and the rest of what is new."""
    torch._foreach_mul_(slots, kept)
    torch._foreach_add_(slots, means, alpha=1 - kept)


def _change(weights: list[Tensor], updates: Iterable[Tensor], rate: float) -> None:
    """Take updates, clipped, from the weights; the rate is multiplied by each weight's size."""
    for weight, update in zip(weights, updates, strict=True):
        size = _root_mean_square(weight).clamp(min=_LEAST_SCALE)
        weight.sub_(update * (size * rate / _root_mean_square(update).clamp(min=1.0)))


def _mean(x: Tensor, axis: int) -> Tensor:
    """The mean over an axis; on several devices it is whole where that axis was split."""
    mean = x.mean(dim=axis)
    if isinstance(mean, DTensor):
        mean = mean.redistribute(placements=[Replicate() if p.is_partial() else p for p in mean.placements])
    return mean


def _root_mean_square(x: Tensor) -> Tensor:
    return x.square().mean().sqrt()


def _checked(settings: dict[str, Any]) -> dict[str, Any]:
    """Raise ValueError for a setting that is none."""
    rules = {
        "lr": (settings["lr"] >= 0, "at least 0"),
        "betas": (all(0 <= beta < 1 for beta in settings.get("betas", ())), "two numbers from 0 to below 1"),
        "eps": (settings.get("eps", 1) > 0, "above 0"),
        "weight_decay": (settings.get("weight_decay", 0) >= 0, "at least 0"),
    }
    for name, (holds, rule) in rules.items():
        if not holds:
            raise ValueError(f"{name} is {settings[name]!r}, but it must be {rule}")
    return settings
