"""Programs, each run by its own runtime on one thread: what a witness and the check of a new program call."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bigbird_port.conversion.exports import Export
from bigbird_port.files.reading import check_regular, read_whole

Run = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


def open_program(folder: Path, export: Export) -> Run:
    """Return what runs a program: inputs by name to outputs by name.

    Raises ValueError, with the next step, where its runtime is not installed or cannot load it.
    """
    return _OPENS[export.format](folder, export)


def require(option: str, packages: Mapping[str, str]) -> None:
    """Raise ValueError for the first package that is not installed, with the command that installs it."""
    for package, install in packages.items():
        if importlib.util.find_spec(package) is None:
            raise ValueError(f"{option} needs {package}, which is not installed: run '{install}'")


ONNX = dict.fromkeys(("onnxruntime",), "pip install 'bigbird-port[onnx]'")
TENSORFLOW = {"tensorflow": "pip install tensorflow"}


def _open_onnx(folder: Path, export: Export) -> Run:
    require("running an ONNX program", ONNX)
    runtime: Any = importlib.import_module("onnxruntime")
    path = folder / export.file
    check_regular(path)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    try:
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a class of its own for every reason
        raise ValueError(f"{path}: onnxruntime cannot load it: {error}: convert it again") from None
    names = [value.name for value in session.get_outputs()]

    def run(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(names, _typed(inputs, export)), strict=True))

    return run


def _open_stablehlo(folder: Path, export: Export) -> Run:
    from jax import export as programs
    from safetensors.flax import load_file

    path, weights = folder / export.file, folder / export.details["weights"]
    try:
        program: Any = programs.deserialize(bytearray(read_whole(path)))
    except Exception as error:  # whatever the reader of a damaged file raises
        raise ValueError(f"{path}: jax.export cannot read it: {error}: convert it again") from None
    check_regular(weights)
    arrays = load_file(weights)

    def run(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = program.call(arrays, *_typed(inputs, export).values())
        return {name: _array(x) for name, x in found.items()}

    return run


def _open_saved_model(folder: Path, export: Export) -> Run:
    require("running a SavedModel", TENSORFLOW)
    tensorflow: Any = importlib.import_module("tensorflow")
    loaded = tensorflow.saved_model.load(str(folder))  # whose variables live as long as it does
    serve = loaded.signatures[export.details["signature"]]

    def run(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        assert loaded is not None
        found = serve(**{name: tensorflow.constant(x) for name, x in _typed(inputs, export).items()})
        return {name: _array(x.numpy()) for name, x in found.items()}

    return run


def _typed(inputs: Mapping[str, np.ndarray], export: Export) -> dict[str, np.ndarray]:
    """The inputs in the program's order and types."""
    return {name: inputs[name].astype(entry["dtype"]) for name, entry in export.inputs.items()}


def _array(x: Any) -> np.ndarray:
    """NumPy has no bfloat16; float32 holds it exactly."""
    array = np.asarray(x)
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


_OPENS: dict[str, Callable[[Path, Export], Run]] = {
    "onnx": _open_onnx,
    "stablehlo": _open_stablehlo,
    "saved-model": _open_saved_model,
}
