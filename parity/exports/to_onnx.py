"""A torch model as an ONNX file.

Legend: B batch, C choices, L length.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from parity.exports.shape import LENGTH, NAMES, Shape

OPSET = 20  # the first that has gelu in one operation; onnxruntime reads it from 1.17 on
FILE = "model.onnx"
_LARGEST = (1 << 31) - (1 << 26)  # bytes of weights in one file: protobuf ends at 2 GiB
_MOST = 1 << 16  # texts or choices: a bound that a shape must have


def write_onnx(folder: Path, model: Any, shape: Shape) -> dict[str, Any]:
    """Write a model in evaluation mode, and its weights beside it where a file cannot hold them.

    Returns the fields of its Export that follow from it.
    """
    import torch

    dims = {
        axis: torch.export.Dim(axis, min=1, max=shape.longest if axis == LENGTH else _MOST)
        for axis in shape.axes
        if isinstance(axis, str)
    }
    open_axes = {i: dims[axis] for i, axis in enumerate(shape.axes) if isinstance(axis, str)}
    sizes = shape.example(batch=3)
    given = (torch.ones(sizes, dtype=torch.long), torch.ones(sizes, dtype=torch.long), torch.zeros(sizes).long())
    outputs: list[str] = []
    with torch.no_grad(), _quiet():
        exported = torch.export.export(
            _program(model, outputs), given, dynamic_shapes=dict.fromkeys(NAMES, open_axes), strict=False
        )
        program: Any = torch.onnx.export(
            exported, dynamo=True, input_names=NAMES, output_names=outputs, opset_version=OPSET, verbose=False
        )
    graph = program.model.graph
    names = {str(dim): axis for dim, axis in zip(graph.inputs[0].shape, shape.axes, strict=True)}
    for value in (*graph.inputs, *graph.outputs):
        value.shape = importlib.import_module("onnx_ir").Shape([names.get(str(dim), dim) for dim in value.shape])
    weights = sum(x.numel() * x.element_size() for x in {id(x): x for x in model.parameters()}.values())
    program.save(str(folder / FILE), external_data=weights > _LARGEST)
    return {
        "file": FILE,
        "inputs": {value.name: _described(value) for value in graph.inputs},
        "outputs": {value.name: _described(value) for value in graph.outputs},
        "details": {"opset": program.model.opset_imports[""], "external_data": weights > _LARGEST},
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from saying of its own parts what is not a user's to mend."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _program(model: Any, names: list[str]) -> Any:
    """The model as a module of three inputs, which returns an output's tensors, and writes their ``names`` down."""
    import torch

    class Program(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> dict[str, Any]:
            given = {"attention_mask": attention_mask, "token_type_ids": token_type_ids}
            output = self.model(input_ids, **given, output_attentions=False, output_hidden_states=False, **beside)
            found = {name: x for name, x in output.items() if isinstance(x, torch.Tensor)}
            names[:] = found
            return found

    cache = {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}
    beside = {"return_dict": True, **cache}
    return Program().eval()


def _described(value: Any) -> dict[str, Any]:
    """An input's or output's type and axes as JSON values."""
    shape = [dim if isinstance(dim, int) else str(dim.value) for dim in value.shape]
    return {"dtype": str(value.dtype.numpy()), "shape": shape}
