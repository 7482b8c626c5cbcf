"""One model on many devices: a mesh, tensor parallelism by DTensor, and FSDP2 or DDP over texts (torch 2.6 or newer).

Every process holds its part and runs the model as it is, on its own texts; tensor parallelism and FSDP2 compose.

Legend: B batch, L length, D hidden, N heads, V vocabulary.
"""

from __future__ import annotations

import functools
from typing import Any

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    PrepareModuleOutput,
    RowwiseParallel,
    parallelize_module,
)
from torch.nn.parallel import DistributedDataParallel
from torch.utils._pytree import tree_map, tree_map_only

from bigbird_port.devices.partition import mesh_sizes, partitions
from bigbird_port.families.bigbird.config import BigBirdConfig
from models_torch.bigbird.encoder import BigBirdEncoder
from models_torch.bigbird.heads import BigBirdLMPredictionHead
from models_torch.bigbird.layer import BigBirdSelfAttention
from models_torch.pretrained.model import BigBirdPreTrainedModel


def make_mesh(data: int = 1, model: int = 1, device_type: str = "cuda") -> DeviceMesh:
    """Return a mesh of data x model processes, one device each; the process group must be there (torchrun).

    data: splits texts; model: heads, inner units and vocabulary. Raises ValueError for a size below 1, RuntimeError
    where there are other than data x model processes.
    """
    sizes = mesh_sizes({"data": data, "model": model})
    return init_device_mesh(device_type, (sizes["data"], sizes["model"]), mesh_dim_names=("data", "model"))


def partition_plan(config: BigBirdConfig, head: str, sizes: dict[str, int]) -> dict[str, ParallelStyle]:
    """Return how each split module of a head's model is parallel, as bigbird_port.devices.partition's table has it.

    sizes: of the mesh axes. Raises ValueError naming the size of the model that an axis does not divide.
    """
    plan: dict[str, ParallelStyle] = {}
    for row, axes in partitions(config, head, "torch", sizes):
        module, _, leaf = row.torch.rpartition(".")
        if leaf != "weight" or "model" not in axes:
            continue
        # torch's kernels are out x in; of an embedding the rows are split, whose lookups are added up
        by_rows = axes.index("model") == 1 or row.name.endswith(".embedding")
        rows = RowwiseParallel(input_layouts=Replicate()) if row.name.endswith(".embedding") else RowwiseParallel()
        plan[module] = rows if by_rows else ColwiseParallel()
    return plan


def tensor_parallel(model: BigBirdPreTrainedModel, mesh: DeviceMesh) -> None:
    """Split heads, inner units and vocabulary of a model over the mesh axis "model", in place.

    All processes along it must be given the same texts; scores and losses are whole on each, taps hold its own heads.
    Raises ValueError naming the size of the model that the axis does not divide, and for output_attentions in a call.
    """
    axis = mesh["model"]
    plan = partition_plan(model.config, model.head, {"model": axis.size()})
    vocabulary = any(isinstance(style, RowwiseParallel) and "word_embeddings" in name for name, style in plan.items())
    for name, module in list(model.named_modules()):
        if isinstance(module, BigBirdSelfAttention):
            module.register_forward_pre_hook(functools.partial(_own_heads, axis=axis))
        elif isinstance(module, BigBirdEncoder):
            module.register_forward_pre_hook(_refuse_attentions)
        elif isinstance(module, BigBirdLMPredictionHead) and vocabulary:
            whole = Replicate()
            plan[f"{name}.transform"] = PrepareModuleOutput(
                output_layouts=whole, desired_output_layouts=whole, use_local_output=False
            )
            module.bias = nn.Parameter(distribute_tensor(module.bias.detach(), axis, [Shard(0)]))
            module.register_forward_hook(_gathered)
    parallelize_module(model, axis, plan)


def fully_sharded(model: BigBirdPreTrainedModel, mesh: DeviceMesh) -> None:
    """Shard parameters, gradients and optimizer states over the mesh axis "data" (FSDP2), in place.

    Each layer is gathered when it runs; embeddings, pooler and head with the model. After tensor_parallel, if both.
    """
    for layer in model.base.encoder.layer:
        fully_shard(layer, mesh=mesh["data"])
    fully_shard(model, mesh=mesh["data"])
    if hasattr(model, "scores_at"):  # which training calls in place of forward
        register_fsdp_forward_method(model, "scores_at")


def data_parallel(model: BigBirdPreTrainedModel, mesh: DeviceMesh) -> DistributedDataParallel:
    """Return the model with gradients averaged over the mesh axis "data" (DDP); every process holds all of it."""
    return DistributedDataParallel(model, process_group=mesh.get_group("data"))


def _own_heads(module: nn.Module, arguments: tuple[Any, ...], axis: DeviceMesh) -> tuple[Any, ...]:
    """Cut key lists and head mask, which a layer is given for all heads, to those of this process."""
    x, mask, lists, head_mask, *rest = arguments

    def own(x: Tensor) -> Tensor:
        return x.chunk(axis.size())[axis.get_local_rank()]

    lists = tree_map_only(Tensor, own, lists)  # every tensor of a KeyLists has the heads first
    return x, mask, lists, None if head_mask is None else own(head_mask), *rest


def _refuse_attentions(module: nn.Module, arguments: tuple[Any, ...]) -> None:
    _, _, _, output_attentions, *_ = arguments
    if output_attentions:
        raise ValueError("output_attentions: no process has all heads under tensor parallelism: ask on one device")


def _gathered(module: nn.Module, arguments: Any, output: Any) -> Any:
    """The language model's scores, whole on every process."""
    return tree_map(lambda x: x.full_tensor() if isinstance(x, DTensor) else x, output)
