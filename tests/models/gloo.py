"""Functions in processes of their own, which talk over gloo on the CPU."""

import os

import torch
from torch import distributed


def run_in_processes(function, folder, size, *arguments):
    """Call function(rank, *arguments) in each of ``size`` processes and return what each found.

    function: of a module, as processes are started anew. What it returns goes through a file in ``folder``.
    """
    torch.multiprocessing.spawn(_run, (size, str(folder), function, arguments), nprocs=size)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(size)]


def _run(rank, size, folder, function, arguments):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size)
    torch.save(function(rank, *arguments), f"{folder}/{rank}.pt")
    distributed.barrier()
    # Without destructors: whoever drops a group's last reference (DDP's reducer, behind destroy_process_group) holds
    # Python's lock while it waits for gloo's thread, which may want that lock to drop what the last work refers to.
    os._exit(0)
