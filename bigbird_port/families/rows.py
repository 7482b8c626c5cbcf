"""Rows of a schema for the layers that models are made of: embeddings, LayerNorm, dense layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bigbird_port.schema.table import Weight


def embedding(
    module: str, axes: str, original: str, path: str | None = None, flax: str = "", **rest: Any
) -> tuple[Weight]:
    """The table of an embedding; ``path`` is the frameworks' module where it is not the canonical one.

    flax: Flax's, where that is another still.
    """
    path = path or module
    torch, flax = f"{path}.weight", f"{(flax or path).replace('.', '/')}/embedding"
    return (Weight(f"{module}.embedding", axes, (original,), torch, axes, flax, axes, "normal", **rest),)


def layer_norm(
    module: str, *original: str, path: str | None = None, keras: Sequence[str] = (), **rest: Any
) -> tuple[Weight, Weight]:
    """Factors and summands of a LayerNorm; ``path`` as above."""
    path = path or module
    flax, one = path.replace(".", "/"), "hidden"
    (gammas, betas), (k_gammas, k_betas) = (
        [_leaves(modules, leaf) for leaf in ("gamma", "beta")] for modules in (original, keras)
    )
    return (
        Weight(
            f"{module}.gamma", one, gammas, f"{path}.weight", one, f"{flax}/scale", one, "ones", keras=k_gammas, **rest
        ),
        Weight(f"{module}.beta", one, betas, f"{path}.bias", one, f"{flax}/bias", one, "zeros", keras=k_betas, **rest),
    )


def dense(
    module: str,
    axes_in: str,
    axes_out: str,
    *original: str,
    path: str | None = None,
    bias: Mapping[str, Any] | None = None,
    keras: Sequence[str] = (),
    **rest: Any,
) -> tuple[Weight, Weight]:
    """Kernel and bias of a dense layer; ``path`` as above, ``bias``: what the bias's row has that the kernel's has not.

    axes_in, axes_out: of the kernel.
    """
    path = path or module
    flax = path.replace(".", "/")
    in_out, out_in = f"{axes_in} {axes_out}", f"{axes_out} {axes_in}"
    kernels, biases = (_leaves(original, leaf) for leaf in ("kernel", "bias"))
    kernel_row = Weight(
        f"{module}.kernel", in_out, kernels, f"{path}.weight", out_in, f"{flax}/kernel", in_out, "normal", **rest
    )
    bias_row = Weight(
        f"{module}.bias", axes_out, biases, f"{path}.bias", axes_out, f"{flax}/bias", axes_out, "zeros", **rest
    )
    bias_row = replace(bias_row, **(bias or {}))
    return replace(kernel_row, keras=_leaves(keras, "kernel")), replace(bias_row, keras=_leaves(keras, "bias"))


def _leaves(modules: Sequence[str], leaf: str) -> tuple[str, ...]:
    return tuple(f"{module}/{leaf}" for module in modules)
