"""A Flax model as a StableHLO program, and as a SavedModel that holds one.

Legend: B batch, C choices, L length.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bigbird_port.formats.filling import write_arrays
from bigbird_port.formats.safetensors.writer import SafetensorsFormat
from bigbird_port.sparse.formulation import exporting
from parity.exports.shape import LENGTH, NAMES, Shape

FILE, WEIGHTS = "model.stablehlo", "weights.safetensors"
PLATFORMS = ("cpu", "cuda", "tpu")
PRECISION = "highest"  # else an accelerator rounds float32 products to fewer bits
_IDS = "int32"


def write_stablehlo(folder: Path, model: Any, dtype: str, shape: Shape) -> dict[str, Any]:
    """Write jax.export's serialised program, whose first argument is the weights by name, and those beside it.

    Returns the fields of its Export that follow from it.
    """
    import jax
    from jax import export

    weights = _weights(model, dtype)
    axes = export.symbolic_shape(", ".join(map(str, shape.axes)), constraints=_constraints(shape))
    ids = jax.ShapeDtypeStruct(axes, _IDS)
    types = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in weights.items()}
    with exporting(), jax.default_matmul_precision(PRECISION):
        program = export.export(jax.jit(_program(model)), platforms=PLATFORMS)(types, ids, ids, ids)
    (folder / FILE).write_bytes(program.serialize())
    write_arrays(folder, SafetensorsFormat({"format": "flax"}, WEIGHTS), weights)
    outputs = jax.tree.unflatten(program.out_tree, program.out_avals)
    return {
        "file": FILE,
        "inputs": _inputs(shape),
        "outputs": {name: _described(x) for name, x in outputs.items()},
        "details": {
            "calling_convention_version": program.calling_convention_version,
            "platforms": list(program.platforms),
            "matmul_precision": PRECISION,
            "weights": WEIGHTS,
        },
    }


def write_saved_model(folder: Path, model: Any, dtype: str, shape: Shape) -> dict[str, Any]:
    """Write a SavedModel with the signature serving_default, through jax2tf; TensorFlow is imported.

    Returns the fields of its Export that follow from it.
    """
    import jax

    tensorflow: Any = importlib.import_module("tensorflow")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that jax2tf is old
        jax2tf: Any = importlib.import_module("jax.experimental.jax2tf")
        axes = f"({', '.join(map(str, shape.axes))})"
        program = jax2tf.convert(
            _program(model),
            polymorphic_shapes=[None, axes, axes, axes],
            polymorphic_constraints=_constraints(shape),
            native_serialization_platforms=PLATFORMS,
            with_gradient=False,
        )
        module = tensorflow.Module()
        module.weights = {name: tensorflow.Variable(x) for name, x in _weights(model, dtype).items()}
        sizes = [axis if isinstance(axis, int) else None for axis in shape.axes]
        signature = [tensorflow.TensorSpec(sizes, _IDS, name=name) for name in NAMES]

        def serve(input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
            return program(module.weights, input_ids, attention_mask, token_type_ids)

        module.serve = tensorflow.function(serve, input_signature=signature, autograph=False)
        with exporting(), jax.default_matmul_precision(PRECISION):
            tensorflow.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})
    outputs = module.serve.get_concrete_function().structured_outputs
    return {
        "file": "",
        "inputs": _inputs(shape),
        "outputs": {
            name: {"dtype": x.dtype.name, "shape": _named(x.shape.as_list(), shape)} for name, x in outputs.items()
        },
        "details": {"signature": "serving_default", "platforms": list(PLATFORMS), "matmul_precision": PRECISION},
    }


def _program(model: Any) -> Callable[..., dict[str, Any]]:
    """The model as a function of its weights by name and three inputs, which returns an output's arrays."""
    from flax.traverse_util import unflatten_dict

    def program(weights: Any, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> dict[str, Any]:
        given = {"attention_mask": attention_mask, "token_type_ids": token_type_ids}
        params = unflatten_dict(dict(weights), sep="/")
        asked = {"output_attentions": False, "output_hidden_states": False, "return_dict": True}
        output = model(input_ids, **given, params=params, **asked)
        return {name: x for name, x in output.items() if hasattr(x, "dtype")}

    return program


def _weights(model: Any, dtype: str) -> dict[str, np.ndarray]:
    """The parameters in a type, by their path; modules cast them to their own type anyway."""
    from flax.traverse_util import flatten_dict

    return {name: np.asarray(x.astype(dtype)) for name, x in flatten_dict(model.params, sep="/").items()}


def _constraints(shape: Shape) -> tuple[str, ...]:
    return (f"{LENGTH} <= {shape.longest}",) if shape.length is None else ()


def _inputs(shape: Shape) -> dict[str, Any]:
    return {name: {"dtype": _IDS, "shape": list(shape.axes)} for name in NAMES}


def _described(x: Any) -> dict[str, Any]:
    return {"dtype": str(x.dtype), "shape": [dim if isinstance(dim, int) else str(dim) for dim in x.shape]}


def _named(sizes: list[int | None], shape: Shape) -> list[int | str]:
    """The axes of an output, whose open ones are open axes of the inputs in their order."""
    names = iter(axis for axis in shape.axes if isinstance(axis, str))
    return [next(names) if size is None else size for size in sizes]
