"""Float32 products in oneDNN, one matrix at a time.

torch multiplies with MKL, which reaches half of the rate of AMD's processors with AVX-512. There oneDNN is faster. Flax
has no counterpart, because XLA multiplies with one library on every processor.

Legend: X query blocks, of some heads; W block size, K keys, H head size.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from bigbird_port.sparse.formulation import formulation


@functools.cache
def available() -> bool:
    """Whether torch was built with oneDNN's linear layers."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def fits(x: Tensor) -> bool:
    """Whether x is float32 on the CPU."""
    return x.dtype == torch.float32 and x.device.type == "cpu"


def takes(x: Tensor) -> bool:
    """Return whether x fits and neither autograd nor autocast is on, because neither knows these products."""
    return fits(x) and available() and not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")


def faster(x: Tensor) -> bool:
    """Return whether x may be multiplied here, and is multiplied faster here than in MKL.

    It is faster on one thread. Several threads share out a batch of products, which is as fast in MKL. It may not be
    done under torch.func, whose transforms do not know this product, nor in compiled code, whose compiler chooses.
    """
    plain = not torch.compiler.is_compiling() and not torch._C._are_functorch_transforms_active()
    return plain and torch.get_num_threads() == 1 and _wide_vectors() and takes(x)


@functools.cache
def _wide_vectors() -> bool:
    return torch.backends.cpu.get_cpu_capability() == "AVX512"


def suits(q_LH: Tensor, k_KH: Tensor, bias_LK: Tensor) -> bool:
    """Whether these are query blocks, each with its keys, to be multiplied one after the other."""
    least = formulation("torch", q_LH.device.type).onednn_from
    blocks = q_LH.ndim == 3 and k_KH.ndim == 3 and len(k_KH) == len(q_LH)
    if least is None or not blocks or (bias_LK.ndim > 1 and bias_LK.shape[-2] != 1):
        return False
    return q_LH[0].numel() * k_KH.shape[1] >= least and faster(q_LH)


def product(x_WH: Tensor, weight_KH: Tensor, bias_K: Tensor | None = None) -> Tensor:
    """Return x weight^T + bias, [..., K]. The weight may be one that oneDNN has laid out (pack)."""
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x_WH, weight_KH, bias_K, "none", [], "")
    return result


def pack(weight_KH: Tensor) -> Tensor:
    """A weight in the layout that oneDNN multiplies fastest with."""
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight_KH)
    return packed


def attend(q_XWH: Tensor, k_XKH: Tensor, v_XKH: Tensor, bias_X1K: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(H) + bias) v, [X, W, H]: all that a query block needs stays in the processor's cache."""
    context_XWH = q_XWH.new_empty(*q_XWH.shape[:2], v_XKH.shape[-1])
    scaled_XWH = q_XWH / math.sqrt(q_XWH.shape[-1])
    for q_WH, k_KH, v_KH, bias_K, context_WH in _each(scaled_XWH, k_XKH, v_XKH, bias_X1K[:, 0], context_XWH):
        weights_WK = product(q_WH, k_KH, bias_K).softmax(dim=-1)
        context_WH.copy_(product(weights_WK, v_KH.T))
    return context_XWH


def attend_gradient(
    q_XWH: Tensor, k_XKH: Tensor, v_XKH: Tensor, bias_X1K: Tensor, grad_XWH: Tensor, delta_XW1: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries and keys, both yet to be scaled as the scores are, and of values.

    delta: what all scores of a query have in common in the softmax's gradient, the sum of context x gradient.
    """
    gradients = torch.empty_like(q_XWH), torch.empty_like(k_XKH), torch.empty_like(v_XKH)
    scaled_XWH = q_XWH / math.sqrt(q_XWH.shape[-1])
    for q_WH, scaled_WH, k_KH, v_KH, bias_K, grad_WH, delta_W1, dq_WH, dk_KH, dv_KH in _each(
        q_XWH, scaled_XWH, k_XKH, v_XKH, bias_X1K[:, 0], grad_XWH, delta_XW1, *gradients
    ):
        weights_WK = product(scaled_WH, k_KH, bias_K).softmax(dim=-1)
        dscores_WK = product(grad_WH, v_KH).sub_(delta_W1).mul_(weights_WK)
        dq_WH.copy_(product(dscores_WK, k_KH.T))
        dk_KH.copy_(product(dscores_WK.T, q_WH.T))
        dv_KH.copy_(product(weights_WK.T, grad_WH.T))
    return gradients


def _each(*tensors: Tensor) -> zip[tuple[Tensor, ...]]:
    return zip(*(x.unbind(0) for x in tensors), strict=True)
