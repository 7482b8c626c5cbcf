"""The kernels in Triton's interpreter against float64, run as a program of its own: Triton reads its setting on import.

usage: TRITON_INTERPRET=1 python -m tests.models.kernel_cases   prints errors by case, as JSON
"""

import json
import sys
from dataclasses import replace
from unittest import mock

import torch

from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.sparse.formulation import FORMULATIONS
from bigbird_port.sparse.packing import make_packing, packed_pattern
from bigbird_port.sparse.pattern import fold_repeats, layer_pattern
from models_torch.attention import kernels
from models_torch.attention.block_sparse import block_sparse_attention
from models_torch.attention.lists import key_lists

CPU = torch.device("cpu")
# name -> block size, head size, lengths of the texts, and the configuration; "packed" makes one row of the texts
CASES = {
    "blocks of 64": (64, 64, [576], {"max_encoder_length": 1024}),
    "padding, repeats": (16, 32, [160, 47], {"random_blocks": "transformers", "max_encoder_length": 192}),
    "inside a block": (32, 16, [300], {"max_encoder_length": 1024}),
    "packed": (16, 16, [150, 40, 7], {"max_encoder_length": 1024}),
    "an odd block and head": (24, 24, [230], {"max_encoder_length": 1008}),
    "two tiles to a block": (96, 16, [800], {"max_encoder_length": 1056, "num_random_blocks": 1}),
}


def attention(name, how, dtype, wrong=False):
    """Context and gradients of one case in a formulation."""
    W, H, lengths, settings = CASES[name]
    config = BigBirdConfig(
        hidden_size=2 * H, num_attention_heads=2, max_position_embeddings=4096, block_size=W, **settings
    )
    L = max(lengths)
    mask = torch.arange(L) < torch.tensor(lengths)[:, None]
    pattern = layer_pattern(config, 1, L)
    if name == "packed":
        packing = make_packing(mask.numpy(), W)
        pattern = packed_pattern(fold_repeats(pattern), packing)
        mask = torch.nn.functional.pad(mask, (0, -L % W)).view(-1, W)[packing.blocks.tolist()].view(1, -1)
    B, L = mask.shape
    draw = torch.Generator().manual_seed(0)
    q, k, v, weight = (torch.randn(B, L, 2, H, generator=draw).to(dtype).transpose(1, 2) for _ in range(4))
    qkv = [x.requires_grad_() for x in (q, k, v)]
    with mock.patch.dict(FORMULATIONS, {("torch", "cpu"): how}):
        lists = key_lists(pattern, CPU)
    if wrong:  # one query block reads another key block, which is the control
        for tasks in lists.tasks:
            tasks.blocks[0, -1, 1] = (tasks.blocks[0, -1, 1] + 1) % (L // W)
    context = block_sparse_attention(*qkv, mask, lists, W)
    return context.detach(), *torch.autograd.grad((context * weight.transpose(1, 2)).sum(), qkv)


def errors(name, wrong=False):
    """The worst errors of context and gradients, against the CPU's formulation in float64."""
    how = FORMULATIONS["torch", "cuda"]
    run, calls = kernels.forward, []
    with mock.patch.object(kernels, "forward", lambda *given: calls.append(given) or run(*given)):
        found = attention(name, how, torch.float32, wrong)
        expected = attention(name, FORMULATIONS["torch", "cpu"], torch.float64)
        gathered = attention(name, replace(how, kernels=False), torch.float32)
    again = attention(name, how, torch.float32, wrong)
    return {
        "calls": len(calls),
        "errors": [float((a - b).abs().max()) for a, b in zip(found, expected, strict=True)],
        "gathered": [float((a - b).abs().max()) for a, b in zip(gathered, expected, strict=True)],
        "largest": [float(x.abs().max()) for x in expected],
        "same bits again": all(torch.equal(a, b) for a, b in zip(found, again, strict=True)),
    }


CONTROLLED = "inside a block"

if __name__ == "__main__":
    names = sys.argv[1:] or list(CASES)
    result = {name: errors(name) for name in names}
    if CONTROLLED in names:
        result["control"] = errors(CONTROLLED, wrong=True)
    print(json.dumps(result))  # noqa: T201
