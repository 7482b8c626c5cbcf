"""Lists of key blocks on the device, and how attention runs there.

Legend: N heads, Q query blocks with a key list of their own, S slots in such a list.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bigbird_port.sparse.formulation import Formulation, formulation
from bigbird_port.sparse.pattern import Pattern, Text, fold_repeats
from bigbird_port.sparse.tasks import tasks_of
from models_torch.attention import kept, kernels
from models_torch.attention.batched import Tables, tables_of
from models_torch.attention.kernels import TaskTables, task_tables


class KeyLists(NamedTuple):
    """A Pattern on the device: key_blocks int64 [N, Q, S], counts int32 [N, Q, S], and its texts on the host.

    counts: how often each key block counts. global_blocks: each text's query blocks without a list. how: the device's
    formulation, which is chosen here and nowhere else. tables: the tasks, where all texts and heads run as one batch.
    tasks: over query blocks and over key blocks, where kernels may run. Every tensor has the heads first.
    """

    key_blocks: Tensor
    counts: Tensor
    texts: tuple[Text, ...]
    global_blocks: tuple[tuple[int, ...], ...]
    how: Formulation
    tables: Tables | None = None
    tasks: tuple[TaskTables, TaskTables] | None = None


def key_lists(pattern: Pattern | None, device: torch.device) -> KeyLists | None:
    """Move a pattern to a device; None (full attention) stays None. What is on a device other than a CPU is kept."""
    if pattern is None:
        return None
    folded, how = fold_repeats(pattern), formulation("torch", device.type)
    return kept.on_device((folded, device, how), lambda: _moved(folded, device, how))


def _moved(folded: Pattern, device: torch.device, how: Formulation) -> KeyLists:
    return KeyLists(
        torch.as_tensor(folded.key_blocks.astype("int64"), device=device),
        torch.tensor(folded.live, device=device),
        folded.texts,
        folded.global_blocks(),
        how,
        tables_of(tasks_of(folded), device) if how.batched else None,
        _tasks(folded, device) if how.kernels and kernels.installed() else None,
    )


def _tasks(folded: Pattern, device: torch.device) -> tuple[TaskTables, TaskTables]:
    over_queries, over_keys = (task_tables(tasks_of(folded, over), device) for over in (False, True))
    return over_queries, over_keys
