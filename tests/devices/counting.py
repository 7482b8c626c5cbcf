"""Counts the operations that a torch model asks of a device that is not there: a fake CUDA device, or "meta"."""

import contextlib
import functools
import shutil
import subprocess
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bigbird_port.sparse.formulation import FORMULATIONS
from models_torch import host
from models_torch.attention import kept

# What changes how a tensor is looked at, or asks for memory: no work for a device.
_FREE = (
    "view _unsafe_view t transpose expand slice select unsqueeze squeeze permute as_strided detach alias unbind split "
    "reshape _reshape_alias empty empty_strided empty_like new_empty new_empty_strided lift_fresh split_with_sizes "
    "unflatten is_same_size device"
)
FREE = frozenset(_FREE.split())
# Threads of a device add up in these in whatever order they come.
RACING = {
    "index_add",
    "index_add_",
    "scatter_add",
    "scatter_add_",
    "index_reduce",
    "scatter_reduce",
    "put_",
    "bincount",
}


@functools.cache
def guard():
    """Compile and load the guard; skip where there is no compiler."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler, which the fake CUDA device wants")
    library = Path(tempfile.mkdtemp()) / "cuda_guard.so"
    built, source = Path(torch.__file__).parent, Path(__file__).with_name("cuda_guard.cpp")
    command = [compiler, "-shared", "-fPIC", "-std=c++20", "-O1", f"-I{built / 'include'}", str(source)]
    command += ["-o", str(library), f"-L{built / 'lib'}", "-lc10"]
    subprocess.run(command, check=True)
    torch.ops.load_library(str(library))


class Count(TorchDispatchMode):
    """The operations on a device, those that read it or copy to it, and the largest tensor in bytes."""

    def __init__(self, device):
        super().__init__()
        self.device, self.operations, self.reads, self.copies, self.largest = device, Counter(), 0, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name, result = func.overloadpacket.__name__, func(*args, **(kwargs or {}))
        given, made = (
            [x for x in tree_leaves(x) if isinstance(x, torch.Tensor)] for x in ((args, kwargs or {}), result)
        )
        devices = {x.device.type for x in (*given, *made)}
        if self.device in devices and "cpu" in devices and name in ("_to_copy", "copy_", "lift_fresh_copy"):
            self.reads += made[0].device.type == "cpu"
            self.copies += made[0].device.type == self.device
        if self.device in devices and name not in FREE:
            self.operations[name] += 1
        self.largest = max([self.largest, *(x.nbytes for x in made if x.device.type == self.device)])
        return result

    @property
    def total(self):
        return sum(self.operations.values())


@contextlib.contextmanager
def device(name, read=None, **changes):
    """A device as the formulation of CUDA has it, with changes. read: stands for what the host reads of it."""
    how = replace(FORMULATIONS["torch", "cuda"], kernels=False, **changes)
    fake = contextlib.nullcontext()
    if name == "cuda":
        guard()
        fake = FakeTensorMode(allow_non_fake_inputs=True)
    kept.forget()
    try:
        with mock.patch.dict(FORMULATIONS, {("torch", name): how}), mock.patch.object(host, "_read", read), fake:
            yield
    finally:
        kept.forget()  # fake tensors must not reach others


def count(make, shape, name="cuda", grad=False, mask=None, read=None, **changes):
    """What the second call of the model that ``make`` makes asks of the device, with its gradient if grad."""
    with device(name, read, **changes):
        with torch.device(name):
            model = make().train(grad)
        ids = torch.ones(shape, dtype=torch.long, device=name)
        mask = None if mask is None else mask.to(name)
        for _ in range(2):
            counted = Count(name)
            with counted, contextlib.nullcontext() if grad else torch.no_grad():
                output = model(ids, attention_mask=mask)
                if grad:
                    output.last_hidden_state.sum().backward()
                    model.zero_grad()
    return counted
