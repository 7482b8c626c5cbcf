"""Whole models as people have them wrapped: folders of files as bytes, for the fuzz runs of detection."""

from __future__ import annotations

import io
import tempfile
from collections import OrderedDict
from pathlib import Path

from tests.conversion.brought.wrapped import (
    AVERAGES,
    flax_tree,
    optimizer_state,
    original_arrays,
    torch_arrays,
    write_bin,
    write_bundle,
    write_config,
    write_export,
    write_msgpack,
    write_safetensors,
)

Tree = dict[str, bytes]


def whole_trees() -> list[Tree]:
    """One model in every wrapper: path in the folder -> bytes."""
    state = {"step": 7, "params": flax_tree(), "opt_state": optimizer_state(AVERAGES)}
    lightning = {"state_dict": torch_arrays(prefix="model."), "epoch": 1, "hyper_parameters": {"lr": 0.1}}
    scope, averages = original_arrays(prefix="tower0/"), original_arrays(AVERAGES, "ema/")
    writers = (
        *(
            lambda folder, prefix=prefix: write_safetensors(folder, torch_arrays(prefix=prefix), {"format": "pt"})
            for prefix in ("", "module.", "_orig_mod.", "model.module.")
        ),
        lambda folder: write_bin(folder, lightning),
        lambda folder: write_bin(folder, {"model": torch_arrays(), "ema": torch_arrays(AVERAGES)}),
        lambda folder: write_msgpack(folder, {"params": flax_tree()}),
        lambda folder: write_msgpack(folder, state),
        lambda folder: write_msgpack(folder, state, "checkpoint_500"),
        lambda folder: write_bundle(folder, scope),
        lambda folder: write_bundle(folder, scope | averages),
        lambda folder: write_export(folder, original_arrays()),
        _foreign,
        lambda folder: _orbax(folder, {".": {"params": flax_tree()}}),
        lambda folder: _orbax(folder, {"5/default": state}),
        lambda folder: _orbax(folder, {"9/params": flax_tree(), "9/state": {"step": 3}}),
    )
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for number, write in enumerate(writers):
            write(root := Path(folder) / str(number))
            files = [path for path in sorted(root.rglob("*")) if path.is_file()]
            found.append({path.relative_to(root).as_posix(): path.read_bytes() for path in files})
    return found


def _foreign(folder: Path) -> None:
    """A training checkpoint that names a class of the program that wrote it, as Lightning's do."""
    import argparse

    import torch

    tensors = OrderedDict((name, torch.from_numpy(values.copy())) for name, values in torch_arrays().items())
    data = io.BytesIO()
    torch.save({"state_dict": tensors, "hyper_parameters": argparse.Namespace(lr=0.1)}, data)
    (write_config(folder) / "last.ckpt").write_bytes(data.getvalue())


def _orbax(folder: Path, items: dict[str, dict]) -> None:
    import orbax.checkpoint

    write_config(folder)
    for item, tree in items.items():
        with orbax.checkpoint.PyTreeCheckpointer() as checkpointer:
            checkpointer.save(folder.absolute() / item, tree, force=True)
    write_config(folder)
